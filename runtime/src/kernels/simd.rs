//! The vocabulary that every kernel is written in: sixteen lanes of f32 or i32, and int8 dot products into
//! sixteen i32 sums. Each instruction set implements it once; algorithms are generic over it, so they perform
//! the same operations in the same order everywhere and give the same bits.
//!
//! A value of a type that implements [`Simd`] is a proof that the machine has the instruction set: the only ones
//! are made inside functions compiled for it, which [`dispatch!`](super::dispatch) calls after detection.

use super::activations::{Activations, BLOCK};
use super::packed::STEPS;

/// Lanes of one vector, whatever the width of the registers behind it.
pub(crate) const LANES: usize = 16;

/// Weights of one step of an integer product: 16 rows of 4 consecutive values.
pub(crate) type WeightStep = [u8; 64];

/// Two 16-bit integers for each lane.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Pairs(pub(crate) [[i16; 2]; LANES]);

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
    /// 64 int8 weights, prepared for [`Simd::dot`].
    type W: Copy;
    /// 4 int8 activations for every lane, prepared for [`Simd::dot`].
    type A: Copy;
    /// Two 16-bit integers for every lane.
    type P: Copy;
    /// A block of activations as [`Simd::activations`] reads it.
    type Block: Copy;

    /// Packed int8 weights are stored xor this value: 0x80 where the instruction set needs a weight w as the unsigned
    /// byte w + 128 (sums then start from a correction), else 0.
    const FLIP: u8 = 0;
    /// Whether a step of int8 weights is packed in two halves, the first and third of each lane's four and then the second
    /// and fourth: `[2][lane][2]`, not `[lane][4]`.
    const HALVES: bool = false;
    /// Whether blocks of int8 are packed in runs of eight values of a row rather than four, for an instruction set with
    /// a [`Simd::dot_block`] of its own: weights of two steps are `[lane][8]`, not `[step][lane][4]`, and a block of
    /// activations of a tile is `[4][rows of the tile][8]`, not `[rows of the tile][32]`.
    const OCTETS: bool = false;
    /// Whether [`Simd::dot`] multiplies the complement -w - 1 of a weight w with the magnitude of a negative activation:
    /// sums then start from the sum of the magnitudes of those below zero.
    const COMPLEMENTS: bool = false;
    /// Rows of activations that meet a group of 16 weight rows at once in int8 products: 1, 2, 3, 4, 6, 8 or 12.
    const ROWS_Q8: usize;
    /// The same for f32 arithmetic.
    const ROWS_F32: usize;

    /// A hint that the memory of `x` is read soon, though not at once: it is fetched as far as the second-level cache.
    #[inline(always)]
    fn prefetch<T>(self, _x: &T) {}

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
    /// The low byte of each lane.
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]);

    /// The low two bytes of each lane.
    fn store_i16(self, a: Self::I, out: &mut [i16; LANES]);

    fn load_pairs(self, x: &Pairs) -> Self::P;
    fn splat_pair(self, x: [i16; 2]) -> Self::P;
    /// `sums[lane] += a[lane][0] b[lane][0] + a[lane][1] b[lane][1]`, exactly while 32 bits hold it.
    fn dot_pairs(self, sums: Self::I, a: Self::P, b: Self::P) -> Self::I;

    fn weights(self, x: &WeightStep) -> Self::W;
    /// Completes activations, rows of so many blocks, whose values are there.
    #[inline(always)]
    fn prepare(self, _a: &mut Activations, _blocks: usize) {}
    /// Blocks of rows, `[tiles][blocks][rows of the tile]`.
    fn blocks(a: &Activations) -> &[Self::Block];
    /// Values 4 `step`.. of a row of a tile, of which there is one block each.
    fn activations<const M: usize>(self, tile: &[Self::Block; M], row: usize, step: usize) -> Self::A;
    /// `sums[lane] += weights[lane, ..4] · activations[..4]`, exactly, for activations in [-127, 127] and any
    /// int8 weight; up to what [`Simd::FLIP`] and [`Simd::COMPLEMENTS`] say.
    fn dot(self, sums: Self::I, weights: Self::W, activations: Self::A) -> Self::I;

    /// `sums[i][lane] += weights[lane] · activations[i]` of one block for each of M rows, exactly.
    #[inline(always)]
    fn dot_block<B: Steps, const M: usize>(self, sums: &mut [Self::I; M], weights: &B, values: &[Self::Block; M]) {
        weights.dot(self, sums, values);
    }

    /// The weights of two steps, of each the unsigned byte w + 128, from their upper and their lower nibbles: the first
    /// step's in the low nibbles of both, the second's in the high ones.
    #[inline(always)]
    fn join(self, upper: &WeightStep, lower: &WeightStep) -> [Self::W; 2] {
        let (mut first, mut second) = ([0; size_of::<WeightStep>()], [0; size_of::<WeightStep>()]);
        for i in 0..first.len() {
            let flip = 0x80 ^ Self::FLIP;
            first[i] = (upper[i] << 4 | lower[i] & 15) ^ flip;
            second[i] = (upper[i] & 0xf0 | lower[i] >> 4) ^ flip;
        }
        [self.weights(&first), self.weights(&second)]
    }

    /// The low nibbles and the high nibbles of packed weights, as numbers from 0 to 15.
    fn nibbles(self, x: &WeightStep) -> [Self::W; 2];
    /// As [`Simd::dot`] for what [`Simd::nibbles`] gives, whatever [`Simd::FLIP`] and [`Simd::COMPLEMENTS`] are.
    #[inline(always)]
    fn dot_nibbles(self, sums: Self::I, weights: Self::W, activations: Self::A) -> Self::I {
        self.dot(sums, weights, activations)
    }
}

/// Packed weights of 16 rows, a block of 32 values each, whatever they are packed as.
pub(crate) trait Steps {
    /// [`Simd::dot_block`] by [`Simd::dot`], one step after the other, for weights and activations in runs of four.
    fn dot<V: Simd, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]);

    /// The weights of two steps, of which there are four pairs. In runs of eight, values 8 `pair`.. of all lanes: the
    /// first holds those of lanes 0..8, the second of lanes 8..16.
    fn pair<V: Simd>(&self, v: V, pair: usize) -> [V::W; 2];

    /// All steps as [`Simd::weights`] reads them, if weights are bytes.
    #[allow(dead_code)] // for instruction sets that read them in parts of their own
    #[inline(always)]
    fn bytes(&self) -> Option<&[WeightStep; STEPS]> {
        None
    }
}

impl<S: Steps> Steps for &S {
    #[inline(always)]
    fn dot<V: Simd, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        (*self).dot(v, sums, values);
    }

    #[inline(always)]
    fn pair<V: Simd>(&self, v: V, pair: usize) -> [V::W; 2] {
        (*self).pair(v, pair)
    }

    #[inline(always)]
    fn bytes(&self) -> Option<&[WeightStep; STEPS]> {
        (*self).bytes()
    }
}

/// Values 4 `step`.. of a block of activations in one word.
#[allow(dead_code)] // not every instruction set has words of four bytes
#[inline(always)]
pub(crate) fn four(x: &[i8; BLOCK], step: usize) -> i32 {
    i32::from_ne_bytes(x.as_chunks::<4>().0[step].map(|x| x as u8))
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
