//! What a caller may ask of generation, and the checks that turn it into a plan.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::generation::GenerationDefaults;
use crate::kernels::Isa;
use crate::model::Model;

/// New tokens where neither the caller nor the checkpoint sets a limit.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 256;

/// The highest limit of new tokens.
pub const MAX_NEW_TOKENS: usize = 1 << 20;

/// Candidates that beam search compares in a step at most: as many times its beams as there are end tokens, and one more.
const MAX_CANDIDATES: usize = 1 << 16;

/// Bytes of a decoding step that no cache holds from one step to the next.
const FROM_MEMORY: usize = 32 << 20;

/// How beams of different length are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LengthPenalty {
    /// T5's own (and GNMT's): log-probability / ((5 + n) / 6)^alpha, n counting `</s>`; 0.6 in the paper.
    T5 { alpha: f32 },
    /// Hugging Face's: log-probability / n^exponent.
    HuggingFace { exponent: f32 },
}

impl LengthPenalty {
    /// What a summed log-probability of `n` tokens is divided by.
    pub fn divisor(self, n: usize) -> f32 {
        match self {
            LengthPenalty::T5 { alpha } => ((5.0 + n as f64) / 6.0).powf(alpha.into()) as f32,
            LengthPenalty::HuggingFace { exponent } => (n as f64).powf(exponent.into()) as f32,
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
    /// Where a pass over a few tokens takes hardly longer than over one: with AVX-512, and weights that come from main
    /// memory. Attempts that fail become rare, so that it loses next to nothing where output repeats no input.
    #[default]
    Auto,
    /// Always: for corrections and summaries, on machines where [`Lookup::Auto`] does not.
    On,
    /// Never.
    Off,
}

/// Options of one generation. [`GenerateOptions::default`] is greedy search.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Limit of new tokens, `</s>` included; `None`: the checkpoint's, else [`DEFAULT_MAX_NEW_TOKENS`].
    pub max_new_tokens: Option<usize>,
    /// `</s>` is not allowed before this many new tokens.
    pub min_new_tokens: usize,
    /// 1 is greedy search (or sampling).
    pub beams: usize,
    pub length_penalty: LengthPenalty,
    /// Applies to [`LengthPenalty::HuggingFace`] only.
    pub early_stopping: EarlyStopping,
    /// How many results: of beam search its best, of sampling independent draws.
    pub n_best: usize,
    /// 0: no sampling.
    pub temperature: f32,
    /// Sample among the k most likely tokens; 0: all.
    pub top_k: usize,
    /// Sample among the smallest set of tokens whose probabilities reach this sum; 1: all.
    pub top_p: f32,
    /// Sample among tokens at least this fraction as likely as the most likely one; 0: all.
    pub min_p: f32,
    /// The same seed gives the same text, on every instruction set.
    pub seed: u64,
    /// Above 1: tokens already generated become less likely. 1: off.
    pub repetition_penalty: f32,
    /// No sequence of this many tokens occurs twice; 0: off.
    pub no_repeat_ngram: usize,
    /// Text that every result begins with.
    pub prefix: String,
    /// The same as ids; used instead of `prefix` if not empty.
    pub prefix_ids: Vec<u32>,
    /// Tokens never generated.
    pub suppress: Vec<u32>,
    /// If given, only these tokens (and `</s>`) are generated.
    pub allowed: Option<Vec<u32>>,
    /// Generation ends where one of these appears in the new text, which then ends before it.
    pub stop: Vec<String>,
    /// Whether the log-probabilities of greedy search are wanted. Without them [`Output::logprobs`](crate::Output) is
    /// empty and its score NaN, and a large model is faster (a flan-t5-small in Q8_0 by a tenth and in F16 by a fifth, with
    /// AVX-512): the likeliest token is found without looking at all of the head. The text is the same. Other searches
    /// always have them.
    pub logprobs: bool,
    /// Greedy search of a single text may try tokens of its source ahead.
    pub lookup: Lookup,
    /// Set to true by another thread, ends the generation before its next token.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for GenerateOptions {
    fn default() -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: None,
            min_new_tokens: 0,
            beams: 1,
            length_penalty: LengthPenalty::T5 { alpha: 0.6 },
            early_stopping: EarlyStopping::No,
            n_best: 1,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            prefix: String::new(),
            prefix_ids: Vec::new(),
            suppress: Vec::new(),
            allowed: None,
            stop: Vec::new(),
            logprobs: true,
            lookup: Lookup::Auto,
            cancel: None,
        }
    }
}

impl GenerateOptions {
    /// Options as the checkpoint's `generation_config.json` asks for, as far as it says anything. Beams asked for
    /// there are compared with Hugging Face's penalty, which its `length_penalty` is meant for.
    pub fn from_defaults(defaults: &GenerationDefaults) -> GenerateOptions {
        let mut options = GenerateOptions::default();
        if let Some(beams) = defaults.num_beams {
            options.beams = beams;
        }
        if options.beams > 1 || defaults.length_penalty.is_some() {
            let exponent = defaults.length_penalty.unwrap_or(1.0);
            options.length_penalty = LengthPenalty::HuggingFace { exponent };
        }
        if defaults.early_stopping == Some(true) {
            options.early_stopping = EarlyStopping::Yes;
        }
        if let Some(n) = defaults.no_repeat_ngram_size {
            options.no_repeat_ngram = n;
        }
        if let Some(penalty) = defaults.repetition_penalty {
            options.repetition_penalty = penalty;
        }
        if let Some(length) = defaults.min_length {
            // Counts the start token.
            options.min_new_tokens = length.saturating_sub(1);
        }
        options.suppress = defaults.suppress_tokens.clone();
        options
    }

    /// Whether tokens are drawn rather than chosen.
    pub fn samples(&self) -> bool {
        self.temperature > 0.0
    }

    /// Refuses values out of range and contradictions.
    pub fn validate(&self) -> Result<()> {
        let wrong = |option, what: String| Err(Error::Option { option, what });
        if self.beams == 0 || self.beams > 1024 {
            return wrong("beams", format!("expected 1 to 1024, found {}", self.beams));
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
        if self.stop.iter().any(String::is_empty) {
            return wrong("stop", "expected strings that are not empty".to_owned());
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", format!("expected 0 or more, found {}", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", format!("expected above 0 and at most 1, found {}", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", format!("expected 0 to 1, found {}", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", format!("expected above 0, found {}", self.repetition_penalty));
        }
        let penalty = match self.length_penalty {
            LengthPenalty::T5 { alpha } => alpha,
            LengthPenalty::HuggingFace { exponent } => exponent,
        };
        if !penalty.is_finite() {
            return wrong("length_penalty", format!("expected a finite number, found {penalty}"));
        }
        if let Some(max) = self.max_new_tokens
            && !(1..=MAX_NEW_TOKENS).contains(&max)
        {
            return wrong("max_new_tokens", format!("expected 1 to {MAX_NEW_TOKENS}, found {max}"));
        }
        if self.allowed.as_ref().is_some_and(Vec::is_empty) {
            return wrong("allowed", "expected at least one token".to_owned());
        }
        Ok(())
    }
}

/// Checked options with the checkpoint's values filled in: what the searches work from.
pub(crate) struct Plan {
    pub max_new: usize,
    pub prefix: Vec<u32>,
    pub start: u32,
    /// Tokens that end a sequence, ascending; each once.
    pub eos: Vec<u32>,
    /// For each token whether it may be generated; empty: all may.
    pub forbidden: Vec<bool>,
    pub options: GenerateOptions,
}

impl Plan {
    pub fn new(model: &Model, options: &GenerateOptions) -> Result<Plan> {
        options.validate()?;
        let config = model.config();
        let prefix = if !options.prefix_ids.is_empty() {
            options.prefix_ids.clone()
        } else if !options.prefix.is_empty() {
            let tokenizer = model.tokenizer().map_err(|_| Error::Option {
                option: "prefix",
                what: "expected a model with a tokenizer, found one without".to_owned(),
            })?;
            tokenizer.encode_prefix(&options.prefix)
        } else {
            Vec::new()
        };
        model.check_ids("prefix", &prefix)?;
        model.check_ids("suppress", &options.suppress)?;
        model.check_ids("allowed", options.allowed.as_deref().unwrap_or_default())?;
        if !options.stop.is_empty() && model.tokenizer().is_err() {
            return Err(Error::Option { option: "stop", what: "expected a model with a tokenizer".to_owned() });
        }
        let mut eos = match model.generation_defaults().eos_token_ids.as_slice() {
            [] => vec![config.eos_token_id],
            ids => ids.to_vec(),
        };
        model.check_ids("eos_token_id", &eos)?;
        eos.sort_unstable();
        eos.dedup();
        let most = MAX_CANDIDATES / (1 + eos.len());
        if options.beams > most.max(1) {
            let what =
                format!("expected at most {} with {} end tokens, found {}", most.max(1), eos.len(), options.beams);
            return Err(Error::Option { option: "beams", what });
        }
        let mut forbidden = Vec::new();
        if options.allowed.is_some() || !options.suppress.is_empty() {
            forbidden = vec![options.allowed.is_some(); config.vocab_size];
            if let Some(allowed) = &options.allowed {
                allowed.iter().chain(&eos).for_each(|&id| forbidden[id as usize] = false);
            }
            options.suppress.iter().for_each(|&id| forbidden[id as usize] = true);
            if forbidden.iter().all(|&forbidden| forbidden) {
                return Err(Error::Option { option: "suppress", what: "no token is left to generate".to_owned() });
            }
        }
        let defaults = model.generation_defaults();
        let max_new = options
            .max_new_tokens
            .or(defaults.max_new_tokens)
            .or(defaults.max_length.map(|length| length.saturating_sub(1)))
            .unwrap_or(DEFAULT_MAX_NEW_TOKENS)
            .clamp(1, MAX_NEW_TOKENS);
        Ok(Plan { max_new, prefix, start: config.decoder_start_token_id, eos, forbidden, options: options.clone() })
    }

    /// Whether a token ends a sequence.
    pub fn ends(&self, token: u32) -> bool {
        self.eos.binary_search(&token).is_ok()
    }

    /// Tokens to reserve memory for at the start: limits are often far above what is generated.
    pub fn reserve(&self) -> usize {
        self.max_new.min(1024)
    }

    /// Sequences that run side by side for one document.
    pub fn sequences(&self) -> usize {
        if self.options.samples() { self.options.n_best } else { self.options.beams }
    }

    /// Whether a step needs nothing but its likeliest token, whatever the other logits are.
    pub fn needs_only_best(&self) -> bool {
        self.sequences() == 1
            && !self.options.logprobs
            && !self.options.samples()
            && self.forbidden.is_empty()
            && self.options.repetition_penalty == 1.0
            && self.options.no_repeat_ngram == 0
    }

    /// Whether the one sequence of a single text looks tokens up in its source.
    pub fn looks_up(&self, model: &Model) -> bool {
        let wanted = match self.options.lookup {
            Lookup::Auto => model.kernels().isa() == Isa::Avx512 && model.decoder_step_bytes() >= FROM_MEMORY,
            Lookup::On => true,
            Lookup::Off => false,
        };
        // A stop string ends the ids at the token that completes it.
        wanted && self.sequences() == 1 && !self.options.samples() && self.options.stop.is_empty()
    }

    /// Whether logits must be changed before a token is chosen.
    pub fn has_processors(&self) -> bool {
        !self.forbidden.is_empty()
            || self.options.repetition_penalty != 1.0
            || self.options.no_repeat_ngram > 0
            || self.options.min_new_tokens > 0
    }
}
