//! The largest product of weights in two planes: bounds read the upper plane only.

use super::{Groups, largest_in};
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::Dot;
use crate::kernels::isa::dispatch;
use crate::kernels::pack::planes::{Plane, Planes};
use crate::kernels::simd::LANES;

/// `Σ n a` of a block.
#[inline(always)]
fn dot_plane<V: Dot>(v: V, plane: &Plane, values: &V::Block) -> V::I {
    let mut sums = [v.splat_i32(0)];
    v.dot_blocks(&mut sums, std::slice::from_ref(plane), std::slice::from_ref(std::array::from_ref(values)));
    sums[0]
}

/// Upper bounds of the products of one row of activations of length `length`, which start from Σ a.
#[inline(always)]
fn bounds_in<V: Dot>(v: V, w: &Planes, a: &Activations, length: f32, y: &mut Columns<'_>) {
    let blocks = a.scales.len();
    for group in y.groups() {
        let range = group * blocks..(group + 1) * blocks;
        let mut out = v.splat(0.0);
        let (values, starts) = (&V::blocks(a)[..blocks], &a.starts[..blocks]);
        let (upper, scales) = (&w.upper[range.clone()], &w.scales[range]);
        for b in 0..blocks {
            let sums = v.shift_left::<4>(dot_plane(v, &upper[b], &values[b]));
            let sums = v.add_i32(sums, v.splat_i32(-120 * starts[b]));
            out = v.add(out, v.mul(v.to_f32(sums), v.mul(v.load_finite(&scales[b]), v.splat(a.scales[b]))));
        }
        y.store(v, v.add(out, v.mul(v.load(&w.errors[group]), v.splat(length))), 0, group * LANES);
    }
}

/// Weights and one row of activations, which start from Σ a.
struct ExactPlanes<'a>(&'a Planes, &'a Activations);

impl Groups for ExactPlanes<'_> {
    #[inline(always)]
    fn products<V: Dot>(&self, v: V, group: usize, products: &mut [f32; LANES]) {
        let &ExactPlanes(w, a) = self;
        let blocks = a.scales.len();
        let range = group * blocks..(group + 1) * blocks;
        let mut out = v.splat(0.0);
        let (values, starts) = (&V::blocks(a)[..blocks], &a.starts[..blocks]);
        let (upper, lower, scales) = (&w.upper[range.clone()], &w.lower[range.clone()], &w.scales[range]);
        for b in 0..blocks {
            let sums = v.shift_left::<4>(dot_plane(v, &upper[b], &values[b]));
            let sums = v.add_i32(sums, dot_plane(v, &lower[b], &values[b]));
            let sums = v.add_i32(sums, v.splat_i32(-128 * starts[b]));
            out = v.add(out, v.mul(v.to_f32(sums), v.mul(v.load_finite(&scales[b]), v.splat(a.scales[b]))));
        }
        v.store(out, products);
    }
}

/// The index of the largest product, the lowest one on ties.
#[inline(always)]
fn largest_of<V: Dot>(v: V, w: &Planes, a: &Activations, bounds: &[f32]) -> Option<usize> {
    largest_in(v, &ExactPlanes(w, a), &w.usefulness, bounds)
}

dispatch!(pub(crate) fn bounds(w: &Planes, a: &Activations, length: f32, y: &mut Columns<'_>) = bounds_in);
dispatch!(
    pub(crate) fn largest(w: &Planes, a: &Activations, bounds: &[f32]) -> Option<usize> = largest_of
);
