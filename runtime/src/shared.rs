//! What both stacks share, and how they take their weights out of a checkpoint.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::block;
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, Matrix, Purpose};
use crate::position::{Buckets, PositionBias};
use crate::schema::{self, Role, Stack, TensorId};
use crate::storage::Bytes;
use crate::tensor::Tensor;

/// The configuration, the kernels and the embedding: what the encoder and the decoder both need to run.
pub(crate) struct Shared {
    pub file: String,
    pub config: T5Config,
    pub kernels: Kernels,
    pub embedding: Embedding,
}

/// `[vocab_size, d_model]`; rows are decoded when they are looked up.
pub(crate) enum Embedding {
    /// As it lies in the file.
    Stored(Tensor),
    /// The head of a tied model whose file is not kept.
    Head(Arc<Matrix>),
}

impl Shared {
    /// Looks up embeddings: `out[i, :] = E[ids[i]]`, with no scale and no positions.
    pub fn embed(&self, ids: impl Iterator<Item = u32>, out: &mut [f32]) {
        for (id, row) in ids.zip(out.chunks_exact_mut(self.config.d_model)) {
            match &self.embedding {
                Embedding::Stored(tensor) => block::decode(tensor.dtype, tensor.row_data(id as usize), row),
                Embedding::Head(matrix) => matrix.row(self.kernels, id as usize, row),
            }
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
    pub weights: Weights,
}

/// Where a loader takes weights from.
pub(crate) enum Weights {
    /// All tensors are there.
    Whole,
    /// None is there: the loader notes the tensors of each matrix, and what it gives has no values.
    Expected(RefCell<Vec<(Vec<String>, Purpose)>>),
    /// The matrices are made already, under the name of their first tensor; the other tensors are there.
    Made(RefCell<HashMap<String, Matrix>>),
}

impl<'a> Loader<'a> {
    pub fn config(&self) -> &'a T5Config {
        &self.checkpoint.config
    }

    /// What embeddings are looked up in, in a model with this head.
    pub fn embedding(&self, head: Option<&Arc<Matrix>>) -> Result<Embedding> {
        let tensor = self.tensor(Self::EMBEDDING)?;
        Ok(match head {
            Some(head) if self.config().tie_word_embeddings && !tensor.data.is_whole() => Embedding::Head(head.clone()),
            _ => Embedding::Stored(tensor.clone()),
        })
    }

    const EMBEDDING: TensorId = TensorId { role: Role::TokenEmbedding, stack: None, block: None };

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
        self.made(&parts, Purpose::Product)
    }

    fn made(&self, parts: &[&Tensor], purpose: Purpose) -> Result<Matrix> {
        match &self.weights {
            Weights::Whole => Matrix::made_for(purpose, self.kernels, parts),
            Weights::Expected(all) => {
                all.borrow_mut().push((parts.iter().map(|part| part.name.clone()).collect(), purpose));
                Matrix::absent(self.kernels, parts)
            }
            Weights::Made(matrices) => match matrices.borrow_mut().remove(&parts[0].name) {
                Some(matrix) => Ok(matrix),
                None => Matrix::made_for(purpose, self.kernels, parts),
            },
        }
    }

    /// The output matrix: the head, or the embedding where they are tied.
    pub fn head(&self) -> Result<Matrix> {
        let head = TensorId { role: Role::OutputHead, stack: None, block: None };
        let tensor = self.tensor(if self.config().tie_word_embeddings { Self::EMBEDDING } else { head })?;
        self.made(&[tensor], Purpose::Argmax)
    }

    pub fn vector(&self, role: Role, stack: Stack, block: usize) -> Result<Vec<f32>> {
        self.floats(TensorId { role, stack: Some(stack), block: Some(block) })
    }

    pub fn final_norm(&self, stack: Stack) -> Result<Vec<f32>> {
        self.floats(TensorId { role: Role::FinalNorm, stack: Some(stack), block: None })
    }

    /// A tensor that is no matrix of weights.
    fn small(&self, id: TensorId) -> Result<Cow<'a, Tensor>> {
        let tensor = self.tensor(id)?;
        Ok(match self.weights {
            Weights::Expected(_) => {
                Cow::Owned(Tensor { data: Bytes::from_vec(vec![0; tensor.data.len()]), ..tensor.clone() })
            }
            _ => Cow::Borrowed(tensor),
        })
    }

    fn floats(&self, id: TensorId) -> Result<Vec<f32>> {
        let tensor = self.small(id)?;
        let mut values = vec![0.0; tensor.len()];
        block::decode(tensor.dtype, &tensor.data, &mut values);
        Ok(values)
    }

    /// The bias tables of a stack: one, or one for each block (umT5).
    pub fn position_biases(&self, stack: Stack, blocks: usize) -> Result<Vec<PositionBias>> {
        let count = if self.config().relative_bias_per_block { blocks } else { 1 };
        let buckets = Arc::new(Buckets::of_stack(self.config(), stack));
        (0..count)
            .map(|block| {
                let id = TensorId { role: Role::RelativeBias, stack: Some(stack), block: Some(block) };
                PositionBias::new(buckets.clone(), &*self.small(id)?)
            })
            .collect()
    }
}
