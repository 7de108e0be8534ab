//! GLUE: a benchmark's name, its keys with their values, and a class word; STS-B's numbers.

use super::{
    fields::{Formatted, text},
    template::Template,
};
use crate::{source::Record, tasks::example::TextExample};

/// `benchmark key: value ...` and the word of the class, `<unk>` where a test set has none (no label, or -1).
pub(super) fn glue(
    record: &Record,
    benchmark: &str,
    keys: &[String],
    labels: &[String],
    label: &str,
    pattern: Option<&str>,
) -> Formatted<TextExample> {
    let extracted;
    let source = match pattern {
        Some(pattern) => {
            extracted =
                Template::parse(pattern).map_err(|e| e.to_string())?.extract(record.line, &text(record, "text")?)?;
            &extracted
        }
        None => record,
    };
    let mut inputs = benchmark.to_string();
    for key in keys {
        inputs.push_str(&format!(" {key}: {}", text(source, key)?));
    }
    let class = record.text(label).unwrap_or("-1".into());
    let word = match class.parse::<i64>() {
        Ok(-1) => "<unk>",
        Ok(id) => usize::try_from(id)
            .ok()
            .and_then(|id| labels.get(id))
            .ok_or_else(|| format!("{label}: expected a class of 0 to {}, found {id}", labels.len() - 1))?,
        Err(_) => labels
            .iter()
            .find(|name| name.as_str() == class)
            .ok_or_else(|| format!("{label}: expected one of {labels:?}, found {class:?}"))?,
    };
    Ok(TextExample::new(inputs, word))
}

/// Two sentences and how alike they are, 0 to 5, in steps of a fifth.
pub(super) fn stsb(record: &Record, label: &str) -> Formatted<TextExample> {
    // Test sets have no score, or -1.
    let score = record.text(label).unwrap_or("-1".into());
    let score: f32 = score.trim().parse().map_err(|_| format!("{label}: expected a number, found {score:?}"))?;
    // Half to even, in single precision, as the reference.
    let rounded = (score * 5.0).round_ties_even() / 5.0;
    let inputs = format!("stsb sentence1: {} sentence2: {}", text(record, "sentence1")?, text(record, "sentence2")?);
    Ok(TextExample::new(inputs, format!("{rounded:.1}")))
}

/// STS-B predictions as numbers; what is no number counts as -1.
pub fn postprocess_stsb(prediction: &str) -> f64 {
    prediction.trim().parse().unwrap_or(-1.0)
}
