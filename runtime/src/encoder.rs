//! The encoder: ids `[len]` to hidden states `[len, d_model]`.

use crate::attention::{Scratch, SelfAttention, add_product, part};
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::kernels::Heads;
use crate::position::PositionBias;
use crate::schema::Stack;
use crate::shared::{Loader, Shared};

pub(crate) struct EncoderWeights {
    blocks: Vec<EncoderBlock>,
    /// One table, or one for each block (umT5).
    biases: Vec<PositionBias>,
    final_norm: Vec<f32>,
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
            biases: loader.position_biases(Stack::Encoder, blocks)?,
            final_norm: loader.final_norm(Stack::Encoder)?,
        })
    }
}

/// A session's share of the encoder: biases prepared for the longest input so far.
pub(crate) struct EncoderState {
    biases: Vec<PositionBias>,
    /// `[rows, d_model]`: the residual stream.
    x: Vec<f32>,
}

impl EncoderState {
    pub fn new(weights: &EncoderWeights) -> EncoderState {
        EncoderState { biases: weights.biases.clone(), x: Vec::new() }
    }

    /// Encodes several documents at once, each attending to itself only. `out` is `[sum of lengths, d_model]`,
    /// the documents one after the other: rows of one document do not depend on which others run beside it.
    pub fn run(
        &mut self,
        shared: &Shared,
        weights: &EncoderWeights,
        documents: &[&[u32]],
        out: &mut Vec<f32>,
        s: &mut Scratch,
    ) -> Result<()> {
        let config = &shared.config;
        let kernels = shared.kernels;
        let (d, inner, eps) = (config.d_model, config.inner_dim(), config.layer_norm_epsilon);
        let heads = Heads { count: config.num_heads, width: config.d_kv };
        let rows: usize = documents.iter().map(|ids| ids.len()).sum();
        let longest = documents.iter().map(|ids| ids.len()).max().unwrap_or(0);
        for bias in &mut self.biases {
            bias.prepare(longest);
        }
        let x = part(&mut self.x, rows * d);
        shared.embed(documents.iter().flat_map(|ids| ids.iter().copied()), x);
        for (index, block) in weights.blocks.iter().enumerate() {
            let bias = &self.biases[index.min(self.biases.len() - 1)];
            let normed = part(&mut s.normed, rows * d);
            kernels.rms_norm(x, &block.attention.norm, eps, normed);
            let qkv = part(&mut s.wide, rows * 3 * inner);
            block.attention.qkv.multiply(kernels, normed, rows, qkv, &mut s.workspace);
            let context = part(&mut s.narrow, rows * inner);
            let mut row = 0;
            for ids in documents {
                let end = row + ids.len();
                let (qkv, context) = (&qkv[row * 3 * inner..end * 3 * inner], &mut context[row * inner..end * inner]);
                kernels.attend_all(
                    block.attention.qkv.numbers(),
                    heads,
                    qkv,
                    bias.row(0),
                    context,
                    &mut s.workspace,
                )?;
                row = end;
            }
            add_product(kernels, &block.attention.o, context, rows, x, &mut s.delta, &mut s.workspace);
            block.feed_forward.apply(kernels, eps, x, rows, s);
        }
        kernels.rms_norm(x, &weights.final_norm, eps, part(out, rows * d));
        Ok(())
    }
}
