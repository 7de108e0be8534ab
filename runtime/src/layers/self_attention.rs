//! Self-attention: `x + o(attend(qkv(norm(x))))`, with the bias of relative positions.

use super::{Document, KvCache, Norm, Query, Scratch, part};
use crate::error::Result;
use crate::kernels::{Heads, Kernels, Matrix};
use crate::loader::Loader;
use crate::position::PositionBias;
use crate::schema::{Role, Stack};

pub(crate) struct SelfAttention {
    heads: Heads,
    norm: Norm,
    /// `[3 * inner, d_model]`: query, key and value in one product.
    qkv: Matrix,
    /// `[d_model, inner]`
    o: Matrix,
}

impl SelfAttention {
    pub fn load(loader: &Loader, stack: Stack, block: usize) -> Result<SelfAttention> {
        Ok(SelfAttention {
            heads: loader.heads(),
            norm: loader.norm(Role::AttentionNorm, stack, block)?,
            qkv: loader.matrix(&[Role::SelfQ, Role::SelfK, Role::SelfV], stack, block)?,
            o: loader.matrix(&[Role::SelfO], stack, block)?,
        })
    }

    /// Adds the layer's output to `x` `[rows, d_model]`, whole documents one after the other. Each position attends to
    /// all of its document but for masked padding.
    ///
    /// # Errors
    /// If there is no memory for the keys and values of a head.
    pub fn apply(
        &self,
        kernels: Kernels,
        documents: &[Document],
        bias: &PositionBias,
        x: &mut [f32],
        s: &mut Scratch,
    ) -> Result<()> {
        let inner = self.heads.inner();
        let rows = s.enter(kernels, &self.norm, &self.qkv, x);
        let qkv = &s.wide[..rows * 3 * inner];
        let context = part(&mut s.narrow, rows * inner);
        let mut row = 0;
        for &Document { rows, visible } in documents {
            let end = row + rows;
            let (qkv, context) = (&qkv[row * 3 * inner..end * 3 * inner], &mut context[row * inner..end * inner]);
            let bias = bias.row(0);
            kernels.attend_all(self.qkv.numbers(), self.heads, qkv, visible, bias, context, &mut s.workspace)?;
            row = end;
        }
        s.leave(kernels, &self.o, rows, x);
        Ok(())
    }

    /// As [`SelfAttention::apply`] for `x` `[queries, d_model]` of the decoder's block `block`: keys and values of all
    /// queries enter the cache, then each query attends to its own sequence up to itself; if they are read `together`,
    /// as the beginning of one sequence, to all of them.
    #[allow(clippy::too_many_arguments)] // which block, where it has its past, and what every layer takes
    pub fn apply_cached(
        &self,
        kernels: Kernels,
        block: usize,
        queries: &[Query],
        together: bool,
        cache: &mut KvCache,
        bias: &PositionBias,
        x: &mut [f32],
        s: &mut Scratch,
    ) {
        let inner = self.heads.inner();
        let rows = s.enter(kernels, &self.norm, &self.qkv, x);
        let qkv = &s.wide[..rows * 3 * inner];
        cache.write(block, queries, qkv);
        let context = part(&mut s.narrow, rows * inner);
        let rows_of = qkv.chunks_exact(3 * inner).zip(context.chunks_exact_mut(inner));
        for (query, (qkv, context)) in queries.iter().zip(rows_of) {
            let past = cache.view(block, queries.last().filter(|_| together).unwrap_or(query));
            let scores = part(&mut s.scores, self.heads.count * past.slots.len());
            kernels.attend(self.heads, &qkv[..inner], past, Some(bias.row(query.position)), scores, context);
        }
        s.leave(kernels, &self.o, rows, x);
    }

    /// Bytes of weights that a pass reads.
    pub fn bytes(&self) -> usize {
        self.qkv.bytes() + self.o.bytes()
    }
}
