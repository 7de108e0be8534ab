//! [`Session`]: the working space of one thread over a shared [`Model`].

use std::fmt;

use crate::alignment::{Alignment, AlignmentHeads, WordAlignment};
use crate::decoder::{Decoder, DecoderState};
use crate::encode::{EncodeOptions, Passage};
use crate::encoder::{self, Encoder, EncoderState};
use crate::error::Result;
use crate::forced::{Aligning, Forced, Scoring, ScoringOne, WordAligning};
use crate::layers::{Document, FIRST_POSITIONS, Scratch};
use crate::memory::{self, Request};
use crate::model::Model;
use crate::under_way::{Pieces, UnderWay};

/// Given tokens that the decoder reads at once.
pub(crate) const FORCED_ROWS: usize = 32;

/// Everything that changes while a model runs. Buffers grow to the largest request met and are then re-used.
pub struct Session {
    pub(crate) model: Model,
    /// Made when it is first needed, as the decoder's.
    encoder: Option<EncoderState>,
    decoder: Option<DecoderState>,
    scratch: Scratch,
    /// `[rows, d_model]`: encoder output of the last documents.
    pub(crate) states: Vec<f32>,
    /// The largest request so far, in bytes: memory for such a one is there.
    granted: u64,
    /// Of the other models of an ensemble; the scratch memory and the threads are the first one's.
    others: Vec<Session>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Sources on their way through the encoder and into the decoder's caches, a piece of work at a time.
#[derive(Default)]
pub(crate) struct Encoding {
    /// All sources, one after the other.
    ids: Vec<u32>,
    lengths: Vec<usize>,
    /// Where in the caches each one goes.
    documents: Vec<usize>,
    /// Sources, and their ids, that are in the caches.
    done: usize,
    done_ids: usize,
    /// How many of the next ones are in the encoder.
    group: usize,
    /// The same sources on their way into the other models of an ensemble.
    others: Vec<Encoding>,
}

/// The log-probability of a target given a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The target's ids, `</s>` included.
    pub ids: Vec<u32>,
    /// One for each id.
    pub logprobs: Vec<f32>,
    /// Of all: the log-probability of the target.
    pub sum: f32,
}

impl Model {
    /// A working space over this model: every buffer of encoding and decoding, allocated once and re-used.
    pub fn session(&self) -> Session {
        Session {
            encoder: None,
            decoder: None,
            scratch: Scratch::default(),
            states: Vec::new(),
            granted: 0,
            others: self.others().iter().map(Model::session).collect(),
            model: self.clone(),
        }
    }
}

impl Encoding {
    /// How many there are.
    pub(crate) fn sources(&self) -> usize {
        self.lengths.len()
    }

    /// Whether all are in the caches, of every model.
    fn is_done(&self) -> bool {
        self.done == self.lengths.len() && self.others.iter().all(Encoding::is_done)
    }
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Shares the work of each pass among `threads` threads, the caller's included, at most
    /// [`MAX_THREADS`](crate::MAX_THREADS); a new session has one. Results do not depend on it.
    /// [`default_threads`](crate::default_threads) is a good choice where nothing else runs.
    pub fn set_threads(&mut self, threads: usize) {
        self.scratch.workspace.set_threads(threads);
    }

    /// How many threads work on a pass.
    pub fn threads(&self) -> usize {
        self.scratch.workspace.threads()
    }

    /// The encoder's hidden states of a source, `[len, d_model]`.
    ///
    /// # Errors
    /// If the model has no encoder, the source is empty or has ids outside the vocabulary, or there is no memory for
    /// one of this length.
    pub fn encode_ids(&mut self, source: &[u32]) -> Result<&[f32]> {
        self.model.check_alone("states")?;
        self.model.data().encoder()?;
        self.model.check_source(source)?;
        self.ask(&[source.len()], 0, 0)?;
        let mut encoder = self.encoder()?;
        encoder.begin(source.iter().copied(), std::iter::once(Document::whole(source.len())));
        while encoder.run()? {}
        self.finish_states()?;
        Ok(&self.states[..source.len() * self.model.config().d_model])
    }

    /// The encoder's hidden states of a text, `[len, d_model]`.
    ///
    /// # Errors
    /// As [`Session::encode_ids`], and if the model has no tokenizer.
    pub fn encode(&mut self, text: &str) -> Result<&[f32]> {
        let ids = self.model.tokenizer()?.encode(text);
        self.encode_ids(&ids)
    }

    /// One vector for a source: a sentence model's, else the mean of the encoder's hidden states, `[d_model]`.
    ///
    /// # Errors
    /// As [`Session::encode_ids`].
    pub fn embed_ids(&mut self, source: &[u32]) -> Result<Vec<f32>> {
        self.embed_passage(source.to_vec().into())
    }

    /// One vector for a text: a sentence model's, else the mean of the encoder's hidden states, `[d_model]`.
    ///
    /// # Errors
    /// As [`Session::encode`].
    pub fn embed(&mut self, text: &str) -> Result<Vec<f32>> {
        let passage = self.model.passage(text, &EncodeOptions::default())?;
        self.embed_passage(passage)
    }

    fn embed_passage(&mut self, passage: Passage) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.encode_each(&[passage], &EncodeOptions::default(), &mut |_, encoded| values = encoded.values)?;
        Ok(values)
    }

    /// Log-probabilities of a target text (and `</s>`) given a source text.
    ///
    /// # Errors
    /// As [`Session::score_ids`], and if the model has no tokenizer.
    pub fn score(&mut self, source: &str, target: &str) -> Result<Score> {
        let (source, target) = (self.model.source_ids(source)?, self.model.tokenizer()?.encode(target));
        self.score_ids(&source, &target)
    }

    /// Log-probabilities of the target's ids given a source, teacher-forced.
    ///
    /// # Errors
    /// If the model has no decoder, the source or the target is empty or has ids outside the vocabulary, or there is no
    /// memory for them.
    pub fn score_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Score> {
        let scoring = Scoring::begin(self, &[(source, target)])?;
        self.complete(ScoringOne(scoring))
    }

    /// As [`Session::score`], for pairs of a source and its target. They are read side by side, which takes less time
    /// than one after the other, and memory for all of them; the numbers are the same, to the last bit.
    ///
    /// # Errors
    /// As [`Session::score`], where one of the pairs is wrong.
    pub fn score_batch(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<Score>> {
        let tokenizer = self.model.tokenizer()?;
        let ids = |&(source, target): &(&str, &str)| Ok((self.model.source_ids(source)?, tokenizer.encode(target)));
        let ids: Vec<(Vec<u32>, Vec<u32>)> = pairs.iter().map(ids).collect::<Result<_>>()?;
        let pairs: Vec<(&[u32], &[u32])> = ids.iter().map(|(source, target)| (&source[..], &target[..])).collect();
        self.score_batch_ids(&pairs)
    }

    /// As [`Session::score_batch`], from ids.
    ///
    /// # Errors
    /// As [`Session::score_ids`], where one of the pairs is wrong.
    pub fn score_batch_ids(&mut self, pairs: &[(&[u32], &[u32])]) -> Result<Vec<Score>> {
        let scoring = Scoring::begin(self, pairs)?;
        self.complete(scoring)
    }

    /// As [`Session::score_ids`], a piece of work at a time.
    ///
    /// # Errors
    /// As [`Session::score_ids`]; the session is lost then.
    pub fn into_scoring(mut self, source: &[u32], target: &[u32]) -> Result<UnderWay<Score>> {
        let scoring = Scoring::begin(&mut self, &[(source, target)])?;
        Ok(UnderWay::new(self, ScoringOne(scoring)))
    }

    /// Logits of every step of a teacher-forced target, `[target, vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::score_ids`].
    pub fn logits_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Vec<f32>> {
        let mut all = memory::room("logits of all tokens", [target.len(), self.model.config().vocab_size])?;
        let mut forced = Forced::begin(self, &[(source, target)])?;
        while forced.work(self, None, |targets, decoder| all.extend_from_slice(decoder.logits(0..targets.len())))? {}
        Ok(all)
    }

    /// Which source tokens each token of a target comes from, by the heads that the checkpoint names
    /// ([`Model::alignment_heads`]).
    ///
    /// # Errors
    /// As [`Session::score_ids`].
    pub fn alignment_ids(&mut self, source: &[u32], target: &[u32]) -> Result<Alignment> {
        self.alignment_by(&self.model.alignment_heads(), source, target)
    }

    /// As [`Session::alignment_ids`], by the given heads.
    ///
    /// # Errors
    /// As [`Session::score_ids`], and if the model has no such head.
    pub fn alignment_by(&mut self, heads: &AlignmentHeads, source: &[u32], target: &[u32]) -> Result<Alignment> {
        let aligning = Aligning::begin(self, heads, source, target)?;
        self.complete(aligning)
    }

    /// Which source word each word of a target comes from. Words of a task's prefix are left out. Where the task reads
    /// texts sentence by sentence, each sentence of the source is aligned with the one in the same place of the target,
    /// if there are as many.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn align(&mut self, source: &str, target: &str) -> Result<WordAlignment> {
        let aligning = WordAligning::begin(&self.model, source, target)?;
        self.complete(aligning)
    }

    /// As [`Session::align`], a piece of work at a time.
    ///
    /// # Errors
    /// If the model has no tokenizer; the session is lost then. What else [`Session::align`] refuses,
    /// [`UnderWay::work`] does.
    pub fn into_aligning(self, source: &str, target: &str) -> Result<UnderWay<WordAlignment>> {
        let aligning = WordAligning::begin(&self.model, source, target)?;
        Ok(UnderWay::new(self, aligning))
    }

    /// Does all of a request at once.
    pub(crate) fn complete<P: Pieces>(&mut self, mut pieces: P) -> Result<P::Results> {
        while pieces.work(self)? {}
        Ok(Box::new(pieces).results())
    }

    /// The encoder at work in this session.
    ///
    /// # Errors
    /// For a model of one stack.
    pub(crate) fn encoder(&mut self) -> Result<Encoder<'_>> {
        let model = self.model.data();
        let weights = model.encoder()?;
        let state = self.encoder.get_or_insert_with(|| EncoderState::new(weights));
        Ok(Encoder { model, weights, state, scratch: &mut self.scratch })
    }

    /// Brings what the encoder is through with to the session's states, for readers other than the decoder.
    pub(crate) fn finish_states(&mut self) -> Result<()> {
        let mut states = std::mem::take(&mut self.states);
        self.encoder()?.finish_states(&mut states);
        self.states = states;
        Ok(())
    }

    /// The decoder at work in this session.
    ///
    /// # Errors
    /// For an encoder-only model.
    pub(crate) fn decoder(&mut self) -> Result<Decoder<'_>> {
        let model = self.model.data();
        let weights = model.decoder()?;
        let state = self.decoder.get_or_insert_with(|| DecoderState::new(model, weights));
        let (others, mean) = (&mut self.others[..], self.model.mean());
        Ok(Decoder { model, weights, state, scratch: &mut self.scratch, others, mean })
    }

    /// Prepares to encode sources and to decode `sequences` sequences of each, up to `positions` tokens long.
    ///
    /// # Errors
    /// If the model does not generate, a source is empty or has ids outside the vocabulary, or there is too little
    /// memory.
    pub(crate) fn begin_sources(&mut self, sources: &[&[u32]], sequences: usize, positions: usize) -> Result<Encoding> {
        self.model.check_generates()?;
        self.begin_reading(sources, sequences, positions)
    }

    /// As [`Session::begin_sources`], whatever the decoder is for.
    pub(crate) fn begin_reading(&mut self, sources: &[&[u32]], sequences: usize, positions: usize) -> Result<Encoding> {
        sources.iter().try_for_each(|ids| self.model.check_source(ids))?;
        let lengths: Vec<usize> = sources.iter().map(|ids| ids.len()).collect();
        self.decoder()?;
        self.ask(&lengths, sequences, positions)?;
        let before = self.before(&lengths);
        self.decoder()?.begin(sources.len(), sequences, before + positions)?;
        let others = self.others.iter_mut().map(|other| other.begin_reading(sources, sequences, positions));
        Ok(Encoding {
            others: others.collect::<Result<_>>()?,
            ids: sources.concat(),
            lengths,
            documents: (0..sources.len()).collect(),
            ..Encoding::default()
        })
    }

    /// Starts over with caches for so many sequences, which sources join one by one: see [`Session::begin_joining`].
    ///
    /// # Errors
    /// If the model does not generate, or there is too little memory.
    pub(crate) fn begin_open(&mut self, sequences: usize, positions: usize) -> Result<()> {
        self.model.check_generates()?;
        self.decoder()?;
        self.ask_for(0, &[], sequences, positions)?;
        self.decoder()?.begin(sequences, 1, positions)?;
        self.others.iter_mut().try_for_each(|other| other.begin_open(sequences, positions))
    }

    /// An error if there is no memory for sources of these lengths to join those of `held` tokens in all, which are
    /// being decoded in `sequences` sequences or have room there.
    pub(crate) fn ask_joining(&mut self, held: usize, lengths: &[usize], sequences: usize) -> Result<()> {
        self.ask_for(held, lengths, sequences, FIRST_POSITIONS)?;
        self.others.iter_mut().try_for_each(|other| other.ask_joining(held, lengths, sequences))
    }

    /// Prepares to encode sources while others are being decoded. Each has the first of its sequences, and their
    /// number.
    ///
    /// # Errors
    /// If the model has no decoder.
    pub(crate) fn begin_joining(&mut self, sources: &[(&[u32], usize, usize)]) -> Result<Encoding> {
        let mut decoder = self.decoder()?;
        sources.iter().for_each(|&(_, first, sequences)| decoder.assign(first, sequences));
        let ids = sources.iter().flat_map(|(ids, ..)| ids.iter().copied()).collect();
        let lengths = sources.iter().map(|(ids, ..)| ids.len()).collect();
        let documents = sources.iter().map(|&(_, first, _)| first).collect();
        let others = self.others.iter_mut().map(|other| other.begin_joining(sources)).collect::<Result<_>>()?;
        Ok(Encoding { ids, lengths, documents, others, ..Encoding::default() })
    }

    /// The most positions of a sequence that a source of these lengths takes, in a model of one stack.
    fn before(&self, lengths: &[usize]) -> usize {
        let longest = || lengths.iter().copied().max().unwrap_or(0);
        self.model.config().one_stack().map_or(0, |_| longest())
    }

    /// An error if there is no memory for a request with sources of these lengths.
    pub(crate) fn ask(&mut self, lengths: &[usize], sequences: usize, positions: usize) -> Result<()> {
        self.ask_for(0, lengths, lengths.len() * sequences, positions)
    }

    /// An error if there is no memory for sources of these lengths beside others of `held` tokens in all, and for so
    /// many sequences, or the model's file is not what it was. Every request asks for its memory, so every request asks
    /// for that, too.
    fn ask_for(&mut self, held: usize, lengths: &[usize], sequences: usize, positions: usize) -> Result<()> {
        self.model.data().check_unchanged()?;
        let source = lengths.iter().sum::<usize>();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let request = Request {
            source: held + source,
            longest,
            encoder_rows: longest.max(source.min(encoder::ROWS)),
            sequences,
            positions: self.before(lengths) + positions.min(FIRST_POSITIONS),
            threads: self.threads(),
        };
        let bytes = request.bytes(self.model.config());
        if bytes > self.granted {
            memory::ask("a source of this length and its sequences", bytes)?;
            self.granted = bytes;
        }
        Ok(())
    }

    /// Does the next piece of work on sources; false when all are in the decoder's caches.
    pub(crate) fn encode_more(&mut self, encoding: &mut Encoding) -> Result<bool> {
        if encoding.done < encoding.lengths.len() {
            self.encode_own(encoding)?;
        } else {
            let mut others = self.others.iter_mut().zip(&mut encoding.others);
            if let Some((other, encoding)) = others.find(|(_, encoding)| !encoding.is_done()) {
                other.lend(&mut self.scratch, |other| other.encode_more(encoding))?;
            }
        }
        Ok(!encoding.is_done())
    }

    /// As [`Session::encode_more`], into this model's caches alone.
    fn encode_own(&mut self, encoding: &mut Encoding) -> Result<()> {
        if self.model.config().one_stack().is_some() {
            return self.read_own(encoding);
        }
        let Encoding { ids, lengths, documents, done, done_ids, group, .. } = encoding;
        let (ids, lengths) = (&ids[*done_ids..], &lengths[*done..]);
        let mut encoder = self.encoder()?;
        if *group == 0 {
            let mut rows = 0;
            let fits = |len: &&usize| {
                rows += **len;
                rows <= encoder::ROWS
            };
            *group = lengths.iter().take_while(fits).count().max(1);
            encoder.begin(ids.iter().copied(), lengths[..*group].iter().map(|&length| Document::whole(length)));
        }
        if encoder.run()? {
            return Ok(());
        }
        let mut states = std::mem::take(&mut self.states);
        self.encoder()?.finish(&mut states);
        let mut decoder = self.decoder()?;
        let d = decoder.model.config.d_model;
        let mut row = 0;
        for (index, &len) in lengths[..*group].iter().enumerate() {
            decoder.set_source(documents[*done + index], &states[row * d..(row + len) * d])?;
            row += len;
        }
        self.states = states;
        *done += std::mem::take(group);
        *done_ids += row;
        Ok(())
    }

    /// As [`Session::encode_own`], one source after the other, in a model of one stack.
    fn read_own(&mut self, encoding: &mut Encoding) -> Result<()> {
        let start = self.model.start_token()?;
        let Encoding { ids, lengths, documents, done, done_ids, group, .. } = encoding;
        let source = &ids[*done_ids..][..lengths[*done]];
        let mut decoder = self.decoder()?;
        if *group == 0 {
            decoder.begin_source(documents[*done], start, source)?;
            *group = 1;
        }
        if !decoder.read_source() {
            *done += std::mem::take(group);
            *done_ids += source.len();
        }
        Ok(())
    }

    /// What passes write to on their way.
    pub(crate) fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}
