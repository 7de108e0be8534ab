//! Blocks of 32 values: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. `h` is a half-precision number.

use super::half_at;

/// `h d, 32 × i8 q`: x = d q.
pub(super) fn decode_q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q as i8);
    }
}

/// `h d, 16 bytes`: byte j holds value j in its low nibble and value j + 16 in its high one; x = d (n - 8).
pub(super) fn decode_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, &byte) in block[2..].iter().enumerate() {
        out[j] = d * (f32::from(byte & 15) - 8.0);
        out[j + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
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
