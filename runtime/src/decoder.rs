//! The decoder: tokens and caches to hidden states and logits.
//!
//! One forward pass serves greedy steps, beams, batches, forced prefixes and scoring: it takes any number of
//! queries, each a token at a position of a sequence, writes all their keys and values and then lets each attend
//! to the past of its own sequence. Cross-attention keys and values are computed once per document.

use std::sync::Arc;

use crate::attention::{CrossAttention, Scratch, SelfAttention, add_product, part};
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::kernels::{AlignmentOut, Buffer, Heads, KeyValues, Matrix, Numbers, PackedKeyValues};
use crate::position::PositionBias;
use crate::schema::Stack;
use crate::shared::{Loader, Shared};

pub(crate) struct DecoderWeights {
    blocks: Vec<DecoderBlock>,
    /// One table, or one for each block (umT5).
    biases: Vec<PositionBias>,
    final_norm: Vec<f32>,
    /// `[vocab_size, d_model]`
    head: Arc<Matrix>,
    /// d_model^-0.5 for tied models of T5 1.0, else 1.
    logits_scale: f32,
}

struct DecoderBlock {
    attention: SelfAttention,
    cross: CrossAttention,
    feed_forward: FeedForward,
}

impl DecoderWeights {
    pub fn load(loader: &Loader) -> Result<DecoderWeights> {
        let config = loader.config();
        let blocks = config.num_decoder_layers;
        Ok(DecoderWeights {
            blocks: (0..blocks)
                .map(|block| {
                    Ok(DecoderBlock {
                        attention: SelfAttention::load(loader, Stack::Decoder, block)?,
                        cross: CrossAttention::load(loader, block)?,
                        feed_forward: FeedForward::load(loader, Stack::Decoder, block)?,
                    })
                })
                .collect::<Result<_>>()?,
            biases: loader.position_biases(Stack::Decoder, blocks)?,
            final_norm: loader.final_norm(Stack::Decoder)?,
            head: Arc::new(loader.head()?),
            logits_scale: config.logits_scale(),
        })
    }

    pub fn head(&self) -> &Arc<Matrix> {
        &self.head
    }

    /// Bytes of weights that one step reads (keys and values of cross-attention are not computed again).
    pub fn bytes(&self) -> usize {
        let blocks: usize = self
            .blocks
            .iter()
            .map(|block| {
                let (own, cross) = (&block.attention, &block.cross);
                own.qkv.bytes() + own.o.bytes() + cross.q.bytes() + cross.o.bytes() + block.feed_forward.bytes()
            })
            .sum();
        blocks + self.head.bytes()
    }
}

/// One row of a forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub token: u32,
    /// The sequence it continues; it also names the cache slot that is written.
    pub sequence: usize,
    pub position: usize,
}

/// Positions that caches have room for at first.
const FIRST_POSITIONS: usize = 64;

/// Caches of everything that is being decoded.
///
/// Self-attention keys and values lie at `[block][keys, values][slot][head][position][width]`. A sequence has a path: which
/// slot holds its token at each position. Re-ordering beams permutes paths, never keys and values.
pub(crate) struct DecoderState {
    biases: Vec<PositionBias>,
    own: Buffer<f32>,
    blocks: usize,
    /// `[slots, positions]`
    paths: Vec<u32>,
    /// Scratch of the same size.
    next_paths: Vec<u32>,
    slots: usize,
    positions: usize,
    /// Of each document.
    cross: Vec<PackedKeyValues>,
    /// Document of each sequence.
    documents: Vec<usize>,
    /// `[rows, d_model]`: the residual stream.
    x: Vec<f32>,
    /// `[rows, d_model]`: rows of which logits are wanted.
    chosen: Vec<f32>,
}

impl DecoderState {
    pub fn new(weights: &DecoderWeights) -> DecoderState {
        DecoderState {
            biases: weights.biases.clone(),
            own: Buffer::default(),
            blocks: weights.blocks.len(),
            paths: Vec::new(),
            next_paths: Vec::new(),
            slots: 0,
            positions: 0,
            cross: Vec::new(),
            documents: Vec::new(),
            x: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// Starts over with `documents` documents of `sequences` sequences each, which are expected to become
    /// `positions` tokens long. Sequence `i` belongs to document `i / sequences`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub fn begin(&mut self, shared: &Shared, documents: usize, sequences: usize, positions: usize) -> Result<()> {
        self.slots = documents * sequences;
        self.paths.clear();
        self.next_paths.clear();
        // What was allocated for earlier requests is there already.
        let ready = self.own.values().len() / self.runs(shared).max(1) / shared.config.d_kv.max(1);
        self.positions = 0; // nothing to keep
        self.grow(shared, ready.max(FIRST_POSITIONS).min(positions))?;
        if self.cross.len() < documents {
            self.cross.resize_with(documents, PackedKeyValues::default);
        }
        self.documents.clear();
        self.documents.extend((0..self.slots).map(|slot| slot / sequences));
        Ok(())
    }

    /// Runs of positions in the self-attention caches.
    fn runs(&self, shared: &Shared) -> usize {
        self.blocks * 2 * self.slots * shared.config.num_heads
    }

    /// Makes room for more positions. Limits of new tokens are often far above what is generated, so memory
    /// follows what is used.
    fn grow(&mut self, shared: &Shared, positions: usize) -> Result<()> {
        for bias in &mut self.biases {
            bias.prepare(positions);
        }
        let (before, after) = (self.positions * shared.config.d_kv, positions * shared.config.d_kv);
        let runs = self.runs(shared);
        if self.own.values().len() < runs * after {
            let kept = Some(std::mem::take(&mut self.own)).filter(|_| before > 0);
            self.own.reserve(runs.saturating_mul(after))?;
            let own = self.own.part(runs * after);
            if let Some(kept) = kept {
                for (run, own) in kept.values().chunks_exact(before).zip(own.chunks_exact_mut(after)) {
                    own[..before].copy_from_slice(run);
                }
            }
        } else {
            // From the last on, so that nothing is overwritten before it has moved.
            let own = self.own.part(runs * after);
            for run in (1..runs).rev() {
                own.copy_within(run * before..(run + 1) * before, run * after);
            }
        }
        self.next_paths.clear();
        for slot in 0..self.slots {
            let known = self.paths.get(slot * self.positions..(slot + 1) * self.positions).unwrap_or_default();
            self.next_paths.extend_from_slice(known);
            self.next_paths.extend(std::iter::repeat_n(slot as u32, positions - known.len()));
        }
        std::mem::swap(&mut self.paths, &mut self.next_paths);
        self.next_paths.resize(self.paths.len(), 0);
        self.positions = positions;
        Ok(())
    }

    /// Computes the cross-attention keys and values of a document from its encoder states `[len, d_model]`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub fn set_source(
        &mut self,
        shared: &Shared,
        weights: &DecoderWeights,
        document: usize,
        states: &[f32],
        s: &mut Scratch,
    ) -> Result<()> {
        let inner = shared.config.inner_dim();
        let len = states.len() / shared.config.d_model;
        let cache = &mut self.cross[document];
        let heads = Heads { count: shared.config.num_heads, width: shared.config.d_kv };
        let numbers = weights.blocks.first().map_or_else(Numbers::default, |block| block.cross.k.numbers());
        cache.begin(numbers, heads, len, weights.blocks.len())?;
        for (index, block) in weights.blocks.iter().enumerate() {
            let keys = part(&mut s.wide, len * inner);
            block.cross.k.multiply(shared.kernels, states, len, keys, &mut s.workspace);
            let values = part(&mut s.narrow, len * inner);
            block.cross.v.multiply(shared.kernels, states, len, values, &mut s.workspace);
            cache.pack(shared.kernels, index, keys, values);
        }
        Ok(())
    }

    /// Makes sequence `first + i` continue what was sequence `first + parents[i]`, over positions below `len`.
    pub fn reorder(&mut self, first: usize, parents: &[usize], len: usize) {
        let positions = self.positions;
        for (i, &parent) in parents.iter().enumerate() {
            let from = (first + parent) * positions;
            self.next_paths[i * positions..][..len].copy_from_slice(&self.paths[from..from + len]);
        }
        for i in 0..parents.len() {
            self.paths[(first + i) * positions..][..len].copy_from_slice(&self.next_paths[i * positions..][..len]);
        }
    }

    /// Runs the decoder over `queries`, then the head over those whose index is in `wanted`: `logits` becomes
    /// `[wanted, vocab_size]`. Queries of one sequence may stand in any number, in ascending position.
    ///
    /// `alignment`, if given, becomes `[queries, source]`: cross-attention weights averaged over heads and blocks.
    /// All queries must then belong to one document.
    ///
    /// # Errors
    /// As [`DecoderState::run`].
    #[allow(clippy::too_many_arguments)] // the weights, the request, two results and scratch
    pub fn forward(
        &mut self,
        shared: &Shared,
        weights: &DecoderWeights,
        queries: &[Query],
        wanted: &[usize],
        logits: &mut Vec<f32>,
        alignment: Option<&mut Vec<f32>>,
        s: &mut Scratch,
    ) -> Result<()> {
        self.run(shared, weights, queries, alignment, s)?;
        self.head(shared, weights, wanted, logits, s);
        Ok(())
    }

    /// The head over the rows of the last pass whose index is in `wanted`: `logits` becomes `[wanted, vocab_size]`.
    pub fn head(
        &mut self,
        shared: &Shared,
        weights: &DecoderWeights,
        wanted: &[usize],
        logits: &mut Vec<f32>,
        s: &mut Scratch,
    ) {
        self.choose(shared, weights, wanted);
        let logits = part(logits, wanted.len() * weights.head.n());
        let chosen = &self.chosen[..wanted.len() * shared.config.d_model];
        weights.head.multiply(shared.kernels, chosen, wanted.len(), logits, &mut s.workspace);
    }

    /// The token with the largest logit, among those not in `except`, after query `row` of the last pass. `logits` is
    /// scratch.
    pub fn best(
        &mut self,
        shared: &Shared,
        weights: &DecoderWeights,
        row: usize,
        except: &[u32],
        logits: &mut Vec<f32>,
        s: &mut Scratch,
    ) -> u32 {
        self.choose(shared, weights, &[row]);
        let logits = part(logits, weights.head.n());
        let chosen = &self.chosen[..shared.config.d_model];
        // All NaN only if the weights are: any token is as wrong as another.
        weights.head.argmax(shared.kernels, chosen, except, logits, &mut s.workspace).unwrap_or(0) as u32
    }

    /// What the head reads of the given rows of the last pass.
    fn choose(&mut self, shared: &Shared, weights: &DecoderWeights, rows: &[usize]) {
        let d = shared.config.d_model;
        let chosen = part(&mut self.chosen, rows.len() * d);
        for (&row, out) in rows.iter().zip(chosen.chunks_exact_mut(d)) {
            let x = &self.x[row * d..(row + 1) * d];
            shared.kernels.rms_norm(x, &weights.final_norm, shared.config.layer_norm_epsilon, out);
        }
        if weights.logits_scale != 1.0 {
            shared.kernels.scale(chosen, weights.logits_scale);
        }
    }

    /// Runs the blocks over `queries`: leaves the residual stream in `x`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough for the keys and values of new positions.
    pub fn run(
        &mut self,
        shared: &Shared,
        weights: &DecoderWeights,
        queries: &[Query],
        mut alignment: Option<&mut Vec<f32>>,
        s: &mut Scratch,
    ) -> Result<()> {
        let config = &shared.config;
        let kernels = shared.kernels;
        let (d, inner, eps) = (config.d_model, config.inner_dim(), config.layer_norm_epsilon);
        let heads = Heads { count: config.num_heads, width: config.d_kv };
        let rows = queries.len();
        let longest = queries.iter().map(|query| query.position + 1).max().unwrap_or(0);
        if longest > self.positions {
            self.grow(shared, longest.max(2 * self.positions))?;
        }
        let x = part(&mut self.x, rows * d);
        shared.embed(queries.iter().map(|query| query.token), x);
        for query in queries {
            self.paths[query.sequence * self.positions + query.position] = query.sequence as u32;
        }
        let run = self.positions * heads.width;
        let half = self.slots * heads.count * run;
        if let Some(alignment) = &mut alignment {
            let len = self.cross[self.documents[queries[0].sequence]].len();
            alignment.clear();
            alignment.resize(rows * len, 0.0);
        }
        for (index, block) in weights.blocks.iter().enumerate() {
            // Self-attention.
            let bias = &self.biases[index.min(self.biases.len() - 1)];
            let normed = part(&mut s.normed, rows * d);
            kernels.rms_norm(x, &block.attention.norm, eps, normed);
            let qkv = part(&mut s.wide, rows * 3 * inner);
            block.attention.qkv.multiply(kernels, normed, rows, qkv, &mut s.workspace);
            let own = &mut self.own.part(2 * half * weights.blocks.len())[2 * half * index..][..2 * half];
            let (keys, values) = own.split_at_mut(half);
            for (query, qkv) in queries.iter().zip(qkv.chunks_exact(3 * inner)) {
                for head in 0..heads.count {
                    let from = inner + head * heads.width;
                    let at = (query.sequence * heads.count + head) * run + query.position * heads.width;
                    keys[at..at + heads.width].copy_from_slice(&qkv[from..from + heads.width]);
                    values[at..at + heads.width].copy_from_slice(&qkv[inner + from..inner + from + heads.width]);
                }
            }
            let context = part(&mut s.narrow, rows * inner);
            for ((query, qkv), context) in
                queries.iter().zip(qkv.chunks_exact(3 * inner)).zip(context.chunks_exact_mut(inner))
            {
                let len = query.position + 1;
                let slots = &self.paths[query.sequence * self.positions..][..len];
                let cache = KeyValues { keys, values, positions: self.positions, slots };
                let scores = part(&mut s.scores, heads.count * len);
                kernels.attend(heads, &qkv[..inner], cache, Some(bias.row(query.position)), scores, context);
            }
            add_product(kernels, &block.attention.o, context, rows, x, &mut s.delta, &mut s.workspace);

            // Cross-attention: no bias.
            let normed = part(&mut s.normed, rows * d);
            kernels.rms_norm(x, &block.cross.norm, eps, normed);
            let q = part(&mut s.wide, rows * inner);
            block.cross.q.multiply(kernels, normed, rows, q, &mut s.workspace);
            let context = part(&mut s.narrow, rows * inner);
            // Neighbouring queries of one document read its keys and values together.
            let mut row = 0;
            for same in queries.chunk_by(|a, b| self.documents[a.sequence] == self.documents[b.sequence]) {
                let source = &self.cross[self.documents[same[0].sequence]];
                let range = row * inner..(row + same.len()) * inner;
                let alignment = alignment.as_mut().map(|alignment| AlignmentOut {
                    share: 1.0 / (heads.count * weights.blocks.len()) as f32,
                    out: &mut alignment[row * source.len()..(row + same.len()) * source.len()],
                });
                let (q, context) = (&q[range.clone()], &mut context[range]);
                kernels.attend_packed(q, source, index, context, alignment, &mut s.workspace);
                row += same.len();
            }
            add_product(kernels, &block.cross.o, context, rows, x, &mut s.delta, &mut s.workspace);

            block.feed_forward.apply(kernels, eps, x, rows, s);
        }
        Ok(())
    }
}
