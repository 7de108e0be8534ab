//! The loop that runs any number of documents side by side.

use std::sync::atomic::Ordering;

use super::beam::{BeamSearch, Hypothesis};
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
        // Side by side the full product is no slower: its weights are read once for all.
        if let (true, &[_]) = (self.plan.needs_only_best(), &self.wanted[..])
            && let Some(Document { search: Search::Single(search), .. }) =
                self.documents.iter_mut().find(|document| !document.is_done())
        {
            let token = session.best_token(&self.queries, search.except(&self.plan))?;
            search.advance_by(&self.plan, token);
            self.started = true;
            return Ok(!search.is_done());
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
