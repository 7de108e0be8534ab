//! Attention of queries over stored keys and values.
//!
//! There is no 1/sqrt(d_kv) in T5: the factor is part of the initial scale of the query matrix.
//!
//! Two forms. [`cache`]: one query over a cache that grows by a position a step and whose rows beams share; sums run
//! over a head's values. [`packed`]: many queries over keys and values that stay as they are (a whole document in the
//! encoder, the source in cross-attention), first laid out so that lanes are positions for the scores and values of the
//! head for the result; a tile of queries re-uses what is loaded. Each form gives a query the same result whatever
//! queries run beside it. The second computes in [`floats`] or, for models whose weights are integers, in [`integers`].
//! Each of these has its own loop over tiles of queries: one loop for both made documents 2 to 9 % slower with AVX-512.

pub(crate) mod cache;
pub(crate) mod floats;
pub(crate) mod integers;
pub(crate) mod packed;

use super::columns::Columns;
use super::simd::{LANES, Simd};
use super::sizes::product;

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

/// Where the first vector of a group lies among `groups` of `len` vectors, and how far it is to the group's next one.
pub(crate) fn place(group: usize, groups: usize, len: usize) -> (usize, usize) {
    let four = group / FOUR * FOUR;
    (four * len + group % FOUR, FOUR.min(groups - four))
}

/// The biases of one query over keys 0, 1, …: head `h`, key `k` at `values[h * head_stride + offset + k]`.
#[derive(Clone, Copy, Debug)]
pub struct BiasRow<'a> {
    pub values: &'a [f32],
    pub head_stride: usize,
    pub offset: usize,
}

impl<'a> BiasRow<'a> {
    /// The biases of one head over all distances.
    ///
    /// # Panics
    /// If there are none for it.
    pub(crate) fn head(self, head: usize) -> &'a [f32] {
        let start = head.saturating_mul(self.head_stride);
        &self.values[start.min(self.values.len())..][..self.head_stride]
    }
}

/// Where attention weights are wanted: each head's, times its share, are added to `out`, `[queries, len]`.
pub struct AlignmentOut<'a> {
    /// `[heads]`; a head without a share is left out.
    pub shares: &'a [f32],
    pub out: &'a mut [f32],
}

/// One head's part of an [`AlignmentOut`].
pub(crate) struct HeadAlignment<'a> {
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

/// How far rows of scores of `len` positions lie apart: an odd number of cache lines, since rows a power of two apart
/// would share few cache sets.
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
pub(crate) fn add_bias<V: Simd>(v: V, scores: &mut [f32], bias: &[f32]) {
    let (scores, scores_tail) = scores.as_chunks_mut::<LANES>();
    let (bias, bias_tail) = bias.as_chunks::<LANES>();
    for i in 0..scores.len() {
        v.store(v.add(v.load(&scores[i]), v.load(&bias[i])), &mut scores[i]);
    }
    for i in 0..scores_tail.len() {
        scores_tail[i] += bias_tail[i];
    }
}
