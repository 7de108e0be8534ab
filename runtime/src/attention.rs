//! The weights of the attention layers, and self-attention of a whole document.
//!
//! One arithmetic ([`crate::kernels::attention`]) serves encoder self-attention, decoder self-attention and
//! cross-attention; they differ in where keys and values come from and in the bias.

use crate::error::Result;
use crate::kernels::{Kernels, Matrix};
use crate::schema::{Role, Stack};
use crate::shared::Loader;

/// Self-attention: `x + o(attend(qkv(norm(x))))`.
pub(crate) struct SelfAttention {
    /// `[d_model]`
    pub norm: Vec<f32>,
    /// `[3 * inner, d_model]`: query, key and value in one product.
    pub qkv: Matrix,
    /// `[d_model, inner]`
    pub o: Matrix,
}

impl SelfAttention {
    pub fn load(loader: &Loader, stack: Stack, block: usize) -> Result<SelfAttention> {
        Ok(SelfAttention {
            norm: loader.vector(Role::AttentionNorm, stack, block)?,
            qkv: loader.matrix(&[Role::SelfQ, Role::SelfK, Role::SelfV], stack, block)?,
            o: loader.matrix(&[Role::SelfO], stack, block)?,
        })
    }
}

/// Cross-attention: queries from the decoder, keys and values from the encoder's output. No position bias.
pub(crate) struct CrossAttention {
    /// `[d_model]`
    pub norm: Vec<f32>,
    /// `[inner, d_model]`
    pub q: Matrix,
    /// `[inner, d_model]`, applied once per input to the encoder's output.
    pub k: Matrix,
    /// `[inner, d_model]`, applied once per input to the encoder's output.
    pub v: Matrix,
    /// `[d_model, inner]`
    pub o: Matrix,
}

impl CrossAttention {
    pub fn load(loader: &Loader, block: usize) -> Result<CrossAttention> {
        let matrix = |role| loader.matrix(&[role], Stack::Decoder, block);
        Ok(CrossAttention {
            norm: loader.vector(Role::CrossAttentionNorm, Stack::Decoder, block)?,
            q: matrix(Role::CrossQ)?,
            k: matrix(Role::CrossK)?,
            v: matrix(Role::CrossV)?,
            o: matrix(Role::CrossO)?,
        })
    }
}

/// Scratch memory of a forward pass, grown to the largest number of rows met and kept.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[rows, d_model]`: input of a layer after its norm.
    pub normed: Vec<f32>,
    /// `[rows, 3 * inner]`, or `[rows, 2 * d_ff]` in a gated feed-forward.
    pub wide: Vec<f32>,
    /// `[rows, inner]` or `[rows, d_ff]`: what the output matrix reads.
    pub narrow: Vec<f32>,
    /// `[rows, d_model]`: what is added to the residual stream.
    pub delta: Vec<f32>,
    /// `[num_heads, keys]`
    pub scores: Vec<f32>,
    pub workspace: crate::kernels::Workspace,
}

/// The first `len` values of a scratch buffer, which grows if it must.
pub(crate) fn part(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// `x += matrix * input` for `input` `[rows, k]`; the end of every layer.
pub(crate) fn add_product(
    kernels: Kernels,
    matrix: &Matrix,
    input: &[f32],
    rows: usize,
    x: &mut [f32],
    delta: &mut Vec<f32>,
    workspace: &mut crate::kernels::Workspace,
) {
    let delta = part(delta, rows * matrix.n());
    matrix.multiply(kernels, input, rows, delta, workspace);
    kernels.add(x, delta);
}
