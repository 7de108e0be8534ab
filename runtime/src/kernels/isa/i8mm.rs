//! AArch64 with the matrix product instruction of ARMv8.6.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{F, I, W, each, multiply_pairs, sdot_16, shared_dot, shared_simd, widen_f16};
use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, Steps, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// Proof that the processor has the matrix product instruction, and that of dot products.
#[derive(Clone, Copy)]
pub(crate) struct I8mm(());

impl I8mm {
    /// # Safety
    /// [`detected`] must have returned true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> I8mm {
        I8mm(())
    }
}

/// Whether the processor has the matrix product instruction, and that of dot products.
pub(crate) fn detected() -> bool {
    super::neon::detected() && std::arch::is_aarch64_feature_detected!("i8mm")
}

/// `sums[lane][row] += w[lane, ..8] · a[row, ..8]` of two lanes and two rows.
///
/// # Safety
/// The processor must have the matrix product instruction.
#[inline(always)]
unsafe fn smmla(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: as for the dot product.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) a,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

impl Simd for I8mm {
    shared_simd!();
}

/// The matrix product instruction takes eight values of two lanes and of two rows, so weights and activations are
/// packed in runs of eight. One row meets the same weights through dot products.
///
/// For a block of 32 values of 16 lanes the vector instructions are, beside 32 loads of weights and what turns sums
/// into results,
///
/// | | products | of activations | putting sums in order |
/// |---|---|---|---|
/// | two rows, `smmla` | 32 | 4 | 8 |
/// | two rows, `sdot` as in [`Dotprod`] | 64 | 16 | 0 |
/// | one row, `sdot` in runs of eight | 32 | 4 | 4 |
/// | one row, `sdot` as in [`Dotprod`] | 32 | 8 | 0 |
///
/// As compiled, with everything, two rows take 133 instructions a block for 1,024 multiplications, 7.7 multiplications
/// an instruction; [`Dotprod`] takes 178, so 5.8. Four rows at once would load weights half as often, but their sums
/// and results fill all 32 registers, and the compiler then moves as much to memory and back.
impl Dot for I8mm {
    shared_dot!();

    const LAYOUT: Layout = Layout { order: Order::Eights, flip: 0 };
    const TAKES_STEPS: bool = false;

    #[inline(always)]
    fn dot(self, sums: I, weights: W, activations: int8x16_t) -> I {
        // SAFETY: a value of `I8mm` proves that the instruction is there.
        unsafe { sdot_16(sums, weights, activations) }
    }

    #[inline(always)]
    fn dot_blocks<B: Steps, const M: usize>(self, sums: &mut [I; M], weights: &[B], values: &[[[i8; BLOCK]; M]]) {
        let octets = values.as_flattened().as_flattened().as_chunks::<8>().0.as_chunks::<M>().0;
        let mut row = 0;
        while row + 2 <= M {
            // [lanes 0..8 and 8..16][two lanes], each of [lane][row].
            let mut products = [self.splat_i32(0); 2];
            for (place, octets) in octets.iter().enumerate() {
                let w = weights[place / 4].pair(self, place % 4);
                // SAFETY: a value of `I8mm` proves that the instruction is there; a pair of rows has 16 bytes.
                unsafe {
                    let a = vld1q_s8(octets[row..row + 2].as_flattened().as_ptr());
                    for (products, w) in products.iter_mut().zip(w) {
                        *products = [
                            smmla(products[0], w[0], a),
                            smmla(products[1], w[1], a),
                            smmla(products[2], w[2], a),
                            smmla(products[3], w[3], a),
                        ];
                    }
                }
            }
            let [low, high] = products;
            // SAFETY: instructions of every AArch64 processor, between registers.
            let pair = unsafe {
                [
                    [
                        vuzp1q_s32(low[0], low[1]),
                        vuzp1q_s32(low[2], low[3]),
                        vuzp1q_s32(high[0], high[1]),
                        vuzp1q_s32(high[2], high[3]),
                    ],
                    [
                        vuzp2q_s32(low[0], low[1]),
                        vuzp2q_s32(low[2], low[3]),
                        vuzp2q_s32(high[0], high[1]),
                        vuzp2q_s32(high[2], high[3]),
                    ],
                ]
            };
            sums[row] = self.add_i32(sums[row], pair[0]);
            sums[row + 1] = self.add_i32(sums[row + 1], pair[1]);
            row += 2;
        }
        if row < M {
            // [lanes 0..8 and 8..16][two lanes], each of [lane][half of the run].
            let mut halves = [self.splat_i32(0); 2];
            for (place, octets) in octets.iter().enumerate() {
                let [first, second] = weights[place / 4].pair(self, place % 4);
                // SAFETY: the eight values of the row.
                let a = unsafe { vcombine_s8(vld1_s8(octets[row].as_ptr()), vld1_s8(octets[row].as_ptr())) };
                halves = [self.dot(halves[0], first, a), self.dot(halves[1], second, a)];
            }
            let [low, high] = halves;
            // SAFETY: instructions of every AArch64 processor, between registers.
            let row_sums = unsafe {
                [
                    vpaddq_s32(low[0], low[1]),
                    vpaddq_s32(low[2], low[3]),
                    vpaddq_s32(high[0], high[1]),
                    vpaddq_s32(high[2], high[3]),
                ]
            };
            sums[row] = self.add_i32(sums[row], row_sums);
        }
    }
}
