//! The sub-layers that both stacks are made of, each `x + f(norm(x))`, and the memory they work in.
//!
//! A block of the encoder is [`SelfAttention`] and [`FeedForward`], and so is one of a model of one stack; a block of
//! another decoder has [`CrossAttention`] between them. Their scores are not divided by `sqrt(d_kv)` (T5's initial
//! weights are small enough instead), and their norms neither subtract a mean nor have a bias.

mod cross_attention;
mod embedding;
mod feed_forward;
mod kv_cache;
mod scratch;
mod self_attention;

pub(crate) use cross_attention::{CrossAttention, Sources};
pub(crate) use embedding::Embedding;
pub(crate) use feed_forward::FeedForward;
pub(crate) use kv_cache::{FIRST_POSITIONS, KvCache};
pub(crate) use scratch::{Norm, Scratch, part};
pub(crate) use self_attention::SelfAttention;

/// One text on its way through the encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Document {
    /// Positions, padding included.
    pub rows: usize,
    /// The first positions, which all attend to; those behind them are masked padding.
    pub visible: usize,
}

impl Document {
    /// One without masked positions.
    pub fn whole(rows: usize) -> Document {
        Document { rows, visible: rows }
    }
}

/// One row of a pass through the decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    /// What the decoder reads there.
    pub token: u32,
    /// The sequence it continues; it also names the cache slot that is written.
    pub sequence: usize,
    /// Its place in the sequence: 0 is the start token's.
    pub position: usize,
}
