//! The feed-forward layer: `x + wo(act(wi norm(x)))`, or gated `x + wo(act(wi_0 norm(x)) * wi_1 norm(x))`.

use super::{Norm, Scratch, part};
use crate::config;
use crate::error::Result;
use crate::kernels::{Activation, Kernels, Matrix};
use crate::loader::Loader;
use crate::schema::{Role, Stack};

pub(crate) struct FeedForward {
    form: config::FeedForwardKind,
    d_ff: usize,
    norm: Norm,
    /// `[d_ff, d_model]`, or `[2 * d_ff, d_model]`: the activated branch, then the linear one.
    wi: Matrix,
    /// `[d_model, d_ff]`
    wo: Matrix,
}

impl FeedForward {
    pub fn load(loader: &Loader, stack: Stack, block: usize) -> Result<FeedForward> {
        let config = loader.config();
        let wi: &[Role] = if config.feed_forward.gated { &[Role::Wi0, Role::Wi1] } else { &[Role::Wi] };
        let wo = loader.matrix(&[Role::Wo], stack, block)?;
        // Most of what this activation gives is zero.
        let sparse = config.feed_forward.activation == Activation::Relu;
        Ok(FeedForward {
            form: config.feed_forward,
            d_ff: config.d_ff,
            norm: loader.norm(Role::FeedForwardNorm, stack, block)?,
            wi: loader.matrix(wi, stack, block)?,
            wo: if sparse { wo.for_zeros() } else { wo },
        })
    }

    /// Adds the layer's output to `x` `[rows, d_model]`.
    pub fn apply(&self, kernels: Kernels, x: &mut [f32], s: &mut Scratch) {
        let rows = s.enter(kernels, &self.norm, &self.wi, x);
        let wide = &s.wide[..rows * self.wi.n()];
        let hidden = part(&mut s.narrow, rows * self.d_ff);
        if self.form.gated {
            kernels.activate_gated(self.form.activation, wide, self.d_ff, hidden);
        } else {
            kernels.activate(self.form.activation, wide, hidden);
        }
        s.leave(kernels, &self.wo, rows, x);
    }

    /// Bytes of weights that a pass reads.
    pub fn bytes(&self) -> usize {
        self.wi.bytes() + self.wo.bytes()
    }
}
