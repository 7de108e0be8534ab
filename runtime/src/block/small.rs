//! Blocks of 32 values: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. `h` is a half-precision number.

use super::{half_at, put_half};

/// `h d, 32 × i8 q`: x = d q.
pub(super) fn decode_q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q as i8);
    }
}

/// Blocks that share d = max|x| / 127; q = x / d rounded half away from zero, with the f32 d; false where d is no
/// half-precision number.
pub(super) fn encode_q8_0(values: &[[f32; 32]], blocks: &mut [[u8; 34]]) -> bool {
    let d = values.as_flattened().iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
    let inverse = reciprocal(d);
    let mut fits = true;
    for (values, block) in values.iter().zip(blocks) {
        for (q, value) in block[2..].iter_mut().zip(values) {
            // The product is at most 127 and a little; the clamp is a promise to kernels.
            *q = (value * inverse).round().clamp(-127.0, 127.0) as i8 as u8;
        }
        fits &= put_half(block, 0, d).is_some();
    }
    fits
}

/// 1 / d, or 0 for blocks of zeros or of numbers so small that 1 / d overflows (their half-precision d is 0, too).
fn reciprocal(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// `h d, 16 bytes`: byte j holds value j in its low nibble and value j + 16 in its high one; x = d (n - 8).
pub(super) fn decode_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, &byte) in block[2..].iter().enumerate() {
        out[j] = d * (f32::from(byte & 15) - 8.0);
        out[j + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// d = the value of largest magnitude / -8, so that this value is exact; n = x / d + 8.5 cut to an integer.
pub(super) fn encode_q4_0(values: &[f32; 32], block: &mut [u8; 18]) -> bool {
    let largest = values.iter().fold(0f32, |max, &value| if value.abs() > max.abs() { value } else { max });
    let d = largest / -8.0;
    let inverse = reciprocal(d);
    let nibble = |value: f32| (value * inverse + 8.5).clamp(0.0, 15.0) as u8;
    for (j, byte) in block[2..].iter_mut().enumerate() {
        *byte = nibble(values[j]) | nibble(values[j + 16]) << 4;
    }
    put_half(block, 0, d).is_some()
}

/// `h d, h m, 16 bytes`: x = d n + m.
pub(super) fn decode_q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, &byte) in block[4..].iter().enumerate() {
        out[j] = d * f32::from(byte & 15) + m;
        out[j + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// `h d, u32 fifth bits, 16 bytes`: x = d (n - 16).
pub(super) fn decode_q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let high = high_bits(block, 2);
    for (j, &byte) in block[6..].iter().enumerate() {
        out[j] = d * (fifth(high, j, byte & 15) - 16.0);
        out[j + 16] = d * (fifth(high, j + 16, byte >> 4) - 16.0);
    }
}

/// `h d, h m, u32 fifth bits, 16 bytes`: x = d n + m.
pub(super) fn decode_q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high = high_bits(block, 4);
    for (j, &byte) in block[8..].iter().enumerate() {
        out[j] = d * fifth(high, j, byte & 15) + m;
        out[j + 16] = d * fifth(high, j + 16, byte >> 4) + m;
    }
}

fn high_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The five-bit number of a nibble and bit `i` of `high`.
fn fifth(high: u32, i: usize, nibble: u8) -> f32 {
    f32::from(nibble | ((high >> i & 1) as u8) << 4)
}
