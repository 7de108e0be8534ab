//! Requests that join a running batch and leave it when they are done.

use std::borrow::BorrowMut;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::decoding::{LiveDocument, Pass};
use super::growing_text::GrowingText;
use super::options::MAX_NEW_TOKENS;
use super::plan::Plan;
use super::{Finish, GenerateOptions, Output, SourceText, Token};
use crate::error::{Error, Result};
use crate::session::{Encoding, FORCED_ROWS, Session};

/// Sequences side by side at most: each has caches and logits of its own.
const MOST_SEQUENCES: usize = 4096;

/// Requests decoded side by side, each with options of its own: one may join at any time, takes part in the passes of
/// the others, and leaves when it is done, so that a service or a file of texts keeps its rows busy. What a request
/// gives does not depend on what runs beside it, to the last bit: it is what [`Session::generate`] gives.
///
/// `S` is how it holds its session, as in [`Generation`](super::Generation).
///
/// ```
/// use t5_runtime::{Batch, BatchEvent, GenerateOptions, Model};
///
/// let model = Model::pocket()?;
/// let mut session = model.session();
/// let mut batch = Batch::new(&mut session, 8)?;
/// let first = batch.add("translate English to German: Good morning!", &GenerateOptions::default())?;
/// batch.step();
/// let second = batch.add("translate English to German: Good evening!", &GenerateOptions::default().beams(4))?;
/// let mut texts = std::collections::BTreeMap::new();
/// while !batch.is_empty() {
///     for event in batch.step() {
///         if let BatchEvent::Done { id, outputs } = event {
///             texts.insert(id, outputs[0].text.clone());
///         }
///     }
/// }
/// assert_eq!(texts[&first], "Guten Morgen!");
/// assert_eq!(texts[&second], "Guten Abend!");
/// # Ok::<(), t5_runtime::Error>(())
/// ```
pub struct Batch<S: BorrowMut<Session> = Session> {
    session: S,
    /// Which sequences of the decoder are in use.
    used: Vec<bool>,
    /// Documents that have no sequences yet, in the order in which they came.
    waiting: VecDeque<Member>,
    /// Documents on their way into the caches: the last of those that run.
    encoding: Option<Encoding>,
    running: Vec<Member>,
    requests: BTreeMap<u64, Request>,
    next: u64,
    pass: Pass,
}

/// What has become of a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent {
    /// The next piece of its text, as a [`Generation`](super::Generation) gives it.
    Piece {
        /// What [`Batch::add`] gave.
        id: u64,
        /// Never ends inside a character.
        text: String,
        /// The tokens that have come with it, and those since the piece before it that added no text. What ends a text
        /// (`</s>`) has no piece any more: it is among the ids of the result.
        tokens: Vec<Token>,
    },
    /// It is done, and no longer part of the batch.
    Done {
        /// What [`Batch::add`] gave.
        id: u64,
        /// Best first.
        outputs: Vec<Output>,
    },
    /// It cannot be done, and is no longer part of the batch: there was no memory for it.
    Failed {
        /// What [`Batch::add`] gave.
        id: u64,
        /// Why.
        error: Error,
    },
}

/// A text, or one of its sentences, that waits or is being decoded.
struct Member {
    request: u64,
    sentence: usize,
    ids: Vec<u32>,
    document: LiveDocument,
}

struct Request {
    source: SourceText,
    text: GrowingText,
    /// Tokens that have not been handed out.
    tokens: Vec<Token>,
    /// Those of its sentences that are done.
    done: Vec<Option<LiveDocument>>,
    stop: Vec<String>,
    /// Bytes of a forced prefix, with which the results of the first sentence begin.
    prefix_len: usize,
}

impl<S: BorrowMut<Session>> fmt::Debug for Batch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

impl<S: BorrowMut<Session>> Batch<S> {
    /// A batch of at most `sequences` sequences side by side, 1 to 4,096 (a request takes as many as it has beams, or
    /// draws, for each of its sentences); what comes above that waits. There are caches for all of them, each with room
    /// for what the longest needs.
    ///
    /// # Errors
    /// If the model does not generate, or there is no memory for so many.
    pub fn new(mut session: S, sequences: usize) -> Result<Batch<S>> {
        if !(1..=MOST_SEQUENCES).contains(&sequences) {
            let what = format!("expected 1 to {MOST_SEQUENCES} sequences side by side, found {sequences}");
            return Err(Error::Option { option: "batch", what });
        }
        session.borrow_mut().begin_open(sequences, 1 + MAX_NEW_TOKENS)?;
        Ok(Batch {
            session,
            used: vec![false; sequences],
            waiting: VecDeque::new(),
            encoding: None,
            running: Vec::new(),
            requests: BTreeMap::new(),
            next: 0,
            pass: Pass::for_sequences(sequences),
        })
    }

    /// Adds a request for a text. Its number is above those of all before it.
    ///
    /// # Errors
    /// For wrong options and texts, as [`Session::generate`]; the batch is as before.
    pub fn add(&mut self, text: &str, options: &GenerateOptions) -> Result<u64> {
        let source = options.source(&self.session.borrow().model, text)?;
        self.add_source(source, options)
    }

    /// As [`Batch::add`], from a text as [`GenerateOptions::source`] reads it.
    ///
    /// # Errors
    /// As there.
    pub fn add_source(&mut self, source: SourceText, options: &GenerateOptions) -> Result<u64> {
        let model = self.session.borrow().model.clone();
        let count = source.sentences().len();
        source.sentences().iter().try_for_each(|ids| model.check_source(ids))?;
        let plan = Arc::new(Plan::new(&model, options)?);
        if plan.sequences() > self.used.len() {
            let most = self.used.len();
            let what = format!("expected at most {most}, the sequences of the batch, found {}", plan.sequences());
            return Err(Error::Option { option: if options.samples() { "n_best" } else { "beams" }, what });
        }
        // A forced prefix is the beginning of the first sentence.
        let rest = match options.has_prefix() && count > 1 {
            true => Arc::new(Plan::new(&model, &options.without_prefix())?),
            false => plan.clone(),
        };
        let id = self.next;
        self.next += 1;
        let text = GrowingText::new(&model, &plan);
        for (sentence, ids) in source.sentences().iter().enumerate() {
            let plan = if sentence == 0 { &plan } else { &rest };
            let document = LiveDocument::new(plan, ids, 0);
            self.waiting.push_back(Member { request: id, sentence, ids: ids.clone(), document });
        }
        let done = (0..count).map(|_| None).collect();
        let (stop, prefix_len) = (options.stop.clone(), plan.prefix_len);
        self.requests.insert(id, Request { source, text, tokens: Vec::new(), done, stop, prefix_len });
        Ok(id)
    }

    /// Ends a request where it is: the next step tells what there is of it, with [`Finish::Cancelled`] (a later one if
    /// it is in the encoder together with others). Nothing happens if it is not part of the batch.
    /// [`GenerateOptions::cancel`] does the same from another thread.
    pub fn cancel(&mut self, id: u64) {
        let members = self.running.iter_mut().chain(&mut self.waiting);
        members.filter(|member| member.request == id).for_each(|member| member.document.cut(Finish::Cancelled));
    }

    /// Requests that are not done.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a request that comes now would wait, for one of those before it at least.
    pub fn is_full(&self) -> bool {
        !self.waiting.is_empty() || self.used.iter().all(|&used| used)
    }

    /// Passes of the decoder so far that gave tokens, each of them a token to every sequence that had one to come.
    pub fn passes(&self) -> usize {
        self.pass.count
    }

    /// Does a piece of work of bounded size: a piece of what the encoder has to do, and one pass of the decoder, in
    /// which every sequence goes on by a token. What that has led to, if anything.
    pub fn step(&mut self) -> Vec<BatchEvent> {
        let mut events = Vec::new();
        self.look_for_cancels();
        self.settle(&mut events);
        self.admit(&mut events);
        self.encode(&mut events);
        self.decode();
        self.settle(&mut events);
        events
    }

    /// Gives the session back. Requests that are not done are forgotten.
    pub fn into_session(self) -> S {
        self.session
    }

    fn look_for_cancels(&mut self) {
        for member in self.running.iter_mut().chain(&mut self.waiting) {
            let cancel = member.document.plan.options.cancel.as_ref();
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                member.document.cut(Finish::Cancelled);
            }
        }
    }

    /// Documents in the encoder, the last of those that run.
    fn joining(&self) -> usize {
        self.encoding.as_ref().map_or(0, Encoding::sources)
    }

    /// Gives sequences to those that wait, in their order, unless others are in the encoder.
    fn admit(&mut self, events: &mut Vec<BatchEvent>) {
        if self.encoding.is_some() {
            return;
        }
        let before = self.running.len();
        let held = self.running.iter().map(|member| member.ids.len()).sum();
        let mut lengths = Vec::new();
        while let Some(member) = self.waiting.front() {
            let sequences = member.document.plan.sequences();
            let Some(first) = self.used.windows(sequences).position(|used| used.iter().all(|used| !used)) else {
                break;
            };
            lengths.push(member.ids.len());
            let granted = self.session.borrow_mut().ask_joining(held, &lengths, self.used.len());
            // Where others run, there will be more memory when they are done.
            if granted.is_err() && !self.running.is_empty() {
                break;
            }
            let Some(mut member) = self.waiting.pop_front() else { break };
            self.used[first..first + sequences].fill(true);
            member.document.first = first;
            self.running.push(member);
            if let Err(error) = granted {
                return self.fail(before, error, events);
            }
        }
        let joining = &self.running[before..];
        if joining.is_empty() {
            return;
        }
        let source = |member: &Member| (member.document.first, member.document.plan.sequences());
        let sources = joining.iter().map(|member| (member.ids.as_slice(), source(member)));
        let sources: Vec<_> = sources.map(|(ids, (first, sequences))| (ids, first, sequences)).collect();
        match self.session.borrow_mut().begin_joining(&sources) {
            Ok(encoding) => self.encoding = Some(encoding),
            Err(error) => self.fail(before, error, events),
        }
    }

    /// Does a piece of what the encoder has to do.
    fn encode(&mut self, events: &mut Vec<BatchEvent>) {
        let Some(encoding) = &mut self.encoding else { return };
        match self.session.borrow_mut().encode_more(encoding) {
            Ok(true) => {}
            Ok(false) => self.encoding = None,
            Err(error) => {
                let first = self.running.len() - self.joining();
                self.encoding = None;
                self.fail(first, error, events);
            }
        }
    }

    /// One pass of those that are in the decoder's caches.
    fn decode(&mut self) {
        let ready = self.running.len() - self.joining();
        let ready = &mut self.running[..ready];
        if ready.iter().all(|member| member.document.is_done()) {
            return;
        }
        let given = (FORCED_ROWS / ready.len()).max(1);
        self.pass.clear();
        ready.iter_mut().for_each(|member| self.pass.add(&mut member.document, given));
        let documents = ready.iter_mut().map(|member| &mut member.document);
        let run = self.session.borrow_mut().decoder().and_then(|mut d| self.pass.run(&mut d, documents, &mut None));
        if run.is_err() {
            // The caches cannot grow: what is there of each is its result.
            ready.iter_mut().for_each(|member| member.document.cut(Finish::Memory));
        }
    }

    /// Takes up the new tokens' text, which may end requests, and lets go of what is done.
    fn settle(&mut self, events: &mut Vec<BatchEvent>) {
        // Only those who wait can be done without having run: they were cancelled.
        let cancelled = self.waiting.iter().filter(|member| member.document.is_done());
        let mut ids: Vec<u64> = self.running.iter().chain(cancelled).map(|member| member.request).collect();
        ids.sort_unstable();
        ids.dedup();
        self.take_leave();
        ids.iter().for_each(|&id| self.take_up_text(id, events));
        self.take_leave();
        for id in ids {
            if self.requests.get(&id).is_some_and(|request| request.done.iter().all(Option::is_some))
                && let Some(Request { source, done, stop, prefix_len, .. }) = self.requests.remove(&id)
            {
                let model = &self.session.borrow().model;
                let results = done.iter().flatten().map(|document| document.results(model)).collect();
                events.push(BatchEvent::Done { id, outputs: source.join(results, &stop, prefix_len) });
            }
        }
    }

    /// Takes up the text of a request, sentence by sentence in their order, and hands out what can no longer change.
    fn take_up_text(&mut self, id: u64, events: &mut Vec<BatchEvent>) {
        let Some(Request { source, text, tokens, done, stop, .. }) = self.requests.get_mut(&id) else { return };
        let model = &self.session.borrow().model;
        while let Some(document) = done.get_mut(text.sentence()) {
            let next = |member: &&mut Member| member.request == id && member.sentence == text.sentence();
            let running = self.running.iter_mut().find(next).map(|member| &mut member.document);
            let Some(document) = document.as_mut().or(running) else { break };
            let seen = (text.streams() && !text.is_over()).then(|| text.seen());
            let goes_on = text.take_up(document, source, model);
            // A stop string has ended the ids where it has ended the text.
            tokens.extend(seen.into_iter().flat_map(|seen| document.tokens_from(seen)));
            if !goes_on {
                break;
            }
        }
        if text.sentence() == done.len() {
            text.end(source, stop);
        } else if text.is_over() && text.streams() {
            // What stands behind a stop string is not wanted.
            let members = self.running.iter_mut().chain(&mut self.waiting);
            members.filter(|member| member.request == id).for_each(|member| member.document.cut(Finish::Stop));
        }
        if let Some(piece) = text.piece(stop) {
            events.push(BatchEvent::Piece { id, text: piece.to_owned(), tokens: std::mem::take(tokens) });
        }
    }

    /// Takes the documents that are done from the rows, and from those that wait. What the encoder is at work on stays
    /// until it is through, unless nobody wants any of it.
    fn take_leave(&mut self) {
        let first = self.running.len() - self.joining();
        if self.running[first..].iter().all(|member| member.document.is_done()) {
            self.encoding = None;
        }
        let settled = self.running.len() - self.joining();
        let done = |member: &mut Member| member.document.is_done();
        let left: Vec<Member> = self.running.extract_if(..settled, done).collect();
        for member in &left {
            let first = member.document.first;
            self.used[first..first + member.document.plan.sequences()].fill(false);
        }
        let mut waiting = Vec::new();
        while let Some(index) = self.waiting.iter().position(|member| member.document.is_done()) {
            waiting.extend(self.waiting.remove(index));
        }
        for member in left.into_iter().chain(waiting) {
            if let Some(request) = self.requests.get_mut(&member.request) {
                request.done[member.sentence] = Some(member.document);
            }
        }
    }

    /// Gives up the requests of all that run from `first` on.
    fn fail(&mut self, first: usize, error: Error, events: &mut Vec<BatchEvent>) {
        let mut failed: Vec<u64> = self.running[first..].iter().map(|member| member.request).collect();
        failed.dedup();
        let mut error = Some(error);
        for id in failed.into_iter().rev() {
            for member in self.running.iter().filter(|member| member.request == id) {
                let first = member.document.first;
                self.used[first..first + member.document.plan.sequences()].fill(false);
            }
            self.running.retain(|member| member.request != id);
            self.waiting.retain(|member| member.request != id);
            self.requests.remove(&id);
            let what = "a source that others were encoded with";
            let error = error.take().unwrap_or(Error::Memory { what, bytes: 0 });
            events.push(BatchEvent::Failed { id, error });
        }
    }
}
