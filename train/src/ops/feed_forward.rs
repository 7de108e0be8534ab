//! The feed-forward sub-layer: `x + dropout(dropout(act(h Wi^T)) Wo^T)` with `h = RMS(x)`, or gated:
//! `x + dropout(dropout(act(h Wi0^T) * (h Wi1^T)) Wo^T)`.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use t5_runtime::config::{Activation, FeedForwardKind};

use super::norm::{self, mask_rows};
use super::{Dropout, ForBackward, Pass, Values, argument};
use crate::kernels::{Product, math, vectorised};

/// The sub-layer. `x` `[tokens, d_model]` -> the same shape.
pub struct FeedForwardLayer {
    pub pass: Arc<Pass>,
    /// Indices of the parameters. Without a norm `h` is `x`.
    pub norm: Option<usize>,
    pub wi: usize,
    /// The linear branch of a gated layer.
    pub wi_linear: Option<usize>,
    pub wo: usize,
    pub eps: f32,
    pub kind: FeedForwardKind,
    pub d_ff: usize,
    pub d_model: usize,
    /// Whether the result is added to `x`, or stands alone.
    pub residual: bool,
    pub decoder: bool,
    pub hidden_dropout: Dropout,
    pub output_dropout: Dropout,
    pub saved: ForBackward<FeedForwardActivations>,
}

/// What the backward pass needs.
pub struct FeedForwardActivations {
    inverse: Vec<f32>,
    /// `[tokens, d_model]`, after the norm.
    hidden: Vec<f32>,
    /// `[tokens, d_ff]` before the activation; empty for ReLU, whose slope shows in `inner`.
    activated: Vec<f32>,
    /// `[tokens, d_ff]`, the linear branch; empty where there is none.
    gate: Vec<f32>,
    /// `[tokens, d_ff]`, what `Wo` multiplies.
    inner: Vec<f32>,
}

impl FeedForwardLayer {
    fn rows(&self) -> Option<&Vec<u32>> {
        let sequences = &self.pass.sequences;
        let rows = if self.decoder { &sequences.decoder_rows } else { &sequences.encoder_rows };
        self.pass.dropout.shared_over_length.then_some(rows)
    }

    /// The hidden mask's row of a token.
    fn mask_row(&self, token: usize) -> u32 {
        self.rows().map_or(token as u32, |rows| rows[token])
    }

    /// `inner = act(a) [* gate] * mask`. Without a gate and with ReLU, `a` may be overwritten, so it is `inner`.
    fn activate(&self, a: &[f32], gate: &[f32], inner: &mut [f32]) {
        match self.kind.activation {
            Activation::Relu => self.activate_by(math::relu, a, gate, inner),
            Activation::GeluNew => self.activate_by(math::gelu_new, a, gate, inner),
            Activation::Gelu => self.activate_by(math::gelu, a, gate, inner),
            Activation::Silu => self.activate_by(math::silu, a, gate, inner),
        }
    }

    fn activate_by(&self, act: impl Fn(f32) -> (f32, f32) + Copy, a: &[f32], gate: &[f32], inner: &mut [f32]) {
        let f = self.d_ff;
        vectorised(|| {
            for token in 0..a.len() / f {
                let range = token * f..(token + 1) * f;
                let inner = &mut inner[range.clone()];
                if gate.is_empty() {
                    for (inner, &a) in inner.iter_mut().zip(&a[range]) {
                        *inner = act(a).0;
                    }
                } else {
                    for ((inner, &a), &gate) in inner.iter_mut().zip(&a[range.clone()]).zip(&gate[range]) {
                        *inner = act(a).0 * gate;
                    }
                }
                if !self.hidden_dropout.is_off() {
                    self.hidden_dropout.apply(inner, self.mask_row(token));
                }
            }
        });
    }

    /// Turns the gradient of `inner` into that of the branch before the activation (in place) and of the gate.
    fn activate_backward(&self, saved: &FeedForwardActivations, d_inner: &mut [f32], d_gate: &mut [f32]) {
        match self.kind.activation {
            Activation::Relu if saved.gate.is_empty() => {
                let scale = if self.hidden_dropout.is_off() { 1.0 } else { self.hidden_dropout.factor_kept() };
                vectorised(|| {
                    // A value is zero where ReLU or the mask made it so; either way no gradient passes.
                    for (d, &inner) in d_inner.iter_mut().zip(&saved.inner) {
                        *d = if inner > 0.0 { *d * scale } else { 0.0 };
                    }
                });
            }
            Activation::Relu => self.activate_backward_by(math::relu, saved, d_inner, d_gate),
            Activation::GeluNew => self.activate_backward_by(math::gelu_new, saved, d_inner, d_gate),
            Activation::Gelu => self.activate_backward_by(math::gelu, saved, d_inner, d_gate),
            Activation::Silu => self.activate_backward_by(math::silu, saved, d_inner, d_gate),
        }
    }

    fn activate_backward_by(
        &self,
        act: impl Fn(f32) -> (f32, f32) + Copy,
        saved: &FeedForwardActivations,
        d_inner: &mut [f32],
        d_gate: &mut [f32],
    ) {
        let f = self.d_ff;
        vectorised(|| {
            for token in 0..d_inner.len() / f {
                let range = token * f..(token + 1) * f;
                let d = &mut d_inner[range.clone()];
                if !self.hidden_dropout.is_off() {
                    self.hidden_dropout.apply(d, self.mask_row(token));
                }
                let a = &saved.activated[range.clone()];
                if saved.gate.is_empty() {
                    for (d, &a) in d.iter_mut().zip(a) {
                        *d *= act(a).1;
                    }
                } else {
                    let (gate, d_gate) = (&saved.gate[range.clone()], &mut d_gate[range]);
                    for (((d, &a), &gate), d_gate) in d.iter_mut().zip(a).zip(gate).zip(d_gate) {
                        let (value, slope) = act(a);
                        *d_gate = *d * value;
                        *d *= slope * gate;
                    }
                }
            }
        });
    }
}

impl CustomOp1 for FeedForwardLayer {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = argument(storage, layout)?;
        let pass = &self.pass;
        let (d, f) = (self.d_model, self.d_ff);
        let tokens = x.len() / d;

        let (hidden, inverse) = match self.norm {
            Some(norm) => {
                let (mut hidden, mut inverse) = (vec![0.0; x.len()], vec![0.0; tokens]);
                norm::forward(x, &pass.parameter(norm)?, self.eps, &mut hidden, &mut inverse);
                (hidden, inverse)
            }
            None => (x.to_vec(), Vec::new()),
        };
        let mut activated = vec![0.0; tokens * f];
        let (wide, narrow) = (pass.linear(tokens, f, d), pass.linear(tokens, d, f));
        wide.forward(&hidden, &pass.parameter(self.wi)?, &mut activated);
        let mut gate = Vec::new();
        if let Some(wi_linear) = self.wi_linear {
            gate = vec![0.0; tokens * f];
            wide.forward(&hidden, &pass.parameter(wi_linear)?, &mut gate);
        }
        let mut inner = vec![0.0; tokens * f];
        self.activate(&activated, &gate, &mut inner);
        let mut out = vec![0.0; x.len()];
        narrow.forward(&inner, &pass.parameter(self.wo)?, &mut out);
        if !self.output_dropout.is_off() {
            mask_rows(&self.output_dropout, &mut out, d, self.rows());
        }
        if self.residual {
            add(&mut out, x);
        }
        if pass.training {
            if self.kind.activation == Activation::Relu && !self.kind.gated {
                activated = Vec::new();
            }
            self.saved.put(FeedForwardActivations { inverse, hidden, activated, gate, inner });
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let pass = &self.pass;
        let saved = self.saved.take(self.name())?;
        let (x_values, d_out) = (Values::new(x)?, Values::new(gradient)?);
        let (d, f) = (self.d_model, self.d_ff);
        let tokens = x_values.len() / d;

        let mut dx = if self.residual { d_out.to_vec() } else { vec![0.0; d_out.len()] };
        let mut dy = d_out.to_vec();
        if !self.output_dropout.is_off() {
            mask_rows(&self.output_dropout, &mut dy, d, self.rows());
        }
        let (wide, narrow) = (pass.linear(tokens, f, d), pass.linear(tokens, d, f));
        narrow.weight_gradient(&dy, &saved.inner, &mut pass.gradients.get(self.wo));
        let mut d_inner = vec![0.0; tokens * f];
        narrow.input_gradient(Product::Set, &dy, &pass.parameter(self.wo)?, &mut d_inner);
        let mut d_gate = vec![0.0; saved.gate.len()];
        self.activate_backward(&saved, &mut d_inner, &mut d_gate);
        wide.weight_gradient(&d_inner, &saved.hidden, &mut pass.gradients.get(self.wi));
        let mut d_hidden = dy;
        wide.input_gradient(Product::Set, &d_inner, &pass.parameter(self.wi)?, &mut d_hidden);
        if let Some(wi_linear) = self.wi_linear {
            wide.weight_gradient(&d_gate, &saved.hidden, &mut pass.gradients.get(wi_linear));
            wide.input_gradient(Product::Add, &d_gate, &pass.parameter(wi_linear)?, &mut d_hidden);
        }
        match self.norm {
            Some(norm) => {
                let (weight, mut d_norm) = (pass.parameter(norm)?, pass.gradients.get(norm));
                norm::backward(&x_values, &weight, &saved.inverse, &d_hidden, &mut dx, &mut d_norm);
            }
            None => add(&mut dx, &d_hidden),
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// `out += x`.
pub(super) fn add(out: &mut [f32], x: &[f32]) {
    vectorised(|| {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    });
}
