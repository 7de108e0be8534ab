//! WebAssembly with relaxed vectors: int8 products through the relaxed dot product, one instruction each.

use std::arch::wasm32::*;

use super::simd128::{V, each, load, load_16, load_step, shared_dot, shared_simd, store, widen_f16};
use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, Steps};
use crate::kernels::layout::{BLOCK, Layout, Order, STEPS, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// WebAssembly with simd128 and relaxed-simd, in an engine for which [`detected`] is true.
#[derive(Clone, Copy)]
pub(crate) struct Relaxed {
    /// See [`flip`].
    flip: u8,
}

impl Relaxed {
    /// The way of this engine; without [`detected`], products may be wrong.
    #[inline(always)]
    pub(crate) fn new() -> Relaxed {
        Relaxed { flip: flip().unwrap_or(0) }
    }
}

/// How weights are stored for the instruction that the relaxed dot product is here. Its second operand need not be
/// exact beyond seven bits, and engines take a byte that is as what suits their processor:
///
/// * unsigned (AVX-VNNI): weights w are stored as w + 128,
/// * signed (ARMv8.2, AVX-VNNI-INT8): as they are,
/// * unsigned, with sums of two products that saturate at 16 bits (older x86): of no use, and five instructions, more
///   than [`super::simd128`] takes.
///
/// Four times -128 · 255 tells them apart.
fn flip() -> Option<u8> {
    let sums = i32x4_relaxed_dot_i8x16_i7x16_add(i8x16_splat(-128), u8x16_splat(255), i32x4_splat(0));
    match i32x4_extract_lane::<0>(sums) {
        -130_560 => Some(0x80),
        512 => Some(0),
        _ => None,
    }
}

/// Whether the relaxed dot product is one exact instruction here. That of a block of random weights is compared with
/// what it should be: an engine that differs from all that are known is not trusted.
pub(crate) fn detected() -> bool {
    let (Some(flip), v) = (flip(), Relaxed::new()) else { return false };
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut sums = v.splat_i32(0);
    let mut expected = [0i32; LANES];
    for _ in 0..STEPS {
        let (weights, activations) = ([(); 64].map(|()| byte()), [(); 4].map(|()| (byte() as i8).max(-127)));
        let x = i32x4_splat(i32::from_ne_bytes(activations.map(|a| a as u8)));
        sums = v.dot(sums, v.weights(&weights.map(|w| w ^ flip)), x);
        for (expected, weights) in expected.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (&w, &a) in weights.iter().zip(&activations) {
                *expected += (i32::from(w as i8) + i32::from(flip)) * i32::from(a);
            }
        }
    }
    let mut found = [0i32; LANES];
    // SAFETY: four bytes each.
    unsafe { store(sums, &mut found) };
    found == expected
}

/// The low nibbles and the high ones of bytes.
#[inline(always)]
fn split(x: V) -> [V; 2] {
    let mask = u8x16_splat(15);
    [std::array::from_fn(|i| v128_and(x[i], mask)), std::array::from_fn(|i| u8x16_shr(x[i], 4))]
}

impl Relaxed {
    /// Adds the products of blocks for the lanes of `N` vectors from vector `FIRST` on, a step after the other. Its
    /// form is that of the same in [`super::simd128`], for the same reasons.
    ///
    /// It is a function by itself, because in a caller's frame all sums stayed in memory, from where they were fetched
    /// at every turn of the loop: an encoder took a sixth longer (Chromium 156, Zen 5).
    #[inline(never)]
    fn dot_lanes<const M: usize, const N: usize, const FIRST: usize>(
        self,
        sums: &mut [V; M],
        weights: &[[WeightStep; STEPS]],
        values: &[[[i8; BLOCK]; M]],
    ) {
        assert!(!weights.is_empty() && weights.len() == values.len(), "as many blocks of activations as of weights");
        let steps = weights.len() * STEPS;
        let mut own = [[i32x4_splat(0); N]; M];
        for i in 0..M {
            own[i].copy_from_slice(&sums[i][FIRST..FIRST + N]);
        }
        let mut weights = weights.as_ptr().cast::<v128>();
        let mut values = values.as_ptr().cast::<u32>();
        // The compiler does not see how often the loop runs.
        let last = std::hint::black_box(weights.wrapping_add((steps - 1) * 4));
        loop {
            // SAFETY: a step has four vectors, and loads need no alignment.
            let w: [v128; N] = std::array::from_fn(|j| unsafe { v128_load(weights.add(FIRST + j)) });
            for i in 0..M {
                // SAFETY: it has four values of each row.
                let x = unsafe { v128_load32_splat(values.add(i)) };
                for j in 0..N {
                    own[i][j] = i32x4_relaxed_dot_i8x16_i7x16_add(x, w[j], own[i][j]);
                }
            }
            if weights == last {
                break;
            }
            // SAFETY: there is another step: the blocks of both have as many.
            unsafe { (weights, values) = (weights.add(4), values.add(M)) };
        }
        for i in 0..M {
            sums[i][FIRST..FIRST + N].copy_from_slice(&own[i]);
        }
    }
}

impl Simd for Relaxed {
    shared_simd!();
}

impl Dot for Relaxed {
    shared_dot!();

    type W = V;
    /// Four activations for every lane.
    type A = v128;
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0x80 };
    const TOGETHER: usize = 4;
    /// Twelve sums, which hide what a product takes until the next can add to it: four rows are 4 % slower (Zen 5).
    const ROWS_Q8: usize = 6;
    const TAKES_STEPS: bool = false;

    #[inline(always)]
    fn flip(self) -> u8 {
        self.flip
    }

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
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> v128 {
        let four = tile.as_flattened().as_chunks::<4>().0[step * M + row];
        // SAFETY: 32 bits, and loads need no alignment.
        unsafe { v128_load32_splat(four.as_ptr().cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: V, weights: V, a: v128) -> V {
        std::array::from_fn(|i| i32x4_relaxed_dot_i8x16_i7x16_add(a, weights[i], sums[i]))
    }

    #[inline(always)]
    fn dot_blocks<B: Steps, const M: usize>(self, sums: &mut [V; M], weights: &[B], values: &[[[i8; BLOCK]; M]]) {
        // At most twelve sums at once.
        match B::bytes(weights) {
            None => weights.iter().zip(values).for_each(|(weights, values)| weights.dot(self, sums, values)),
            Some(weights) if M <= 2 => self.dot_lanes::<M, 4, 0>(sums, weights, values),
            Some(weights) => {
                self.dot_lanes::<M, 2, 0>(sums, weights, values);
                self.dot_lanes::<M, 2, 2>(sums, weights, values);
            }
        }
    }
}
