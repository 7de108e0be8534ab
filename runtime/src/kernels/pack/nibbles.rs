//! Four-bit weights, Q4_0 and Q4_K: packed as nibbles and multiplied as nibbles, never unpacked to a wider copy.

use super::Row;
use crate::block;
use crate::error::Result;
use crate::kernels::dot::{Dot, Steps};
use crate::kernels::layout::{BLOCK, Layout, NIBBLE_STEPS, Order, WeightStep, set_octet};
use crate::kernels::memory::{Table, Zeroable};
use crate::kernels::simd::{F16, LANES};
use crate::kernels::sizes::product;
use crate::tensor::DType;

/// One block of 32 values of 16 rows; see [`crate::kernels::layout`].
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct NibbleBlock([WeightStep; NIBBLE_STEPS]);

// SAFETY: 256 bytes, aligned to 64.
unsafe impl Zeroable for NibbleBlock {}

/// What a super-block of Q4_K of 16 rows has beside its nibbles.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct SuperScales {
    pub(crate) d: [F16; LANES],
    pub(crate) dmin: [F16; LANES],
    pub(crate) scales: [[u8; LANES]; SUBS],
    pub(crate) mins: [[u8; LANES]; SUBS],
}

// SAFETY: 320 bytes of plain numbers without padding, aligned to 64.
unsafe impl Zeroable for SuperScales {}

/// Blocks of 32 in a super-block.
pub(crate) const SUBS: usize = 8;

/// Q4_0 weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q4 {
    pub(crate) weights: Table<NibbleBlock>,
    /// `[groups, blocks, 16]`
    pub(crate) scales: Table<[F16; LANES]>,
}

/// Q4_K weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q4K {
    pub(crate) weights: Table<NibbleBlock>,
    /// `[groups, super-blocks]`
    pub(crate) scales: Table<SuperScales>,
}

impl NibbleBlock {
    /// Sets a row from 16 bytes, of which byte j holds value j in its low nibble and value j + 16 in its high one.
    fn set(&mut self, lane: usize, bytes: &[u8; BLOCK / 2], layout: Layout) {
        let words = bytes.as_chunks::<4>().0;
        if layout.order == Order::Eights {
            for (octet, step) in self.0.iter_mut().enumerate() {
                // Values 0..16 are in low nibbles, 16..32 in high ones.
                let nibbles = [0, 1].map(|half| u32::from_ne_bytes(words[octet % 2 * 2 + half]) >> (octet / 2 * 4));
                set_octet(step, lane, nibbles);
            }
            return;
        }
        for (step, bytes) in self.0.iter_mut().zip(words) {
            step[4 * lane..4 * lane + 4].copy_from_slice(bytes);
        }
    }
}

impl Steps for NibbleBlock {
    #[inline(always)]
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for step in 0..NIBBLE_STEPS {
            let [low, high] = v.nibbles(&self.0[step]);
            for i in 0..M {
                sums[i] = v.dot_nibbles(sums[i], low, v.activations(values, i, step));
                sums[i] = v.dot_nibbles(sums[i], high, v.activations(values, i, step + NIBBLE_STEPS));
            }
        }
    }

    #[inline(always)]
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2] {
        v.nibbles(&self.0[pair])
    }
}

impl Q4 {
    /// `n` rows of `k` values, all zero.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub(crate) fn zeroed(n: usize, k: usize) -> Result<Q4> {
        let blocks = product([n.div_ceil(LANES), k / BLOCK]);
        Ok(Q4 { weights: Table::zeroed(blocks)?, scales: Table::zeroed(blocks)? })
    }

    /// Interleaves row `i` of `k` values.
    ///
    /// # Errors
    /// If a scale is infinite or NaN.
    pub(crate) fn set_row(&mut self, i: usize, k: usize, row: Row<'_>, layout: Layout) -> Result<()> {
        let (lane, blocks) = (i % LANES, k / BLOCK);
        let target = i / LANES * blocks..(i / LANES + 1) * blocks;
        let source = row.bytes.as_chunks::<{ DType::Q4_0.block_bytes() }>().0;
        let targets = self.weights[target.clone()].iter_mut().zip(&mut self.scales[target]);
        for (source, (weights, scales)) in source.iter().zip(targets) {
            scales[lane] = F16::read_finite(row, source)?;
            weights.set(lane, source[2..].try_into().expect("16 bytes follow the scale"), layout);
        }
        Ok(())
    }

    /// Bytes that one product of a single row reads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.scales[..])
    }
}

impl Q4K {
    /// `n` rows of `k` values, all zero.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub(crate) fn zeroed(n: usize, k: usize) -> Result<Q4K> {
        let supers = product([n.div_ceil(LANES), k / DType::Q4_K.block_len()]);
        Ok(Q4K { weights: Table::zeroed(product([supers, SUBS]))?, scales: Table::zeroed(supers)? })
    }

    /// Interleaves row `i` of `k` values.
    ///
    /// # Errors
    /// If a scale is infinite or NaN.
    pub(crate) fn set_row(&mut self, i: usize, k: usize, row: Row<'_>, layout: Layout) -> Result<()> {
        let (group, lane, supers) = (i / LANES, i % LANES, k / DType::Q4_K.block_len());
        let source = row.bytes.as_chunks::<{ DType::Q4_K.block_bytes() }>().0;
        let weights = &mut self.weights[group * supers * SUBS..(group + 1) * supers * SUBS];
        let scales = &mut self.scales[group * supers..(group + 1) * supers];
        for (source, (weights, scales)) in source.iter().zip(weights.as_chunks_mut::<SUBS>().0.iter_mut().zip(scales)) {
            scales.d[lane] = F16::read_finite(row, source)?;
            scales.dmin[lane] = F16::read_finite(row, &source[2..])?;
            let (multiples, minima) = block::unpack_scales(source[4..16].try_into().expect("twelve bytes"));
            for (sub, weights) in weights.iter_mut().enumerate() {
                scales.scales[sub][lane] = multiples[sub];
                scales.mins[sub][lane] = minima[sub];
                // Two sub-blocks share 32 bytes in the file: one has the low nibbles, one the high ones.
                let values: &[u8; BLOCK] = source[16 + sub / 2 * BLOCK..][..BLOCK].try_into().expect("32 bytes");
                let shift = 4 * (sub % 2);
                let nibble = |i: usize| values[i] >> shift & 15;
                weights.set(lane, &std::array::from_fn(|i| nibble(i) | nibble(i + 16) << 4), layout);
            }
        }
        Ok(())
    }

    /// Bytes that one product of a single row reads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.scales[..])
    }
}
