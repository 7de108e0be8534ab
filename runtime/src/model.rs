//! [`Model`]: the weights of a checkpoint made ready for products, shared by any number of sessions.

use std::path::Path;
use std::sync::Arc;

use crate::block;
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::decoder::DecoderWeights;
use crate::encoder::EncoderWeights;
use crate::error::{Error, Result};
use crate::generation::GenerationDefaults;
use crate::kernels::{Kernels, Matrix};
use crate::schema::{self, Role, Stack, TensorId};
use crate::session::Session;
use crate::storage::Bytes;
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;

/// A model: immutable, cheap to clone, shared between threads. Each thread works in a [`Session`] of its own.
#[derive(Clone)]
pub struct Model {
    weights: Arc<Weights>,
}

pub(crate) struct Weights {
    pub file: String,
    pub config: T5Config,
    pub kernels: Kernels,
    pub tokenizer: Option<Tokenizer>,
    pub generation: GenerationDefaults,
    /// `[vocab_size, d_model]` as it lies in the file; rows are decoded when they are looked up.
    embedding: Tensor,
    pub encoder: EncoderWeights,
    pub decoder: Option<DecoderWeights>,
    notes: Vec<String>,
}

/// How a model is prepared.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The instruction set to use; `None`: the best that the machine has.
    pub isa: Option<String>,
}

impl Model {
    /// Opens a Hugging Face folder or a GGUF file. Weights are mapped, not read.
    ///
    /// # Errors
    /// One sentence that names the file and what was expected, for every way in which a checkpoint can be wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::from_checkpoint(Checkpoint::open(path.as_ref())?, &ModelOptions::default())
    }

    /// Opens a GGUF file that is already in memory; `name` names it in messages.
    pub fn from_gguf(name: &str, bytes: Bytes) -> Result<Model> {
        Model::from_checkpoint(Checkpoint::from_gguf(name, bytes)?, &ModelOptions::default())
    }

    /// Prepares the weights of a checkpoint.
    pub fn from_checkpoint(checkpoint: Checkpoint, options: &ModelOptions) -> Result<Model> {
        let kernels = match &options.isa {
            Some(name) => Kernels::with_isa(name)?,
            None => Kernels::detect(),
        };
        let tokenizer = match &checkpoint.vocabulary {
            Some(vocabulary) => Some(Tokenizer::new(&checkpoint.file, vocabulary)?),
            None => None,
        };
        let loader = Loader { checkpoint: &checkpoint, kernels };
        let embedding = loader.tensor(TensorId { role: Role::TokenEmbedding, stack: None, block: None })?.clone();
        let encoder = EncoderWeights::load(&loader)?;
        let decoder =
            if checkpoint.config.is_encoder_only() { None } else { Some(DecoderWeights::load(&loader, &embedding)?) };
        Ok(Model {
            weights: Arc::new(Weights {
                file: checkpoint.file,
                config: checkpoint.config,
                kernels,
                tokenizer,
                generation: checkpoint.generation,
                embedding,
                encoder,
                decoder,
                notes: checkpoint.notes,
            }),
        })
    }

    /// A working space over this model: every buffer of encoding and decoding, allocated once and re-used.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.weights.config
    }

    /// The kernels that this model was prepared for.
    pub fn kernels(&self) -> Kernels {
        self.weights.kernels
    }

    /// What the checkpoint says about decoding.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.weights.generation
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Where the checkpoint came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.weights.tokenizer.as_ref().ok_or_else(|| Error::Tokenizer {
            file: self.weights.file.clone(),
            what: "expected tokenizer.json or spiece.model beside the weights, found neither".to_owned(),
        })
    }

    /// The file that the model was opened from.
    pub fn file(&self) -> &str {
        &self.weights.file
    }

    /// Remarks made while opening (settings ignored, tensors skipped).
    pub fn notes(&self) -> &[String] {
        &self.weights.notes
    }

    /// Bytes of weights that one decoder step reads: all of the decoder and the head.
    pub fn decoder_step_bytes(&self) -> usize {
        self.weights.decoder.as_ref().map_or(0, DecoderWeights::bytes)
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}

impl Weights {
    /// Looks up embeddings: `out[i, :] = E[ids[i]]`, with no scale and no positions.
    pub fn embed(&self, ids: impl Iterator<Item = u32>, out: &mut [f32]) {
        for (id, row) in ids.zip(out.chunks_exact_mut(self.config.d_model)) {
            block::decode(self.embedding.dtype, self.embedding.row_data(id as usize), row);
        }
    }

    /// The decoder, or an error for an encoder-only model.
    pub fn decoder(&self) -> Result<&DecoderWeights> {
        self.decoder.as_ref().ok_or_else(|| {
            Error::config(&self.file, "num_decoder_layers", "expected a model with a decoder, found an encoder only")
        })
    }

    /// Refuses ids outside the vocabulary.
    pub fn check_ids(&self, option: &'static str, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            Some(id) => Err(Error::Option {
                option,
                what: format!("expected ids below {}, found {id}", self.config.vocab_size),
            }),
            None => Ok(()),
        }
    }
}

/// Takes tensors out of a checkpoint by what they do.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    kernels: Kernels,
}

impl<'a> Loader<'a> {
    pub fn config(&self) -> &'a T5Config {
        &self.checkpoint.config
    }

    pub fn tensor(&self, id: TensorId) -> Result<&'a Tensor> {
        let name = schema::hf_name(id);
        self.checkpoint
            .tensor(&name)
            .ok_or_else(|| Error::tensor(&self.checkpoint.file, name, "expected in the file, found missing"))
    }

    /// One matrix, or several stacked by rows.
    pub fn matrix(&self, roles: &[Role], stack: Stack, block: usize) -> Result<Matrix> {
        let parts = roles
            .iter()
            .map(|&role| self.tensor(TensorId { role, stack: Some(stack), block: Some(block) }))
            .collect::<Result<Vec<_>>>()?;
        Matrix::new(self.kernels, &parts)
    }

    /// The output matrix: the head, or the embedding where they are tied.
    pub fn head(&self, embedding: &Tensor) -> Result<Matrix> {
        if self.config().tie_word_embeddings {
            return Matrix::new(self.kernels, &[embedding]);
        }
        Matrix::new(self.kernels, &[self.tensor(TensorId { role: Role::OutputHead, stack: None, block: None })?])
    }

    pub fn vector(&self, role: Role, stack: Stack, block: usize) -> Result<Vec<f32>> {
        self.floats(TensorId { role, stack: Some(stack), block: Some(block) })
    }

    pub fn final_norm(&self, stack: Stack) -> Result<Vec<f32>> {
        self.floats(TensorId { role: Role::FinalNorm, stack: Some(stack), block: None })
    }

    fn floats(&self, id: TensorId) -> Result<Vec<f32>> {
        let tensor = self.tensor(id)?;
        let mut values = vec![0.0; tensor.len()];
        block::decode(tensor.dtype, &tensor.data, &mut values);
        Ok(values)
    }

    /// The bias tables of a stack: one, or one for each block (umT5).
    pub fn position_biases(&self, stack: Stack, blocks: usize) -> Result<Vec<crate::position::PositionBias>> {
        let count = if self.config().relative_bias_per_block { blocks } else { 1 };
        (0..count)
            .map(|block| {
                let id = TensorId { role: Role::RelativeBias, stack: Some(stack), block: Some(block) };
                crate::position::PositionBias::new(self.config(), stack, self.tensor(id)?)
            })
            .collect()
    }
}
