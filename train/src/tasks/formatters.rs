//! From records to texts: templates, and the formatters of the paper's benchmarks.

mod fields;
mod glue;
mod question;
mod super_glue;
mod template;
pub(super) mod winograd;
pub(super) mod wnli;

use serde::{Deserialize, Serialize};

use super::{example::TextExample, slips::Slips};
use crate::{Error, Result, objectives::Objective, source::Record};

use fields::{Formatted, text, values};

pub(super) use fields::no_field;
pub use glue::postprocess_stsb;
pub(crate) use question::words_of_span;
pub use template::Template;

/// How examples are made of records. Field names are those of the published data sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Examples {
    /// `{field}` in a text is replaced by the record's value. A target that is nothing but a list field makes one
    /// training example per value, and all values are references in the evaluation.
    Template { input: String, target: String },
    /// As `template`, over a few neighbouring records: the values of each field are joined by one of the separators,
    /// the same in the input and the target. How many, from `least` to `most`, and which separator is drawn anew each
    /// epoch; fewer where more would be too long. The evaluation joins the mean number of records, each once.
    Joined {
        input: String,
        target: String,
        #[serde(default = "two")]
        least: usize,
        #[serde(default = "four")]
        most: usize,
        #[serde(default = "space_and_line_break")]
        separators: Vec<String>,
    },
    /// Unlabelled text, corrupted by an objective.
    Denoise {
        #[serde(default = "text_field")]
        text: String,
        /// Text before the corrupted input; the paper uses none.
        #[serde(default)]
        prefix: String,
        #[serde(default = "span_corruption")]
        objective: Objective,
        /// Records are laid end to end without a separator and cut into segments, as the paper does; otherwise each
        /// record is an example of its own, or several where it is long.
        #[serde(default)]
        concatenate: bool,
    },
    /// A clean text is the target, the same text with typing and grammar slips the input.
    Slips {
        #[serde(default = "text_field")]
        text: String,
        #[serde(default)]
        prefix: String,
        /// Expected slips per word.
        rate: f64,
        /// The share of texts that stay as they are, so that a model learns to leave right sentences alone.
        #[serde(default = "usual_clean_share")]
        clean: f64,
        /// The share of slips that are of grammar: agreement, tenses, articles, prepositions, word order, punctuation.
        #[serde(default)]
        grammar: f64,
    },
    /// `<benchmark> <key>: <value> ...` and a label word. Keys are sorted unless given in order.
    Glue {
        benchmark: String,
        keys: Vec<String>,
        /// Class names by id.
        labels: Vec<String>,
        #[serde(default = "label_field")]
        label: String,
        /// Divides the field `text` into the keys' values, where a file has them in one: literal text and `{key}`.
        #[serde(default)]
        pattern: Option<String>,
    },
    /// STS-B: the score in steps of 0.2; "-1.0" where a test set has none.
    Stsb {
        #[serde(default = "score_field")]
        label: String,
    },
    /// `question: ... context: ...` with padded punctuation; the target is the first answer.
    Squad,
    /// `squad trivia question: ...`: the answer without its context.
    SquadTrivia,
    /// As `squad`; the target is the answer's place, `start: i end: j` in words.
    SquadSpan,
    /// TriviaQA: `question`, `contexts` (a list) and `answers` (a list, every alias). An example for each context and
    /// each alias in it.
    TriviaQa,
    /// MultiRC: one record per answer option.
    Multirc,
    /// ReCoRD: one training example per answer.
    Record,
    /// Definite pronoun resolution: `sentence`, `pronoun`, `candidates`, `label`.
    Dpr,
    /// Winograd schemas: `text`, `span1_text`, `span2_text`, `span2_index`, `label`. Trains on true ones alone.
    Wsc,
    /// WNLI in the form of a Winograd schema; evaluation only.
    Wnli {
        #[serde(default = "sentence1_field")]
        premise: String,
        #[serde(default = "sentence2_field")]
        hypothesis: String,
    },
}

fn usual_clean_share() -> f64 {
    Slips::USUAL_CLEAN_SHARE
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn space_and_line_break() -> Vec<String> {
    vec![" ".into(), "\n".into()]
}

fn text_field() -> String {
    "{text}".into()
}

fn label_field() -> String {
    "label".into()
}

fn score_field() -> String {
    "score".into()
}

fn sentence1_field() -> String {
    "sentence1".into()
}

fn sentence2_field() -> String {
    "sentence2".into()
}

fn span_corruption() -> Objective {
    Objective::T5
}

impl Examples {
    /// Checks what can be checked without data.
    pub(super) fn check(&self, task: &str) -> Result<()> {
        let bad = |what: String| Error::Invalid(format!("task {task}: examples: {what}"));
        let templates: Vec<&String> = match self {
            Examples::Template { input, target } => vec![input, target],
            Examples::Denoise { text, objective, .. } => {
                objective.check().map_err(|what| bad(format!("objective: {what}")))?;
                vec![text]
            }
            Examples::Joined { input, target, least, most, separators } => {
                if !(1..=*most).contains(least) {
                    return Err(bad(format!("least: expected 1 to {most}, the most, found {least}")));
                }
                if separators.is_empty() {
                    return Err(bad("separators: expected one or more texts, found none".into()));
                }
                vec![input, target]
            }
            Examples::Slips { text, rate, clean, grammar, .. } => {
                Slips { rate: *rate, clean: *clean, grammar: *grammar }.check().map_err(bad)?;
                vec![text]
            }
            Examples::Glue { labels, pattern, .. } => {
                if labels.is_empty() {
                    return Err(bad("labels: expected the class names in order, found none".into()));
                }
                pattern.iter().collect()
            }
            _ => Vec::new(),
        };
        for template in templates {
            Template::parse(template).map_err(|e| bad(e.to_string()))?;
        }
        Ok(())
    }

    /// The training examples of a record.
    pub(super) fn training(&self, record: &Record) -> Formatted<Vec<TextExample>> {
        match self {
            Examples::Template { input, target } | Examples::Joined { input, target, .. } => {
                let input = parsed(input)?.fill(record)?;
                let targets = parsed(target)?.fill_all(record)?;
                Ok(targets.into_iter().map(|target| TextExample::new(input.clone(), target)).collect())
            }
            Examples::Record => {
                let whole = self.one(record)?;
                if whole.references.is_empty() {
                    return Ok(vec![whole]);
                }
                let answers = whole.references.iter();
                Ok(answers.map(|answer| TextExample { targets: answer.clone(), ..whole.clone() }).collect())
            }
            Examples::Wsc => {
                let label = text(record, "label")?;
                if !matches!(label.as_ref(), "1" | "True" | "true") {
                    return Ok(Vec::new());
                }
                Ok(vec![TextExample { group: String::new(), ..self.one(record)? }])
            }
            // Never trained, by the paper's protocol.
            Examples::Wnli { .. } => Ok(Vec::new()),
            Examples::SquadSpan => Ok(question::squad_span(record)?.into_iter().collect()),
            Examples::TriviaQa => {
                let examples = question::trivia_qa(record)?.into_iter();
                Ok(examples
                    .flat_map(|(input, aliases)| aliases.into_iter().map(move |alias| TextExample::new(&*input, alias)))
                    .collect())
            }
            _ => Ok(vec![self.one(record)?]),
        }
    }

    /// The evaluation examples of a record, with every reference.
    pub(super) fn evaluation(&self, record: &Record) -> Formatted<Vec<TextExample>> {
        match self {
            Examples::SquadSpan => Ok(question::squad_span(record)?.into_iter().collect()),
            Examples::TriviaQa => {
                let references = question::padded_answers(record)?;
                let examples = question::trivia_qa(record)?.into_iter();
                Ok(examples
                    .map(|(input, aliases)| TextExample {
                        references: references.clone(),
                        ..TextExample::new(input, aliases.into_iter().next().unwrap_or_default())
                    })
                    .collect())
            }
            _ => Ok(vec![self.one(record)?]),
        }
    }

    /// The class words of the targets, by class id; none where targets are free text.
    pub fn labels(&self) -> Vec<String> {
        match self {
            Examples::Glue { labels, .. } => labels.clone(),
            Examples::Multirc => vec!["False".into(), "True".into()],
            _ => Vec::new(),
        }
    }

    fn one(&self, record: &Record) -> Formatted<TextExample> {
        match self {
            Examples::Template { input, target } | Examples::Joined { input, target, .. } => {
                let references = parsed(target)?.fill_all(record)?;
                let targets = references.first().cloned().unwrap_or_default();
                Ok(TextExample { references, ..TextExample::new(parsed(input)?.fill(record)?, targets) })
            }
            Examples::Glue { benchmark, keys, labels, label, pattern } => {
                glue::glue(record, benchmark, keys, labels, label, pattern.as_deref())
            }
            Examples::Stsb { label } => glue::stsb(record, label),
            Examples::Squad => question::squad(record),
            Examples::SquadTrivia => question::squad_trivia(record),
            Examples::Multirc => super_glue::multirc(record),
            Examples::Record => super_glue::record(record),
            Examples::Dpr => winograd::dpr(
                &text(record, "sentence")?,
                &text(record, "pronoun")?,
                values(record, "candidates")?,
                &text(record, "label")?,
            ),
            Examples::Wsc => {
                let index = text(record, "span2_index")?;
                let index = index.parse().map_err(|_| format!("span2_index: expected a number, found {index:?}"))?;
                let [all, noun, pronoun] = ["text", "span1_text", "span2_text"].map(|name| text(record, name));
                let mut example = winograd::wsc(&all?, &noun?, &pronoun?, index)?;
                example.group = right_noun(record);
                Ok(example)
            }
            Examples::Wnli { premise, hypothesis } => {
                let (inputs, targets) = wnli::wnli_to_wsc(&text(record, premise)?, &text(record, hypothesis)?)
                    .ok_or("expected a pronoun in the premise, found none")?;
                Ok(TextExample { group: right_noun(record), ..TextExample::new(inputs, targets) })
            }
            Examples::SquadSpan | Examples::TriviaQa | Examples::Denoise { .. } | Examples::Slips { .. } => {
                Err("is not made by a formatter".into())
            }
        }
    }
}

/// Whether the noun of a schema is the right one: "1" or "0", and "" where the record does not say.
fn right_noun(record: &Record) -> String {
    match record.text("label").as_deref() {
        Some("1" | "True" | "true") => "1".into(),
        Some("0" | "False" | "false") => "0".into(),
        _ => String::new(),
    }
}

fn parsed(template: &str) -> Formatted<Template> {
    Template::parse(template).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
