//! A given target on its way through the decoder: its log-probabilities, or what its tokens look at.

use std::collections::VecDeque;
use std::ops::Range;

use crate::alignment::{Alignment, AlignmentHeads, WordAlignment};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, SourceText, SplitSentences};
use crate::layers::Query;
use crate::memory;
use crate::model::Model;
use crate::sentences::sentences;
use crate::session::{Encoding, FORCED_ROWS, Score, Session};
use crate::under_way::Pieces;

/// Reads what predicts a `piece` of a target, which begins behind `start` and of which all before it is read: the
/// decoder then has the logits of its tokens.
pub(crate) fn predict(decoder: &mut Decoder<'_>, start: u32, target: &[u32], piece: Range<usize>) -> Result<()> {
    let queries: Vec<Query> = piece.map(|position| query(start, target, 0, position)).collect();
    read(decoder, &queries, None)
}

/// What the decoder reads in the place of a token of a target: it is shifted right.
fn query(start: u32, target: &[u32], sequence: usize, position: usize) -> Query {
    Query { token: position.checked_sub(1).map_or(start, |before| target[before]), sequence, position }
}

fn read(decoder: &mut Decoder<'_>, queries: &[Query], shares: Option<&[f32]>) -> Result<()> {
    match shares {
        Some(shares) => decoder.run_aligned(queries, shares)?,
        None => decoder.run(queries)?,
    }
    let wanted: Vec<usize> = (0..queries.len()).collect();
    decoder.head(&wanted);
    Ok(())
}

/// The log-probabilities of tokens whose logits a decoder has.
pub(crate) fn logprobs<'a>(decoder: &'a mut Decoder<'_>, targets: &'a [u32]) -> impl Iterator<Item = f32> + 'a {
    let (kernels, vocab) = (decoder.model.kernels, decoder.model.config.vocab_size);
    let rows = decoder.logits(0..targets.len()).chunks_exact(vocab);
    targets.iter().zip(rows).map(move |(&id, row)| row[id as usize] - kernels.log_sum_exp(row))
}

/// Targets that are given, not chosen, each with a source.
pub(crate) struct Forced {
    encoding: Encoding,
    encoded: bool,
    /// One after the other.
    targets: Vec<u32>,
    /// What the decoder reads for each of their tokens.
    queries: Vec<Query>,
    /// Tokens that the decoder has predicted.
    done: usize,
}

impl Forced {
    /// # Errors
    /// If the model has no decoder, the source or the target is empty or has ids outside the vocabulary, or there is no
    /// memory for them.
    pub fn begin(session: &mut Session, pairs: &[(&[u32], &[u32])]) -> Result<Forced> {
        for (_, target) in pairs {
            session.model.check_ids("target", target)?;
            if target.is_empty() {
                return Err(Error::Option { option: "target", what: "expected at least one token".to_owned() });
            }
        }
        let (sources, targets): (Vec<&[u32]>, Vec<&[u32]>) = pairs.iter().copied().unzip();
        let longest = targets.iter().map(|target| target.len()).max().unwrap_or(0);
        let encoding = session.begin_sources(&sources, 1, longest)?;
        let start = session.model.start_token()?;
        let mut queries = Vec::new();
        for (sequence, target) in targets.iter().enumerate() {
            queries.extend((0..target.len()).map(|position| query(start, target, sequence, position)));
        }
        Ok(Forced { encoding, encoded: false, targets: targets.concat(), queries, done: 0 })
    }

    /// Does the next piece; false when there is none left. `each` gets tokens of the target, and the decoder with their
    /// logits and, if heads have `shares` in it, their alignment.
    pub fn work(
        &mut self,
        session: &mut Session,
        shares: Option<&[f32]>,
        each: impl FnOnce(&[u32], &mut Decoder<'_>),
    ) -> Result<bool> {
        if !self.encoded {
            self.encoded = !session.encode_more(&mut self.encoding)?;
            return Ok(true);
        }
        let piece = self.done..self.targets.len().min(self.done + FORCED_ROWS);
        let mut decoder = session.decoder()?;
        read(&mut decoder, &self.queries[piece.clone()], shares)?;
        self.done = piece.end;
        each(&self.targets[piece], &mut decoder);
        Ok(self.done < self.targets.len())
    }
}

/// The log-probabilities of targets.
pub(crate) struct Scoring {
    forced: Forced,
    lengths: Vec<usize>,
    logprobs: Vec<f32>,
}

impl Scoring {
    /// # Errors
    /// As [`Forced::begin`].
    pub fn begin(session: &mut Session, pairs: &[(&[u32], &[u32])]) -> Result<Scoring> {
        let forced = Forced::begin(session, pairs)?;
        let logprobs = Vec::with_capacity(forced.targets.len());
        Ok(Scoring { forced, lengths: pairs.iter().map(|(_, target)| target.len()).collect(), logprobs })
    }
}

impl Pieces for Scoring {
    type Results = Vec<Score>;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        if self.lengths.is_empty() {
            return Ok(false);
        }
        let all = &mut self.logprobs;
        self.forced.work(session, None, |targets, decoder| all.extend(logprobs(decoder, targets)))
    }

    fn results(self: Box<Self>) -> Vec<Score> {
        let (mut ids, mut logprobs) = (&self.forced.targets[..], &self.logprobs[..]);
        let score = |&length: &usize| {
            let (own_ids, own) = (ids.split_off(..length), logprobs.split_off(..length));
            let (own_ids, own) = (own_ids.unwrap_or_default(), own.unwrap_or_default());
            Score { ids: own_ids.to_vec(), logprobs: own.to_vec(), sum: own.iter().sum() }
        };
        self.lengths.iter().map(score).collect()
    }
}

/// Those of a single one.
pub(crate) struct ScoringOne(pub Scoring);

impl Pieces for ScoringOne {
    type Results = Score;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        self.0.work(session)
    }

    fn results(self: Box<Self>) -> Score {
        Box::new(self.0).results().swap_remove(0)
    }
}

/// What the tokens of a target look at.
pub(crate) struct Aligning {
    forced: Forced,
    shares: Vec<f32>,
    reading: bool,
    alignment: Alignment,
}

impl Aligning {
    /// # Errors
    /// As [`Forced::begin`], and if the model has no such head.
    pub fn begin(session: &mut Session, heads: &AlignmentHeads, source: &[u32], target: &[u32]) -> Result<Aligning> {
        session.model.check_alone("an alignment")?;
        session.model.data().encoder()?;
        let shares = heads.shares(session.model.config())?;
        let weights = memory::room("an alignment of these lengths", [source.len(), target.len() + 1])?;
        // The last token is read by one more step, whatever that predicts.
        let given = target.iter().chain(target.last()).copied().take(target.len() + usize::from(heads.reading));
        let forced = Forced::begin(session, &[(source, &given.collect::<Vec<u32>>())])?;
        let alignment = Alignment { source_ids: source.to_vec(), target_ids: target.to_vec(), weights };
        Ok(Aligning { forced, shares, reading: heads.reading, alignment })
    }
}

impl Pieces for Aligning {
    type Results = Alignment;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        let weights = &mut self.alignment.weights;
        self.forced.work(session, Some(&self.shares), |_, decoder| weights.extend_from_slice(decoder.alignment()))
    }

    fn results(mut self: Box<Self>) -> Alignment {
        if self.reading {
            self.alignment.weights.drain(..self.alignment.source_ids.len());
        }
        self.alignment
    }
}

/// What the words of a target look at, sentence by sentence where the source's task reads texts so.
pub(crate) struct WordAligning {
    model: Model,
    /// Sources and targets that have not begun.
    waiting: VecDeque<(Vec<u32>, Vec<u32>)>,
    current: Option<Box<Aligning>>,
    /// Words of the task's prefix, which are left out.
    prefix: usize,
    words: WordAlignment,
}

impl WordAligning {
    /// # Errors
    /// If the model has no tokenizer.
    pub fn begin(model: &Model, source: &str, target: &str) -> Result<WordAligning> {
        let tokenizer = model.tokenizer()?;
        let prefix = model.generation_defaults().task_of(source).map_or("", |task| &task.prefix);
        let prefix = prefix.split_whitespace().count();
        let split =
            SourceText::new(model, source, &GenerateOptions::default().split_sentences(SplitSentences::ByTask))?;
        let targets: Vec<&str> = sentences(target).into_iter().map(|range| &target[range]).collect();
        let whole = SourceText::from(model.source_ids(source)?.as_slice());
        let (sources, targets) = match split.sentences().len() == targets.len() {
            true => (split, targets),
            false => (whole, vec![target]),
        };
        let targets = targets.into_iter().map(|target| tokenizer.encode(target));
        let waiting = sources.sentences().iter().cloned().zip(targets).collect();
        Ok(WordAligning { model: model.clone(), waiting, current: None, prefix, words: WordAlignment::default() })
    }
}

impl Pieces for WordAligning {
    type Results = WordAlignment;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        let Some(current) = &mut self.current else {
            let Some((source, target)) = self.waiting.pop_front() else { return Ok(false) };
            let heads = self.model.alignment_heads();
            self.current = Some(Box::new(Aligning::begin(session, &heads, &source, &target)?));
            return Ok(true);
        };
        if current.work(session)? {
            return Ok(true);
        }
        if let Some(current) = self.current.take() {
            self.words.append(current.results().by_words(self.model.tokenizer()?, self.prefix));
        }
        Ok(!self.waiting.is_empty())
    }

    fn results(self: Box<Self>) -> WordAlignment {
        self.words
    }
}
