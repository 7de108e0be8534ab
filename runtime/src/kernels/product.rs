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

use std::marker::PhantomData;
use std::ops::Range;

use super::Kernels;
use super::activations::Activations;
use super::packed::{Element, Pair, Q8};
use super::simd::{BF16, F16, LANES, Simd, Steps};
use super::tiles::{Tiles, rows_in_cache, with_rows};

/// Some columns of rows `[m, n]` that a kernel writes. Threads write different columns of the same rows.
pub(crate) struct Columns<'a> {
    start: *mut f32,
    m: usize,
    n: usize,
    columns: Range<usize>,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: a value stands for the exclusive right to write its columns, as a mutable slice would if they lay together.
unsafe impl Send for Columns<'_> {}
// SAFETY: a shared reference gives access to nothing but `part`, whose caller vouches for what it does.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All columns of `y`, rows of `n`.
    pub(crate) fn new(y: &'a mut [f32], n: usize) -> Columns<'a> {
        Columns { start: y.as_mut_ptr(), m: y.len() / n.max(1), n, columns: 0..n, of: PhantomData }
    }

    /// Some of these columns.
    ///
    /// # Safety
    /// No two parts that are used at once may have a column in common, and the whole must not be written meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, columns: Range<usize>) -> Columns<'a> {
        assert!(self.columns.start <= columns.start && columns.end <= self.columns.end, "a part of these columns");
        Columns { start: self.start, m: self.m, n: self.n, columns, of: PhantomData }
    }

    /// The first of these columns.
    #[inline(always)]
    pub(crate) fn first(&self) -> usize {
        self.columns.start
    }

    /// The groups of 16 that these columns are, if they begin with one.
    #[inline(always)]
    pub(crate) fn groups(&self) -> Range<usize> {
        self.columns.start / LANES..self.columns.end.div_ceil(LANES)
    }

    /// Writes a group's vector from `column` on; the last group may cover fewer than 16 columns.
    #[inline(always)]
    pub(crate) fn store<V: Simd>(&mut self, v: V, value: V::F, row: usize, column: usize) {
        assert!(row < self.m && self.columns.contains(&column), "a place among these columns");
        let width = LANES.min(self.columns.end - column);
        // SAFETY: the place is inside the rows, and no one else writes or reads these columns.
        let out = unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.n + column), width) };
        match out.first_chunk_mut::<LANES>() {
            Some(out) => v.store(value, out),
            None => {
                let mut lanes = [0.0; LANES];
                v.store(value, &mut lanes);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }
}

/// Weights in blocks of 32 that meet quantised activations, in groups of 16 rows.
pub(crate) trait Blocks {
    /// The products of a group with `M` rows of activations from `row` on; a row has `blocks` blocks.
    fn tile<V: Simd, const M: usize>(
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
pub(crate) fn blocks_in<V: Simd, W: Blocks>(v: V, w: &W, a: &Activations, blocks: usize, y: &mut Columns<'_>) {
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
fn block_tile<V: Simd, W: Blocks, const M: usize>(
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
pub(crate) fn tile_of<V: Simd, const M: usize>(
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
pub(crate) fn next_group<V: Simd, const M: usize, T>(weights: &[T], group: usize, blocks: usize, row: usize) -> &[T] {
    let wanted = M == V::ROWS_Q8 && row == 0;
    weights.get((group + 1) * blocks..(group + 2) * blocks).filter(|_| wanted).unwrap_or_default()
}

/// Whether sums of int8 weights start from anything but zero.
#[inline(always)]
pub(crate) fn starts_at<V: Simd>() -> bool {
    V::FLIP != 0 || V::COMPLEMENTS
}

/// A tile of weights of which each block has one scale a row: `weights` and their scales are a group's, `ahead` is
/// fetched meanwhile, and sums start from the activations' starts if `started`. `place` is the group and the first row.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // what the three kinds of such weights differ in, and the tile
pub(crate) fn scaled_tile<V: Simd, B: Steps, T, const AHEAD: usize, const M: usize>(
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
    fn tile<V: Simd, const M: usize>(
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

/// `x` is laid out by tiles, `[tiles][k][rows of the tile]`; `wide` is scratch. The columns begin with a pair of groups.
#[inline(always)]
fn plain_in<V: Simd, E: Element>(
    v: V,
    w: &[Pair<E>],
    x: &[f32],
    k: usize,
    y: &mut Columns<'_>,
    wide: &mut Vec<[f32; LANES]>,
) {
    let m = x.len() / k;
    let groups = y.groups();
    let pairs = groups.start / 2..groups.end.div_ceil(2);
    if m <= V::ROWS_F32 {
        // Weights are met once: as they are, in the order in which they lie.
        for pair in pairs {
            let panel = &w[pair * k..(pair + 1) * k];
            match m {
                0 => {}
                1 => pair_tile::<_, _, 1>(v, panel, x, y, pair),
                2 => pair_tile::<_, _, 2>(v, panel, x, y, pair),
                _ => {
                    for half in 0..2.min(groups.end - 2 * pair) {
                        for (row, rows) in Tiles::new(0..m, V::ROWS_F32) {
                            let x = &x[row * k..(row + rows) * k];
                            let column = (2 * pair + half) * LANES;
                            with_rows!(rows, V::ROWS_F32, half_tile[_ _](v, panel, half, x, row, y, column));
                        }
                    }
                }
            }
        }
        return;
    }
    // Weights are read for several tiles: widened once, each group by itself.
    if wide.len() < 2 * k {
        wide.resize(2 * k, [0.0; LANES]);
    }
    // The scratch may have grown for wider matrices.
    let (first, second) = wide[..2 * k].split_at_mut(k);
    let at_once = rows_in_cache(k * size_of::<f32>(), V::ROWS_F32);
    let mut row = 0;
    while row < m {
        let end = m.min(row + at_once);
        for pair in pairs.clone() {
            let panel = &w[pair * k..(pair + 1) * k];
            for ((first, second), pair) in first.iter_mut().zip(second.iter_mut()).zip(panel) {
                v.store(E::load(v, &pair.0[0]), first);
                v.store(E::load(v, &pair.0[1]), second);
            }
            panel_rows(v, first, x, row..end, y, 2 * pair * LANES);
            if 2 * pair + 1 < groups.end {
                panel_rows(v, second, x, row..end, y, (2 * pair + 1) * LANES);
            }
        }
        row = end;
    }
}

/// A pair of groups at once: two chains of additions for each row, which is what one row needs to keep up with
/// memory.
#[inline(always)]
fn pair_tile<V: Simd, E: Element, const M: usize>(v: V, w: &[Pair<E>], x: &[f32], y: &mut Columns<'_>, pair: usize) {
    let mut out = [[v.splat(0.0); 2]; M];
    for (w, x) in w.iter().zip(x.as_chunks::<M>().0) {
        let w = [E::load(v, &w.0[0]), E::load(v, &w.0[1])];
        for i in 0..M {
            let x = v.splat(x[i]);
            out[i][0] = v.add(out[i][0], v.mul(x, w[0]));
            out[i][1] = v.add(out[i][1], v.mul(x, w[1]));
        }
    }
    let both = 2 * pair + 1 < y.groups().end;
    for (i, &[first, second]) in out.iter().enumerate() {
        y.store(v, first, i, 2 * pair * LANES);
        if both {
            y.store(v, second, i, (2 * pair + 1) * LANES);
        }
    }
}

/// One group of a pair.
#[inline(always)]
fn half_tile<V: Simd, E: Element, const M: usize>(
    v: V,
    w: &[Pair<E>],
    half: usize,
    x: &[f32],
    row: usize,
    y: &mut Columns<'_>,
    column: usize,
) {
    let mut out = [v.splat(0.0); M];
    for (w, x) in w.iter().zip(x.as_chunks::<M>().0) {
        let w = E::load(v, &w.0[half]);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.splat(x[i]), w));
        }
    }
    for (i, &out) in out.iter().enumerate() {
        y.store(v, out, row + i, column);
    }
}

/// One group of 16 rows of weights, `[k]`, for the columns of y from `column` on.
#[inline(always)]
fn panel_in<V: Simd>(v: V, panel: &[[f32; LANES]], x: &[f32], y: &mut Columns<'_>, column: usize) {
    panel_rows(v, panel, x, 0..x.len() / panel.len(), y, column);
}

/// The same for some of the rows, whole tiles.
#[inline(always)]
fn panel_rows<V: Simd>(
    v: V,
    panel: &[[f32; LANES]],
    x: &[f32],
    rows: Range<usize>,
    y: &mut Columns<'_>,
    column: usize,
) {
    let k = panel.len();
    for (row, rows) in Tiles::new(rows, V::ROWS_F32) {
        let x = &x[row * k..(row + rows) * k];
        with_rows!(rows, V::ROWS_F32, plain_tile[_](v, panel, x, row, y, column));
    }
}

#[inline(always)]
fn plain_tile<V: Simd, const M: usize>(
    v: V,
    w: &[[f32; LANES]],
    x: &[f32],
    row: usize,
    y: &mut Columns<'_>,
    column: usize,
) {
    let mut out = [v.splat(0.0); M];
    for (w, x) in w.iter().zip(x.as_chunks::<M>().0) {
        let w = v.load(w);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.splat(x[i]), w));
        }
    }
    for (i, &out) in out.iter().enumerate() {
        y.store(v, out, row + i, column);
    }
}

/// Lays rows out by tiles: `[tiles][k][rows of the tile]`.
#[inline(always)]
fn tile_rows_in<V: Simd>(_: V, x: &[f32], k: usize, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    for (row, rows) in Tiles::new(0..x.len() / k, V::ROWS_F32) {
        let range = row * k..(row + rows) * k;
        let (x, out) = (&x[range.clone()], &mut out[range]);
        for (i, x) in x.chunks_exact(k).enumerate() {
            for (out, &x) in out[i..].iter_mut().step_by(rows).zip(x) {
                *out = x;
            }
        }
    }
}

super::dispatch!(pub(super) fn tile_rows(x: &[f32], k: usize, out: &mut Vec<f32>) = tile_rows_in);
super::dispatch!(pub(super) fn q8(w: &Q8, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
super::dispatch!(
    pub(super) fn panel(panel: &[[f32; LANES]], x: &[f32], y: &mut Columns<'_>, column: usize) = panel_in
);
super::dispatch!(
    pub(super) fn plain_f32(w: &[Pair<f32>], x: &[f32], k: usize, y: &mut Columns<'_>, wide: &mut Vec<[f32; LANES]>) = plain_in
);
super::dispatch!(
    pub(super) fn plain_f16(w: &[Pair<F16>], x: &[f32], k: usize, y: &mut Columns<'_>, wide: &mut Vec<[f32; LANES]>) = plain_in
);
super::dispatch!(
    pub(super) fn plain_bf16(w: &[Pair<BF16>], x: &[f32], k: usize, y: &mut Columns<'_>, wide: &mut Vec<[f32; LANES]>) = plain_in
);
