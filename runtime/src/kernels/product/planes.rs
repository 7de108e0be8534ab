//! Products of int8 weights in two planes.

use super::{
    AHEAD, Blocks, Group, Place, ahead_of, blocks_in, groups_in, run_tile, scaled_tile, scales_ahead_of, starts_at,
};
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::{Dot, joined};
use crate::kernels::isa::dispatch;
use crate::kernels::layout::{Order, STEPS};
use crate::kernels::pack::planes::{Plane, Planes};
use crate::kernels::pack::q8::WeightBlock;
use crate::kernels::simd::{F16, LANES};

impl<'a> Group<(&'a Plane, &'a Plane)> for (&'a [Plane], &'a [Plane]) {
    #[inline(always)]
    fn block(&self, index: usize) -> (&'a Plane, &'a Plane) {
        (&self.0[index], &self.1[index])
    }
}

/// Whether joined nibbles lie as int8 weights do.
const fn joins<V: Dot>() -> bool {
    !matches!(V::LAYOUT.order, Order::Halves)
}

/// Rows meet the planes as they lie.
impl Blocks for Planes {
    #[inline(always)]
    fn rows<V: Dot>() -> usize {
        if joins::<V>() { 1 } else { V::ROWS_Q8 }
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
        let range = group * blocks..(group + 1) * blocks;
        let weights = (&self.upper[range.clone()], &self.lower[range.clone()]);
        let weight_scales = &self.scales[range];
        let first = group * blocks;
        let upper = ahead_of::<V, M, _>(&self.upper, first, blocks, place);
        let lower = ahead_of::<V, M, _>(&self.lower, first, blocks, place);
        let ahead = ([upper, lower], scales_ahead_of::<V, M, _>(&self.scales, first, blocks, place));
        scaled_tile::<V, _, _, 2, M>(v, weights, weight_scales, ahead, starts_at::<V>(), a, (group, place.row), y);
    }
}

/// A group of weights whose planes were joined, and its scales.
struct Joined<'a>(&'a [WeightBlock], &'a [[F16; LANES]]);

impl Blocks for Joined<'_> {
    #[inline(always)]
    fn tile<V: Dot, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        _blocks: usize,
        place: Place,
        y: &mut Columns<'_>,
    ) {
        run_tile::<V, 1, M, false>(v, [(self.0, self.1)], 1, (&[], &[]), a, (group, place.row), y);
    }
}

/// The full product, with the bits that [`crate::kernels::pack::q8::Q8`] gives. Activations start as its do. For more
/// than one row, planes are joined once, into `scratch`: it costs as much as the product of several rows. Where int8
/// weights lie otherwise than planes do, each tile joins them in its registers.
#[inline(always)]
fn planes_in<V: Dot>(
    v: V,
    w: &Planes,
    a: &Activations,
    blocks: usize,
    y: &mut Columns<'_>,
    scratch: &mut Vec<WeightBlock>,
) {
    let rows = a.values.len() / blocks;
    if rows == 1 || !joins::<V>() {
        return blocks_in(v, w, a, blocks, y);
    }
    if scratch.len() < blocks {
        scratch.resize(blocks, WeightBlock([[0; _]; STEPS]));
    }
    let scratch = &mut scratch[..blocks];
    let fetches = V::PREFETCHES && !(rows <= V::ROWS_Q8 && v.reads_near_weights());
    for group in y.groups() {
        for b in 0..blocks {
            let at = group * blocks + b;
            if fetches && at + AHEAD < w.upper.len() {
                v.prefetch(&w.upper[at + AHEAD]);
                v.prefetch(&w.lower[at + AHEAD]);
                v.prefetch(&w.scales[at + AHEAD]);
            }
            let (upper, lower) = (&w.upper[at].0, &w.lower[at].0);
            let pairs = scratch[b].0.as_chunks_mut::<2>().0;
            for pair in 0..pairs.len() {
                pairs[pair] = joined(&upper[pair], &lower[pair], 0x80 ^ v.flip());
            }
        }
        let scales = &w.scales[group * blocks..(group + 1) * blocks];
        groups_in(v, &Joined(scratch, scales), group..group + 1, a, blocks, y);
    }
}

dispatch!(
    pub(crate) fn planes(
        w: &Planes,
        a: &Activations,
        blocks: usize,
        y: &mut Columns<'_>,
        scratch: &mut Vec<WeightBlock>
    ) = planes_in
);
