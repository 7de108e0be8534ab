//! [`Model`]: the weights of a checkpoint made ready for products, shared by any number of sessions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::alignment::AlignmentHeads;
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::decoder::DecoderWeights;
use crate::encoder::EncoderWeights;
use crate::ensemble::Ensemble;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, GenerationDefaults, Overrides};
use crate::head::Head;
use crate::kernels::{Heads, Isa, Kernels, Matrix};
use crate::layers::Embedding;
use crate::loader::{Loader, WeightSource};
use crate::sentence_model::SentenceModel;
use crate::storage::Bytes;
use crate::tokenizer::Tokenizer;

/// A model: immutable, cheap to clone, shared between threads. Each thread works in a session of its own
/// ([`Model::session`]).
#[derive(Clone)]
pub struct Model {
    data: Arc<ModelData>,
    /// `None` where it decodes alone.
    ensemble: Option<Arc<Ensemble>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("file", &self.file())
            .field("config", self.config())
            .field("isa", &self.isa())
            .finish_non_exhaustive()
    }
}

/// What all sessions of a model share.
pub(crate) struct ModelData {
    pub file: String,
    pub config: T5Config,
    pub kernels: Kernels,
    pub embedding: Embedding,
    /// `None` in a model of one stack.
    encoder: Option<EncoderWeights>,
    /// `None` in an encoder-only model.
    decoder: Option<DecoderWeights>,
    tokenizer: Option<Tokenizer>,
    generation: GenerationDefaults,
    sentence: Option<SentenceModel>,
    pub head: Option<Head>,
    /// What the encoder's output is multiplied with where it is not for the decoder.
    pub encoder_scale: Option<Vec<f32>>,
    about: BTreeMap<String, String>,
    notes: Vec<String>,
    /// What is read of mapped files as long as the model lives.
    mapped: Vec<Bytes>,
}

impl ModelData {
    /// Refuses to go on with files that were written in place since the model was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.mapped.iter().try_for_each(Bytes::check_unchanged)
    }
}

/// How a model is prepared.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The instruction set to use; `None`: the best that the machine has.
    pub isa: Option<Isa>,
    /// Whether to read weights into memory instead of mapping their files: for files that somebody may write or cut
    /// short while the model is in use, such as those of a network drive. A mapped file that is written in place gives
    /// wrong text until the next request, which is [`Error::Changed`], and one that is cut short under a running
    /// request ends the process. It takes the memory of the embedding, since other weights are packed in any case; the
    /// header and the vocabulary are still read through a mapping when the file is opened.
    pub copy: bool,
}

impl ModelOptions {
    pub(crate) fn kernels(&self) -> Result<Kernels> {
        match self.isa {
            Some(isa) => Kernels::of(isa),
            None => Ok(Kernels::detect()),
        }
    }
}

/// The weights of both stacks.
pub(crate) struct Stacks {
    /// `None` in a model of one stack.
    encoder: Option<EncoderWeights>,
    /// `None` in an encoder-only model.
    decoder: Option<DecoderWeights>,
    embedding: Embedding,
}

impl Stacks {
    pub(crate) fn load(loader: &Loader) -> Result<Stacks> {
        let has_encoder = loader.config().one_stack().is_none();
        let encoder = has_encoder.then(|| EncoderWeights::load(loader)).transpose()?;
        let decoder = if loader.config().is_encoder_only() { None } else { Some(DecoderWeights::load(loader)?) };
        let head: Option<&Arc<Matrix>> = decoder.as_ref().map(DecoderWeights::head);
        let embedding = loader.embedding(head)?;
        Ok(Stacks { encoder, decoder, embedding })
    }
}

impl Model {
    /// Opens a Hugging Face folder or a GGUF file. Weights are mapped, not read: nobody may write these files in place
    /// as long as the model lives (see [`ModelOptions::copy`]); to replace them by renaming is safe.
    ///
    /// # Errors
    /// One sentence that names the file and what was expected, for every way in which a checkpoint can be wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(path, &ModelOptions::default())
    }

    /// As [`Model::open`], prepared as the options say.
    ///
    /// # Errors
    /// As [`Model::open`], and if the machine does not have the instruction set.
    pub fn open_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Model> {
        Model::from_checkpoint(Checkpoint::open(path.as_ref())?, options)
    }

    /// Opens a GGUF file that is already in memory; `name` names it in messages.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_gguf(name: &str, bytes: Bytes) -> Result<Model> {
        Model::from_checkpoint(Checkpoint::from_gguf(name, bytes)?, &ModelOptions::default())
    }

    /// Prepares the weights of a checkpoint.
    ///
    /// # Errors
    /// If the machine does not have the instruction set that the options name, or the vocabulary or a weight is of no
    /// use.
    pub fn from_checkpoint(checkpoint: Checkpoint, options: &ModelOptions) -> Result<Model> {
        let kernels = options.kernels()?.for_weights(checkpoint.weight_bytes());
        let tokenizer = Model::tokenizer_of(&checkpoint)?;
        let source = if options.copy { WeightSource::Copied } else { WeightSource::Whole };
        checkpoint.check_unchanged()?;
        let stacks = Stacks::load(&Loader { checkpoint: &checkpoint, kernels, source })?;
        checkpoint.check_unchanged()?;
        Ok(Model::from_stacks(checkpoint, kernels, tokenizer, stacks, None))
    }

    /// As [`Model::from_checkpoint`], with the weights in a file as products read them: mapped, so that a large model
    /// starts at once and processes share its memory. The same results to the last bit.
    ///
    /// Where `packed` is not there, or is of another model, for another instruction set, of another version or damaged,
    /// it is made, as large as the weights are; [`Model::notes`] say so. What it was made of is known by size, time of
    /// change and samples of the weights' files, and all of the packed file is compared with its checksums.
    ///
    /// # Errors
    /// As [`Model::from_checkpoint`], where `packed` is another kind of file or cannot be written, and for options that
    /// want nothing mapped.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_checkpoint_and_packed(
        mut checkpoint: Checkpoint,
        options: &ModelOptions,
        packed: &Path,
    ) -> Result<Model> {
        crate::checkpoint::expect_name("packed", packed)?;
        if options.copy {
            let what = "expected files that may be mapped, as that of packed weights is".to_owned();
            return Err(Error::Option { option: "copy", what });
        }
        let kernels = options.kernels()?.for_weights(checkpoint.weight_bytes());
        let tokenizer = Model::tokenizer_of(&checkpoint)?;
        let mut notes = Vec::new();
        checkpoint.check_unchanged()?;
        let (matrices, file) = crate::packed::matrices(&checkpoint, kernels, packed, &mut notes)?;
        let source = WeightSource::Made(std::cell::RefCell::new(matrices));
        let stacks = Stacks::load(&Loader { checkpoint: &checkpoint, kernels, source })?;
        checkpoint.check_unchanged()?;
        checkpoint.notes.append(&mut notes);
        Ok(Model::from_stacks(checkpoint, kernels, tokenizer, stacks, Some(file)))
    }

    pub(crate) fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Option<Tokenizer>> {
        checkpoint.vocabulary.as_ref().map(|vocabulary| Tokenizer::new(&checkpoint.file, vocabulary)).transpose()
    }

    /// `packed` is the file that matrices were taken from.
    pub(crate) fn from_stacks(
        checkpoint: Checkpoint,
        kernels: Kernels,
        tokenizer: Option<Tokenizer>,
        Stacks { encoder, decoder, embedding }: Stacks,
        packed: Option<Bytes>,
    ) -> Model {
        let Checkpoint { file, config, generation, sentence, head, encoder_scale, about, notes, .. } = checkpoint;
        Model {
            ensemble: None,
            data: Arc::new(ModelData {
                mapped: embedding.stored().cloned().into_iter().chain(packed).collect(),
                file,
                config,
                kernels,
                embedding,
                encoder,
                decoder,
                tokenizer,
                generation,
                sentence,
                head,
                encoder_scale,
                about,
                notes,
            }),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.data.config
    }

    /// The instruction set that this model was prepared for.
    pub fn isa(&self) -> Isa {
        self.kernels().isa()
    }

    /// The kernels that this model was prepared for.
    #[doc(hidden)]
    pub fn kernels(&self) -> Kernels {
        self.data.kernels
    }

    /// The heads of cross-attention that, as the checkpoint says, show where a token comes from; else all of them.
    pub fn alignment_heads(&self) -> AlignmentHeads {
        AlignmentHeads::of(&self.data.generation.settings)
    }

    /// What the checkpoint says about decoding.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.data.generation
    }

    /// What is behind the encoder of a sentence model.
    pub fn sentence_model(&self) -> Option<&SentenceModel> {
        self.data.sentence.as_ref()
    }

    /// Options for generating as the checkpoint asks for, with `overrides` in its place.
    ///
    /// # Errors
    /// For values out of range, contradictions, and a task that the checkpoint does not name.
    pub fn options(&self, overrides: &Overrides) -> Result<GenerateOptions> {
        overrides.apply(self.generation_defaults())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Where the checkpoint came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.data.tokenizer.as_ref().ok_or_else(|| Error::Tokenizer {
            file: self.file().to_owned(),
            what: "expected tokenizer.json or spiece.model beside the weights, found neither".to_owned(),
        })
    }

    /// The ids of a source text that is read whole, spelled out where the task wants that whose prefix it begins with.
    ///
    /// # Errors
    /// Where the checkpoint came without a tokenizer.
    pub fn source_ids(&self, text: &str) -> Result<Vec<u32>> {
        let source = GenerateOptions::default().source(self, text)?;
        Ok(source.sentences().concat())
    }

    /// The file that the model was opened from.
    pub fn file(&self) -> &str {
        &self.data.file
    }

    /// What a GGUF file says of itself for people, by key: `general.name`, `general.license`, `general.attribution` and
    /// others. Empty for a folder.
    pub fn about(&self) -> &BTreeMap<String, String> {
        &self.data.about
    }

    /// Remarks made while opening (settings ignored, tensors skipped).
    pub fn notes(&self) -> &[String] {
        &self.data.notes
    }

    /// What the model says of itself, for programs in other languages: `file`, `isa`, `config` as in `config.json`,
    /// `generation` as in `generation_config.json` with its tasks, `tokenizer` (null where there is none), `about`,
    /// `notes`.
    pub fn to_json(&self) -> serde_json::Value {
        let tokenizer = self.tokenizer().ok().map(|tokenizer| {
            serde_json::json!({
                "vocab_size": tokenizer.vocab_size(),
                "pad_id": tokenizer.pad_id(),
                "eos_id": tokenizer.eos_id(),
                "unk_id": tokenizer.unk_id(),
            })
        });
        serde_json::json!({
            "file": self.file(),
            "isa": self.isa().name(),
            "config": self.config().to_json(),
            "generation": self.generation_defaults().to_json(),
            "tokenizer": tokenizer,
            "about": self.about(),
            "notes": self.notes(),
        })
    }

    /// Bytes of weights that one decoder step reads: all of the decoder and the head, of every model of an ensemble.
    pub fn decoder_step_bytes(&self) -> usize {
        let others: usize = self.others().iter().map(Model::decoder_step_bytes).sum();
        self.data.decoder.as_ref().map_or(0, DecoderWeights::bytes) + others
    }

    pub(crate) fn with(&self) -> Option<&Ensemble> {
        self.ensemble.as_deref()
    }

    pub(crate) fn with_others(self, ensemble: Arc<Ensemble>) -> Model {
        Model { ensemble: Some(ensemble), ..self }
    }

    pub(crate) fn data(&self) -> &ModelData {
        &self.data
    }

    /// Refuses ids outside the vocabulary.
    pub(crate) fn check_ids(&self, option: &'static str, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.data.config.vocab_size) {
            Some(id) => {
                let what = format!("expected ids below {}, found {id}", self.data.config.vocab_size);
                Err(Error::Option { option, what })
            }
            None => Ok(()),
        }
    }

    /// The token that a decoder starts with, if the vocabulary has it.
    pub(crate) fn start_token(&self) -> Result<u32> {
        let start = self.data.start();
        self.check_ids("decoder_start_token_id", &[start])?;
        Ok(start)
    }

    /// What a source ends with: the tokenizer's `</s>`, which the configuration may call by another id. (A classifier
    /// looks for the configuration's, as the transformers library does.)
    pub(crate) fn end_id(&self) -> u32 {
        self.data.tokenizer.as_ref().map_or(self.data.config.eos_token_id, Tokenizer::eos_id)
    }

    /// Refuses what the encoder cannot read.
    pub(crate) fn check_source(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Err(Error::Option { option: "source", what: "expected at least one token".to_owned() });
        }
        self.check_ids("source", ids)
    }
}

impl ModelData {
    /// The attention heads of both stacks.
    pub fn heads(&self) -> Heads {
        Heads { count: self.config.num_heads, width: self.config.d_kv }
    }

    /// The encoder, or an error for a model of one stack.
    pub fn encoder(&self) -> Result<&EncoderWeights> {
        self.encoder.as_ref().ok_or_else(|| {
            let what = format!("expected a model with an encoder, found one stack, {}", self.config.model_type);
            Error::config(&self.file, "model_type", what)
        })
    }

    /// The token that a decoder starts with, whether it chooses a text or is given one: the one for generating, where a
    /// checkpoint names one.
    pub fn start(&self) -> u32 {
        self.generation.settings.decoder_start_token_id.unwrap_or(self.config.decoder_start_token_id)
    }

    /// The decoder, or an error for an encoder-only model.
    pub fn decoder(&self) -> Result<&DecoderWeights> {
        self.decoder.as_ref().ok_or_else(|| {
            let what = "expected a model with a decoder, found an encoder only";
            Error::config(&self.file, "num_decoder_layers", what)
        })
    }
}
