//! Scratch memory of the layers, and what each of them begins and ends with.

use crate::kernels::{Kernels, Matrix, Workspace};

/// RMS norm: `x / sqrt(mean(x²) + eps) * weight`, without a mean or a bias.
pub(crate) struct Norm {
    /// `[d_model]`
    pub weight: Vec<f32>,
    pub eps: f32,
}

impl Norm {
    /// The rows of `x` normalised; both are `[rows, d_model]`.
    pub fn apply(&self, kernels: Kernels, x: &[f32], out: &mut [f32]) {
        kernels.rms_norm(x, &self.weight, self.eps, out);
    }
}

/// Scratch memory of a forward pass, grown to the largest number of rows met and kept.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[rows, d_model]`: the input of a layer after its norm.
    normed: Vec<f32>,
    /// `[rows, 3 * inner]` or `[rows, d_ff]` (`2 * d_ff` if gated): what a layer's first product gives.
    pub wide: Vec<f32>,
    /// `[rows, inner]` or `[rows, d_ff]`: what a layer's last product reads.
    pub narrow: Vec<f32>,
    /// `[rows, d_model]`: what is added to the residual stream.
    delta: Vec<f32>,
    /// `[rows, d_model]`: what a layer would add, where an adapter stands between.
    held: Vec<f32>,
    /// `[num_heads, keys]`
    pub scores: Vec<f32>,
    pub workspace: Workspace,
}

impl Scratch {
    /// How a layer begins: `wide = norm(x) matrix^T` for `x` `[rows, d_model]`. Gives the number of rows.
    pub fn enter(&mut self, kernels: Kernels, norm: &Norm, matrix: &Matrix, x: &[f32]) -> usize {
        let normed = part(&mut self.normed, x.len());
        norm.apply(kernels, x, normed);
        let rows = x.len() / norm.weight.len();
        let wide = part(&mut self.wide, rows * matrix.n());
        matrix.multiply(kernels, normed, rows, wide, &mut self.workspace);
        rows
    }

    /// What a layer would add to x `[rows, d_model]`, of `len` values, is held: `held = narrow matrix^T`.
    pub fn hold(&mut self, kernels: Kernels, matrix: &Matrix, rows: usize, len: usize) {
        let held = part(&mut self.held, len);
        matrix.multiply(kernels, &self.narrow[..rows * matrix.k()], rows, held, &mut self.workspace);
    }

    /// `wide = held matrix^T`
    pub fn enter_held(&mut self, kernels: Kernels, matrix: &Matrix, rows: usize, len: usize) {
        let wide = part(&mut self.wide, rows * matrix.n());
        matrix.multiply(kernels, &self.held[..len], rows, wide, &mut self.workspace);
    }

    /// `x += held + narrow matrix^T`
    pub fn leave_held(&mut self, kernels: Kernels, matrix: &Matrix, rows: usize, x: &mut [f32]) {
        let delta = part(&mut self.delta, x.len());
        matrix.multiply(kernels, &self.narrow[..rows * matrix.k()], rows, delta, &mut self.workspace);
        let held = &mut self.held[..x.len()];
        kernels.add(held, delta);
        kernels.add(x, held);
    }

    /// How a layer ends: `x += narrow matrix^T`.
    pub fn leave(&mut self, kernels: Kernels, matrix: &Matrix, rows: usize, x: &mut [f32]) {
        let delta = part(&mut self.delta, x.len());
        matrix.multiply(kernels, &self.narrow[..rows * matrix.k()], rows, delta, &mut self.workspace);
        kernels.add(x, delta);
    }
}

/// The first `len` values of a scratch buffer, which grows if it must.
pub(crate) fn part(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
