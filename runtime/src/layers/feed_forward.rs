//! The feed-forward layer: `x + wo(act(wi norm(x)))`, or gated `x + wo(act(wi_0 norm(x)) * wi_1 norm(x))`; and the
//! adapter behind it, where a model has one.

use super::{Norm, Scratch, part};
use crate::config::{self, Adapters};
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
    adapter: Option<Adapter>,
}

struct Adapter {
    /// `None` for one inside the layer.
    norm: Option<Norm>,
    /// `[size, d_model]`
    down: Matrix,
    /// `[d_model, size]`
    up: Matrix,
}

impl Adapter {
    fn load(loader: &Loader, adapters: Adapters, stack: Stack, block: usize) -> Result<Adapter> {
        let norm = (!adapters.inside).then(|| loader.norm(Role::AdapterNorm, stack, block));
        Ok(Adapter {
            norm: norm.transpose()?,
            down: loader.matrix(&[Role::AdapterDown], stack, block)?,
            up: loader.matrix(&[Role::AdapterUp], stack, block)?.for_zeros(),
        })
    }

    /// What `up` reads of what `down` gave.
    fn activate(&self, kernels: Kernels, rows: usize, s: &mut Scratch) {
        let hidden = part(&mut s.narrow, rows * self.up.k());
        kernels.activate(Activation::Relu, &s.wide[..rows * self.down.n()], hidden);
    }
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
            adapter: config.adapters.map(|adapters| Adapter::load(loader, adapters, stack, block)).transpose()?,
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
        match &self.adapter {
            None => s.leave(kernels, &self.wo, rows, x),
            Some(adapter @ Adapter { norm: None, .. }) => {
                s.hold(kernels, &self.wo, rows, x.len());
                s.enter_held(kernels, &adapter.down, rows, x.len());
                adapter.activate(kernels, rows, s);
                s.leave_held(kernels, &adapter.up, rows, x);
            }
            Some(adapter @ Adapter { norm: Some(norm), .. }) => {
                s.leave(kernels, &self.wo, rows, x);
                s.enter(kernels, norm, &adapter.down, x);
                adapter.activate(kernels, rows, s);
                s.leave(kernels, &adapter.up, rows, x);
            }
        }
    }

    /// Bytes of weights that a pass reads.
    pub fn bytes(&self) -> usize {
        let adapter = self.adapter.as_ref().map_or(0, |adapter| adapter.down.bytes() + adapter.up.bytes());
        self.wi.bytes() + self.wo.bytes() + adapter
    }
}
