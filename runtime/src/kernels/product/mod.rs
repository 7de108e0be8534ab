//! Products `y[m, n] = x[m, k] W^T`, generic over the instruction set. This is where the time goes.
//!
//! Each value of y is the sum over k in order: block after block for Q8_0 (the block's exact integer sum, as f32,
//! times the product of both scales), value after value for plain types. A register tile of several rows of x
//! only re-uses what is loaded; it never changes that order, so a row's result does not depend on the rows beside
//! it.
//!
//! ```text
//! for rows of x that fit the second-level cache
//!     for each group of 16 rows of W            one panel, [k, 16]: stays in the first-level cache
//!         for each tile of up to M rows of x    16 M sums in registers
//!             for j in 0..k                     one vector of W meets M broadcast values of x
//! ```
//!
//! One group at a time and many rows, rather than a squarer tile, because AVX-512 multiplies by a value broadcast
//! from memory at no cost, while a broadcast into a register takes a slot of the multipliers (measured on Zen 4:
//! 100 against 73 % of the peak). For the same reason x is laid out by tiles: rows a power of two apart would fall
//! into the same cache sets.
//!
//! Hot loops here and in the other generic kernels call no closures: a closure that the compiler does not inline is
//! compiled without the instruction set, and every operation in it becomes a function call.

pub(crate) mod floats;
pub(crate) mod nibbles;
pub(crate) mod planes;

use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::{Dot, Steps};
use crate::kernels::isa::dispatch;
use crate::kernels::pack::q8::Q8;
use crate::kernels::simd::{F16, LANES};
use crate::kernels::tiles::{Tiles, rows_in_cache, with_rows};

/// Weights in blocks of 32 that meet quantised activations, in groups of 16 rows.
pub(crate) trait Blocks {
    /// The products of a group with `M` rows of activations from `row` on; a row has `blocks` blocks.
    fn tile<V: Dot, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        row: usize,
        y: &mut Columns<'_>,
    );
}

/// The product of block weights, in the order of the module's head.
#[inline(always)]
pub(crate) fn blocks_in<V: Dot, W: Blocks>(v: V, w: &W, a: &Activations, blocks: usize, y: &mut Columns<'_>) {
    let m = a.scales.len() / blocks;
    let at_once = rows_in_cache(blocks * size_of::<V::Block>(), V::ROWS_Q8);
    let mut first = 0;
    while first < m {
        let end = m.min(first + at_once);
        for group in y.groups() {
            for (row, rows) in Tiles::new(first..end, V::ROWS_Q8) {
                with_rows!(rows, V::ROWS_Q8, block_tile[_ _](v, w, group, a, blocks, row, y));
            }
        }
        first = end;
    }
}

#[inline(always)]
fn block_tile<V: Dot, W: Blocks, const M: usize>(
    v: V,
    w: &W,
    group: usize,
    a: &Activations,
    blocks: usize,
    row: usize,
    y: &mut Columns<'_>,
) {
    w.tile::<V, M>(v, group, a, blocks, row, y);
}

/// Rows of quantised activations that a tile meets: values, scales and starts, `[blocks][M]` each.
#[inline(always)]
#[allow(clippy::type_complexity)] // three slices
pub(crate) fn tile_of<V: Dot, const M: usize>(
    a: &Activations,
    row: usize,
    blocks: usize,
) -> (&[[V::Block; M]], &[[f32; M]], &[[i32; M]]) {
    let range = row * blocks..(row + M) * blocks;
    let (values, scales, starts) = (&V::blocks(a)[range.clone()], &a.scales[range.clone()], &a.starts[range]);
    (values.as_chunks().0, scales.as_chunks().0, starts.as_chunks().0)
}

/// What the tiles of the group after this one read, for the first full tile to prefetch: full tiles compute longer than
/// they wait for memory, and the hardware's own prefetching stops at every page. Smaller ones are slower for it.
#[inline(always)]
pub(crate) fn next_group<V: Dot, const M: usize, T>(weights: &[T], group: usize, blocks: usize, row: usize) -> &[T] {
    let wanted = M == V::ROWS_Q8 && row == 0;
    weights.get((group + 1) * blocks..(group + 2) * blocks).filter(|_| wanted).unwrap_or_default()
}

/// Whether sums of int8 weights start from anything but zero.
#[inline(always)]
pub(crate) fn starts_at<V: Dot>() -> bool {
    V::LAYOUT.flip != 0 || V::COMPLEMENTS
}

/// A tile of weights of which each block has one scale a row: `weights` and their scales are a group's, `ahead` is
/// fetched meanwhile, and sums start from the activations' starts if `started`. `place` is the group and the first row.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // what the three kinds of such weights differ in, and the tile
pub(crate) fn scaled_tile<V: Dot, B: Steps, T, const AHEAD: usize, const M: usize>(
    v: V,
    weights: impl Iterator<Item = B>,
    weight_scales: &[[F16; LANES]],
    ahead: [&[T]; AHEAD],
    started: bool,
    a: &Activations,
    place: (usize, usize),
    y: &mut Columns<'_>,
) {
    let (group, row) = place;
    let (values, scales, starts) = tile_of::<V, M>(a, row, weight_scales.len());
    let mut out = [v.splat(0.0); M];
    let activations = values.iter().zip(scales).zip(starts);
    for (b, ((weights, weight_scales), ((values, scales), starts))) in
        weights.zip(weight_scales).zip(activations).enumerate()
    {
        for ahead in ahead {
            if let Some(ahead) = ahead.get(b) {
                v.prefetch(ahead);
            }
        }
        let mut sums = [v.splat_i32(0); M];
        if started {
            for i in 0..M {
                sums[i] = v.splat_i32(starts[i]);
            }
        }
        v.dot_block(&mut sums, &weights, values);
        let d = v.load_finite(weight_scales);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.to_f32(sums[i]), v.mul(d, v.splat(scales[i]))));
        }
    }
    for (i, &out) in out.iter().enumerate() {
        y.store(v, out, row + i, group * LANES);
    }
}

impl Blocks for Q8 {
    #[inline(always)]
    fn tile<V: Dot, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        row: usize,
        y: &mut Columns<'_>,
    ) {
        let range = group * blocks..(group + 1) * blocks;
        let (weights, weight_scales) = (&self.weights[range.clone()], &self.scales[range]);
        let ahead = [next_group::<V, M, _>(&self.weights, group, blocks, row)];
        let started = starts_at::<V>();
        scaled_tile::<V, _, _, 1, M>(v, weights.iter(), weight_scales, ahead, started, a, (group, row), y);
    }
}

dispatch!(pub(crate) fn q8(w: &Q8, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
