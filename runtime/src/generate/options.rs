//! What may be asked of a generation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::custom::LogitsProcessor;
use super::request::Requested;
use super::settings::{GenerationDefaults, Settings};
use super::source_text::{SourceText, SplitSentences};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// New tokens where neither the caller nor the checkpoint sets a limit.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 256;

/// The highest limit of new tokens.
pub const MAX_NEW_TOKENS: usize = 1 << 20;

/// Likeliest tokens that [`GenerateOptions::top_logprobs`] may ask for.
const MOST_ALTERNATIVES: usize = 100;

/// Where a checkpoint asks for sampling and does not say among how many tokens: the transformers library's default.
const LIBRARY_TOP_K: usize = 50;

/// The formula by which beams of different length are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthPenaltyKind {
    /// T5's own, which is GNMT's.
    T5,
    /// The transformers library's.
    HuggingFace,
}

/// How beams of different length are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LengthPenalty {
    /// T5's own (and GNMT's): log-probability / ((5 + n) / 6)^alpha, n counting `</s>`; 0.6 in the paper.
    T5 {
        /// 0: sums of log-probabilities are compared as they are.
        alpha: f32,
    },
    /// Hugging Face's: log-probability / n^exponent.
    HuggingFace {
        /// 0: sums of log-probabilities are compared as they are.
        exponent: f32,
    },
}

impl LengthPenalty {
    /// What a summed log-probability of `n` tokens is divided by.
    pub fn divisor(self, n: usize) -> f32 {
        match self {
            LengthPenalty::T5 { alpha } => ((5.0 + n as f64) / 6.0).powf(alpha.into()) as f32,
            LengthPenalty::HuggingFace { exponent } => (n as f64).powf(exponent.into()) as f32,
        }
    }

    fn new(kind: LengthPenaltyKind, exponent: f32) -> LengthPenalty {
        match kind {
            LengthPenaltyKind::T5 => LengthPenalty::T5 { alpha: exponent },
            LengthPenaltyKind::HuggingFace => LengthPenalty::HuggingFace { exponent },
        }
    }

    /// The penalty of each kind where nothing else is said.
    fn usual(kind: LengthPenaltyKind) -> LengthPenalty {
        let exponent = match kind {
            LengthPenaltyKind::T5 => 0.6,
            LengthPenaltyKind::HuggingFace => 1.0,
        };
        LengthPenalty::new(kind, exponent)
    }

    fn parts(self) -> (LengthPenaltyKind, f32) {
        match self {
            LengthPenalty::T5 { alpha } => (LengthPenaltyKind::T5, alpha),
            LengthPenalty::HuggingFace { exponent } => (LengthPenaltyKind::HuggingFace, exponent),
        }
    }
}

/// When beam search with Hugging Face's penalty ends (`early_stopping` there).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As soon as there are as many finished hypotheses as beams.
    Yes,
    /// When the best live beam, were it to end now, would not enter the finished ones.
    #[default]
    No,
    /// When no live beam can enter the finished ones at any length.
    Never,
}

/// Whether greedy search of a single text tries tokens that follow its last ones in the source, several in one pass of
/// the decoder. Ids and log-probabilities are the same with and without, to the last bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// Where a pass over a few tokens takes hardly longer than over one: with AVX-512, and weights too large for the
    /// caches. Where output does not repeat its input it is soon tried only rarely, and costs next to nothing.
    #[default]
    Auto,
    /// Always: for corrections and summaries, on machines where [`Lookup::Auto`] does not.
    On,
    /// Never.
    Off,
}

/// Declares an option once: in [`GenerateOptions`] with its default and a setter that takes `$argument`, and in
/// [`Overrides`], where it may be left out.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty, given as $given:ty, set by $argument:ty = $default:expr;)*) => {
        /// Options of one generation. [`GenerateOptions::default`] is greedy search, whatever the checkpoint asks for;
        /// [`Model::options`](crate::Model::options) gives what the checkpoint asks for. Each option has a setter of
        /// its name: `GenerateOptions::default().beams(4).max_new_tokens(100)`.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct GenerateOptions {
            $($(#[$doc])* pub $name: $type,)*
            /// How beams of different length are compared.
            pub length_penalty: LengthPenalty,
            /// Whether the task that was asked for spells words out; `None`: that is for the one whose prefix the text
            /// begins with.
            pub(super) spell_words: Option<bool>,
            /// Rules of the caller's, which change logits after those of the options.
            pub processors: Vec<LogitsProcessor>,
            /// Set to true by another thread, ends the generation: before the next block of the encoder, the next piece
            /// of a forced prefix, or the next token.
            pub cancel: Option<Arc<AtomicBool>>,
        }

        impl Default for GenerateOptions {
            fn default() -> GenerateOptions {
                GenerateOptions {
                    $($name: $default,)*
                    length_penalty: LengthPenalty::usual(LengthPenaltyKind::T5),
                    spell_words: None,
                    processors: Vec::new(),
                    cancel: None,
                }
            }
        }

        impl GenerateOptions {
            $(
                #[doc = concat!("Sets [`GenerateOptions::", stringify!($name), "`].")]
                #[must_use]
                pub fn $name(mut self, value: $argument) -> GenerateOptions {
                    self.$name = value.into();
                    self
                }
            )*
        }

        /// What a caller asks for explicitly: each option of [`GenerateOptions`], or nothing. The one way from requests
        /// of any kind to options, so that the same request gives the same text everywhere.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Overrides {
            /// A task of the checkpoint, whose prefix and settings go before the checkpoint's own.
            pub task: Option<String>,
            /// The exponent of the length penalty.
            pub length_penalty: Option<f32>,
            /// The formula of the length penalty.
            pub length_penalty_kind: Option<LengthPenaltyKind>,
            $($(#[$doc])* pub $name: Option<$given>,)*
        }

        impl Overrides {
            /// Puts what is given in the place of what was there.
            fn replace(&self, options: &mut GenerateOptions) {
                $(if let Some(value) = &self.$name {
                    options.$name = value.clone().into();
                })*
            }

            /// Whether the option of this name is given.
            pub fn has(&self, name: &str) -> bool {
                match name {
                    "task" => self.task.is_some(),
                    "length_penalty" => self.length_penalty.is_some(),
                    "length_penalty_kind" => self.length_penalty_kind.is_some(),
                    $(stringify!($name) => self.$name.is_some(),)*
                    _ => false,
                }
            }

            /// Sets the option of this name to what JSON holds, as [`Overrides::from_json`] does; false where there is
            /// no such option.
            ///
            /// # Errors
            /// For a value of another type.
            pub fn set(&mut self, name: &str, value: &serde_json::Value) -> Result<bool> {
                match name {
                    "task" => self.task = Some(Requested::from_request("task", value)?),
                    "length_penalty" => {
                        self.length_penalty = Some(Requested::from_request("length_penalty", value)?);
                    }
                    "length_penalty_kind" => {
                        self.length_penalty_kind = Some(Requested::from_request("length_penalty_kind", value)?);
                    }
                    $(stringify!($name) => {
                        self.$name = Some(Requested::from_request(stringify!($name), value)?);
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

options! {
    /// Limit of new tokens, `</s>` included.
    max_new_tokens: usize, given as usize, set by usize = DEFAULT_MAX_NEW_TOKENS;
    /// `</s>` is not allowed before this many new tokens.
    min_new_tokens: usize, given as usize, set by usize = 0;
    /// 1 is greedy search (or sampling).
    beams: usize, given as usize, set by usize = 1;
    /// Groups of equal size that the beams are divided into (diverse beam search, Vijayakumar et al. 2016).
    beam_groups: usize, given as usize, set by usize = 1;
    /// Taken off a token's score for each beam of an earlier group that chose it in the same step; with groups only.
    diversity_penalty: f32, given as f32, set by f32 = 0.0;
    /// Applies to [`LengthPenalty::HuggingFace`] only.
    early_stopping: EarlyStopping, given as EarlyStopping, set by EarlyStopping = EarlyStopping::No;
    /// How many results: of beam search its best, of sampling independent draws.
    n_best: usize, given as usize, set by usize = 1;
    /// 0: no sampling.
    temperature: f32, given as f32, set by f32 = 0.0;
    /// Sample among the k most likely tokens; 0: all.
    top_k: usize, given as usize, set by usize = 0;
    /// Sample among the smallest set of tokens whose probabilities reach this sum; 1: all.
    top_p: f32, given as f32, set by f32 = 1.0;
    /// Sample among tokens at least this fraction as likely as the most likely one; 0: all.
    min_p: f32, given as f32, set by f32 = 0.0;
    /// Sample among the tokens whose information is nearest to the entropy, as many as reach this sum of probabilities
    /// (Meister et al. 2022); 1: all.
    typical_p: f32, given as f32, set by f32 = 1.0;
    /// Sample among tokens of at least this probability; 0: all.
    epsilon_cutoff: f32, given as f32, set by f32 = 0.0;
    /// The same with the bound min(eta, sqrt(eta) exp(-entropy)) (Hewitt et al. 2022); 0: all.
    eta_cutoff: f32, given as f32, set by f32 = 0.0;
    /// Sample among the most likely tokens whose share of the entropy is at most this (of the 100 most likely); 0: all.
    top_h: f32, given as f32, set by f32 = 0.0;
    /// The same seed gives the same text, on every instruction set.
    seed: u64, given as u64, set by u64 = 0;
    /// Above 1: tokens already generated become less likely. 1: off.
    repetition_penalty: f32, given as f32, set by f32 = 1.0;
    /// Above 1: tokens of the source become more likely. 1: off. In every beam; the transformers library changes the
    /// first beam only.
    encoder_repetition_penalty: f32, given as f32, set by f32 = 1.0;
    /// No sequence of this many tokens occurs twice; 0: off.
    no_repeat_ngram: usize, given as usize, set by usize = 0;
    /// No sequence of this many tokens of the source occurs; 0: off.
    encoder_no_repeat_ngram: usize, given as usize, set by usize = 0;
    /// From so many new tokens on, the logit of `</s>` grows by its magnitude times factor^n - 1, n counting from
    /// there.
    exponential_decay: Option<(usize, f32)>, given as (usize, f32), set by impl Into<Option<(usize, f32)>> = None;
    /// Text before every source that is given as text: a task's `summarize: `.
    source_prefix: String, given as String, set by impl Into<String> = String::new();
    /// Whether a text is cut into sentences (into words, where the task spells them out), which are read side by side
    /// and whose results are put together as the text was. Each sentence then has the limits of tokens for itself, and
    /// `prefix` is the beginning of the first one. Ids are never cut.
    split_sentences: SplitSentences, given as bool, set by impl Into<SplitSentences> = SplitSentences::No;
    /// Limit of a source's tokens, of each sentence's where a text is cut into sentences; `</s>` included.
    max_input_tokens: usize, given as usize, set by usize = usize::MAX;
    /// Whether a source with more tokens is cut off, `</s>` kept, rather than refused.
    truncate: bool, given as bool, set by bool = false;
    /// Text that every result begins with.
    prefix: String, given as String, set by impl Into<String> = String::new();
    /// The same as ids; used instead of `prefix` if not empty.
    prefix_ids: Vec<u32>, given as Vec<u32>, set by impl Into<Vec<u32>> = Vec::new();
    /// The first token, unless there is a prefix.
    forced_bos: Option<u32>, given as u32, set by impl Into<Option<u32>> = None;
    /// The token at the limit of new tokens: the first of these.
    forced_eos: Vec<u32>, given as Vec<u32>, set by impl Into<Vec<u32>> = Vec::new();
    /// Tokens never generated.
    suppress: Vec<u32>, given as Vec<u32>, set by impl Into<Vec<u32>> = Vec::new();
    /// Tokens not generated first (with `forced_bos`: second).
    begin_suppress: Vec<u32>, given as Vec<u32>, set by impl Into<Vec<u32>> = Vec::new();
    /// If given, only these tokens (and `</s>`) are generated.
    allowed: Option<Vec<u32>>, given as Vec<u32>, set by impl Into<Option<Vec<u32>>> = None;
    /// Sequences of tokens never generated.
    bad_words: Vec<Vec<u32>>, given as Vec<Vec<u32>>, set by impl Into<Vec<Vec<u32>>> = Vec::new();
    /// Sequences of tokens, and what is added to the logit of the last one where the others stand before it.
    sequence_bias: Vec<(Vec<u32>, f32)>, given as Vec<(Vec<u32>, f32)>, set by impl Into<Vec<(Vec<u32>, f32)>>
        = Vec::new();
    /// If given, the result is one of these texts, as it is written here: see [`Choices`](crate::Choices). A text is
    /// then read whole, and its result comes as one piece.
    choices: Vec<String>, given as Vec<String>, set by impl Into<Vec<String>> = Vec::new();
    /// Beam search normalises log-probabilities again after the options above have changed them.
    renormalize: bool, given as bool, set by bool = false;
    /// NaN counts as 0 and infinities as the largest numbers, as in the transformers library.
    remove_invalid: bool, given as bool, set by bool = false;
    /// Generation ends where one of these appears in the new text, which then ends before it. What begins inside a
    /// forced prefix does not count.
    stop: Vec<String>, given as Vec<String>, set by impl Into<Vec<String>> = Vec::new();
    /// Whether the log-probabilities of greedy search are wanted. Without them [`Output::logprobs`](crate::Output) is
    /// empty and its score NaN, and a large model is faster (a flan-t5-small in Q8_0 by a tenth and in F16 by a fifth,
    /// with AVX-512): the likeliest token is found without looking at all of the head. The text is the same. Other
    /// searches always have them.
    logprobs: bool, given as bool, set by bool = true;
    /// For each token of greedy search and of draws so many of the likeliest tokens in its place, with their
    /// log-probabilities: [`Output::alternatives`](crate::Output). 0: none.
    top_logprobs: usize, given as usize, set by usize = 0;
    /// Greedy search of a single text may try tokens of its source ahead.
    lookup: Lookup, given as Lookup, set by Lookup = Lookup::Auto;
}

impl GenerateOptions {
    /// Sets [`GenerateOptions::length_penalty`].
    #[must_use]
    pub fn length_penalty(mut self, penalty: LengthPenalty) -> GenerateOptions {
        self.length_penalty = penalty;
        self
    }

    /// Adds a rule to [`GenerateOptions::processors`].
    #[must_use]
    pub fn processor(mut self, rule: LogitsProcessor) -> GenerateOptions {
        self.processors.push(rule);
        self
    }

    /// Sets [`GenerateOptions::cancel`].
    #[must_use]
    pub fn cancel(mut self, cancel: Arc<AtomicBool>) -> GenerateOptions {
        self.cancel = Some(cancel);
        self
    }

    /// Whether tokens are drawn rather than chosen.
    pub fn samples(&self) -> bool {
        self.temperature > 0.0
    }

    /// Sequences that run side by side for one source: draws, or beams.
    pub fn sequences(&self) -> usize {
        if self.samples() { self.n_best } else { self.beams }
    }

    /// Sequences that a [`Batch`](super::Batch) for so many texts has, at most [`SIDE_BY_SIDE`](super::SIDE_BY_SIDE)
    /// unless one text has more.
    pub fn sequences_of(&self, texts: usize) -> usize {
        let each = self.sequences();
        texts.saturating_mul(each).clamp(1, super::SIDE_BY_SIDE.max(each))
    }

    /// What a model reads of a text: its ids behind [`GenerateOptions::source_prefix`], with `</s>`; of each sentence,
    /// if it is to be read so.
    ///
    /// # Errors
    /// If the model has no tokenizer, and for a source of more than [`GenerateOptions::max_input_tokens`], unless
    /// [`GenerateOptions::truncate`] is set.
    pub fn source(&self, model: &Model, text: &str) -> Result<SourceText> {
        SourceText::new(model, text, self)?.limited(model, self.max_input_tokens, self.truncate)
    }

    /// As [`GenerateOptions::source`], of ids, before which no prefix is put.
    ///
    /// # Errors
    /// As there, but for the tokenizer.
    pub fn source_of_ids(&self, model: &Model, ids: &[u32]) -> Result<SourceText> {
        SourceText::from(ids).limited(model, self.max_input_tokens, self.truncate)
    }

    /// Whether results begin with something given.
    pub(super) fn has_prefix(&self) -> bool {
        !self.prefix.is_empty() || !self.prefix_ids.is_empty()
    }

    /// These options for the sentences after the first, which have no forced prefix.
    pub(super) fn without_prefix(&self) -> GenerateOptions {
        GenerateOptions { prefix: String::new(), prefix_ids: Vec::new(), ..self.clone() }
    }

    /// Remarks on what the model cannot be given as it was asked for: a prefix with characters that the vocabulary does
    /// not have.
    pub fn notes(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let ids =
            if self.prefix_ids.is_empty() { tokenizer.encode_prefix(&self.prefix) } else { self.prefix_ids.clone() };
        let unknown = ids.iter().filter(|&&id| id == tokenizer.unk_id()).count();
        if unknown == 0 {
            return Vec::new();
        }
        let places = if unknown == 1 { "one place".to_owned() } else { format!("{unknown} places") };
        vec![format!(
            "prefix: the vocabulary does not have what stands in {places}: the model sees <unk> there, and results are \
             without it"
        )]
    }

    /// Refuses values out of range and contradictions.
    ///
    /// # Errors
    /// [`Error::Option`], which names the first option that is wrong.
    pub fn validate(&self) -> Result<()> {
        self.validate_search()?;
        self.validate_candidates()?;
        self.validate_lengths()?;
        self.validate_tokens()
    }

    /// Beams, groups and results.
    fn validate_search(&self) -> Result<()> {
        if self.beams == 0 || self.beams > 1024 {
            return wrong("beams", format!("expected 1 to 1024, found {}", self.beams));
        }
        if self.max_input_tokens == 0 {
            return wrong("max_input_tokens", "expected at least 1, found 0".to_owned());
        }
        if self.truncate && self.max_input_tokens == usize::MAX {
            return wrong("truncate", "expected a limit of tokens with it, found none".to_owned());
        }
        if self.n_best == 0 {
            return wrong("n_best", "expected at least 1, found 0".to_owned());
        }
        if self.n_best > self.beams && !self.samples() {
            return wrong(
                "n_best",
                format!("expected at most the number of beams ({}), found {}", self.beams, self.n_best),
            );
        }
        if self.n_best > 1024 {
            return wrong("n_best", format!("expected at most 1024, found {}", self.n_best));
        }
        if self.beams > 1 && self.samples() {
            return wrong("temperature", "sampling and beam search exclude each other".to_owned());
        }
        if self.beams > 1 && !self.stop.is_empty() {
            return wrong("stop", "stop strings and beam search exclude each other".to_owned());
        }
        if self.beam_groups == 0 || !self.beams.is_multiple_of(self.beam_groups) {
            let what =
                format!("expected a divisor of the number of beams ({}), found {}", self.beams, self.beam_groups);
            return wrong("beam_groups", what);
        }
        if !(self.diversity_penalty >= 0.0 && self.diversity_penalty.is_finite()) {
            return wrong("diversity_penalty", format!("expected 0 or more, found {}", self.diversity_penalty));
        }
        if self.beam_groups > 1 && self.diversity_penalty == 0.0 {
            return wrong("diversity_penalty", "expected above 0, since all groups would be alike, found 0".to_owned());
        }
        if self.beam_groups == 1 && self.diversity_penalty > 0.0 {
            return wrong("diversity_penalty", "expected groups of beams, found a single group".to_owned());
        }
        if self.top_logprobs > MOST_ALTERNATIVES {
            return wrong("top_logprobs", format!("expected 0 to {MOST_ALTERNATIVES}, found {}", self.top_logprobs));
        }
        if self.top_logprobs > 0 && self.beams > 1 {
            return wrong("top_logprobs", "alternatives of tokens and beam search exclude each other".to_owned());
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("stop", "expected strings that are not empty".to_owned());
        }
        Ok(())
    }

    /// What changes scores and filters candidates.
    fn validate_candidates(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", format!("expected 0 or more, found {}", self.temperature));
        }
        for (option, value) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            if !(value > 0.0 && value <= 1.0) {
                return wrong(option, format!("expected above 0 and at most 1, found {value}"));
            }
        }
        for (option, value) in [
            ("min_p", self.min_p),
            ("epsilon_cutoff", self.epsilon_cutoff),
            ("eta_cutoff", self.eta_cutoff),
            ("top_h", self.top_h),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(option, format!("expected 0 to 1, found {value}"));
            }
        }
        for (option, value) in [
            ("repetition_penalty", self.repetition_penalty),
            ("encoder_repetition_penalty", self.encoder_repetition_penalty),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return wrong(option, format!("expected above 0, found {value}"));
            }
        }
        if let Some((_, factor)) = self.exponential_decay
            && !(factor > 0.0 && factor.is_finite())
        {
            return wrong("exponential_decay", format!("expected a factor above 0, found {factor}"));
        }
        Ok(())
    }

    fn validate_lengths(&self) -> Result<()> {
        let (_, exponent) = self.length_penalty.parts();
        if !exponent.is_finite() {
            return wrong("length_penalty", format!("expected a finite number, found {exponent}"));
        }
        if !(1..=MAX_NEW_TOKENS).contains(&self.max_new_tokens) {
            return wrong("max_new_tokens", format!("expected 1 to {MAX_NEW_TOKENS}, found {}", self.max_new_tokens));
        }
        if self.min_new_tokens > self.max_new_tokens {
            let (min, max) = (self.min_new_tokens, self.max_new_tokens);
            return wrong("min_new_tokens", format!("expected at most the limit of new tokens ({max}), found {min}"));
        }
        Ok(())
    }

    /// Tokens that are allowed, forbidden and favoured.
    fn validate_tokens(&self) -> Result<()> {
        if self.allowed.as_ref().is_some_and(Vec::is_empty) {
            return wrong("allowed", "expected at least one token".to_owned());
        }
        if !self.choices.is_empty() && self.has_prefix() {
            return wrong("choices", "texts to choose from and a forced prefix exclude each other".to_owned());
        }
        if self.bad_words.iter().any(Vec::is_empty) {
            return wrong("bad_words", "expected sequences of at least one token".to_owned());
        }
        if self.sequence_bias.iter().any(|(ids, bias)| ids.is_empty() || bias.is_nan() || *bias == f32::INFINITY) {
            let what = "expected sequences of at least one token, each with a number".to_owned();
            return wrong("sequence_bias", what);
        }
        Ok(())
    }
}

fn wrong(option: &'static str, what: String) -> Result<()> {
    Err(Error::Option { option, what })
}

impl Overrides {
    /// Options as a checkpoint asks for them, with what is given here in their place.
    ///
    /// Rules where one option decides about others:
    /// - A filter of candidates (`top_k` and the like) asks for sampling, at temperature 1 if none is given. The
    ///   checkpoint's filters hold wherever tokens are drawn.
    /// - Sampling leaves the checkpoint's beams aside, and beams given leave its sampling and its groups aside.
    /// - A length penalty of the checkpoint, beams of its own, or when they end, are meant for Hugging Face's formula;
    ///   otherwise it is T5's. A formula given alone has its usual exponent, 0.6 for T5's and 1 for Hugging Face's.
    /// - The checkpoint's minimum of tokens does not go above a limit that is given.
    /// - Whether a text is split into sentences, and words are spelled out, is for the task given; if none is, for the
    ///   one whose prefix the text begins with.
    ///
    /// # Errors
    /// For values out of range, contradictions, and a task that the checkpoint does not name.
    pub fn apply(&self, defaults: &GenerationDefaults) -> Result<GenerateOptions> {
        let mut options = match &self.task {
            None => self.beginning(&defaults.settings).split_sentences(SplitSentences::ByTask),
            Some(name) => {
                let task = defaults.task(name)?;
                let settings = task.settings.over(&defaults.settings);
                let spells = settings.spell_words == Some(true);
                let options = self.beginning(&settings).source_prefix(&task.prefix);
                let options = options.split_sentences(spells || settings.split_sentences == Some(true));
                // Where the prefix is the caller's, the text may begin with the task's.
                let spell_words = self.source_prefix.is_none().then_some(spells);
                GenerateOptions { spell_words, ..options }
            }
        };
        self.replace(&mut options);
        self.check_early_stopping(&options)?;
        options.validate()?;
        Ok(options)
    }

    /// Refuses an end of beam search that its length penalty has no use for, where a caller asks for it: a checkpoint's
    /// may meet T5's penalty where a caller asks for that.
    fn check_early_stopping(&self, options: &GenerateOptions) -> Result<()> {
        let asked = self.early_stopping.is_some_and(|asked| asked != EarlyStopping::No);
        if asked && options.beams > 1 && matches!(options.length_penalty, LengthPenalty::T5 { .. }) {
            let what = "expected Hugging Face's length penalty with it, found T5's".to_owned();
            return wrong("early_stopping", what);
        }
        Ok(())
    }

    /// Whether a filter of candidates is given, which asks for sampling.
    pub fn filters(&self) -> bool {
        self.top_k.is_some()
            || [self.top_p, self.min_p, self.typical_p, self.epsilon_cutoff, self.eta_cutoff, self.top_h]
                .iter()
                .any(Option::is_some)
    }

    fn samples(&self, settings: &Settings) -> bool {
        match self.temperature {
            Some(temperature) => temperature != 0.0,
            None => self.filters() || (settings.do_sample == Some(true) && self.beams.is_none_or(|beams| beams == 1)),
        }
    }

    /// The checkpoint's options, as far as what is given leaves them alone.
    fn beginning(&self, settings: &Settings) -> GenerateOptions {
        let mut options = GenerateOptions::default();
        let samples = self.samples(settings);
        if samples {
            options.temperature = settings.temperature.unwrap_or(1.0);
            let library = if settings.do_sample == Some(true) { LIBRARY_TOP_K } else { 0 };
            options.top_k = settings.top_k.unwrap_or(library);
            options.top_p = settings.top_p.unwrap_or(1.0);
            options.min_p = settings.min_p.unwrap_or(0.0);
            options.typical_p = settings.typical_p.unwrap_or(1.0);
            options.epsilon_cutoff = settings.epsilon_cutoff.unwrap_or(0.0);
            options.eta_cutoff = settings.eta_cutoff.unwrap_or(0.0);
            options.top_h = settings.top_h.unwrap_or(0.0);
        } else if self.beams.is_none() {
            options.beams = settings.num_beams.unwrap_or(1);
            options.beam_groups = settings.num_beam_groups.unwrap_or(1);
        }
        if self.beam_groups.unwrap_or(options.beam_groups) > 1 {
            options.diversity_penalty = settings.diversity_penalty.unwrap_or(0.0);
        }
        let results = settings.num_return_sequences.unwrap_or(1);
        options.n_best = if samples { results } else { results.min(self.beams.unwrap_or(options.beams)) };
        options.length_penalty = self.penalty(settings);
        options.early_stopping = settings.early_stopping.unwrap_or_default();

        let max_length = settings.max_length.map(|length| length.saturating_sub(1));
        let max = settings.max_new_tokens.or(max_length).unwrap_or(DEFAULT_MAX_NEW_TOKENS).clamp(1, MAX_NEW_TOKENS);
        options.max_new_tokens = max;
        let min_length = settings.min_length.map(|length| length.saturating_sub(1));
        let min = settings.min_new_tokens.or(min_length).unwrap_or(0);
        options.min_new_tokens = min.min(self.max_new_tokens.unwrap_or(max));

        options.repetition_penalty = settings.repetition_penalty.unwrap_or(1.0);
        options.encoder_repetition_penalty = settings.encoder_repetition_penalty.unwrap_or(1.0);
        options.no_repeat_ngram = settings.no_repeat_ngram_size.unwrap_or(0);
        options.encoder_no_repeat_ngram = settings.encoder_no_repeat_ngram_size.unwrap_or(0);
        options.exponential_decay = settings.exponential_decay_length_penalty;
        options.forced_bos = settings.forced_bos_token_id;
        options.forced_eos = settings.forced_eos_token_id.clone().unwrap_or_default();
        options.suppress = settings.suppress_tokens.clone().unwrap_or_default();
        options.begin_suppress = settings.begin_suppress_tokens.clone().unwrap_or_default();
        options.bad_words = settings.bad_words_ids.clone().unwrap_or_default();
        options.sequence_bias = settings.sequence_bias.clone().unwrap_or_default();
        options.renormalize = settings.renormalize_logits.unwrap_or(false);
        options.remove_invalid = settings.remove_invalid_values.unwrap_or(false);
        options
    }

    fn penalty(&self, settings: &Settings) -> LengthPenalty {
        let has_beams = settings.num_beams.is_some_and(|beams| beams > 1);
        let says_when = settings.early_stopping.is_some_and(|early| early != EarlyStopping::No);
        let theirs = match settings.length_penalty {
            Some(exponent) => LengthPenalty::HuggingFace { exponent },
            None if has_beams || says_when => LengthPenalty::usual(LengthPenaltyKind::HuggingFace),
            None => LengthPenalty::usual(LengthPenaltyKind::T5),
        };
        let kind = self.length_penalty_kind.unwrap_or(theirs.parts().0);
        let base = if kind == theirs.parts().0 { theirs } else { LengthPenalty::usual(kind) };
        LengthPenalty::new(kind, self.length_penalty.unwrap_or(base.parts().1))
    }
}
