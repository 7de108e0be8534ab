//! Any number of documents side by side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lookup::{self, Proposer};
use super::options::GenerateOptions;
use super::plan::Plan;
use super::search::{Hypothesis, Search};
use super::{Finish, Output, Token};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::layers::Query;
use crate::model::Model;
use crate::session::{Encoding, FORCED_ROWS, Session};

/// A document on its way, and what it was asked for.
pub(super) struct LiveDocument {
    pub plan: Arc<Plan>,
    pub search: Search,
    /// First of its sequences in the decoder.
    pub first: usize,
    /// Tokens in its cache: start, prefix and all but the newest generated one.
    position: usize,
    /// Whether the pass under way gives it a token.
    wants: bool,
    /// Why it ended before its search did.
    pub cut: Option<Finish>,
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

/// A pass of the decoder: rows of any documents, which do not influence each other, so that a result does not depend on
/// what ran beside it.
pub(super) struct Pass {
    queries: Vec<Query>,
    wanted: Vec<usize>,
    /// So far.
    pub count: usize,
}

/// Documents being decoded in lock step: those that were there in the beginning.
pub(super) struct Decoding {
    /// That of each document.
    pub plan: Arc<Plan>,
    pub documents: Vec<LiveDocument>,
    /// The sources on their way into the decoder's caches.
    encoding: Option<Encoding>,
    pass: Pass,
    lookup: Option<Proposer>,
}

impl Decoding {
    /// Checks the request and prepares the caches; the work begins with the first [`Decoding::work`].
    pub fn begin(session: &mut Session, sources: &[&[u32]], options: &GenerateOptions) -> Result<Decoding> {
        let plan = Arc::new(Plan::new(&session.model, options)?);
        let sequences = plan.sequences();
        let encoding = session.begin_sources(sources, sequences, 1 + plan.prefix.len() + plan.max_new)?;
        let documents = sources.iter().enumerate();
        let documents = documents.map(|(index, source)| LiveDocument::new(&plan, source, index * sequences)).collect();
        let lookup = match sources {
            [source] if plan.looks_up(&session.model) => Some(Proposer::new(source)),
            _ => None,
        };
        Ok(Decoding {
            pass: Pass::for_sequences(sources.len() * sequences),
            encoding: Some(encoding),
            lookup,
            documents,
            plan,
        })
    }

    /// Passes of the decoder so far.
    pub fn passes(&self) -> usize {
        self.pass.count
    }

    /// The same, and counts from 0 again.
    pub fn take_passes(&mut self) -> usize {
        std::mem::take(&mut self.pass.count)
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
        if let Some(encoding) = &mut self.encoding {
            if !session.encode_more(encoding)? {
                self.encoding = None;
            }
            return Ok(Outcome::Working);
        }
        let given = (FORCED_ROWS / self.documents.len()).max(1);
        self.pass.clear();
        self.documents.iter_mut().for_each(|document| self.pass.add(document, given));
        let tokens = self.pass.run(&mut session.decoder()?, &mut self.documents, &mut self.lookup)?;
        Ok(match tokens {
            _ if self.documents.iter().all(LiveDocument::is_done) => Outcome::Done,
            true => Outcome::Tokens,
            false => Outcome::Working,
        })
    }

    /// Ends every document that is not done.
    pub fn cut(&mut self, why: Finish) {
        self.documents.iter_mut().for_each(|document| document.cut(why));
    }

    /// The results of every document, best first, at most `n_best` each.
    pub fn results(&self, session: &Session) -> Vec<Vec<Output>> {
        self.documents.iter().map(|document| document.results(&session.model)).collect()
    }
}

impl Pass {
    /// With room for as many sequences.
    pub fn for_sequences(sequences: usize) -> Pass {
        Pass {
            queries: Vec::with_capacity(sequences.max(FORCED_ROWS) + lookup::MANY),
            wanted: Vec::with_capacity(sequences + lookup::MANY),
            count: 0,
        }
    }

    pub fn clear(&mut self) {
        self.queries.clear();
        self.wanted.clear();
    }

    /// Adds the next tokens of a document, if it is not done: of the start token and the forced prefix at most `given`
    /// at once, then the newest token of every live sequence. Logits are wanted behind the last one.
    pub fn add(&mut self, document: &mut LiveDocument, given: usize) {
        document.wants = false;
        if document.is_done() {
            return;
        }
        let LiveDocument { plan, first, position, .. } = document;
        let all = 1 + plan.prefix.len();
        if *position < all {
            let end = all.min(*position + given);
            let start = std::iter::once(plan.start).chain(plan.prefix.iter().copied());
            for (position, token) in start.enumerate().take(end).skip(*position) {
                self.queries.push(Query { token, sequence: *first, position });
            }
            *position = end;
            document.wants = end == all;
            if document.wants {
                self.wanted.push(self.queries.len() - 1);
            }
            return;
        }
        let (mut sequence, position) = (*first, *position);
        document.search.each_token(|token| {
            self.wanted.push(self.queries.len());
            self.queries.push(Query { token, sequence, position });
            sequence += 1;
        });
        document.position += 1;
        document.wants = true;
    }

    /// Runs what was added of these documents, and adds a token wherever logits are wanted. Whether they were anywhere.
    pub fn run<'d>(
        &mut self,
        decoder: &mut Decoder<'_>,
        documents: impl IntoIterator<Item = &'d mut LiveDocument>,
        lookup: &mut Option<Proposer>,
    ) -> Result<bool> {
        let mut documents = documents.into_iter().filter(|document| document.wants);
        if self.wanted.is_empty() {
            decoder.run(&self.queries)?;
            return Ok(false);
        }
        self.count += 1;
        if self.wanted.len() == 1
            && let Some(document) = documents.next()
        {
            if lookup.is_some() || document.plan.needs_only_best() {
                self.step_greedily(decoder, document, lookup)?;
            } else {
                self.step_together(decoder, std::iter::once(document))?;
            }
        } else {
            self.step_together(decoder, documents)?;
        }
        Ok(true)
    }

    fn step_together<'d>(
        &mut self,
        decoder: &mut Decoder<'_>,
        documents: impl Iterator<Item = &'d mut LiveDocument>,
    ) -> Result<()> {
        decoder.run(&self.queries)?;
        decoder.head(&self.wanted);
        let kernels = decoder.model.kernels;
        let mut row = 0;
        for document in documents {
            let rows = document.search.rows();
            let logits = decoder.logits(row..row + rows);
            row += rows;
            let parents = document.search.advance(kernels, &document.plan, logits);
            let identity = parents.iter().enumerate().all(|(row, &parent)| row == parent);
            if !identity {
                decoder.reorder(document.first, parents, document.position);
            }
        }
        Ok(())
    }

    /// Extends the only live sequence by a token, and by those proposals after it that are right.
    fn step_greedily(
        &mut self,
        decoder: &mut Decoder<'_>,
        document: &mut LiveDocument,
        lookup: &mut Option<Proposer>,
    ) -> Result<()> {
        let plan = &document.plan;
        let Search::Single(search) = &mut document.search else { return Ok(()) };
        let first = self.wanted[0];
        let before = self.queries.len();
        if let Some(lookup) = lookup {
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
        let proposed = self.queries[before..].iter().map(|query| query.token);
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
        if let (Some(lookup), 1..) = (lookup, proposed) {
            lookup.learn(proposed, right, search.first().ids.len());
        }
        Ok(())
    }
}

impl LiveDocument {
    /// A source whose first sequence in the decoder is `first`.
    pub fn new(plan: &Arc<Plan>, source: &[u32], first: usize) -> LiveDocument {
        let search = Search::new(plan, source);
        LiveDocument { plan: plan.clone(), search, first, position: 0, wants: false, cut: None }
    }

    pub fn is_done(&self) -> bool {
        self.cut.is_some() || self.search.is_done()
    }

    /// Ends it, if it is not done.
    pub fn cut(&mut self, why: Finish) {
        if !self.is_done() {
            self.cut = Some(why);
        }
    }

    /// Ends a single sequence behind so many tokens, of which the last completed a stop string.
    pub fn stop_after(&mut self, tokens: usize) {
        if let Search::Single(search) = &mut self.search {
            search.stop_after(tokens);
        }
    }

    /// The new tokens of a single sequence so far.
    pub fn ids(&self) -> &[u32] {
        match &self.search {
            Search::Single(search) => &search.first().ids,
            Search::Beam(_) => &[],
        }
    }

    /// The new tokens of a single sequence from one on.
    pub fn tokens_from(&self, from: usize) -> Vec<Token> {
        let Search::Single(search) = &self.search else { return Vec::new() };
        let Hypothesis { ids, logprobs, alternatives, .. } = search.first();
        Token::all(ids, logprobs, alternatives, from)
    }

    /// Its results, best first, as many as were asked for.
    pub fn results(&self, model: &Model) -> Vec<Output> {
        self.best(model, self.plan.options.n_best)
    }

    /// The `count` best results, best first.
    pub fn best(&self, model: &Model, count: usize) -> Vec<Output> {
        self.search.results().into_iter().take(count).map(|hypothesis| self.output(model, hypothesis)).collect()
    }

    fn output(&self, model: &Model, hypothesis: &Hypothesis) -> Output {
        let ended = hypothesis.ids.last().is_some_and(|&last| self.plan.ends(last));
        let finish = match self.cut {
            _ if ended => Finish::EndOfSequence,
            Some(cut) => cut,
            None if hypothesis.ids.len() < self.plan.max_new => Finish::Blocked,
            None => Finish::Length,
        };
        let chosen = self.plan.choices.as_ref().and_then(|choices| choices.text_of(&hypothesis.ids));
        let text = match (chosen, model.tokenizer()) {
            (Some(text), _) => text.to_owned(),
            (None, Ok(tokenizer)) => {
                let ids: Vec<u32> = self.plan.prefix.iter().chain(&hypothesis.ids).copied().collect();
                tokenizer.decode(&ids, true)
            }
            (None, Err(_)) => String::new(),
        };
        let mut output = Output {
            text,
            ids: hypothesis.ids.clone(),
            logprobs: hypothesis.logprobs.clone(),
            alternatives: hypothesis.alternatives.clone(),
            score: hypothesis.score,
            finish,
        };
        output.stop(&self.plan.options.stop, self.plan.prefix_len);
        output
    }
}
