//! Models of one stack, a language model and a prefix language model (docs/t5.md 1.7): a decoder without
//! cross-attention, whose text is the start token, the source and what is generated.
//!
//! To all that decodes, such a model is a decoder as others are: a sequence starts at position 0, behind its source.
//! Here the source is put into the caches, and places behind it are found: position 0 reads the source's last token,
//! `</s>`, and predicts the first token of the target.

use crate::config::OneStack;
use crate::decoder::Decoder;
use crate::encoder::ROWS;
use crate::error::Result;
use crate::layers::{Query, Sources};

/// What the sequences of each document begin with.
#[derive(Default)]
pub(crate) struct Beginnings {
    documents: Vec<Beginning>,
    reading: Reading,
    /// Queries of a pass at their places behind their sources.
    pub placed: Vec<Query>,
}

/// A source in the caches.
#[derive(Clone, Copy, Default)]
struct Beginning {
    /// Positions before that of its last token: the start token's and those of all other tokens.
    len: usize,
    last: u32,
}

/// A source on its way into the caches.
#[derive(Default)]
struct Reading {
    queries: Vec<Query>,
    /// `[queries, d_model]`: the residual stream.
    x: Vec<f32>,
    /// Blocks that are done.
    passed: usize,
}

impl Beginnings {
    /// Starts over with this many documents.
    pub fn begin(&mut self, documents: usize) {
        self.documents.clear();
        self.documents.resize(documents, Beginning::default());
    }

    /// How many positions are before those that a sequence counts; 0 where there is an encoder.
    pub fn len_of(&self, sources: &Sources, sequence: usize) -> usize {
        self.documents[sources.document(sequence)].len
    }
}

impl Decoder<'_> {
    /// Begins to read a source as the beginning of a document's sequences: [`Decoder::read_source`] goes on.
    ///
    /// # Errors
    /// If there is no memory for its keys and values.
    pub fn begin_source(&mut self, document: usize, start: u32, source: &[u32]) -> Result<()> {
        let sequence = self.state.sources.first_of(document);
        let beginnings = &mut self.state.beginnings;
        beginnings.documents[document] = Beginning { len: source.len(), last: source.last().copied().unwrap_or(start) };
        let Reading { mut queries, mut x, .. } = std::mem::take(&mut beginnings.reading);
        queries.clear();
        let tokens = std::iter::once(start).chain(source.iter().copied());
        queries.extend(tokens.enumerate().map(|(position, token)| Query { token, sequence, position }));
        let entered = self.enter(&queries, &mut x);
        self.state.beginnings.reading = Reading { queries, x, passed: 0 };
        entered
    }

    /// Runs the source through as many blocks as make a piece of work, at least one. False when no block is left.
    pub fn read_source(&mut self) -> bool {
        let Reading { queries, mut x, passed } = std::mem::take(&mut self.state.beginnings.reading);
        let together = self.model.config.one_stack() == Some(OneStack::Prefix);
        let piece = (ROWS / queries.len().max(1)).max(1);
        let until = self.weights.blocks().min(passed + piece);
        self.pass(passed..until, &queries, together, None, &mut x);
        self.state.beginnings.reading = Reading { queries, x, passed: until };
        until < self.weights.blocks()
    }

    /// Queries at their places behind the sources of their sequences, in a model of one stack; the same elsewhere.
    pub fn behind_beginnings<'q>(&self, queries: &'q [Query], placed: &'q mut Vec<Query>) -> &'q [Query] {
        if self.model.config.one_stack().is_none() {
            return queries;
        }
        placed.clear();
        placed.extend(queries.iter().map(|query| {
            let Beginning { len, last } = self.state.beginnings.documents[self.state.sources.document(query.sequence)];
            let token = if query.position == 0 { last } else { query.token };
            Query { token, position: query.position + len, ..*query }
        }));
        placed
    }
}
