//! Which words of a source a target's words come from, by cross-attention.

use crate::config::T5Config;
use crate::error::{Error, Result};

/// The heads of cross-attention that show where a token comes from, as a model's file says or as somebody measured.
///
/// Heads differ: some look at what the token translates, others at the end of the sentence or at what was translated
/// before. And models differ in when they look: at the step that predicts a token, or at the next one, which reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlignmentHeads {
    /// (block, head) of each; empty: all of them.
    pub heads: Vec<(usize, usize)>,
    /// Whether the step that reads a token is looked at, in place of the step that predicts it.
    pub reading: bool,
}

impl AlignmentHeads {
    /// Each head's share of an average, `[num_decoder_layers, num_heads]`.
    ///
    /// # Errors
    /// If the model has no such head.
    pub(crate) fn shares(&self, config: &T5Config) -> Result<Vec<f32>> {
        let (blocks, heads) = (config.num_decoder_layers, config.num_heads);
        if self.heads.is_empty() {
            return Ok(vec![1.0 / (blocks * heads) as f32; blocks * heads]);
        }
        let mut shares = vec![0.0; blocks * heads];
        for &(block, head) in &self.heads {
            if block >= blocks || head >= heads {
                let what = format!("expected a head of {blocks} blocks of {heads}; found head {head} of block {block}");
                return Err(Error::Option { option: "alignment heads", what });
            }
            shares[block * heads + head] = 1.0 / self.heads.len() as f32;
        }
        Ok(shares)
    }
}

/// Which source tokens each target token looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// The source's ids, as they were given.
    pub source_ids: Vec<u32>,
    /// The target's ids, as they were given.
    pub target_ids: Vec<u32>,
    /// `[target, source]`: cross-attention weights, averaged over the heads that were asked for; each row sums to 1.
    pub weights: Vec<f32>,
}
