//! Heads that do not generate: classes of a text or of its tokens, and the span that answers a question.

use std::ops::Range;

use crate::decoder::Decoder;
use crate::encode::{EncodeOptions, Passage};
use crate::error::{Error, Result};
use crate::layers::Query;
use crate::model::Model;
use crate::pooling::Pooling;
use crate::sentence_model::Dense;
use crate::session::{FORCED_ROWS, Session};

/// What a checkpoint has in the place of an output matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// What it says.
    pub task: HeadTask,
    /// The name of each value that it gives.
    pub labels: Vec<String>,
    /// What becomes of the values.
    pub problem: Problem,
    /// One behind the other.
    pub layers: Vec<Dense>,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadTask {
    /// Classes of a text, by the decoder's state at `</s>`: `T5ForSequenceClassification`.
    Sequence,
    /// Classes of each token, by the encoder's states: `T5ForTokenClassification`.
    Tokens,
    /// Where an answer begins and ends, by the decoder's states: `T5ForQuestionAnswering`.
    Question,
}

impl HeadTask {
    /// All, with the end of their classes' names and the name in our files.
    pub(crate) const ALL: [(HeadTask, &'static str, &'static str); 3] = [
        (HeadTask::Sequence, "ForSequenceClassification", "sequence-classification"),
        (HeadTask::Tokens, "ForTokenClassification", "token-classification"),
        (HeadTask::Question, "ForQuestionAnswering", "question-answering"),
    ];

    /// That of a class of the transformers library.
    pub(crate) fn of_class(class: &str) -> Option<HeadTask> {
        HeadTask::ALL.iter().find(|(_, end, _)| class.ends_with(end)).map(|(task, ..)| *task)
    }

    /// The name in our files.
    pub fn name(self) -> &'static str {
        HeadTask::ALL.iter().find(|(task, ..)| *task == self).map_or("", |(.., name)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<HeadTask> {
        HeadTask::ALL.iter().find(|(.., known)| *known == name).map(|(task, ..)| *task)
    }
}

/// What becomes of a head's values, as the `problem_type` of config.json names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// One class of several: probabilities with the sum 1.
    SingleLabel,
    /// Any number of classes: a probability for each.
    MultiLabel,
    /// The values are what was asked for.
    Regression,
}

impl Problem {
    const ALL: [(Problem, &'static str); 3] = [
        (Problem::SingleLabel, "single_label_classification"),
        (Problem::MultiLabel, "multi_label_classification"),
        (Problem::Regression, "regression"),
    ];

    /// The name in config.json.
    pub fn name(self) -> &'static str {
        Problem::ALL.iter().find(|(problem, _)| *problem == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Problem> {
        Problem::ALL.iter().find(|(_, known)| *known == name).map(|(problem, _)| *problem)
    }

    /// Values of one row to scores, in place.
    fn score(self, row: &mut [f32]) {
        match self {
            Problem::Regression => {}
            Problem::MultiLabel => row.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
            Problem::SingleLabel => softmax(row),
        }
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|value| f64::from(value - max).exp()).sum();
    row.iter_mut().for_each(|value| *value = (f64::from(*value - max).exp() / sum) as f32);
}

/// What a classifier says.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// What was read.
    pub input_ids: Vec<u32>,
    /// `[1, labels]`, or for each token `[input_ids, labels]`: probabilities, or the values of a regression.
    pub scores: Vec<f32>,
}

/// Where an answer stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The question's ids with `</s>`, then the context's.
    pub input_ids: Vec<u32>,
    /// The tokens of the answer among them.
    pub span: Range<usize>,
    /// Their text.
    pub text: String,
    /// The probability that it begins there, times that it ends there.
    pub score: f32,
}

impl Head {
    /// Refuses layers that do not fit a model of this width. `file` names where they come from.
    pub(crate) fn check(&self, file: &str, d_model: usize) -> Result<()> {
        let wrong = |what: String| Err(Error::config(file, self.task.name(), what));
        let mut width = d_model;
        for layer in &self.layers {
            let (weights, rows) = (layer.weight.len(), layer.out_features());
            if rows == 0 || width.checked_mul(rows) != Some(weights) {
                return wrong(format!("expected {rows} x {width} weights of a head's layer, found {weights}"));
            }
            width = rows;
        }
        if self.layers.is_empty() || self.labels.len() != width {
            return wrong(format!("expected a label for each of {width} values, found {}", self.labels.len()));
        }
        if self.task == HeadTask::Question && width != 2 {
            return wrong(format!("expected 2 values, a start and an end, found {width}"));
        }
        Ok(())
    }

    /// The values of one row of states.
    fn apply(&self, state: &[f32]) -> Vec<f32> {
        self.layers.iter().fold(state.to_vec(), |x, layer| {
            let mut out = Vec::with_capacity(layer.out_features());
            layer.apply(&x, &mut out);
            out
        })
    }
}

impl Model {
    /// The head, if it is one that does not generate.
    pub fn head(&self) -> Option<&Head> {
        self.data().head.as_ref()
    }

    /// An error for a model that was not made for generating.
    pub(crate) fn check_generates(&self) -> Result<()> {
        match self.head() {
            Some(head) => {
                let what = format!("expected a model that generates, found one for {}", head.task.name());
                Err(Error::config(self.file(), "architectures", what))
            }
            None => Ok(()),
        }
    }

    /// The head, which must be one of these.
    fn head_for(&self, tasks: &[HeadTask]) -> Result<&Head> {
        match self.head() {
            Some(head) if tasks.contains(&head.task) => Ok(head),
            other => {
                let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
                let found = other.map_or("one that generates or encodes", |head| head.task.name());
                let what = format!("expected a model for {}, found {found}", names.join(" or "));
                Err(Error::config(self.file(), "architectures", what))
            }
        }
    }
}

impl Session {
    /// Classes of a text, or of each of its tokens.
    ///
    /// # Errors
    /// If the model is no classifier or has no tokenizer, or there is no memory for a text of this length.
    pub fn classify(&mut self, text: &str) -> Result<Classes> {
        let ids = self.model.tokenizer()?.encode(text);
        self.classify_ids(&ids)
    }

    /// As [`Session::classify`], for ids that end with `</s>`.
    ///
    /// # Errors
    /// As [`Session::classify`], and if the ids are empty, outside the vocabulary, or without `</s>`.
    pub fn classify_ids(&mut self, source: &[u32]) -> Result<Classes> {
        let model = self.model.clone();
        let head = model.head_for(&[HeadTask::Sequence, HeadTask::Tokens])?;
        let d = model.config().d_model;
        let mut scores = Vec::new();
        if head.task == HeadTask::Tokens {
            let options = EncodeOptions { pooling: Some(Pooling::None), ..EncodeOptions::default() };
            let states = self.encode_passages(&[Passage::from(source.to_vec())], &options)?;
            states
                .iter()
                .flat_map(|states| states.values.chunks_exact(d))
                .for_each(|row| scores.extend(head.apply(row)));
        } else {
            let end = model.config().eos_token_id;
            let last = source.iter().rposition(|&id| id == end).ok_or_else(|| Error::Option {
                option: "source",
                what: format!("expected the end token {end} among the ids, found none"),
            })?;
            let states = self.reread(source)?;
            scores = head.apply(&states[last * d..(last + 1) * d]);
        }
        scores.chunks_exact_mut(head.labels.len()).for_each(|row| head.problem.score(row));
        Ok(Classes { input_ids: source.to_vec(), scores })
    }

    /// The span of `context`, of at most `longest` tokens, that answers a question.
    ///
    /// # Errors
    /// If the model answers no questions or has no tokenizer, the context is empty, or there is no memory for both.
    pub fn answer(&mut self, question: &str, context: &str, longest: usize) -> Result<Answer> {
        let model = self.model.clone();
        let head = model.head_for(&[HeadTask::Question])?;
        if longest == 0 {
            return Err(Error::Option { option: "max_answer_tokens", what: "expected at least 1, found 0".to_owned() });
        }
        let tokenizer = model.tokenizer()?;
        let mut input_ids = tokenizer.encode(question);
        let first = input_ids.len();
        input_ids.extend(tokenizer.encode(context));
        // Without its `</s>`.
        let last = input_ids.len() - 1;
        if first == last {
            return Err(Error::Option { option: "context", what: "expected a text, found none".to_owned() });
        }
        let states = self.reread(&input_ids)?;
        let rows = states.chunks_exact(model.config().d_model).take(last).skip(first).map(|row| head.apply(row));
        let (mut starts, mut ends): (Vec<f32>, Vec<f32>) = rows.map(|row| (row[0], row[1])).unzip();
        softmax(&mut starts);
        softmax(&mut ends);
        let (mut best, mut score) = (0..1, -1.0);
        for (start, from) in starts.iter().enumerate() {
            for (length, until) in ends[start..].iter().take(longest).enumerate() {
                if from * until > score {
                    (best, score) = (start..start + length + 1, from * until);
                }
            }
        }
        let span = first + best.start..first + best.end;
        let text = tokenizer.decode(&input_ids[span.clone()], true).trim().to_owned();
        Ok(Answer { input_ids, span, text, score })
    }

    /// The decoder's states of a source that it reads itself, shifted right, `[len, d_model]`.
    fn reread(&mut self, source: &[u32]) -> Result<Vec<f32>> {
        let mut encoding = self.begin_reading(&[source], 1, source.len())?;
        while self.encode_more(&mut encoding)? {}
        let mut decoder: Decoder<'_> = self.decoder()?;
        let start = decoder.model.config.decoder_start_token_id;
        let read = std::iter::once(start).chain(source.iter().copied()).take(source.len());
        let queries: Vec<Query> =
            read.enumerate().map(|(position, token)| Query { token, sequence: 0, position }).collect();
        let mut states = Vec::new();
        for queries in queries.chunks(FORCED_ROWS) {
            decoder.run(queries)?;
            states.extend_from_slice(decoder.states(queries.len()));
        }
        Ok(states)
    }
}
