//! AArch64: four registers for sixteen lanes. Three ways of int8 products give the same sums: [`Neon`] through 16-bit
//! products, which every AArch64 processor can, [`Dotprod`] through the dot product instruction of ARMv8.2, and
//! [`super::i8mm`] through the matrix product instruction of ARMv8.6.
//!
//! Three instructions are written as assembly: half precision, the dot product and the matrix product have no stable
//! intrinsics yet.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// Any AArch64 processor.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// Proof that the processor has the dot product instruction.
#[derive(Clone, Copy)]
pub(crate) struct Dotprod(());

impl Dotprod {
    /// # Safety
    /// [`detected`] must have returned true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Dotprod {
        Dotprod(())
    }
}

/// Whether the processor has the dot product instruction.
pub(crate) fn detected() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

pub(super) type F = [float32x4_t; 4];
pub(super) type I = [int32x4_t; 4];
pub(super) type W = [int8x16_t; 4];

/// One operation of two vectors on all four.
macro_rules! each {
    ($f:ident, $a:ident, $b:ident) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
    ($f:ident, $a:ident) => {
        [$f($a[0]), $f($a[1]), $f($a[2]), $f($a[3])]
    };
}

/// Four halves as f32.
#[inline(always)]
pub(super) fn widen_f16(x: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: an instruction of every AArch64 processor, between registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) x, options(pure, nomem, nostack, preserves_flags))
    };
    wide
}

/// `sums[lane] += w[lane, ..4] · a[lane, ..4]` of four lanes.
///
/// # Safety
/// The processor must have the dot product instruction.
#[inline(always)]
unsafe fn sdot(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the caller vouches for the instruction, which works between registers. `.arch_extension` lets the
    // assembler know of it wherever this is inlined.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) a,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// The same of sixteen lanes.
///
/// # Safety
/// The processor must have the dot product instruction.
#[inline(always)]
pub(super) unsafe fn sdot_16(sums: I, w: W, a: int8x16_t) -> I {
    // SAFETY: the caller vouches for the instruction.
    unsafe { [sdot(sums[0], w[0], a), sdot(sums[1], w[1], a), sdot(sums[2], w[2], a), sdot(sums[3], w[3], a)] }
}

/// The same as [`sdot`] by 16-bit products, of which two fit 32 bits easily.
#[inline(always)]
fn dot_by_16_bits(sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: instructions of every AArch64 processor, between registers.
    unsafe {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
        let high = vpaddlq_s16(vmull_high_s8(w, a));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

/// Four sums of two products each.
#[inline(always)]
pub(super) fn multiply_pairs(a: int16x8_t, b: int16x8_t) -> int32x4_t {
    // SAFETY: instructions of every AArch64 processor, between registers.
    unsafe { vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)) }
}

/// [`Simd`], which all three implement alike.
macro_rules! shared_simd {
    () => {
        type F = F;
        type I = I;

        const ROWS_F32: usize = 6;

        #[inline(always)]
        fn splat(self, x: f32) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { [vdupq_n_f32(x); 4] }
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> F {
            let x = x.as_ptr();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe { [vld1q_f32(x), vld1q_f32(x.add(4)), vld1q_f32(x.add(8)), vld1q_f32(x.add(12))] }
        }

        #[inline(always)]
        fn store(self, x: F, out: &mut [f32; LANES]) {
            let out = out.as_mut_ptr();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are written.
            unsafe {
                vst1q_f32(out, x[0]);
                vst1q_f32(out.add(4), x[1]);
                vst1q_f32(out.add(8), x[2]);
                vst1q_f32(out.add(12), x[3]);
            }
        }

        #[inline(always)]
        fn add(self, a: F, b: F) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vaddq_f32, a, b) }
        }

        #[inline(always)]
        fn sub(self, a: F, b: F) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vsubq_f32, a, b) }
        }

        #[inline(always)]
        fn mul(self, a: F, b: F) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vmulq_f32, a, b) }
        }

        #[inline(always)]
        fn div(self, a: F, b: F) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vdivq_f32, a, b) }
        }

        /// The instruction for maxima gives NaN where either is NaN, so a comparison chooses.
        #[inline(always)]
        fn max(self, a: F, b: F) -> F {
            self.select_less(b, a, a, b)
        }

        #[inline(always)]
        fn select_less(self, a: F, b: F, x: F, y: F) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe {
                [
                    vbslq_f32(vcltq_f32(a[0], b[0]), x[0], y[0]),
                    vbslq_f32(vcltq_f32(a[1], b[1]), x[1], y[1]),
                    vbslq_f32(vcltq_f32(a[2], b[2]), x[2], y[2]),
                    vbslq_f32(vcltq_f32(a[3], b[3]), x[3], y[3]),
                ]
            }
        }

        #[inline(always)]
        fn load_f16(self, x: &[F16; LANES]) -> F {
            let x = x.as_ptr().cast::<u16>();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe {
                [
                    widen_f16(vld1_u16(x)),
                    widen_f16(vld1_u16(x.add(4))),
                    widen_f16(vld1_u16(x.add(8))),
                    widen_f16(vld1_u16(x.add(12))),
                ]
            }
        }

        #[inline(always)]
        fn load_bf16(self, x: &[BF16; LANES]) -> F {
            let x = x.as_ptr().cast::<u16>();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe {
                [
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x))),
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.add(4)))),
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.add(8)))),
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.add(12)))),
                ]
            }
        }

        #[inline(always)]
        fn load_u8(self, x: &[u8; LANES]) -> F {
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe {
                let bytes = vld1q_u8(x.as_ptr());
                let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
                [
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                    vcvtq_f32_u32(vmovl_high_u16(low)),
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                    vcvtq_f32_u32(vmovl_high_u16(high)),
                ]
            }
        }

        #[inline(always)]
        fn sum(self, x: F) -> f32 {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe {
                let x = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
                let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
                vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
            }
        }

        #[inline(always)]
        fn splat_i32(self, x: i32) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { [vdupq_n_s32(x); 4] }
        }

        #[inline(always)]
        fn add_i32(self, a: I, b: I) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vaddq_s32, a, b) }
        }

        #[inline(always)]
        fn max_i32(self, a: I, b: I) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vmaxq_s32, a, b) }
        }

        #[inline(always)]
        fn and_i32(self, a: I, b: I) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vandq_s32, a, b) }
        }

        #[inline(always)]
        fn shift_left<const BITS: i32>(self, a: I) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe {
                [
                    vshlq_n_s32::<BITS>(a[0]),
                    vshlq_n_s32::<BITS>(a[1]),
                    vshlq_n_s32::<BITS>(a[2]),
                    vshlq_n_s32::<BITS>(a[3]),
                ]
            }
        }

        #[inline(always)]
        fn to_f32(self, a: I) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vcvtq_f32_s32, a) }
        }

        #[inline(always)]
        fn bits(self, a: F) -> I {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vreinterpretq_s32_f32, a) }
        }

        #[inline(always)]
        fn of_bits(self, a: I) -> F {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { each!(vreinterpretq_f32_s32, a) }
        }

        #[inline(always)]
        fn largest_i32(self, a: I) -> i32 {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))) }
        }

        #[inline(always)]
        fn sum_i32(self, a: I) -> i32 {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))) }
        }
    };
}

/// What all three do alike of [`Dot`].
macro_rules! shared_dot {
    () => {
        type W = W;
        type P = [int16x8_t; 4];
        type A = int8x16_t;
        type Block = [i8; BLOCK];

        const ROWS_Q8: usize = 2;

        #[inline(always)]
        fn store_i8(self, a: I, out: &mut [i8; LANES]) {
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are written.
            unsafe {
                let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
                let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
                vst1q_s8(out.as_mut_ptr(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
            }
        }

        #[inline(always)]
        fn store_i16(self, a: I, out: &mut [i16; LANES]) {
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are written.
            unsafe {
                vst1q_s16(out.as_mut_ptr(), vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1])));
                vst1q_s16(out[8..].as_mut_ptr(), vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3])));
            }
        }

        #[inline(always)]
        fn load_pairs(self, x: &Pairs) -> [int16x8_t; 4] {
            let x = x.0.as_ptr().cast::<i16>();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe { [vld1q_s16(x), vld1q_s16(x.add(8)), vld1q_s16(x.add(16)), vld1q_s16(x.add(24))] }
        }

        #[inline(always)]
        fn splat_pair(self, [a, b]: [i16; 2]) -> [int16x8_t; 4] {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { [vreinterpretq_s16_s32(vdupq_n_s32(i32::from(b) << 16 | i32::from(a as u16))); 4] }
        }

        #[inline(always)]
        fn dot_pairs(self, sums: I, a: [int16x8_t; 4], b: [int16x8_t; 4]) -> I {
            let products: I = std::array::from_fn(|i| multiply_pairs(a[i], b[i]));
            self.add_i32(sums, products)
        }

        #[inline(always)]
        fn weights(self, x: &WeightStep) -> W {
            let x = x.as_ptr().cast::<i8>();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe { [vld1q_s8(x), vld1q_s8(x.add(16)), vld1q_s8(x.add(32)), vld1q_s8(x.add(48))] }
        }

        #[inline(always)]
        fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
            &a.values
        }

        #[inline(always)]
        fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> int8x16_t {
            // SAFETY: instructions of every AArch64 processor, between registers.
            unsafe { vreinterpretq_s8_s32(vdupq_n_s32(four(&tile[row], step))) }
        }

        /// Shifts that insert do the whole of it.
        #[inline(always)]
        fn join(self, upper: &WeightStep, lower: &WeightStep) -> [W; 2] {
            let (upper, lower) = (upper.as_ptr(), lower.as_ptr());
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe {
                let upper =
                    [vld1q_u8(upper), vld1q_u8(upper.add(16)), vld1q_u8(upper.add(32)), vld1q_u8(upper.add(48))];
                let lower =
                    [vld1q_u8(lower), vld1q_u8(lower.add(16)), vld1q_u8(lower.add(32)), vld1q_u8(lower.add(48))];
                let flip = [vdupq_n_u8(0x80); 4];
                let first = [
                    vsliq_n_u8::<4>(lower[0], upper[0]),
                    vsliq_n_u8::<4>(lower[1], upper[1]),
                    vsliq_n_u8::<4>(lower[2], upper[2]),
                    vsliq_n_u8::<4>(lower[3], upper[3]),
                ];
                let second = [
                    vsriq_n_u8::<4>(upper[0], lower[0]),
                    vsriq_n_u8::<4>(upper[1], lower[1]),
                    vsriq_n_u8::<4>(upper[2], lower[2]),
                    vsriq_n_u8::<4>(upper[3], lower[3]),
                ];
                let (first, second) = (each!(veorq_u8, first, flip), each!(veorq_u8, second, flip));
                [each!(vreinterpretq_s8_u8, first), each!(vreinterpretq_s8_u8, second)]
            }
        }

        #[inline(always)]
        fn nibbles(self, x: &WeightStep) -> [W; 2] {
            let x = x.as_ptr();
            // SAFETY: instructions of every AArch64 processor, and as many bytes are there as are read.
            unsafe {
                let all = [vld1q_u8(x), vld1q_u8(x.add(16)), vld1q_u8(x.add(32)), vld1q_u8(x.add(48))];
                let mask = vdupq_n_u8(15);
                let low =
                    [vandq_u8(all[0], mask), vandq_u8(all[1], mask), vandq_u8(all[2], mask), vandq_u8(all[3], mask)];
                let high = [
                    vshrq_n_u8::<4>(all[0]),
                    vshrq_n_u8::<4>(all[1]),
                    vshrq_n_u8::<4>(all[2]),
                    vshrq_n_u8::<4>(all[3]),
                ];
                [each!(vreinterpretq_s8_u8, low), each!(vreinterpretq_s8_u8, high)]
            }
        }
    };
}

pub(super) use {each, shared_dot, shared_simd};

impl Simd for Neon {
    shared_simd!();
}

impl Dot for Neon {
    shared_dot!();

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };

    #[inline(always)]
    fn dot(self, sums: I, weights: W, activations: int8x16_t) -> I {
        [
            dot_by_16_bits(sums[0], weights[0], activations),
            dot_by_16_bits(sums[1], weights[1], activations),
            dot_by_16_bits(sums[2], weights[2], activations),
            dot_by_16_bits(sums[3], weights[3], activations),
        ]
    }
}

impl Simd for Dotprod {
    shared_simd!();
}

impl Dot for Dotprod {
    shared_dot!();

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };

    #[inline(always)]
    fn dot(self, sums: I, weights: W, activations: int8x16_t) -> I {
        // SAFETY: a value of `Dotprod` proves that the instruction is there.
        unsafe { sdot_16(sums, weights, activations) }
    }
}
