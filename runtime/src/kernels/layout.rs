//! How a block of weights of 16 rows lies in memory. A vector's lanes are rows of the matrix, so the order in which a
//! row's products are added does not depend on how wide vectors are.
//!
//! Int8 of Q8_0 is a block of 32 values of each row in eight steps of 64 bytes. What a byte holds, by [`Order`]:
//!
//! ```text
//! Fours    step s         | row 0: 4s 4s+1 4s+2 4s+3 | row 1: 4s 4s+1 4s+2 4s+3 | … | row 15: … 4s+3 |
//! Halves   step s         | row 0: 4s 4s+2 | row 1: 4s 4s+2 | … | row 15: 4s 4s+2
//!                         | row 0: 4s+1 4s+3 | row 1: 4s+1 4s+3 | … | row 15: 4s+1 4s+3 |
//! Eights   steps 2p, 2p+1 | row 0: 8p 8p+1 8p+2 8p+3 8p+4 8p+5 8p+6 8p+7 | row 1: 8p … 8p+7 | … | row 15: … 8p+7 |
//! ```
//!
//! each as the value xor [`Layout::flip`]. Nibbles, which are never flipped, take four steps of 64 bytes; each byte
//! holds two values, here written low/high:
//!
//! ```text
//! Fours, Halves: Q4       | row 0: 4p/4p+16 4p+1/4p+17 4p+2/4p+18 4p+3/4p+19 | row 1: 4p/4p+16 … | … | row 15 … |
//! Fours, Halves: a plane  | row 0: 8p/8p+4 8p+1/8p+5 8p+2/8p+6 8p+3/8p+7 | row 1: 8p/8p+4 … | … | row 15 … |
//! Eights: both            | rows 0/8: 8p/8p 8p+1/8p+1 … 8p+7/8p+7 | rows 1/9: 8p/8p … | … | rows 7/15 … |
//! ```
//!
//! in step p of a block of Q4_0 or Q4_K, or of one plane of Q8_0 in two planes. Activations that meet Eights lie in
//! runs of eight values, too: a block of a tile is `[4][rows of the tile][8]`, not `[rows of the tile][32]`.

use super::simd::LANES;

/// Values that share a scale, in activations as in Q8_0 weights.
pub(crate) const BLOCK: usize = 32;

/// Steps of a block of int8: 32 values of each row, 4 at a time.
pub(crate) const STEPS: usize = BLOCK / 4;

/// Steps of a block of nibbles, each of which holds two steps of int8.
pub(crate) const NIBBLE_STEPS: usize = STEPS / 2;

/// Weights of one step of an integer product: 16 rows of 4 consecutive values.
pub(crate) type WeightStep = [u8; 64];

/// In which order the bytes of int8 weights lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Four values of each row, one row after the other.
    Fours,
    /// The first and third of four values of each row, and then the second and fourth.
    Halves,
    /// Eight values of each row, two steps at a time.
    Eights,
}

/// How an instruction set wants blocks of weights packed.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) order: Order,
    /// What int8 weights are stored xor: 0x80 where the instruction set needs a weight w as the unsigned byte w + 128
    /// (sums then start from a correction), else 0. Nibbles are stored as they are.
    pub(crate) flip: u8,
}

impl Layout {
    /// Where in two steps, which are 32 times four bytes, a lane's first four values and its next four go.
    #[inline(always)]
    fn places(self, lane: usize) -> [usize; 2] {
        if self.order == Order::Eights { [2 * lane, 2 * lane + 1] } else { [lane, lane + LANES] }
    }

    /// Sets a lane's eight values in two steps.
    #[inline(always)]
    pub(crate) fn set(self, steps: &mut [WeightStep; 2], lane: usize, values: &[u8; 8]) {
        if self.order == Order::Halves {
            for (step, values) in steps.iter_mut().zip(values.as_chunks::<4>().0) {
                let pairs = step.as_chunks_mut::<2>().0;
                pairs[lane] = [values[0], values[2]];
                pairs[lane + LANES] = [values[1], values[3]];
            }
            return;
        }
        let words = steps.as_flattened_mut().as_chunks_mut::<4>().0;
        for (place, values) in self.places(lane).into_iter().zip(values.as_chunks::<4>().0) {
            words[place] = (u32::from_ne_bytes(*values) ^ u32::from_ne_bytes([self.flip; 4])).to_ne_bytes();
        }
    }

    /// The inverse of [`Layout::set`].
    #[inline(always)]
    pub(crate) fn get(self, steps: &[WeightStep; 2], lane: usize) -> [u8; 8] {
        let mut values = [0; 8];
        if self.order == Order::Halves {
            for (step, values) in steps.iter().zip(values.as_chunks_mut::<4>().0) {
                let pairs = step.as_chunks::<2>().0;
                let ([a, c], [b, d]) = (pairs[lane], pairs[lane + LANES]);
                *values = [a, b, c, d];
            }
            return values;
        }
        let words = steps.as_flattened().as_chunks::<4>().0;
        for (place, values) in self.places(lane).into_iter().zip(values.as_chunks_mut::<4>().0) {
            *values = (u32::from_ne_bytes(words[place]) ^ u32::from_ne_bytes([self.flip; 4])).to_ne_bytes();
        }
        values
    }
}

/// Sets eight values of a row, the low nibbles of the bytes of two words, in a step of nibbles in runs of eight, which
/// holds lanes 0..8 in its low nibbles and lanes 8..16 in its high ones. They must be zero before.
#[inline(always)]
pub(crate) fn set_octet(step: &mut WeightStep, lane: usize, nibbles: [u32; 2]) {
    let (place, shift) = (lane % 8 * 2, lane / 8 * 4);
    let words = &mut step.as_chunks_mut::<4>().0[place..place + 2];
    for (word, nibbles) in words.iter_mut().zip(nibbles) {
        *word = (u32::from_ne_bytes(*word) | (nibbles & 0x0f0f_0f0f) << shift).to_ne_bytes();
    }
}

/// The inverse of [`set_octet`].
#[inline(always)]
pub(crate) fn octet(step: &WeightStep, lane: usize) -> [u32; 2] {
    let (place, shift) = (lane % 8 * 2, lane / 8 * 4);
    let words = &step.as_chunks::<4>().0[place..place + 2];
    [0, 1].map(|i| u32::from_ne_bytes(words[i]) >> shift & 0x0f0f_0f0f)
}
