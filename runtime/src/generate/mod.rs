//! From a source to text: options, searches, and the loop that runs any number of documents side by side.

mod beam;
mod options;
mod processors;
mod sample;
mod single;

pub use options::{DEFAULT_MAX_NEW_TOKENS, EarlyStopping, GenerateOptions, LengthPenalty};

use std::sync::atomic::Ordering;

use beam::{BeamSearch, Hypothesis};
pub(crate) use options::Plan;
use single::SingleSearch;

use crate::decoder::Query;
use crate::error::Result;
use crate::session::Session;
use crate::tokenizer::TextStream;

/// Why a result ends where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// `</s>` was generated.
    EndOfSequence,
    /// The limit of new tokens was reached.
    Length,
    /// A stop string was found.
    Stop,
    /// The caller cancelled it.
    Cancelled,
}

impl Finish {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Finish::EndOfSequence => "eos",
            Finish::Length => "length",
            Finish::Stop => "stop",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// One generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Empty where the model has no tokenizer. A forced prefix is part of it.
    pub text: String,
    /// New tokens: without the start token and a forced prefix, with `</s>` if it was generated.
    pub ids: Vec<u32>,
    /// The log-probability of each token. Under beam search with processors, the processed one.
    pub logprobs: Vec<f32>,
    /// Greedy search and sampling: the sum of `logprobs`. Beam search: that sum over the length penalty.
    pub score: f32,
    pub finish: Finish,
}

enum Search {
    Single(SingleSearch),
    Beam(BeamSearch),
}

impl Search {
    fn new(plan: &Plan) -> Search {
        if plan.options.beams > 1 {
            Search::Beam(BeamSearch::new(plan))
        } else {
            Search::Single(SingleSearch::new(plan))
        }
    }

    fn rows(&self) -> usize {
        match self {
            Search::Single(search) => search.rows(),
            Search::Beam(search) => search.rows(),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Search::Single(search) => search.is_done(),
            Search::Beam(search) => search.is_done(),
        }
    }
}

struct Document {
    search: Search,
    /// First of its sequences in the decoder.
    first: usize,
    /// Tokens in its cache: start, prefix and all but the newest generated one.
    position: usize,
    cancelled: bool,
}

/// Documents being decoded in lock step. Each step runs the live rows of all of them through the decoder at
/// once; rows do not influence each other, so a result does not depend on what ran beside it.
pub(crate) struct Decoding {
    plan: Plan,
    documents: Vec<Document>,
    started: bool,
    queries: Vec<Query>,
    wanted: Vec<usize>,
}

impl Decoding {
    /// Encodes the sources and prepares the caches.
    pub fn begin(session: &mut Session, sources: &[&[u32]], options: &GenerateOptions) -> Result<Decoding> {
        let plan = Plan::new(session.model.weights(), options)?;
        for source in sources {
            session.model.weights().check_ids("source", source)?;
        }
        let sequences = plan.sequences();
        session.encode_sources(sources, sequences, 1 + plan.prefix.len() + plan.max_new)?;
        let documents = (0..sources.len())
            .map(|index| Document {
                search: Search::new(&plan),
                first: index * sequences,
                position: 0,
                cancelled: false,
            })
            .collect();
        Ok(Decoding {
            documents,
            started: false,
            queries: Vec::with_capacity(sources.len() * sequences.max(1 + plan.prefix.len())),
            wanted: Vec::with_capacity(sources.len() * sequences),
            plan,
        })
    }

    /// Generates one token for every live sequence. False when all documents are done.
    pub fn step(&mut self, session: &mut Session) -> Result<bool> {
        if let Some(cancel) = &self.plan.options.cancel
            && cancel.load(Ordering::Relaxed)
        {
            self.documents.iter_mut().filter(|document| !document.search.is_done()).for_each(|d| d.cancelled = true);
        }
        self.queries.clear();
        self.wanted.clear();
        for document in self.documents.iter_mut().filter(|document| !document.is_done()) {
            if !self.started {
                let start = std::iter::once(self.plan.start).chain(self.plan.prefix.iter().copied());
                for (position, token) in start.enumerate() {
                    self.queries.push(Query { token, sequence: document.first, position });
                }
                self.wanted.push(self.queries.len() - 1);
                document.position = self.plan.prefix.len() + 1;
            } else {
                let mut push = |row: usize, token: u32| {
                    self.wanted.push(self.queries.len());
                    let sequence = document.first + row;
                    self.queries.push(Query { token, sequence, position: document.position });
                };
                match &document.search {
                    Search::Single(search) => search.tokens().enumerate().for_each(|(row, token)| push(row, token)),
                    Search::Beam(search) => search.tokens().enumerate().for_each(|(row, token)| push(row, token)),
                }
                document.position += 1;
            }
        }
        if self.queries.is_empty() {
            return Ok(false);
        }
        session.decode(&self.queries, &self.wanted)?;
        self.started = true;
        let kernels = session.model.weights().kernels;
        let vocab = session.model.config().vocab_size;
        let mut row = 0;
        for document in self.documents.iter_mut().filter(|document| !document.is_done()) {
            let rows = document.search.rows();
            let logits = &mut session.logits[row * vocab..(row + rows) * vocab];
            row += rows;
            let parents = match &mut document.search {
                Search::Single(search) => {
                    search.advance(kernels, &self.plan, logits);
                    search.parents()
                }
                Search::Beam(search) => {
                    search.advance(kernels, &self.plan, logits);
                    search.parents()
                }
            };
            let identity = parents.iter().enumerate().all(|(row, &parent)| row == parent);
            if !identity {
                session.decoder.reorder(document.first, parents, document.position);
            }
        }
        Ok(self.documents.iter().any(|document| !document.is_done()))
    }

    /// The results of every document, best first, at most `n_best` each.
    pub fn results(&self, session: &Session) -> Vec<Vec<Output>> {
        self.documents
            .iter()
            .map(|document| {
                let results: Vec<&Hypothesis> = match &document.search {
                    Search::Single(search) => search.results(),
                    Search::Beam(search) => search.results().iter().collect(),
                };
                let output = |hypothesis: &Hypothesis| self.output(session, document, hypothesis);
                results.into_iter().take(self.plan.options.n_best).map(output).collect()
            })
            .collect()
    }

    fn output(&self, session: &Session, document: &Document, hypothesis: &Hypothesis) -> Output {
        let ended = hypothesis.ids.last().is_some_and(|last| self.plan.eos.contains(last));
        let mut finish = match (ended, document.cancelled) {
            (true, _) => Finish::EndOfSequence,
            (false, true) => Finish::Cancelled,
            (false, false) => Finish::Length,
        };
        let mut text = String::new();
        if let Ok(tokenizer) = session.model.tokenizer() {
            let ids: Vec<u32> = self.plan.prefix.iter().chain(&hypothesis.ids).copied().collect();
            text = tokenizer.decode(&ids, true);
            if let Some(end) = find_stop(&text, &self.plan.options.stop) {
                text.truncate(end);
                finish = Finish::Stop;
            }
        }
        Output {
            text,
            ids: hypothesis.ids.clone(),
            logprobs: hypothesis.logprobs.clone(),
            score: hypothesis.score,
            finish,
        }
    }
}

impl Document {
    fn is_done(&self) -> bool {
        self.cancelled || self.search.is_done()
    }
}

/// Where the first of the stop strings begins.
fn find_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// How many bytes at the end of `text` could still become a stop string and are held back.
fn held_back(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        (1..stop.len().min(text.len() + 1)).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
    };
    stop.iter().filter_map(begins).max().unwrap_or(0)
}

/// A generation under way: an iterator of pieces of text.
///
/// Pieces come as their tokens do under greedy search and single draws; beam search (and several draws) gives
/// the whole text at the end. A piece never ends inside a UTF-8 character.
pub struct Generation<'s> {
    session: &'s mut Session,
    decoding: Decoding,
    /// `None` where text can only be known at the end.
    stream: Option<TextStream>,
    /// Text decoded; `..given` has been handed out.
    text: String,
    given: usize,
    /// New tokens whose text is in `text`.
    seen: usize,
    done: bool,
    stopped: bool,
}

impl<'s> Generation<'s> {
    pub(crate) fn begin(session: &'s mut Session, source: &[u32], options: &GenerateOptions) -> Result<Generation<'s>> {
        let decoding = Decoding::begin(session, &[source], options)?;
        let streams = decoding.plan.sequences() == 1;
        let stream =
            if streams { session.model.tokenizer().ok().map(|tokenizer| tokenizer.stream(true)) } else { None };
        let mut generation = Generation {
            session,
            decoding,
            stream,
            text: String::with_capacity(1024),
            given: 0,
            seen: 0,
            done: false,
            stopped: false,
        };
        for index in 0..generation.decoding.plan.prefix.len() {
            let id = generation.decoding.plan.prefix[index];
            generation.push(id);
        }
        Ok(generation)
    }

    fn push(&mut self, id: u32) {
        if let Some(stream) = &mut self.stream {
            self.text.push_str(stream.push(id));
        }
    }

    /// The next piece; `None` at the end. Allocates nothing in the steady state.
    pub fn next_piece(&mut self) -> Option<&str> {
        loop {
            let end =
                self.text.len() - if self.done { 0 } else { held_back(&self.text, &self.decoding.plan.options.stop) };
            if self.given < end {
                let piece = self.given..end;
                self.given = end;
                return Some(&self.text[piece]);
            }
            if self.done {
                return None;
            }
            self.advance();
        }
    }

    /// One step of the decoder.
    fn advance(&mut self) {
        // After `begin` a step cannot fail: the model has a decoder and all ids are checked.
        let more = self.decoding.step(self.session).unwrap_or(false);
        if self.stream.is_some() {
            while let Search::Single(search) = &self.decoding.documents[0].search
                && let Some(&id) = search.first().ids.get(self.seen)
            {
                self.seen += 1;
                self.push(id);
            }
            if let Some(end) = find_stop(&self.text, &self.decoding.plan.options.stop) {
                self.text.truncate(end);
                self.stopped = true;
                if let Search::Single(search) = &mut self.decoding.documents[0].search {
                    search.stop();
                }
            }
        }
        if !more || self.stopped {
            self.done = true;
            if !self.stopped {
                self.finish_text();
            }
        }
    }

    /// What the stream still holds, or the best result's text where nothing was streamed.
    fn finish_text(&mut self) {
        match &mut self.stream {
            Some(stream) => self.text.push_str(stream.finish()),
            None => {
                let mut results = self.decoding.results(self.session);
                if let Some(best) = results.first_mut().and_then(|outputs| outputs.first_mut()) {
                    self.text = std::mem::take(&mut best.text);
                }
            }
        }
    }

    /// Runs to the end and returns the results, best first.
    pub fn finish(mut self) -> Vec<Output> {
        while !self.done {
            self.advance();
        }
        self.decoding.results(self.session).pop().unwrap_or_default()
    }
}

impl Iterator for Generation<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.next_piece().map(str::to_owned)
    }
}
