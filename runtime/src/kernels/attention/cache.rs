//! Attention of one query over a cache that grows.

use super::{BiasRow, Heads, add_bias};
use crate::kernels::isa::dispatch;
use crate::kernels::rows::{axpy_in, dot_in, softmax_in};
use crate::kernels::simd::{LANES, Simd};

/// A cache of keys and values, `[slots, heads, positions, width]`: what one head reads lies together.
#[derive(Clone, Copy)]
pub struct KeyValues<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    /// Positions that a slot has room for.
    pub positions: usize,
    /// The slot of each visible position; beams share what they have in common.
    pub slots: &'a [u32],
}

/// Fetches values that are read soon, if they are there.
#[inline(always)]
fn fetch<V: Simd>(v: V, x: &[f32], at: usize, len: usize) {
    for line in x.get(at..at + len).unwrap_or_default().chunks(LANES) {
        v.prefetch(&line[0]);
    }
}

/// `out = softmax(q K^T + bias) V` per head, for one query `q` `[heads * width]`. On return `scores` holds the
/// attention weights, `[heads, positions]` of the visible ones.
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
    let (len, width) = (cache.slots.len(), heads.width);
    let slot_stride = heads.count * cache.positions * width;
    for head in 0..heads.count {
        let scores = &mut scores[head * len..(head + 1) * len];
        let values = head * width..(head + 1) * width;
        let (q, out) = (&q[values.clone()], &mut out[values]);
        let first = head * cache.positions * width;
        for position in 0..len {
            let at = cache.slots[position] as usize * slot_stride + first + position * width;
            // Runs of positions are too short for the hardware to guess what comes next.
            fetch(v, cache.values, at, width);
            fetch(v, cache.keys, at + cache.positions * width, width);
            scores[position] = dot_in(v, q, &cache.keys[at..at + width]);
        }
        if let Some(bias) = bias {
            add_bias(v, scores, &bias.head(head)[bias.offset..][..len]);
        }
        softmax_in(v, scores);
        out.fill(0.0);
        // Four vectors, the width of most heads, stay in registers.
        let (wide, rest) = out.as_chunks_mut::<{ 4 * LANES }>();
        for (i, out) in wide.iter_mut().enumerate() {
            let mut sums = [v.splat(0.0); 4];
            for position in 0..len {
                let at = cache.slots[position] as usize * slot_stride + first + position * width + i * 4 * LANES;
                let values = cache.values[at..][..4 * LANES].as_chunks::<LANES>().0;
                let score = v.splat(scores[position]);
                for j in 0..4 {
                    sums[j] = v.add(sums[j], v.mul(score, v.load(&values[j])));
                }
            }
            let out = out.as_chunks_mut::<LANES>().0;
            for j in 0..4 {
                v.store(sums[j], &mut out[j]);
            }
        }
        if !rest.is_empty() {
            let done = width - rest.len();
            for position in 0..len {
                let at = cache.slots[position] as usize * slot_stride + first + position * width;
                axpy_in(v, scores[position], &cache.values[at + done..at + width], rest);
            }
        }
    }
}

dispatch!(
    pub(crate) fn attend(
        heads: Heads,
        q: &[f32],
        cache: KeyValues<'_>,
        bias: Option<BiasRow<'_>>,
        scores: &mut [f32],
        out: &mut [f32]
    ) = attend_in
);
