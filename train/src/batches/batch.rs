//! One batch, and what hands out batches.

use crate::tasks::Example;

/// Token ids of several rows, padded with 0 to common lengths. Row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[rows, enc_len]`
    pub encoder_ids: Vec<u32>,
    /// `[rows, enc_len]`; examples of a row count from 1, 0 is padding. One example is one contiguous range.
    pub encoder_segments: Vec<u32>,
    /// `[rows, dec_len]`: the targets shifted right, 0 at the start of every segment, for which
    /// [`Sequences::for_model`](crate::ops::Sequences::for_model) puts the model's start token.
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

impl Batch {
    /// Lays out rows of examples. Lengths beyond what the rows need are kept as padding, so that shapes can be
    /// constant; pass 0 to have the longest row's.
    ///
    /// # Panics
    /// Where a row is longer than a length that is not 0.
    pub fn of_rows(rows: &[Vec<&Example>], enc_len: usize, dec_len: usize) -> Batch {
        let longest = |len: fn(&Example) -> usize| {
            rows.iter().map(|row| row.iter().map(|e| len(e)).sum::<usize>()).max().unwrap_or(0)
        };
        let enc_len = if enc_len == 0 { longest(|e| e.inputs.len()) } else { enc_len };
        let dec_len = if dec_len == 0 { longest(|e| e.targets.len()) } else { dec_len };
        let mut batch = Batch {
            encoder_ids: vec![0; rows.len() * enc_len],
            encoder_segments: vec![0; rows.len() * enc_len],
            decoder_input_ids: vec![0; rows.len() * dec_len],
            decoder_target_ids: vec![0; rows.len() * dec_len],
            decoder_segments: vec![0; rows.len() * dec_len],
            loss_weights: vec![0.0; rows.len() * dec_len],
            rows: rows.len(),
            enc_len,
            dec_len,
        };
        for (r, row) in rows.iter().enumerate() {
            let (mut enc, mut dec) = (r * enc_len, r * dec_len);
            for (segment, example) in (1u32..).zip(row) {
                let (inputs, targets) = (&example.inputs, &example.targets);
                let (enc_end, dec_end) = (enc + inputs.len(), dec + targets.len());
                assert!(enc_end <= (r + 1) * enc_len && dec_end <= (r + 1) * dec_len, "row {r} is too long");
                batch.encoder_ids[enc..enc_end].copy_from_slice(inputs);
                batch.encoder_segments[enc..enc_end].fill(segment);
                batch.decoder_target_ids[dec..dec_end].copy_from_slice(targets);
                batch.decoder_segments[dec..dec_end].fill(segment);
                batch.loss_weights[dec..dec_end].fill(1.0);
                enc = enc_end;
                dec = dec_end;
            }
            let row = r * dec_len..(r + 1) * dec_len;
            let shifted = shift_right(&batch.decoder_target_ids[row.clone()], &batch.decoder_segments[row.clone()]);
            batch.decoder_input_ids[row].copy_from_slice(&shifted);
        }
        batch
    }

    /// Share of slots that hold tokens: (encoder, decoder, both).
    pub fn fill(&self) -> (f64, f64, f64) {
        let used = |segments: &[u32]| segments.iter().filter(|&&s| s != 0).count();
        let (enc, dec) = (used(&self.encoder_segments), used(&self.decoder_segments));
        let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let (enc_slots, dec_slots) = (self.encoder_segments.len(), self.decoder_segments.len());
        (share(enc, enc_slots), share(dec, dec_slots), share(enc + dec, enc_slots + dec_slots))
    }

    /// Tokens of encoder and decoder, padding not counted.
    pub fn tokens(&self) -> usize {
        self.encoder_segments.iter().chain(&self.decoder_segments).filter(|&&s| s != 0).count()
    }

    /// Positions of the loss.
    pub fn target_tokens(&self) -> usize {
        self.decoder_segments.iter().filter(|&&s| s != 0).count()
    }
}

/// Decoder inputs of one packed row: targets moved one place to the right, 0 where a segment starts (and at padding).
pub fn shift_right(targets: &[u32], segments: &[u32]) -> Vec<u32> {
    (0..targets.len())
        .map(|i| if i == 0 || segments[i] != segments[i - 1] || segments[i] == 0 { 0 } else { targets[i - 1] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(inputs: &[u32], targets: &[u32]) -> Example {
        Example { inputs: inputs.to_vec(), targets: targets.to_vec() }
    }

    #[test]
    fn packing_example_of_the_specification() {
        let (a, b) = (example(&[7, 8, 5, 1], &[3, 9, 1]), example(&[8, 4, 9, 3, 1], &[4, 1]));
        let batch = Batch::of_rows(&[vec![&a, &b]], 10, 7);
        assert_eq!(batch.encoder_ids, [7, 8, 5, 1, 8, 4, 9, 3, 1, 0]);
        assert_eq!(batch.encoder_segments, [1, 1, 1, 1, 2, 2, 2, 2, 2, 0]);
        assert_eq!(batch.decoder_target_ids, [3, 9, 1, 4, 1, 0, 0]);
        assert_eq!(batch.decoder_input_ids, [0, 3, 9, 0, 4, 0, 0]);
        assert_eq!(batch.loss_weights, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(batch.decoder_segments, [1, 1, 1, 2, 2, 0, 0]);
        assert_eq!(batch.tokens(), 14);
        assert_eq!(batch.target_tokens(), 5);
        let (enc, dec, both) = batch.fill();
        assert!((enc - 0.9).abs() < 1e-12 && (dec - 5.0 / 7.0).abs() < 1e-12 && (both - 14.0 / 17.0).abs() < 1e-12);
    }

    #[test]
    fn shift_of_the_reference_test() {
        let targets = [3, 8, 1, 9, 1, 5, 4, 1, 0, 0];
        let segments = [1, 1, 1, 2, 2, 3, 3, 3, 0, 0];
        assert_eq!(shift_right(&targets, &segments), [0, 3, 8, 0, 9, 0, 5, 4, 0, 0]);
    }

    #[test]
    fn unpacked_rows_take_the_longest_length() {
        let (a, b) = (example(&[5, 1], &[6, 6, 1]), example(&[5, 5, 1], &[1]));
        let batch = Batch::of_rows(&[vec![&a], vec![&b]], 0, 0);
        assert_eq!((batch.rows, batch.enc_len, batch.dec_len), (2, 3, 3));
        assert_eq!(batch.encoder_ids, [5, 1, 0, 5, 5, 1]);
        assert_eq!(batch.encoder_segments, [1, 1, 0, 1, 1, 1]);
        assert_eq!(batch.decoder_input_ids, [0, 6, 6, 0, 0, 0]);
    }
}
