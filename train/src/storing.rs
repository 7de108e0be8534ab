//! What storing costs: a model's metrics, size and speed in each type that a file can have.

use std::fmt::Write;
use std::path::Path;

use t5_quantize::{Keep, Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::output::OutputFile;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::{Model, ModelOptions};

use crate::evaluate::RuntimeEvaluator;
use crate::record::EvaluationReport;
use crate::{Error, Result};

/// What is compared where nobody says it. The last is a mixture: four bits for the encoder, whose errors no later step
/// repeats, and eight for the decoder.
pub const USUAL: [&str; 6] = ["f32", "f16", "q8_0", "q4_k", "q4_0", "q4_k,decoder.*=q8_0"];

/// A model stored in one way.
pub struct Stored {
    /// As it was asked for.
    pub name: String,
    /// Of the whole file.
    pub bytes: usize,
    pub report: EvaluationReport,
    /// Words that the evaluation wrote, in the seconds that it took to write them.
    pub words_per_second: f64,
}

/// `q4_k` or `q4_k,wo=q8_0,decoder.*=f16`: a file's type and exceptions.
///
/// # Errors
/// Where there is no such type, or an exception is not PATTERN=TYPE.
pub fn policy(name: &str) -> Result<Policy> {
    let mut parts = name.split(',').map(str::trim);
    let base = parts.next().unwrap_or_default();
    let dtype = DType::from_name(base).filter(|dtype| t5_quantize::policy::FILE_TYPES.contains(dtype));
    let dtype = dtype.ok_or_else(|| {
        let names = t5_quantize::policy::FILE_TYPES.map(|dtype| dtype.name()).join(", ");
        Error::Invalid(format!("type: expected one of {names}, found {base}"))
    })?;
    let keep = parts.map(Keep::parse).collect::<Result<_, _>>()?;
    Ok(Policy { keep, ..Policy::new(dtype) })
}

/// Stores a model as each name says and evaluates it; nothing is written to the disk. `done` hears of each.
///
/// # Errors
/// As [`policy`], and where a type cannot hold a value or the evaluation fails.
pub fn compare(
    checkpoint: &Checkpoint,
    names: &[String],
    evaluator: &RuntimeEvaluator,
    mut done: impl FnMut(&Stored),
) -> Result<Vec<Stored>> {
    let policies = names.iter().map(|name| policy(name)).collect::<Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for (name, policy) in names.iter().zip(&policies) {
        let mut file = Vec::new();
        quantize(checkpoint, policy, name, &mut file, &mut ())?;
        let bytes = file.len();
        let model =
            Model::from_checkpoint(Checkpoint::from_gguf(name, Bytes::from_vec(file))?, &ModelOptions::default())?;
        let evaluation = evaluator.judge(&model)?;
        let words_per_second = evaluation.words as f64 / evaluation.seconds.max(1e-9);
        let stored = Stored { name: name.clone(), bytes, report: evaluation.report, words_per_second };
        done(&stored);
        all.push(stored);
    }
    Ok(all)
}

/// Writes a model as one Q8_0 file. Returns its size in bytes.
///
/// # Errors
/// Where a value cannot be stored, or the file cannot be written; what was there then still is.
pub fn write_q8_0(checkpoint: &Checkpoint, path: &Path) -> Result<u64> {
    let mut file = OutputFile::create(path)?;
    quantize(checkpoint, &Policy::new(DType::Q8_0), &path.display().to_string(), &mut file, &mut ())?;
    file.commit()?;
    Ok(std::fs::metadata(path).map_err(Error::io(path))?.len())
}

/// The comparison as a Markdown table: a row a metric, a column a way of storing.
pub fn table(stored: &[Stored]) -> String {
    let mut text = String::from("| |");
    let mut row = |cells: &mut dyn Iterator<Item = String>| {
        cells.for_each(|cell| {
            let _ = write!(text, " {cell} |");
        });
        text.push_str("\n|");
    };
    row(&mut stored.iter().map(|stored| stored.name.clone()));
    row(&mut std::iter::once("---".to_owned()).chain(stored.iter().map(|_| "---:".to_owned())));
    let mut named = |name: &str, value: &dyn Fn(&Stored) -> String| {
        row(&mut std::iter::once(name.to_owned()).chain(stored.iter().map(value)));
    };
    let metrics: Vec<&String> = stored.first().map(|first| first.report.metrics.keys().collect()).unwrap_or_default();
    for name in metrics {
        named(name, &|stored| stored.report.metrics.get(name).map_or_else(String::new, |value| format!("{value:.2}")));
    }
    named("MB", &|stored| format!("{:.2}", stored.bytes as f64 / 1e6));
    named("words a second", &|stored| format!("{:.0}", stored.words_per_second));
    text.truncate(text.len() - 1);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_type_and_exceptions() {
        assert_eq!(policy("q8_0").unwrap(), Policy::new(DType::Q8_0));
        let mixture = policy("q4_k, wo=f16").unwrap();
        assert_eq!(
            (mixture.base, mixture.keep[0].pattern.as_str(), mixture.keep[0].dtype),
            (DType::Q4_K, "wo", DType::F16)
        );
        assert!(
            policy("q9")
                .unwrap_err()
                .to_string()
                .contains("type: expected one of q8_0, f16, f32, q4_0, q4_k, found q9")
        );
        assert!(policy("q8_0,wo").unwrap_err().to_string().contains("expected PATTERN=TYPE, found wo"));
        USUAL.iter().for_each(|name| drop(policy(name).unwrap()));
    }

    #[test]
    fn the_table_is_markdown() {
        let stored = |name: &str, bytes: usize, value: f64| {
            let metrics = [("en-de/bleu".to_owned(), value)].into();
            let report = EvaluationReport { metrics, ..EvaluationReport::default() };
            Stored { name: name.to_owned(), bytes, report, words_per_second: 12.4 }
        };
        assert_eq!(
            table(&[stored("f32", 4_000_000, 40.126), stored("q8_0", 1_250_000, 40.1)]),
            "| | f32 | q8_0 |\n| --- | ---: | ---: |\n| en-de/bleu | 40.13 | 40.10 |\n| MB | 4.00 | 1.25 |\n\
             | words a second | 12 | 12 |\n"
        );
    }
}
