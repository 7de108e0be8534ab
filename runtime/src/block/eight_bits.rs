//! Numbers of eight bits (Micikevicius et al., FP8 Formats for Deep Learning, 2022), as torch reads them.

/// The values of all bytes of E4M3: sign, four bits of exponent (bias 7), three of mantissa. No infinity, one NaN.
const E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = e4m3_value(byte as u8);
        byte += 1;
    }
    values
};

const fn e4m3_value(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3 & 15) as u32, (byte & 7) as u32);
    let sign = (byte as u32 >> 7) << 31;
    match (exponent, mantissa) {
        (15, 7) => f32::from_bits(sign | 0x7fc0_0000),
        // Subnormal: eighths of 2^-6.
        (0, _) => {
            let value = mantissa as f32 / 512.0;
            if sign == 0 { value } else { -value }
        }
        _ => f32::from_bits(sign | (exponent + 120) << 23 | mantissa << 20),
    }
}

pub(super) fn e4m3(byte: u8) -> f32 {
    E4M3[byte as usize]
}

pub(super) fn e5m2(byte: u8) -> f32 {
    half::f16::from_bits(u16::from(byte) << 8).to_f32()
}
