//! Attention of many queries over one head whose keys and values are laid out, whatever numbers it computes in.

use std::ops::Range;

use super::{AlignmentOut, HeadRows, add_bias};
use crate::kernels::columns::Columns;
use crate::kernels::dot::Dot;
use crate::kernels::simd::{LANES, Simd};
use crate::kernels::tiles::Tiles;

/// The most queries that one tile has on any instruction set.
pub(crate) const MOST_ROWS: usize = 12;

/// Some queries that meet keys and values together: the first one, how many, and how far their scores lie apart.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) row: usize,
    pub(crate) count: usize,
    pub(crate) stride: usize,
}

/// Memory for one tile of queries.
#[derive(Default)]
pub(crate) struct HeadScratch {
    /// `[width][queries of the tile]`
    pub(crate) q: Vec<f32>,
    /// The same as integers, `[width / 2][queries of the tile]`.
    pub(crate) q_pairs: Vec<[i16; 2]>,
    /// `[queries of the tile, row stride]`; in floats they become the weights.
    pub(crate) scores: Vec<f32>,
    /// `[queries of the tile, row stride]`: weights as integers.
    pub(crate) weights: Vec<i16>,
}

/// Keys and values of one head in one kind of numbers, and how a tile of queries meets them.
pub(crate) trait Head: Copy {
    /// Positions.
    fn len(self) -> usize;
    /// `scores[i, p] = q[i] · keys[p]`
    fn scores<V: Dot>(self, v: V, rows: &HeadRows<'_>, tile: Tile, scratch: &mut HeadScratch);
    /// Makes weights of one query's scores, whole vectors; returns their sum.
    fn weights<V: Dot>(self, v: V, query: Range<usize>, scratch: &mut HeadScratch) -> f32;
    /// `out += factor * weights`
    fn add_weights<V: Dot>(self, v: V, factor: f32, query: Range<usize>, scratch: &HeadScratch, out: &mut [f32]);
    /// `out[i] = inverse[i] Σ weights[i, p] values[p]`
    fn mix<V: Dot>(self, v: V, tile: Tile, inverse: &[f32; MOST_ROWS], scratch: &HeadScratch, out: &mut Columns<'_>);
}

/// `out = softmax(q K^T + bias) V` for the queries of one head. `bias` is the first query's over keys 0, 1, …; each
/// following query's begins one value earlier. The normalising division is done on the result, not on each weight.
#[inline(always)]
pub(crate) fn attend_head_in<V: Dot, H: Head>(
    v: V,
    rows: &mut HeadRows<'_>,
    head: H,
    bias: Option<(&[f32], usize)>,
    alignment: Option<&mut AlignmentOut<'_>>,
    scratch: &mut HeadScratch,
) {
    let mut alignment = alignment;
    let len = head.len();
    let stride = row_stride(len);
    let most = stride * V::ROWS_F32.min(rows.count);
    if scratch.scores.len() < most {
        scratch.scores.resize(most, 0.0);
        scratch.weights.resize(most, 0);
    }
    for (row, count) in Tiles::new(0..rows.count, V::ROWS_F32) {
        let tile = Tile { row, count, stride };
        head.scores(v, rows, tile, scratch);
        let mut inverse = [0.0; MOST_ROWS];
        for (i, inverse) in inverse.iter_mut().enumerate().take(count) {
            let query = i * stride..i * stride + len.next_multiple_of(LANES);
            complete(v, &mut scratch.scores[query.clone()], len, bias, row + i);
            *inverse = 1.0 / head.weights(v, query.clone(), scratch);
            if let Some(alignment) = &mut alignment {
                let out = &mut alignment.out[(row + i) * len..][..len];
                head.add_weights(v, alignment.share * *inverse, query, scratch, out);
            }
        }
        head.mix(v, tile, &inverse, scratch, &mut rows.out);
    }
}

/// How far rows of scores of `len` positions lie apart: an odd number of cache lines, since rows a power of two apart
/// would share few cache sets.
fn row_stride(len: usize) -> usize {
    (len.div_ceil(LANES) | 1) * LANES
}

/// Adds the bias of this query to the first `len` scores, and fills up whole vectors with what has no weight.
#[inline(always)]
fn complete<V: Simd>(v: V, scores: &mut [f32], len: usize, bias: Option<(&[f32], usize)>, query: usize) {
    scores[len..].fill(f32::NEG_INFINITY);
    if let Some((bias, offset)) = bias {
        add_bias(v, &mut scores[..len], &bias[offset - query..][..len]);
    }
}
