//! Products of four-bit weights.
//!
//! A value of y is a sum over blocks of 32 in order. Each block adds, for its exact integer sum Σ n a of nibbles
//! times int8 activations,
//!
//! ```text
//! Q4_0: x = d (n - 8)              y += (Σ n a - 8 Σ a) (d s)
//! Q4_K: x = (d scale) n - dmin min  y += (Σ n a) ((d scale) s) - (dmin min) ((Σ a) s)
//! ```
//!
//! where s is the scale of the activations; d scale and dmin min are exact in f32.

use super::{Blocks, Place, ahead_of, blocks_in, scaled_tile, scales_ahead_of, tile_of};
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::Dot;
use crate::kernels::isa::dispatch;
use crate::kernels::pack::nibbles::{Q4, Q4K, SUBS};
use crate::kernels::simd::LANES;

/// Activations start from -8 Σ a.
impl Blocks for Q4 {
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
        let (weights, weight_scales) = (&self.weights[range.clone()], &self.scales[range]);
        let first = group * blocks;
        let ahead = (
            [ahead_of::<V, M, _>(&self.weights, first, blocks, place)],
            scales_ahead_of::<V, M, _>(&self.scales, first, blocks, place),
        );
        scaled_tile::<V, _, _, 1, M>(v, weights, weight_scales, ahead, true, a, (group, place.row), y);
    }
}

/// Activations start from Σ a.
impl Blocks for Q4K {
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
        let supers = blocks / SUBS;
        let weights = &self.weights[group * blocks..(group + 1) * blocks];
        let weight_scales = &self.scales[group * supers..(group + 1) * supers];
        let (values, scales, starts) = tile_of::<V, M>(a, place.row, blocks);
        let weights_ahead = ahead_of::<V, M, _>(&self.weights, group * blocks, blocks, place);
        let scales_ahead = scales_ahead_of::<V, M, _>(&self.scales, group * supers, supers, place);
        let mut out = [v.splat(0.0); M];
        let values = values.as_chunks::<SUBS>().0;
        let (scales, starts) = (scales.as_chunks::<SUBS>().0, starts.as_chunks::<SUBS>().0);
        let weights = weights.as_chunks::<SUBS>().0;
        let (weights, values) = (&weights[..supers], &values[..supers]);
        let (scales, starts, weight_scales) = (&scales[..supers], &starts[..supers], &weight_scales[..supers]);
        for index in 0..supers {
            let (weights, weight_scales, values) = (&weights[index], &weight_scales[index], &values[index]);
            let (scales, starts) = (&scales[index], &starts[index]);
            let (d, dmin) = (v.load_f16(&weight_scales.d), v.load_f16(&weight_scales.dmin));
            if let Some(scales) = scales_ahead.get(index) {
                v.prefetch(scales);
            }
            for sub in 0..SUBS {
                if let Some(weights) = weights_ahead.get(index * SUBS + sub) {
                    v.prefetch(weights);
                }
                let mut sums = [v.splat_i32(0); M];
                v.dot_blocks(&mut sums, &weights[sub..=sub], &values[sub..=sub]);
                let scale = v.mul(d, v.load_u8(&weight_scales.scales[sub]));
                let min = v.mul(dmin, v.load_u8(&weight_scales.mins[sub]));
                for i in 0..M {
                    let s = v.splat(scales[sub][i]);
                    let total = v.mul(v.to_f32(v.splat_i32(starts[sub][i])), s);
                    let product = v.mul(v.to_f32(sums[i]), v.mul(scale, s));
                    out[i] = v.add(out[i], v.sub(product, v.mul(min, total)));
                }
            }
        }
        for i in 0..M {
            y.store(v, out[i], place.row + i, group * LANES);
        }
    }
}

dispatch!(pub(crate) fn q4(w: &Q4, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
dispatch!(pub(crate) fn q4_k(w: &Q4K, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
