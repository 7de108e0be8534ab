//! The encoder: ids `[len]` to hidden states `[len, d_model]`.

use crate::error::Result;
use crate::layers::{Document, FeedForward, Norm, Scratch, SelfAttention, part};
use crate::loader::Loader;
use crate::model::ModelData;
use crate::position::StackBias;
use crate::schema::Stack;

/// Rows that are worth running together: more would take memory and make no product faster. A piece of work is this
/// many rows through one block, or fewer rows through more blocks.
pub(crate) const ROWS: usize = 512;

pub(crate) struct EncoderWeights {
    blocks: Vec<EncoderBlock>,
    bias: StackBias,
    final_norm: Norm,
}

struct EncoderBlock {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl EncoderWeights {
    pub fn load(loader: &Loader) -> Result<EncoderWeights> {
        let blocks = loader.config().num_layers;
        Ok(EncoderWeights {
            blocks: (0..blocks)
                .map(|block| {
                    Ok(EncoderBlock {
                        attention: SelfAttention::load(loader, Stack::Encoder, block)?,
                        feed_forward: FeedForward::load(loader, Stack::Encoder, block)?,
                    })
                })
                .collect::<Result<_>>()?,
            bias: loader.position_bias(Stack::Encoder, blocks)?,
            final_norm: loader.final_norm(Stack::Encoder)?,
        })
    }
}

/// A session's share of the encoder.
pub(crate) struct EncoderState {
    /// Prepared for the longest input so far.
    bias: StackBias,
    /// `[rows, d_model]`: the residual stream.
    x: Vec<f32>,
    /// That are being encoded.
    documents: Vec<Document>,
    /// Blocks that are done, and that are wanted.
    passed: usize,
    blocks: usize,
}

impl EncoderState {
    pub fn new(weights: &EncoderWeights) -> EncoderState {
        EncoderState { bias: weights.bias.clone(), x: Vec::new(), documents: Vec::new(), passed: 0, blocks: 0 }
    }

    /// Of all documents.
    fn rows(&self) -> usize {
        self.documents.iter().map(|document| document.rows).sum()
    }
}

/// The encoder at work for a session.
pub(crate) struct Encoder<'a> {
    pub model: &'a ModelData,
    pub weights: &'a EncoderWeights,
    pub state: &'a mut EncoderState,
    pub scratch: &'a mut Scratch,
}

impl Encoder<'_> {
    /// Begins with several documents at once, whose ids stand one after the other. Each attends to itself only: its
    /// states do not depend on which others run beside it.
    pub fn begin(&mut self, ids: impl Iterator<Item = u32>, documents: impl Iterator<Item = Document>) {
        self.begin_to(self.weights.blocks.len(), ids, documents);
    }

    /// As [`Encoder::begin`], for the states behind so many blocks: behind 0 they are the embeddings.
    pub fn begin_to(
        &mut self,
        blocks: usize,
        ids: impl Iterator<Item = u32>,
        documents: impl Iterator<Item = Document>,
    ) {
        let state = &mut *self.state;
        state.documents.clear();
        state.documents.extend(documents);
        (state.passed, state.blocks) = (0, blocks);
        state.bias.prepare(state.documents.iter().map(|document| document.rows).max().unwrap_or(0));
        let d = self.model.config.d_model;
        let rows = state.rows();
        self.model.embedding.look_up(self.model.kernels, ids, d, part(&mut state.x, rows * d));
    }

    /// Runs them through as many blocks as make a piece of work, at least one. False when no block is left.
    ///
    /// # Errors
    /// If there is no memory for the keys and values of a head.
    pub fn run(&mut self) -> Result<bool> {
        let rows = self.state.rows();
        let EncoderState { bias, x, documents, passed, blocks: until } = &mut *self.state;
        let kernels = self.model.kernels;
        let blocks = &self.weights.blocks[..*until];
        let x = &mut x[..rows * self.model.config.d_model];
        let piece = (ROWS / rows.max(1)).max(1);
        for block in blocks.iter().skip(*passed).take(piece) {
            block.attention.apply(kernels, documents, bias.of_block(*passed), x, self.scratch)?;
            block.feed_forward.apply(kernels, x, self.scratch);
            *passed += 1;
        }
        Ok(*passed < blocks.len())
    }

    /// The hidden states, `[rows, d_model]`, once the blocks are passed: after the last one normalised.
    pub fn finish(&self, out: &mut Vec<f32>) {
        let len = self.state.rows() * self.model.config.d_model;
        let (x, out) = (&self.state.x[..len], part(out, len));
        if self.state.blocks == self.weights.blocks.len() {
            self.weights.final_norm.apply(self.model.kernels, x, out);
        } else {
            out.copy_from_slice(x);
        }
    }

    /// As [`Encoder::finish`], for readers other than the model's own decoder: in the units that the states had before
    /// the file was balanced.
    pub fn finish_states(&self, out: &mut Vec<f32>) {
        self.finish(out);
        let all = self.state.blocks == self.weights.blocks.len();
        if let Some(scale) = self.model.encoder_scale.as_ref().filter(|_| all) {
            let rows = out[..self.state.rows() * scale.len()].chunks_exact_mut(scale.len());
            rows.for_each(|row| row.iter_mut().zip(scale).for_each(|(value, factor)| *value *= factor));
        }
    }
}
