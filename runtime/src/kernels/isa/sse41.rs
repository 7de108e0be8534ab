//! SSE4.1 with SSSE3: four registers for sixteen lanes, and [`super::avx2`]'s way of int8 products. For processors
//! without AVX2: Intel's before Haswell and its small cores before Gracemont, and virtual machines that hide it.

use std::arch::x86_64::*;

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// Proof that the processor has the features of [`detected`].
#[derive(Clone, Copy)]
pub(crate) struct Sse41(());

impl Sse41 {
    /// # Safety
    /// [`detected`] must have returned true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Sse41 {
        Sse41(())
    }
}

/// Whether the processor has every feature that is used here.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
}

type F = [__m128; 4];
type I = [__m128i; 4];

/// One operation on all four vectors, or all four pairs of them.
macro_rules! each {
    ($f:ident, $a:ident, $b:ident) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
    ($f:ident $(::<$bits:tt>)?, $a:ident) => {
        [$f$(::<$bits>)?($a[0]), $f$(::<$bits>)?($a[1]), $f$(::<$bits>)?($a[2]), $f$(::<$bits>)?($a[3])]
    };
}

/// Sixteen times four bytes as four vectors.
///
/// # Safety
/// `T` must be a plain type of four bytes.
#[inline(always)]
unsafe fn load<T>(x: &[T; LANES]) -> I {
    let x = std::ptr::from_ref(x).cast::<__m128i>();
    // SAFETY: the array holds four vectors, and loads need no alignment; x86-64 has SSE2.
    unsafe { [_mm_loadu_si128(x), _mm_loadu_si128(x.add(1)), _mm_loadu_si128(x.add(2)), _mm_loadu_si128(x.add(3))] }
}

/// Sixteen 16-bit numbers as two vectors.
///
/// # Safety
/// `T` must be a plain type of two bytes.
#[inline(always)]
unsafe fn load_16<T>(x: &[T; LANES]) -> [__m128i; 2] {
    let x = std::ptr::from_ref(x).cast::<__m128i>();
    // SAFETY: the array holds two vectors, and loads need no alignment; x86-64 has SSE2.
    unsafe { [_mm_loadu_si128(x), _mm_loadu_si128(x.add(1))] }
}

/// IEEE half precision numbers, each sign-extended to 32 bits, as f32: their exponent field moves over and a product
/// corrects it. The sign, spread over the upper half by the extension, keeps its one bit.
///
/// # Safety
/// The processor must have SSE4.1. If `FINITE`, infinities and NaN become large numbers.
#[inline(always)]
unsafe fn widen_f16<const FINITE: bool>(x: __m128i) -> __m128 {
    // SAFETY: the caller has SSE4.1; no memory is touched.
    unsafe {
        let shifted = _mm_and_si128(_mm_slli_epi32::<13>(x), _mm_set1_epi32(0x8fff_e000_u32 as i32));
        let finite = _mm_mul_ps(_mm_castsi128_ps(shifted), _mm_set1_ps(f32::from_bits(0x7780_0000)));
        if FINITE {
            return finite;
        }
        let exponent = _mm_set1_epi32(0x0f80_0000);
        let infinite = _mm_cmpeq_epi32(_mm_and_si128(shifted, exponent), exponent);
        _mm_or_ps(finite, _mm_castsi128_ps(_mm_and_si128(infinite, _mm_set1_epi32(0x7f80_0000))))
    }
}

/// Sixteen of them.
///
/// # Safety
/// As [`widen_f16`].
#[inline(always)]
unsafe fn load_f16<const FINITE: bool>(x: &[F16; LANES]) -> F {
    // SAFETY: the caller has SSE4.1, and F16 is transparent over u16.
    unsafe {
        let [low, high] = load_16(x);
        [
            widen_f16::<FINITE>(_mm_cvtepi16_epi32(low)),
            widen_f16::<FINITE>(_mm_cvtepi16_epi32(_mm_srli_si128::<8>(low))),
            widen_f16::<FINITE>(_mm_cvtepi16_epi32(high)),
            widen_f16::<FINITE>(_mm_cvtepi16_epi32(_mm_srli_si128::<8>(high))),
        ]
    }
}

impl Simd for Sse41 {
    type F = F;
    type I = I;

    /// Eight sums: two operands and what an instruction overwrites take the other registers.
    const ROWS_F32: usize = 2;
    const PREFETCHES: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm_set1_ps(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        // SAFETY: f32 has four bytes.
        self.of_bits(unsafe { load(x) })
    }

    #[inline(always)]
    fn store(self, x: F, out: &mut [f32; LANES]) {
        let out = out.as_mut_ptr();
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            _mm_storeu_ps(out, x[0]);
            _mm_storeu_ps(out.add(4), x[1]);
            _mm_storeu_ps(out.add(8), x[2]);
            _mm_storeu_ps(out.add(12), x[3]);
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_add_ps, a, b) }
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_sub_ps, a, b) }
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_mul_ps, a, b) }
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_div_ps, a, b) }
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_max_ps, a, b) }
    }

    #[inline(always)]
    fn select_less(self, a: F, b: F, x: F, y: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let less = each!(_mm_cmplt_ps, a, b);
            [
                _mm_blendv_ps(y[0], x[0], less[0]),
                _mm_blendv_ps(y[1], x[1], less[1]),
                _mm_blendv_ps(y[2], x[2], less[2]),
                _mm_blendv_ps(y[3], x[3], less[3]),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[F16; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { load_f16::<false>(x) }
    }

    #[inline(always)]
    fn load_finite(self, x: &[F16; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { load_f16::<true>(x) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[BF16; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and BF16 is transparent over u16.
        unsafe {
            let ([low, high], zero) = (load_16(x), _mm_setzero_si128());
            self.of_bits([
                _mm_unpacklo_epi16(zero, low),
                _mm_unpackhi_epi16(zero, low),
                _mm_unpacklo_epi16(zero, high),
                _mm_unpackhi_epi16(zero, high),
            ])
        }
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            self.to_f32([
                _mm_cvtepu8_epi32(bytes),
                _mm_cvtepu8_epi32(_mm_srli_si128::<4>(bytes)),
                _mm_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)),
                _mm_cvtepu8_epi32(_mm_srli_si128::<12>(bytes)),
            ])
        }
    }

    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let x = _mm_add_ps(_mm_add_ps(x[0], x[2]), _mm_add_ps(x[1], x[3]));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            let x = _mm_add_ss(x, _mm_shuffle_ps::<1>(x, x));
            _mm_cvtss_f32(x)
        }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm_set1_epi32(x); 4] }
    }

    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_add_epi32, a, b) }
    }

    #[inline(always)]
    fn max_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_max_epi32, a, b) }
    }

    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_and_si128, a, b) }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_slli_epi32::<BITS>, a) }
    }

    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_cvtepi32_ps, a) }
    }

    #[inline(always)]
    fn bits(self, a: F) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_castps_si128, a) }
    }

    #[inline(always)]
    fn of_bits(self, a: I) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { each!(_mm_castsi128_ps, a) }
    }

    #[inline(always)]
    fn largest_i32(self, a: I) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let a = _mm_max_epi32(_mm_max_epi32(a[0], a[2]), _mm_max_epi32(a[1], a[3]));
            let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a));
            _mm_cvtsi128_si32(a)
        }
    }

    #[inline(always)]
    fn sum_i32(self, a: I) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let a = _mm_add_epi32(_mm_add_epi32(a[0], a[2]), _mm_add_epi32(a[1], a[3]));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a));
            _mm_cvtsi128_si32(a)
        }
    }
}

impl Dot for Sse41 {
    /// The weights; their magnitudes are made for each product, which takes fewer registers than to keep them.
    type W = I;
    type A = __m128i;
    type P = I;
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };
    const ROWS_Q8: usize = 2;

    #[inline(always)]
    fn store_i8(self, a: I, out: &mut [i8; LANES]) {
        // Narrowing saturates; bytes without a sign pass through unchanged.
        let a = self.and_i32(a, self.splat_i32(0xff));
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            let bytes = _mm_packus_epi16(_mm_packs_epi32(a[0], a[1]), _mm_packs_epi32(a[2], a[3]));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store_i16(self, a: I, out: &mut [i16; LANES]) {
        // Narrowing saturates; halves without a sign pass through unchanged.
        let a = self.and_i32(a, self.splat_i32(0xffff));
        let out = out.as_mut_ptr().cast::<__m128i>();
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            _mm_storeu_si128(out, _mm_packus_epi32(a[0], a[1]));
            _mm_storeu_si128(out.add(1), _mm_packus_epi32(a[2], a[3]));
        }
    }

    #[inline(always)]
    fn load_pairs(self, x: &Pairs) -> I {
        // SAFETY: two times two bytes.
        unsafe { load(&x.0) }
    }

    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> I {
        self.splat_i32(i32::from(b) << 16 | i32::from(a as u16))
    }

    #[inline(always)]
    fn dot_pairs(self, sums: I, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        self.add_i32(sums, unsafe { each!(_mm_madd_epi16, a, b) })
    }

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> I {
        let x = x.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { [_mm_loadu_si128(x), _mm_loadu_si128(x.add(1)), _mm_loadu_si128(x.add(2)), _mm_loadu_si128(x.add(3))] }
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
        &a.values
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> __m128i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm_set1_epi32(four(&tile[row], step)) }
    }

    /// |w| (unsigned, up to 128) times the activation with w's sign: two products are at most 2 · 128 · 127,
    /// which 16 bits hold.
    #[inline(always)]
    fn dot(self, sums: I, weights: I, activations: __m128i) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let activations = [activations; 4];
            let (magnitudes, signed) = (each!(_mm_abs_epi8, weights), each!(_mm_sign_epi8, activations, weights));
            self.dot_pairs(sums, each!(_mm_maddubs_epi16, magnitudes, signed), [_mm_set1_epi16(1); 4])
        }
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [I; 2] {
        let w = self.weights(x);
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let (mask, high) = ([_mm_set1_epi8(15); 4], each!(_mm_srli_epi16::<4>, w));
            [each!(_mm_and_si128, w, mask), each!(_mm_and_si128, high, mask)]
        }
    }

    /// Nibbles are unsigned bytes already.
    #[inline(always)]
    fn dot_nibbles(self, sums: I, nibbles: I, activations: __m128i) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let activations = [activations; 4];
            self.dot_pairs(sums, each!(_mm_maddubs_epi16, nibbles, activations), [_mm_set1_epi16(1); 4])
        }
    }
}
