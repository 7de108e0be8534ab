//! The loop that runs any number of documents side by side.

use std::sync::atomic::Ordering;

use super::lookup::{self, Proposer};
use super::options::GenerateOptions;
use super::plan::Plan;
use super::search::{Hypothesis, Search};
use super::{Finish, Output};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::layers::Query;
use crate::session::{Encoding, FORCED_ROWS, Session};

pub(super) struct LiveDocument {
    pub search: Search,
    /// First of its sequences in the decoder.
    first: usize,
    /// Tokens in its cache: start, prefix and all but the newest generated one.
    position: usize,
    /// Why it ended before its search did.
    pub cut: Option<Finish>,
}

/// How far a generation has come.
enum Phase {
    /// The sources are on their way into the decoder's caches.
    Encoding(Encoding),
    /// How many tokens of the start token and the forced prefix have been read.
    Prefix(usize),
    Tokens,
}

/// What a piece of work has led to.
#[derive(PartialEq, Eq)]
pub(super) enum Outcome {
    /// No token yet.
    Working,
    /// Every live sequence has a token more, or a single one several.
    Tokens,
    /// There is nothing left to do.
    Done,
}

/// Documents being decoded in lock step. Each step runs the live rows of all of them through the decoder at
/// once; rows do not influence each other, so a result does not depend on what ran beside it.
pub(super) struct Decoding {
    pub plan: Plan,
    pub documents: Vec<LiveDocument>,
    phase: Phase,
    queries: Vec<Query>,
    wanted: Vec<usize>,
    lookup: Option<Proposer>,
    /// Passes of the decoder.
    pub passes: usize,
}

impl Decoding {
    /// Checks the request and prepares the caches; the work begins with the first [`Decoding::work`].
    pub fn begin(session: &mut Session, sources: &[&[u32]], options: &GenerateOptions) -> Result<Decoding> {
        let plan = Plan::new(&session.model, options)?;
        let sequences = plan.sequences();
        let encoding = session.begin_sources(sources, sequences, 1 + plan.prefix.len() + plan.max_new)?;
        let documents = (0..sources.len())
            .map(|index| LiveDocument {
                search: Search::new(&plan, sources[index]),
                first: index * sequences,
                position: 0,
                cut: None,
            })
            .collect();
        let proposals = match sources {
            [source] if plan.looks_up(&session.model) => Some(Proposer::new(source)),
            _ => None,
        };
        Ok(Decoding {
            lookup: proposals,
            passes: 0,
            documents,
            phase: Phase::Encoding(encoding),
            queries: Vec::with_capacity(sources.len() * sequences.max(FORCED_ROWS) + lookup::MANY),
            wanted: Vec::with_capacity(sources.len() * sequences + lookup::MANY),
            plan,
        })
    }

    /// Does a piece of work of bounded size: some blocks of the encoder, some tokens of the prefix, or one token for
    /// every live sequence (several for a single one). The caller can cancel between any two.
    pub fn work(&mut self, session: &mut Session) -> Result<Outcome> {
        if let Some(cancel) = &self.plan.options.cancel
            && cancel.load(Ordering::Relaxed)
        {
            self.cut(Finish::Cancelled);
        }
        if self.documents.iter().all(LiveDocument::is_done) {
            return Ok(Outcome::Done);
        }
        match &mut self.phase {
            Phase::Encoding(encoding) => {
                if !session.encode_more(encoding)? {
                    self.phase = Phase::Prefix(0);
                }
                Ok(Outcome::Working)
            }
            Phase::Prefix(read) => {
                let read = *read;
                self.read_prefix(&mut session.decoder()?, read)
            }
            Phase::Tokens => {
                self.collect_queries();
                self.advance(&mut session.decoder()?)
            }
        }
    }

    /// Ends every document that is not done.
    pub fn cut(&mut self, why: Finish) {
        self.documents.iter_mut().filter(|document| !document.is_done()).for_each(|document| document.cut = Some(why));
    }

    /// Reads more of the start token and the forced prefix, of which `read` tokens were read before. Once all are read,
    /// it generates the first token, too.
    fn read_prefix(&mut self, decoder: &mut Decoder<'_>, read: usize) -> Result<Outcome> {
        let given = 1 + self.plan.prefix.len();
        let end = given.min(read + (FORCED_ROWS / self.documents.len()).max(1));
        self.queries.clear();
        self.wanted.clear();
        for document in &mut self.documents {
            let start = std::iter::once(self.plan.start).chain(self.plan.prefix.iter().copied());
            for (position, token) in start.enumerate().take(end).skip(read) {
                self.queries.push(Query { token, sequence: document.first, position });
            }
            self.wanted.push(self.queries.len() - 1);
            document.position = end;
        }
        if end < given {
            decoder.run(&self.queries)?;
            self.phase = Phase::Prefix(end);
            return Ok(Outcome::Working);
        }
        self.phase = Phase::Tokens;
        self.advance(decoder)
    }

    /// The newest token of every live sequence becomes a query whose logits are wanted.
    fn collect_queries(&mut self) {
        self.queries.clear();
        self.wanted.clear();
        for document in self.documents.iter_mut().filter(|document| !document.is_done()) {
            let mut sequence = document.first;
            document.search.each_token(|token| {
                self.wanted.push(self.queries.len());
                self.queries.push(Query { token, sequence, position: document.position });
                sequence += 1;
            });
            document.position += 1;
        }
    }

    /// Runs the queries and adds a token wherever logits are wanted.
    fn advance(&mut self, decoder: &mut Decoder<'_>) -> Result<Outcome> {
        self.passes += 1;
        if self.wanted.len() == 1 && (self.lookup.is_some() || self.plan.needs_only_best()) {
            self.step_greedily(decoder)?;
        } else {
            self.step_together(decoder)?;
        }
        Ok(if self.documents.iter().all(LiveDocument::is_done) { Outcome::Done } else { Outcome::Tokens })
    }

    fn step_together(&mut self, decoder: &mut Decoder<'_>) -> Result<()> {
        decoder.run(&self.queries)?;
        decoder.head(&self.wanted);
        let kernels = decoder.model.kernels;
        let mut row = 0;
        for document in self.documents.iter_mut().filter(|document| !document.is_done()) {
            let rows = document.search.rows();
            let logits = decoder.logits(row..row + rows);
            row += rows;
            let parents = document.search.advance(kernels, &self.plan, logits);
            let identity = parents.iter().enumerate().all(|(row, &parent)| row == parent);
            if !identity {
                decoder.reorder(document.first, parents, document.position);
            }
        }
        Ok(())
    }

    /// Extends the only live sequence by a token, and by those proposals after it that are right.
    fn step_greedily(&mut self, decoder: &mut Decoder<'_>) -> Result<()> {
        let plan = &self.plan;
        let Some(document) = self.documents.iter_mut().find(|document| !document.is_done()) else { return Ok(()) };
        let Search::Single(search) = &mut document.search else { return Ok(()) };
        let first = self.wanted[0];
        if let Some(lookup) = &mut self.lookup {
            let room = plan.max_new - search.first().ids.len() - 1;
            for (i, &token) in lookup.propose(&search.first().ids, room).iter().enumerate() {
                self.wanted.push(self.queries.len());
                self.queries.push(Query { token, sequence: document.first, position: document.position + i });
            }
        }
        decoder.run(&self.queries)?;
        let kernels = decoder.model.kernels;
        let only_best = plan.needs_only_best();
        // For several rows at once the full product is no slower: it reads its weights once for all of them.
        if only_best {
            let token = decoder.best(first, search.except(plan));
            search.advance_by(plan, token);
        } else {
            decoder.head(&self.wanted);
            search.advance(kernels, plan, decoder.logits(0..1));
        }
        let proposed = self.queries[first + 1..].iter().map(|query| query.token);
        let mut right = 0;
        for (row, token) in (1..).zip(proposed) {
            if search.is_done() || search.first().ids.last() != Some(&token) {
                break;
            }
            if only_best && row == 1 {
                decoder.head(&self.wanted[1..]);
            }
            let row = if only_best { row - 1 } else { row };
            search.advance(kernels, plan, decoder.logits(row..row + 1));
            right += 1;
        }
        document.position += right;
        let proposed = self.wanted.len() - 1;
        if let (Some(lookup), 1..) = (&mut self.lookup, proposed) {
            lookup.learn(proposed, right, search.first().ids.len());
        }
        Ok(())
    }

    /// The results of every document, best first, at most `n_best` each.
    pub fn results(&self, session: &Session) -> Vec<Vec<Output>> {
        self.documents.iter().map(|document| self.best(session, document, self.plan.options.n_best)).collect()
    }

    /// The `count` best results of a document, best first.
    pub fn best(&self, session: &Session, document: &LiveDocument, count: usize) -> Vec<Output> {
        let output = |hypothesis: &Hypothesis| self.output(session, document, hypothesis);
        document.search.results().into_iter().take(count).map(output).collect()
    }

    fn output(&self, session: &Session, document: &LiveDocument, hypothesis: &Hypothesis) -> Output {
        let ended = hypothesis.ids.last().is_some_and(|&last| self.plan.ends(last));
        let finish = match document.cut {
            _ if ended => Finish::EndOfSequence,
            Some(cut) => cut,
            None if hypothesis.ids.len() < self.plan.max_new => Finish::Blocked,
            None => Finish::Length,
        };
        let mut text = String::new();
        if let Ok(tokenizer) = session.model.tokenizer() {
            let ids: Vec<u32> = self.plan.prefix.iter().chain(&hypothesis.ids).copied().collect();
            text = tokenizer.decode(&ids, true);
        }
        let mut output = Output {
            text,
            ids: hypothesis.ids.clone(),
            logprobs: hypothesis.logprobs.clone(),
            score: hypothesis.score,
            finish,
        };
        output.stop(&self.plan.options.stop);
        output
    }
}

impl LiveDocument {
    pub fn is_done(&self) -> bool {
        self.cut.is_some() || self.search.is_done()
    }
}

/// Where the first of the stop strings begins.
pub(super) fn find_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
}
