//! The registry of text-to-text tasks: declared in TOML, loaded into examples.
//!
//! A task has source files, a way to make (input, target) texts of their records, and metrics. After loading, the n-th
//! training example of an epoch is a pure function of (task, epoch, n, seed), so that any order can be computed again.

mod formatters;
mod slips;
mod text;
mod winograd;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use formatters::{Examples, Template, postprocess_stsb};
pub use slips::add_slips;
pub use text::split_sentences;
pub use winograd::{wnli_to_wsc, wsc_score};

use crate::{
    Error, Result,
    corpus::{self, Columns, Format, Record},
    objectives::{self, Mode, Objective},
    random::{Permutation, derive, hash_bytes},
    vocabulary::Vocabulary,
};

/// What keeps the random streams of a task apart.
mod stream {
    pub const ORDER: u64 = 1;
    pub const EXAMPLE: u64 = 2;
    pub const DEV: u64 = 3;
    pub const TEXTS: u64 = 4;
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
    /// The task's size in the mixture in place of its number of examples, or its rate for fixed rates.
    #[serde(default)]
    pub rate: Option<f64>,
    /// At most this many training examples; a seeded choice.
    #[serde(default)]
    pub max_examples: Option<usize>,
    /// At most this many evaluation examples, the first ones.
    #[serde(default)]
    pub max_dev_examples: Option<usize>,
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
    /// Examples that are judged together (MultiRC's questions), or "".
    pub group: String,
}

impl TextExample {
    /// An example whose only reference is its target.
    pub fn new(inputs: impl Into<String>, targets: impl Into<String>) -> TextExample {
        let targets = targets.into();
        let references = vec![targets.clone()];
        TextExample { inputs: inputs.into(), targets, references, group: String::new() }
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
    /// Examples cut to the limits (counted, kept).
    pub truncated: usize,
    /// Examples left out for their length.
    pub dropped: usize,
    /// Records left out by the task's filters, its hold-out or as duplicates.
    pub filtered: usize,
    /// Records of which the task's formatter makes no example.
    pub unused: usize,
    /// Evaluation examples, each with all its references.
    pub dev_examples: usize,
}

/// A loaded task.
pub struct Task {
    pub config: TaskConfig,
    pub dev: Vec<TextExample>,
    pub report: LoadReport,
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

        let (records, dev_records) = split_records(config, data_dir, seed, &mut report)?;

        let source = Source { config, vocabulary, limits, seed };
        let data = source.training_data(&records, &mut report)?;
        report.examples = data.len();
        if !config.train.is_empty() && report.examples == 0 {
            return Err(Error::Invalid(format!(
                "task {}: expected training examples, found none in {} records ({} filtered, {} too long, {} unused)",
                config.name, report.records, report.filtered, report.dropped, report.unused
            )));
        }
        let dev = source.dev_examples(&dev_records)?;
        report.dev_examples = dev.len();
        Ok(Task { config: config.clone(), dev, report, limits, seed, data })
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

    /// The size that counts in the mixture.
    pub fn mixing_size(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.config.rate.unwrap_or(self.len() as f64) }
    }

    /// The n-th training example that the run draws from this task, for ever: each epoch has an order of its own.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    ///
    /// # Panics
    /// Where the task [is empty](Task::is_empty).
    pub fn draw(&self, n: u64, vocabulary: &Vocabulary) -> Result<Example> {
        let len = self.len() as u64;
        let (epoch, place) = (n / len, n % len);
        let order = Permutation::new(len, derive(self.seed, &[stream::ORDER, epoch]));
        self.example(epoch, order.at(place) as usize, vocabulary)
    }

    /// Training example `index` as it is in an epoch.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn example(&self, epoch: u64, index: usize, vocabulary: &Vocabulary) -> Result<Example> {
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
                    inputs: vocabulary.encode(&format!("{prefix}{}", add_slips(clean, *rate, seed)))?,
                    targets: vocabulary.encode(clean)?,
                }
            }
        };
        objectives::append_eos_after_trim(&mut example.inputs, self.limits.inputs_length);
        objectives::append_eos_after_trim(&mut example.targets, self.limits.targets_length);
        Ok(example)
    }

    /// The evaluation examples as ids, for the loss: one per example, its first reference.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn dev_tokens(&self, vocabulary: &Vocabulary) -> Result<Vec<Example>> {
        self.dev
            .par_iter()
            .map(|example| {
                let mut inputs = vocabulary.encode(&example.inputs)?;
                let mut targets = vocabulary.encode(&example.targets)?;
                objectives::append_eos_after_trim(&mut inputs, self.limits.inputs_length);
                objectives::append_eos_after_trim(&mut targets, self.limits.targets_length);
                Ok(Example { inputs, targets })
            })
            .collect()
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

/// The training and evaluation records of a task, after its filters and hold-out.
fn split_records(
    config: &TaskConfig,
    data_dir: &Path,
    seed: u64,
    report: &mut LoadReport,
) -> Result<(Vec<Record>, Vec<Record>)> {
    let mut dev_records = Vec::new();
    read_records(config, data_dir, &config.dev, |_, record| {
        dev_records.push(record);
        Ok(())
    })?;
    let mut seen: HashSet<u64> = HashSet::new();
    if let Some(field) = &config.source.unique {
        dev_records.retain(|r| r.text(field).is_none_or(|value| seen.insert(hash_bytes(value.as_bytes()))));
    }
    let mut records = Vec::new();
    let mut total = 0;
    read_records(config, data_dir, &config.train, |path, record| {
        total += 1;
        let field = |name: &str| {
            record.text(name).ok_or_else(|| Error::data(path, record.line, formatters::no_field(name, &record)))
        };
        if let Some(name) = &config.source.unique
            && !seen.insert(hash_bytes(field(name)?.as_bytes()))
        {
            report.filtered += 1;
        } else if let Some(hold_out) = &config.hold_out
            && hold_out.holds(&field(&hold_out.field)?)
        {
            report.filtered += 1;
            dev_records.push(record);
        } else {
            records.push(record);
        }
        Ok(())
    })?;
    report.records = total;
    drop(seen);
    if let Some(most) = config.max_examples {
        report.filtered += choose(&mut records, most, derive(seed, &[stream::ORDER]));
    }
    Ok((records, dev_records))
}

/// Texts to train a vocabulary on: inputs and targets of at most `count` training examples, a seeded choice.
///
/// # Errors
/// As [`Task::load`].
pub fn training_texts(config: &TaskConfig, data_dir: &Path, count: usize, seed: u64) -> Result<Vec<String>> {
    let seed = derive(seed, &[hash_bytes(config.name.as_bytes())]);
    config.examples.check(&config.name)?;
    let (mut records, _) = split_records(config, data_dir, seed, &mut LoadReport::default())?;
    choose(&mut records, count, derive(seed, &[stream::TEXTS]));
    let made: Result<Vec<Vec<String>>> = records
        .par_iter()
        .map(|record| {
            let in_record = |what| in_record(config, record, what);
            Ok(match &config.examples {
                Examples::Denoise { text, .. } => vec![Template::parse(text)?.fill(record).map_err(in_record)?],
                Examples::Slips { text, prefix, rate } => {
                    let text = Template::parse(text)?.fill(record).map_err(in_record)?;
                    let slipped = add_slips(&text, *rate, derive(seed, &[record.line as u64]));
                    vec![format!("{prefix}{slipped}"), text]
                }
                examples => {
                    let texts = examples.training(record).map_err(in_record)?;
                    texts.into_iter().flat_map(|example| [example.inputs, example.targets]).collect()
                }
            })
        })
        .collect();
    Ok(made?.concat())
}

/// Keeps at most `most` records, a seeded choice in the file's order. Returns how many were left out.
fn choose(records: &mut Vec<Record>, most: usize, seed: u64) -> usize {
    let len = records.len();
    if len > most {
        let permutation = Permutation::new(len as u64, seed);
        let mut i = 0;
        records.retain(|_| {
            i += 1;
            permutation.at(i - 1) < most as u64
        });
    }
    len - records.len()
}

fn in_record(config: &TaskConfig, record: &Record, what: String) -> Error {
    Error::Invalid(format!("task {}: record of line {}: {what}", config.name, record.line))
}

/// Reads every file of a task, after its filters. `f` gets the file and the record.
fn read_records(
    config: &TaskConfig,
    data_dir: &Path,
    files: &[PathBuf],
    mut f: impl FnMut(&Path, Record) -> Result<()>,
) -> Result<()> {
    let columns = Columns { names: config.source.columns.clone(), header: config.source.header };
    for file in files {
        let path = data_dir.join(file);
        corpus::for_each_record(&path, config.source.format, &columns, |record| {
            let mut keep = |record: Record| -> Result<()> {
                if let Some(filter) = &config.source.length {
                    let value = record
                        .text(&filter.field)
                        .ok_or_else(|| Error::data(&path, record.line, formatters::no_field(&filter.field, &record)))?;
                    if !(filter.min_chars..=filter.max_chars).contains(&value.chars().count()) {
                        return Ok(());
                    }
                }
                f(&path, record)
            };
            if config.source.split_sentences {
                let text = record
                    .text("text")
                    .ok_or_else(|| Error::data(&path, record.line, formatters::no_field("text", &record)))?;
                for sentence in split_sentences(&text) {
                    let fields = vec![("text".to_string(), corpus::Value::Text(sentence.to_string()))];
                    keep(Record::new(record.line, fields))?;
                }
                Ok(())
            } else {
                keep(record)
            }
        })?;
    }
    Ok(())
}

/// What turning records into data needs.
struct Source<'a> {
    config: &'a TaskConfig,
    vocabulary: &'a Vocabulary,
    limits: Limits,
    seed: u64,
}

/// What tokenising one training text gave.
enum Fitted {
    Kept(Example),
    Truncated(Example),
    Dropped,
}

impl Source<'_> {
    fn training_data(&self, records: &[Record], report: &mut LoadReport) -> Result<Data> {
        match &self.config.examples {
            Examples::Denoise { text, prefix, objective, concatenate } => {
                self.segments(records, text, prefix, objective, *concatenate, report)
            }
            Examples::Slips { text, prefix, rate } => {
                let template = Template::parse(text)?;
                let texts: Result<Vec<Option<String>>> = records
                    .par_iter()
                    .map(|record| {
                        let text = template.fill(record).map_err(|e| self.in_record(record, e))?;
                        // Slips add tokens: a text is only used where it would fit at twice its length.
                        let prefix_len = self.vocabulary.encode(prefix)?.len();
                        let len = self.vocabulary.encode(&text)?.len() + 1;
                        let fits = len <= self.limits.targets_length
                            && prefix_len + len + len / 2 <= self.limits.inputs_length;
                        Ok(fits.then_some(text))
                    })
                    .collect();
                let texts: Vec<String> = texts?.into_iter().flatten().collect();
                report.dropped += records.len() - texts.len();
                Ok(Data::Slips { texts, prefix: prefix.clone(), rate: *rate })
            }
            examples => {
                let made: Result<Vec<Vec<Fitted>>> = records
                    .par_iter()
                    .map(|record| {
                        let texts = examples.training(record).map_err(|e| self.in_record(record, e))?;
                        texts.iter().map(|text| self.fit(text)).collect()
                    })
                    .collect();
                let (mut inputs, mut targets) = (Ragged::default(), Ragged::default());
                for fitted in made? {
                    report.unused += usize::from(fitted.is_empty());
                    for fitted in fitted {
                        let example = match fitted {
                            Fitted::Kept(example) => example,
                            Fitted::Truncated(example) => {
                                report.truncated += 1;
                                example
                            }
                            Fitted::Dropped => {
                                report.dropped += 1;
                                continue;
                            }
                        };
                        inputs.push(&example.inputs);
                        targets.push(&example.targets);
                    }
                }
                Ok(Data::Pairs { inputs, targets })
            }
        }
    }

    fn fit(&self, text: &TextExample) -> Result<Fitted> {
        let mut inputs = self.vocabulary.encode(&text.inputs)?;
        let mut targets = self.vocabulary.encode(&text.targets)?;
        let Limits { inputs_length, targets_length, too_long } = self.limits;
        let fits = inputs.len() < inputs_length && targets.len() < targets_length;
        if !fits && too_long == TooLong::Drop {
            return Ok(Fitted::Dropped);
        }
        inputs.truncate(inputs_length.saturating_sub(1));
        targets.truncate(targets_length.saturating_sub(1));
        let example = Example { inputs, targets };
        Ok(if fits { Fitted::Kept(example) } else { Fitted::Truncated(example) })
    }

    fn segments(
        &self,
        records: &[Record],
        text: &str,
        prefix: &str,
        objective: &Objective,
        concatenate: bool,
        report: &mut LoadReport,
    ) -> Result<Data> {
        let template = Template::parse(text)?;
        let prefix = self.vocabulary.encode(prefix)?;
        let modes: [Vec<u32>; 3] = match objective {
            Objective::Ul2 => {
                let modes: Result<Vec<_>> = Mode::TEXTS.iter().map(|text| self.vocabulary.encode(text)).collect();
                modes?.try_into().unwrap_or_default()
            }
            _ => Default::default(),
        };
        let mode_length = modes.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
        let room = self.limits.inputs_length.saturating_sub(prefix.len() + mode_length);
        let length = objective.segment_length(room, self.limits.targets_length);
        let mut segments = Ragged::default();
        let mut pending: Vec<u32> = Vec::new();
        // Chunks bound the memory that ids of single records take before they are laid end to end.
        for chunk in records.chunks(1 << 14) {
            let tokens: Result<Vec<Vec<u32>>> = chunk
                .par_iter()
                .map(|record| {
                    let text = template.fill(record).map_err(|e| self.in_record(record, e))?;
                    self.vocabulary.encode(&text)
                })
                .collect();
            for tokens in tokens? {
                if concatenate {
                    pending.extend_from_slice(&tokens);
                    let whole = pending.len() / length * length;
                    pending[..whole].chunks(length).for_each(|segment| segments.push(segment));
                    pending.drain(..whole);
                } else {
                    report.truncated += usize::from(tokens.len() > length);
                    // A single token leaves nothing to infer it from.
                    tokens.chunks(length).filter(|s| s.len() > 1).for_each(|segment| segments.push(segment));
                }
            }
        }
        if pending.len() > 1 {
            segments.push(&pending);
        }
        Ok(Data::Segments { segments, objective: objective.clone(), prefix, modes })
    }

    fn dev_examples(&self, records: &[Record]) -> Result<Vec<TextExample>> {
        let most = self.config.max_dev_examples.unwrap_or(usize::MAX);
        let mut examples: Vec<TextExample> = Vec::new();
        let mut by_input: HashMap<(String, String), usize> = HashMap::new();
        let mut add = |example: TextExample| {
            // Other targets of one input are further references.
            match by_input.entry((example.inputs.clone(), example.group.clone())) {
                std::collections::hash_map::Entry::Occupied(at) => {
                    let known: &mut TextExample = &mut examples[*at.get()];
                    for reference in example.references {
                        if !known.references.contains(&reference) {
                            known.references.push(reference);
                        }
                    }
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    if examples.len() < most {
                        free.insert(examples.len());
                        examples.push(example);
                    }
                }
            }
        };
        let data = match &self.config.examples {
            Examples::Denoise { .. } | Examples::Slips { .. } => {
                self.training_data(records, &mut LoadReport::default())?
            }
            formatter => {
                for record in records {
                    for example in formatter.evaluation(record).map_err(|e| self.in_record(record, e))? {
                        add(example);
                    }
                }
                return Ok(examples);
            }
        };
        for i in 0..data.len().min(most) {
            let seed = derive(self.seed, &[stream::DEV, i as u64]);
            add(match &data {
                Data::Slips { texts, prefix, rate } => {
                    TextExample::new(format!("{prefix}{}", add_slips(&texts[i], *rate, seed)), texts[i].clone())
                }
                Data::Segments { segments, objective, prefix, modes } => {
                    let example = denoise(segments.get(i), objective, prefix, modes, self.vocabulary, seed);
                    TextExample::new(
                        self.vocabulary.decode(&example.inputs)?,
                        self.vocabulary.decode(&example.targets)?,
                    )
                }
                Data::Pairs { .. } => continue,
            });
        }
        Ok(examples)
    }

    fn in_record(&self, record: &Record, what: String) -> Error {
        in_record(self.config, record, what)
    }
}
