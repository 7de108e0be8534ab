//! Weights as the products read them: groups of 16 rows interleaved, so that a vector's lanes are output rows and
//! the order of float additions does not depend on the vector's width.

use super::Kernels;
use super::activations::BLOCK;
use super::memory::{Table, Zeroable};
use super::simd::{BF16, F16, LANES, Simd, Steps, WeightStep, f16_to_f32};
use super::sizes::product;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Vector steps of one block: 32 values, 4 at a time.
pub(crate) const STEPS: usize = BLOCK / 4;

/// Eight steps of 16 rows × 4 values: one block of 32 values of a group of rows.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct WeightBlock(pub(crate) [WeightStep; STEPS]);

// SAFETY: 512 bytes, aligned to 64.
unsafe impl Zeroable for WeightBlock {}

impl Steps for WeightBlock {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // an iterator leaves sums in memory
    fn dot<V: Simd, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for step in 0..STEPS {
            let w = v.weights(&self.0[step]);
            for i in 0..M {
                sums[i] = v.dot(sums[i], w, v.activations(values, i, step));
            }
        }
    }

    #[inline(always)]
    fn pair<V: Simd>(&self, v: V, pair: usize) -> [V::W; 2] {
        [v.weights(&self.0[2 * pair]), v.weights(&self.0[2 * pair + 1])]
    }

    #[inline(always)]
    fn bytes(&self) -> Option<&[WeightStep; STEPS]> {
        Some(&self.0)
    }
}

/// How an instruction set wants blocks of weights packed.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// [`Simd::FLIP`] of each of four bytes.
    flip: u32,
    /// [`Simd::HALVES`].
    halves: bool,
    /// [`Simd::OCTETS`].
    pub(crate) octets: bool,
}

impl Layout {
    /// Where in two steps, which are 32 times four bytes, a lane's first four values and its next four go.
    #[inline(always)]
    fn places(self, lane: usize) -> [usize; 2] {
        if self.octets { [2 * lane, 2 * lane + 1] } else { [lane, lane + LANES] }
    }

    /// Sets a lane's eight values in two steps.
    #[inline(always)]
    fn set(self, steps: &mut [WeightStep; 2], lane: usize, values: &[u8; 8]) {
        if self.halves {
            for (step, values) in steps.iter_mut().zip(values.as_chunks::<4>().0) {
                let pairs = step.as_chunks_mut::<2>().0;
                pairs[lane] = [values[0], values[2]];
                pairs[lane + LANES] = [values[1], values[3]];
            }
            return;
        }
        let words = steps.as_flattened_mut().as_chunks_mut::<4>().0;
        for (place, values) in self.places(lane).into_iter().zip(values.as_chunks::<4>().0) {
            words[place] = (u32::from_ne_bytes(*values) ^ self.flip).to_ne_bytes();
        }
    }

    /// The inverse of [`Layout::set`].
    #[inline(always)]
    fn get(self, steps: &[WeightStep; 2], lane: usize) -> [u8; 8] {
        let mut values = [0; 8];
        if self.halves {
            for (step, values) in steps.iter().zip(values.as_chunks_mut::<4>().0) {
                let pairs = step.as_chunks::<2>().0;
                let ([a, c], [b, d]) = (pairs[lane], pairs[lane + LANES]);
                *values = [a, b, c, d];
            }
            return values;
        }
        let words = steps.as_flattened().as_chunks::<4>().0;
        for (place, values) in self.places(lane).into_iter().zip(values.as_chunks_mut::<4>().0) {
            *values = (u32::from_ne_bytes(words[place]) ^ self.flip).to_ne_bytes();
        }
        values
    }
}

/// Q8_0 weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q8 {
    pub(crate) weights: Table<WeightBlock>,
    /// IEEE half precision, `[groups, blocks, 16]`.
    pub(crate) scales: Table<[F16; LANES]>,
}

/// A row of a tensor, as it lies in the file.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) index: usize,
    pub(crate) bytes: &'a [u8],
}

impl F16 {
    /// The scale of a block, in its first two bytes.
    ///
    /// # Errors
    /// If it is infinite or NaN.
    #[inline(always)]
    pub(crate) fn read_finite(row: Row<'_>, bytes: &[u8]) -> Result<F16> {
        let scale = F16::read(bytes);
        if scale.0 & 0x7c00 == 0x7c00 {
            let found = f16_to_f32(scale.0);
            return Err(row.tensor.error(format!("expected a finite scale in row {}, found {found}", row.index)));
        }
        Ok(scale)
    }
}

impl Q8 {
    /// Bytes that one product of a single row reads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.scales[..])
    }

    /// `n` rows of `k` values, all zero.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub(crate) fn zeroed(n: usize, k: usize) -> Result<Q8> {
        let blocks = product([n.div_ceil(LANES), k / BLOCK]);
        Ok(Q8 { weights: Table::zeroed(blocks)?, scales: Table::zeroed(blocks)? })
    }

    /// Interleaves row `i` of `k` values.
    ///
    /// # Errors
    /// If a scale is infinite or NaN.
    pub(crate) fn set_row(&mut self, i: usize, k: usize, row: Row<'_>, layout: Layout) -> Result<()> {
        let (lane, blocks) = (i % LANES, k / BLOCK);
        let target = i / LANES * blocks..(i / LANES + 1) * blocks;
        let source = row.bytes.as_chunks::<{ DType::Q8_0.block_bytes() }>().0;
        let targets = self.weights[target.clone()].iter_mut().zip(&mut self.scales[target]);
        for (source, (weights, scales)) in source.iter().zip(targets) {
            scales[lane] = F16::read_finite(row, source)?;
            let pairs = weights.0.as_chunks_mut::<2>().0;
            for (pair, values) in pairs.iter_mut().zip(source[2..].as_chunks::<8>().0) {
                layout.set(pair, lane, values);
            }
        }
        Ok(())
    }

    /// Sets a block of 16 rows, whose values are given by columns.
    #[inline(always)]
    pub(crate) fn set_block<V: Simd>(&mut self, v: V, at: usize, columns: &[[i8; LANES]; BLOCK]) {
        let layout = layout_of(v);
        let pairs = self.weights[at].0.as_chunks_mut::<2>().0;
        for (pair, columns) in pairs.iter_mut().zip(columns.as_chunks::<8>().0) {
            for lane in 0..LANES {
                layout.set(pair, lane, &columns.each_ref().map(|column| column[lane] as u8));
            }
        }
    }

    /// The inverse for one block: its bytes as they lay in the file.
    pub(crate) fn block(&self, i: usize, k: usize, block: usize, layout: Layout) -> [u8; DType::Q8_0.block_bytes()] {
        let (lane, at) = (i % LANES, i / LANES * (k / BLOCK) + block);
        let mut bytes = [0; DType::Q8_0.block_bytes()];
        bytes[..2].copy_from_slice(&self.scales[at][lane].0.to_le_bytes());
        let pairs = self.weights[at].0.as_chunks::<2>().0;
        for (values, pair) in bytes[2..].as_chunks_mut::<8>().0.iter_mut().zip(pairs) {
            *values = layout.get(pair, lane);
        }
        bytes
    }
}

/// A plain number type.
pub(crate) trait Element: Zeroable {
    fn load<V: Simd>(v: V, x: &[Self; LANES]) -> V::F;
    /// The value that a file holds in this many bytes, little endian.
    fn read(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[f32; LANES]) -> V::F {
        v.load(x)
    }

    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Element for F16 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[F16; LANES]) -> V::F {
        v.load_f16(x)
    }

    fn read(bytes: &[u8]) -> F16 {
        F16(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

impl Element for BF16 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[BF16; LANES]) -> V::F {
        v.load_bf16(x)
    }

    fn read(bytes: &[u8]) -> BF16 {
        BF16(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

/// One value of each of two groups of rows. A matrix is `[pairs of groups][k]`; the last pair is filled up with
/// zeros. Two groups lie side by side because a single row of activations needs two independent chains of additions
/// to keep up with memory, and memory is fastest read in order.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub(crate) struct Pair<E>(pub(crate) [[E; LANES]; 2]);

// SAFETY: numbers without padding: 64 bytes or more.
unsafe impl<E: Zeroable> Zeroable for Pair<E> {}

/// `n` rows of `k` values, all zero.
///
/// # Errors
/// [`crate::Error::Memory`] where there is not enough.
pub(crate) fn zeroed_pairs<E: Element>(n: usize, k: usize) -> Result<Table<Pair<E>>> {
    Table::zeroed(product([n.div_ceil(2 * LANES), k]))
}

/// Interleaves row `i` of `k` values.
pub(crate) fn set_pairs<E: Element>(packed: &mut [Pair<E>], i: usize, k: usize, bytes: &[u8]) {
    let (pair, half, lane) = (i / (2 * LANES), i / LANES % 2, i % LANES);
    for (target, bytes) in packed[pair * k..(pair + 1) * k].iter_mut().zip(bytes.chunks_exact(size_of::<E>())) {
        target.0[half][lane] = E::read(bytes);
    }
}

#[inline(always)]
fn layout_of<V: Simd>(_: V) -> Layout {
    Layout { flip: u32::from_ne_bytes([V::FLIP; 4]), halves: V::HALVES, octets: V::OCTETS }
}

super::dispatch!(pub(super) fn layout() -> Layout = layout_of);
