//! The operations that kernels are written in: sixteen lanes of f32 or i32. Each instruction set implements them
//! once, and narrower integers in [`super::dot`]; algorithms are generic over them, so they perform the same operations
//! in the same order everywhere and give the same bits.
//!
//! A value of a type that implements [`Simd`] is a proof that the machine has the instruction set: the only ones
//! are made inside functions compiled for it, which [`dispatch!`](super::isa::dispatch) calls after detection.

/// Lanes of one vector, whatever the width of the registers behind it.
pub(crate) const LANES: usize = 16;

/// IEEE half precision, as bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

/// The upper half of an f32, as bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BF16(pub(crate) u16);

/// Sixteen-lane arithmetic. No operation is fused or reordered; all follow IEEE 754 with round to nearest even.
pub(crate) trait Simd: Copy {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;

    /// Rows of x that meet a group of 16 weight rows at once in f32 arithmetic: 1, 2, 3, 4, 6, 8 or 12.
    const ROWS_F32: usize;

    /// Whether [`Simd::prefetch`] does something.
    const PREFETCHES: bool = false;

    /// A hint that the memory of `x` is read soon, though not at once: it is fetched as far as the second-level cache.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    fn prefetch<T>(self, x: &T) {
        #[cfg(target_arch = "x86_64")]
        if Self::PREFETCHES {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let start = std::ptr::from_ref(x).cast::<i8>();
            for line in (0..size_of::<T>()).step_by(64) {
                // SAFETY: a hint, which reads nothing; every x86-64 processor has it.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line)) }
            }
        }
    }

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, x: Self::F, out: &mut [f32; LANES]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b`, so `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? x : y`, so `y` where `a` or `b` is NaN.
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Widens IEEE half precision, exactly.
    fn load_f16(self, x: &[F16; LANES]) -> Self::F;
    /// The same for values that are finite.
    #[inline(always)]
    fn load_finite(self, x: &[F16; LANES]) -> Self::F {
        self.load_f16(x)
    }
    /// Widens bfloat16, exactly.
    fn load_bf16(self, x: &[BF16; LANES]) -> Self::F;
    /// Widens bytes, exactly.
    fn load_u8(self, x: &[u8; LANES]) -> Self::F;
    /// Sum over the lanes: lane i + lane i+8, then i+4, i+2, i+1.
    fn sum(self, x: Self::F) -> f32;

    fn splat_i32(self, x: i32) -> Self::I;
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn shift_left<const BITS: i32>(self, a: Self::I) -> Self::I;
    fn to_f32(self, a: Self::I) -> Self::F;
    /// The bits of `a`, unchanged.
    fn bits(self, a: Self::F) -> Self::I;
    fn of_bits(self, a: Self::I) -> Self::F;
    fn largest_i32(self, a: Self::I) -> i32;
    /// Sum over the lanes, wrapping.
    fn sum_i32(self, a: Self::I) -> i32;
}

/// The sum of [`Simd::sum`], in scalar form.
pub(crate) fn tree_sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Widens IEEE half precision, exactly (infinity and NaN included).
#[inline(always)]
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff);
    let sign = u32::from(half & 0x8000) << 16;
    let bits = if magnitude >= 0x7c00 {
        magnitude << 13 | 0x7f80_0000
    } else {
        // Moving the exponent field over leaves a value 2^-112 times as large; the product is exact, subnormal
        // halves included.
        (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits()
    };
    f32::from_bits(bits | sign)
}
