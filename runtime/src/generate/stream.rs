//! Text as it comes.

use std::borrow::BorrowMut;
use std::fmt;

use super::decoding::{Decoding, LiveDocument, Outcome, find_stop};
use super::search::Search;
use super::{Finish, GenerateOptions, Output, SourceText};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::tokenizer::TextStream;

/// How many bytes at the end of `text` could still become a stop string and are held back.
fn held_back(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        (1..stop.len().min(text.len() + 1)).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
    };
    stop.iter().filter_map(begins).max().unwrap_or(0)
}

/// How many sequences of a text's sentences are decoded side by side: enough that each costs little, and few enough
/// that the first sentence does not wait long for the others.
const SIDE_BY_SIDE: usize = 16;

/// A generation under way: an iterator of pieces of text.
///
/// Pieces come as their tokens do under greedy search and single draws; beam search (and several draws) gives
/// the whole text, or that of each sentence, at its end. A piece never ends inside a UTF-8 character.
///
/// `S` is how it holds its session: `&mut Session` where it lives on the stack beside it, [`Session`] where it must
/// live on its own (a browser asks for one piece per turn of its event loop).
pub struct Generation<S: BorrowMut<Session>> {
    session: S,
    source: SourceText,
    /// The sentences being decoded side by side.
    decoding: Decoding,
    /// The results of those before them.
    results: Vec<Vec<Output>>,
    /// Passes of the decoder over those before them.
    passes: usize,
    /// `None` where a sentence's text can only be known at its end.
    stream: Option<TextStream>,
    /// Text decoded; `..given` has been handed out.
    text: String,
    given: usize,
    /// The document of `decoding` whose text comes next in `text`.
    current: usize,
    /// Its new tokens whose text is there.
    seen: usize,
    done: bool,
    /// A stop string has ended the text.
    stopped: bool,
    failure: Option<Error>,
}

impl<S: BorrowMut<Session>> fmt::Debug for Generation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("text", &self.text).field("done", &self.done).finish_non_exhaustive()
    }
}

/// Prepares to decode as many sentences, from one on, as go side by side.
fn begin_group(session: &mut Session, source: &SourceText, from: usize, options: &GenerateOptions) -> Result<Decoding> {
    // The first sentence alone begins with a forced prefix.
    let together = if options.has_prefix() { 1 } else { (SIDE_BY_SIDE / options.sequences().max(1)).max(1) };
    let group: Vec<&[u32]> = source.sentences()[from..].iter().take(together).map(Vec::as_slice).collect();
    Decoding::begin(session, &group, options)
}

impl<S: BorrowMut<Session>> Generation<S> {
    pub(super) fn begin(mut session: S, source: SourceText, options: &GenerateOptions) -> Result<Generation<S>> {
        let model = session.borrow().model.clone();
        source.sentences().iter().try_for_each(|ids| model.check_source(ids))?;
        let decoding = begin_group(session.borrow_mut(), &source, 0, options)?;
        let streams = decoding.plan.sequences() == 1;
        let stream = if streams { model.tokenizer().ok().map(|tokenizer| tokenizer.stream(true)) } else { None };
        let mut generation = Generation {
            session,
            source,
            decoding,
            results: Vec::new(),
            passes: 0,
            stream,
            text: String::with_capacity(1024),
            given: 0,
            current: 0,
            seen: 0,
            done: false,
            stopped: false,
            failure: None,
        };
        generation.begin_sentence();
        Ok(generation)
    }

    /// Writes what stands before the text of the current document's tokens.
    fn begin_sentence(&mut self) {
        self.seen = 0;
        self.write_between(self.results.len() + self.current);
        if let Some(stream) = &mut self.stream {
            self.decoding.plan.prefix.iter().for_each(|&id| self.text.push_str(stream.push(id)));
            self.look_for_stop();
        }
    }

    /// Writes what stands before a sentence, or behind the last one.
    fn write_between(&mut self, sentence: usize) {
        if !self.stopped {
            self.text.push_str(self.source.before(sentence, &self.text));
            self.look_for_stop();
        }
    }

    /// Ends the text where a stop string begins.
    fn look_for_stop(&mut self) {
        let Some(end) = find_stop(&self.text, &self.decoding.plan.options.stop) else { return };
        self.text.truncate(end);
        self.stopped = true;
        if self.stream.is_some()
            && let Some(LiveDocument { search: Search::Single(search), .. }) =
                self.decoding.documents.get_mut(self.current)
        {
            search.stop_after(self.seen);
        }
    }

    /// The next piece; `None` at the end. Allocates nothing in the steady state.
    pub fn next_piece(&mut self) -> Option<&str> {
        loop {
            if let Some(piece) = self.take() {
                return Some(&self.text[piece]);
            }
            if self.done {
                return None;
            }
            self.advance();
        }
    }

    /// The text that is ready and has not been handed out, without generating more: for callers that go token by
    /// token with [`Generation::step`]. `None` where there is none yet (or any more).
    pub fn ready_piece(&mut self) -> Option<&str> {
        self.take().map(|piece| &self.text[piece])
    }

    fn take(&mut self) -> Option<std::ops::Range<usize>> {
        let held_back = if self.done { 0 } else { held_back(&self.text, &self.decoding.plan.options.stop) };
        let piece = self.given..self.text.len() - held_back;
        if piece.is_empty() {
            return None;
        }
        self.given = piece.end;
        Some(piece)
    }

    /// Generates one more token (or a few, see [`GenerateOptions::lookup`]) without asking for their text; false when
    /// there is none. For callers that want control between tokens and the results at the end.
    pub fn step(&mut self) -> bool {
        while !self.done && self.advance() == Outcome::Working {}
        !self.done
    }

    /// Does a piece of work of bounded size: some blocks of the encoder (for sources up to 512 tokens they take no
    /// longer than 512 tokens through one block, for longer ones it is one block), up to 32 tokens of a forced prefix,
    /// or what [`Generation::step`] does. False when there is nothing left to do.
    ///
    /// For callers that must do other things in between, such as a worker in a browser, which can only be stopped
    /// between pieces. [`GenerateOptions::cancel`] is looked at between the same pieces, whoever asks for them.
    pub fn work(&mut self) -> bool {
        if !self.done {
            self.advance();
        }
        !self.done
    }

    /// What ended the generation early, if something did: memory that ran out. Its results have [`Finish::Memory`].
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    fn advance(&mut self) -> Outcome {
        let progress = match self.decoding.work(self.session.borrow_mut()) {
            Ok(progress) => progress,
            Err(error) => {
                // The model has a decoder and all ids are checked, so it can only be memory.
                self.decoding.cut(Finish::Memory);
                self.failure = Some(error);
                Outcome::Done
            }
        };
        if progress == Outcome::Working {
            return progress;
        }
        self.take_up_text();
        // One of several draws may have met its stop string, and the others not.
        let stopped = self.stopped && self.stream.is_some();
        if progress == Outcome::Done || stopped {
            let cut = stopped || self.decoding.documents.iter().any(|document| document.cut.is_some());
            self.results.append(&mut self.decoding.results(self.session.borrow()));
            self.passes += std::mem::take(&mut self.decoding.passes);
            if cut {
                self.done = true;
            } else {
                self.go_on();
            }
        }
        progress
    }

    /// Goes on to the next sentences, or ends.
    fn go_on(&mut self) {
        let from = self.results.len();
        if from == self.source.sentences().len() {
            self.write_between(from);
            self.done = true;
            return;
        }
        let options = self.decoding.plan.options.without_prefix();
        match begin_group(self.session.borrow_mut(), &self.source, from, &options) {
            Ok(decoding) => {
                self.decoding = decoding;
                self.current = 0;
                self.begin_sentence();
            }
            Err(error) => {
                self.failure = Some(error);
                self.done = true;
            }
        }
    }

    /// Takes up the text that has become known, sentence by sentence in their order.
    fn take_up_text(&mut self) {
        while !self.stopped
            && let Some(document) = self.decoding.documents.get(self.current)
        {
            if let Some(stream) = &mut self.stream {
                if let Search::Single(search) = &document.search
                    && let Some(&id) = search.first().ids.get(self.seen)
                {
                    self.seen += 1;
                    self.text.push_str(stream.push(id));
                    self.look_for_stop();
                    continue;
                }
                if !document.is_done() {
                    return;
                }
                self.text.push_str(stream.finish());
            } else {
                if !document.is_done() {
                    return;
                }
                if let Some(best) = self.decoding.best(self.session.borrow(), document, 1).first() {
                    self.text.push_str(&best.text);
                    self.stopped = best.finish == Finish::Stop;
                }
            }
            if document.cut.is_some() {
                return;
            }
            self.current += 1;
            if self.current < self.decoding.documents.len() {
                self.begin_sentence();
            }
        }
    }

    /// Runs to the end and returns the results, best first.
    pub fn finish(self) -> Vec<Output> {
        self.finish_with_session().0
    }

    /// As [`Generation::finish`], and gives the session back.
    pub fn finish_with_session(mut self) -> (Vec<Output>, S) {
        while !self.done {
            self.advance();
        }
        (self.source.join(self.results, &self.decoding.plan.options.stop), self.session)
    }

    /// Passes of the decoder so far: as many as tokens, or fewer where tokens were proposed or sentences go side by
    /// side.
    pub fn passes(&self) -> usize {
        self.passes + self.decoding.passes
    }

    /// Ends it where it is and gives the session back.
    pub fn into_session(self) -> S {
        self.session
    }
}

impl<S: BorrowMut<Session>> Iterator for Generation<S> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.next_piece().map(str::to_owned)
    }
}
