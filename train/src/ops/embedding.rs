//! The embedding of one stack: rows of the table, then dropout. No sqrt(d_model) factor, no absolute positions.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::norm::mask_rows;
use super::{Dropout, Pass, Values, argument};
use crate::kernels::vectorised;

/// The table `[vocab_size, d_model]` -> `[tokens, d_model]`.
pub struct Embedding {
    pub pass: Arc<Pass>,
    /// Index of the table.
    pub table: usize,
    pub d_model: usize,
    pub decoder: bool,
    pub dropout: Dropout,
}

impl Embedding {
    fn ids(&self) -> &[u32] {
        let sequences = &self.pass.sequences;
        if self.decoder { &sequences.decoder_input_ids } else { &sequences.encoder_ids }
    }

    fn mask(&self, values: &mut [f32]) {
        if self.dropout.is_off() {
            return;
        }
        let sequences = &self.pass.sequences;
        let rows = if self.decoder { &sequences.decoder_rows } else { &sequences.encoder_rows };
        mask_rows(&self.dropout, values, self.d_model, self.pass.dropout.shared_over_length.then_some(rows));
    }
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (table, d) = (argument(storage, layout)?, self.d_model);
        let mut out = Vec::with_capacity(self.ids().len() * d);
        for &id in self.ids() {
            out.extend_from_slice(&table[id as usize * d..(id as usize + 1) * d]);
        }
        self.mask(&mut out);
        Ok((CpuStorage::F32(out), Shape::from((self.ids().len(), d))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut table = self.pass.gradients.get(self.table);
        if table.is_empty() {
            return Ok(None);
        }
        let mut dy = Values::new(gradient)?.to_vec();
        self.mask(&mut dy);
        let d = self.d_model;
        vectorised(|| {
            for (&id, dy) in self.ids().iter().zip(dy.chunks_exact(d)) {
                for (row, dy) in table[id as usize * d..(id as usize + 1) * d].iter_mut().zip(dy) {
                    *row += dy;
                }
            }
        });
        // The gradient of the table is in the shared buffers already.
        Ok(None)
    }
}
