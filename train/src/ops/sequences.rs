//! A batch without its padding: all examples one after the other.

use t5_runtime::config::T5Config;

use super::SoftTargets;
use crate::batches::Batch;
use crate::{Error, Result};

/// One example: its range of encoder tokens and its range of decoder tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The row of the batch it stood in.
    pub row: usize,
    pub encoder_start: usize,
    pub encoder_len: usize,
    pub decoder_start: usize,
    pub decoder_len: usize,
    /// Of the decoder tokens the first ones, which a prefix language model lets see each other.
    pub prefix: usize,
}

/// The tokens of a batch, ragged. Since an example only attends to itself, the segment masks of a packed batch
/// and the padding mask of a plain one both become the ranges of [`Span`]; nothing is computed for padding.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    pub spans: Vec<Span>,
    /// `[encoder tokens]`
    pub encoder_ids: Vec<u32>,
    /// The batch row of each encoder token.
    pub encoder_rows: Vec<u32>,
    /// `[decoder tokens]`
    pub decoder_input_ids: Vec<u32>,
    pub decoder_target_ids: Vec<u32>,
    pub loss_weights: Vec<f32>,
    /// The batch row of each decoder token.
    pub decoder_rows: Vec<u32>,
    /// Positions of the padded decoder side, for the paper's loss denominator.
    pub decoder_positions: usize,
    /// What a teacher says of each decoder token, where there is one.
    pub soft_targets: Option<SoftTargets>,
}

impl Sequences {
    /// Drops the padding of a batch.
    ///
    /// # Errors
    /// Where the arrays do not have the sizes that the batch states, an id is not below `vocab_size`, or a
    /// segment is not one contiguous range.
    pub fn new(batch: &Batch, vocab_size: usize) -> Result<Sequences> {
        let (encoder, decoder) = (batch.rows * batch.enc_len, batch.rows * batch.dec_len);
        let sizes = [
            ("encoder_ids", batch.encoder_ids.len(), encoder),
            ("encoder_segments", batch.encoder_segments.len(), encoder),
            ("decoder_input_ids", batch.decoder_input_ids.len(), decoder),
            ("decoder_target_ids", batch.decoder_target_ids.len(), decoder),
            ("decoder_segments", batch.decoder_segments.len(), decoder),
            ("loss_weights", batch.loss_weights.len(), decoder),
        ];
        for (name, found, expected) in sizes {
            if found != expected {
                return Err(Error::Invalid(format!("batch: {name}: expected {expected} values, found {found}")));
            }
        }
        let ids = [&batch.encoder_ids, &batch.decoder_input_ids, &batch.decoder_target_ids];
        if let Some(id) = ids.into_iter().flatten().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::Invalid(format!("batch: token id {id}: the model has {vocab_size} rows")));
        }

        let mut sequences = Sequences { decoder_positions: decoder, ..Sequences::default() };
        for row in 0..batch.rows {
            let encoder_segments = &batch.encoder_segments[row * batch.enc_len..(row + 1) * batch.enc_len];
            let decoder_segments = &batch.decoder_segments[row * batch.dec_len..(row + 1) * batch.dec_len];
            let last = encoder_segments.iter().chain(decoder_segments).copied().max().unwrap_or(0);
            for segment in 1..=last {
                let (encoder_from, encoder_len) = range(encoder_segments, segment, row)?;
                let (decoder_from, decoder_len) = range(decoder_segments, segment, row)?;
                sequences.spans.push(Span {
                    row,
                    encoder_start: sequences.encoder_ids.len(),
                    encoder_len,
                    decoder_start: sequences.decoder_input_ids.len(),
                    decoder_len,
                    prefix: 0,
                });
                let from = row * batch.enc_len + encoder_from;
                sequences.encoder_ids.extend(&batch.encoder_ids[from..from + encoder_len]);
                sequences.encoder_rows.extend(std::iter::repeat_n(row as u32, encoder_len));
                let from = row * batch.dec_len + decoder_from;
                let decoder = from..from + decoder_len;
                sequences.decoder_input_ids.extend(&batch.decoder_input_ids[decoder.clone()]);
                sequences.decoder_target_ids.extend(&batch.decoder_target_ids[decoder.clone()]);
                sequences.loss_weights.extend(&batch.loss_weights[decoder]);
                sequences.decoder_rows.extend(std::iter::repeat_n(row as u32, decoder_len));
            }
        }
        Ok(sequences)
    }

    /// Makes a batch a model's: without padding, with its start token, and for one of one stack each example as one
    /// text. `loss_on_inputs` says whether the loss of such a model is that of the inputs, too, as in Mesh TensorFlow.
    ///
    /// # Errors
    /// As [`Sequences::new`].
    pub fn for_model(batch: &Batch, config: &T5Config, loss_on_inputs: bool) -> Result<Sequences> {
        let mut sequences = Sequences::new(batch, config.vocab_size)?;
        // Batches begin with 0, whatever the model.
        for span in sequences.spans.iter().filter(|span| span.decoder_len > 0) {
            sequences.decoder_input_ids[span.decoder_start] = config.decoder_start_token_id;
        }
        if config.one_stack().is_none() {
            return Ok(sequences);
        }
        let decoder_positions = batch.rows * (batch.enc_len + batch.dec_len);
        Ok(Sequences { decoder_positions, ..sequences.joined(loss_on_inputs) })
    }

    /// The same examples as one text each (docs/t5.md 1.7): the decoder predicts `inputs, targets`, and the positions
    /// that read the start token and the inputs are the prefix. It ends with the position that predicts the first
    /// target: one more to the right than the inputs among what is predicted.
    fn joined(&self, loss_on_inputs: bool) -> Sequences {
        let mut joined = Sequences::default();
        for span in &self.spans {
            let inputs = &self.encoder_ids[span.encoder_start..][..span.encoder_len];
            let decoder = span.decoder_start..span.decoder_start + span.decoder_len;
            let targets = &self.decoder_target_ids[decoder.clone()];
            let length = inputs.len() + targets.len();
            joined.spans.push(Span {
                encoder_start: 0,
                encoder_len: 0,
                decoder_start: joined.decoder_input_ids.len(),
                decoder_len: length,
                prefix: if inputs.is_empty() { 0 } else { (inputs.len() + 1).min(length) },
                ..*span
            });
            let before_targets = self.decoder_input_ids.get(decoder.start).copied().unwrap_or_default();
            let read = std::iter::once(before_targets).chain(inputs.iter().chain(targets).copied());
            joined.decoder_input_ids.extend(read.take(length));
            joined.decoder_target_ids.extend(inputs.iter().chain(targets));
            let of_inputs = if loss_on_inputs { 1.0 } else { 0.0 };
            joined.loss_weights.extend(std::iter::repeat_n(of_inputs, inputs.len()));
            joined.loss_weights.extend(&self.loss_weights[decoder]);
            joined.decoder_rows.extend(std::iter::repeat_n(span.row as u32, length));
        }
        joined
    }

    /// Encoder tokens plus decoder tokens.
    pub fn tokens(&self) -> usize {
        self.encoder_ids.len() + self.decoder_input_ids.len()
    }

    /// The sum of the loss weights.
    pub fn weight(&self) -> f64 {
        self.loss_weights.iter().map(|&weight| weight as f64).sum()
    }
}

/// Start and length of a segment in its row; length 0 where it has no tokens.
fn range(segments: &[u32], segment: u32, row: usize) -> Result<(usize, usize)> {
    let Some(start) = segments.iter().position(|&s| s == segment) else {
        return Ok((0, 0));
    };
    let len = segments[start..].iter().take_while(|&&s| s == segment).count();
    if segments[start + len..].contains(&segment) {
        return Err(Error::Invalid(format!("batch: row {row}: segment {segment} is not one contiguous range")));
    }
    Ok((start, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packing_example_becomes_two_spans() {
        // docs/t5.md 6.3.
        let batch = Batch {
            encoder_ids: vec![7, 8, 5, 1, 8, 4, 9, 3, 1, 0],
            encoder_segments: vec![1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
            decoder_input_ids: vec![0, 3, 9, 0, 4, 0, 0],
            decoder_target_ids: vec![3, 9, 1, 4, 1, 0, 0],
            decoder_segments: vec![1, 1, 1, 2, 2, 0, 0],
            loss_weights: vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
            rows: 1,
            enc_len: 10,
            dec_len: 7,
        };
        let sequences = Sequences::new(&batch, 10).unwrap();
        assert_eq!(sequences.encoder_ids, [7, 8, 5, 1, 8, 4, 9, 3, 1]);
        assert_eq!(sequences.decoder_input_ids, [0, 3, 9, 0, 4]);
        assert_eq!(sequences.decoder_target_ids, [3, 9, 1, 4, 1]);
        assert_eq!(sequences.weight(), 5.0);
        let second = Span { row: 0, encoder_start: 4, encoder_len: 5, decoder_start: 3, decoder_len: 2, prefix: 0 };
        assert_eq!(sequences.spans[1], second);

        // The same as one text each, with the masks of docs/t5.md 1.7.
        let joined = sequences.joined(false);
        assert_eq!(joined.decoder_target_ids, [7, 8, 5, 1, 3, 9, 1, 8, 4, 9, 3, 1, 4, 1]);
        assert_eq!(joined.decoder_input_ids, [0, 7, 8, 5, 1, 3, 9, 0, 8, 4, 9, 3, 1, 4]);
        let on_targets = [0., 0., 0., 0., 1., 1., 1., 0., 0., 0., 0., 0., 1., 1.];
        assert_eq!(joined.loss_weights, on_targets);
        assert_eq!(sequences.joined(true).loss_weights, [1.0; 14]);
        let of = |f: fn(&Span) -> usize| joined.spans.iter().map(f).collect::<Vec<usize>>();
        assert_eq!((of(|span| span.decoder_start), of(|span| span.decoder_len)), (vec![0, 7], vec![7, 7]));
        // decoder_causal_attention: 1 1 1 1 1 0 0 and 1 1 1 1 1 1 0.
        assert_eq!((of(|span| span.prefix), of(|span| span.encoder_len)), (vec![5, 6], vec![0, 0]));
        assert_eq!((joined.tokens(), joined.decoder_rows.len(), joined.weight()), (14, 14, 5.0));
        let config = |kind: &str, layers: usize| {
            let sizes = r#""vocab_size": 10, "d_model": 4, "d_kv": 2, "d_ff": 4, "num_heads": 2"#;
            let sizes = format!(r#""num_layers": {layers}, "decoder_start_token_id": 6, {sizes}"#);
            let text = format!(r#"{{"model_type": "{kind}", "num_decoder_layers": 1, {sizes}}}"#);
            T5Config::from_json("config.json", &text).unwrap()
        };
        for kind in ["pocket_t5_lm", "pocket_t5_prefix_lm"] {
            let of_model = Sequences::for_model(&batch, &config(kind, 0), true).unwrap();
            assert_eq!((of_model.decoder_positions, of_model.weight()), (17, 14.0));
            assert_eq!(of_model.decoder_input_ids, [6, 7, 8, 5, 1, 3, 9, 6, 8, 4, 9, 3, 1, 4]);
        }
        let of_model = Sequences::for_model(&batch, &config("t5", 1), true).unwrap();
        assert_eq!(of_model.decoder_input_ids, [6, 3, 9, 6, 4]);

        assert!(Sequences::new(&batch, 9).unwrap_err().to_string().contains("token id 9"));
        let mut broken = batch.clone();
        broken.encoder_segments[8] = 1;
        assert!(Sequences::new(&broken, 10).unwrap_err().to_string().contains("contiguous"));
        broken.loss_weights.pop();
        assert!(Sequences::new(&broken, 10).unwrap_err().to_string().contains("loss_weights"));
    }
}
