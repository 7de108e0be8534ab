//! Floats as integers with a scale, in a few operations.

use super::simd::Simd;

/// 1.5 · 2^23. Adding it to a small number rounds that to an integer, half to even, and leaves it in the low bits.
pub(crate) const ROUNDING: f32 = 12_582_912.0;

/// Magnitudes as integers, which compare as the numbers do; NaN counts as the largest.
#[inline(always)]
pub(crate) fn magnitudes<V: Simd>(v: V, x: V::F) -> V::I {
    v.and_i32(v.bits(x), v.splat_i32(0x7fff_ffff))
}

/// The scale with which values become integers up to `limit`, and its inverse, by which they are multiplied before they
/// are rounded; `absmax` is the largest of their [`magnitudes`]. If that is under 1e-30, all become zero. If it is
/// infinite or NaN, the scale is NaN, so that the result shows it.
#[inline(always)]
pub(crate) fn scale_of(absmax: i32, limit: f32) -> (f32, f32) {
    let absmax = f32::from_bits(absmax as u32);
    if absmax < 1e-30 {
        (0.0, 0.0)
    } else if absmax < f32::INFINITY {
        (absmax * (1.0 / limit), limit / absmax)
    } else {
        (f32::NAN, 0.0)
    }
}
