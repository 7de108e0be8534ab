//! Text as it comes.

use std::borrow::BorrowMut;

use super::decoding::{Decoding, Progress, find_stop};
use super::search::Search;
use super::{Finish, GenerateOptions, Output};
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

/// A generation under way: an iterator of pieces of text.
///
/// Pieces come as their tokens do under greedy search and single draws; beam search (and several draws) gives
/// the whole text at the end. A piece never ends inside a UTF-8 character.
///
/// `S` is how it holds its session: `&mut Session` where it lives on the stack beside it, [`Session`] where it must
/// live on its own (a browser asks for one piece per turn of its event loop).
pub struct Generation<S: BorrowMut<Session>> {
    session: S,
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
    failure: Option<Error>,
}

impl<S: BorrowMut<Session>> Generation<S> {
    pub(super) fn begin(mut session: S, source: &[u32], options: &GenerateOptions) -> Result<Generation<S>> {
        let decoding = Decoding::begin(session.borrow_mut(), &[source], options)?;
        let streams = decoding.plan.sequences() == 1;
        let model = &session.borrow().model;
        let stream = if streams { model.tokenizer().ok().map(|tokenizer| tokenizer.stream(true)) } else { None };
        let mut generation = Generation {
            session,
            decoding,
            stream,
            text: String::with_capacity(1024),
            given: 0,
            seen: 0,
            done: false,
            stopped: false,
            failure: None,
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
        while !self.done && self.advance() == Progress::Working {}
        !self.done
    }

    /// Does a piece of work of bounded size: some blocks of the encoder (for sources up to 512 tokens they take no longer
    /// than 512 tokens through one block, for longer ones it is one block), up to 32 tokens of a forced prefix, or what
    /// [`Generation::step`] does. False when there is nothing left to do.
    ///
    /// For callers that must do other things in between, such as a worker in a browser, which hears that it is to stop
    /// only between pieces. [`GenerateOptions::cancel`] is looked at between the same pieces, whoever asks for them.
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

    fn advance(&mut self) -> Progress {
        let progress = match self.decoding.work(self.session.borrow_mut()) {
            Ok(progress) => progress,
            Err(error) => {
                // The model has a decoder and all ids are checked, so it can only be memory.
                self.decoding.cut(Finish::Memory);
                self.failure = Some(error);
                Progress::Done
            }
        };
        if progress == Progress::Working {
            return progress;
        }
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
        if progress == Progress::Done || self.stopped {
            self.done = true;
            if !self.stopped {
                self.finish_text();
            }
        }
        progress
    }

    /// What the stream still holds, or the best result's text where nothing was streamed.
    fn finish_text(&mut self) {
        match &mut self.stream {
            Some(stream) => self.text.push_str(stream.finish()),
            None => {
                let mut results = self.decoding.results(self.session.borrow());
                if let Some(best) = results.first_mut().and_then(|outputs| outputs.first_mut()) {
                    self.text = std::mem::take(&mut best.text);
                }
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
        (self.decoding.results(self.session.borrow()).pop().unwrap_or_default(), self.session)
    }

    /// Passes of the decoder so far: as many as tokens, or fewer where tokens were proposed.
    pub fn passes(&self) -> usize {
        self.decoding.passes
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
