//! The embedding: ids to the first values of the residual stream.

use std::sync::Arc;

use crate::kernels::{Kernels, Matrix};
use crate::storage::Bytes;
use crate::tensor::Tensor;

/// `[vocab_size, d_model]`; rows are decoded when they are looked up.
pub(crate) enum Embedding {
    /// As it lies in the file.
    Stored(Tensor),
    /// The head of a tied model whose file is not kept.
    Head(Arc<Matrix>),
}

impl Embedding {
    /// The bytes that it reads of a file.
    pub fn stored(&self) -> Option<&Bytes> {
        match self {
            Embedding::Stored(tensor) => Some(&tensor.data),
            Embedding::Head(_) => None,
        }
    }

    /// `out[i, :] = E[ids[i]]` for `out` `[ids, d_model]`: no scale, and no positions are added.
    pub fn look_up(&self, kernels: Kernels, ids: impl Iterator<Item = u32>, d_model: usize, out: &mut [f32]) {
        for (id, row) in ids.zip(out.chunks_exact_mut(d_model)) {
            match self {
                Embedding::Stored(tensor) => tensor.decode(tensor.row_data(id as usize), row),
                Embedding::Head(matrix) => matrix.row(kernels, id as usize, row),
            }
        }
    }
}
