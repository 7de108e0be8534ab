//! The decoder: tokens and caches to hidden states and logits.
//!
//! One forward pass serves greedy steps, beams, batches, forced prefixes and scoring: it takes any number of
//! queries, each a token at a position of a sequence, writes all their keys and values and then lets each attend
//! to the past of its own sequence. Cross-attention keys and values are computed once per document; in a model of one
//! stack a document is the beginning of its sequences ([`crate::one_stack`]).

use std::ops::Range;
use std::sync::Arc;

use crate::ensemble::Mean;
use crate::error::Result;
use crate::kernels::{Matrix, Numbers};
use crate::layers::{CrossAttention, FeedForward, KvCache, Norm, Query, Scratch, SelfAttention, Sources, part};
use crate::loader::Loader;
use crate::model::ModelData;
use crate::one_stack::Beginnings;
use crate::position::StackBias;
use crate::schema::Stack;
use crate::session::Session;

pub(crate) struct DecoderWeights {
    blocks: Vec<DecoderBlock>,
    bias: StackBias,
    final_norm: Norm,
    /// `[vocab_size, d_model]`
    head: Arc<Matrix>,
    /// d_model^-0.5 for tied models of T5 1.0, else 1.
    logits_scale: f32,
}

struct DecoderBlock {
    attention: SelfAttention,
    /// `None` in a model of one stack.
    cross: Option<CrossAttention>,
    feed_forward: FeedForward,
}

impl DecoderWeights {
    pub fn load(loader: &Loader) -> Result<DecoderWeights> {
        let config = loader.config();
        let blocks = config.num_decoder_layers;
        let reads_states = config.one_stack().is_none();
        Ok(DecoderWeights {
            blocks: (0..blocks)
                .map(|block| {
                    Ok(DecoderBlock {
                        attention: SelfAttention::load(loader, Stack::Decoder, block)?,
                        cross: reads_states.then(|| CrossAttention::load(loader, block)).transpose()?,
                        feed_forward: FeedForward::load(loader, Stack::Decoder, block)?,
                    })
                })
                .collect::<Result<_>>()?,
            bias: loader.position_bias(Stack::Decoder, blocks)?,
            final_norm: loader.final_norm(Stack::Decoder)?,
            head: Arc::new(loader.head()?),
            logits_scale: config.logits_scale(),
        })
    }

    pub fn head(&self) -> &Arc<Matrix> {
        &self.head
    }

    /// How many there are.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of weights that one step reads.
    pub fn bytes(&self) -> usize {
        let of_block = |block: &DecoderBlock| {
            let cross = block.cross.as_ref().map_or(0, CrossAttention::bytes);
            block.attention.bytes() + cross + block.feed_forward.bytes()
        };
        self.blocks.iter().map(of_block).sum::<usize>() + self.head.bytes()
    }
}

/// A session's share of the decoder: caches of everything that is being decoded, and results of the last pass.
pub(crate) struct DecoderState {
    bias: StackBias,
    cache: KvCache,
    pub sources: Sources,
    /// In a model of one stack: what sequences begin with.
    pub beginnings: Beginnings,
    /// `[rows, d_model]`: the residual stream.
    x: Vec<f32>,
    /// `[wanted, d_model]`: what the head reads.
    chosen: Vec<f32>,
    /// `[wanted, vocab_size]`
    logits: Vec<f32>,
    /// `[rows, source]`: an average of cross-attention weights.
    alignment: Vec<f32>,
}

impl DecoderState {
    pub fn new(model: &ModelData, weights: &DecoderWeights) -> DecoderState {
        DecoderState {
            bias: weights.bias.clone(),
            cache: KvCache::new(weights.blocks.len(), model.heads()),
            sources: Sources::default(),
            beginnings: Beginnings::default(),
            x: Vec::new(),
            chosen: Vec::new(),
            logits: Vec::new(),
            alignment: Vec::new(),
        }
    }

    /// Puts back logits that were taken.
    pub fn put_logits(&mut self, logits: Vec<f32>) {
        self.logits = logits;
    }
}

/// The decoder at work for a session.
pub(crate) struct Decoder<'a> {
    pub model: &'a ModelData,
    pub weights: &'a DecoderWeights,
    pub state: &'a mut DecoderState,
    pub scratch: &'a mut Scratch,
    /// The other models of an ensemble at work beside it, and what is averaged.
    pub others: &'a mut [Session],
    pub mean: Mean,
}

impl<'a> Decoder<'a> {
    /// Starts over with `documents` documents of `sequences` sequences each, which are expected to become
    /// `positions` tokens long. Sequence `i` belongs to document `i / sequences`.
    pub fn begin(&mut self, documents: usize, sequences: usize, positions: usize) -> Result<()> {
        self.state.cache.begin(documents * sequences, positions)?;
        self.state.bias.prepare(self.state.cache.positions());
        self.state.sources.begin(documents, sequences);
        self.state.beginnings.begin(documents);
        Ok(())
    }

    /// Makes `sequences` sequences from `first` on read the document of that number.
    pub fn assign(&mut self, first: usize, sequences: usize) {
        self.state.sources.assign(first, sequences);
    }

    /// Computes the cross-attention keys and values of a document from its encoder states `[len, d_model]`.
    pub fn set_source(&mut self, document: usize, states: &[f32]) -> Result<()> {
        let weights = self.weights;
        let layers = || weights.blocks.iter().filter_map(|block| block.cross.as_ref());
        let len = states.len() / self.model.config.d_model;
        let numbers = layers().next().map_or_else(Numbers::default, CrossAttention::numbers);
        let sources = &mut self.state.sources;
        sources.begin_document(document, numbers, self.model.heads(), len, layers().count())?;
        for (index, cross) in layers().enumerate() {
            cross.set_source(self.model.kernels, index, document, states, sources, self.scratch);
        }
        Ok(())
    }

    /// Runs the blocks over `queries`, of which any number may belong to one sequence, in ascending position:
    /// [`Decoder::head`] and [`Decoder::best`] go on from there.
    pub fn run(&mut self, queries: &[Query]) -> Result<()> {
        self.run_blocks(queries, None)?;
        self.others_too(|other| other.run(queries))
    }

    /// As [`Decoder::run`], with [`Decoder::alignment`]: an average in which heads have `shares` `[blocks, heads]`. All
    /// queries must belong to one document, and the model must not be an ensemble.
    pub fn run_aligned(&mut self, queries: &[Query], shares: &[f32]) -> Result<()> {
        self.run_blocks(queries, Some(shares))
    }

    fn run_blocks(&mut self, queries: &[Query], shares: Option<&[f32]>) -> Result<()> {
        let mut placed = std::mem::take(&mut self.state.beginnings.placed);
        let mut x = std::mem::take(&mut self.state.x);
        let queries = self.behind_beginnings(queries, &mut placed);
        let entered = self.enter(queries, &mut x);
        let DecoderState { sources, alignment, .. } = &mut *self.state;
        alignment.clear();
        if shares.is_some() {
            alignment.resize(queries.len() * sources.of(&queries[0]).len(), 0.0);
        }
        if entered.is_ok() {
            self.pass(0..self.weights.blocks(), queries, false, shares, &mut x);
        }
        (self.state.x, self.state.beginnings.placed) = (x, placed);
        entered
    }

    /// Makes room for the keys and values of queries, and looks up their tokens: x is `[queries, d_model]`.
    pub fn enter(&mut self, queries: &[Query], x: &mut Vec<f32>) -> Result<()> {
        let DecoderState { bias, cache, .. } = &mut *self.state;
        let longest = queries.iter().map(|query| query.position + 1).max().unwrap_or(0);
        if longest > cache.positions() {
            cache.grow(longest.max(2 * cache.positions()))?;
            bias.prepare(cache.positions());
        }
        cache.extend(queries);
        let d = self.model.config.d_model;
        let x = part(x, queries.len() * d);
        self.model.embedding.look_up(self.model.kernels, queries.iter().map(|query| query.token), d, x);
        Ok(())
    }

    /// Runs what has entered through some blocks. Queries that are read `together` are the beginning of one sequence,
    /// and see each other.
    pub fn pass(
        &mut self,
        blocks: Range<usize>,
        queries: &[Query],
        together: bool,
        shares: Option<&[f32]>,
        x: &mut [f32],
    ) {
        let DecoderState { bias, cache, sources, alignment, .. } = &mut *self.state;
        let (kernels, heads) = (self.model.kernels, self.model.config.num_heads);
        let x = &mut x[..queries.len() * self.model.config.d_model];
        for index in blocks {
            let block = &self.weights.blocks[index];
            let (bias, s) = (bias.of_block(index), &mut *self.scratch);
            block.attention.apply_cached(kernels, index, queries, together, cache, bias, x, s);
            if let Some(cross) = &block.cross {
                let aligned = shares.map(|shares| (&mut alignment[..], &shares[index * heads..][..heads]));
                cross.apply(kernels, index, queries, sources, aligned, x, s);
            }
            block.feed_forward.apply(kernels, x, s);
        }
    }

    /// `[queries, source]` of the last pass: cross-attention weights averaged over the heads that have shares.
    pub fn alignment(&self) -> &[f32] {
        &self.state.alignment
    }

    /// The states of the first `rows` queries of the last pass behind the last norm, `[rows, d_model]`, not scaled:
    /// what heads of other kinds read.
    pub fn states(&mut self, rows: usize) -> &[f32] {
        let DecoderState { x, chosen, .. } = &mut *self.state;
        let len = rows * self.model.config.d_model;
        let chosen = part(chosen, len);
        self.weights.final_norm.apply(self.model.kernels, &x[..len], chosen);
        chosen
    }

    /// The head over the queries of the last pass whose index is in `wanted`: [`Decoder::logits`] has a row for each.
    pub fn head(&mut self, wanted: &[usize]) {
        self.choose(wanted);
        let DecoderState { chosen, logits, .. } = &mut *self.state;
        let head = &self.weights.head;
        let logits = part(logits, wanted.len() * head.n());
        let chosen = &chosen[..wanted.len() * self.model.config.d_model];
        head.multiply(self.model.kernels, chosen, wanted.len(), logits, &mut self.scratch.workspace);
        if !self.others.is_empty() {
            self.others_too(|other| {
                other.head(wanted);
                Ok(())
            })
            .expect("every model of an ensemble has a decoder");
            self.average(wanted.len());
        }
    }

    /// Rows of what [`Decoder::head`] computed last, `[rows, vocab_size]`.
    pub fn logits(&mut self, rows: Range<usize>) -> &mut [f32] {
        let vocab = self.weights.head.n();
        &mut self.state.logits[rows.start * vocab..rows.end * vocab]
    }

    /// The first row of what [`Decoder::head`] computed last, `[vocab_size]`.
    pub fn last_logits(self) -> &'a [f32] {
        &self.state.logits[..self.weights.head.n()]
    }

    /// The token with the largest logit, among those not in `except`, after one query of the last pass.
    pub fn best(&mut self, query: usize, except: &[u32]) -> u32 {
        if !self.others.is_empty() {
            // The largest mean is only known from all logits of all models.
            self.head(&[query]);
            let kernels = self.model.kernels;
            let logits = self.logits(0..1);
            except.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
            return kernels.argmax(logits).unwrap_or(0) as u32;
        }
        self.choose(&[query]);
        let DecoderState { chosen, logits, .. } = &mut *self.state;
        let head = &self.weights.head;
        let (chosen, logits) = (&chosen[..self.model.config.d_model], part(logits, head.n()));
        // All NaN only if the weights are: any token is as wrong as another.
        let best = head.argmax(self.model.kernels, chosen, except, logits, &mut self.scratch.workspace);
        best.unwrap_or(0) as u32
    }

    /// What the head reads of the given rows of the last pass.
    fn choose(&mut self, rows: &[usize]) {
        let DecoderState { x, chosen, .. } = &mut *self.state;
        let (d, kernels) = (self.model.config.d_model, self.model.kernels);
        let chosen = part(chosen, rows.len() * d);
        for (&row, out) in rows.iter().zip(chosen.chunks_exact_mut(d)) {
            self.weights.final_norm.apply(kernels, &x[row * d..(row + 1) * d], out);
        }
        if self.weights.logits_scale != 1.0 {
            kernels.scale(chosen, self.weights.logits_scale);
        }
    }

    /// Makes sequence `first + i` continue what was sequence `first + parents[i]`, over positions below `len`.
    pub fn reorder(&mut self, first: usize, parents: &[usize], len: usize) {
        let before = self.state.beginnings.len_of(&self.state.sources, first);
        self.state.cache.reorder(first, parents, before + len);
        self.others_too(|other| {
            other.reorder(first, parents, len);
            Ok(())
        })
        .expect("every model of an ensemble has a decoder");
    }

    /// The logits, to be put back.
    pub fn take_logits(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.state.logits)
    }

    /// Puts back what was taken.
    pub fn put_logits(&mut self, logits: Vec<f32>) {
        self.state.put_logits(logits);
    }
}
