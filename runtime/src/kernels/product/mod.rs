//! Products `y[m, n] = x[m, k] W^T`, generic over the instruction set. This is where the time goes.
//!
//! Each value of y is the sum over k in order: run after run of blocks for Q8_0 (the run's exact integer sum, as f32,
//! times the product of both scales; a run is one block but in files whose blocks share scales), value after value for
//! plain types. A register tile of several rows of x only re-uses what is loaded; it never changes that order, so a
//! row's result does not depend on the rows beside it.
//!
//! ```text
//! for rows of x that fit the second-level cache
//!     for each group of 16 rows of W            one panel, [k, 16]: stays in the first-level cache
//!         for each tile of up to M rows of x    16 M sums in registers
//!             for j in 0..k                     one vector of W meets M broadcast values of x
//! ```
//!
//! One group at a time and many rows, rather than a squarer tile, because AVX-512 multiplies by a value broadcast
//! from memory at no cost, while a broadcast into a register takes a slot of the multipliers on Zen 4 (100 against
//! 73 % of the peak). Where it takes none, two groups at once need fewer loads: [`Dot::pairs_groups`]. x is laid out
//! by tiles for another reason, too: rows a power of two apart would fall into the same cache sets.
//!
//! Hot loops here and in the other generic kernels call nothing that a program's settings decide about. With few things
//! optimised at once (`codegen-units` above one, `lto = "off"`) functions of the standard library stay calls in one
//! with other features than their own: `map` of an array, the steps of iterators zipped around a third. That was 5 to
//! 20 times as slow, until loops counted instead. And a closure that is not inlined is compiled without the instruction
//! set, so that every operation in it becomes a function call.

pub(crate) mod floats;
pub(crate) mod nibbles;
mod on_tiles;
pub(crate) mod planes;

use std::ops::Range;

use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::{self, Dot, Steps};
use crate::kernels::isa::dispatch;
use crate::kernels::layout::STEPS;
use crate::kernels::pack::q8::{Q8, WeightBlock};
use crate::kernels::simd::{F16, LANES};
use crate::kernels::tiles::{Tiles, rows_in_cache, with_rows};

/// Weights in blocks of 32 that meet quantised activations, in groups of 16 rows.
pub(crate) trait Blocks {
    /// Groups that a tile takes at once.
    const GROUPS: usize = 1;

    /// Rows of activations that a tile takes at once.
    #[inline(always)]
    fn rows<V: Dot>() -> usize {
        V::ROWS_Q8
    }

    /// The products of a group, or of [`Blocks::GROUPS`] from this one on, with `M` rows of activations; a row has
    /// `blocks` blocks.
    fn tile<V: Dot, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        place: Place,
        y: &mut Columns<'_>,
    );
}

/// The product of block weights, in the order of the module's head.
#[inline(always)]
pub(crate) fn blocks_in<V: Dot, W: Blocks>(v: V, w: &W, a: &Activations, blocks: usize, y: &mut Columns<'_>) {
    groups_in(v, w, y.groups(), a, blocks, y);
}

/// The columns of these groups.
#[inline(always)]
fn groups_in<V: Dot, W: Blocks>(
    v: V,
    w: &W,
    groups: Range<usize>,
    a: &Activations,
    blocks: usize,
    y: &mut Columns<'_>,
) {
    let m = a.values.len() / blocks;
    let at_once = rows_in_cache(blocks * size_of::<V::Block>(), W::rows::<V>());
    let mut first = 0;
    while first < m {
        let end = m.min(first + at_once);
        for group in groups.clone().step_by(W::GROUPS) {
            for (row, rows) in Tiles::new(first..end, W::rows::<V>()) {
                let place = Place { row, begin: first, end, near: v.reads_near_weights() };
                with_rows!(rows, W::rows::<V>(), block_tile[_ _](v, w, group, a, blocks, place, y));
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
    place: Place,
    y: &mut Columns<'_>,
) {
    w.tile::<V, M>(v, group, a, blocks, place, y);
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

/// A tile's first row, and the rows that meet the same weights, one tile after the other.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    row: usize,
    begin: usize,
    end: usize,
    /// [`Dot::reads_near_weights`]
    near: bool,
}

impl Place {
    /// Whether no other tile than this one of `M` rows meets the weights.
    #[inline(always)]
    fn is_alone<const M: usize>(self) -> bool {
        self.end - self.begin <= M
    }
}

/// How far ahead of the products weights are fetched where one tile meets them, in blocks.
const AHEAD: usize = 16;

/// Weights that a tile of `M` rows is to prefetch: its share of the `blocks` blocks behind those from `first` on, which
/// it meets now, as far as there are any. Where it is alone with them they are nearer.
#[inline(always)]
pub(crate) fn ahead_of<V: Dot, const M: usize, T>(weights: &[T], first: usize, blocks: usize, place: Place) -> &[T] {
    let distance = if place.is_alone::<M>() { AHEAD } else { blocks };
    share_of::<V, M, T>(weights, first + distance, blocks, place)
}

/// The same of their scales, for tiles that are not alone: a single one reads so few that the processor sees to them.
#[inline(always)]
pub(crate) fn scales_ahead_of<V: Dot, const M: usize, T>(
    scales: &[T],
    first: usize,
    blocks: usize,
    place: Place,
) -> &[T] {
    if place.is_alone::<M>() {
        return &[];
    }
    share_of::<V, M, T>(scales, first + blocks, blocks, place)
}

/// A tile's share of `blocks` blocks of weights from block `first` on.
///
/// The processor looks ahead by itself, but its prefetching stops at every page, and what it does out of order spans
/// fewer weights the more rows meet each of them: from memory, one row is 1.4 times faster for it (Zen 5; 1.1 to 1.4
/// with its other instruction sets), four rows are 1.3 to 1.5 and eight 1.6 times faster (an Intel Xeon with AVX-512
/// VNNI). From its caches it makes no difference there, and on Zen 5 it is slower, so that [`Dot::reads_near_weights`]
/// leaves it out. One tile alone would wait for what many can fetch meanwhile: with shares the encoder of flan-t5-small
/// takes 3 % less for 128 tokens, and 9 % less again since the weights' scales are fetched, too (Zen 5). The last row
/// of many has no share.
#[inline(always)]
fn share_of<V: Dot, const M: usize, T>(weights: &[T], first: usize, blocks: usize, place: Place) -> &[T] {
    let alone = place.is_alone::<M>();
    if !V::PREFETCHES || (M == 1 && !alone) || (alone && place.near) {
        return &[];
    }
    let share = blocks.div_ceil(((place.end - place.begin) / M).max(1));
    let tile = (place.row - place.begin) / M;
    let (begin, end) = ((tile * share).min(blocks), ((tile + 1) * share).min(blocks));
    &weights[weights.len().min(first + begin)..weights.len().min(first + end)]
}

/// Whether sums of int8 weights may start from anything but zero.
#[inline(always)]
pub(crate) fn starts_at<V: Dot>() -> bool {
    V::LAYOUT.flip != 0
}

/// A group's blocks of weights, wherever their parts lie.
pub(crate) trait Group<B> {
    fn block(&self, index: usize) -> B;
}

impl<'a, B> Group<&'a B> for &'a [B] {
    #[inline(always)]
    fn block(&self, index: usize) -> &'a B {
        &self[index]
    }
}

/// A tile of weights of which each block has one scale a row: `weights` and their scales are a group's, those `ahead`
/// are fetched meanwhile, and sums start from the activations' starts if `started`. `place` is the group and the first
/// row.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // what the three kinds of such weights differ in, and the tile
pub(crate) fn scaled_tile<V: Dot, B: Steps, T, const AHEAD: usize, const M: usize>(
    v: V,
    weights: impl Group<B>,
    weight_scales: &[[F16; LANES]],
    ahead: ([&[T]; AHEAD], &[[F16; LANES]]),
    started: bool,
    a: &Activations,
    place: (usize, usize),
    y: &mut Columns<'_>,
) {
    let (group, row) = place;
    let blocks = weight_scales.len();
    let (values, scales, starts) = tile_of::<V, M>(a, row, blocks);
    let (values, scales, starts) = (&values[..blocks], &scales[..blocks], &starts[..blocks]);
    let mut out = [v.splat(0.0); M];
    for b in 0..blocks {
        for i in 0..AHEAD {
            if let Some(weights) = ahead.0[i].get(b) {
                v.prefetch(weights);
            }
        }
        if let Some(scales) = ahead.1.get(b) {
            v.prefetch(scales);
        }
        let mut sums = [v.splat_i32(0); M];
        if started {
            for i in 0..M {
                sums[i] = v.splat_i32(starts[b][i]);
            }
        }
        v.dot_blocks(&mut sums, std::slice::from_ref(&weights.block(b)), std::slice::from_ref(&values[b]));
        let d = v.load_finite(&weight_scales[b]);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.to_f32(sums[i]), v.mul(d, v.splat(scales[b][i]))));
        }
    }
    for i in 0..M {
        y.store(v, out[i], row + i, group * LANES);
    }
}

/// A tile of int8 weights in runs of `run` blocks, each with one scale a row: `weights` and `scales` are those of `G`
/// neighbouring groups, those `ahead` are fetched meanwhile, and `place` is the first group and the first row. Where
/// runs are `LONG`, their fetching is spread; otherwise it comes before the sums, which it would push out of registers
/// (8 and 16 rows with runs of one block: 10 and 20 % slower).
#[inline(always)]
pub(crate) fn run_tile<V: Dot, const G: usize, const M: usize, const LONG: bool>(
    v: V,
    groups: [(&[WeightBlock], &[[F16; LANES]]); G],
    run: usize,
    ahead: (&[WeightBlock], &[[F16; LANES]]),
    a: &Activations,
    place: (usize, usize),
    y: &mut Columns<'_>,
) {
    let (group, row) = place;
    let blocks = groups[0].0.len();
    let range = row * (blocks / run)..(row + M) * (blocks / run);
    let values = V::blocks(a)[row * blocks..(row + M) * blocks].as_chunks::<M>().0;
    let (scales, starts) = (a.scales[range.clone()].as_chunks::<M>().0, a.starts[range].as_chunks::<M>().0);
    let runs = blocks / run;
    let (scales, starts) = (&scales[..runs], &starts[..runs]);
    let mut out = [[v.splat(0.0); M]; G];
    for index in 0..runs {
        let first = index * run;
        let (values, scales, starts) = (&values[first..first + run], &scales[index], &starts[index]);
        let by_steps = M == 1 && !a.steps.is_empty();
        if !LONG && !by_steps {
            fetch(v, ahead, first..first + run);
        }
        let mut sums = [[v.splat_i32(0); M]; G];
        if starts_at::<V>() {
            for i in 0..M {
                for g in 0..G {
                    sums[g][i] = v.splat_i32(starts[i]);
                }
            }
        }
        if by_steps {
            let steps = &a.steps[first..first + run];
            // What zeros of scale zero would add is zero.
            let mut taken = 0;
            for b in 0..run {
                taken |= steps[b];
            }
            if taken == 0 && scales[0] == 0.0 {
                continue;
            }
            for b in 0..run {
                let mut left = steps[b];
                while left != 0 {
                    let step = left.trailing_zeros() as usize % STEPS;
                    left &= left - 1;
                    step_of(v, &mut sums, groups, first + b, step, &values[b]);
                }
            }
        } else if let [sums] = &mut sums[..] {
            if !LONG || ahead.0.is_empty() {
                v.dot_blocks(sums, &groups[0].0[first..first + run], values);
            } else {
                // A few lines with each block: many at once wait for one another.
                for b in 0..run {
                    fetch(v, ahead, first + b..first + b + 1);
                    v.dot_blocks(sums, &groups[0].0[first + b..first + b + 1], &values[b..b + 1]);
                }
            }
        } else {
            for b in 0..run {
                fetch(v, ahead, G * (first + b)..G * (first + b + 1));
                for step in 0..STEPS {
                    step_of(v, &mut sums, groups, first + b, step, &values[b]);
                }
            }
        }
        for g in 0..G {
            let d = v.load_finite(&groups[g].1[first]);
            for i in 0..M {
                out[g][i] = v.add(out[g][i], v.mul(v.to_f32(sums[g][i]), v.mul(d, v.splat(scales[i]))));
            }
        }
    }
    for g in 0..G {
        for i in 0..M {
            y.store(v, out[g][i], row + i, (group + g) * LANES);
        }
    }
}

/// Prefetches these blocks of weights and their scales, as far as there are any.
#[inline(always)]
fn fetch<V: Dot>(v: V, ahead: (&[WeightBlock], &[[F16; LANES]]), blocks: Range<usize>) {
    for b in blocks.start..ahead.0.len().min(blocks.end) {
        v.prefetch(&ahead.0[b]);
        if let Some(scales) = ahead.1.get(b) {
            v.prefetch(scales);
        }
    }
}

/// One step of a block of `G` groups of weights with a block of each of `M` rows.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // an iterator leaves sums in memory
fn step_of<V: Dot, const G: usize, const M: usize>(
    v: V,
    sums: &mut [[V::I; M]; G],
    groups: [(&[WeightBlock], &[[F16; LANES]]); G],
    block: usize,
    step: usize,
    values: &[V::Block; M],
) {
    let mut w = [v.weights(&groups[0].0[block].0[step]); G];
    for g in 1..G {
        w[g] = v.weights(&groups[g].0[block].0[step]);
    }
    for i in 0..M {
        let x = v.activations(values, i, step);
        for g in 0..G {
            sums[g][i] = v.dot(sums[g][i], w[g], x);
        }
    }
}

impl Q8 {
    /// Weights and scales of a group.
    #[inline(always)]
    fn group(&self, group: usize, blocks: usize) -> (&[WeightBlock], &[[F16; LANES]]) {
        let range = group * blocks..(group + 1) * blocks;
        (&self.weights[range.clone()], &self.scales[range])
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
        place: Place,
        y: &mut Columns<'_>,
    ) {
        let first = group * blocks;
        let ahead = (
            ahead_of::<V, M, _>(&self.weights, first, blocks, place),
            scales_ahead_of::<V, M, _>(&self.scales, first, blocks, place),
        );
        run_tile::<V, 1, M, false>(v, [self.group(group, blocks)], self.run, ahead, a, (group, place.row), y);
    }
}

/// Weights in runs of several blocks, `G` groups at once, for [`Dot::pairs_groups`].
struct InRuns<'a, const G: usize>(&'a Q8);

impl<const G: usize> Blocks for InRuns<'_, G> {
    const GROUPS: usize = G;

    #[inline(always)]
    fn rows<V: Dot>() -> usize {
        V::ROWS_OF_PAIRS
    }

    #[inline(always)]
    fn tile<V: Dot, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        place: Place,
        y: &mut Columns<'_>,
    ) {
        let mut groups = [self.0.group(group, blocks); G];
        for g in 1..G {
            groups[g] = self.0.group(group + g, blocks);
        }
        let (first, count) = (group * blocks, G * blocks);
        let ahead = (
            ahead_of::<V, M, _>(&self.0.weights, first, count, place),
            scales_ahead_of::<V, M, _>(&self.0.scales, first, count, place),
        );
        run_tile::<V, G, M, true>(v, groups, self.0.run, ahead, a, (group, place.row), y);
    }
}

#[inline(always)]
fn q8_in<V: Dot>(v: V, w: &Q8, a: &Activations, blocks: usize, y: &mut Columns<'_>) {
    if dot::on_tiles(v, w.run, y.rows()) {
        return on_tiles::q8_in(v, w, a, blocks, y);
    }
    if w.run == 1 || !v.pairs_groups() {
        return blocks_in(v, w, a, blocks, y);
    }
    let groups = y.groups();
    let rows = a.values.len() / blocks;
    // Few rows from memory have multipliers to spare, and one stream is read faster than two.
    let pairs = if rows <= V::ROWS_OF_PAIRS && !v.reads_near_weights() { 0 } else { groups.len() / 2 };
    let odd = groups.start + pairs * 2;
    groups_in(v, &InRuns::<2>(w), groups.start..odd, a, blocks, y);
    groups_in(v, &InRuns::<1>(w), odd..groups.end, a, blocks, y);
}

dispatch!(pub(crate) fn q8(w: &Q8, a: &Activations, blocks: usize, y: &mut Columns<'_>) = q8_in);
