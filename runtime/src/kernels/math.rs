//! Elementary functions, defined by their operations so that every instruction set gives the same bits.

use super::rounding::ROUNDING;
use super::simd::Simd;

/// e^x with an error of at most 1.1 units in the last place (tested against f64).
///
/// Exactly 0 below -87.33 (where results would be subnormal), infinity above 88.7228, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<V: Simd>(v: V, x: V::F) -> V::F {
    // x = n ln 2 + r with |r| <= ln 2 / 2; n is left in the low bits.
    let rounding = v.splat(ROUNDING);
    let shifted = v.add(v.mul(x, v.splat(std::f32::consts::LOG2_E)), rounding);
    let n = v.sub(shifted, rounding);
    // ln 2 in two parts: the first has few enough bits that n times it is exact.
    let r = v.sub(v.sub(x, v.mul(n, v.splat(0.693_359_4))), v.mul(n, v.splat(-2.121_944_4e-4)));
    // e^r = 1 + r + r² q(r); q is the minimax polynomial of degree 4, relative error of e^r 3.1e-9.
    let mut q = v.splat(1.381_446_7e-3);
    for c in [8.368_781e-3, 4.166_839_3e-2, 0.166_665_2, 0.499_999_94] {
        q = v.add(v.mul(q, r), v.splat(c));
    }
    let e = v.add(v.add(v.mul(v.mul(r, r), q), r), v.splat(1.0));
    // Times 2^n by adding n to the exponent, which stays in range between the two limits.
    let e = v.of_bits(v.add_i32(v.bits(e), v.shift_left::<23>(v.bits(shifted))));
    let e = v.select_less(x, v.splat(-87.33), v.splat(0.0), e);
    v.select_less(v.splat(88.722_8), x, v.splat(f32::INFINITY), e)
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<V: Simd>(v: V, x: V::F) -> V::F {
    let e = exp(v, v.sub(v.splat(0.0), x));
    v.div(x, v.add(v.splat(1.0), e))
}

/// How far the normal distribution's tail is spread: its polynomial is in 1 / (1 + 0.27 t).
pub const GELU_SPREAD: f32 = 0.27;

/// The polynomial of GELU, highest power first: minimax, relative error of the tail 4.5e-8 for t up to 14.
pub const GELU_TAIL: [f32; 9] = [
    0.028_915_28,
    -0.126_255_27,
    0.169_291_39,
    -0.068_620_97,
    0.107_399_43,
    0.072_240_29,
    0.101_759_166,
    0.107_550_51,
    0.107_720_19,
];

/// x Φ(x) with the normal distribution Φ. Its tail beyond t = |x| is e^(-t²/2) s P(s), s = 1 / (1 + 0.27 t), so that
/// negative x suffer no cancellation, as 1 + erf does.
#[inline(always)]
pub(crate) fn gelu<V: Simd>(v: V, x: V::F) -> V::F {
    let zero = v.splat(0.0);
    let t = v.max(v.sub(zero, x), x);
    let s = v.div(v.splat(1.0), v.add(v.splat(1.0), v.mul(v.splat(GELU_SPREAD), t)));
    let mut p = v.splat(GELU_TAIL[0]);
    for c in &GELU_TAIL[1..] {
        p = v.add(v.mul(p, s), v.splat(*c));
    }
    let e = exp(v, v.mul(v.mul(v.splat(-0.5), t), t));
    let tail = v.mul(v.mul(t, e), v.mul(s, p));
    v.select_less(x, zero, v.sub(zero, tail), v.sub(t, tail))
}

/// The tanh form of GELU, `x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`, as x / (1 + e^-2u): the same function
/// without the cancellation that 1 + tanh suffers for negative x.
#[inline(always)]
pub(crate) fn gelu_new<V: Simd>(v: V, x: V::F) -> V::F {
    // -2 sqrt(2/π) = -1.5957691
    let x2 = v.mul(x, x);
    let inner = v.add(v.mul(v.mul(v.splat(0.044_715), x2), x), x);
    let e = exp(v, v.mul(v.splat(-1.595_769_2), inner));
    v.div(x, v.add(v.splat(1.0), e))
}

/// Natural logarithm of a positive normal number, through f64 arithmetic: nearly always correctly rounded, and
/// the same everywhere, unlike the platform's own.
pub(crate) fn ln(x: f32) -> f32 {
    if x.is_nan() || x <= 0.0 || x == f32::INFINITY {
        return if x == 0.0 {
            f32::NEG_INFINITY
        } else if x == f32::INFINITY {
            x
        } else {
            f32::NAN
        };
    }
    let bits = f64::from(x).to_bits();
    // x = 2^n m with m in [1/sqrt(2), sqrt(2))
    let mut n = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m >= std::f64::consts::SQRT_2 {
        m *= 0.5;
        n += 1;
    }
    // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172: ten terms leave 1e-17.
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut series = 0.0;
    for i in (0..10).rev() {
        series = series * s2 + 1.0 / f64::from(2 * i + 1);
    }
    (n as f64 * std::f64::consts::LN_2 + 2.0 * s * series) as f32
}

#[cfg(test)]
mod tests {
    use super::super::isa::scalar::Scalar;
    use super::super::simd::LANES;
    use super::*;

    fn one(f: impl Fn(Scalar, [f32; LANES]) -> [f32; LANES], x: f32) -> f32 {
        f(Scalar, [x; LANES])[0]
    }

    /// Distance in units in the last place of the true value.
    fn ulps(found: f32, truth: f64) -> f64 {
        let truth32 = truth as f32;
        let ulp = f64::from(f32::from_bits(truth32.abs().to_bits() + 1)) - f64::from(truth32.abs());
        (f64::from(found) - truth).abs() / ulp
    }

    #[test]
    fn exp_within_its_bound() {
        let mut worst = 0f64;
        let mut x = -87.33f32;
        while x < 88.72 {
            worst = worst.max(ulps(one(exp, x), f64::from(x).exp()));
            x += if cfg!(miri) { 3.7 } else { 0.000_731 };
        }
        assert!(worst < 1.1, "{worst} ulp");
        assert_eq!(one(exp, 0.0), 1.0);
        assert_eq!(one(exp, -0.0), 1.0);
        assert_eq!(one(exp, f32::NEG_INFINITY), 0.0);
        assert_eq!(one(exp, -87.34), 0.0);
        assert_eq!(one(exp, -1e30), 0.0);
        assert_eq!(one(exp, 88.73), f32::INFINITY);
        assert_eq!(one(exp, f32::INFINITY), f32::INFINITY);
        assert!(one(exp, f32::NAN).is_nan());
    }

    #[test]
    fn activations_within_their_bound() {
        // Where the exponential is large the argument's own rounding matters: |2u| / 2 ulp.
        let mut x = -9.0f32;
        while x < 30.0 {
            let d = f64::from(x);
            let silu_truth = d / (1.0 + (-d).exp());
            assert!(ulps(one(silu, x), silu_truth) < 4.0, "silu({x})");
            let u = (2.0 / std::f64::consts::PI).sqrt() * (d + 0.044_715 * d * d * d);
            let gelu_truth = d / (1.0 + (-2.0 * u).exp());
            assert!(
                (f64::from(one(gelu_new, x)) - gelu_truth).abs() < 3e-7 * gelu_truth.abs() * (1.0 + u.abs()),
                "gelu({x}) = {} not {gelu_truth}",
                one(gelu_new, x)
            );
            x += if cfg!(miri) { 1.9 } else { 0.001_3 };
        }
        // x and x Φ(x), by mpmath with 40 digits.
        for (x, truth) in [
            (-12.0f32, -2.131_778_534_493_215e-32),
            (-5.0, -1.433_257_859_395_969_6e-6),
            (-2.0, -0.045_500_263_896_358_42),
            (-1.0, -0.158_655_253_931_457_05),
            (-0.25, -0.100_323_418_579_269_07),
            (0.5, 0.345_731_230_637_007_04),
            (1.0, 0.841_344_746_068_542_9),
            (3.0, 2.995_950_305_905_11),
            (8.0, 7.999_999_999_999_995),
        ] {
            let found = f64::from(one(gelu, x));
            let bound = 4e-7 * f64::abs(truth) * (1.0 + f64::from(x * x) / 2.0);
            assert!((found - truth).abs() < bound, "gelu({x}) = {found} not {truth}");
        }
        for f in [silu, gelu_new, gelu] {
            assert_eq!(one(f, 0.0), 0.0);
            assert_eq!(one(f, -200.0), 0.0);
            assert_eq!(one(f, 200.0), 200.0);
            assert!(one(f, f32::NAN).is_nan());
        }
    }

    #[test]
    fn ln_is_the_nearest_value() {
        let mut bits = f32::MIN_POSITIVE.to_bits();
        let mut misrounded = 0;
        while bits < f32::MAX.to_bits() {
            let x = f32::from_bits(bits);
            let truth = f64::from(x).ln();
            if ln(x) != truth as f32 {
                misrounded += 1;
                assert!(ulps(ln(x), truth) < 0.500_1, "ln({x})");
            }
            bits += if cfg!(miri) { 20_000_011 } else { 20_011 };
        }
        assert!(misrounded < 3, "{misrounded} of 105,000 differ from the nearest value");
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
    }
}
