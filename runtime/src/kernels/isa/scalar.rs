//! What the operations of every instruction set must compute, in plain Rust; it runs everywhere.

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs};
use crate::kernels::layout::{BLOCK, Layout, Order, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd, f16_to_f32, tree_sum};

/// Available on every machine.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn map<A: Copy, B: Copy, R>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> R) -> [R; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];

    const ROWS_F32: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn store(self, x: Self::F, out: &mut [f32; LANES]) {
        *out = x;
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        map(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        map(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        map(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        map(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        map(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn load_f16(self, x: &[F16; LANES]) -> Self::F {
        x.map(|x| f16_to_f32(x.0))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[BF16; LANES]) -> Self::F {
        x.map(|x| f32::from_bits(u32::from(x.0) << 16))
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::F {
        x.map(f32::from)
    }

    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        tree_sum(x)
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        map(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I, b: Self::I) -> Self::I {
        map(a, b, i32::max)
    }

    #[inline(always)]
    fn and_i32(self, a: Self::I, b: Self::I) -> Self::I {
        map(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: Self::I) -> Self::I {
        a.map(|a| a << BITS)
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        a.map(|a| a.to_bits() as i32)
    }

    #[inline(always)]
    fn of_bits(self, a: Self::I) -> Self::F {
        a.map(|a| f32::from_bits(a as u32))
    }

    #[inline(always)]
    fn largest_i32(self, a: Self::I) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }

    #[inline(always)]
    fn sum_i32(self, a: Self::I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }
}

impl Dot for Scalar {
    type W = [[i8; 4]; LANES];
    type A = [i8; 4];
    type P = [[i16; 2]; LANES];
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0 };
    const ROWS_Q8: usize = 2;

    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        *out = a.map(|a| a as i8);
    }

    #[inline(always)]
    fn store_i16(self, a: Self::I, out: &mut [i16; LANES]) {
        *out = a.map(|a| a as i16);
    }

    #[inline(always)]
    fn load_pairs(self, x: &Pairs) -> Self::P {
        x.0
    }

    #[inline(always)]
    fn splat_pair(self, x: [i16; 2]) -> Self::P {
        [x; LANES]
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::I, a: Self::P, b: Self::P) -> Self::I {
        let products = map(a, b, |a, b| i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]));
        map(sums, products, |sum, product| sum + product)
    }

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> Self::W {
        std::array::from_fn(|i| std::array::from_fn(|j| x[4 * i + j] as i8))
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
        &a.values
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> Self::A {
        tile[row].as_chunks().0[step]
    }

    #[inline(always)]
    fn dot(self, sums: Self::I, weights: Self::W, activations: Self::A) -> Self::I {
        map(sums, weights, |sum, w| sum + (0..4).map(|j| i32::from(w[j]) * i32::from(activations[j])).sum::<i32>())
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [Self::W; 2] {
        let nibbles = |shift: u8| std::array::from_fn(|i| std::array::from_fn(|j| (x[4 * i + j] >> shift & 15) as i8));
        [nibbles(0), nibbles(4)]
    }
}
