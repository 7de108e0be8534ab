//! Activations as int8: blocks of 32 values along a row, each with an f32 scale.

use super::Kernels;
use super::simd::{LANES, Simd};

/// Values that share a scale, in activations as in Q8_0 weights.
pub(crate) const BLOCK: usize = 32;

/// Rows of quantised activations, kept between products so that steady-state work allocates nothing.
#[derive(Default)]
pub(crate) struct Activations {
    /// `[rows, blocks, 32]`, each in [-127, 127].
    pub(crate) values: Vec<[i8; BLOCK]>,
    /// `[rows, blocks]`: value times scale approximates the activation.
    pub(crate) scales: Vec<f32>,
    /// `[rows, blocks]`: what the integer sum of a block starts from, -128 · Σ values where weights are stored
    /// flipped (w xor 0x80 = w + 128 as an unsigned byte), 0 elsewhere.
    pub(crate) starts: Vec<i32>,
}

/// Quantises `x` (rows of a whole number of blocks): scale = absmax / 127, value = x · (127 / absmax) rounded to the
/// nearest, half to even. Blocks with an absmax under 1e-30 become zero; a NaN or infinity makes the block's scale
/// NaN or infinite, so the product shows it.
#[inline(always)]
fn quantize_in<V: Simd>(v: V, x: &[f32], out: &mut Activations) {
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "rows are whole blocks");
    out.values.resize(blocks.len(), [0; BLOCK]);
    out.scales.resize(blocks.len(), 0.0);
    out.starts.resize(blocks.len(), 0);
    let outputs = out.values.iter_mut().zip(&mut out.scales).zip(&mut out.starts);
    for (x, ((values, scale), start)) in blocks.iter().zip(outputs) {
        let (low, high) = halves(x);
        let (low, high) = (v.load(low), v.load(high));
        let absmax = absmax(v, low, high);
        let inverse = if absmax < 1e-30 { 0.0 } else { 127.0 / absmax };
        *scale = if absmax < 1e-30 { 0.0 } else { absmax * (1.0 / 127.0) };

        // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits; the low byte is the value.
        let inverse = v.splat(inverse);
        let magic = v.splat(12_582_912.0);
        let low = v.bits(v.add(v.mul(low, inverse), magic));
        let high = v.bits(v.add(v.mul(high, inverse), magic));
        let (low_out, high_out) = values.split_at_mut(LANES);
        v.store_i8(low, low_out.as_mut_array().expect("half a block"));
        v.store_i8(high, high_out.as_mut_array().expect("half a block"));
        if V::FLIP != 0 {
            *start = -128 * values.iter().map(|&q| i32::from(q)).sum::<i32>();
        }
    }
}

#[inline(always)]
fn halves(x: &[f32; BLOCK]) -> (&[f32; LANES], &[f32; LANES]) {
    let (halves, _) = x.as_chunks::<LANES>();
    (&halves[0], &halves[1])
}

/// The largest magnitude, compared as integers so that NaN counts as the largest.
#[inline(always)]
fn absmax<V: Simd>(v: V, low: V::F, high: V::F) -> f32 {
    let magnitude = v.splat_i32(0x7fff_ffff);
    let max = v.max_i32(v.and_i32(v.bits(low), magnitude), v.and_i32(v.bits(high), magnitude));
    let mut lanes = [0; LANES];
    v.store_i32(max, &mut lanes);
    f32::from_bits(lanes.into_iter().fold(0, i32::max) as u32)
}

super::dispatch!(pub(super) fn quantize(x: &[f32], out: &mut Activations) = quantize_in);
