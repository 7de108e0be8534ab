//! Elementary functions that vectorise: polynomials instead of calls into the C library.

use t5_runtime::kernels::math::{GELU_SPREAD, GELU_TAIL};

/// `e^x` with a relative error below 3e-7; 0 below -87.3, capped at e^88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    // Cephes' polynomial for e^r, |r| <= ln(2)/2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    let scaled = f32::from_bits(value.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.3 { 0.0 } else { scaled }
}

/// Hyperbolic tangent with an absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

const GELU_SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)
const GELU_CUBE: f32 = 0.044_715;

/// The tanh form of GELU and its derivative.
#[inline(always)]
pub fn gelu_new(x: f32) -> (f32, f32) {
    let t = tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x));
    let half = 0.5 * (1.0 + t);
    let slope = 0.5 * x * (1.0 - t * t) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x);
    (x * half, half + slope)
}

/// GELU itself, x Φ(x), and its derivative: the runtime's polynomial for Φ.
#[inline(always)]
pub fn gelu(x: f32) -> (f32, f32) {
    const PER_SQRT_TAU: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
    let t = x.abs();
    let s = 1.0 / (1.0 + GELU_SPREAD * t);
    let mut p = GELU_TAIL[0];
    for &c in &GELU_TAIL[1..] {
        p = p * s + c;
    }
    let e = exp(-0.5 * t * t);
    let tail = e * s * p;
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (x * below, below + x * e * PER_SQRT_TAU)
}

/// `x * sigmoid(x)` and its derivative.
#[inline(always)]
pub fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// `max(x, 0)` and its derivative.
#[inline(always)]
pub fn relu(x: f32) -> (f32, f32) {
    if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let expected = (x as f64).exp();
            worst = worst.max(((exp(x) as f64 - expected) / expected).abs());
        }
        assert!(worst < 3e-7, "relative error {worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn activations_are_the_specification_s() {
        // docs/t5.md 8.1.
        for (x, expected) in [(-1.0, -0.158_808), (1.0, 0.841_192), (3.0, 2.996_362_6)] {
            assert!((gelu_new(x).0 - expected).abs() < 1e-6);
        }
        for (x, expected) in [(-1.0, -0.158_655_25), (1.0, 0.841_344_8), (3.0, 2.995_950_3)] {
            assert!((gelu(x).0 - expected).abs() < 1e-6);
        }
        for function in [gelu, gelu_new, silu, relu] {
            for i in -60..60 {
                let x = i as f32 * 0.1 + 0.05;
                let step = 1e-2;
                let slope = (function(x + step).0 as f64 - function(x - step).0 as f64) / (2.0 * step as f64);
                assert!((slope - function(x).1 as f64).abs() < 1e-3, "at {x}: {slope} {}", function(x).1);
            }
        }
    }
}
