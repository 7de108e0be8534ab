//! Whether there is memory for a request, asked before it begins.
//!
//! Most allocations cannot fail without ending the process: a browser's tab then loses the model, a service all of its
//! requests. So the largest that is needed at once is asked for as one block and given back, and what is taken
//! afterwards finds it free.

use crate::config::T5Config;
use crate::error::{Error, Result};

/// An error if there are no `bytes` of memory for `what`.
pub(crate) fn ask(what: &'static str, bytes: u64) -> Result<()> {
    let mut room = Vec::<u8>::new();
    // What no address reaches is refused as well.
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let there = room.try_reserve_exact(bytes).is_ok();
    // Otherwise the compiler may leave out the question.
    std::hint::black_box(&room);
    if there { Ok(()) } else { Err(Error::Memory { what, bytes }) }
}

/// An empty vector with room for a table of this shape.
pub(crate) fn room(what: &'static str, shape: [usize; 2]) -> Result<Vec<f32>> {
    let count = shape[0].saturating_mul(shape[1]);
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::Memory { what, bytes: count.saturating_mul(size_of::<f32>()) }),
    }
}

/// Sizes of a request.
pub(crate) struct Request {
    /// Tokens of all sources that are decoded side by side, of the longest, and rows in the encoder at once.
    pub source: usize,
    pub longest: usize,
    pub encoder_rows: usize,
    /// Sequences that are decoded side by side, and positions that there is room for at first. 0: encoder only.
    pub sequences: usize,
    pub positions: usize,
    pub threads: usize,
}

impl Request {
    /// About how many bytes the buffers of a session take for this, rather more than fewer.
    pub fn bytes(&self, config: &T5Config) -> u64 {
        // Products of sizes in a file and in a request can be above any integer.
        let [rows, longest, source, threads] =
            [self.encoder_rows, self.longest, self.source, self.threads].map(|size| size as f64);
        let [sequences, positions] = [self.sequences, self.positions].map(|size| size as f64);
        let [d_model, d_kv, inner, d_ff] =
            [config.d_model, config.d_kv, config.inner_dim(), config.d_ff].map(|size| size as f64);
        let adapter = config.adapters.map_or(0, |adapters| adapters.size) as f64;
        let narrow = inner.max(d_ff).max(adapter);
        let wide = (3.0 * inner).max(if config.feed_forward.gated { 2.0 * d_ff } else { d_ff }).max(adapter);
        let held = if config.adapters.is_some() { d_model } else { 0.0 };
        // A row's residual stream, its norm, what is added and the result; what is held for an adapter; its two
        // products; their input laid out.
        let row = 4.0 * d_model + held + wide + narrow + narrow.max(d_model);
        let tables = |blocks: usize| if config.relative_bias_per_block { blocks as f64 } else { 1.0 };
        // Both sides of a position, with as much room again.
        let bias = |blocks, length: f64| tables(blocks) * config.num_heads as f64 * 4.0 * length;
        // Keys and values of a head for each thread, and a tile of scores.
        let attention = threads * longest * (2.0 * d_kv + 64.0);
        let encoder = rows * row + attention + bias(config.num_layers, longest);
        let blocks = config.num_decoder_layers as f64;
        let decoder = if self.sequences == 0 {
            0.0
        } else {
            let caches = (source + sequences * positions) * 2.0 * inner * blocks + sequences * positions * 2.0;
            let tokens = sequences * (config.vocab_size as f64 + d_model + row);
            caches + tokens + bias(config.num_decoder_layers, positions)
        };
        (size_of::<f32>() as f64 * (encoder + decoder)) as u64
    }
}
