//! What a run writes down: the records of its log, and what evaluations found.
//!
//! JSON cannot say NaN. Such scores (a correlation of constants, for one) are written as `null`, and `null` is read as
//! NaN.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// By TASK/METRIC.
    #[serde(deserialize_with = "numbers_or_nan")]
    pub metrics: BTreeMap<String, f64>,
    /// Those of them that are better when lower.
    #[serde(default)]
    pub lower_is_better: BTreeSet<String>,
    pub samples: Vec<Sample>,
}

/// One evaluated example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub task: String,
    pub input: String,
    pub target: String,
    pub output: String,
}

/// One line of `log.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    pub step: u64,
    /// Encoder and decoder tokens so far.
    pub tokens: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a log record holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Means over the steps since the last record.
    Train {
        /// Nats per target token, without smoothing and z-loss.
        #[serde(deserialize_with = "number_or_nan")]
        loss: f64,
        /// Nats per target token from the teacher's distribution to the model's, both at the temperature of the run;
        /// none without a teacher.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        divergence: Option<f64>,
        #[serde(deserialize_with = "number_or_nan")]
        z_loss: f64,
        /// Share of target tokens that have the largest logit.
        #[serde(deserialize_with = "number_or_nan")]
        accuracy: f64,
        #[serde(deserialize_with = "number_or_nan")]
        rate: f64,
        /// Of the last step, before clipping.
        #[serde(deserialize_with = "number_or_nan")]
        gradient_norm: f64,
        /// Encoder and decoder tokens.
        #[serde(deserialize_with = "number_or_nan")]
        tokens_per_second: f64,
        /// The largest memory use so far in 10^6 bytes, where the system tells it.
        peak_memory_mb: Option<f64>,
        /// Only where there are several ranks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ranks: Option<RanksRecord>,
    },
    Evaluation {
        #[serde(deserialize_with = "number_or_nan")]
        loss: f64,
        #[serde(deserialize_with = "number_or_nan")]
        accuracy: f64,
        #[serde(flatten)]
        report: EvaluationReport,
    },
}

/// What the ranks of a run took since the last record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RanksRecord {
    pub size: usize,
    /// That each rank handed to the others.
    pub bytes: u64,
    /// That the first rank spent exchanging, and waiting for others to do so.
    pub seconds: f64,
    /// The time that one rank would have needed, as a share of the time of all together.
    pub efficiency: f64,
}

/// A log's text. What a full disk or a loss of power left at its end may be half a line, and half a character of it.
pub(crate) fn read_log(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A number, or NaN for `null`.
pub(crate) fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn numbers_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let numbers: BTreeMap<String, Option<f64>> = Deserialize::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_no_numbers_survive_the_log() {
        let report = EvaluationReport {
            metrics: BTreeMap::from([("sts/pearson".to_owned(), f64::NAN), ("sts/spearman".to_owned(), 31.5)]),
            ..EvaluationReport::default()
        };
        let entry = Entry::Evaluation { loss: f64::NAN, accuracy: 0.5, report };
        let text = serde_json::to_string(&LogRecord { step: 3, tokens: 9, seconds: 1.0, entry }).unwrap();
        assert!(text.contains(r#""sts/pearson":null"#), "{text}");
        let read: LogRecord = serde_json::from_str(&text).unwrap();
        let Entry::Evaluation { loss, accuracy, report } = read.entry else { panic!("{text}") };
        assert!(loss.is_nan() && accuracy == 0.5 && report.metrics["sts/pearson"].is_nan());
        assert_eq!(report.metrics["sts/spearman"], 31.5);
    }
}
