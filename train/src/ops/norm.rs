//! RMS norm: `x * rsqrt(mean(x^2) + eps) * w`, no mean subtraction, no bias.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::{Dropout, ForBackward, Pass, Values, argument};
use crate::kernels::{sum1, sum2, vectorised};

/// `out[i, :] = x[i, :] * inverse[i] * w` with `inverse[i] = rsqrt(mean(x[i, :]^2) + eps)`. `x`, `out` `[rows, d]`.
pub fn forward(x: &[f32], w: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    let d = w.len();
    vectorised(|| {
        for ((x, out), inverse) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inverse) {
            let factor = 1.0 / (sum1(x, |x| x * x) / d as f32 + eps).sqrt();
            *inverse = factor;
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(w) {
                *out = x * factor * w;
            }
        }
    });
}

/// Adds to `dx` the gradient of the norm's input, and to `dw` that of its weight unless it is empty.
///
/// With `n = x * inverse`: `dw = sum(dy * n)`, `dx = inverse * (dy * w - n * mean(dy * w * n))`.
pub fn backward(x: &[f32], w: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len();
    let mut unwanted = vec![0.0; if dw.is_empty() { d } else { 0 }];
    let dw = if dw.is_empty() { &mut unwanted[..] } else { dw };
    vectorised(|| {
        let mut weighted = vec![0.0f32; d];
        for (((x, dy), dx), &inverse) in
            x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(inverse)
        {
            for (((weighted, &dy), &w), (dw, &x)) in weighted.iter_mut().zip(dy).zip(w).zip(dw.iter_mut().zip(x)) {
                *weighted = dy * w;
                *dw += dy * x * inverse;
            }
            let mean = sum2(&weighted, x, |a, b| a * b) * inverse / d as f32;
            for ((dx, &weighted), &x) in dx.iter_mut().zip(&weighted).zip(x) {
                *dx += inverse * (weighted - x * inverse * mean);
            }
        }
    });
}

/// The norm at the end of a stack, followed by dropout. `x` `[tokens, d_model]`.
pub struct FinalNorm {
    pub pass: Arc<Pass>,
    /// Index of the weight.
    pub weight: usize,
    pub eps: f32,
    pub decoder: bool,
    pub dropout: Dropout,
    pub inverse: ForBackward<Vec<f32>>,
}

impl FinalNorm {
    fn mask(&self, values: &mut [f32], d: usize) {
        if self.dropout.is_off() {
            return;
        }
        let shared = self.pass.dropout.shared_over_length;
        let sequences = &self.pass.sequences;
        let rows = if self.decoder { &sequences.decoder_rows } else { &sequences.encoder_rows };
        mask_rows(&self.dropout, values, d, shared.then_some(rows));
    }
}

/// Applies a mask to `[tokens, d]`. With `rows` (the batch row of each token), tokens of one row share it.
pub fn mask_rows(dropout: &Dropout, values: &mut [f32], d: usize, rows: Option<&Vec<u32>>) {
    vectorised(|| {
        for (token, values) in values.chunks_exact_mut(d).enumerate() {
            dropout.apply(values, rows.map_or(token as u32, |rows| rows[token]));
        }
    });
}

impl CustomOp1 for FinalNorm {
    fn name(&self) -> &'static str {
        "final-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = argument(storage, layout)?;
        let w = self.pass.parameter(self.weight)?;
        let d = w.len();
        let mut out = vec![0.0; x.len()];
        let mut inverse = vec![0.0; x.len() / d];
        forward(x, &w, self.eps, &mut out, &mut inverse);
        self.mask(&mut out, d);
        if self.pass.training {
            self.inverse.put(inverse);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let inverse = self.inverse.take(self.name())?;
        let (values, w) = (Values::new(x)?, self.pass.parameter(self.weight)?);
        let mut dy = Values::new(gradient)?.to_vec();
        self.mask(&mut dy, w.len());
        let mut dx = vec![0.0; dy.len()];
        backward(&values, &w, &inverse, &dy, &mut dx, &mut self.pass.gradients.get(self.weight));
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
