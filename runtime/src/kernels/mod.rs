//! The arithmetic of the model: a choice of instruction set, weight matrices ready for products, and the
//! element-wise functions. Kernels know nothing of the model.
//!
//! Every kernel defines the order of its floating-point operations (16 virtual lanes, a fixed reduction tree,
//! no fused multiply-add) and is written once, over the operations of `simd`; so every instruction set gives
//! bit-identical results, and `isa::scalar` is the specification.

// Loops count: what iterators are made of stays calls in other people's builds (see product/mod.rs), and leaves sums in
// memory.
#![allow(clippy::needless_range_loop)]
// Tables of numbers: nobody prints them.
#![allow(missing_debug_implementations)]

mod activations;
mod argmax;
mod attention;
mod columns;
mod dot;
mod isa;
mod layout;
pub mod limits;
#[doc(hidden)] // for training
pub mod math;
mod matrix;
mod memory;
mod pack;
mod product;
mod quantize;
mod rounding;
mod rows;
mod simd;
mod sizes;
#[cfg(test)]
mod tests;
mod threads;
mod tiles;
mod workspace;

pub use attention::cache::KeyValues;
pub use attention::packed::{Numbers, PackedKeyValues};
pub use attention::{AlignmentOut, BiasRow, Heads};
#[cfg(target_arch = "x86_64")]
pub use isa::amx;
pub use isa::{Isa, Kernels};
pub use matrix::{Matrix, Purpose};
pub(crate) use memory::Buffer;
pub use rows::Activation;
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use threads::workers;
pub use workspace::Workspace;

use crate::error::Result;
use attention::{HeadAlignment, HeadKeyValues, HeadRows};
use columns::Columns;
use sizes::{product, share};

impl Kernels {
    /// RMS norm without mean subtraction or bias: `out[i, :] = x[i, :] / sqrt(mean(x[i, :]²) + eps) * weight`.
    /// `x` and `out` are `[rows, d]`, `weight` is `[d]`.
    ///
    /// # Panics
    /// If `weight` is empty, or `x` and `out` are not as many rows of its length.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        rows::rms_norm(*self, x, weight, eps, out);
    }

    /// `x += y`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        rows::add(*self, x, y);
    }

    /// `x *= factor`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        rows::scale(*self, x, factor);
    }

    /// `out[i] = act(x[i])`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn activate(&self, activation: Activation, x: &[f32], out: &mut [f32]) {
        rows::activate(*self, activation, x, out);
    }

    /// `out[i, :] = act(x[i, ..f]) * x[i, f..]` for `x` `[rows, 2f]`, `out` `[rows, f]`.
    ///
    /// # Panics
    /// If `f` is 0, or `x` and `out` are not as many rows.
    pub fn activate_gated(&self, activation: Activation, x: &[f32], f: usize, out: &mut [f32]) {
        rows::activate_gated(*self, activation, x, f, out);
    }

    /// In place softmax over one row. A row whose values are all -infinity becomes NaN.
    pub fn softmax(&self, scores: &mut [f32]) {
        rows::softmax(*self, scores);
    }

    /// `ln(sum(exp(x)))` over one row.
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        rows::log_sum_exp(*self, x)
    }

    /// Dot product of two vectors.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn dot(&self, x: &[f32], y: &[f32]) -> f32 {
        rows::dot(*self, x, y)
    }

    /// `out += factor * x`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn axpy(&self, factor: f32, x: &[f32], out: &mut [f32]) {
        rows::axpy(*self, factor, x, out);
    }

    /// Attention of one query `[inner]` over the visible positions of a cache; `out` is `[inner]`, and `scores`
    /// `[heads, positions]` becomes the attention weights.
    ///
    /// # Panics
    /// If there are no heads, or they have no values; if a slice has another length; if no position is visible, more
    /// than the cache has, or one in a slot that it does not have; or if there are no biases for a head and its
    /// positions.
    pub fn attend(
        &self,
        heads: Heads,
        q: &[f32],
        cache: KeyValues<'_>,
        bias: Option<BiasRow<'_>>,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let (inner, len) = (heads.inner(), cache.slots.len());
        assert!(q.len() == inner && out.len() == inner, "q and out are [inner]");
        assert!(len > 0 && scores.len() == product([heads.count, len]), "scores are [heads, positions], at least one");
        let slots = sizes::rows(cache.keys, product([inner, cache.positions]), "keys are [slots, inner, positions]");
        assert!(
            cache.keys.len() == cache.values.len()
                && len <= cache.positions
                && cache.slots.iter().all(|&slot| (slot as usize) < slots),
            "visible positions are in {slots} slots of {}, of keys as of values",
            cache.positions
        );
        attention::cache::attend(*self, heads, q, cache, bias, scores, out);
    }

    /// Self-attention of a whole document: `qkv` is `[len, 3 * inner]` (query, key, value side by side), `out`
    /// `[len, inner]`. Every position attends to the first `visible` ones: what follows is padding. `bias` is the first
    /// query's; each following query's begins one value earlier. `numbers` are those that the products are computed in.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not enough to lay out a head in.
    ///
    /// # Panics
    /// If there are no heads, or they have no values; if `qkv` or `out` has another length; if more positions are
    /// visible than there are, or none; or if there are no biases for a head and its positions.
    #[allow(clippy::too_many_arguments)] // what is attended to, how, and where to
    pub fn attend_all(
        &self,
        numbers: Numbers,
        heads: Heads,
        qkv: &[f32],
        visible: usize,
        bias: BiasRow<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let inner = heads.inner();
        let len = sizes::rows(qkv, product([3, inner]), "qkv is [len, 3 * inner]");
        assert_eq!(out.len(), len * inner, "qkv is [len, 3 * inner] and out is [len, inner]");
        if len == 0 {
            return Ok(());
        }
        assert!((1..=len).contains(&visible), "expected 1 to {len} visible positions, found {visible}");
        // Query `len - 1` begins `len - 1` values before the first one's.
        assert!(
            len - 1 <= bias.offset && bias.offset.saturating_add(len) <= bias.head_stride,
            "expected biases of {len} positions on both sides, found {} from {} on",
            bias.head_stride,
            bias.offset
        );
        let (threads, scratch) = workspace.shared();
        let parts = threads.parts(heads.count, product([2, len, visible, inner]));
        let used = if parts == 1 { 1 } else { threads.count() };
        for thread in 0..used {
            workspace::own(scratch, thread).head.reserve(numbers, visible, heads.width)?;
        }
        let columns = Columns::new(out, inner);
        threads.run(parts, &|thread, part| {
            let own = &mut *workspace::own(scratch, thread);
            for head in share(heads.count, part, parts) {
                let first = head * heads.width;
                let key_values = HeadKeyValues {
                    keys: &qkv[inner + first..],
                    values: &qkv[2 * inner + first..],
                    stride: 3 * inner,
                    len: visible,
                    width: heads.width,
                };
                let (packed, scratch) = own.head.pack(*self, numbers, key_values);
                let mut rows = HeadRows {
                    q: &qkv[first..],
                    q_stride: 3 * inner,
                    count: len,
                    width: heads.width,
                    // SAFETY: each head is in one share, and heads have no column in common.
                    out: unsafe { columns.part(first..first + heads.width) },
                };
                let bias = (bias.head(head), bias.offset);
                packed.attend(*self, &mut rows, Some(bias), None, scratch);
            }
        });
        Ok(())
    }

    /// Cross-attention of queries `[queries, inner]` over one source in one block; `out` is `[queries, inner]`. A
    /// query's result does not depend on the queries beside it.
    ///
    /// # Panics
    /// If the block was not packed; or if `q`, `out` or an alignment has another length.
    pub fn attend_packed(
        &self,
        q: &[f32],
        source: &PackedKeyValues,
        block: usize,
        out: &mut [f32],
        mut alignment: Option<AlignmentOut<'_>>,
        workspace: &mut Workspace,
    ) {
        let heads = source.heads();
        let inner = heads.inner();
        let count = sizes::rows(q, inner, "q is [queries, inner]");
        assert_eq!(q.len(), out.len(), "q and out are [queries, inner]");
        if count == 0 {
            return;
        }
        if let Some(alignment) = &alignment {
            assert_eq!(alignment.out.len(), product([count, source.len()]), "an alignment is [queries, source]");
            assert_eq!(alignment.shares.len(), heads.count, "an alignment has a share for each head");
        }
        let (threads, scratch) = workspace.shared();
        let parts = match alignment {
            // Heads add to one result in order.
            Some(_) => 1,
            None => threads.parts(heads.count, product([2, count, source.len(), inner])),
        };
        let columns = Columns::new(out, inner);
        let head = |head: usize, own: &mut workspace::Own, alignment: Option<&mut HeadAlignment<'_>>| {
            let first = head * heads.width;
            let mut rows = HeadRows {
                q: &q[first..],
                q_stride: inner,
                count,
                width: heads.width,
                // SAFETY: each head is in one share, and heads have no column in common.
                out: unsafe { columns.part(first..first + heads.width) },
            };
            source.head(block, head).attend(*self, &mut rows, None, alignment, &mut own.head.scratch);
        };
        if parts == 1 {
            let own = &mut *workspace::own(scratch, 0);
            return (0..heads.count).for_each(|index| {
                let mut wanted = alignment
                    .as_mut()
                    .map(|alignment| HeadAlignment { share: alignment.shares[index], out: &mut *alignment.out });
                head(index, own, wanted.as_mut().filter(|wanted| wanted.share != 0.0));
            });
        }
        threads.run(parts, &|thread, part| {
            let own = &mut *workspace::own(scratch, thread);
            share(heads.count, part, parts).for_each(|index| head(index, own, None));
        });
    }

    /// Index of the largest value, the lowest one on ties; `None` where all are NaN or there are none.
    pub fn argmax(&self, x: &[f32]) -> Option<usize> {
        rows::argmax(*self, x)
    }
}
