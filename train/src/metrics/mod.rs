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
pub use error_rate::{phoneme_error_rate, word_error_rate};
pub use rouge::{Rouge, rouge};
pub use squad::{Normalization, exact_match_and_f1};

use crate::{
    Error, Result,
    tasks::{TextExample, postprocess_stsb, words_of_span, wsc_score},
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
    /// The same for predicted places `start: i end: j`, which are read as the context's words.
    SpanSquad,
    /// SQuAD's with TriviaQA's normalisation.
    TriviaQa,
    /// Share of right class words: the very words, without white space around them.
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
const NAMES: [(&str, Metric); 18] = [
    ("bleu", Metric::Bleu),
    ("bleu-intl", Metric::BleuIntl),
    ("chrf", Metric::Chrf),
    ("rouge", Metric::Rouge),
    ("exact-match", Metric::ExactMatch),
    ("squad", Metric::Squad),
    ("span-squad", Metric::SpanSquad),
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
    /// NaN where the score is not defined: a correlation with a constant, or with predictions that are no finite
    /// numbers.
    pub value: f64,
    /// Error rates are better when lower.
    pub lower_is_better: bool,
}

impl Score {
    /// A score that is better when higher.
    fn new(name: &'static str, value: f64) -> Score {
        Score { name, value, lower_is_better: false }
    }
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

    /// Whether it compares class words, which a task has to name: without them all texts would be the same class.
    pub fn needs_labels(self) -> bool {
        matches!(self, Metric::Accuracy | Metric::F1 | Metric::MacroF1 | Metric::Matthews | Metric::Multirc)
    }

    /// The names of its scores, of which some metrics have several.
    pub fn score_names(self) -> Vec<&'static str> {
        match self {
            Metric::Rouge => vec!["rouge1", "rouge2", "rougeL", "rougeLsum"],
            Metric::Squad => vec!["squad-em", "squad-f1"],
            Metric::SpanSquad => vec!["span-squad-em", "span-squad-f1"],
            Metric::TriviaQa => vec!["trivia-qa-em", "trivia-qa-f1"],
            Metric::PhonemeErrorRate => vec!["phoneme-error-rate", "phoneme-error-rate-no-stress"],
            Metric::WordErrorRate => vec!["word-error-rate", "word-error-rate-no-stress"],
            Metric::Multirc => vec!["multirc-f1", "multirc-em"],
            one => NAMES.iter().filter(|(_, metric)| *metric == one).map(|(name, _)| *name).collect(),
        }
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
        let judged = Judged {
            predictions: predictions.iter().map(String::as_str).collect(),
            references: examples.iter().map(|e| e.references.as_slice()).collect(),
            targets: examples.iter().map(|e| e.targets.as_str()).collect(),
            examples,
            labels,
        };
        let one = |name, value| vec![Score::new(name, value)];
        Ok(match self {
            Metric::Bleu => one("bleu", judged.bleu(Tokenization::V13a)),
            Metric::BleuIntl => one("bleu-intl", judged.bleu(Tokenization::International)),
            Metric::Chrf => one("chrf", chrf(&judged.predictions, &judged.references)),
            Metric::Rouge => judged.rouge(),
            Metric::ExactMatch => one("exact-match", judged.exact_match()),
            Metric::Squad => judged.answers(["squad-em", "squad-f1"], &judged.predictions, Normalization::Squad),
            Metric::SpanSquad => judged.spans(),
            Metric::TriviaQa => {
                judged.answers(["trivia-qa-em", "trivia-qa-f1"], &judged.predictions, Normalization::TriviaQa)
            }
            Metric::Accuracy => one("accuracy", judged.of_classes(accuracy)),
            Metric::F1 => one("f1", judged.of_classes(f1_with_invalid)),
            Metric::MacroF1 => one("macro-f1", judged.of_classes(|t, p| macro_f1(t, p, labels.len()))),
            Metric::Matthews => one("matthews", judged.of_classes(matthews)),
            Metric::Pearson => one("pearson", judged.of_numbers(pearson)),
            Metric::Spearman => one("spearman", judged.of_numbers(spearman)),
            Metric::PhonemeErrorRate => {
                judged.rates(["phoneme-error-rate", "phoneme-error-rate-no-stress"], phoneme_error_rate)
            }
            Metric::WordErrorRate => judged.rates(["word-error-rate", "word-error-rate-no-stress"], word_error_rate),
            Metric::Multirc => judged.multirc(),
            Metric::Wsc => one("wsc", judged.wsc()),
        })
    }
}

/// Predictions beside what was expected of them, one for each example.
struct Judged<'a> {
    predictions: Vec<&'a str>,
    references: Vec<&'a [String]>,
    targets: Vec<&'a str>,
    examples: &'a [TextExample],
    labels: &'a [String],
}

impl Judged<'_> {
    fn bleu(&self, tokenization: Tokenization) -> f64 {
        bleu(&self.predictions, &self.references, tokenization).score
    }

    fn rouge(&self) -> Vec<Score> {
        let Rouge { rouge1, rouge2, rouge_l, rouge_lsum } = rouge(&self.predictions, &self.targets);
        let named = [("rouge1", rouge1), ("rouge2", rouge2), ("rougeL", rouge_l), ("rougeLsum", rouge_lsum)];
        named.map(|(name, value)| Score::new(name, value)).to_vec()
    }

    fn exact_match(&self) -> f64 {
        let pairs = self.predictions.iter().zip(&self.references);
        self.percent(pairs.filter(|(text, references)| references.iter().any(|r| r.trim() == text.trim())).count())
    }

    fn answers(&self, names: [&'static str; 2], predictions: &[&str], normalization: Normalization) -> Vec<Score> {
        let (exact_match, f1) = exact_match_and_f1(predictions, &self.references, normalization);
        vec![Score::new(names[0], exact_match), Score::new(names[1], f1)]
    }

    fn spans(&self) -> Vec<Score> {
        let pairs = self.examples.iter().zip(&self.predictions);
        let words: Vec<&str> = pairs.map(|(example, text)| words_of_span(&example.context, text)).collect();
        self.answers(["span-squad-em", "span-squad-f1"], &words, Normalization::Squad)
    }

    /// The class ids of targets and predictions; -1 for what is no class word.
    fn classes(&self) -> (Vec<i64>, Vec<i64>) {
        let class = |text: &&str| self.labels.iter().position(|label| label == text).map_or(-1, |id| id as i64);
        (self.targets.iter().map(class).collect(), self.predictions.iter().map(class).collect())
    }

    fn of_classes(&self, metric: impl Fn(&[i64], &[i64]) -> f64) -> f64 {
        let (targets, predictions) = self.classes();
        metric(&targets, &predictions)
    }

    fn of_numbers(&self, metric: fn(&[f64], &[f64]) -> f64) -> f64 {
        let numbers = |texts: &[&str]| texts.iter().map(|text| postprocess_stsb(text)).collect::<Vec<_>>();
        metric(&numbers(&self.targets), &numbers(&self.predictions))
    }

    /// An error rate with stress and without.
    fn rates(&self, names: [&'static str; 2], rate: fn(&[&str], &[&[String]], bool) -> f64) -> Vec<Score> {
        let values = [true, false].map(|stress| rate(&self.predictions, &self.references, stress));
        names.into_iter().zip(values).map(|(name, value)| Score { name, value, lower_is_better: true }).collect()
    }

    fn multirc(&self) -> Vec<Score> {
        let (targets, predictions) = self.classes();
        let groups: Vec<&str> = self.examples.iter().map(|example| example.group.as_str()).collect();
        let whole = classification::group_exact_match(&targets, &predictions, &groups);
        vec![Score::new("multirc-f1", f1_with_invalid(&targets, &predictions)), Score::new("multirc-em", whole)]
    }

    /// A schema asks whether the noun is meant: "yes" is a prediction of the noun.
    fn wsc(&self) -> f64 {
        let right = |(text, example): &(&&str, &TextExample)| {
            wsc_score(text, &example.targets) == i32::from(example.group != "0")
        };
        self.percent(self.predictions.iter().zip(self.examples).filter(right).count())
    }

    fn percent(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.predictions.len() as f64
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

    fn examples(targets: &[&str]) -> Vec<TextExample> {
        targets.iter().map(|target| TextExample::new("", *target)).collect()
    }

    fn texts(predictions: &[&str]) -> Vec<String> {
        predictions.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn a_model_may_predict_nan() {
        let examples = examples(&["1.0", "2.0", "3.0"]);
        for nan in ["nan", "NaN", " -nan"] {
            for metric in [Metric::Pearson, Metric::Spearman] {
                let score = metric.scores(&texts(&[nan, "1.0", "2.0"]), &examples, &[]).unwrap()[0].value;
                assert!(score.is_nan(), "{metric:?}: {score}");
            }
        }
        let predictions = texts(&["inf", "1.0", "2.0"]);
        assert!(Metric::Pearson.scores(&predictions, &examples, &[]).unwrap()[0].value.is_nan());
        assert!((Metric::Spearman.scores(&predictions, &examples, &[]).unwrap()[0].value + 50.0).abs() < 1e-9);
    }

    #[test]
    fn class_words_are_the_very_words() {
        let labels = ["entailment".to_string(), "neutral".to_string()];
        let examples = examples(&["entailment", "entailment", "neutral", "neutral"]);
        let predictions = texts(&[" entailment", "entailment\n", "neutral", "neutral "]);
        assert_eq!(Metric::Accuracy.scores(&predictions, &examples, &labels).unwrap()[0].value, 25.0);
    }

    /// Values of the reference's `span_squad`, where it counts words as its own targets do: up to the first mark.
    #[test]
    fn spans_are_read_as_words_of_the_context() {
        let rows: &[(&[&str], &str, &str, f64, f64)] = &[
            (&["abc abd", "$$$$"], "abc abd efg", "start: 0 end: 1", 100.0, 100.0),
            (&["context"], "Some context . The answer . ", "start: 1 end: 1", 100.0, 100.0),
            (&["context"], "Some context . The answer . ", "from 1 to 1", 100.0, 100.0),
            (&["a big house", "red"], "a big red house", "start: 0 end: 3", 0.0, 80.0),
            (&["context"], "Some context", "start: 1 end: 9", 100.0, 100.0),
            (&["context"], "Some context", "start: -1 end: 1", 100.0, 100.0),
            (&["context"], "Some context", "start: 1 end: 0", 0.0, 0.0),
            (&["context"], "Some context", "start: 7 end: 9", 0.0, 0.0),
            (&["context"], "Some context", "start: one end: 1", 0.0, 0.0),
            (&["context"], "Some context", "start: 1", 0.0, 0.0),
            (&["context"], "Some context", "", 0.0, 0.0),
            // Behind a mark: the reference's targets count it and the space behind it, its metric does not.
            (&["The answer"], "Some context . The answer . ", "start: 4 end: 5", 100.0, 100.0),
        ];
        for (answers, context, prediction, exact_match, f1) in rows {
            let example = TextExample {
                references: texts(answers),
                context: context.to_string(),
                ..TextExample::new("", "start: 0 end: 0")
            };
            let scores = Metric::SpanSquad.scores(&texts(&[*prediction]), &[example], &[]).unwrap();
            assert_eq!((scores[0].name, scores[0].value), ("span-squad-em", *exact_match), "{prediction}");
            assert!(scores[1].name == "span-squad-f1" && (scores[1].value - f1).abs() < 1e-9, "{prediction}");
        }
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
