//! Checked options with the model's special tokens filled in: what the searches work from.

use super::choices::Choices;
use super::options::{GenerateOptions, Lookup};
use super::processors::{Processor, Processors};
use crate::error::{Error, Result};
use crate::kernels::Isa;
use crate::model::Model;

/// A step that reads this many bytes of weights finds none of them in a cache from the step before.
const FROM_MEMORY: usize = 32 << 20;

/// Candidates that beam search compares in a step at most: as many times its beams as there are end tokens, and one
/// more.
const MAX_CANDIDATES: usize = 1 << 16;

pub(crate) struct Plan {
    pub max_new: usize,
    pub prefix: Vec<u32>,
    /// Bytes of the prefix's text, with which that of every result begins.
    pub prefix_len: usize,
    pub start: u32,
    /// Tokens that end a sequence, ascending; each once.
    pub eos: Vec<u32>,
    pub pad: u32,
    pub processors: Processors,
    /// The texts of which a result is to be one.
    pub choices: Option<Choices>,
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
        let prefix_len = model.tokenizer().map_or(0, |tokenizer| {
            let mut stream = tokenizer.stream(true);
            prefix.iter().map(|&id| stream.push(id).len()).sum::<usize>()
        });
        model.check_ids("suppress", &options.suppress)?;
        model.check_ids("begin_suppress", &options.begin_suppress)?;
        model.check_ids("allowed", options.allowed.as_deref().unwrap_or_default())?;
        model.check_ids("forced_bos", options.forced_bos.as_slice())?;
        model.check_ids("forced_eos", &options.forced_eos)?;
        options.bad_words.iter().try_for_each(|ids| model.check_ids("bad_words", ids))?;
        options.sequence_bias.iter().try_for_each(|(ids, _)| model.check_ids("sequence_bias", ids))?;
        if !options.stop.is_empty() && model.tokenizer().is_err() {
            return Err(Error::Option { option: "stop", what: "expected a model with a tokenizer".to_owned() });
        }
        let settings = &model.generation_defaults().settings;
        let mut eos = match settings.eos_token_id.as_deref() {
            None | Some([]) => vec![config.eos_token_id],
            Some(ids) => ids.to_vec(),
        };
        model.check_ids("eos_token_id", &eos)?;
        eos.sort_unstable();
        eos.dedup();
        let most = (MAX_CANDIDATES / (1 + eos.len())).max(1);
        if options.beams > most {
            let what = format!("expected at most {most} with {} end tokens, found {}", eos.len(), options.beams);
            return Err(Error::Option { option: "beams", what });
        }
        let start = model.start_token()?;
        let mut processors = Processors::new(options, &eos, prefix.is_empty(), config.vocab_size)?;
        let choices = choices(model, options)?;
        let rules = choices.iter().map(Choices::processor).chain(options.processors.iter().cloned());
        processors.add_custom(rules.collect());
        Ok(Plan {
            max_new: options.max_new_tokens,
            processors,
            choices,
            prefix,
            prefix_len,
            start,
            eos,
            pad: config.pad_token_id,
            options: options.clone(),
        })
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
        self.options.sequences()
    }

    /// Whether a step needs nothing but its likeliest token, whatever the other logits are.
    pub fn needs_only_best(&self) -> bool {
        self.sequences() == 1
            && !self.options.logprobs
            && self.options.top_logprobs == 0
            && !self.options.samples()
            && self.processors.iter().all(|processor| matches!(processor, Processor::HoldBackEnd(_)))
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
}

/// The texts of which a result is to be one, if options say so.
fn choices(model: &Model, options: &GenerateOptions) -> Result<Option<Choices>> {
    if options.choices.is_empty() {
        return Ok(None);
    }
    let choices = Choices::new(model, &options.choices)?;
    let (longest, most) = (choices.longest(), options.max_new_tokens);
    if longest > most {
        let what = format!("expected at least {longest}, the tokens of the longest choice, found {most}");
        return Err(Error::Option { option: "max_new_tokens", what });
    }
    Ok(Some(choices))
}
