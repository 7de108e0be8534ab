//! Products of int8 weights in two planes.

use super::{Blocks, Group, Place, ahead_of, blocks_in, scaled_tile, scales_ahead_of, starts_at};
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::Dot;
use crate::kernels::isa::dispatch;
use crate::kernels::pack::planes::{Plane, Planes};

impl<'a> Group<(&'a Plane, &'a Plane)> for (&'a [Plane], &'a [Plane]) {
    #[inline(always)]
    fn block(&self, index: usize) -> (&'a Plane, &'a Plane) {
        (&self.0[index], &self.1[index])
    }
}

/// The full product, with the bits that [`crate::kernels::pack::q8::Q8`] gives. Activations start as its do.
impl Blocks for Planes {
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

dispatch!(pub(crate) fn planes(w: &Planes, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
