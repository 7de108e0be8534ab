//! Cross-attention: queries from the decoder, keys and values from the encoder's output. It has no position bias.

use super::{Norm, Query, Scratch, part};
use crate::error::Result;
use crate::kernels::{AlignmentOut, Heads, Kernels, Matrix, Numbers, PackedKeyValues};
use crate::loader::Loader;
use crate::schema::{Role, Stack};

pub(crate) struct CrossAttention {
    heads: Heads,
    norm: Norm,
    /// `[inner, d_model]`
    q: Matrix,
    /// `[inner, d_model]`, applied once per document to the encoder's output.
    k: Matrix,
    /// `[inner, d_model]`, applied once per document to the encoder's output.
    v: Matrix,
    /// `[d_model, inner]`
    o: Matrix,
}

/// Keys and values of the documents that are being decoded, and which sequence reads which.
#[derive(Default)]
pub(crate) struct Sources {
    /// Of each document: all blocks and heads.
    packed: Vec<PackedKeyValues>,
    /// The document of each sequence.
    documents: Vec<usize>,
}

impl Sources {
    /// Starts over with `documents` documents of `sequences` sequences each, in order.
    pub fn begin(&mut self, documents: usize, sequences: usize) {
        if self.packed.len() < documents {
            self.packed.resize_with(documents, PackedKeyValues::default);
        }
        self.documents.clear();
        self.documents.extend((0..documents * sequences).map(|sequence| sequence / sequences));
    }

    /// Makes `sequences` sequences from `first` on read document `first`.
    pub fn assign(&mut self, first: usize, sequences: usize) {
        self.documents[first..first + sequences].fill(first);
    }

    /// The document of a sequence.
    pub fn document(&self, sequence: usize) -> usize {
        self.documents[sequence]
    }

    /// The first sequence of a document.
    pub fn first_of(&self, document: usize) -> usize {
        self.documents.iter().position(|&other| other == document).unwrap_or(document)
    }

    /// Makes room for the keys and values of a document of `len` tokens.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn begin_document(
        &mut self,
        document: usize,
        numbers: Numbers,
        heads: Heads,
        len: usize,
        blocks: usize,
    ) -> Result<()> {
        self.packed[document].begin(numbers, heads, len, blocks)
    }

    /// Keys and values of the document that a query belongs to.
    pub fn of(&self, query: &Query) -> &PackedKeyValues {
        &self.packed[self.document(query.sequence)]
    }
}

impl CrossAttention {
    pub fn load(loader: &Loader, block: usize) -> Result<CrossAttention> {
        let matrix = |role| loader.matrix(&[role], Stack::Decoder, block);
        Ok(CrossAttention {
            heads: loader.heads(),
            norm: loader.norm(Role::CrossAttentionNorm, Stack::Decoder, block)?,
            q: matrix(Role::CrossQ)?,
            k: matrix(Role::CrossK)?,
            v: matrix(Role::CrossV)?,
            o: matrix(Role::CrossO)?,
        })
    }

    /// In what numbers queries meet keys.
    pub fn numbers(&self) -> Numbers {
        self.k.numbers()
    }

    /// Computes keys and values of a document from its encoder states `[len, d_model]`, for block `block`.
    pub fn set_source(
        &self,
        kernels: Kernels,
        block: usize,
        document: usize,
        states: &[f32],
        sources: &mut Sources,
        s: &mut Scratch,
    ) {
        let len = states.len() / self.k.k();
        let keys = part(&mut s.wide, len * self.k.n());
        self.k.multiply(kernels, states, len, keys, &mut s.workspace);
        let values = part(&mut s.narrow, len * self.v.n());
        self.v.multiply(kernels, states, len, values, &mut s.workspace);
        sources.packed[document].pack(kernels, block, keys, values);
    }

    /// Adds the layer's output to `x` `[queries, d_model]`, in block `block`.
    ///
    /// Attention weights times the heads' shares, `[heads]`, are added to `alignment` `[queries, source]`, if given;
    /// all queries must then belong to one document.
    #[allow(clippy::too_many_arguments)] // which block, what it looks at, and what every layer takes
    pub fn apply(
        &self,
        kernels: Kernels,
        block: usize,
        queries: &[Query],
        sources: &Sources,
        mut alignment: Option<(&mut [f32], &[f32])>,
        x: &mut [f32],
        s: &mut Scratch,
    ) {
        let inner = self.heads.inner();
        let rows = s.enter(kernels, &self.norm, &self.q, x);
        let q = &s.wide[..rows * inner];
        let context = part(&mut s.narrow, rows * inner);
        let document = |query: &Query| sources.document(query.sequence);
        let mut row = 0;
        // Neighbouring queries of one document read its keys and values together.
        for same in queries.chunk_by(|a, b| document(a) == document(b)) {
            let source = sources.of(&same[0]);
            let range = row * inner..(row + same.len()) * inner;
            let alignment = alignment.as_mut().map(|(out, shares)| AlignmentOut {
                shares,
                out: &mut out[row * source.len()..(row + same.len()) * source.len()],
            });
            let (q, context) = (&q[range.clone()], &mut context[range]);
            kernels.attend_packed(q, source, block, context, alignment, &mut s.workspace);
            row += same.len();
        }
        s.leave(kernels, &self.o, rows, x);
    }

    /// Bytes of weights that a pass reads: keys and values are not computed again.
    pub fn bytes(&self) -> usize {
        self.q.bytes() + self.o.bytes()
    }
}
