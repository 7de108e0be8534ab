//! Integers narrower than 32 bits: how weights are unpacked, activations are broadcast, and both are multiplied into
//! sixteen i32 sums. The contract of int8 products is all here; [`super::layout`] shows what the weights look like.

use super::activations::Activations;
use super::layout::{BLOCK, Layout, Order, STEPS, WeightStep};
use super::simd::{LANES, Simd};

/// Two 16-bit integers for each lane.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Pairs(pub(crate) [[i16; 2]; LANES]);

/// Rows of activations that a product on tiles takes.
pub(crate) const TILE_ROWS: usize = 16;

/// Two neighbouring blocks of these rows.
pub(crate) type TileValues = [[[i8; BLOCK]; 2]; TILE_ROWS];

/// Sums of their products with a group of weights.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Default)]
pub(crate) struct TileSums(pub(crate) [[i32; LANES]; TILE_ROWS]);

/// Exact products of int8 and of 16-bit integers, sixteen lanes at a time.
pub(crate) trait Dot: Simd {
    /// 64 int8 weights, prepared for [`Dot::dot`].
    type W: Copy;
    /// 4 int8 activations for every lane, prepared for [`Dot::dot`].
    type A: Copy;
    /// Two 16-bit integers for every lane.
    type P: Copy;
    /// A block of activations as [`Dot::activations`] reads it.
    type Block: Copy;

    /// How blocks of int8 and of nibbles are packed.
    const LAYOUT: Layout;
    /// Values of a row of activations that lie together, before those of the tile's next row: 4, 8 or a whole block.
    const TOGETHER: usize = if matches!(Self::LAYOUT.order, Order::Eights) { 8 } else { BLOCK };
    /// Rows of activations that meet a group of 16 weight rows at once in int8 products: 1, 2, 3, 4, 6, 8 or 12.
    const ROWS_Q8: usize;
    /// The same where [`Dot::pairs_groups`].
    const ROWS_OF_PAIRS: usize = Self::ROWS_Q8;
    /// Whether products take one step after the other, so that some can be left out.
    const TAKES_STEPS: bool = true;

    /// The low byte of each lane.
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]);

    /// The low two bytes of each lane.
    fn store_i16(self, a: Self::I, out: &mut [i16; LANES]);

    fn load_pairs(self, x: &Pairs) -> Self::P;
    fn splat_pair(self, x: [i16; 2]) -> Self::P;
    /// `sums[lane] += a[lane][0] b[lane][0] + a[lane][1] b[lane][1]`, exactly while 32 bits hold it.
    fn dot_pairs(self, sums: Self::I, a: Self::P, b: Self::P) -> Self::I;

    /// Whether two groups of weight rows share what is loaded of the activations, where blocks share scales.
    #[inline(always)]
    fn pairs_groups(self) -> bool {
        false
    }

    /// Whether weights come from the caches, so that a tile that meets them alone need not fetch them ahead.
    #[inline(always)]
    fn reads_near_weights(self) -> bool {
        false
    }

    /// Whether there are products on tiles: [`Dot::multiply_tiles`].
    #[inline(always)]
    fn has_tiles(self) -> bool {
        false
    }

    /// Before the first of several [`Dot::multiply_tiles`].
    #[inline(always)]
    fn begin_tiles(self) {}

    /// After the last one.
    #[inline(always)]
    fn end_tiles(self) {}

    /// `sums[g][i][lane] += weights[g][lane] · values[i]` of one pair of blocks after the other, exactly, up to what
    /// [`Dot::flip`] says. Only where [`Dot::has_tiles`].
    #[inline(always)]
    fn multiply_tiles(self, _weights: [&[[WeightStep; STEPS]]; 2], _values: &[TileValues], _sums: &mut [TileSums; 2]) {
        unreachable!("an instruction set without tiles");
    }

    /// What weights are stored xor: [`Layout::flip`], or 0 where that is found out when the program runs.
    #[inline(always)]
    fn flip(self) -> u8 {
        Self::LAYOUT.flip
    }

    fn weights(self, x: &WeightStep) -> Self::W;
    /// Adds what this instruction set reads beside the values of activations, whose rows have `_blocks` blocks.
    #[inline(always)]
    fn prepare(self, _a: &mut Activations, _blocks: usize) {}
    /// Blocks of rows, `[tiles][blocks][rows of the tile]`.
    fn blocks(a: &Activations) -> &[Self::Block];
    /// Values 4 `step`.. of a row of a tile, of which there is one block each.
    fn activations<const M: usize>(self, tile: &[Self::Block; M], row: usize, step: usize) -> Self::A;
    /// `sums[lane] += weights[lane, ..4] · activations[..4]`, exactly, for activations in [-127, 127] and any
    /// int8 weight; up to what [`Dot::flip`] says.
    fn dot(self, sums: Self::I, weights: Self::W, activations: Self::A) -> Self::I;

    /// `sums[i][lane] += weights[lane] · activations[i]` of one block after the other for each of M rows, exactly.
    #[inline(always)]
    fn dot_blocks<B: Steps, const M: usize>(self, sums: &mut [Self::I; M], weights: &[B], values: &[[Self::Block; M]]) {
        for b in 0..weights.len() {
            weights[b].dot(self, sums, &values[b]);
        }
    }

    /// The weights of two steps, of each the unsigned byte w + 128, from their upper and their lower nibbles: the first
    /// step's in the low nibbles of both, the second's in the high ones.
    #[inline(always)]
    fn join(self, upper: &WeightStep, lower: &WeightStep) -> [Self::W; 2] {
        let [first, second] = joined(upper, lower, 0x80 ^ self.flip());
        [self.weights(&first), self.weights(&second)]
    }

    /// The low nibbles and the high nibbles of packed weights, as numbers from 0 to 15.
    fn nibbles(self, x: &WeightStep) -> [Self::W; 2];
    /// As [`Dot::dot`] for what [`Dot::nibbles`] gives, whatever [`Dot::flip`] is.
    #[inline(always)]
    fn dot_nibbles(self, sums: Self::I, weights: Self::W, activations: Self::A) -> Self::I {
        self.dot(sums, weights, activations)
    }
}

/// The bytes of two steps from their nibbles, as [`Dot::join`] has them, of each w + 128 xor `flip`.
#[inline(always)]
pub(crate) fn joined(upper: &WeightStep, lower: &WeightStep, flip: u8) -> [WeightStep; 2] {
    let (mut first, mut second) = ([0; size_of::<WeightStep>()], [0; size_of::<WeightStep>()]);
    for i in 0..first.len() {
        first[i] = (upper[i] << 4 | lower[i] & 15) ^ flip;
        second[i] = (upper[i] & 0xf0 | lower[i] >> 4) ^ flip;
    }
    [first, second]
}

/// Whether a product of `m` rows with weights in runs of `run` blocks is computed on tiles. Rows that are missing from
/// the last tile cost as much as others, and a tile costs less than half of its rows do without.
#[inline(always)]
pub(crate) fn on_tiles<V: Dot>(v: V, run: usize, m: usize) -> bool {
    run > 1 && m >= TILE_ROWS / 2 && v.has_tiles()
}

/// Packed weights of 16 rows, a block of 32 values each, whatever they are packed as.
pub(crate) trait Steps {
    /// [`Dot::dot_blocks`] by [`Dot::dot`], one step after the other, for weights and activations in runs of four.
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]);

    /// The weights of two steps, of which there are four pairs. In runs of eight, values 8 `pair`.. of all lanes: the
    /// first holds those of lanes 0..8, the second of lanes 8..16.
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2];

    /// All steps of blocks as [`Dot::weights`] reads them, if weights are bytes.
    #[allow(dead_code)] // for instruction sets that read them in parts of their own
    #[inline(always)]
    fn bytes(_blocks: &[Self]) -> Option<&[[WeightStep; STEPS]]>
    where
        Self: Sized,
    {
        None
    }
}

impl<S: Steps> Steps for &S {
    #[inline(always)]
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        (*self).dot(v, sums, values);
    }

    #[inline(always)]
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2] {
        (*self).pair(v, pair)
    }
}

/// Values 4 `step`.. of a block of activations in one word.
#[allow(dead_code)] // not every instruction set has words of four bytes
#[inline(always)]
pub(crate) fn four(x: &[i8; BLOCK], step: usize) -> i32 {
    // `map` would be a call: see the note in product/mod.rs.
    let [a, b, c, d] = x.as_chunks::<4>().0[step];
    i32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8])
}
