//! The encoder: ids `[len]` to hidden states `[len, d_model]`.

use crate::error::Result;
use crate::layers::{FeedForward, Norm, Scratch, SelfAttention, part};
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
    /// Of the documents that are being encoded.
    lengths: Vec<usize>,
    /// Blocks that are done.
    passed: usize,
}

impl EncoderState {
    pub fn new(weights: &EncoderWeights) -> EncoderState {
        EncoderState { bias: weights.bias.clone(), x: Vec::new(), lengths: Vec::new(), passed: 0 }
    }

    /// The hidden states, `[rows, d_model]`, once all blocks are passed.
    pub fn finish(&self, model: &ModelData, out: &mut Vec<f32>) {
        let len = self.lengths.iter().sum::<usize>() * model.config.d_model;
        model.encoder.final_norm.apply(model.kernels, &self.x[..len], part(out, len));
    }
}

/// The encoder at work for a session.
pub(crate) struct Encoder<'a> {
    pub model: &'a ModelData,
    pub state: &'a mut EncoderState,
    pub scratch: &'a mut Scratch,
}

impl Encoder<'_> {
    /// Begins with several documents at once, whose ids stand one after the other. Each attends to itself only: its
    /// states do not depend on which others run beside it.
    pub fn begin(&mut self, ids: impl Iterator<Item = u32>, lengths: impl Iterator<Item = usize>) {
        let EncoderState { bias, x, lengths: all, passed } = &mut *self.state;
        all.clear();
        all.extend(lengths);
        *passed = 0;
        bias.prepare(all.iter().copied().max().unwrap_or(0));
        let d = self.model.config.d_model;
        let x = part(x, all.iter().sum::<usize>() * d);
        self.model.embedding.look_up(self.model.kernels, ids, d, x);
    }

    /// Runs them through as many blocks as make a piece of work, at least one. False when no block is left.
    ///
    /// # Errors
    /// If there is no memory for the keys and values of a head.
    pub fn run(&mut self) -> Result<bool> {
        let EncoderState { bias, x, lengths, passed } = &mut *self.state;
        let kernels = self.model.kernels;
        let blocks = &self.model.encoder.blocks;
        let rows = lengths.iter().sum::<usize>();
        let x = &mut x[..rows * self.model.config.d_model];
        let piece = (ROWS / rows.max(1)).max(1);
        for block in blocks.iter().skip(*passed).take(piece) {
            block.attention.apply(kernels, lengths, bias.of_block(*passed), x, self.scratch)?;
            block.feed_forward.apply(kernels, x, self.scratch);
            *passed += 1;
        }
        Ok(*passed < blocks.len())
    }
}
