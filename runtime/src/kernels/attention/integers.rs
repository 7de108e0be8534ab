//! Attention of many queries in 16-bit integers, for models whose weights are integers too: half the memory of
//! [`super::floats`], and half the instructions.
//!
//! ```text
//! queries, keys   x = s n, |n| <= 4095                  one scale s for each row of a head
//! values          x = s n, |n| <= 4095                  one for each 32 positions of a head
//! scores          (Σ n_q n_k) (s_q s_k) + bias
//! weights         n = round(16383 e^(score - max)), and Σ n is what they are divided by
//! result          Σ over 32 positions at a time of (Σ n_weight n_value) s, divided by Σ n
//! ```
//!
//! Integer sums are exact and fit 32 bits: 128 · 4095² and 32 · 16383 · 4095 are below 2^31. Rounding errs by at most
//! 1/8190 of the largest value of a row, a thirtieth of what int8 activations err by in the products around it.

use super::{FOUR, HeadAlignment, HeadKeyValues, HeadRows, completed, place, row_stride};
use crate::kernels::columns::Columns;
use crate::kernels::dot::{Dot, Pairs};
use crate::kernels::isa::dispatch;
use crate::kernels::math;
use crate::kernels::memory::Zeroable;
use crate::kernels::rounding::{ROUNDING, magnitudes, scale_of};
use crate::kernels::rows::max_in;
use crate::kernels::simd::LANES;
use crate::kernels::sizes::product;
use crate::kernels::tiles::{Tiles, with_rows};

/// Largest magnitude of queries, keys and values.
const LIMIT: f32 = 4095.0;
/// Largest weight.
const ONE: f32 = 16383.0;
/// Positions whose values share a scale.
const BLOCK: usize = 32;
/// The widest head whose products 32 bits hold.
const WIDEST: usize = 128;

// SAFETY: 64 bytes of numbers, aligned to as many.
unsafe impl Zeroable for Pairs {}

/// Whether heads of this width can be attended to in integers.
pub(crate) fn possible(width: usize) -> bool {
    width <= WIDEST && width.is_multiple_of(2)
}

/// Keys and values of one head as [`attend_head`] reads them; places beyond the end hold zeros. Groups of 16 lie
/// together by fours, as in [`super::floats::FloatHead`].
#[derive(Clone, Copy)]
pub(crate) struct IntegerHead<'a> {
    /// `[fours of groups of 16 positions][width / 2][groups]`, lanes are positions.
    keys: &'a [Pairs],
    /// `[fours of groups of 16 values of the head][pairs of positions][groups]`, lanes are values.
    values: &'a [Pairs],
    /// `[groups of 16 positions]`
    key_scales: &'a [[f32; LANES]],
    /// `[blocks of positions]`, filled up to whole vectors.
    value_scales: &'a [f32],
    len: usize,
}

/// Memory of keys and values of some positions of a head.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    keys: usize,
    /// Vectors of pairs, keys and values.
    pub(crate) pairs: usize,
    key_scales: usize,
    /// Vectors of scales, of keys and of values.
    pub(crate) scales: usize,
}

impl Sizes {
    pub(crate) fn of(len: usize, width: usize) -> Sizes {
        let (keys, key_scales) = (product([len.div_ceil(LANES), width / 2]), len.div_ceil(LANES));
        let pairs = keys.saturating_add(product([width.div_ceil(LANES), len.div_ceil(2)]));
        Sizes { keys, pairs, key_scales, scales: key_scales + len.div_ceil(BLOCK * LANES) }
    }
}

impl<'a> IntegerHead<'a> {
    /// What [`pack`] made.
    pub(crate) fn new(pairs: &'a [Pairs], scales: &'a [[f32; LANES]], len: usize, width: usize) -> IntegerHead<'a> {
        let sizes = Sizes::of(len, width);
        let (keys, values) = pairs.split_at(sizes.keys);
        let (key_scales, value_scales) = scales.split_at(sizes.key_scales);
        IntegerHead { keys, values, key_scales, value_scales: value_scales.as_flattened(), len }
    }
}

/// Rounds and lays out a head in memory of [`Sizes::of`].
#[inline(always)]
fn pack_in<V: Dot>(v: V, pairs: &mut [Pairs], scales: &mut [[f32; LANES]], head: HeadKeyValues<'_>) {
    let HeadKeyValues { keys, values, stride, len, width } = head;
    let sizes = Sizes::of(len, width);
    if !len.is_multiple_of(LANES) || !width.is_multiple_of(LANES) {
        pairs.fill(Pairs([[0; 2]; LANES]));
    }
    let (packed_keys, packed_values) = pairs.split_at_mut(sizes.keys);
    let (key_scales, value_scales) = scales.split_at_mut(sizes.key_scales);
    key_scales.as_flattened_mut()[len..].fill(0.0);
    // A group's positions at once, so that what is written lies together.
    let mut rounded = [[0; WIDEST]; LANES];
    for group in 0..sizes.key_scales {
        let count = LANES.min(len - group * LANES);
        for lane in 0..count {
            let x = &keys[(group * LANES + lane) * stride..][..width];
            let (scale, inverse) = scale_of(absmax(v, x), LIMIT);
            round(v, x, inverse, &mut rounded[lane]);
            key_scales[group][lane] = scale;
        }
        let (first, step) = place(group, sizes.key_scales, width / 2);
        for j in 0..width / 2 {
            let packed = &mut packed_keys[first + j * step].0;
            for lane in 0..count {
                packed[lane] = [rounded[lane][2 * j], rounded[lane][2 * j + 1]];
            }
        }
    }
    let mut rows = [[0; WIDEST]; 2];
    let groups = width.div_ceil(LANES);
    let value_scales = value_scales.as_flattened_mut();
    for block in 0..len.div_ceil(BLOCK) {
        let positions = block * BLOCK..len.min((block + 1) * BLOCK);
        let mut largest = 0;
        for position in positions.clone() {
            largest = largest.max(absmax(v, &values[position * stride..][..width]));
        }
        let (scale, inverse) = scale_of(largest, LIMIT);
        value_scales[block] = scale;
        for position in positions.step_by(2) {
            round(v, &values[position * stride..][..width], inverse, &mut rows[0]);
            match position + 1 < len {
                true => round(v, &values[(position + 1) * stride..][..width], inverse, &mut rows[1]),
                false => rows[1].fill(0),
            }
            for group in 0..groups {
                let (first, step) = place(group, groups, len.div_ceil(2));
                let packed = &mut packed_values[first + position / 2 * step].0;
                let (even, odd) = (&rows[0].as_chunks::<LANES>().0[group], &rows[1].as_chunks::<LANES>().0[group]);
                for lane in 0..LANES {
                    packed[lane] = [even[lane], odd[lane]];
                }
            }
        }
    }
}

/// The largest magnitude, as the bits of an f32.
#[inline(always)]
fn absmax<V: Dot>(v: V, x: &[f32]) -> i32 {
    let mut max = v.splat_i32(0);
    let (body, tail) = x.as_chunks::<LANES>();
    for x in body {
        max = v.max_i32(max, magnitudes(v, v.load(x)));
    }
    let max = v.largest_i32(max);
    let mut max = max;
    for x in tail {
        max = max.max(x.abs().to_bits() as i32);
    }
    max
}

/// `out = round(inverse x)`
#[inline(always)]
fn round<V: Dot>(v: V, x: &[f32], inverse: f32, out: &mut [i16; WIDEST]) {
    let (inverse, rounding) = (v.splat(inverse), v.splat(ROUNDING));
    let (body, tail) = x.as_chunks::<LANES>();
    let out = out.as_chunks_mut::<LANES>().0;
    for i in 0..body.len() {
        v.store_i16(v.bits(v.add(v.mul(v.load(&body[i]), inverse), rounding)), &mut out[i]);
    }
    if !tail.is_empty() {
        let mut lanes = [0.0; LANES];
        lanes[..tail.len()].copy_from_slice(tail);
        v.store_i16(v.bits(v.add(v.mul(v.load(&lanes), inverse), rounding)), &mut out[body.len()]);
    }
}

/// Scratch of [`attend_head`].
#[derive(Default)]
pub(crate) struct IntegerScratch {
    /// `[width / 2][queries of the tile]`
    q: Vec<[i16; 2]>,
    /// `[queries of the tile, row stride]`
    scores: Vec<f32>,
    /// `[queries of the tile, row stride]`
    weights: Vec<i16>,
}

/// `out = softmax(q K^T + bias) V` for the queries of one head; see [`super::floats`].
#[inline(always)]
fn attend_head_in<V: Dot>(
    v: V,
    rows: &mut HeadRows<'_>,
    packed: IntegerHead<'_>,
    bias: Option<(&[f32], usize)>,
    alignment: Option<&mut HeadAlignment<'_>>,
    scratch: &mut IntegerScratch,
) {
    let mut alignment = alignment;
    let (len, width) = (packed.len, rows.width);
    if len == 0 {
        return;
    }
    let most = V::ROWS_F32.min(rows.count);
    let stride = row_stride(len);
    scratch.q.resize(width / 2 * most, [0; 2]);
    scratch.scores.resize(stride * most, 0.0);
    scratch.weights.resize(stride * most, 0);
    for (row, count) in Tiles::new(0..rows.count, V::ROWS_F32) {
        let mut q_scales = [0.0; 12];
        let mut rounded = [0; WIDEST];
        for i in 0..count {
            let q = &rows.q[(row + i) * rows.q_stride..][..width];
            let (scale, inverse) = scale_of(absmax(v, q), LIMIT);
            round(v, q, inverse, &mut rounded);
            q_scales[i] = scale;
            let pairs = rounded[..width].as_chunks::<2>().0;
            for j in 0..pairs.len() {
                scratch.q[i + j * count] = pairs[j];
            }
        }
        let q = &scratch.q[..width / 2 * count];
        with_rows!(count, V::ROWS_F32, scores[_](v, packed, q, &q_scales, &mut scratch.scores, stride));
        let mut inverse = [0.0; 12];
        for i in 0..count {
            let scores = completed(v, &mut scratch.scores[i * stride..], len, bias, row + i);
            let weights = &mut scratch.weights[i * stride..][..scores.len()];
            inverse[i] = 1.0 / exponentials(v, scores, weights);
            if let Some(alignment) = &mut alignment {
                let share = alignment.share * inverse[i];
                for (out, &weight) in alignment.out[(row + i) * len..][..len].iter_mut().zip(weights.iter()) {
                    *out += share * f32::from(weight);
                }
            }
        }
        with_rows!(count, V::ROWS_F32, mix[_](v, packed, &scratch.weights, stride, &inverse, row, &mut rows.out));
    }
}

/// `scores[i, p] = q[i] · keys[p]`
#[inline(always)]
fn scores<V: Dot, const M: usize>(
    v: V,
    packed: IntegerHead<'_>,
    q: &[[i16; 2]],
    q_scales: &[f32; 12],
    scores: &mut [f32],
    stride: usize,
) {
    let q = q.as_chunks::<M>().0;
    let mut group = 0;
    for four in packed.keys.chunks(FOUR * q.len()) {
        let groups = four.len() / q.len();
        if M == 1 && groups == FOUR {
            let mut sums = [v.splat_i32(0); FOUR];
            let keys = &four.as_chunks::<FOUR>().0[..q.len()];
            for p in 0..q.len() {
                let q = v.splat_pair(q[p][0]);
                for j in 0..FOUR {
                    sums[j] = v.dot_pairs(sums[j], v.load_pairs(&keys[p][j]), q);
                }
            }
            for j in 0..FOUR {
                let scale = v.mul(v.load(&packed.key_scales[group]), v.splat(q_scales[0]));
                let out = scores[group * LANES..].first_chunk_mut().expect("rows are whole groups");
                v.store(v.mul(v.to_f32(sums[j]), scale), out);
                group += 1;
            }
            continue;
        }
        for index in 0..groups {
            let mut sums = [v.splat_i32(0); M];
            for p in 0..q.len() {
                let keys = v.load_pairs(&four[p * groups + index]);
                for i in 0..M {
                    sums[i] = v.dot_pairs(sums[i], keys, v.splat_pair(q[p][i]));
                }
            }
            let key_scales = v.load(&packed.key_scales[group]);
            for i in 0..M {
                let scale = v.mul(key_scales, v.splat(q_scales[i]));
                let out = scores[i * stride + group * LANES..].first_chunk_mut().expect("rows are whole groups");
                v.store(v.mul(v.to_f32(sums[i]), scale), out);
            }
            group += 1;
        }
    }
}

/// The weights of whole vectors of scores; returns their sum.
#[inline(always)]
fn exponentials<V: Dot>(v: V, scores: &[f32], weights: &mut [i16]) -> f32 {
    let max = v.splat(max_in(v, scores));
    let (one, rounding) = (v.splat(ONE), v.splat(ROUNDING));
    let mut sum = v.splat(0.0);
    let scores = scores.as_chunks::<LANES>().0;
    let weights = &mut weights.as_chunks_mut::<LANES>().0[..scores.len()];
    for i in 0..scores.len() {
        let e = math::exp(v, v.sub(v.load(&scores[i]), max));
        let rounded = v.add(v.mul(e, one), rounding);
        sum = v.add(sum, v.sub(rounded, rounding));
        v.store_i16(v.bits(rounded), &mut weights[i]);
    }
    v.sum(sum)
}

/// `out[i] = inverse[i] Σ weights[i, p] values[p]`
#[inline(always)]
fn mix<V: Dot, const M: usize>(
    v: V,
    packed: IntegerHead<'_>,
    weights: &[i16],
    stride: usize,
    inverse: &[f32; 12],
    row: usize,
    out: &mut Columns<'_>,
) {
    let pairs = packed.len.div_ceil(2);
    let mut rows = [&weights.as_chunks::<2>().0[..0]; M];
    for i in 0..M {
        rows[i] = &weights[i * stride..].as_chunks::<2>().0[..pairs];
    }
    let mut column = out.first();
    for four in packed.values.chunks(FOUR * pairs) {
        let groups = four.len() / pairs;
        if M == 1 && groups == FOUR {
            let mut all = [v.splat(0.0); FOUR];
            let values = &four.as_chunks::<FOUR>().0[..pairs];
            for block in 0..pairs.div_ceil(BLOCK / 2) {
                let mut sums = [v.splat_i32(0); FOUR];
                for p in block * (BLOCK / 2)..pairs.min((block + 1) * (BLOCK / 2)) {
                    let weight = v.splat_pair(rows[0][p]);
                    for j in 0..FOUR {
                        sums[j] = v.dot_pairs(sums[j], v.load_pairs(&values[p][j]), weight);
                    }
                }
                let scale = v.splat(packed.value_scales[block]);
                for j in 0..FOUR {
                    all[j] = v.add(all[j], v.mul(v.to_f32(sums[j]), scale));
                }
            }
            for sum in all {
                out.store(v, v.mul(sum, v.splat(inverse[0])), row, column);
                column += LANES;
            }
            continue;
        }
        // Block by block: values are read once and in order, and a block's weights stay near for all groups. Where a
        // head has thousands of positions neither fits the caches next to the processor.
        let mut all = [[v.splat(0.0); M]; FOUR];
        for block in 0..pairs.div_ceil(BLOCK / 2) {
            let scale = v.splat(packed.value_scales[block]);
            for (group, all) in all[..groups].iter_mut().enumerate() {
                let mut sums = [v.splat_i32(0); M];
                for p in block * (BLOCK / 2)..pairs.min((block + 1) * (BLOCK / 2)) {
                    let values = v.load_pairs(&four[p * groups + group]);
                    for i in 0..M {
                        sums[i] = v.dot_pairs(sums[i], values, v.splat_pair(rows[i][p]));
                    }
                }
                for i in 0..M {
                    all[i] = v.add(all[i], v.mul(v.to_f32(sums[i]), scale));
                }
            }
        }
        for all in &all[..groups] {
            for i in 0..M {
                out.store(v, v.mul(all[i], v.splat(inverse[i])), row + i, column);
            }
            column += LANES;
        }
    }
}

dispatch!(pub(crate) fn pack(pairs: &mut [Pairs], scales: &mut [[f32; LANES]], head: HeadKeyValues<'_>) = pack_in);
dispatch!(
    pub(crate) fn attend_head(
        rows: &mut HeadRows<'_>,
        packed: IntegerHead<'_>,
        bias: Option<(&[f32], usize)>,
        alignment: Option<&mut HeadAlignment<'_>>,
        scratch: &mut IntegerScratch
    ) = attend_head_in
);
