//! A task as it is declared in TOML.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::formatters::Examples;
use crate::{random::hash_bytes, source::Format};

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
    /// Subword regularisation (Kudo, 2018; here as in BPE-dropout): the probability with which a piece of the inputs is
    /// divided into two, anew each epoch, and its halves again. Evaluation has the vocabulary's own spelling.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub divide_inputs: f64,
    /// The same of the targets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub divide_targets: f64,
    /// Unlabelled text: the first so many tokens of the training files, which are repeated; also `data.limit_tokens`.
    #[serde(default)]
    pub limit_tokens: Option<u64>,
    /// At most this many evaluation examples, the first ones.
    #[serde(default)]
    pub max_dev_examples: Option<usize>,
    /// Evaluates each input once, with the targets of all its lines as references; otherwise every line, as the
    /// reference does and as published figures are counted.
    #[serde(default)]
    pub merge_references: bool,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
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
    /// Leaves out records in which a field has too few or too many characters.
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
