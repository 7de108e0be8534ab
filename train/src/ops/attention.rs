//! The attention sub-layers: `x + dropout(attention(RMS(x)) Wo^T)`.
//!
//! Per head: `softmax(Q K^T + B) V` without the 1/sqrt(d_kv) of other Transformers (T5 folds it into the initial
//! scale of Wq). `B` is the relative-position bias of self-attention. Probabilities are not kept for the backward
//! pass: one number per query and head, the log of the softmax denominator, is enough to compute them again.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use super::feed_forward::add;
use super::norm::{self, mask_rows};
use super::{Dropout, ForBackward, Pass, Values, argument};
use crate::kernels::{Mat, MatMut, Precision, Product, math, max, multiply, sum1, sum2, vectorised};

/// Which tokens attend to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// Encoder tokens to all encoder tokens of their example.
    Encoder,
    /// Decoder tokens to the decoder tokens up to themselves.
    Decoder,
    /// As that, and the tokens of a prefix to all of it.
    Prefix,
    /// Decoder tokens to all encoder tokens of their example.
    Cross,
}

/// The relative-position bias of a stack.
#[derive(Clone)]
pub struct PositionBias {
    /// Index of the table `[buckets, heads]`.
    pub table: usize,
    /// The bucket of `key - query + longest - 1`, for distances below `longest`.
    pub buckets: Arc<Vec<u32>>,
    pub longest: usize,
}

/// An attention sub-layer; [`CustomOp1`] for self-attention, [`CustomOp2`] over `(x, encoder output)` for
/// cross-attention. `x` `[tokens, d_model]` -> the same shape.
pub struct Attention {
    pub pass: Arc<Pass>,
    pub kind: AttentionKind,
    /// Indices of the parameters.
    pub norm: usize,
    pub q: usize,
    pub k: usize,
    pub v: usize,
    pub o: usize,
    pub bias: Option<PositionBias>,
    pub eps: f32,
    pub num_heads: usize,
    pub d_kv: usize,
    pub probability_dropout: Dropout,
    pub output_dropout: Dropout,
    pub saved: ForBackward<AttentionActivations>,
}

/// What the backward pass needs. `inner` = heads × d_kv.
pub struct AttentionActivations {
    inverse: Vec<f32>,
    /// `[tokens, d_model]`, after the norm.
    hidden: Vec<f32>,
    /// `[tokens, inner]`
    q: Vec<f32>,
    /// `[keys, inner]`
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[tokens, inner]`, what `Wo` multiplies.
    context: Vec<f32>,
    /// `[tokens, heads]`: log of the softmax denominators.
    log_sums: Vec<f32>,
}

/// The queries and keys of one example.
#[derive(Clone, Copy)]
struct Block {
    index: usize,
    query: usize,
    queries: usize,
    key: usize,
    keys: usize,
    /// Queries that see each other, from the first on.
    prefix: usize,
}

/// Gradients of queries, keys and values.
struct Gradient {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    fn inner(&self) -> usize {
        self.num_heads * self.d_kv
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.pass.sequences.spans.iter().enumerate().map(|(index, span)| {
            let encoder = (span.encoder_start, span.encoder_len);
            let decoder = (span.decoder_start, span.decoder_len);
            let ((query, queries), (key, keys)) = match self.kind {
                AttentionKind::Encoder => (encoder, encoder),
                AttentionKind::Decoder | AttentionKind::Prefix => (decoder, decoder),
                AttentionKind::Cross => (decoder, encoder),
            };
            Block { index, query, queries, key, keys, prefix: span.prefix }
        })
    }

    /// The dropout stream of one example and head, and how far a query moves in it.
    fn probability_mask(&self, block: &Block, head: usize) -> (Dropout, usize) {
        let mask = self.probability_dropout.stream(((block.index as u64) << 32) | head as u64);
        // Shared: one mask over the keys for all queries; the examples of a packed row have keys of their own.
        (mask, if self.pass.dropout.shared_over_length { 0 } else { block.keys })
    }

    fn output_rows(&self) -> Option<&Vec<u32>> {
        let sequences = &self.pass.sequences;
        let rows = if self.kind == AttentionKind::Encoder { &sequences.encoder_rows } else { &sequences.decoder_rows };
        self.pass.dropout.shared_over_length.then_some(rows)
    }

    /// The bias by distance: `[heads, 2 * longest - 1]`; empty without a bias.
    fn bias_by_distance(&self) -> candle_core::Result<Vec<f32>> {
        let Some(bias) = &self.bias else {
            return Ok(Vec::new());
        };
        let table = self.pass.parameter(bias.table)?;
        let heads = self.num_heads;
        let by_head = (0..heads).flat_map(|head| bias.buckets.iter().map(move |&b| b as usize * heads + head));
        Ok(by_head.map(|i| table[i]).collect())
    }

    /// The bias of one query against all keys; empty without a bias.
    fn bias_row<'a>(&self, by_distance: &'a [f32], head: usize, query: usize, keys: usize) -> &'a [f32] {
        match &self.bias {
            Some(bias) => {
                let start = head * (2 * bias.longest - 1) + bias.longest - 1 - query;
                &by_distance[start..start + keys]
            }
            None => &[],
        }
    }

    /// How many keys a query sees.
    fn visible(&self, block: &Block, query: usize) -> usize {
        match self.kind {
            AttentionKind::Encoder | AttentionKind::Cross => block.keys,
            AttentionKind::Prefix if query < block.prefix => block.prefix,
            AttentionKind::Decoder | AttentionKind::Prefix => query + 1,
        }
    }

    /// `context[query, head] = dropout(softmax(q k^T + bias)) v`.
    fn attend(&self, q: &[f32], k: &[f32], v: &[f32], by_distance: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (inner, dk, heads) = (self.inner(), self.d_kv, self.num_heads);
        let mut context = vec![0.0; q.len()];
        let mut log_sums = vec![0.0; q.len() / dk];
        let mut scores = Vec::new();
        for block in self.blocks().filter(|block| block.queries > 0 && block.keys > 0) {
            let (queries, keys) = (block.queries, block.keys);
            scores.resize(queries * keys, 0.0f32);
            for head in 0..heads {
                let (q_at, k_at) = (block.query * inner + head * dk, block.key * inner + head * dk);
                multiply(
                    MatMut::new(&mut scores, queries, keys, keys),
                    Product::Set,
                    Mat::new(&q[q_at..], queries, dk, inner),
                    Mat::new(&k[k_at..], keys, dk, inner).t(),
                    Precision::F32,
                );
                let (mask, step) = self.probability_mask(&block, head);
                vectorised(|| {
                    for (query, row) in scores.chunks_exact_mut(keys).enumerate() {
                        let (row, hidden) = row.split_at_mut(self.visible(&block, query));
                        hidden.fill(0.0);
                        let bias = self.bias_row(by_distance, head, query, row.len());
                        row.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                        let top = max(row);
                        row.iter_mut().for_each(|score| *score = math::exp(*score - top));
                        let sum = sum1(row, |p| p);
                        log_sums[(block.query + query) * heads + head] = top + sum.ln();
                        let scale = 1.0 / sum;
                        if mask.is_off() {
                            row.iter_mut().for_each(|p| *p *= scale);
                        } else {
                            let at = (query * step) as u32;
                            for (key, p) in row.iter_mut().enumerate() {
                                *p *= scale * mask.factor(at + key as u32);
                            }
                        }
                    }
                });
                multiply(
                    MatMut::new(&mut context[q_at..], queries, dk, inner),
                    Product::Set,
                    Mat::new(&scores, queries, keys, keys),
                    Mat::new(&v[k_at..], keys, dk, inner),
                    Precision::F32,
                );
            }
        }
        (context, log_sums)
    }

    /// Gradients of queries, keys and values from that of `context`; the bias table's is added to `d_table`.
    fn attend_backward(
        &self,
        saved: &AttentionActivations,
        d_context: &[f32],
        by_distance: &[f32],
        d_table: &mut [f32],
    ) -> Gradient {
        let (inner, dk, heads) = (self.inner(), self.d_kv, self.num_heads);
        let (q, k, v) = (&saved.q, &saved.k, &saved.v);
        let set = |out: MatMut, a: Mat, b: Mat| multiply(out, Product::Set, a, b, Precision::F32);
        let mut gradient = Gradient { q: vec![0.0; q.len()], k: vec![0.0; k.len()], v: vec![0.0; v.len()] };
        let mut d_by_distance = vec![0.0f32; by_distance.len()];
        let (mut scores, mut dropped, mut d_scores) = (Vec::new(), Vec::new(), Vec::new());
        for block in self.blocks().filter(|block| block.queries > 0 && block.keys > 0) {
            let (queries, keys) = (block.queries, block.keys);
            scores.resize(queries * keys, 0.0f32);
            dropped.resize(queries * keys, 0.0f32);
            d_scores.resize(queries * keys, 0.0f32);
            for head in 0..heads {
                let (q_at, k_at) = (block.query * inner + head * dk, block.key * inner + head * dk);
                let q_head = Mat::new(&q[q_at..], queries, dk, inner);
                let k_head = Mat::new(&k[k_at..], keys, dk, inner);
                let v_head = Mat::new(&v[k_at..], keys, dk, inner);
                let d_head = Mat::new(&d_context[q_at..], queries, dk, inner);
                set(MatMut::new(&mut scores, queries, keys, keys), q_head, k_head.t());
                set(MatMut::new(&mut d_scores, queries, keys, keys), d_head, v_head.t());
                let (mask, step) = self.probability_mask(&block, head);
                vectorised(|| {
                    let rows = scores.chunks_exact_mut(keys).zip(dropped.chunks_exact_mut(keys));
                    for (query, ((p, dropped), ds)) in rows.zip(d_scores.chunks_exact_mut(keys)).enumerate() {
                        let visible = self.visible(&block, query);
                        p[visible..].fill(0.0);
                        dropped[visible..].fill(0.0);
                        ds[visible..].fill(0.0);
                        let (p, dropped, ds) = (&mut p[..visible], &mut dropped[..visible], &mut ds[..visible]);
                        let bias = self.bias_row(by_distance, head, query, visible);
                        p.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                        let log_sum = saved.log_sums[(block.query + query) * heads + head];
                        p.iter_mut().for_each(|p| *p = math::exp(*p - log_sum));
                        if mask.is_off() {
                            dropped.copy_from_slice(p);
                        } else {
                            let at = (query * step) as u32;
                            for (key, ((dropped, &p), ds)) in dropped.iter_mut().zip(&*p).zip(&mut *ds).enumerate() {
                                let factor = mask.factor(at + key as u32);
                                *dropped = p * factor;
                                *ds *= factor;
                            }
                        }
                        // The softmax's Jacobian: dS = P * (dP - sum(dP * P)).
                        let mean = sum2(p, ds, |p, ds| p * ds);
                        ds.iter_mut().zip(&*p).for_each(|(ds, &p)| *ds = p * (*ds - mean));
                        if let Some(bias) = &self.bias {
                            let start = head * (2 * bias.longest - 1) + bias.longest - 1 - query;
                            let d_bias = &mut d_by_distance[start..start + visible];
                            d_bias.iter_mut().zip(&*ds).for_each(|(d_bias, ds)| *d_bias += ds);
                        }
                    }
                });
                let (dropped, ds) = (Mat::new(&dropped, queries, keys, keys), Mat::new(&d_scores, queries, keys, keys));
                set(MatMut::new(&mut gradient.v[k_at..], keys, dk, inner), dropped.t(), d_head);
                set(MatMut::new(&mut gradient.q[q_at..], queries, dk, inner), ds, k_head);
                set(MatMut::new(&mut gradient.k[k_at..], keys, dk, inner), ds.t(), q_head);
            }
        }
        if let Some(bias) = self.bias.as_ref().filter(|_| !d_table.is_empty()) {
            for (head, d_by_distance) in d_by_distance.chunks_exact(2 * bias.longest - 1).enumerate() {
                for (&bucket, d) in bias.buckets.iter().zip(d_by_distance) {
                    d_table[bucket as usize * heads + head] += d;
                }
            }
        }
        gradient
    }

    /// `x` and `memory` are `[tokens, d_model]`; without a memory, keys and values come from `RMS(x)`.
    fn forward(&self, x: &[f32], memory: Option<&[f32]>) -> candle_core::Result<Vec<f32>> {
        let pass = &self.pass;
        let norm_weight = pass.parameter(self.norm)?;
        let (d, inner) = (norm_weight.len(), self.inner());
        let tokens = x.len() / d;
        let (mut hidden, mut inverse) = (vec![0.0; x.len()], vec![0.0; tokens]);
        norm::forward(x, &norm_weight, self.eps, &mut hidden, &mut inverse);

        let source = memory.unwrap_or(&hidden);
        let keys = source.len() / d;
        let project = |input: &[f32], rows: usize, weight: usize| -> candle_core::Result<Vec<f32>> {
            let mut out = vec![0.0; rows * inner];
            pass.linear(rows, inner, d).forward(input, &pass.parameter(weight)?, &mut out);
            Ok(out)
        };
        let q = project(&hidden, tokens, self.q)?;
        let k = project(source, keys, self.k)?;
        let v = project(source, keys, self.v)?;
        let (context, log_sums) = self.attend(&q, &k, &v, &self.bias_by_distance()?);

        let mut out = vec![0.0; x.len()];
        pass.linear(tokens, d, inner).forward(&context, &pass.parameter(self.o)?, &mut out);
        if !self.output_dropout.is_off() {
            mask_rows(&self.output_dropout, &mut out, d, self.output_rows());
        }
        add(&mut out, x);
        if pass.training {
            self.saved.put(AttentionActivations { inverse, hidden, q, k, v, context, log_sums });
        }
        Ok(out)
    }

    /// Gradients of `x` and, where there is one, of the memory.
    fn backward(
        &self,
        x: &[f32],
        memory: Option<&[f32]>,
        d_out: &[f32],
    ) -> candle_core::Result<(Vec<f32>, Option<Vec<f32>>)> {
        let pass = &self.pass;
        let saved = self.saved.take("attention")?;
        let norm_weight = pass.parameter(self.norm)?;
        let (d, inner) = (norm_weight.len(), self.inner());
        let tokens = x.len() / d;

        let (mut dx, mut dy) = (d_out.to_vec(), d_out.to_vec());
        if !self.output_dropout.is_off() {
            mask_rows(&self.output_dropout, &mut dy, d, self.output_rows());
        }
        let output = pass.linear(tokens, d, inner);
        output.weight_gradient(&dy, &saved.context, &mut pass.gradients.get(self.o));
        let mut d_context = vec![0.0; tokens * inner];
        output.input_gradient(Product::Set, &dy, &pass.parameter(self.o)?, &mut d_context);

        let gradient = match &self.bias {
            Some(bias) => {
                let mut d_table = pass.gradients.get(bias.table);
                self.attend_backward(&saved, &d_context, &self.bias_by_distance()?, &mut d_table)
            }
            None => self.attend_backward(&saved, &d_context, &[], &mut []),
        };

        let source = memory.unwrap_or(&saved.hidden);
        let keys = source.len() / d;
        let (of_queries, of_keys) = (pass.linear(tokens, inner, d), pass.linear(keys, inner, d));
        of_queries.weight_gradient(&gradient.q, &saved.hidden, &mut pass.gradients.get(self.q));
        of_keys.weight_gradient(&gradient.k, source, &mut pass.gradients.get(self.k));
        of_keys.weight_gradient(&gradient.v, source, &mut pass.gradients.get(self.v));
        let mut d_hidden = dy;
        let (wq, wk, wv) = (pass.parameter(self.q)?, pass.parameter(self.k)?, pass.parameter(self.v)?);
        of_queries.input_gradient(Product::Set, &gradient.q, &wq, &mut d_hidden);
        let d_memory = memory.map(|memory| {
            let mut d_memory = vec![0.0; memory.len()];
            of_keys.input_gradient(Product::Set, &gradient.k, &wk, &mut d_memory);
            of_keys.input_gradient(Product::Add, &gradient.v, &wv, &mut d_memory);
            d_memory
        });
        if memory.is_none() {
            of_keys.input_gradient(Product::Add, &gradient.k, &wk, &mut d_hidden);
            of_keys.input_gradient(Product::Add, &gradient.v, &wv, &mut d_hidden);
        }
        let mut d_norm = pass.gradients.get(self.norm);
        norm::backward(x, &norm_weight, &saved.inverse, &d_hidden, &mut dx, &mut d_norm);
        Ok((dx, d_memory))
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = self.forward(argument(storage, layout)?, None)?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (dx, _) = self.backward(&Values::new(x)?, None, &Values::new(gradient)?)?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "cross-attention"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        memory: &CpuStorage,
        memory_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = self.forward(argument(x, x_layout)?, Some(argument(memory, memory_layout)?))?;
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        memory: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, d_memory) = self.backward(&Values::new(x)?, Some(&Values::new(memory)?), &Values::new(gradient)?)?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let d_memory = d_memory.map(|d| Tensor::from_vec(d, memory.shape(), memory.device())).transpose()?;
        Ok((Some(dx), d_memory))
    }
}
