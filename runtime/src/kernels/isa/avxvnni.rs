//! AVX-VNNI: what [`super::avx2`] does, with one instruction that multiplies 32 weights. For processors that have it
//! and lack AVX-512: clients of Intel since Alder Lake.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// Proof that the processor has the features of [`detected`].
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

impl AvxVnni {
    /// # Safety
    /// [`detected`] must have returned true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> AvxVnni {
        // SAFETY: the caller vouches for more than AVX2.
        AvxVnni(unsafe { Avx2::assume() })
    }
}

/// Whether the processor and the operating system have every feature that is used here.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avxvnni") && super::avx2::detected()
}

/// Functions that are AVX2's.
macro_rules! as_avx2 {
    ($(fn $name:ident$(<const $bits:ident: i32>)?($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(
            #[inline(always)]
            fn $name$(<const $bits: i32>)?(self, $($arg: $type),*) $(-> $result)? {
                self.0.$name$(::<$bits>)?($($arg),*)
            }
        )*
    };
}

type F = <Avx2 as Simd>::F;
type I = <Avx2 as Simd>::I;
type W = [__m256i; 2];

impl Simd for AvxVnni {
    type F = F;
    type I = I;

    const ROWS_F32: usize = Avx2::ROWS_F32;
    const PREFETCHES: bool = true;

    as_avx2! {
        fn splat(x: f32) -> F;
        fn load(x: &[f32; LANES]) -> F;
        fn store(x: F, out: &mut [f32; LANES]);
        fn add(a: F, b: F) -> F;
        fn sub(a: F, b: F) -> F;
        fn mul(a: F, b: F) -> F;
        fn div(a: F, b: F) -> F;
        fn max(a: F, b: F) -> F;
        fn select_less(a: F, b: F, x: F, y: F) -> F;
        fn load_f16(x: &[F16; LANES]) -> F;
        fn load_bf16(x: &[BF16; LANES]) -> F;
        fn load_u8(x: &[u8; LANES]) -> F;
        fn sum(x: F) -> f32;
        fn splat_i32(x: i32) -> I;
        fn add_i32(a: I, b: I) -> I;
        fn max_i32(a: I, b: I) -> I;
        fn and_i32(a: I, b: I) -> I;
        fn shift_left<const BITS: i32>(a: I) -> I;
        fn to_f32(a: I) -> F;
        fn bits(a: F) -> I;
        fn of_bits(a: I) -> F;
        fn largest_i32(a: I) -> i32;
        fn sum_i32(a: I) -> i32;
    }
}

impl Dot for AvxVnni {
    type W = W;
    type A = __m256i;
    type P = [__m256i; 2];
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0x80 };
    /// Twelve sums, two weights and an activation, of sixteen registers: enough sums to hide what a product takes until
    /// the next can add to it.
    const ROWS_Q8: usize = 6;

    as_avx2! {
        fn store_i8(a: I, out: &mut [i8; LANES]);
        fn store_i16(a: I, out: &mut [i16; LANES]);
        fn load_pairs(x: &Pairs) -> [__m256i; 2];
        fn splat_pair(x: [i16; 2]) -> [__m256i; 2];
    }

    #[inline(always)]
    fn dot_pairs(self, sums: I, a: [__m256i; 2], b: [__m256i; 2]) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { [_mm256_dpwssd_avx_epi32(sums[0], a[0], b[0]), _mm256_dpwssd_avx_epi32(sums[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> W {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[32..].as_ptr().cast())] }
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

    #[inline(always)]
    fn dot(self, sums: I, weights: W, activations: __m256i) -> I {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            [
                _mm256_dpbusd_avx_epi32(sums[0], weights[0], activations),
                _mm256_dpbusd_avx_epi32(sums[1], weights[1], activations),
            ]
        }
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [W; 2] {
        let w = self.weights(x);
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            [
                [_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)],
                [
                    _mm256_and_si256(_mm256_srli_epi16::<4>(w[0]), mask),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(w[1]), mask),
                ],
            ]
        }
    }

    #[inline(always)]
    fn join(self, upper: &WeightStep, lower: &WeightStep) -> [W; 2] {
        let (upper, lower) = (self.weights(upper), self.weights(lower));
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let (low, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(-16));
            let mut both = [[low; 2]; 2];
            for i in 0..2 {
                let raised = _mm256_and_si256(_mm256_slli_epi16::<4>(upper[i]), high);
                both[0][i] = _mm256_or_si256(raised, _mm256_and_si256(lower[i], low));
                let lowered = _mm256_and_si256(_mm256_srli_epi16::<4>(lower[i]), low);
                both[1][i] = _mm256_or_si256(_mm256_and_si256(upper[i], high), lowered);
            }
            both
        }
    }
}
