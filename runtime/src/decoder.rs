//! The decoder: tokens and caches to hidden states and logits.
//!
//! One forward pass serves greedy steps, beams, batches, forced prefixes and scoring: it takes any number of
//! queries, each a token at a position of a sequence, writes all their keys and values and then lets each attend
//! to the past of its own sequence. Cross-attention keys and values are computed once per document.

use crate::attention::{CrossAttention, Scratch, SelfAttention, add_product, part};
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::kernels::{Heads, KeyValues, Matrix};
use crate::model::{Loader, Weights};
use crate::position::PositionBias;
use crate::schema::Stack;
use crate::tensor::Tensor;

pub(crate) struct DecoderWeights {
    blocks: Vec<DecoderBlock>,
    /// One table, or one for each block (umT5).
    biases: Vec<PositionBias>,
    final_norm: Vec<f32>,
    /// `[vocab_size, d_model]`
    head: Matrix,
    /// d_model^-0.5 for tied models of T5 1.0, else 1.
    logits_scale: f32,
}

struct DecoderBlock {
    attention: SelfAttention,
    cross: CrossAttention,
    feed_forward: FeedForward,
}

impl DecoderWeights {
    pub fn load(loader: &Loader, embedding: &Tensor) -> Result<DecoderWeights> {
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
            head: loader.head(embedding)?,
            logits_scale: config.logits_scale(),
        })
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

/// Keys and values of one document for every block, `[len, inner]` each.
#[derive(Default)]
struct CrossCache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    len: usize,
}

/// Caches of everything that is being decoded.
///
/// Self-attention keys and values lie at `[position][slot][inner]` for each block. A sequence has a path: which
/// slot holds its token at each position. Re-ordering beams permutes paths, never keys and values.
pub(crate) struct DecoderState {
    biases: Vec<PositionBias>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// `[slots, positions]`
    paths: Vec<u32>,
    next_paths: Vec<u32>,
    slots: usize,
    positions: usize,
    cross: Vec<CrossCache>,
    /// Document of each sequence.
    documents: Vec<usize>,
    /// `[rows, d_model]`: the residual stream.
    x: Vec<f32>,
    /// `[rows, d_model]`: rows of which logits are wanted.
    chosen: Vec<f32>,
}

impl DecoderState {
    pub fn new(weights: &Weights) -> DecoderState {
        let blocks = weights.config.num_decoder_layers;
        DecoderState {
            biases: weights.decoder.as_ref().map_or_else(Vec::new, |decoder| decoder.biases.clone()),
            keys: vec![Vec::new(); blocks],
            values: vec![Vec::new(); blocks],
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

    /// Starts over with `documents` documents of `sequences` sequences each and room for `positions` tokens.
    /// Sequence `i` belongs to document `i / sequences`.
    pub fn begin(&mut self, weights: &Weights, documents: usize, sequences: usize, positions: usize) {
        self.slots = documents * sequences;
        self.positions = positions;
        for bias in &mut self.biases {
            bias.prepare(positions);
        }
        let values = positions * self.slots * weights.config.inner_dim();
        for cache in self.keys.iter_mut().chain(&mut self.values) {
            part(cache, values);
        }
        self.paths.clear();
        self.paths.extend((0..self.slots).flat_map(|slot| std::iter::repeat_n(slot as u32, positions)));
        self.next_paths.clear();
        self.next_paths.resize(sequences * positions, 0);
        if self.cross.len() < documents {
            self.cross.resize_with(documents, CrossCache::default);
        }
        self.documents.clear();
        self.documents.extend((0..self.slots).map(|slot| slot / sequences));
    }

    /// Computes the cross-attention keys and values of a document from its encoder states `[len, d_model]`.
    pub fn set_source(&mut self, weights: &Weights, document: usize, states: &[f32], s: &mut Scratch) -> Result<()> {
        let decoder = weights.decoder()?;
        let inner = weights.config.inner_dim();
        let len = states.len() / weights.config.d_model;
        let cache = &mut self.cross[document];
        cache.keys.resize_with(decoder.blocks.len(), Vec::new);
        cache.values.resize_with(decoder.blocks.len(), Vec::new);
        cache.len = len;
        for (index, block) in decoder.blocks.iter().enumerate() {
            let mut product = |matrix: &Matrix, out: &mut Vec<f32>| {
                matrix.multiply(weights.kernels, states, len, part(out, len * inner), &mut s.workspace);
            };
            product(&block.cross.k, &mut cache.keys[index]);
            product(&block.cross.v, &mut cache.values[index]);
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
    pub fn forward(
        &mut self,
        weights: &Weights,
        queries: &[Query],
        wanted: &[usize],
        logits: &mut Vec<f32>,
        mut alignment: Option<&mut Vec<f32>>,
        s: &mut Scratch,
    ) -> Result<()> {
        let decoder = weights.decoder()?;
        let config = &weights.config;
        let kernels = weights.kernels;
        let (d, inner, eps) = (config.d_model, config.inner_dim(), config.layer_norm_epsilon);
        let heads = Heads { count: config.num_heads, width: config.d_kv };
        let rows = queries.len();
        let stride = self.slots * inner;
        let x = part(&mut self.x, rows * d);
        weights.embed(queries.iter().map(|query| query.token), x);
        for query in queries {
            self.paths[query.sequence * self.positions + query.position] = query.sequence as u32;
        }
        if let Some(alignment) = &mut alignment {
            let len = self.cross[self.documents[queries[0].sequence]].len;
            alignment.clear();
            alignment.resize(rows * len, 0.0);
        }
        for (index, block) in decoder.blocks.iter().enumerate() {
            // Self-attention.
            let bias = &self.biases[index.min(self.biases.len() - 1)];
            let normed = part(&mut s.normed, rows * d);
            kernels.rms_norm(x, &block.attention.norm, eps, normed);
            let qkv = part(&mut s.wide, rows * 3 * inner);
            block.attention.qkv.multiply(kernels, normed, rows, qkv, &mut s.workspace);
            let (keys, values) = (&mut self.keys[index], &mut self.values[index]);
            for (query, qkv) in queries.iter().zip(qkv.chunks_exact(3 * inner)) {
                let at = query.position * stride + query.sequence * inner;
                keys[at..at + inner].copy_from_slice(&qkv[inner..2 * inner]);
                values[at..at + inner].copy_from_slice(&qkv[2 * inner..]);
            }
            let context = part(&mut s.narrow, rows * inner);
            for ((query, qkv), context) in
                queries.iter().zip(qkv.chunks_exact(3 * inner)).zip(context.chunks_exact_mut(inner))
            {
                let len = query.position + 1;
                let path = &self.paths[query.sequence * self.positions..][..len];
                let cache = KeyValues { keys, values, stride, slots: Some(path), len };
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
            for (row, ((query, q), context)) in
                queries.iter().zip(q.chunks_exact(inner)).zip(context.chunks_exact_mut(inner)).enumerate()
            {
                let source = &self.cross[self.documents[query.sequence]];
                let (keys, values, len) = (&source.keys[index], &source.values[index], source.len);
                let cache = KeyValues { keys, values, stride: inner, slots: None, len };
                let scores = part(&mut s.scores, heads.count * len);
                kernels.attend(heads, q, cache, None, scores, context);
                if let Some(alignment) = &mut alignment {
                    let share = 1.0 / (heads.count * decoder.blocks.len()) as f32;
                    for head in scores.chunks_exact(len) {
                        kernels.axpy(share, head, &mut alignment[row * len..(row + 1) * len]);
                    }
                }
            }
            add_product(kernels, &block.cross.o, context, rows, x, &mut s.delta, &mut s.workspace);

            block.feed_forward.apply(kernels, eps, x, rows, s);
        }

        let chosen = part(&mut self.chosen, wanted.len() * d);
        for (&row, out) in wanted.iter().zip(chosen.chunks_exact_mut(d)) {
            kernels.rms_norm(&x[row * d..(row + 1) * d], &decoder.final_norm, eps, out);
        }
        if decoder.logits_scale != 1.0 {
            kernels.scale(chosen, decoder.logits_scale);
        }
        let logits = part(logits, wanted.len() * decoder.head.n());
        decoder.head.multiply(kernels, chosen, wanted.len(), logits, &mut s.workspace);
        Ok(())
    }
}
