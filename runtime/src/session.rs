//! [`Session`]: the working space of one thread over a shared [`Model`].

use crate::attention::Scratch;
use crate::decoder::{DecoderState, Query};
use crate::encoder::EncoderState;
use crate::error::{Error, Result};
use crate::model::Model;

/// Rows of encoder input that are worth running together: more do not make a product faster, but cost memory.
const ENCODER_ROWS: usize = 512;

/// Teacher-forced tokens whose logits are computed at once.
const SCORE_ROWS: usize = 32;

/// Everything that changes while a model runs. Buffers grow to the largest request met and are then re-used.
pub struct Session {
    pub(crate) model: Model,
    encoder: EncoderState,
    /// `None` for an encoder-only model.
    decoder: Option<DecoderState>,
    scratch: Scratch,
    /// `[rows, d_model]`: encoder output of the last documents.
    states: Vec<f32>,
    /// `[wanted, vocab_size]`: logits of the last decoder pass.
    pub(crate) logits: Vec<f32>,
}

/// The log-probability of a target given a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The target's ids, `</s>` included.
    pub ids: Vec<u32>,
    /// One for each id.
    pub logprobs: Vec<f32>,
    pub sum: f32,
}

/// Which source tokens each target token looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    pub source_ids: Vec<u32>,
    pub target_ids: Vec<u32>,
    /// `[target, source]`: cross-attention weights averaged over heads and blocks; each row sums to 1.
    pub weights: Vec<f32>,
}

impl Model {
    /// A working space over this model: every buffer of encoding and decoding, allocated once and re-used.
    pub fn session(&self) -> Session {
        Session {
            encoder: EncoderState::new(&self.weights().encoder),
            decoder: self.weights().decoder().ok().map(DecoderState::new),
            scratch: Scratch::default(),
            states: Vec::new(),
            logits: Vec::new(),
            model: self.clone(),
        }
    }
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Shares the work of each pass among `threads` threads, the caller's included; a new session has one. Results do
    /// not depend on it. [`physical_cores`](crate::physical_cores) is a good choice where nothing else runs.
    pub fn set_threads(&mut self, threads: usize) {
        self.scratch.workspace.set_threads(threads);
    }

    /// How many threads work on a pass.
    pub fn threads(&self) -> usize {
        self.scratch.workspace.threads()
    }

    /// The encoder's hidden states of a source, `[len, d_model]`.
    pub fn encode_ids(&mut self, source: &[u32]) -> Result<&[f32]> {
        self.run_encoder(&[source])?;
        Ok(&self.states[..source.len() * self.model.config().d_model])
    }

    /// The encoder's hidden states of a text, `[len, d_model]`.
    pub fn encode(&mut self, text: &str) -> Result<&[f32]> {
        let ids = self.model.tokenizer()?.encode(text);
        self.encode_ids(&ids)
    }

    /// The mean of the encoder's hidden states, `[d_model]`.
    pub fn embed_ids(&mut self, source: &[u32]) -> Result<Vec<f32>> {
        let d = self.model.config().d_model;
        let states = self.encode_ids(source)?;
        let mut mean = vec![0f64; d];
        for row in states.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        Ok(mean.into_iter().map(|sum| (sum / source.len() as f64) as f32).collect())
    }

    /// The mean of the encoder's hidden states of a text, `[d_model]`.
    pub fn embed(&mut self, text: &str) -> Result<Vec<f32>> {
        let ids = self.model.tokenizer()?.encode(text);
        self.embed_ids(&ids)
    }

    /// Log-probabilities of a target text (and `</s>`) given a source text.
    pub fn score(&mut self, source: &str, target: &str) -> Result<Score> {
        let tokenizer = self.model.tokenizer()?;
        let (source, target) = (tokenizer.encode(source), tokenizer.encode(target));
        self.score_ids(&source, &target)
    }

    /// Log-probabilities of the target's ids given a source, teacher-forced.
    pub fn score_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Score> {
        let mut logprobs = Vec::with_capacity(target.len());
        let vocab = self.model.config().vocab_size;
        let kernels = self.model.kernels();
        self.force(source, target, |targets, logits, _| {
            for (&id, row) in targets.iter().zip(logits.chunks_exact(vocab)) {
                logprobs.push(row[id as usize] - kernels.log_sum_exp(row));
            }
        })?;
        Ok(Score { ids: target.to_vec(), sum: logprobs.iter().sum(), logprobs })
    }

    /// Logits of every step of a teacher-forced target, `[target, vocab_size]`.
    pub fn logits_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(target.len() * self.model.config().vocab_size);
        self.force(source, target, |_, logits, _| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// Which source tokens each token of a target attends to.
    pub fn alignment_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Alignment> {
        let mut weights = Vec::with_capacity(source.len() * target.len());
        self.force(source, target, |_, _, alignment| weights.extend_from_slice(alignment))?;
        Ok(Alignment { source_ids: source.to_vec(), target_ids: target.to_vec(), weights })
    }

    /// Runs the decoder over a given target in pieces; `each` gets the piece, its logits and its alignment.
    fn force(&mut self, source: &[u32], target: &[u32], mut each: impl FnMut(&[u32], &[f32], &[f32])) -> Result<()> {
        self.model.weights().shared.check_ids("source", source)?;
        self.model.weights().shared.check_ids("target", target)?;
        if target.is_empty() {
            return Err(Error::Option { option: "target", what: "expected at least one token".to_owned() });
        }
        self.encode_sources(&[source], 1, target.len())?;
        let mut alignment = Vec::new();
        let vocab = self.model.config().vocab_size;
        let start = self.model.config().decoder_start_token_id;
        for (piece, targets) in target.chunks(SCORE_ROWS).enumerate() {
            let first = piece * SCORE_ROWS;
            let queries: Vec<Query> = (first..first + targets.len())
                .map(|position| {
                    // The decoder reads the target shifted right.
                    let token = if position == 0 { start } else { target[position - 1] };
                    Query { token, sequence: 0, position }
                })
                .collect();
            let wanted: Vec<usize> = (0..targets.len()).collect();
            self.run_decoder(&queries, &wanted, Some(&mut alignment))?;
            each(targets, &self.logits[..targets.len() * vocab], &alignment);
        }
        Ok(())
    }

    fn run_encoder(&mut self, documents: &[&[u32]]) -> Result<()> {
        let weights = self.model.weights();
        for ids in documents {
            weights.shared.check_ids("source", ids)?;
            if ids.is_empty() {
                return Err(Error::Option { option: "source", what: "expected at least one token".to_owned() });
            }
        }
        self.encoder.run(&weights.shared, &weights.encoder, documents, &mut self.states, &mut self.scratch)
    }

    /// Encodes documents and prepares the decoder for `sequences` sequences of each, up to `positions` long.
    pub(crate) fn encode_sources(&mut self, sources: &[&[u32]], sequences: usize, positions: usize) -> Result<()> {
        self.model.weights().decoder()?;
        if let Some(decoder) = &mut self.decoder {
            decoder.begin(&self.model.weights().shared, sources.len(), sequences, positions)?;
        }
        let mut next = 0;
        while next < sources.len() {
            let mut end = next + 1;
            let mut rows = sources[next].len();
            while end < sources.len() && rows + sources[end].len() <= ENCODER_ROWS {
                rows += sources[end].len();
                end += 1;
            }
            self.run_encoder(&sources[next..end])?;
            let weights = self.model.weights();
            let d = weights.shared.config.d_model;
            let mut row = 0;
            for (document, ids) in (next..end).zip(&sources[next..end]) {
                let states = &self.states[row * d..(row + ids.len()) * d];
                if let Some(decoder) = &mut self.decoder {
                    decoder.set_source(&weights.shared, weights.decoder()?, document, states, &mut self.scratch)?;
                }
                row += ids.len();
            }
            next = end;
        }
        Ok(())
    }

    /// One pass of the decoder; logits of the wanted queries are then in `self.logits`.
    pub(crate) fn run_decoder(
        &mut self,
        queries: &[Query],
        wanted: &[usize],
        alignment: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        let weights = self.model.weights();
        let decoder = weights.decoder()?;
        if let Some(state) = &mut self.decoder {
            let (logits, scratch) = (&mut self.logits, &mut self.scratch);
            state.forward(&weights.shared, decoder, queries, wanted, logits, alignment, scratch)?;
        }
        Ok(())
    }

    /// One pass of the decoder's blocks; [`Session::best_token`] and [`Session::run_head`] go on from there.
    pub(crate) fn run_blocks(&mut self, queries: &[Query]) -> Result<()> {
        let weights = self.model.weights();
        let decoder = weights.decoder()?;
        if let Some(state) = &mut self.decoder {
            state.run(&weights.shared, decoder, queries, None, &mut self.scratch)?;
        }
        Ok(())
    }

    /// The likeliest token after one query of the last pass, among those not in `except`.
    pub(crate) fn best_token(&mut self, query: usize, except: &[u32]) -> Result<u32> {
        let weights = self.model.weights();
        let decoder = weights.decoder()?;
        let Some(state) = &mut self.decoder else { return Ok(0) };
        Ok(state.best(&weights.shared, decoder, query, except, &mut self.logits, &mut self.scratch))
    }

    /// Logits after the wanted queries of the last pass, then in `self.logits`.
    pub(crate) fn run_head(&mut self, wanted: &[usize]) -> Result<()> {
        let weights = self.model.weights();
        let decoder = weights.decoder()?;
        if let Some(state) = &mut self.decoder {
            state.head(&weights.shared, decoder, wanted, &mut self.logits, &mut self.scratch);
        }
        Ok(())
    }

    /// Makes sequence `first + i` continue what was sequence `first + parents[i]`, over positions below `len`.
    pub(crate) fn reorder(&mut self, first: usize, parents: &[usize], len: usize) {
        if let Some(decoder) = &mut self.decoder {
            decoder.reorder(first, parents, len);
        }
    }
}
