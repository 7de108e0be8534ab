//! Q8_0 weights in two planes of nibbles: the upper four bits of every weight, and the lower four.
//!
//! For the vocabulary head of a large model, which is a third to a half of all bytes that a token costs. Greedy search
//! wants only the largest product, and most rows can be ruled out by the upper plane alone:
//!
//! ```text
//! w + 128 = 16 h + l               nibbles h and l of the weight w, as an unsigned byte
//! w = (16 h - 120) + (l - 8)       what the upper plane says, and an error e of at most 8
//! x · w <= coarse + |x| |e|        Cauchy and Schwarz, with |e| of each row computed once
//! ```
//!
//! Only rows whose upper bound reaches the best exact product so far are multiplied exactly, with the bits that the
//! full product has; so the index of the largest is the same as if all had been.

use super::Row;
use crate::error::Result;
use crate::kernels::argmax::Usefulness;
use crate::kernels::dot::{Dot, Steps};
use crate::kernels::layout::{BLOCK, Layout, NIBBLE_STEPS, Order, WeightStep, octet, set_octet};
use crate::kernels::memory::{Table, Zeroable};
use crate::kernels::simd::{F16, LANES, f16_to_f32};
use crate::kernels::sizes::product;
use crate::tensor::DType;

/// Four bits of each weight of one block of 32 values of 16 rows: see
/// [`crate::kernels::layout`].
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Plane(pub(crate) [WeightStep; NIBBLE_STEPS]);

// SAFETY: 256 bytes, aligned to 64.
unsafe impl Zeroable for Plane {}

impl Steps for Plane {
    #[inline(always)]
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for i in 0..M {
            // Two chains of sums: one alone waits for its own last addition.
            let mut chains = [v.splat_i32(0); 2];
            for pair in 0..NIBBLE_STEPS {
                let [first, second] = v.nibbles(&self.0[pair]);
                chains[0] = v.dot_nibbles(chains[0], first, v.activations(values, i, 2 * pair));
                chains[1] = v.dot_nibbles(chains[1], second, v.activations(values, i, 2 * pair + 1));
            }
            sums[i] = v.add_i32(sums[i], v.add_i32(chains[0], chains[1]));
        }
    }

    #[inline(always)]
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2] {
        v.nibbles(&self.0[pair])
    }
}

/// The upper and the lower plane of a block of weights.
impl Steps for (&Plane, &Plane) {
    #[inline(always)]
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for pair in 0..NIBBLE_STEPS {
            let [first, second] = self.pair(v, pair);
            for i in 0..M {
                sums[i] = v.dot(sums[i], first, v.activations(values, i, 2 * pair));
                sums[i] = v.dot(sums[i], second, v.activations(values, i, 2 * pair + 1));
            }
        }
    }

    #[inline(always)]
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2] {
        v.join(&self.0.0[pair], &self.1.0[pair])
    }
}

/// Q8_0 weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Planes {
    pub(crate) upper: Table<Plane>,
    pub(crate) lower: Table<Plane>,
    /// `[groups, blocks, 16]`
    pub(crate) scales: Table<[F16; LANES]>,
    /// For each row what |x| is multiplied by for the bound, `[groups, 16]`.
    pub(crate) errors: Table<[f32; LANES]>,
    pub(crate) usefulness: Usefulness,
}

impl Planes {
    /// `n` rows of `k` values, all zero.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub(crate) fn zeroed(n: usize, k: usize) -> Result<Planes> {
        let groups = n.div_ceil(LANES);
        let blocks = product([groups, k / BLOCK]);
        Ok(Planes {
            upper: Table::zeroed(blocks)?,
            lower: Table::zeroed(blocks)?,
            scales: Table::zeroed(blocks)?,
            errors: Table::zeroed(groups)?,
            usefulness: Usefulness::default(),
        })
    }

    /// Whether bounds are worth computing. They are too loose where some inputs are far larger than others and their
    /// weights far smaller: in files whose norms were not balanced against the weights before these were rounded.
    pub(crate) fn bounded(&self) -> bool {
        self.usefulness.expected()
    }

    /// Interleaves row `i` of `k` values.
    ///
    /// # Errors
    /// If a scale is infinite or NaN.
    pub(crate) fn set_row(&mut self, i: usize, k: usize, row: Row<'_>, layout: Layout) -> Result<()> {
        let (group, lane, blocks) = (i / LANES, i % LANES, k / BLOCK);
        let source = row.bytes.as_chunks::<{ DType::Q8_0.block_bytes() }>().0;
        let (mut error, mut largest) = (0.0, 0.0);
        for (block, source) in (group * blocks..).zip(source) {
            let scale = F16::read_finite(row, source)?;
            self.scales[block][lane] = scale;
            let scale = f64::from(f16_to_f32(scale.0)).powi(2);
            let values: &[u8; BLOCK] = source[2..].try_into().expect("32 bytes follow the scale");
            let unsigned = values.map(|value| value ^ 0x80);
            // At most 32 · 64: 16 bits hold the sum.
            let errors: i16 = unsigned.iter().map(|&value| (i16::from(value & 15) - 8).pow(2)).sum();
            error += scale * f64::from(errors);
            largest += scale;
            let (upper, lower) = (&mut self.upper[block].0, &mut self.lower[block].0);
            let steps: &[[[u8; 4]; 2]] = unsigned.as_chunks::<4>().0.as_chunks().0;
            for ((upper, lower), steps) in upper.iter_mut().zip(lower).zip(steps) {
                let [first, second] = steps.map(u32::from_ne_bytes);
                if layout.order == Order::Eights {
                    set_octet(upper, lane, [first >> 4, second >> 4]);
                    set_octet(lower, lane, [first, second]);
                    continue;
                }
                let low = 0x0f0f_0f0f;
                let pair = [first >> 4 & low | second & !low, first & low | (second & low) << 4];
                let [upper, lower] = [upper, lower].map(|step| &mut step.as_chunks_mut::<4>().0[lane]);
                [*upper, *lower] = pair.map(u32::to_ne_bytes);
            }
        }
        // Both the coarse product and the exact one are rounded: each of a row's blocks twice, and each of the
        // sums of blocks once, relative to sums of at most |x| |w| and |x| (|w| + |e|).
        let (error, norm) = (error.sqrt(), (largest * (BLOCK << 14) as f64).sqrt());
        let rounding = 4.0 * (blocks + 8) as f64 * f64::from(f32::EPSILON);
        self.errors[group][lane] = ((error + rounding * (norm + error)) * 1.000_01) as f32;
        Ok(())
    }

    /// The inverse for one block: its bytes as they lay in the file.
    pub(crate) fn block(&self, i: usize, k: usize, block: usize, layout: Layout) -> [u8; DType::Q8_0.block_bytes()] {
        let (lane, at) = (i % LANES, i / LANES * (k / BLOCK) + block);
        let mut bytes = [0; DType::Q8_0.block_bytes()];
        bytes[..2].copy_from_slice(&self.scales[at][lane].0.to_le_bytes());
        let steps: &mut [[[u8; 4]; 2]] = bytes[2..].as_chunks_mut::<4>().0.as_chunks_mut().0;
        for (steps, (upper, lower)) in steps.iter_mut().zip(self.upper[at].0.iter().zip(&self.lower[at].0)) {
            let pair = if layout.order == Order::Eights {
                let (upper, lower) = (octet(upper, lane), octet(lower, lane));
                [upper[0] << 4 | lower[0], upper[1] << 4 | lower[1]]
            } else {
                let [upper, lower] = [upper, lower].map(|step| u32::from_ne_bytes(step.as_chunks::<4>().0[lane]));
                let low = 0x0f0f_0f0f;
                [(upper & low) << 4 | lower & low, upper & !low | lower >> 4 & low]
            };
            *steps = pair.map(|values| (values ^ 0x8080_8080).to_ne_bytes());
        }
        bytes
    }

    /// Bytes that one product of a single row reads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.upper[..]) + size_of_val(&self.lower[..]) + size_of_val(&self.scales[..])
    }

    /// Bytes that the bounds of a single row read.
    pub(crate) fn upper_bytes(&self) -> usize {
        size_of_val(&self.upper[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.errors[..])
    }
}
