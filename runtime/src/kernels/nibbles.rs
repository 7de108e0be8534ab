//! Four-bit weights, Q4_0 and Q4_K: packed as nibbles and multiplied as nibbles, never unpacked to a wider copy.
//!
//! A value of y is a sum over blocks of 32 in order. Each block adds, for its exact integer sum Σ n a of nibbles
//! times int8 activations,
//!
//! ```text
//! Q4_0: x = d (n - 8)              y += (Σ n a - 8 Σ a) (d s)
//! Q4_K: x = (d scale) n - dmin min  y += (Σ n a) ((d scale) s) - (dmin min) ((Σ a) s)
//! ```
//!
//! where s is the scale of the activations; d scale and dmin min are exact in f32.

use super::Kernels;
use super::activations::{Activations, BLOCK};
use super::memory::{Table, Zeroable};
use super::packed::{Layout, Row};
use super::product::{Blocks, Columns, blocks_in, scaled_tile, tile_of};
use super::simd::{F16, LANES, Simd, Steps, WeightStep};
use super::sizes::product;
use crate::block;
use crate::error::Result;
use crate::tensor::DType;

/// Pairs of vector steps of one block.
const STEPS: usize = BLOCK / 8;

/// One block of 32 values of 16 rows: step p holds values 4p.. in its low nibbles and 4p + 16.. in its high ones,
/// or in runs of eight values 8p.., see [`set_octet`].
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct NibbleBlock([WeightStep; STEPS]);

// SAFETY: 256 bytes, aligned to 64.
unsafe impl Zeroable for NibbleBlock {}

/// What a super-block of Q4_K of 16 rows has beside its nibbles.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct SuperScales {
    d: [F16; LANES],
    dmin: [F16; LANES],
    scales: [[u8; LANES]; SUBS],
    mins: [[u8; LANES]; SUBS],
}

// SAFETY: 320 bytes of plain numbers without padding, aligned to 64.
unsafe impl Zeroable for SuperScales {}

/// Blocks of 32 in a super-block.
const SUBS: usize = 8;

/// Q4_0 weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q4 {
    weights: Table<NibbleBlock>,
    /// `[groups, blocks, 16]`
    scales: Table<[F16; LANES]>,
}

/// Q4_K weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q4K {
    weights: Table<NibbleBlock>,
    /// `[groups, super-blocks]`
    scales: Table<SuperScales>,
}

impl NibbleBlock {
    /// Sets a row from 16 bytes, of which byte j holds value j in its low nibble and value j + 16 in its high one.
    fn set(&mut self, lane: usize, bytes: &[u8; BLOCK / 2], layout: Layout) {
        let words = bytes.as_chunks::<4>().0;
        if layout.octets {
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

impl Steps for NibbleBlock {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // an iterator leaves sums in memory
    fn dot<V: Simd, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for step in 0..STEPS {
            let [low, high] = v.nibbles(&self.0[step]);
            for i in 0..M {
                sums[i] = v.dot_nibbles(sums[i], low, v.activations(values, i, step));
                sums[i] = v.dot_nibbles(sums[i], high, v.activations(values, i, step + STEPS));
            }
        }
    }

    #[inline(always)]
    fn pair<V: Simd>(&self, v: V, pair: usize) -> [V::W; 2] {
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

/// Activations start from -8 Σ a.
impl Blocks for Q4 {
    #[inline(always)]
    fn tile<V: Simd, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        row: usize,
        y: &mut Columns<'_>,
    ) {
        let range = group * blocks..(group + 1) * blocks;
        let (weights, weight_scales) = (&self.weights[range.clone()], &self.scales[range]);
        scaled_tile::<V, _, NibbleBlock, 0, M>(v, weights.iter(), weight_scales, [], true, a, (group, row), y);
    }
}

/// Activations start from Σ a.
impl Blocks for Q4K {
    #[inline(always)]
    fn tile<V: Simd, const M: usize>(
        &self,
        v: V,
        group: usize,
        a: &Activations,
        blocks: usize,
        row: usize,
        y: &mut Columns<'_>,
    ) {
        let supers = blocks / SUBS;
        let weights = &self.weights[group * blocks..(group + 1) * blocks];
        let weight_scales = &self.scales[group * supers..(group + 1) * supers];
        let (values, scales, starts) = tile_of::<V, M>(a, row, blocks);
        let mut out = [v.splat(0.0); M];
        let values = values.as_chunks::<SUBS>().0;
        let activations = values.iter().zip(scales.as_chunks::<SUBS>().0).zip(starts.as_chunks::<SUBS>().0);
        let weights = weights.as_chunks::<SUBS>().0;
        for ((weights, weight_scales), ((values, scales), starts)) in weights.iter().zip(weight_scales).zip(activations)
        {
            let (d, dmin) = (v.load_f16(&weight_scales.d), v.load_f16(&weight_scales.dmin));
            for sub in 0..SUBS {
                let mut sums = [v.splat_i32(0); M];
                v.dot_block(&mut sums, &weights[sub], &values[sub]);
                let scale = v.mul(d, v.load_u8(&weight_scales.scales[sub]));
                let min = v.mul(dmin, v.load_u8(&weight_scales.mins[sub]));
                for i in 0..M {
                    let s = v.splat(scales[sub][i]);
                    let total = v.mul(v.to_f32(v.splat_i32(starts[sub][i])), s);
                    let product = v.mul(v.to_f32(sums[i]), v.mul(scale, s));
                    out[i] = v.add(out[i], v.sub(product, v.mul(min, total)));
                }
            }
        }
        for (i, &out) in out.iter().enumerate() {
            y.store(v, out, row + i, group * LANES);
        }
    }
}

super::dispatch!(pub(super) fn q4(w: &Q4, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
super::dispatch!(pub(super) fn q4_k(w: &Q4K, a: &Activations, blocks: usize, y: &mut Columns<'_>) = blocks_in);
