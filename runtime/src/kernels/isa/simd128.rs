//! WebAssembly's 128-bit vectors: four of them for sixteen lanes. They are chosen when the module is compiled, since
//! a module with instructions that an engine does not know is refused whole; so no proof of detection is needed.
//!
//! Two ways of int8 products give the same sums: [`Simd128`] through 16-bit multiplications, and [`super::relaxed`]
//! through the relaxed dot product, which is one instruction where the processor has one, and is used there.

use std::arch::wasm32::*;

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, Steps};
use crate::kernels::layout::{BLOCK, Layout, Order, STEPS, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};
use crate::kernels::tiles::Tiles;

/// WebAssembly with simd128.
#[derive(Clone, Copy)]
pub(crate) struct Simd128;

pub(super) type V = [v128; 4];

/// # Safety
/// `T` must be a plain type of four bytes.
#[inline(always)]
pub(super) unsafe fn load<T>(x: &[T; LANES]) -> V {
    let x = std::ptr::from_ref(x).cast::<v128>();
    // SAFETY: the array holds four vectors, and loads need no alignment.
    unsafe { [v128_load(x), v128_load(x.add(1)), v128_load(x.add(2)), v128_load(x.add(3))] }
}

/// # Safety
/// `T` must be a plain type of four bytes.
#[inline(always)]
pub(super) unsafe fn store<T>(x: V, out: &mut [T; LANES]) {
    let out = std::ptr::from_mut(out).cast::<v128>();
    // SAFETY: the array holds four vectors, and stores need no alignment.
    unsafe {
        v128_store(out, x[0]);
        v128_store(out.add(1), x[1]);
        v128_store(out.add(2), x[2]);
        v128_store(out.add(3), x[3]);
    }
}

/// Sixteen 16-bit numbers as two vectors.
///
/// # Safety
/// `T` must be a plain type of two bytes.
#[inline(always)]
pub(super) unsafe fn load_16<T>(x: &[T; LANES]) -> [v128; 2] {
    let x = std::ptr::from_ref(x).cast::<v128>();
    // SAFETY: the array holds two vectors, and loads need no alignment.
    unsafe { [v128_load(x), v128_load(x.add(1))] }
}

/// One operation of two vectors on all four.
macro_rules! each {
    ($f:ident, $a:ident, $b:ident) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
}

/// Four IEEE half precision numbers, each sign-extended to 32 bits.
#[inline(always)]
pub(super) fn widen_f16(x: v128) -> v128 {
    // As `f16_to_f32`: the exponent field moves over and a product corrects it. The sign, spread over the upper half
    // by the extension, keeps its one bit.
    let shifted = v128_and(i32x4_shl(x, 13), i32x4_splat(0x8fff_e000_u32 as i32));
    let finite = f32x4_mul(shifted, f32x4_splat(f32::from_bits(0x7780_0000)));
    let exponent = i32x4_splat(0x0f80_0000);
    let infinite = i32x4_eq(v128_and(shifted, exponent), exponent);
    v128_or(finite, v128_and(infinite, i32x4_splat(0x7f80_0000)))
}

/// The same for finite ones.
#[inline(always)]
fn widen_finite_f16(x: v128) -> v128 {
    let shifted = v128_and(i32x4_shl(x, 13), i32x4_splat(0x8fff_e000_u32 as i32));
    f32x4_mul(shifted, f32x4_splat(f32::from_bits(0x7780_0000)))
}

/// [`Simd`], which both implement alike but for [`Simd::load_finite`].
macro_rules! shared_simd {
    () => {
        type F = V;
        type I = V;

        const ROWS_F32: usize = 2;

        #[inline(always)]
        fn splat(self, x: f32) -> V {
            [f32x4_splat(x); 4]
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> V {
            // SAFETY: f32.
            unsafe { load(x) }
        }

        #[inline(always)]
        fn store(self, x: V, out: &mut [f32; LANES]) {
            // SAFETY: f32.
            unsafe { store(x, out) }
        }

        #[inline(always)]
        fn add(self, a: V, b: V) -> V {
            each!(f32x4_add, a, b)
        }

        #[inline(always)]
        fn sub(self, a: V, b: V) -> V {
            each!(f32x4_sub, a, b)
        }

        #[inline(always)]
        fn mul(self, a: V, b: V) -> V {
            each!(f32x4_mul, a, b)
        }

        #[inline(always)]
        fn div(self, a: V, b: V) -> V {
            each!(f32x4_div, a, b)
        }

        /// The pseudo-maximum of b and a is `b < a ? a : b`.
        #[inline(always)]
        fn max(self, a: V, b: V) -> V {
            each!(f32x4_pmax, b, a)
        }

        #[inline(always)]
        fn select_less(self, a: V, b: V, x: V, y: V) -> V {
            std::array::from_fn(|i| v128_bitselect(x[i], y[i], f32x4_lt(a[i], b[i])))
        }

        #[inline(always)]
        fn load_f16(self, x: &[F16; LANES]) -> V {
            // SAFETY: transparent over u16.
            let [low, high] = unsafe { load_16(x) };
            [
                widen_f16(i32x4_extend_low_i16x8(low)),
                widen_f16(i32x4_extend_high_i16x8(low)),
                widen_f16(i32x4_extend_low_i16x8(high)),
                widen_f16(i32x4_extend_high_i16x8(high)),
            ]
        }

        #[inline(always)]
        fn load_bf16(self, x: &[BF16; LANES]) -> V {
            // SAFETY: transparent over u16.
            let [low, high] = unsafe { load_16(x) };
            [
                i32x4_shl(i32x4_extend_low_i16x8(low), 16),
                i32x4_shl(i32x4_extend_high_i16x8(low), 16),
                i32x4_shl(i32x4_extend_low_i16x8(high), 16),
                i32x4_shl(i32x4_extend_high_i16x8(high), 16),
            ]
        }

        #[inline(always)]
        fn load_u8(self, x: &[u8; LANES]) -> V {
            // SAFETY: the array holds one vector, and loads need no alignment.
            let bytes = unsafe { v128_load(x.as_ptr().cast()) };
            let (low, high) = (u16x8_extend_low_u8x16(bytes), u16x8_extend_high_u8x16(bytes));
            self.to_f32([
                u32x4_extend_low_u16x8(low),
                u32x4_extend_high_u16x8(low),
                u32x4_extend_low_u16x8(high),
                u32x4_extend_high_u16x8(high),
            ])
        }

        #[inline(always)]
        fn sum(self, x: V) -> f32 {
            let x = f32x4_add(f32x4_add(x[0], x[2]), f32x4_add(x[1], x[3]));
            let x = f32x4_add(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
            f32x4_extract_lane::<0>(x) + f32x4_extract_lane::<1>(x)
        }

        #[inline(always)]
        fn splat_i32(self, x: i32) -> V {
            [i32x4_splat(x); 4]
        }

        #[inline(always)]
        fn add_i32(self, a: V, b: V) -> V {
            each!(i32x4_add, a, b)
        }

        #[inline(always)]
        fn max_i32(self, a: V, b: V) -> V {
            each!(i32x4_max, a, b)
        }

        #[inline(always)]
        fn and_i32(self, a: V, b: V) -> V {
            each!(v128_and, a, b)
        }

        #[inline(always)]
        fn shift_left<const BITS: i32>(self, a: V) -> V {
            std::array::from_fn(|i| i32x4_shl(a[i], BITS as u32))
        }

        #[inline(always)]
        fn to_f32(self, a: V) -> V {
            std::array::from_fn(|i| f32x4_convert_i32x4(a[i]))
        }

        #[inline(always)]
        fn bits(self, a: V) -> V {
            a
        }

        #[inline(always)]
        fn of_bits(self, a: V) -> V {
            a
        }

        #[inline(always)]
        fn largest_i32(self, a: V) -> i32 {
            let a = i32x4_max(i32x4_max(a[0], a[2]), i32x4_max(a[1], a[3]));
            let a = i32x4_max(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            i32x4_extract_lane::<0>(a).max(i32x4_extract_lane::<1>(a))
        }

        #[inline(always)]
        fn sum_i32(self, a: V) -> i32 {
            let a = i32x4_add(i32x4_add(a[0], a[2]), i32x4_add(a[1], a[3]));
            let a = i32x4_add(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            i32x4_extract_lane::<0>(a).wrapping_add(i32x4_extract_lane::<1>(a))
        }
    };
}

/// What both do alike of [`Dot`].
macro_rules! shared_dot {
    () => {
        type P = V;

        #[inline(always)]
        fn store_i8(self, a: V, out: &mut [i8; LANES]) {
            // Narrowing saturates; bytes without a sign pass through unchanged.
            let byte = self.splat_i32(0xff);
            let a = each!(v128_and, a, byte);
            let bytes = u8x16_narrow_i16x8(i16x8_narrow_i32x4(a[0], a[1]), i16x8_narrow_i32x4(a[2], a[3]));
            // SAFETY: the array holds one vector, and stores need no alignment.
            unsafe { v128_store(out.as_mut_ptr().cast(), bytes) }
        }

        #[inline(always)]
        fn store_i16(self, a: V, out: &mut [i16; LANES]) {
            // Narrowing saturates; halves without a sign pass through unchanged.
            let half = self.splat_i32(0xffff);
            let a = each!(v128_and, a, half);
            let out = out.as_mut_ptr().cast::<v128>();
            // SAFETY: the array holds two vectors, and stores need no alignment.
            unsafe {
                v128_store(out, u16x8_narrow_i32x4(a[0], a[1]));
                v128_store(out.add(1), u16x8_narrow_i32x4(a[2], a[3]));
            }
        }

        #[inline(always)]
        fn load_pairs(self, x: &Pairs) -> V {
            // SAFETY: two times two bytes.
            unsafe { load(&x.0) }
        }

        #[inline(always)]
        fn splat_pair(self, [a, b]: [i16; 2]) -> V {
            [i32x4_splat(i32::from(b) << 16 | i32::from(a as u16)); 4]
        }

        #[inline(always)]
        fn dot_pairs(self, sums: V, a: V, b: V) -> V {
            let products = each!(i32x4_dot_i16x8, a, b);
            each!(i32x4_add, sums, products)
        }
    };
}

/// Sixteen rows of four bytes.
#[inline(always)]
pub(super) fn load_step(x: &WeightStep) -> V {
    // SAFETY: sixteen times four bytes.
    unsafe { load(x.as_chunks::<4>().0.as_array::<LANES>().expect("64 bytes")) }
}

#[cfg(target_feature = "relaxed-simd")]
pub(super) use {each, shared_dot, shared_simd};

impl Simd128 {
    /// Adds the products of blocks for the lanes of `N` vectors from vector `FIRST` on, a half of a step after the
    /// other.
    ///
    /// The form of this loop matters more than its operations. Engines have 15 registers for sums, weights and
    /// activations, and keep the order in which they get the operations. Were the loop unrolled here, those of one sum
    /// would come first and then those of the next, so whole steps of weights and activations, or sums, would wait in
    /// memory; with iterators in place of numbers they do as well. A sum that waits there makes the loop a fifth
    /// slower, several make it half as fast in some callers' frames (measured with Chromium 148 on Zen 4; `perf
    /// annotate` with V8's `--perf-prof` shows them as moves from and to `rbp`).
    #[inline(always)]
    fn dot_lanes<const M: usize, const N: usize, const FIRST: usize>(
        self,
        sums: &mut [V; M],
        weights: &[[WeightStep; STEPS]],
        values: &[[[i16; BLOCK]; M]],
    ) {
        assert!(!weights.is_empty() && weights.len() == values.len(), "as many blocks of activations as of weights");
        let halves = weights.len() * 2 * STEPS;
        let mut own = [[i32x4_splat(0); N]; M];
        for i in 0..M {
            own[i].copy_from_slice(&sums[i][FIRST..FIRST + N]);
        }
        const HALF: usize = size_of::<WeightStep>() / 2;
        let mut weights = weights.as_ptr().cast::<u8>();
        let mut values = values.as_ptr().cast::<u32>();
        // The compiler does not see how often the loop runs.
        let last = std::hint::black_box(weights.wrapping_add((halves - 1) * HALF));
        loop {
            // SAFETY: half a step has eight bytes for each vector, and loads need no alignment.
            let load = |j| unsafe { i16x8_load_extend_i8x8(weights.add(8 * (FIRST + j)).cast()) };
            let w: [v128; N] = std::array::from_fn(load);
            for i in 0..M {
                // SAFETY: it has two numbers of 16 bits for each row.
                let x = unsafe { v128_load32_splat(values.add(i)) };
                for j in 0..N {
                    own[i][j] = i32x4_add(own[i][j], i32x4_dot_i16x8(w[j], x));
                }
            }
            if weights == last {
                break;
            }
            // SAFETY: there is another half: the blocks of both have two for each step.
            unsafe { (weights, values) = (weights.add(HALF), values.add(M)) };
        }
        for i in 0..M {
            sums[i][FIRST..FIRST + N].copy_from_slice(&own[i]);
        }
    }

    /// Widens the blocks of a tile of `rows` rows, which lie side by side.
    #[inline(always)]
    fn widen(self, values: &[[i8; BLOCK]], wide: &mut [[i16; BLOCK]]) {
        let rows = values.len();
        let pairs = wide.as_flattened_mut().as_chunks_mut::<2>().0;
        for (row, values) in values.iter().enumerate() {
            for (four, values) in values.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: the array holds a vector, and loads need no alignment.
                let values = unsafe { v128_load(values.as_ptr().cast()) };
                let (first, second) = (i16x8_shr(i16x8_shl(values, 8), 8), i16x8_shr(values, 8));
                let pairs = pairs[8 * four * rows + row..][..7 * rows + 1].as_mut_ptr().cast::<u32>();
                // SAFETY: eight places `rows` apart are in the slice.
                unsafe {
                    v128_store32_lane::<0>(first, pairs);
                    v128_store32_lane::<0>(second, pairs.add(rows));
                    v128_store32_lane::<1>(first, pairs.add(2 * rows));
                    v128_store32_lane::<1>(second, pairs.add(3 * rows));
                    v128_store32_lane::<2>(first, pairs.add(4 * rows));
                    v128_store32_lane::<2>(second, pairs.add(5 * rows));
                    v128_store32_lane::<3>(first, pairs.add(6 * rows));
                    v128_store32_lane::<3>(second, pairs.add(7 * rows));
                }
            }
        }
    }
}

/// Two activations of values 4 `step`.. for every lane: the first and the third, or the others.
#[inline(always)]
fn pair<const M: usize>(tile: &[[i16; BLOCK]; M], row: usize, step: usize, half: usize) -> v128 {
    let pair = tile.as_flattened().as_chunks::<2>().0[(2 * step + half) * M + row];
    // SAFETY: 32 bits, and loads need no alignment.
    unsafe { v128_load32_splat(pair.as_ptr().cast()) }
}

impl Simd for Simd128 {
    shared_simd!();

    #[inline(always)]
    fn load_finite(self, x: &[F16; LANES]) -> V {
        // SAFETY: transparent over u16.
        let [low, high] = unsafe { load_16(x) };
        [
            widen_finite_f16(i32x4_extend_low_i16x8(low)),
            widen_finite_f16(i32x4_extend_high_i16x8(low)),
            widen_finite_f16(i32x4_extend_low_i16x8(high)),
            widen_finite_f16(i32x4_extend_high_i16x8(high)),
        ]
    }
}

impl Dot for Simd128 {
    shared_dot!();

    /// Of the four weights of each lane the first and the third as 16-bit numbers, and the others.
    type W = (V, V);
    /// The same of four activations.
    type A = (v128, v128);
    type Block = [i16; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Halves, flip: 0 };
    const ROWS_Q8: usize = 4;
    const TAKES_STEPS: bool = false;

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> (V, V) {
        let eights = x.as_chunks::<8>().0;
        // SAFETY: eight bytes, and loads need no alignment.
        let load = |i: usize| unsafe { i16x8_load_extend_i8x8(eights[i].as_ptr().cast()) };
        (std::array::from_fn(load), std::array::from_fn(|i| load(4 + i)))
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [(V, V); 2] {
        let (x, mask) = (load_step(x), i16x8_splat(15));
        let nibbles = |shift| std::array::from_fn(|i| v128_and(u16x8_shr(x[i], shift), mask));
        [(nibbles(0), nibbles(8)), (nibbles(4), nibbles(12))]
    }

    #[inline(always)]
    fn join(self, upper: &WeightStep, lower: &WeightStep) -> [(V, V); 2] {
        let (upper, lower) = (self.nibbles(upper), self.nibbles(lower));
        let half = |upper: V, lower: V| -> V {
            std::array::from_fn(|i| i16x8_sub(v128_or(i16x8_shl(upper[i], 4), lower[i]), i16x8_splat(128)))
        };
        std::array::from_fn(|i| (half(upper[i].0, lower[i].0), half(upper[i].1, lower[i].1)))
    }

    #[inline(always)]
    fn prepare(self, a: &mut Activations, blocks: usize) {
        a.wide.resize(a.values.len(), [0; BLOCK]);
        for (first, rows) in Tiles::new(0..a.values.len() / blocks, Self::ROWS_Q8) {
            let tile = first * blocks..(first + rows) * blocks;
            let (values, wide) = (&a.values[tile.clone()], &mut a.wide[tile]);
            for (values, wide) in values.chunks_exact(rows).zip(wide.chunks_exact_mut(rows)) {
                self.widen(values, wide);
            }
        }
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i16; BLOCK]] {
        &a.wide
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i16; BLOCK]; M], row: usize, step: usize) -> (v128, v128) {
        (pair(tile, row, step, 0), pair(tile, row, step, 1))
    }

    #[inline(always)]
    fn dot(self, sums: V, (even, odd): (V, V), (a, b): (v128, v128)) -> V {
        std::array::from_fn(|i| i32x4_add(i32x4_add(sums[i], i32x4_dot_i16x8(even[i], a)), i32x4_dot_i16x8(odd[i], b)))
    }

    #[inline(always)]
    fn dot_blocks<B: Steps, const M: usize>(self, sums: &mut [V; M], weights: &[B], values: &[[[i16; BLOCK]; M]]) {
        // Eight sums at once.
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
