//! Floats as integers with a scale, in a few operations.

use super::simd::Simd;

/// 1.5 · 2^23: adding it rounds to an integer, half to even, and leaves that in the low bits.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// Magnitudes as integers, which compare as the numbers do; NaN counts as the largest.
#[inline(always)]
pub(crate) fn magnitudes<V: Simd>(v: V, x: V::F) -> V::I {
    v.and_i32(v.bits(x), v.splat_i32(0x7fff_ffff))
}

/// The scale of values of a largest of [`magnitudes`] as integers up to `limit`, and what they are multiplied by before they are
/// rounded. Magnitudes under 1e-30 become zero; where the largest is infinite or NaN the scale is NaN, so the result
/// shows it.
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
