//! Attention of one query, or of all positions of one document, over stored keys and values.
//!
//! There is no 1/sqrt(d_kv) in T5: the factor is part of the initial scale of the query matrix.

use super::Kernels;
use super::rows::{axpy_in, dot_in, softmax_in};
use super::simd::Simd;
use crate::position::BiasRow;

/// Keys and values of successive positions. Position `p` of head `h` begins at
/// `p * stride + slot(p) * width_all + h * width`, where `width_all` is heads × width.
#[derive(Clone, Copy)]
pub struct KeyValues<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    /// Values from one position to the next.
    pub stride: usize,
    /// Which of several rows of a position to use (beams share a cache); `None`: the first.
    pub slots: Option<&'a [u32]>,
    /// How many positions are visible.
    pub len: usize,
}

/// Number and width of heads.
#[derive(Clone, Copy)]
pub struct Heads {
    pub count: usize,
    pub width: usize,
}

impl Heads {
    fn inner(self) -> usize {
        self.count * self.width
    }
}

/// `out = softmax(q K^T + bias) V` per head, for one query `q` `[heads * width]`. On return `scores` holds the
/// attention weights, `[heads, len]`.
#[inline(always)]
fn attend_in<V: Simd>(
    v: V,
    heads: Heads,
    q: &[f32],
    cache: KeyValues<'_>,
    bias: Option<BiasRow<'_>>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let len = cache.len;
    let width = heads.width;
    let start = |position: usize| {
        let slot = cache.slots.map_or(0, |slots| slots[position] as usize);
        position * cache.stride + slot * heads.inner()
    };
    for position in 0..len {
        let keys = &cache.keys[start(position)..][..heads.inner()];
        for head in 0..heads.count {
            let range = head * width..(head + 1) * width;
            let mut score = dot_in(v, &q[range.clone()], &keys[range]);
            if let Some(bias) = bias {
                score += bias.values[head * bias.head_stride + bias.offset + position];
            }
            scores[head * len + position] = score;
        }
    }
    for head in 0..heads.count {
        softmax_in(v, &mut scores[head * len..(head + 1) * len]);
    }
    out[..heads.inner()].fill(0.0);
    for position in 0..len {
        let values = &cache.values[start(position)..][..heads.inner()];
        for head in 0..heads.count {
            let range = head * width..(head + 1) * width;
            axpy_in(v, scores[head * len + position], &values[range.clone()], &mut out[range]);
        }
    }
}

super::dispatch!(
    pub(super) fn attend(
        heads: Heads,
        q: &[f32],
        cache: KeyValues<'_>,
        bias: Option<BiasRow<'_>>,
        scores: &mut [f32],
        out: &mut [f32]
    ) = attend_in
);
