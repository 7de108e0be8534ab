//! What both stacks share, and how they take their weights out of a checkpoint.

use crate::block;
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, Matrix};
use crate::position::PositionBias;
use crate::schema::{self, Role, Stack, TensorId};
use crate::tensor::Tensor;

/// The configuration, the kernels and the embedding: what the encoder and the decoder both need to run.
pub(crate) struct Shared {
    pub file: String,
    pub config: T5Config,
    pub kernels: Kernels,
    /// `[vocab_size, d_model]` as it lies in the file; rows are decoded when they are looked up.
    pub embedding: Tensor,
}

impl Shared {
    /// Looks up embeddings: `out[i, :] = E[ids[i]]`, with no scale and no positions.
    pub fn embed(&self, ids: impl Iterator<Item = u32>, out: &mut [f32]) {
        for (id, row) in ids.zip(out.chunks_exact_mut(self.config.d_model)) {
            block::decode(self.embedding.dtype, self.embedding.row_data(id as usize), row);
        }
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
    pub checkpoint: &'a Checkpoint,
    pub kernels: Kernels,
}

impl<'a> Loader<'a> {
    pub fn config(&self) -> &'a T5Config {
        &self.checkpoint.config
    }

    pub fn embedding(&self) -> Result<&'a Tensor> {
        self.tensor(TensorId { role: Role::TokenEmbedding, stack: None, block: None })
    }

    fn tensor(&self, id: TensorId) -> Result<&'a Tensor> {
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
    pub fn head(&self) -> Result<Matrix> {
        let tensor = if self.config().tie_word_embeddings {
            self.embedding()?
        } else {
            self.tensor(TensorId { role: Role::OutputHead, stack: None, block: None })?
        };
        Matrix::with_argmax(self.kernels, tensor)
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
    pub fn position_biases(&self, stack: Stack, blocks: usize) -> Result<Vec<PositionBias>> {
        let count = if self.config().relative_bias_per_block { blocks } else { 1 };
        (0..count)
            .map(|block| {
                let id = TensorId { role: Role::RelativeBias, stack: Some(stack), block: Some(block) };
                PositionBias::new(self.config(), stack, self.tensor(id)?)
            })
            .collect()
    }
}
