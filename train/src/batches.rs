//! Batches: examples packed into rows or grouped by length.

/// Token ids of several rows, padded with 0 to common lengths. Row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[rows, enc_len]`
    pub encoder_ids: Vec<u32>,
    /// `[rows, enc_len]`; examples of a row count from 1, 0 is padding. One example is one contiguous range.
    pub encoder_segments: Vec<u32>,
    /// `[rows, dec_len]`: the targets shifted right, 0 at the start of every segment.
    pub decoder_input_ids: Vec<u32>,
    /// `[rows, dec_len]`
    pub decoder_target_ids: Vec<u32>,
    /// `[rows, dec_len]`, as `encoder_segments`.
    pub decoder_segments: Vec<u32>,
    /// `[rows, dec_len]`: the weight of each target in the loss; 0 at padding.
    pub loss_weights: Vec<f32>,
    pub rows: usize,
    pub enc_len: usize,
    pub dec_len: usize,
}

/// An endless, resumable stream of batches.
pub trait BatchSource {
    /// The next batch.
    ///
    /// # Errors
    /// Where a source file cannot be read or has no usable example.
    fn next_batch(&mut self) -> crate::Result<Batch>;

    /// Everything that decides which batches follow, as part of a checkpoint.
    fn state(&self) -> serde_json::Value;

    /// Continues exactly where [`BatchSource::state`] was taken.
    ///
    /// # Errors
    /// Where the state belongs to other data.
    fn restore(&mut self, state: &serde_json::Value) -> crate::Result<()>;
}
