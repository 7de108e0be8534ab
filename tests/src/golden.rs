//! Golden values: one JSON object a line, the first of which says what made them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use t5_runtime::{EarlyStopping, GenerateOptions, LengthPenalty};

/// A file of golden values.
pub struct Golden {
    /// The first line: family, reference, versions, seed.
    pub header: Value,
    /// The other lines.
    pub cases: Vec<Case>,
}

impl Golden {
    /// Reads a file. Panics if it is not what the scripts under tests/golden write: then the tests are wrong.
    pub fn read(path: &Path) -> Golden {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines().enumerate().map(|(number, line)| {
            let fields = serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (number + 1, fields)
        });
        let (_, header) = lines.next().unwrap_or_else(|| panic!("{}: empty", path.display()));
        Golden { header, cases: lines.map(|(line, fields)| Case { line, fields }).collect() }
    }

    /// Cases of one kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(move |case| case.kind() == kind)
    }
}

/// One case: what goes in, what comes out.
pub struct Case {
    /// The line in its file, for messages.
    pub line: usize,
    fields: Value,
}

impl Case {
    /// What is asked for: `greedy`, `beam` …
    pub fn kind(&self) -> &str {
        self.get("kind").as_str().unwrap_or_default()
    }

    /// Whether there is such a field.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some()
    }

    /// A field that must be there.
    pub fn get(&self, key: &str) -> &Value {
        self.fields.get(key).unwrap_or_else(|| panic!("line {}: no {key}", self.line))
    }

    /// A string that must be there.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).as_str().unwrap_or_else(|| panic!("line {}: {key} is no text", self.line))
    }

    /// A number that must be there.
    pub fn number(&self, key: &str) -> f32 {
        self.get(key).as_f64().unwrap_or_else(|| panic!("line {}: {key} is no number", self.line)) as f32
    }

    /// Token ids that must be there.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        ids(self.get(key))
    }

    /// Numbers that must be there.
    pub fn floats(&self, key: &str) -> Vec<f32> {
        floats(self.get(key))
    }

    /// The n-best list of a beam search: ids and score, best first.
    pub fn n_best(&self) -> Vec<(Vec<u32>, f32)> {
        let list = self.get("n_best").as_array().expect("a list");
        list.iter().map(|entry| (ids(&entry["ids"]), floats(&entry["score"])[0])).collect()
    }

    /// The request's options, from the names that the transformers library has for them.
    pub fn options(&self) -> GenerateOptions {
        let mut options = GenerateOptions::default();
        let count = |value: &Value| value.as_u64().expect("a whole number") as usize;
        let float = |value: &Value| value.as_f64().expect("a number") as f32;
        for (key, value) in self.fields.as_object().expect("an object") {
            match key.as_str() {
                "max_new_tokens" => options.max_new_tokens = count(value),
                "min_new_tokens" => options.min_new_tokens = count(value),
                "num_beams" => {
                    options.beams = count(value);
                    options.n_best = options.beams;
                }
                "length_penalty" => options.length_penalty = LengthPenalty::HuggingFace { exponent: float(value) },
                "alpha" => options.length_penalty = LengthPenalty::T5 { alpha: float(value) },
                "early_stopping" => {
                    options.early_stopping = match value {
                        Value::Bool(true) => EarlyStopping::Yes,
                        Value::Bool(false) => EarlyStopping::No,
                        _ => EarlyStopping::Never,
                    }
                }
                "num_beam_groups" => options.beam_groups = count(value),
                "diversity_penalty" => options.diversity_penalty = float(value),
                "no_repeat_ngram_size" => options.no_repeat_ngram = count(value),
                "encoder_no_repeat_ngram_size" => options.encoder_no_repeat_ngram = count(value),
                "repetition_penalty" => options.repetition_penalty = float(value),
                "encoder_repetition_penalty" => options.encoder_repetition_penalty = float(value),
                "exponential_decay_length_penalty" => {
                    options.exponential_decay = Some((count(&value[0]), float(&value[1])));
                }
                "forced_bos_token_id" => options.forced_bos = Some(count(value) as u32),
                "forced_eos_token_id" => options.forced_eos = vec![count(value) as u32],
                "begin_suppress_tokens" => options.begin_suppress = ids(value),
                "bad_words_ids" => options.bad_words = value.as_array().expect("a list").iter().map(ids).collect(),
                "sequence_bias" => {
                    let entry = |pair: &Value| (ids(&pair[0]), float(&pair[1]));
                    options.sequence_bias = value.as_array().expect("a list").iter().map(entry).collect();
                }
                "renormalize_logits" => options.renormalize = value == true,
                "remove_invalid_values" => options.remove_invalid = value == true,
                "prefix" => options.prefix_ids = ids(value),
                "suppress_tokens" => options.suppress = ids(value),
                "allowed_tokens" => options.allowed = Some(ids(value)),
                "temperature" => options.temperature = float(value),
                "top_k" => options.top_k = count(value),
                "top_p" => options.top_p = float(value),
                "min_p" => options.min_p = float(value),
                "typical_p" => options.typical_p = float(value),
                "epsilon_cutoff" => options.epsilon_cutoff = float(value),
                "eta_cutoff" => options.eta_cutoff = float(value),
                "top_h" => options.top_h = float(value),
                "kind" | "input_ids" | "text" | "ids" | "logprobs" | "min_margin" | "n_best" | "finished"
                | "output" | "probabilities" => {}
                _ => panic!("line {}: no option is called {key}", self.line),
            }
        }
        options
    }
}

/// A list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of ids");
    list.iter().map(|id| id.as_u64().and_then(|id| id.try_into().ok()).expect("an id")).collect()
}

/// Numbers, however deeply nested, in order.
pub fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(list) => list.iter().flat_map(floats).collect(),
        _ => vec![value.as_f64().expect("a number") as f32],
    }
}

/// The largest difference of two lists, infinite if their lengths differ or a value is NaN.
pub fn difference(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}

/// Collects what is off over many cases, so that one run shows all of it.
#[derive(Default)]
pub struct Report {
    faults: Vec<String>,
    checked: usize,
    worst: BTreeMap<&'static str, f32>,
}

impl Report {
    /// Two values that must be equal.
    pub fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(&mut self, place: &str, found: &T, expected: &T) {
        self.checked += 1;
        if found != expected {
            self.faults.push(format!("{place}\n  expected {expected:?}\n  found    {found:?}"));
        }
    }

    /// Two lists that may differ by `tolerance`; `quantity` groups them in the closing line.
    pub fn close(&mut self, quantity: &'static str, place: &str, found: &[f32], expected: &[f32], tolerance: f32) {
        self.checked += 1;
        let off = difference(found, expected);
        let worst = self.worst.entry(quantity).or_default();
        *worst = worst.max(off);
        if off > tolerance {
            self.faults.push(format!("{place}: {quantity}: off by {off}, allowed {tolerance}"));
        }
    }

    /// Fails the test if anything was off, or if nothing was checked; prints the largest differences.
    #[track_caller]
    pub fn finish(self, name: &str) {
        assert!(self.checked > 0, "{name}: nothing was checked");
        println!("{name}: {} checks, largest differences {:?}", self.checked, self.worst);
        assert!(
            self.faults.is_empty(),
            "{name}: {} of {}:\n{}",
            self.faults.len(),
            self.checked,
            self.faults.join("\n")
        );
    }
}
