//! Weights of Q8_0: blocks of int8.

use super::Row;
use crate::block;
use crate::error::Result;
use crate::kernels::dot::{Dot, Steps};
use crate::kernels::layout::{BLOCK, Layout, STEPS, WeightStep};
use crate::kernels::memory::{Table, Zeroable};
use crate::kernels::simd::{F16, LANES};
use crate::kernels::sizes::product;
use crate::tensor::DType;

/// Eight steps of 16 rows × 4 values: one block of 32 values of a group of rows.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct WeightBlock(pub(crate) [WeightStep; STEPS]);

// SAFETY: 512 bytes, aligned to 64.
unsafe impl Zeroable for WeightBlock {}

impl Steps for WeightBlock {
    #[inline(always)]
    fn dot<V: Dot, const M: usize>(&self, v: V, sums: &mut [V::I; M], values: &[V::Block; M]) {
        for step in 0..STEPS {
            let w = v.weights(&self.0[step]);
            for i in 0..M {
                sums[i] = v.dot(sums[i], w, v.activations(values, i, step));
            }
        }
    }

    #[inline(always)]
    fn pair<V: Dot>(&self, v: V, pair: usize) -> [V::W; 2] {
        [v.weights(&self.0[2 * pair]), v.weights(&self.0[2 * pair + 1])]
    }

    #[inline(always)]
    fn bytes(blocks: &[WeightBlock]) -> Option<&[[WeightStep; STEPS]]> {
        // SAFETY: a block is its steps and nothing else, and its alignment is the greater one.
        Some(unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len()) })
    }
}

/// Q8_0 weights, `[groups, blocks]`; the last group is filled up with rows of scale zero.
pub(crate) struct Q8 {
    pub(crate) weights: Table<WeightBlock>,
    /// IEEE half precision, `[groups, blocks, 16]`.
    pub(crate) scales: Table<[F16; LANES]>,
    /// Neighbouring blocks whose scales are the same in every row, as [`Q8::in_runs`] found them: 1, 2, 4 or 8.
    pub(crate) run: usize,
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
        Ok(Q8 { weights: Table::zeroed(blocks)?, scales: Table::zeroed(blocks)?, run: 1 })
    }

    /// The same, whose products take blocks by runs if all rows that are set turn out to have such: see
    /// [`block::run_of`].
    ///
    /// # Errors
    /// As [`Q8::zeroed`].
    pub(crate) fn in_runs(n: usize, k: usize) -> Result<Q8> {
        Ok(Q8 { run: block::longest_run(k), ..Q8::zeroed(n, k)? })
    }

    /// Interleaves row `i` of `k` values.
    ///
    /// # Errors
    /// If a scale is infinite or NaN.
    pub(crate) fn set_row(&mut self, i: usize, k: usize, row: Row<'_>, layout: Layout) -> Result<()> {
        let (lane, blocks) = (i % LANES, k / BLOCK);
        let target = i / LANES * blocks..(i / LANES + 1) * blocks;
        let source = row.bytes.as_chunks::<{ DType::Q8_0.block_bytes() }>().0;
        self.run = block::run_of(self.run, row.bytes);
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
    pub(crate) fn set_block<V: Dot>(&mut self, v: V, at: usize, columns: &[[i8; LANES]; BLOCK]) {
        let layout = super::layout_of(v);
        let pairs = self.weights[at].0.as_chunks_mut::<2>().0;
        let columns = columns.as_chunks::<8>().0;
        for pair in 0..columns.len() {
            for lane in 0..LANES {
                let mut values = [0; 8];
                for i in 0..values.len() {
                    values[i] = columns[pair][i][lane] as u8;
                }
                layout.set(&mut pairs[pair], lane, &values);
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
