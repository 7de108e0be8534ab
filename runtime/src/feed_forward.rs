//! The feed-forward layer: `x + wo(act(wi norm(x)))`, or gated `x + wo(act(wi_0 norm(x)) * wi_1 norm(x))`.

use crate::attention::{Scratch, add_product, part};
use crate::config;
use crate::error::Result;
use crate::kernels::{Kernels, Matrix};
use crate::schema::{Role, Stack};
use crate::shared::Loader;

pub(crate) struct FeedForward {
    kind: config::FeedForward,
    d_ff: usize,
    /// `[d_model]`
    norm: Vec<f32>,
    /// `[d_ff, d_model]`, or `[2 * d_ff, d_model]`: the activated branch, then the linear one.
    wi: Matrix,
    /// `[d_model, d_ff]`
    wo: Matrix,
}

impl FeedForward {
    pub fn load(loader: &Loader, stack: Stack, block: usize) -> Result<FeedForward> {
        let config = loader.config();
        let wi: &[Role] = if config.feed_forward.gated { &[Role::Wi0, Role::Wi1] } else { &[Role::Wi] };
        Ok(FeedForward {
            kind: config.feed_forward,
            d_ff: config.d_ff,
            norm: loader.vector(Role::FeedForwardNorm, stack, block)?,
            wi: loader.matrix(wi, stack, block)?,
            wo: loader.matrix(&[Role::Wo], stack, block)?,
        })
    }

    /// Adds the layer's output to `x` `[rows, d_model]`.
    pub fn apply(&self, kernels: Kernels, eps: f32, x: &mut [f32], rows: usize, s: &mut Scratch) {
        let normed = part(&mut s.normed, x.len());
        kernels.rms_norm(x, &self.norm, eps, normed);
        let wide = part(&mut s.wide, rows * self.wi.n());
        self.wi.multiply(kernels, normed, rows, wide, &mut s.workspace);
        let hidden = part(&mut s.narrow, rows * self.d_ff);
        if self.kind.gated {
            kernels.activate_gated(self.kind.activation, wide, self.d_ff, hidden);
        } else {
            kernels.activate(self.kind.activation, wide, hidden);
        }
        add_product(kernels, &self.wo, hidden, rows, x, &mut s.delta, &mut s.workspace);
    }

    pub fn bytes(&self) -> usize {
        self.wi.bytes() + self.wo.bytes()
    }
}
