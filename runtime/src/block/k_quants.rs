//! Super-blocks of 256 values: Q4_K, Q5_K, Q6_K.

use super::half_at;

/// The eight six-bit scales and minima that Q4_K and Q5_K pack into twelve bytes.
pub(crate) fn unpack_scales(s: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = s[j] & 63;
        mins[j] = s[j + 4] & 63;
        scales[j + 4] = s[j + 8] & 15 | s[j] >> 6 << 4;
        mins[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The inverse of [`unpack_scales`] for numbers below 64.
pub(super) fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut s = [0; 12];
    for j in 0..4 {
        s[j] = scales[j] | scales[j + 4] >> 4 << 6;
        s[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        s[j + 8] = scales[j + 4] & 15 | (mins[j + 4] & 15) << 4;
    }
    s
}

/// `h d, h dmin, 12 bytes of scales and minima, 128 bytes`: eight sub-blocks of 32 values,
/// x = d scale n - dmin min. Sub-blocks 2g and 2g + 1 are the low and high nibbles of the g-th 32 bytes.
pub(super) fn decode_q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scales, mins) = scaled(block);
    for (g, (bytes, out)) in block[16..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0).enumerate() {
        for (l, &byte) in bytes.iter().enumerate() {
            out[l] = scales[2 * g] * f32::from(byte & 15) - mins[2 * g];
            out[l + 32] = scales[2 * g + 1] * f32::from(byte >> 4) - mins[2 * g + 1];
        }
    }
}

/// As Q4_K with 32 bytes of fifth bits before the nibbles: bit s of byte l belongs to value l of sub-block s.
pub(super) fn decode_q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scales, mins) = scaled(block);
    let high = &block[16..48];
    for (g, (bytes, out)) in block[48..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0).enumerate() {
        for (l, &byte) in bytes.iter().enumerate() {
            let fifth = |sub: usize| (high[l] >> sub & 1) << 4;
            out[l] = scales[2 * g] * f32::from(byte & 15 | fifth(2 * g)) - mins[2 * g];
            out[l + 32] = scales[2 * g + 1] * f32::from(byte >> 4 | fifth(2 * g + 1)) - mins[2 * g + 1];
        }
    }
}

/// d × scale and dmin × min of the eight sub-blocks of Q4_K and Q5_K.
fn scaled(block: &[u8]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, mins) = unpack_scales(block[4..16].try_into().expect("twelve bytes"));
    (scales.map(|scale| d * f32::from(scale)), mins.map(|min| dmin * f32::from(min)))
}

/// `128 bytes of low nibbles, 64 bytes of high pairs, 16 × i8 scales, h d`: sixteen sub-blocks of 16 values,
/// x = d scale (n - 32), in two halves of 128 values.
pub(super) fn decode_q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = &block[64 * half..64 * half + 64];
        let high = &block[128 + 32 * half..128 + 32 * half + 32];
        let scales = &block[192 + 8 * half..192 + 8 * half + 8];
        for l in 0..32 {
            let nibbles = [low[l] & 15, low[l + 32] & 15, low[l] >> 4, low[l + 32] >> 4];
            for (quarter, nibble) in nibbles.into_iter().enumerate() {
                let n = nibble | (high[l] >> (2 * quarter) & 3) << 4;
                let scale = d * f32::from(scales[l / 16 + 2 * quarter] as i8);
                out[l + 32 * quarter] = scale * (f32::from(n) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_minima_survive_packing() {
        let (scales, mins) = ([1, 2, 3, 4, 5, 6, 7, 8], [11, 12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(unpack_scales(&pack_scales(&scales, &mins)), (scales, mins));
        assert_eq!(pack_scales(&scales, &mins), [1, 2, 3, 4, 11, 76, 77, 78, 0xF5, 0x06, 0x17, 0x28]);
        let (scales, mins) = ([63, 0, 63, 0, 0, 63, 15, 48], [0, 63, 16, 47, 63, 0, 33, 63]);
        assert_eq!(unpack_scales(&pack_scales(&scales, &mins)), (scales, mins));
    }
}
