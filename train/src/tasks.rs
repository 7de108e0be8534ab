//! The registry of text-to-text tasks: declared in TOML, loaded into examples.
//!
//! A task has source files, a way to make (input, target) texts of their records, and metrics. After loading, the n-th
//! training example of an epoch is a pure function of (task, epoch, n, seed), so that any order can be computed again.

mod formatters;
mod loading;
mod slips;
mod text;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub(crate) use formatters::words_of_span;
pub use formatters::{Examples, Template, postprocess_stsb, winograd::wsc_score, wnli::wnli_to_wsc};
pub use loading::training_texts;
pub use slips::add_slips;
pub use text::split_sentences;

use crate::{
    Result,
    corpus::Format,
    mixture::Size,
    objectives::{self, Objective},
    random::{Permutation, derive, hash_bytes},
    vocabulary::Vocabulary,
};

/// What keeps the random streams of a task apart.
mod stream {
    pub const ORDER: u64 = 1;
    pub const EXAMPLE: u64 = 2;
    pub const DEV: u64 = 3;
    pub const TEXTS: u64 = 4;
    pub const CHUNK: u64 = 5;
}

/// One task as declared. Paths are relative to the run's data folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Unique; part of the log and of the random streams.
    pub name: String,
    /// How records are made of files.
    #[serde(default)]
    pub source: SourceConfig,
    /// Files to train on. May be empty for a task that is only evaluated.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// Files to evaluate on.
    #[serde(default)]
    pub dev: Vec<PathBuf>,
    /// Keeps a share of the training files' records for evaluation instead.
    #[serde(default)]
    pub hold_out: Option<HoldOut>,
    /// How examples are made of records.
    pub examples: Examples,
    /// Metrics of the evaluation, by name (see `metrics`).
    #[serde(default)]
    pub metrics: Vec<String>,
    /// The task's rate in the mixture, in place of its number of examples; limit and temperature leave it alone.
    #[serde(default)]
    pub rate: Option<f64>,
    /// At most this many training examples; a seeded choice.
    #[serde(default)]
    pub max_examples: Option<usize>,
    /// At most this many evaluation examples, the first ones.
    #[serde(default)]
    pub max_dev_examples: Option<usize>,
    /// Evaluates each input once, with the targets of all its lines as references; otherwise every line, as the
    /// reference does and as published figures are counted.
    #[serde(default)]
    pub merge_references: bool,
}

/// How records are made of files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    pub format: Format,
    /// TSV: the columns in order; "" passes one over.
    pub columns: Vec<String>,
    /// TSV: the first line names the columns.
    pub header: bool,
    /// Splits the field `text` (one record each) into sentences.
    pub split_sentences: bool,
    /// Leaves out records whose field has fewer or more characters: `[field, fewest, most]` in effect.
    pub length: Option<LengthFilter>,
    /// Leaves out records whose field was seen before in the task, or is part of its evaluation files.
    pub unique: Option<String>,
}

/// Bounds in characters for a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthFilter {
    pub field: String,
    pub min_chars: usize,
    pub max_chars: usize,
}

/// Records held out by a hash of a field, so that all records of a word (or sentence) fall on one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    pub field: String,
    /// Share of the records, 0 to 1.
    pub share: f64,
}

impl HoldOut {
    /// Whether the value belongs to the evaluation. The same on every machine, for ever.
    pub fn holds(&self, value: &str) -> bool {
        let unit = (hash_bytes(value.as_bytes()) >> 11) as f64 / (1u64 << 53) as f64;
        unit < self.share
    }
}

/// What to do with an example that is longer than the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// Keep the first tokens and an end mark, as the reference does.
    #[default]
    Truncate,
    /// Leave it out.
    Drop,
}

/// Limits of an example in tokens, end mark included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub inputs_length: usize,
    pub targets_length: usize,
    pub too_long: TooLong,
}

/// An example as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextExample {
    pub inputs: String,
    pub targets: String,
    /// Every accepted target; at least `targets` where the task is evaluated.
    pub references: Vec<String>,
    /// Examples that are judged together (MultiRC's questions); for Winograd schemas whether `targets` is the right
    /// noun, "1" or "0"; else "".
    pub group: String,
    /// The text whose words a predicted span counts (SQuAD); else "".
    pub context: String,
}

impl TextExample {
    /// An example whose only reference is its target.
    pub fn new(inputs: impl Into<String>, targets: impl Into<String>) -> TextExample {
        let targets = targets.into();
        let references = vec![targets.clone()];
        TextExample { inputs: inputs.into(), targets, references, ..TextExample::default() }
    }

    /// The same example with other accepted answers.
    fn with_references(self, references: Vec<String>) -> TextExample {
        TextExample { references, ..self }
    }
}

/// An example as ids, each list ending with the end mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
}

/// What loading a task found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// Records read from the training files.
    pub records: usize,
    /// Training examples per epoch.
    pub examples: usize,
    /// Examples cut to the limits, and segments of unlabelled text whose targets may be (counted, kept).
    pub truncated: usize,
    /// Records of unlabelled text that make several examples, as one would be too long.
    pub divided: usize,
    /// Documents of unlabelled text that are longer than 65,536 tokens: one chunk of that length is taken.
    pub chunked: usize,
    /// Examples left out for their length.
    pub dropped: usize,
    /// Records left out by the task's filters, its hold-out or as duplicates.
    pub filtered: usize,
    /// Records of which the task's formatter makes no example.
    pub unused: usize,
    /// Evaluation examples.
    pub dev_examples: usize,
}

/// A loaded task.
pub struct Task {
    pub config: TaskConfig,
    pub dev: Vec<TextExample>,
    pub report: LoadReport,
    /// Ids of evaluation examples that their text does not give back: corrupted ones, whose pieces may be cut anywhere.
    dev_ids: Option<Vec<Example>>,
    limits: Limits,
    seed: u64,
    data: Data,
}

/// Training data as it lies in memory.
enum Data {
    /// Token ids of pairs.
    Pairs { inputs: Ragged, targets: Ragged },
    /// Token ids of unlabelled segments, corrupted anew each epoch.
    Segments { segments: Ragged, objective: Objective, prefix: Vec<u32>, modes: [Vec<u32>; 3] },
    /// Clean texts, to which slips are added anew each epoch.
    Slips { texts: Vec<String>, prefix: String, rate: f64 },
}

/// Lists of ids of different lengths in one allocation.
#[derive(Clone, Debug, Default)]
struct Ragged {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Ragged {
    fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, i: usize) -> &[u32] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.ids[start..self.ends[i]]
    }
}

impl Task {
    /// Reads and tokenises a task's files.
    ///
    /// # Errors
    /// Where a file is missing, empty or malformed, a template names an unknown field, or no example is left.
    pub fn load(
        config: &TaskConfig,
        data_dir: &Path,
        vocabulary: &Vocabulary,
        limits: Limits,
        seed: u64,
    ) -> Result<Task> {
        let seed = derive(seed, &[hash_bytes(config.name.as_bytes())]);
        config.examples.check(&config.name)?;
        let mut report = LoadReport::default();

        let (records, dev_records) = loading::split_records(config, data_dir, seed, &mut report)?;
        let source = loading::Loader { config, vocabulary, limits, seed };
        let data = source.training_data(&records, &mut report)?;
        report.examples = data.len();
        if !config.train.is_empty() && report.examples == 0 {
            return Err(crate::Error::Invalid(format!(
                "task {}: expected training examples, found none in {} records ({} filtered, {} too long, {} unused)",
                config.name, report.records, report.filtered, report.dropped, report.unused
            )));
        }
        let (dev, dev_ids) = source.dev_examples(&dev_records)?;
        report.dev_examples = dev.len();
        Ok(Task { config: config.clone(), dev, report, dev_ids, limits, seed, data })
    }

    /// Training examples per epoch.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits that its examples keep to.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What counts in the mixture: the rate that the task names, or its number of examples.
    pub fn mixing_size(&self) -> Size {
        match self.config.rate {
            Some(rate) if !self.is_empty() => Size::Rate(rate),
            _ => Size::Examples(self.len() as f64),
        }
    }

    /// The n-th training example that the run draws from this task, for ever: each epoch has an order of its own.
    ///
    /// # Panics
    /// Where the task [is empty](Task::is_empty).
    pub fn draw(&self, n: u64, vocabulary: &Vocabulary) -> Example {
        let len = self.len() as u64;
        let (epoch, place) = (n / len, n % len);
        let order = Permutation::new(len, derive(self.seed, &[stream::ORDER, epoch]));
        self.example(epoch, order.at(place) as usize, vocabulary)
    }

    /// Training example `index` as it is in an epoch.
    ///
    /// # Panics
    /// Where `index` is not below [`Task::len`].
    pub fn example(&self, epoch: u64, index: usize, vocabulary: &Vocabulary) -> Example {
        let seed = derive(self.seed, &[stream::EXAMPLE, epoch, index as u64]);
        let mut example = match &self.data {
            Data::Pairs { inputs, targets } => {
                Example { inputs: inputs.get(index).to_vec(), targets: targets.get(index).to_vec() }
            }
            Data::Segments { segments, objective, prefix, modes } => {
                denoise(segments.get(index), objective, prefix, modes, vocabulary, seed)
            }
            Data::Slips { texts, prefix, rate } => {
                let clean = &texts[index];
                Example {
                    inputs: vocabulary.encode(&format!("{prefix}{}", add_slips(clean, *rate, seed))),
                    targets: vocabulary.encode(clean),
                }
            }
        };
        self.limits.end(&mut example);
        example
    }

    /// The evaluation examples as ids, for the loss: one per example, its first reference.
    pub fn dev_tokens(&self, vocabulary: &Vocabulary) -> Vec<Example> {
        let encode = |text: &TextExample| Example {
            inputs: vocabulary.encode(&text.inputs),
            targets: vocabulary.encode(&text.targets),
        };
        let mut examples = match &self.dev_ids {
            Some(examples) => examples.clone(),
            None => self.dev.par_iter().map(encode).collect(),
        };
        examples.iter_mut().for_each(|example| self.limits.end(example));
        examples
    }
}

impl Limits {
    /// Trims an example and appends its end marks.
    fn end(&self, example: &mut Example) {
        objectives::append_eos_after_trim(&mut example.inputs, self.inputs_length);
        objectives::append_eos_after_trim(&mut example.targets, self.targets_length);
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::Pairs { inputs, .. } => inputs.len(),
            Data::Segments { segments, .. } => segments.len(),
            Data::Slips { texts, .. } => texts.len(),
        }
    }
}

fn denoise(
    tokens: &[u32],
    objective: &Objective,
    prefix: &[u32],
    modes: &[Vec<u32>; 3],
    vocabulary: &Vocabulary,
    seed: u64,
) -> Example {
    let mut denoised = objective.apply(tokens, vocabulary.sentinels(), vocabulary.size(), modes, seed);
    denoised.inputs.splice(..0, prefix.iter().copied());
    Example { inputs: denoised.inputs, targets: denoised.targets }
}
