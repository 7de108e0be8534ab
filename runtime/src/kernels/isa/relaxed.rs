//! WebAssembly with relaxed vectors: int8 products through the relaxed dot product.

use std::arch::wasm32::*;

use super::simd128::{V, each, load, load_16, load_step, shared_dot, shared_simd, store, widen_f16};
use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, four};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// WebAssembly with simd128 and relaxed-simd.
#[derive(Clone, Copy)]
pub(crate) struct Relaxed;

/// The low nibbles and the high ones of bytes.
#[inline(always)]
fn split(x: V) -> [V; 2] {
    let mask = u8x16_splat(15);
    [std::array::from_fn(|i| v128_and(x[i], mask)), std::array::from_fn(|i| u8x16_shr(x[i], 4))]
}

/// Whether the relaxed dot product is the processor's own instruction (AVX-VNNI, ARMv8.2). Older processors of the x86
/// family multiply bytes to 16 bits, which saturate, and need five instructions: more than [`super::simd128`] does.
/// Operands that are out of bounds on purpose tell them apart: four times -128 · 255 there becomes twice -32768.
pub(crate) fn dot_is_fast() -> bool {
    let sums = i32x4_relaxed_dot_i8x16_i7x16_add(i8x16_splat(-128), u8x16_splat(255), i32x4_splat(0));
    i32x4_extract_lane::<0>(sums) != -65536
}

/// Four activations for [`Relaxed`].
#[derive(Clone, Copy)]
pub(crate) struct Four {
    all: v128,
    magnitudes: v128,
    /// All bits of those below zero.
    negative: v128,
}

impl Simd for Relaxed {
    shared_simd!();
}

impl Dot for Relaxed {
    shared_dot!();

    type W = V;
    type A = Four;
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };
    const COMPLEMENTS: bool = true;
    const ROWS_Q8: usize = 2;

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> V {
        load_step(x)
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [V; 2] {
        split(load_step(x))
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
        &a.values
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> Four {
        let all = i32x4_splat(four(&tile[row], step));
        let magnitudes = i8x16_abs(all);
        Four { all, magnitudes, negative: i8x16_gt(magnitudes, all) }
    }

    /// The relaxed product is the same everywhere while its second operand has 7 bits, as magnitudes do: sums of two
    /// products are at most 2 · 128 · 127 and fit 16 bits. The sign goes to the weight: of a negative activation a,
    /// the complement -w - 1 times |a| is w a - |a|.
    #[inline(always)]
    fn dot(self, sums: V, weights: V, a: Four) -> V {
        std::array::from_fn(|i| {
            i32x4_relaxed_dot_i8x16_i7x16_add(v128_xor(weights[i], a.negative), a.magnitudes, sums[i])
        })
    }

    /// Here the nibbles are those of 7 bits.
    #[inline(always)]
    fn dot_nibbles(self, sums: V, nibbles: V, a: Four) -> V {
        std::array::from_fn(|i| i32x4_relaxed_dot_i8x16_i7x16_add(a.all, nibbles[i], sums[i]))
    }
}
