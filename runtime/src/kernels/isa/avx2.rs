//! AVX2 with F16C: two registers for sixteen lanes; int8 products through pairs of 16-bit sums.

use std::arch::x86_64::*;

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// Proof that the processor has the features of [`detected`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// [`detected`] must have returned true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Avx2 {
        Avx2(())
    }
}

/// Whether the processor and the operating system have every feature that is used here.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

/// Sum over 8 lanes: lane i + lane i+4, then i+2, i+1.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(crate) unsafe fn sum_8(x: __m256) -> f32 {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        let x = _mm_add_ss(x, _mm_shuffle_ps::<1>(x, x));
        _mm_cvtss_f32(x)
    }
}

/// The largest of 8 lanes.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(crate) unsafe fn largest_8(x: __m256i) -> i32 {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        let x = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
        _mm_cvtsi128_si32(x)
    }
}

/// Wrapping sum over 8 lanes.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(crate) unsafe fn sum_8_i32(x: __m256i) -> i32 {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
        _mm_cvtsi128_si32(x)
    }
}

type F = [__m256; 2];
type I = [__m256i; 2];

impl Simd for Avx2 {
    type F = F;
    type I = I;

    const ROWS_F32: usize = 6;
    const PREFETCHES: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())] }
    }

    #[inline(always)]
    fn store(self, x: F, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), x[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn select_less(self, a: F, b: F, x: F, y: F) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            [
                _mm256_blendv_ps(y[0], x[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(y[1], x[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[F16; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(x[8..].as_ptr().cast())),
            ]
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[BF16; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(x[8..].as_ptr().cast()));
            self.of_bits([_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high)])
        }
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> F {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            self.to_f32([_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))])
        }
    }

    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { sum_8(_mm256_add_ps(x[0], x[1])) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn max_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: I) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_slli_epi32::<BITS>(a[0]), _mm256_slli_epi32::<BITS>(a[1])] }
    }

    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }

    #[inline(always)]
    fn bits(self, a: F) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])] }
    }

    #[inline(always)]
    fn of_bits(self, a: I) -> F {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])] }
    }

    #[inline(always)]
    fn largest_i32(self, a: I) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { largest_8(_mm256_max_epi32(a[0], a[1])) }
    }

    #[inline(always)]
    fn sum_i32(self, a: I) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { sum_8_i32(_mm256_add_epi32(a[0], a[1])) }
    }
}

impl Dot for Avx2 {
    /// The weights' magnitudes, and the weights for their signs.
    type W = ([__m256i; 2], [__m256i; 2]);
    type A = __m256i;
    type P = [__m256i; 2];
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };
    const ROWS_Q8: usize = 3;

    #[inline(always)]
    fn store_i8(self, a: I, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            let low_bytes = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            for (half, out) in a.into_iter().zip(out.as_chunks_mut::<8>().0) {
                let bytes = _mm256_shuffle_epi8(half, low_bytes);
                let bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
                _mm_storel_epi64(out.as_mut_ptr().cast(), bytes);
            }
        }
    }

    #[inline(always)]
    fn store_i16(self, a: I, out: &mut [i16; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe {
            let low_halves = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, //
                0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            for (half, out) in a.into_iter().zip(out.as_chunks_mut::<8>().0) {
                let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(half, low_halves));
                _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(halves));
            }
        }
    }

    #[inline(always)]
    fn load_pairs(self, x: &Pairs) -> [__m256i; 2] {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { [_mm256_loadu_si256(x.0.as_ptr().cast()), _mm256_loadu_si256(x.0[8..].as_ptr().cast())] }
    }

    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> [__m256i; 2] {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_set1_epi32(i32::from(b) << 16 | i32::from(a as u16)); 2] }
    }

    #[inline(always)]
    fn dot_pairs(self, sums: I, a: [__m256i; 2], b: [__m256i; 2]) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { self.add_i32(sums, [_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1])]) }
    }

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> Self::W {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let w = [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[32..].as_ptr().cast())];
            ([_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])], w)
        }
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
        &a.values
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> __m256i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm256_set1_epi32(four(&tile[row], step)) }
    }

    /// |w| (unsigned, up to 128) times the activation with w's sign: two products are at most 2 · 128 · 127,
    /// which 16 bits hold.
    #[inline(always)]
    fn dot(self, sums: I, (magnitude, weights): Self::W, activations: __m256i) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let low = _mm256_maddubs_epi16(magnitude[0], _mm256_sign_epi8(activations, weights[0]));
            let high = _mm256_maddubs_epi16(magnitude[1], _mm256_sign_epi8(activations, weights[1]));
            let ones = _mm256_set1_epi16(1);
            self.add_i32(sums, [_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones)])
        }
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [Self::W; 2] {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let w = [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[32..].as_ptr().cast())];
            let low = [_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)];
            let high = [
                _mm256_and_si256(_mm256_srli_epi16::<4>(w[0]), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(w[1]), mask),
            ];
            [(low, low), (high, high)]
        }
    }

    /// Nibbles are unsigned bytes already.
    #[inline(always)]
    fn dot_nibbles(self, sums: I, (nibbles, _): Self::W, activations: __m256i) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(nibbles[0], activations), ones);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(nibbles[1], activations), ones);
            [_mm256_add_epi32(sums[0], low), _mm256_add_epi32(sums[1], high)]
        }
    }
}
