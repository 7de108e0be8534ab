//! Attention of queries over stored keys and values.
//!
//! There is no 1/sqrt(d_kv) in T5: the factor is part of the initial scale of the query matrix.
//!
//! Two forms. [`attend`]: one query over a cache that grows by a position a step and whose rows beams share; sums run
//! over a head's values. [`attend_head`]: many queries over keys and values that stay as they are (a whole
//! document in the encoder, the source in cross-attention), first laid out so that lanes are positions for the
//! scores and values of the head for the result; a tile of queries re-uses what is loaded. Each form gives a query
//! the same result whatever queries run beside it. The second is here in floats; [`super::integer_attention`] is the
//! same for models whose weights are integers.

use super::Kernels;
use super::math;
use super::product::Columns;
use super::rows::{axpy_in, dot_in, max_in, softmax_in};
use super::simd::{LANES, Simd};
use super::sizes::product;
use super::tiles::{Tiles, with_rows};
use crate::position::BiasRow;

/// Number and width of heads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heads {
    pub count: usize,
    pub width: usize,
}

impl Heads {
    /// Values of all heads side by side; `usize::MAX`, which no row has, where there would be more.
    ///
    /// # Panics
    /// If there are no heads, or they have no values.
    pub(crate) fn inner(self) -> usize {
        let Heads { count, width } = self;
        assert!(count > 0 && width > 0, "expected heads with values, found {count} of {width}");
        product([count, width])
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
    let of_head = scores.chunks_exact_mut(len).zip(q.chunks_exact(width).zip(out.chunks_exact_mut(width)));
    for (head, (scores, (q, out))) in of_head.enumerate() {
        let first = head * cache.positions * width;
        for (position, (score, &slot)) in scores.iter_mut().zip(cache.slots).enumerate() {
            let at = slot as usize * slot_stride + first + position * width;
            // Runs of positions are too short for the hardware to guess what comes next.
            fetch(v, cache.values, at, width);
            fetch(v, cache.keys, at + cache.positions * width, width);
            *score = dot_in(v, q, &cache.keys[at..at + width]);
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

/// Keys and values of one head as products leave them: the first position's begin both slices, and each one's begin
/// `stride` after those before.
#[derive(Clone, Copy)]
pub(crate) struct HeadKeyValues<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub stride: usize,
    pub len: usize,
    pub width: usize,
}

/// Groups of lanes that lie together: as many sums as one query needs at once, because each is a chain of dependent
/// additions; and one query reads them in one go, which matters when they come from memory.
pub(crate) const FOUR: usize = 4;

/// Keys and values of one head as [`attend_head`] reads them; places beyond the end hold zeros. Groups of 16 lie
/// together by fours, the last ones by as many as there are.
#[derive(Clone, Copy)]
pub(crate) struct PackedHead<'a> {
    /// `[fours of groups of 16 positions][width][groups]`, lanes are positions.
    keys: &'a [[f32; LANES]],
    /// `[fours of groups of 16 values of the head][len][groups]`, lanes are values.
    values: &'a [[f32; LANES]],
    len: usize,
}

impl<'a> PackedHead<'a> {
    /// Vectors that keys and values of `len` positions take.
    pub(crate) fn size(len: usize, width: usize) -> usize {
        product([len.div_ceil(LANES), width]).saturating_add(product([width.div_ceil(LANES), len]))
    }

    /// What [`PackedHead::pack`] made.
    pub(crate) fn new(packed: &'a [[f32; LANES]], len: usize, width: usize) -> PackedHead<'a> {
        let (keys, values) = packed.split_at(len.div_ceil(LANES) * width);
        PackedHead { keys, values, len }
    }

    /// Lays out a head in memory of [`PackedHead::size`].
    pub(crate) fn pack(packed: &'a mut [[f32; LANES]], head: HeadKeyValues<'_>) -> PackedHead<'a> {
        let HeadKeyValues { keys, values, stride, len, width } = head;
        if !len.is_multiple_of(LANES) || !width.is_multiple_of(LANES) {
            packed.fill([0.0; LANES]);
        }
        let (packed_keys, packed_values) = packed.split_at_mut(len.div_ceil(LANES) * width);
        for position in 0..len {
            let lane = position % LANES;
            let (first, step) = place(position / LANES, len.div_ceil(LANES), width);
            let keys = &keys[position * stride..][..width];
            for (packed, &key) in packed_keys[first..].iter_mut().step_by(step).zip(keys) {
                packed[lane] = key;
            }
            let values = &values[position * stride..][..width];
            for (group, values) in values.chunks(LANES).enumerate() {
                let (first, step) = place(group, width.div_ceil(LANES), len);
                packed_values[first + position * step][..values.len()].copy_from_slice(values);
            }
        }
        PackedHead::new(packed, len, width)
    }
}

/// Where the first vector of a group lies among `groups` of `len` vectors, and how far it is to the group's next one.
pub(crate) fn place(group: usize, groups: usize, len: usize) -> (usize, usize) {
    let four = group / FOUR * FOUR;
    (four * len + group % FOUR, FOUR.min(groups - four))
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
    packed: PackedHead<'_>,
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
    let stride = row_stride(len);
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
        for (i, inverse) in inverse.iter_mut().enumerate().take(count) {
            let scores = completed(v, &mut scratch.scores[i * stride..], len, bias, row + i);
            *inverse = 1.0 / exponentials(v, scores);
            if let Some(alignment) = &mut alignment {
                let out = &mut alignment.out[(row + i) * len..][..len];
                axpy_in(v, alignment.share * *inverse, &scores[..len], out);
            }
        }
        with_rows!(count, V::ROWS_F32, mix[_](v, packed, &scratch.scores, stride, &inverse, row, &mut rows.out));
    }
}

/// `scores[i, p] = q[i] · keys[p]`, summed over the head's values in order.
#[inline(always)]
fn scores<V: Simd, const M: usize>(v: V, packed: PackedHead<'_>, q: &[f32], scores: &mut [f32], stride: usize) {
    let q = q.as_chunks::<M>().0;
    let mut column = 0;
    for four in packed.keys.chunks(FOUR * q.len()) {
        let groups = four.len() / q.len();
        if M == 1 && groups == FOUR {
            let mut out = [v.splat(0.0); FOUR];
            for (keys, q) in four.as_chunks::<FOUR>().0.iter().zip(q) {
                let q = v.splat(q[0]);
                for j in 0..FOUR {
                    out[j] = v.add(out[j], v.mul(q, v.load(&keys[j])));
                }
            }
            for out in out {
                v.store(out, scores[column..].first_chunk_mut().expect("rows are whole groups"));
                column += LANES;
            }
            continue;
        }
        for group in 0..groups {
            let mut out = [v.splat(0.0); M];
            for (keys, q) in four.chunks_exact(groups).zip(q) {
                let keys = v.load(&keys[group]);
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
}

/// How far rows of scores of `len` positions lie apart: an odd number of cache lines, since rows a power of two apart would
/// share few cache sets.
pub(crate) fn row_stride(len: usize) -> usize {
    (len.div_ceil(LANES) | 1) * LANES
}

/// The first `len` scores with the bias of this query, filled up to whole vectors with what has no weight.
#[inline(always)]
pub(crate) fn completed<'a, V: Simd>(
    v: V,
    scores: &'a mut [f32],
    len: usize,
    bias: Option<(&[f32], usize)>,
    query: usize,
) -> &'a mut [f32] {
    let scores = &mut scores[..len.next_multiple_of(LANES)];
    scores[len..].fill(f32::NEG_INFINITY);
    if let Some((bias, offset)) = bias {
        add_bias(v, &mut scores[..len], &bias[offset - query..][..len]);
    }
    scores
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
    packed: PackedHead<'_>,
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
    let mut column = out.first();
    for four in packed.values.chunks(FOUR * len) {
        let groups = four.len() / len;
        if M == 1 && groups == FOUR {
            let mut sums = [v.splat(0.0); FOUR];
            for (values, &weight) in four.as_chunks::<FOUR>().0.iter().zip(rows[0]) {
                let weight = v.splat(weight);
                for j in 0..FOUR {
                    sums[j] = v.add(sums[j], v.mul(weight, v.load(&values[j])));
                }
            }
            for sum in sums {
                out.store(v, v.mul(sum, v.splat(inverse[0])), row, column);
                column += LANES;
            }
            continue;
        }
        for group in 0..groups {
            let mut sums = [v.splat(0.0); M];
            for (p, values) in four.chunks_exact(groups).enumerate() {
                let values = v.load(&values[group]);
                for i in 0..M {
                    sums[i] = v.add(sums[i], v.mul(v.splat(rows[i][p]), values));
                }
            }
            for i in 0..M {
                out.store(v, v.mul(sums[i], v.splat(inverse[i])), row + i, column);
            }
            column += LANES;
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
        packed: PackedHead<'_>,
        bias: Option<(&[f32], usize)>,
        alignment: Option<&mut Alignment<'_>>,
        scratch: &mut HeadScratch
    ) = attend_head_in
);
