//! Attention of many queries in f32.

use super::{FOUR, HeadAlignment, HeadKeyValues, HeadRows, completed, place, row_stride};
use crate::kernels::columns::Columns;
use crate::kernels::isa::dispatch;
use crate::kernels::math;
use crate::kernels::rows::{axpy_in, max_in};
use crate::kernels::simd::{LANES, Simd};
use crate::kernels::sizes::product;
use crate::kernels::tiles::{Tiles, with_rows};

/// Keys and values of one head as [`attend_head`] reads them; places beyond the end hold zeros. Groups of 16 lie
/// together by fours, the last ones by as many as there are.
#[derive(Clone, Copy)]
pub(crate) struct FloatHead<'a> {
    /// `[fours of groups of 16 positions][width][groups]`, lanes are positions.
    keys: &'a [[f32; LANES]],
    /// `[fours of groups of 16 values of the head][len][groups]`, lanes are values.
    values: &'a [[f32; LANES]],
    len: usize,
}

impl<'a> FloatHead<'a> {
    /// Vectors that keys and values of `len` positions take.
    pub(crate) fn size(len: usize, width: usize) -> usize {
        product([len.div_ceil(LANES), width]).saturating_add(product([width.div_ceil(LANES), len]))
    }

    /// What [`FloatHead::pack`] made.
    pub(crate) fn new(packed: &'a [[f32; LANES]], len: usize, width: usize) -> FloatHead<'a> {
        let (keys, values) = packed.split_at(len.div_ceil(LANES) * width);
        FloatHead { keys, values, len }
    }

    /// Lays out a head in memory of [`FloatHead::size`].
    pub(crate) fn pack(packed: &'a mut [[f32; LANES]], head: HeadKeyValues<'_>) -> FloatHead<'a> {
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
        FloatHead::new(packed, len, width)
    }
}

/// Scratch of [`attend_head`].
#[derive(Default)]
pub(crate) struct FloatScratch {
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
    packed: FloatHead<'_>,
    bias: Option<(&[f32], usize)>,
    alignment: Option<&mut HeadAlignment<'_>>,
    scratch: &mut FloatScratch,
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
            for j in 0..width {
                scratch.q[i + j * count] = q[j];
            }
        }
        let q = &scratch.q[..width * count];
        with_rows!(count, V::ROWS_F32, scores[_](v, packed, q, &mut scratch.scores, stride));
        let mut inverse = [0.0; 12];
        for i in 0..count {
            let scores = completed(v, &mut scratch.scores[i * stride..], len, bias, row + i);
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
fn scores<V: Simd, const M: usize>(v: V, packed: FloatHead<'_>, q: &[f32], scores: &mut [f32], stride: usize) {
    let q = q.as_chunks::<M>().0;
    let mut column = 0;
    for four in packed.keys.chunks(FOUR * q.len()) {
        let groups = four.len() / q.len();
        if M == 1 && groups == FOUR {
            let mut out = [v.splat(0.0); FOUR];
            let keys = &four.as_chunks::<FOUR>().0[..q.len()];
            for p in 0..q.len() {
                let q = v.splat(q[p][0]);
                for j in 0..FOUR {
                    out[j] = v.add(out[j], v.mul(q, v.load(&keys[p][j])));
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
            for p in 0..q.len() {
                let keys = v.load(&four[p * groups + group]);
                for i in 0..M {
                    out[i] = v.add(out[i], v.mul(v.splat(q[p][i]), keys));
                }
            }
            for i in 0..M {
                v.store(out[i], scores[i * stride + column..].first_chunk_mut().expect("rows are whole groups"));
            }
            column += LANES;
        }
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
    packed: FloatHead<'_>,
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
            let values = &four.as_chunks::<FOUR>().0[..len];
            for p in 0..len {
                let weight = v.splat(rows[0][p]);
                for j in 0..FOUR {
                    sums[j] = v.add(sums[j], v.mul(weight, v.load(&values[p][j])));
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
            for p in 0..len {
                let values = v.load(&four[p * groups + group]);
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

dispatch!(
    pub(crate) fn attend_head(
        rows: &mut HeadRows<'_>,
        packed: FloatHead<'_>,
        bias: Option<(&[f32], usize)>,
        alignment: Option<&mut HeadAlignment<'_>>,
        scratch: &mut FloatScratch
    ) = attend_head_in
);
