//! From a source to text.
//!
//! [`Settings`] are what a checkpoint asks for, [`Overrides`] what a caller asks for (a `request` in JSON, perhaps);
//! both become [`GenerateOptions`].
//! A [`SourceText`] is what the model reads of a text, all of it or each of its sentences. A `plan` is options that
//! were checked against a model. `search` chooses tokens, with `processors` and with rules of the caller's
//! ([`LogitsProcessor`]), such as that the result is one of some [`Choices`] or follows a
//! `Grammar` (a regular expression, a JSON schema: Cargo feature `grammar`); `decoding` runs the searches of any
//! number of documents in lock step, and `lookup` proposes tokens ahead; [`Generation`] hands out the text of one as it
//! comes (`growing_text`), `texts` are many at once. [`Steps`] are for searches of the caller's own, and a [`Batch`] is
//! for requests that come and go.

mod batch;
mod choices;
mod custom;
mod decoding;
#[cfg(feature = "grammar")]
mod grammar;
mod growing_text;
mod lookup;
mod options;
mod plan;
mod processors;
mod request;
mod search;
mod settings;
mod source_text;
mod steps;
mod stream;
mod texts;

pub use batch::{Batch, BatchEvent};
pub use choices::{Choice, Choices};
pub use custom::LogitsProcessor;
#[cfg(feature = "grammar")]
pub use grammar::Grammar;
pub use options::{
    DEFAULT_MAX_NEW_TOKENS, EarlyStopping, GenerateOptions, LengthPenalty, LengthPenaltyKind, Lookup, Overrides,
};
pub use settings::{GenerationDefaults, Settings, Task};
pub(crate) use settings::{Setting, SettingsSink, SettingsSource};
pub use source_text::{SourceText, SplitSentences};
pub use steps::Steps;
pub use stream::Generation;

use texts::Texts;

use crate::error::Result;
use crate::session::Session;
use crate::under_way::UnderWay;

/// Sequences that are decoded side by side where many are asked for: more do not make a product faster, but each takes
/// memory, not least for its logits.
pub const SIDE_BY_SIDE: usize = 256;

/// Why a result ends where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// `</s>` was generated.
    EndOfSequence,
    /// The limit of new tokens was reached.
    Length,
    /// A stop string was found.
    Stop,
    /// The options, or a rule of the caller's ([`LogitsProcessor`]), left no token that could come next.
    Blocked,
    /// The caller cancelled it.
    Cancelled,
    /// There was no memory for more; see [`Generation::failure`].
    Memory,
}

impl Finish {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Finish::EndOfSequence => "eos",
            Finish::Length => "length",
            Finish::Stop => "stop",
            Finish::Blocked => "blocked",
            Finish::Cancelled => "cancelled",
            Finish::Memory => "memory",
        }
    }
}

/// One generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Empty where the model has no tokenizer. A forced prefix is part of it.
    pub text: String,
    /// New tokens: without the start token and a forced prefix, with `</s>` if it was generated.
    pub ids: Vec<u32>,
    /// The log-probability of each token. Under beam search with processors, the processed one.
    pub logprobs: Vec<f32>,
    /// Where [`GenerateOptions::top_logprobs`] asks for them: for each token the likeliest ones in its place, the
    /// likeliest first, with the log-probabilities that the model gives them.
    pub alternatives: Vec<Vec<(u32, f32)>>,
    /// Greedy search and sampling: the sum of `logprobs`; NaN where they are not wanted. Beam search: that sum over the
    /// length penalty. Where no beam has ended, it is the sum itself: with T5's penalty at the limit of tokens, as in
    /// T5X, and where the search was cut short.
    pub score: f32,
    /// Why it ended.
    pub finish: Finish,
}

/// A token of a text as it comes.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability; NaN where [`GenerateOptions::logprobs`] are not wanted.
    pub logprob: f32,
    /// As [`Output::alternatives`].
    pub alternatives: Vec<(u32, f32)>,
}

impl Token {
    /// Those of a result, or of what there is of it, from one on.
    fn all(ids: &[u32], logprobs: &[f32], alternatives: &[Vec<(u32, f32)>], from: usize) -> Vec<Token> {
        let token = |place: usize| Token {
            id: ids[place],
            logprob: logprobs.get(place).copied().unwrap_or(f32::NAN),
            alternatives: alternatives.get(place).cloned().unwrap_or_default(),
        };
        (from..ids.len()).map(token).collect()
    }
}

impl Output {
    /// Its tokens from one on, as a running [`Batch`] gives them with pieces.
    pub fn tokens_from(&self, from: usize) -> Vec<Token> {
        Token::all(&self.ids, &self.logprobs, &self.alternatives, from)
    }

    /// Ends the text before the first of the stop strings, if there is one in what stands from a byte on.
    fn stop(&mut self, stop: &[String], from: usize) -> bool {
        let end = growing_text::find_stop(&self.text, stop, from);
        if let Some(end) = end {
            self.text.truncate(end);
            self.finish = Finish::Stop;
        }
        end.is_some()
    }
}

impl Session {
    /// Generates text for `text`. The result is an iterator of pieces; see [`Generation`].
    pub fn generate(&mut self, text: &str, options: &GenerateOptions) -> Result<Generation<&mut Session>> {
        let source = options.source(&self.model, text)?;
        Generation::begin(self, source, options)
    }

    /// As [`Session::generate`], from a text as [`GenerateOptions::source`] reads it.
    pub fn generate_source(
        &mut self,
        source: SourceText,
        options: &GenerateOptions,
    ) -> Result<Generation<&mut Session>> {
        Generation::begin(self, source, options)
    }

    /// As [`Session::generate`], from ids (which should end with `</s>`), before which no prefix is put.
    pub fn generate_ids(&mut self, source: &[u32], options: &GenerateOptions) -> Result<Generation<&mut Session>> {
        let source = options.source_of_ids(&self.model, source)?;
        Generation::begin(self, source, options)
    }

    /// As [`Session::generate`], and keeps the session until [`Generation::finish_with_session`] or
    /// [`Generation::into_session`] gives it back.
    pub fn into_generation(self, source: SourceText, options: &GenerateOptions) -> Result<Generation<Session>> {
        Generation::begin(self, source, options)
    }

    /// Generates for several sources; for each its results, best first. A result does not depend on what else is in the
    /// batch. Some 256 sequences (sources times beams, or draws) are decoded side by side, so memory does not grow with
    /// the number of sources.
    ///
    /// # Errors
    /// For wrong options and sources, before any work is done. Where memory runs out.
    pub fn generate_batch_ids(&mut self, sources: &[&[u32]], options: &GenerateOptions) -> Result<Vec<Vec<Output>>> {
        let limited = |source: &&[u32]| options.source_of_ids(&self.model, source);
        let sources = sources.iter().map(limited).collect::<Result<Vec<_>>>()?;
        self.generate_batch_sources(&sources, options)
    }

    /// As [`Session::generate_batch_ids`], from texts. The sentences of all of them are decoded side by side.
    pub fn generate_batch(&mut self, texts: &[&str], options: &GenerateOptions) -> Result<Vec<Vec<Output>>> {
        let sources = texts.iter().map(|text| options.source(&self.model, text)).collect::<Result<Vec<_>>>()?;
        self.generate_batch_sources(&sources, options)
    }

    /// As [`Session::generate_batch`], from texts as [`GenerateOptions::source`] reads them.
    pub fn generate_batch_sources(
        &mut self,
        sources: &[SourceText],
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<Output>>> {
        let texts = Texts::begin(self, sources.to_vec(), options)?;
        self.complete(texts)
    }

    /// As [`Session::generate_batch_sources`], a piece of work at a time.
    ///
    /// # Errors
    /// As [`Session::generate_batch_sources`]; the session is lost then.
    pub fn into_batch(
        mut self,
        sources: Vec<SourceText>,
        options: &GenerateOptions,
    ) -> Result<UnderWay<Vec<Vec<Output>>>> {
        let texts = Texts::begin(&mut self, sources, options)?;
        Ok(UnderWay::new(self, texts))
    }
}
