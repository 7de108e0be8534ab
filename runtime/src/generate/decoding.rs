//! The loop that runs any number of documents side by side.

use std::sync::atomic::Ordering;

use super::beam::{BeamSearch, Hypothesis};
use super::lookup::{self, Lookup};
use super::options::{GenerateOptions, Plan};
use super::single::SingleSearch;
use super::{Finish, Output};
use crate::decoder::Query;
use crate::error::Result;
use crate::session::Session;

pub(super) enum Search {
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

pub(super) struct Document {
    pub search: Search,
    /// First of its sequences in the decoder.
    first: usize,
    /// Tokens in its cache: start, prefix and all but the newest generated one.
    position: usize,
    cancelled: bool,
}

/// Documents being decoded in lock step. Each step runs the live rows of all of them through the decoder at
/// once; rows do not influence each other, so a result does not depend on what ran beside it.
pub(super) struct Decoding {
    pub plan: Plan,
    pub documents: Vec<Document>,
    started: bool,
    queries: Vec<Query>,
    wanted: Vec<usize>,
    lookup: Option<Lookup>,
    /// Passes of the decoder.
    pub passes: usize,
}

impl Decoding {
    /// Encodes the sources and prepares the caches.
    pub fn begin(session: &mut Session, sources: &[&[u32]], options: &GenerateOptions) -> Result<Decoding> {
        let plan = Plan::new(&session.model, options)?;
        for source in sources {
            session.model.weights().shared.check_ids("source", source)?;
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
        let proposals = match sources {
            [source] if plan.looks_up(&session.model) => Some(Lookup::new(source)),
            _ => None,
        };
        Ok(Decoding {
            lookup: proposals,
            passes: 0,
            documents,
            started: false,
            queries: Vec::with_capacity(sources.len() * sequences.max(1 + plan.prefix.len()) + lookup::MANY),
            wanted: Vec::with_capacity(sources.len() * sequences + lookup::MANY),
            plan,
        })
    }

    /// Generates one token for every live sequence, or several for a single one. False when all documents are done.
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
        self.passes += 1;
        if self.wanted.len() == 1 && (self.lookup.is_some() || self.plan.needs_only_best()) {
            return self.step_greedily(session);
        }
        session.run_decoder(&self.queries, &self.wanted, None)?;
        self.started = true;
        let kernels = session.model.kernels();
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
                session.reorder(document.first, parents, document.position);
            }
        }
        Ok(self.documents.iter().any(|document| !document.is_done()))
    }

    /// Goes on with the only live sequence, by a token and those of the proposals after it that are right.
    fn step_greedily(&mut self, session: &mut Session) -> Result<bool> {
        let plan = &self.plan;
        let Some(document) = self.documents.iter_mut().find(|document| !document.is_done()) else { return Ok(false) };
        let Search::Single(search) = &mut document.search else { return Ok(false) };
        let first = self.wanted[0];
        if let Some(lookup) = &mut self.lookup {
            let room = plan.max_new - search.first().ids.len() - 1;
            for (i, &token) in lookup.propose(&search.first().ids, room).iter().enumerate() {
                self.wanted.push(self.queries.len());
                self.queries.push(Query { token, sequence: document.first, position: document.position + i });
            }
        }
        session.run_blocks(&self.queries)?;
        self.started = true;
        let (kernels, vocab) = (session.model.kernels(), session.model.config().vocab_size);
        let only_best = plan.needs_only_best();
        // Side by side the full product is no slower: its weights are read once for all.
        if only_best {
            let token = session.best_token(first, search.except(plan))?;
            search.advance_by(plan, token);
        } else {
            session.run_head(&self.wanted)?;
            search.advance(kernels, plan, &mut session.logits[..vocab]);
        }
        let proposed = self.queries[first + 1..].iter().map(|query| query.token);
        let mut right = 0;
        for (row, token) in (1..).zip(proposed) {
            if search.is_done() || search.first().ids.last() != Some(&token) {
                break;
            }
            if only_best && row == 1 {
                session.run_head(&self.wanted[1..])?;
            }
            let row = if only_best { row - 1 } else { row };
            let logits = &mut session.logits[row * vocab..(row + 1) * vocab];
            search.advance(kernels, plan, logits);
            right += 1;
        }
        document.position += right;
        let proposed = self.wanted.len() - 1;
        if let (Some(lookup), 1..) = (&mut self.lookup, proposed) {
            lookup.learn(proposed, right, search.first().ids.len());
        }
        Ok(!search.is_done())
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
pub(super) fn find_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
}
