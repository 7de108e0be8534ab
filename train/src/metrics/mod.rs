//! Task metrics, each as the field's reference computes it. All are pure functions of predictions and examples.

mod bleu;
mod chrf;
mod classification;
mod correlation;
mod error_rate;
mod rouge;
mod squad;

pub use bleu::{Bleu, Tokenization, bleu};
pub use chrf::chrf;
pub use classification::{accuracy, f1_with_invalid, macro_f1, matthews};
pub use correlation::{pearson, spearman};
pub use error_rate::{edit_distance, phoneme_error_rate, word_error_rate};
pub use rouge::{Rouge, rouge};
pub use squad::{Normalization, exact_match_and_f1};

use crate::{
    Error, Result,
    tasks::{TextExample, postprocess_stsb, wsc_score},
};

/// A metric as tasks name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Corpus BLEU as sacrebleu's default: 13a tokenisation, exponential smoothing, all references.
    Bleu,
    /// The paper's BLEU: international tokenisation.
    BleuIntl,
    /// chrF2 as sacrebleu's default, all references.
    Chrf,
    /// ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum as the paper computes them (no stemming); the first reference.
    Rouge,
    /// Share of predictions that equal a reference, white space at the ends aside.
    ExactMatch,
    /// SQuAD's exact match and F1.
    Squad,
    /// The same with TriviaQA's normalisation.
    TriviaQa,
    /// Share of right class words.
    Accuracy,
    /// Binary F1 of the second class; predictions that are no class count as wrong.
    F1,
    /// Mean F1 of the classes.
    MacroF1,
    /// Matthews correlation.
    Matthews,
    /// Pearson correlation of numbers (STS-B).
    Pearson,
    /// Spearman rank correlation of numbers (STS-B).
    Spearman,
    /// Edit distance in phones to the nearest reference, with stress and without.
    PhonemeErrorRate,
    /// Share of words none of whose pronunciations is predicted, with stress and without.
    WordErrorRate,
    /// F1 over all answers, and the share of questions with all answers right.
    Multirc,
    /// Share of schemas in which the predicted noun means the candidate or does not, as the schema says.
    Wsc,
}

/// Every metric with its name.
const NAMES: [(&str, Metric); 17] = [
    ("bleu", Metric::Bleu),
    ("bleu-intl", Metric::BleuIntl),
    ("chrf", Metric::Chrf),
    ("rouge", Metric::Rouge),
    ("exact-match", Metric::ExactMatch),
    ("squad", Metric::Squad),
    ("trivia-qa", Metric::TriviaQa),
    ("accuracy", Metric::Accuracy),
    ("f1", Metric::F1),
    ("macro-f1", Metric::MacroF1),
    ("matthews", Metric::Matthews),
    ("pearson", Metric::Pearson),
    ("spearman", Metric::Spearman),
    ("phoneme-error-rate", Metric::PhonemeErrorRate),
    ("word-error-rate", Metric::WordErrorRate),
    ("multirc", Metric::Multirc),
    ("wsc", Metric::Wsc),
];

/// A named number: percent, or a correlation times 100.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    pub name: &'static str,
    pub value: f64,
    /// Error rates are better when lower.
    pub lower_is_better: bool,
}

impl Metric {
    /// The metric of a name.
    ///
    /// # Errors
    /// Where there is none; the message lists all.
    pub fn named(name: &str) -> Result<Metric> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            Error::Invalid(format!("metric: expected one of {}, found {name}", known.join(", ")))
        })
    }

    /// The scores of predictions, one for each example in order. `labels` are the task's class words.
    ///
    /// # Errors
    /// Where there are not as many predictions as examples, or none.
    pub fn scores(self, predictions: &[String], examples: &[TextExample], labels: &[String]) -> Result<Vec<Score>> {
        if predictions.len() != examples.len() || examples.is_empty() {
            return Err(Error::Invalid(format!(
                "metric: expected a prediction for each of {} examples and at least one, found {}",
                examples.len(),
                predictions.len()
            )));
        }
        let texts: Vec<&str> = predictions.iter().map(String::as_str).collect();
        let references: Vec<&[String]> = examples.iter().map(|e| e.references.as_slice()).collect();
        let targets: Vec<&str> = examples.iter().map(|e| e.targets.as_str()).collect();
        let class = |text: &str| labels.iter().position(|label| label == text).map_or(-1, |id| id as i64);
        let classes = || -> (Vec<i64>, Vec<i64>) {
            (targets.iter().map(|t| class(t)).collect(), texts.iter().map(|t| class(t.trim())).collect())
        };
        let numbers = || -> (Vec<f64>, Vec<f64>) {
            (targets.iter().map(|t| postprocess_stsb(t)).collect(), texts.iter().map(|t| postprocess_stsb(t)).collect())
        };
        let one = |name, value| vec![Score { name, value, lower_is_better: false }];
        let rates = |named: [(&'static str, f64); 2]| {
            named.into_iter().map(|(name, value)| Score { name, value, lower_is_better: true }).collect()
        };
        Ok(match self {
            Metric::Bleu => one("bleu", bleu(&texts, &references, Tokenization::V13a).score),
            Metric::BleuIntl => one("bleu-intl", bleu(&texts, &references, Tokenization::International).score),
            Metric::Chrf => one("chrf", chrf(&texts, &references)),
            Metric::Rouge => {
                let Rouge { rouge1, rouge2, rouge_l, rouge_lsum } = rouge(&texts, &targets);
                [("rouge1", rouge1), ("rouge2", rouge2), ("rougeL", rouge_l), ("rougeLsum", rouge_lsum)]
                    .into_iter()
                    .flat_map(|(name, value)| one(name, value))
                    .collect()
            }
            Metric::ExactMatch => {
                let right = texts.iter().zip(&references).filter(|(t, r)| r.iter().any(|r| r.trim() == t.trim()));
                one("exact-match", 100.0 * right.count() as f64 / texts.len() as f64)
            }
            Metric::Squad | Metric::TriviaQa => {
                let (normalization, names) = match self {
                    Metric::Squad => (Normalization::Squad, ["squad-em", "squad-f1"]),
                    _ => (Normalization::TriviaQa, ["trivia-qa-em", "trivia-qa-f1"]),
                };
                let (em, f1) = exact_match_and_f1(&texts, &references, normalization);
                [one(names[0], em), one(names[1], f1)].concat()
            }
            Metric::Accuracy => {
                let (targets, predictions) = classes();
                one("accuracy", accuracy(&targets, &predictions))
            }
            Metric::F1 => {
                let (targets, predictions) = classes();
                one("f1", f1_with_invalid(&targets, &predictions))
            }
            Metric::MacroF1 => {
                let (targets, predictions) = classes();
                one("macro-f1", macro_f1(&targets, &predictions, labels.len()))
            }
            Metric::Matthews => {
                let (targets, predictions) = classes();
                one("matthews", matthews(&targets, &predictions))
            }
            Metric::Pearson => {
                let (targets, predictions) = numbers();
                one("pearson", pearson(&targets, &predictions))
            }
            Metric::Spearman => {
                let (targets, predictions) = numbers();
                one("spearman", spearman(&targets, &predictions))
            }
            Metric::PhonemeErrorRate => rates([
                ("phoneme-error-rate", phoneme_error_rate(&texts, &references, true)),
                ("phoneme-error-rate-no-stress", phoneme_error_rate(&texts, &references, false)),
            ]),
            Metric::WordErrorRate => rates([
                ("word-error-rate", word_error_rate(&texts, &references, true)),
                ("word-error-rate-no-stress", word_error_rate(&texts, &references, false)),
            ]),
            Metric::Multirc => {
                let (targets, predictions) = classes();
                let groups: Vec<&str> = examples.iter().map(|e| e.group.as_str()).collect();
                let whole = classification::group_exact_match(&targets, &predictions, &groups);
                [one("multirc-f1", f1_with_invalid(&targets, &predictions)), one("multirc-em", whole)].concat()
            }
            Metric::Wsc => {
                // A schema asks whether the noun is meant: "yes" is a prediction of the noun.
                let right = texts.iter().zip(examples).filter(|(text, example)| {
                    let score = wsc_score(text, &example.targets);
                    if example.group == "0" { score == 0 } else { score == 1 }
                });
                one("wsc", 100.0 * right.count() as f64 / texts.len() as f64)
            }
        })
    }
}

#[cfg(test)]
fn fixture() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/data/metrics.json")).expect("the fixture is JSON")
}

/// Predictions and references of a case of the fixture.
#[cfg(test)]
fn corpus(case: &serde_json::Value) -> (Vec<String>, Vec<Vec<String>>) {
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str()).map(str::to_string).collect()
    };
    (texts(&case["predictions"]), case["references"].as_array().into_iter().flatten().map(texts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_names() {
        for (name, metric) in NAMES {
            assert_eq!(Metric::named(name).unwrap(), metric);
        }
        let error = Metric::named("blue").unwrap_err().to_string();
        assert!(error.starts_with("metric: expected one of bleu, bleu-intl,") && error.ends_with("found blue"));
    }

    #[test]
    fn scores_of_classes_numbers_and_texts() {
        let labels = ["no".to_string(), "yes".to_string()];
        let examples: Vec<_> = ["no", "yes", "yes", "no"].iter().map(|t| TextExample::new("", *t)).collect();
        let predictions: Vec<String> = ["no", "yes", "perhaps", "perhaps"].iter().map(|s| s.to_string()).collect();
        let value =
            |metric: Metric, labels: &[String]| metric.scores(&predictions, &examples, labels).unwrap()[0].value;
        assert_eq!(value(Metric::Accuracy, &labels), 50.0);
        assert_eq!(value(Metric::F1, &labels), 50.0);
        assert_eq!(value(Metric::ExactMatch, &[]), 50.0);
        assert!(Metric::Bleu.scores(&predictions[1..], &examples, &[]).is_err());
        assert!(Metric::Bleu.scores(&[], &[], &[]).is_err());
        // Numbers that cannot be read count as -1.
        let examples: Vec<_> = ["1.0", "2.0", "3.0"].iter().map(|t| TextExample::new("", *t)).collect();
        let predictions: Vec<String> = ["2.0", "4.0", "x"].iter().map(|s| s.to_string()).collect();
        let score = Metric::Pearson.scores(&predictions, &examples, &[]).unwrap()[0].value;
        assert!((score - 100.0 * pearson_of(&[1.0, 2.0, 3.0], &[2.0, 4.0, -1.0])).abs() < 1e-9);
    }

    fn pearson_of(x: &[f64], y: &[f64]) -> f64 {
        let n = x.len() as f64;
        let (sx, sy) = (x.iter().sum::<f64>(), y.iter().sum::<f64>());
        let sxy: f64 = x.iter().zip(y).map(|(a, b)| a * b).sum();
        let (sxx, syy): (f64, f64) = (x.iter().map(|a| a * a).sum(), y.iter().map(|a| a * a).sum());
        (n * sxy - sx * sy) / ((n * sxx - sx * sx).sqrt() * (n * syy - sy * sy).sqrt())
    }

    #[test]
    fn multirc_groups_by_question() {
        let labels = ["False".to_string(), "True".to_string()];
        let example = |group: &str, target: &str| TextExample { group: group.into(), ..TextExample::new("", target) };
        let examples = [example("a", "False"), example("a", "True"), example("b", "False")];
        let predictions: Vec<String> = ["False", "True", "True"].iter().map(|s| s.to_string()).collect();
        let scores = Metric::Multirc.scores(&predictions, &examples, &labels).unwrap();
        assert_eq!((scores[1].name, scores[1].value), ("multirc-em", 50.0));
        assert!((scores[0].value - 200.0 / 3.0).abs() < 1e-9);
    }
}
