//! How the layers take their weights out of a checkpoint.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::kernels::{Heads, Kernels, Matrix, Purpose};
use crate::layers::{Embedding, Norm};
use crate::position::{Buckets, PositionBias, StackBias};
use crate::schema::{self, Role, Stack, TensorId};
use crate::storage::Bytes;
use crate::tensor::Tensor;

/// Takes tensors out of a checkpoint by what they do.
pub(crate) struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub kernels: Kernels,
    pub source: WeightSource,
}

/// Where a loader takes weights from.
pub(crate) enum WeightSource {
    /// All tensors are there.
    Whole,
    /// All tensors are there, but nothing is taken out of a mapping: files are read.
    Copied,
    /// None is there: the loader notes the tensors of each matrix, and what it gives has no values.
    Expected(RefCell<Vec<(Vec<String>, Purpose)>>),
    /// The matrices are made already, under the name of their first tensor; the other tensors are there.
    Made(RefCell<HashMap<String, Matrix>>),
}

impl<'a> Loader<'a> {
    pub fn config(&self) -> &'a T5Config {
        &self.checkpoint.config
    }

    /// The attention heads of both stacks.
    pub fn heads(&self) -> Heads {
        Heads { count: self.config().num_heads, width: self.config().d_kv }
    }

    /// What embeddings are looked up in, in a model with this head.
    pub fn embedding(&self, head: Option<&Arc<Matrix>>) -> Result<Embedding> {
        let tensor = self.tensor(Self::EMBEDDING)?;
        Ok(match head {
            Some(head) if self.config().tie_word_embeddings && !tensor.data.is_whole() => Embedding::Head(head.clone()),
            _ => Embedding::Stored(self.unmapped(tensor)?.into_owned()),
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
        match &self.source {
            WeightSource::Whole => Matrix::made_for(purpose, self.kernels, parts),
            WeightSource::Copied => {
                let parts = parts.iter().map(|part| self.unmapped(part)).collect::<Result<Vec<_>>>()?;
                let parts: Vec<&Tensor> = parts.iter().map(|part| &**part).collect();
                Matrix::made_for(purpose, self.kernels, &parts)
            }
            WeightSource::Expected(all) => {
                all.borrow_mut().push((parts.iter().map(|part| part.name.clone()).collect(), purpose));
                Matrix::absent(self.kernels, parts)
            }
            WeightSource::Made(matrices) => match matrices.borrow_mut().remove(&parts[0].name) {
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

    /// The norm of a layer, by its role.
    pub fn norm(&self, role: Role, stack: Stack, block: usize) -> Result<Norm> {
        self.norm_of(TensorId { role, stack: Some(stack), block: Some(block) })
    }

    /// The norm behind the last block.
    pub fn final_norm(&self, stack: Stack) -> Result<Norm> {
        self.norm_of(TensorId { role: Role::FinalNorm, stack: Some(stack), block: None })
    }

    fn norm_of(&self, id: TensorId) -> Result<Norm> {
        let tensor = self.small(id)?;
        let mut weight = vec![0.0; tensor.len()];
        tensor.decode(&tensor.data, &mut weight);
        Ok(Norm { weight, eps: self.config().layer_norm_epsilon })
    }

    /// A tensor that is no matrix of weights.
    fn small(&self, id: TensorId) -> Result<Cow<'a, Tensor>> {
        let tensor = self.tensor(id)?;
        Ok(match self.source {
            WeightSource::Expected(_) => {
                Cow::Owned(Tensor { data: Bytes::from_vec(vec![0; tensor.data.len()]), ..tensor.clone() })
            }
            _ => self.unmapped(tensor)?,
        })
    }

    /// A tensor whose file is read where it is not to be mapped.
    fn unmapped<'t>(&self, tensor: &'t Tensor) -> Result<Cow<'t, Tensor>> {
        Ok(match self.source {
            WeightSource::Copied => Cow::Owned(Tensor { data: tensor.data.copied()?, ..tensor.clone() }),
            _ => Cow::Borrowed(tensor),
        })
    }

    /// The biases of a stack of this many blocks.
    pub fn position_bias(&self, stack: Stack, blocks: usize) -> Result<StackBias> {
        let count = if self.config().relative_bias_per_block { blocks } else { 1 };
        let buckets = Arc::new(Buckets::of_stack(self.config(), stack));
        let tables = (0..count)
            .map(|block| {
                let id = TensorId { role: Role::RelativeBias, stack: Some(stack), block: Some(block) };
                PositionBias::new(buckets.clone(), &*self.small(id)?)
            })
            .collect::<Result<_>>()?;
        Ok(StackBias::new(tables))
    }
}
