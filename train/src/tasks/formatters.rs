//! From records to texts: templates, and the formatters of the paper's benchmarks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{TextExample, winograd};
use crate::{
    Error, Result,
    corpus::{Record, Value},
    objectives::Objective,
};

/// How examples are made of records. Field names are those of the published data sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Examples {
    /// `{field}` in a text is replaced by the record's value. A target that is nothing but a list field makes one
    /// training example per value, and all values are references in the evaluation.
    Template { input: String, target: String },
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
    /// STS-B: the score in steps of 0.2.
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

/// The sentence about a field that a record does not have.
pub fn no_field(name: &str, record: &Record) -> String {
    format!("expected a field {name:?}, found {:?}", record.names().collect::<Vec<_>>())
}

/// What a formatter says about a record that it cannot use.
type Formatted<T> = std::result::Result<T, String>;

fn text<'a>(record: &'a Record, name: &str) -> Formatted<Cow<'a, str>> {
    record.text(name).ok_or_else(|| no_field(name, record))
}

fn values<'a>(record: &'a Record, name: &str) -> Formatted<&'a [String]> {
    record.values(name).ok_or_else(|| no_field(name, record))
}

/// A text with `{field}` places; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Where a brace is not closed or stands alone.
    pub fn parse(template: &str) -> Result<Template> {
        let bad = |what: &str| Error::Invalid(format!("template {template:?}: {what}"));
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(bad("expected a `{` before `}`; write `}}` for a brace"));
            } else {
                let end = rest.find('}').ok_or_else(|| bad("expected a `}` after `{`; write `{{` for a brace"))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(rest[..end].trim().to_string()));
                rest = &rest[end + 1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { parts })
    }

    /// The text for a record; lists are joined by spaces.
    ///
    /// # Errors
    /// Where the record lacks a field.
    pub fn fill(&self, record: &Record) -> Formatted<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Field(name) => out.push_str(&text(record, name)?),
            }
        }
        Ok(out)
    }

    /// Every text for a record: one, or one per value where the template is a single list field.
    fn fill_all(&self, record: &Record) -> Formatted<Vec<String>> {
        match self.parts.as_slice() {
            [Part::Field(name)] => Ok(values(record, name)?.to_vec()),
            _ => Ok(vec![self.fill(record)?]),
        }
    }

    /// The opposite of [`Template::fill`]: divides a text into fields at the literals.
    fn extract(&self, line: usize, text: &str) -> Formatted<Record> {
        let mismatch = || format!("expected a text of the form {:?}, found {text:?}", self.parts);
        let mut rest = text;
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str()).ok_or_else(mismatch)?,
                Part::Field(name) => {
                    let end = match parts.peek() {
                        Some(Part::Literal(literal)) => rest.find(literal.as_str()).ok_or_else(mismatch)?,
                        _ => rest.len(),
                    };
                    fields.push((name.clone(), Value::Text(rest[..end].trim().to_string())));
                    rest = &rest[end..];
                }
            }
        }
        Ok(Record::new(line, fields))
    }
}

impl Examples {
    /// Checks what can be checked without data.
    pub(super) fn check(&self, task: &str) -> Result<()> {
        let bad = |what: String| Error::Invalid(format!("task {task}: examples: {what}"));
        let templates: Vec<&String> = match self {
            Examples::Template { input, target } => vec![input, target],
            Examples::Denoise { text, .. } => vec![text],
            Examples::Slips { text, rate, .. } => {
                if !(0.0..=10.0).contains(rate) {
                    return Err(bad(format!("rate: expected 0 to 10 slips per word, found {rate}")));
                }
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
            Examples::Template { input, target } => {
                let input = parsed(input)?.fill(record)?;
                let targets = parsed(target)?.fill_all(record)?;
                Ok(targets.into_iter().map(|target| TextExample::new(input.clone(), target)).collect())
            }
            Examples::Record => {
                let whole = self.one(record)?;
                let answers = values(record, "answers")?;
                let answers = if answers.is_empty() { &["<unk>".to_string()] } else { answers };
                Ok(answers.iter().map(|answer| TextExample { targets: answer.clone(), ..whole.clone() }).collect())
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
            Examples::SquadSpan => Ok(squad_span(record)?.into_iter().collect()),
            _ => Ok(vec![self.one(record)?]),
        }
    }

    /// The evaluation examples of a record, with every reference.
    pub(super) fn evaluation(&self, record: &Record) -> Formatted<Vec<TextExample>> {
        match self {
            Examples::SquadSpan => Ok(squad_span(record)?.into_iter().collect()),
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
            Examples::Template { input, target } => {
                let references = parsed(target)?.fill_all(record)?;
                let targets = references.first().cloned().unwrap_or_default();
                Ok(TextExample { inputs: parsed(input)?.fill(record)?, targets, references, group: String::new() })
            }
            Examples::Glue { benchmark, keys, labels, label, pattern } => {
                glue(record, benchmark, keys, labels, label, pattern.as_deref())
            }
            Examples::Stsb { label } => stsb(record, label),
            Examples::Squad => squad(record),
            Examples::SquadTrivia => {
                let question = pad_punctuation(&text(record, "question")?);
                let answers = padded_answers(record)?;
                let targets = answers.first().cloned().unwrap_or_default();
                let inputs = collapse_spaces(&format!("squad trivia question: {question}"));
                Ok(TextExample { inputs, targets, references: answers, group: String::new() })
            }
            Examples::Multirc => multirc(record),
            Examples::Record => record_task(record),
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
                let (inputs, targets) = winograd::wnli_to_wsc(&text(record, premise)?, &text(record, hypothesis)?)
                    .ok_or("expected a pronoun in the premise, found none")?;
                Ok(TextExample { group: right_noun(record), ..TextExample::new(inputs, targets) })
            }
            Examples::SquadSpan | Examples::Denoise { .. } | Examples::Slips { .. } => {
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

fn glue(
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
            extracted = parsed(pattern)?.extract(record.line, &text(record, "text")?)?;
            &extracted
        }
        None => record,
    };
    let mut inputs = benchmark.to_string();
    for key in keys {
        inputs.push_str(&format!(" {key}: {}", text(source, key)?));
    }
    // Test sets have no label, or -1.
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

fn stsb(record: &Record, label: &str) -> Formatted<TextExample> {
    let score = text(record, label)?;
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

/// A space on both sides of each ASCII punctuation mark; runs of white space become one space.
pub(super) fn pad_punctuation(text: &str) -> String {
    let mut padded = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            padded.extend([' ', c, ' ']);
        } else {
            padded.push(c);
        }
    }
    collapse_spaces(&padded)
}

/// Runs of white space become one space, also at the ends.
fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            if !space {
                out.push(' ');
            }
            space = true;
        } else {
            out.push(c);
            space = false;
        }
    }
    out
}

fn padded_answers(record: &Record) -> Formatted<Vec<String>> {
    let mut answers: Vec<String> = values(record, "answers")?.iter().map(|a| pad_punctuation(a)).collect();
    let mut seen = std::collections::HashSet::new();
    answers.retain(|answer| seen.insert(answer.clone()));
    if answers.is_empty() { Err("answers: expected at least one, found none".into()) } else { Ok(answers) }
}

fn squad(record: &Record) -> Formatted<TextExample> {
    let question = pad_punctuation(&text(record, "question")?);
    let context = pad_punctuation(&text(record, "context")?);
    let references = padded_answers(record)?;
    let inputs = collapse_spaces(&format!("question: {question} context: {context}"));
    Ok(TextExample { inputs, targets: references[0].clone(), references, group: String::new() })
}

/// The answer's place in the context's words, or nothing where it is not in there. As in the reference, characters that
/// are no word characters are separators, every one of them, so that two in a row make an empty word.
fn squad_span(record: &Record) -> Formatted<Option<TextExample>> {
    let mut example = squad(record)?;
    let context = pad_punctuation(&text(record, "context")?);
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_string).collect()
    };
    let (context, answer) = (words(&context), words(&example.targets));
    let Some(start) = context.windows(answer.len()).position(|window| window == answer) else { return Ok(None) };
    example.targets = format!("start: {start} end: {}", start + answer.len() - 1);
    example.references = vec![example.targets.clone()];
    Ok(Some(example))
}

fn multirc(record: &Record) -> Formatted<TextExample> {
    let labels = ["False".to_string(), "True".to_string()];
    let keys = ["question".to_string(), "answer".to_string(), "paragraph".to_string()];
    let mut example = glue(record, "multirc", &keys, &labels, "label", None)?;
    example.inputs = example.inputs.replace("<br>", " ").replace("<b>", "").replace("</b>", "");
    // The reference groups by the question's number alone.
    let index = text(record, "idx")?;
    let index: serde_json::Value =
        serde_json::from_str(&index).map_err(|e| format!("idx: expected an object, found {index:?}: {e}"))?;
    example.group = index.get("question").map_or_else(String::new, ToString::to_string);
    Ok(example)
}

fn record_task(record: &Record) -> Formatted<TextExample> {
    let passage = join_highlights(&text(record, "passage")?);
    let query = text(record, "query")?;
    let entities = values(record, "entities")?.join(", ");
    let references = values(record, "answers")?.to_vec();
    Ok(TextExample {
        inputs: format!("record query: {query} entities: {entities} passage: {passage}"),
        targets: references.first().cloned().unwrap_or("<unk>".into()),
        references,
        group: record.text("idx").map_or_else(String::new, Cow::into_owned),
    })
}

/// ReCoRD's `@highlight` lines become sentences of the passage.
fn join_highlights(passage: &str) -> String {
    let mark = "\n@highlight\n";
    let mut out = String::with_capacity(passage.len());
    let mut parts = passage.split(mark);
    out.push_str(parts.next().unwrap_or(""));
    for part in parts {
        out.push_str(if out.ends_with(['.', '?', '!', '"', '\'']) { " " } else { ". " });
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[(&str, &str)]) -> Record {
        Record::new(1, fields.iter().map(|(k, v)| (k.to_string(), Value::Text(v.to_string()))).collect())
    }

    fn with_list(mut fields: Vec<(&str, &str)>, name: &str, list: &[&str]) -> Record {
        let mut all: Vec<_> = fields.drain(..).map(|(k, v)| (k.to_string(), Value::Text(v.to_string()))).collect();
        all.push((name.to_string(), Value::List(list.iter().map(|s| s.to_string()).collect())));
        Record::new(1, all)
    }

    fn glue_task(benchmark: &str, keys: &[&str], labels: &[&str]) -> Examples {
        let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        Examples::Glue {
            benchmark: benchmark.into(),
            keys: owned(keys),
            labels: owned(labels),
            label: "label".into(),
            pattern: None,
        }
    }

    fn pair(examples: &Examples, record: &Record) -> (String, String) {
        let example = examples.evaluation(record).unwrap().remove(0);
        (example.inputs, example.targets)
    }

    #[test]
    fn templates() {
        let task = Examples::Template { input: "translate English to German: {en}".into(), target: "{{{de}}}".into() };
        let record = record(&[("en", "That is good."), ("de", "Das ist gut.")]);
        assert_eq!(
            pair(&task, &record),
            ("translate English to German: That is good.".into(), "{Das ist gut.}".into())
        );
        let bad = Examples::Template { input: "{fr}".into(), target: "{de}".into() };
        assert_eq!(bad.training(&record).unwrap_err(), r#"expected a field "fr", found ["en", "de"]"#);
        for broken in ["{", "a {b", "a } b"] {
            assert!(Template::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_list_as_target_is_several_examples_or_references() {
        let task = Examples::Template { input: "pronounce: {word}".into(), target: "{pronunciations}".into() };
        let record = with_list(vec![("word", "a")], "pronunciations", &["AH0", "EY1"]);
        let training = task.training(&record).unwrap();
        assert_eq!(training.iter().map(|e| e.targets.as_str()).collect::<Vec<_>>(), ["AH0", "EY1"]);
        let evaluation = task.evaluation(&record).unwrap();
        assert_eq!(evaluation.len(), 1);
        assert_eq!(evaluation[0].references, ["AH0", "EY1"]);
    }

    #[test]
    fn glue_and_superglue_examples_of_the_paper() {
        let cola = glue_task("cola", &["sentence"], &["unacceptable", "acceptable"]);
        assert_eq!(
            pair(&cola, &record(&[("sentence", "John made Bill master of himself."), ("label", "1")])),
            ("cola sentence: John made Bill master of himself.".into(), "acceptable".into())
        );
        let rte = glue_task("rte", &["sentence1", "sentence2"], &["entailment", "not_entailment"]);
        let (inputs, targets) =
            pair(&rte, &record(&[("sentence1", "A."), ("sentence2", "B."), ("label", "not_entailment")]));
        assert_eq!((inputs.as_str(), targets.as_str()), ("rte sentence1: A. sentence2: B.", "not_entailment"));
        let copa = glue_task("copa", &["choice1", "choice2", "premise", "question"], &["choice1", "choice2"]);
        let fields = [
            ("premise", "Political violence broke out in the nation."),
            ("choice1", "Many citizens relocated to the capitol."),
            ("choice2", "Many citizens took refuge in other territories."),
            ("question", "effect"),
            ("label", "1"),
        ];
        assert_eq!(
            pair(&copa, &record(&fields)),
            (
                "copa choice1: Many citizens relocated to the capitol. choice2: Many citizens took refuge in other \
                 territories. premise: Political violence broke out in the nation. question: effect"
                    .into(),
                "choice2".into()
            )
        );
        // A test set's label.
        assert_eq!(pair(&cola, &record(&[("sentence", "x"), ("label", "-1")])).1, "<unk>");
        assert_eq!(pair(&cola, &record(&[("sentence", "x")])).1, "<unk>");
        let error = cola.training(&record(&[("sentence", "x"), ("label", "2")])).unwrap_err();
        assert_eq!(error, "label: expected a class of 0 to 1, found 2");
        let error = rte.training(&record(&[("sentence1", ""), ("sentence2", ""), ("label", "yes")])).unwrap_err();
        assert!(error.contains("expected one of"), "{error}");
    }

    #[test]
    fn a_pattern_divides_a_text_into_keys() {
        let Examples::Glue { benchmark, keys, labels, label, .. } =
            glue_task("wic", &["sentence1", "sentence2", "word"], &["False", "True"])
        else {
            unreachable!()
        };
        let pattern = Some("Word: {word}. Sentence 1: {sentence1} Sentence 2: {sentence2}".to_string());
        let wic = Examples::Glue { benchmark, keys, labels, label, pattern };
        let fields = [
            (
                "text",
                "Word: institution. Sentence 1: The institution of slavery . Sentence 2: The institution of marriage .",
            ),
            ("label", "1"),
        ];
        assert_eq!(
            pair(&wic, &record(&fields)),
            (
                "wic sentence1: The institution of slavery . sentence2: The institution of marriage . word: institution"
                    .into(),
                "True".into()
            )
        );
        assert!(wic.training(&record(&[("text", "no pattern"), ("label", "1")])).is_err());
    }

    #[test]
    fn stsb_rounds_half_to_even_in_steps_of_a_fifth() {
        let stsb = Examples::Stsb { label: "label".into() };
        let rows = [
            ("2.8", "2.8"),
            ("1.66", "1.6"),
            ("0.5", "0.4"),
            ("1.5", "1.6"),
            ("2.5", "2.4"),
            ("3.5", "3.6"),
            ("4.5", "4.4"),
            ("2.57", "2.6"),
            ("3.25", "3.2"),
            ("5.000", "5.0"),
            ("0", "0.0"),
        ];
        for (label, expected) in rows {
            let fields = [("sentence1", "Big news."), ("sentence2", "No idea."), ("label", label)];
            let (inputs, targets) = pair(&stsb, &record(&fields));
            assert_eq!(inputs, "stsb sentence1: Big news. sentence2: No idea.");
            assert_eq!(targets, expected, "{label}");
        }
        assert_eq!(postprocess_stsb(" 2.6"), 2.6);
        assert_eq!(postprocess_stsb("about 2"), -1.0);
    }

    #[test]
    fn squad_pads_punctuation() {
        assert_eq!(
            pad_punctuation(r#""This  is a string with "punctuation (1845-1986) "."#),
            r#" " This is a string with " punctuation ( 1845 - 1986 ) " . "#
        );
        let record = with_list(
            vec![("question", "A question?"), ("context", "Some context. The answer.")],
            "answers",
            &["The answer.", "answer", "answer"],
        );
        let example = Examples::Squad.evaluation(&record).unwrap().remove(0);
        assert_eq!(example.inputs, "question: A question ? context: Some context . The answer . ");
        assert_eq!(example.targets, "The answer . ");
        assert_eq!(example.references, ["The answer . ", "answer"]);
        let span = Examples::SquadSpan.evaluation(&record).unwrap().remove(0);
        // Words: Some context _ _ The answer _ _ _ (the marks and what pads them are empty words).
        assert_eq!(span.targets, "start: 4 end: 8");
        let trivia = Examples::SquadTrivia.evaluation(&record).unwrap().remove(0);
        assert_eq!(trivia.inputs, "squad trivia question: A question ? ");
    }

    #[test]
    fn multirc_takes_out_html() {
        let fields = [
            (
                "paragraph",
                "<b>Sent 1: </b>Once upon a time, there was a squirrel named Joey.<br><b>Sent 2: </b>Joey loved to go.",
            ),
            ("question", "Why?"),
            ("answer", "There was only pie to eat"),
            ("label", "1"),
            ("idx", r#"{"paragraph": 0, "question": 7, "answer": 2}"#),
        ];
        let example = Examples::Multirc.training(&record(&fields)).unwrap().remove(0);
        assert_eq!(
            example.inputs,
            "multirc question: Why? answer: There was only pie to eat paragraph: Sent 1: Once upon a time, there was a \
             squirrel named Joey. Sent 2: Joey loved to go."
        );
        assert_eq!((example.targets.as_str(), example.group.as_str()), ("True", "7"));
    }

    #[test]
    fn record_has_an_example_for_each_answer() {
        let mut fields = vec![
            (
                "passage".to_string(),
                Value::Text("This is the passage\n@highlight\nAnother sentence.\n@highlight\nThird sentence.".into()),
            ),
            ("query".to_string(), Value::Text("It was @placeholder.".into())),
            ("entities".to_string(), Value::List(vec!["A".into(), "B".into(), "C".into()])),
            ("answers".to_string(), Value::List(vec!["A".into(), "C".into()])),
        ];
        let examples = Examples::Record.training(&Record::new(1, fields.clone())).unwrap();
        assert_eq!(
            examples[0].inputs,
            "record query: It was @placeholder. entities: A, B, C passage: This is the passage. Another sentence. Third \
             sentence."
        );
        assert_eq!(examples.iter().map(|e| e.targets.as_str()).collect::<Vec<_>>(), ["A", "C"]);
        fields[3].1 = Value::List(vec![]);
        assert_eq!(Examples::Record.training(&Record::new(1, fields)).unwrap()[0].targets, "<unk>");
    }

    /// Every local benchmark file makes examples of known labels.
    #[test]
    fn benchmark_files() {
        use crate::{
            objectives::Sentinels,
            tasks::{Limits, Task, TaskConfig, TooLong},
            vocabulary::Vocabulary,
        };
        let vocabulary = Vocabulary::bytes(384).unwrap();
        assert_eq!(vocabulary.sentinels(), Sentinels { first: 258, count: vocabulary.sentinels().count });
        let limits = Limits { inputs_length: 4096, targets_length: 128, too_long: TooLong::Truncate };
        let registry: toml::Table = include_str!("../../configs/benchmarks.toml").parse().unwrap();
        let tasks: Vec<TaskConfig> = registry["data"]["tasks"].clone().try_into().unwrap();
        // Registry name, training examples, evaluation examples, one target of the evaluation's first example.
        let expected = [
            ("data/glue.tar.xz", "cola", 8551, "acceptable"),
            ("data/glue.tar.xz", "sst2", 67349, "positive"),
            ("data/glue.tar.xz", "mrpc", 3667, "equivalent"),
            ("data/glue.tar.xz", "stsb", 5749, "5.0"),
            ("data/glue.tar.xz", "qnli", 0, "entailment"),
            ("data/glue.tar.xz", "rte", 2490, "not_entailment"),
            ("data/glue.tar.xz", "wnli", 0, "The hair"),
            ("data/superglue.tar.xz", "cb", 218, "contradiction"),
            ("data/superglue.tar.xz", "copa", 368, "choice2"),
            ("data/superglue.tar.xz", "wic", 4647, ""),
            ("data/xquad.tar.xz", "squad", 0, "308"),
            ("data/scitldr.tar.xz", "scitldr", 1992, ""),
        ];
        let mut folders = std::collections::HashMap::new();
        for (archive, name, count, target) in expected {
            let Some(folder) = folders.entry(archive).or_insert_with(|| crate::testing::unpacked(archive)).as_ref()
            else {
                continue;
            };
            let config = tasks.iter().find(|task| task.name == name).unwrap_or_else(|| panic!("no task {name}"));
            let task = Task::load(config, folder.path(), &vocabulary, limits, 1).unwrap_or_else(|e| panic!("{e}"));
            println!("{name}: {:?}\n  {:?}", task.report, task.dev[0]);
            assert_eq!(task.len(), count, "{name}");
            assert!(!task.dev.is_empty() && task.dev[0].targets.starts_with(target), "{name}: {:?}", task.dev[0]);
            let labels = config.examples.labels();
            if !labels.is_empty() {
                assert!(task.dev.iter().all(|example| labels.contains(&example.targets)), "{name}");
            }
        }
    }
}
