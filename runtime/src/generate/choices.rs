//! A result that is one of some texts: labels, as T5 classifies with them.

use std::sync::Arc;

use super::custom::{LogitsProcessor, keep_only};
use crate::error::{Error, Result};
use crate::forced;
use crate::model::Model;
use crate::session::{Encoding, FORCED_ROWS, Session};
use crate::under_way::{Pieces, UnderWay};

/// Texts of which a result is to be one.
#[derive(Clone, Debug)]
pub struct Choices {
    texts: Vec<String>,
    /// Ids of each text, `</s>` included, ascending, and its place in `texts`: those with a common beginning stand
    /// together, which is all that a trie is needed for.
    sorted: Arc<[(Vec<u32>, usize)]>,
}

/// A text and how likely the model holds it to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its place among the choices, from 0.
    pub index: usize,
    /// The text.
    pub text: String,
    /// The log-probability of its ids, as [`Session::score`] gives it.
    pub logprob: f32,
    /// Its share among the choices: e^logprob over the sum of all of theirs.
    pub probability: f32,
}

impl Choices {
    /// Texts to choose from, in the model's vocabulary.
    ///
    /// # Errors
    /// If there are none, two are the same to the model, one has something that its vocabulary does not have, or it has
    /// no tokenizer.
    pub fn new<T: AsRef<str>>(model: &Model, texts: &[T]) -> Result<Choices> {
        let wrong = |what: String| Err(Error::Option { option: "choices", what });
        if texts.is_empty() {
            return wrong("expected at least one text, found none".to_owned());
        }
        let tokenizer = model.tokenizer()?;
        let encode = |(index, text): (usize, &T)| (tokenizer.encode(text.as_ref()), index);
        let mut sorted: Vec<_> = texts.iter().enumerate().map(encode).collect();
        sorted.sort_unstable();
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        // Where a vocabulary has no piece for what is unknown, that id is another one's.
        let unknown = Some(tokenizer.unk_id()).filter(|&id| id != tokenizer.eos_id());
        for (ids, index) in &sorted {
            model.check_ids("choices", ids)?;
            if ids.len() < 2 {
                return wrong(format!("expected texts, found {:?}, which is none to the model", texts[*index]));
            }
            if ids.iter().any(|&id| Some(id) == unknown) {
                let text = &texts[*index];
                return wrong(format!("expected texts of the model's vocabulary, found {text:?}, in part <unk> to it"));
            }
        }
        if let Some([(_, first), (_, second)]) = sorted.array_windows().find(|[(a, _), (b, _)]| a == b) {
            let (first, second) = (&texts[*first], &texts[*second]);
            return wrong(format!("expected different texts, found {first:?} and {second:?}, the same to the model"));
        }
        Ok(Choices { texts, sorted: sorted.into() })
    }

    /// The texts, as they were given.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Tokens of the longest text, `</s>` included.
    pub(super) fn longest(&self) -> usize {
        self.sorted.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0)
    }

    /// The text of these ids, as it was given; `None` where they are not all of one.
    pub(super) fn text_of(&self, ids: &[u32]) -> Option<&str> {
        let place = self.sorted.binary_search_by(|(known, _)| known.as_slice().cmp(ids)).ok()?;
        Some(&self.texts[self.sorted[place].1])
    }

    /// The rule by which a generation gives one of the texts, whatever searches: see
    /// [`GenerateOptions::choices`](super::GenerateOptions). Greedy search decides token by token; which text is the
    /// likeliest as a whole, [`Session::choose`] tells.
    pub fn processor(&self) -> LogitsProcessor {
        let sorted = self.sorted.clone();
        LogitsProcessor::new(move |so_far, row| {
            let begun = so_far.get(1..).unwrap_or_default();
            let from = sorted.partition_point(|(ids, _)| ids.as_slice() < begun);
            let going_on = sorted[from..].iter().take_while(|(ids, _)| ids.starts_with(begun));
            keep_only(going_on.filter_map(|(ids, _)| ids.get(begun.len()).copied()), row);
        })
    }
}

impl Session {
    /// How likely each of the choices is as the answer to a text, the likeliest first. Their common beginnings are read
    /// once.
    ///
    /// ```
    /// let model = t5_runtime::Model::pocket()?;
    /// let choices = t5_runtime::Choices::new(&model, &["Guten Abend.", "Guten Morgen."])?;
    /// let ranked = model.session().choose("translate English to German: Good morning.", &choices)?;
    /// assert_eq!(ranked[0].text, "Guten Morgen.");
    /// assert!(ranked[0].probability > 0.9);
    /// # Ok::<(), t5_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn choose(&mut self, text: &str, choices: &Choices) -> Result<Vec<Choice>> {
        let ids = self.model.source_ids(text)?;
        self.choose_ids(&ids, choices)
    }

    /// As [`Session::choose`], from a source's ids.
    ///
    /// # Errors
    /// As [`Session::score_ids`].
    pub fn choose_ids(&mut self, source: &[u32], choices: &Choices) -> Result<Vec<Choice>> {
        let choosing = Choosing::begin(self, source, choices)?;
        self.complete(choosing)
    }

    /// As [`Session::choose`], a piece of work at a time.
    ///
    /// # Errors
    /// As [`Session::choose`]; the session is lost then.
    pub fn into_choosing(mut self, text: &str, choices: &Choices) -> Result<UnderWay<Vec<Choice>>> {
        let ids = self.model.source_ids(text)?;
        let choosing = Choosing::begin(&mut self, &ids, choices)?;
        Ok(UnderWay::new(self, choosing))
    }
}

/// Choices on their way through the decoder, one after the other.
struct Choosing {
    model: Model,
    choices: Choices,
    encoding: Encoding,
    encoded: bool,
    /// Log-probabilities of the first tokens of the choice that is read.
    logprobs: Vec<f32>,
    /// Of those that are read, in the order of their ids.
    ranked: Vec<Choice>,
}

impl Choosing {
    fn begin(session: &mut Session, source: &[u32], choices: &Choices) -> Result<Choosing> {
        choices.sorted.iter().try_for_each(|(ids, _)| session.model.check_ids("choices", ids))?;
        let encoding = session.begin_sources(&[source], 1, choices.longest())?;
        let (model, choices) = (session.model.clone(), choices.clone());
        let ranked = Vec::with_capacity(choices.texts.len());
        Ok(Choosing { model, choices, encoding, encoded: false, logprobs: Vec::new(), ranked })
    }
}

impl Pieces for Choosing {
    type Results = Vec<Choice>;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        if !self.encoded {
            self.encoded = !session.encode_more(&mut self.encoding)?;
            return Ok(true);
        }
        let sorted = &self.choices.sorted;
        let Some((ids, index)) = sorted.get(self.ranked.len()) else { return Ok(false) };
        let done = self.logprobs.len();
        let piece = done..ids.len().min(done + FORCED_ROWS);
        let mut decoder = session.decoder()?;
        forced::predict(&mut decoder, self.model.start_token()?, ids, piece.clone())?;
        self.logprobs.extend(forced::logprobs(&mut decoder, &ids[piece]));
        if self.logprobs.len() == ids.len() {
            let (text, logprob) = (self.choices.texts[*index].clone(), self.logprobs.iter().sum());
            self.ranked.push(Choice { index: *index, text, logprob, probability: 0.0 });
            let Some((next, _)) = sorted.get(self.ranked.len()) else { return Ok(false) };
            // Keys and values of what they have in common are there; what follows goes over those of the one before.
            self.logprobs.truncate(ids.iter().zip(next).take_while(|(a, b)| a == b).count());
        }
        Ok(true)
    }

    fn results(self: Box<Self>) -> Vec<Choice> {
        let mut ranked = self.ranked;
        ranked.sort_by(|a, b| b.logprob.total_cmp(&a.logprob).then(a.index.cmp(&b.index)));
        let all: Vec<f32> = ranked.iter().map(|choice| choice.logprob).collect();
        let sum = self.model.kernels().log_sum_exp(&all);
        ranked.iter_mut().for_each(|choice| choice.probability = (choice.logprob - sum).exp());
        ranked
    }
}
