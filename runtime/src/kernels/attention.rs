//! Attention of queries over stored keys and values.
//!
//! There is no 1/sqrt(d_kv) in T5: the factor is part of the initial scale of the query matrix.
//!
//! Two forms. [`attend`]: one query over a cache that grows by a position a step and whose rows beams share; sums run
//! over a head's values. [`attend_head`]: many queries over keys and values that stay as they are (a whole
//! document in the encoder, the source in cross-attention), first laid out so that lanes are positions for the
//! scores and values of the head for the result; a tile of queries re-uses what is loaded. Each form gives a query
//! the same result whatever queries run beside it.

use super::Kernels;
use super::math;
use super::product::{Columns, Tiles, with_rows};
use super::rows::{axpy_in, dot_in, max_in, softmax_in};
use super::simd::{LANES, Simd};
use crate::position::BiasRow;

/// Number and width of heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub count: usize,
    pub width: usize,
}

impl Heads {
    fn inner(self) -> usize {
        self.count * self.width
    }
}

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
    let of_head = scores.chunks_exact_mut(len).zip(q.chunks_exact(width).zip(out.chunks_exact_mut(width)));
    for (head, (scores, (q, out))) in of_head.enumerate() {
        let first = head * cache.positions * width;
        for (position, (score, &slot)) in scores.iter_mut().zip(cache.slots).enumerate() {
            let keys = &cache.keys[slot as usize * slot_stride + first + position * width..][..width];
            *score = dot_in(v, q, keys);
        }
        if let Some(bias) = bias {
            add_bias(v, scores, &bias.values[head * bias.head_stride + bias.offset..][..len]);
        }
        softmax_in(v, scores);
        out.fill(0.0);
        // Four vectors, the width of most heads, stay in registers.
        let (wide, rest) = out.as_chunks_mut::<{ 4 * LANES }>();
        for (i, out) in wide.iter_mut().enumerate() {
            let mut sums = [v.splat(0.0); 4];
            for (position, (&score, &slot)) in scores.iter().zip(cache.slots).enumerate() {
                let at = slot as usize * slot_stride + first + position * width + i * 4 * LANES;
                let values = cache.values[at..][..4 * LANES].as_chunks::<LANES>().0;
                let score = v.splat(score);
                for j in 0..4 {
                    sums[j] = v.add(sums[j], v.mul(score, v.load(&values[j])));
                }
            }
            for (sum, out) in sums.into_iter().zip(out.as_chunks_mut::<LANES>().0) {
                v.store(sum, out);
            }
        }
        if !rest.is_empty() {
            let done = width - rest.len();
            for (position, (&score, &slot)) in scores.iter().zip(cache.slots).enumerate() {
                let at = slot as usize * slot_stride + first + position * width;
                axpy_in(v, score, &cache.values[at + done..at + width], rest);
            }
        }
    }
}

/// Keys and values of one head as [`attend_head`] reads them; places beyond the end hold zeros.
#[derive(Clone, Default)]
pub(crate) struct PackedHead {
    /// `[groups of 16 positions][width]`, lanes are positions.
    keys: Vec<[f32; LANES]>,
    /// `[groups of 16 values of the head][len]`, lanes are values.
    values: Vec<[f32; LANES]>,
    len: usize,
}

impl PackedHead {
    /// Lays out positions of which each begins `stride` after the one before.
    pub(crate) fn pack(&mut self, keys: &[f32], values: &[f32], stride: usize, len: usize, width: usize) {
        self.len = len;
        self.keys.clear();
        self.keys.resize(len.div_ceil(LANES) * width, [0.0; LANES]);
        self.values.clear();
        self.values.resize(width.div_ceil(LANES) * len, [0.0; LANES]);
        for position in 0..len {
            let (group, lane) = (position / LANES, position % LANES);
            let keys = &keys[position * stride..][..width];
            for (packed, &key) in self.keys[group * width..(group + 1) * width].iter_mut().zip(keys) {
                packed[lane] = key;
            }
            let values = &values[position * stride..][..width];
            for (group, values) in values.chunks(LANES).enumerate() {
                self.values[group * len + position][..values.len()].copy_from_slice(values);
            }
        }
    }
}

/// Keys and values of a source text for cross-attention, computed once and read at every step.
#[derive(Clone, Default)]
pub struct PackedKeyValues {
    heads: Vec<PackedHead>,
}

impl PackedKeyValues {
    /// Takes over `keys` and `values`, `[len, heads * width]` each.
    pub fn pack(&mut self, heads: Heads, keys: &[f32], values: &[f32]) {
        let inner = heads.inner();
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(inner), "keys and values are [len, inner]");
        self.heads.resize(heads.count, PackedHead::default());
        for (head, packed) in self.heads.iter_mut().enumerate() {
            let first = head * heads.width;
            packed.pack(&keys[first..], &values[first..], inner, keys.len() / inner, heads.width);
        }
    }

    /// Positions.
    pub(crate) fn len(&self) -> usize {
        self.heads.first().map_or(0, |head| head.len)
    }

    /// The parts of each head.
    pub(crate) fn heads(&self) -> &[PackedHead] {
        &self.heads
    }
}

/// Where attention weights are wanted: `share` times each is added to `out`, `[queries, len]`.
pub struct Alignment<'a> {
    pub share: f32,
    pub out: &'a mut [f32],
}

/// Queries and results of one head: query `i` begins at `i * q_stride`, results are the head's columns of all.
pub(crate) struct HeadRows<'a> {
    pub q: &'a [f32],
    pub q_stride: usize,
    pub count: usize,
    pub width: usize,
    pub out: Columns<'a>,
}

/// Scratch of [`attend_head`].
#[derive(Default)]
pub(crate) struct HeadScratch {
    /// `[width][queries of the tile]`
    q: Vec<f32>,
    /// `[queries of the tile, row stride]`
    scores: Vec<f32>,
}

/// `out = softmax(q K^T + bias) V` for the queries of one head. `bias` is the first query's over keys 0, 1, …; each
/// following query's begins one value earlier. The normalising division is done on the result, not on each weight.
#[inline(always)]
fn attend_head_in<V: Simd>(
    v: V,
    rows: &mut HeadRows<'_>,
    packed: &PackedHead,
    bias: Option<(&[f32], usize)>,
    alignment: Option<&mut Alignment<'_>>,
    scratch: &mut HeadScratch,
) {
    let mut alignment = alignment;
    let (len, width) = (packed.len, rows.width);
    if len == 0 {
        return;
    }
    let most = V::ROWS_F32.min(rows.count);
    // An odd number of cache lines from row to row: rows a power of two apart would share few cache sets.
    let stride = (len.div_ceil(LANES) | 1) * LANES;
    scratch.q.resize(width * most, 0.0);
    scratch.scores.resize(stride * most, 0.0);
    for (row, count) in Tiles::new(0..rows.count, V::ROWS_F32) {
        for i in 0..count {
            let q = &rows.q[(row + i) * rows.q_stride..][..width];
            for (out, &q) in scratch.q[i..].iter_mut().step_by(count).zip(q) {
                *out = q;
            }
        }
        let q = &scratch.q[..width * count];
        with_rows!(count, V::ROWS_F32, scores[_](v, packed, q, &mut scratch.scores, stride));
        let mut inverse = [0.0; 12];
        for i in 0..count {
            let scores = &mut scratch.scores[i * stride..][..len.next_multiple_of(LANES)];
            scores[len..].fill(f32::NEG_INFINITY);
            if let Some((bias, offset)) = bias {
                add_bias(v, &mut scores[..len], &bias[offset - (row + i)..][..len]);
            }
            inverse[i] = 1.0 / exponentials(v, scores);
            if let Some(alignment) = &mut alignment {
                let out = &mut alignment.out[(row + i) * len..][..len];
                axpy_in(v, alignment.share * inverse[i], &scores[..len], out);
            }
        }
        with_rows!(count, V::ROWS_F32, mix[_](v, packed, &scratch.scores, stride, &inverse, row, &mut rows.out));
    }
}

/// `scores[i, p] = q[i] · keys[p]`, summed over the head's values in order.
#[inline(always)]
fn scores<V: Simd, const M: usize>(v: V, packed: &PackedHead, q: &[f32], scores: &mut [f32], stride: usize) {
    let q = q.as_chunks::<M>().0;
    let mut groups = packed.keys.chunks_exact(q.len());
    let mut column = 0;
    if M == 1 {
        // One query: four groups at once, because each sum is a chain of dependent additions.
        let fours = packed.keys.chunks_exact(4 * q.len());
        let rest = fours.remainder();
        for four in fours {
            let (a, four) = four.split_at(q.len());
            let (b, four) = four.split_at(q.len());
            let (c, d) = four.split_at(q.len());
            let mut out = [v.splat(0.0); 4];
            for ((((a, b), c), d), q) in a.iter().zip(b).zip(c).zip(d).zip(q) {
                let q = v.splat(q[0]);
                out[0] = v.add(out[0], v.mul(q, v.load(a)));
                out[1] = v.add(out[1], v.mul(q, v.load(b)));
                out[2] = v.add(out[2], v.mul(q, v.load(c)));
                out[3] = v.add(out[3], v.mul(q, v.load(d)));
            }
            for out in out {
                v.store(out, scores[column..].first_chunk_mut().expect("rows are whole groups"));
                column += LANES;
            }
        }
        groups = rest.chunks_exact(q.len());
    }
    for keys in groups {
        let mut out = [v.splat(0.0); M];
        for (keys, q) in keys.iter().zip(q) {
            let keys = v.load(keys);
            for i in 0..M {
                out[i] = v.add(out[i], v.mul(v.splat(q[i]), keys));
            }
        }
        for i in 0..M {
            v.store(out[i], scores[i * stride + column..].first_chunk_mut().expect("rows are whole groups"));
        }
        column += LANES;
    }
}

#[inline(always)]
fn add_bias<V: Simd>(v: V, scores: &mut [f32], bias: &[f32]) {
    let (scores, scores_tail) = scores.as_chunks_mut::<LANES>();
    let (bias, bias_tail) = bias.as_chunks::<LANES>();
    for (scores, bias) in scores.iter_mut().zip(bias) {
        v.store(v.add(v.load(scores), v.load(bias)), scores);
    }
    for (score, bias) in scores_tail.iter_mut().zip(bias_tail) {
        *score += bias;
    }
}

/// `scores = e^(scores - max)`, whole vectors; returns the sum.
#[inline(always)]
fn exponentials<V: Simd>(v: V, scores: &mut [f32]) -> f32 {
    let max = v.splat(max_in(v, scores));
    let mut sum = v.splat(0.0);
    for scores in scores.as_chunks_mut::<LANES>().0 {
        let e = math::exp(v, v.sub(v.load(scores), max));
        sum = v.add(sum, e);
        v.store(e, scores);
    }
    v.sum(sum)
}

/// `out[i] = inverse[i] Σ weights[i, p] values[p]`, summed over positions in order.
#[inline(always)]
fn mix<V: Simd, const M: usize>(
    v: V,
    packed: &PackedHead,
    weights: &[f32],
    stride: usize,
    inverse: &[f32; 12],
    row: usize,
    out: &mut Columns<'_>,
) {
    let len = packed.len;
    let mut rows = [&weights[..0]; M];
    for i in 0..M {
        rows[i] = &weights[i * stride..i * stride + len];
    }
    let mut first = 0;
    if M == 1 {
        // One query: four groups at once, as for the scores.
        for (i, four) in packed.values.chunks_exact(4 * len).enumerate() {
            let (a, four) = four.split_at(len);
            let (b, four) = four.split_at(len);
            let (c, d) = four.split_at(len);
            let mut sums = [v.splat(0.0); 4];
            for ((((a, b), c), d), &weight) in a.iter().zip(b).zip(c).zip(d).zip(rows[0]) {
                let weight = v.splat(weight);
                sums[0] = v.add(sums[0], v.mul(weight, v.load(a)));
                sums[1] = v.add(sums[1], v.mul(weight, v.load(b)));
                sums[2] = v.add(sums[2], v.mul(weight, v.load(c)));
                sums[3] = v.add(sums[3], v.mul(weight, v.load(d)));
            }
            for (j, sum) in sums.into_iter().enumerate() {
                out.store(v, v.mul(sum, v.splat(inverse[0])), row, out.first() + (4 * i + j) * LANES);
            }
            first += 4;
        }
    }
    for (group, values) in packed.values.chunks_exact(len).enumerate().skip(first) {
        let mut sums = [v.splat(0.0); M];
        for (p, values) in values.iter().enumerate() {
            let values = v.load(values);
            for i in 0..M {
                sums[i] = v.add(sums[i], v.mul(v.splat(rows[i][p]), values));
            }
        }
        for i in 0..M {
            out.store(v, v.mul(sums[i], v.splat(inverse[i])), row + i, out.first() + group * LANES);
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
super::dispatch!(
    pub(super) fn attend_head(
        rows: &mut HeadRows<'_>,
        packed: &PackedHead,
        bias: Option<(&[f32], usize)>,
        alignment: Option<&mut Alignment<'_>>,
        scratch: &mut HeadScratch
    ) = attend_head_in
);
