//! Text as it comes.

use std::borrow::BorrowMut;
use std::fmt;

use super::decoding::{Decoding, Outcome};
use super::growing_text::GrowingText;
use super::{Finish, GenerateOptions, Output, SourceText};
use crate::error::{Error, Result};
use crate::session::Session;

/// How many sequences of a text's sentences are decoded side by side: enough that each costs little, and few enough
/// that the first sentence does not wait long for the others.
const SIDE_BY_SIDE: usize = 16;

/// A generation under way: an iterator of pieces of text.
///
/// Pieces come as their tokens do under greedy search and single draws; beam search (and several draws, and texts to
/// choose from) gives the whole text, or that of each sentence, at its end. A piece never ends inside a UTF-8
/// character.
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
    /// Bytes of a forced prefix, with which the first of them begin.
    prefix_len: usize,
    /// Passes of the decoder over those before them.
    passes: usize,
    text: GrowingText,
    done: bool,
    failure: Option<Error>,
}

impl<S: BorrowMut<Session>> fmt::Debug for Generation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("text", &self.text.as_str())
            .field("done", &self.done)
            .finish_non_exhaustive()
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
        let text = GrowingText::new(&model, &decoding.plan);
        let mut generation = Generation {
            session,
            source,
            prefix_len: decoding.plan.prefix_len,
            decoding,
            results: Vec::new(),
            passes: 0,
            text,
            done: false,
            failure: None,
        };
        generation.begin_sentence();
        Ok(generation)
    }

    /// Writes what stands before the text of the next sentence's tokens.
    fn begin_sentence(&mut self) {
        if let Some(document) = self.decoding.documents.get_mut(self.text.sentence() - self.results.len()) {
            self.text.begin_sentence(document, &self.source);
        }
    }

    /// The next piece; `None` at the end. Allocates nothing in the steady state.
    pub fn next_piece(&mut self) -> Option<&str> {
        while !self.text.has_piece(&self.decoding.plan.options.stop) {
            if self.done {
                return None;
            }
            self.advance();
        }
        self.ready_piece()
    }

    /// The text that is ready and has not been handed out, without generating more: for callers that go token by
    /// token with [`Generation::step`]. `None` where there is none yet (or any more).
    pub fn ready_piece(&mut self) -> Option<&str> {
        self.text.piece(&self.decoding.plan.options.stop)
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
        let stopped = self.text.is_over() && self.text.streams();
        if progress == Outcome::Done || stopped {
            let cut = stopped || self.decoding.documents.iter().any(|document| document.cut.is_some());
            self.results.append(&mut self.decoding.results(self.session.borrow()));
            self.passes += self.decoding.take_passes();
            if cut {
                self.end();
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
            self.text.end(&self.source, &self.decoding.plan.options.stop);
            self.end();
            return;
        }
        let options = self.decoding.plan.options.without_prefix();
        match begin_group(self.session.borrow_mut(), &self.source, from, &options) {
            Ok(decoding) => {
                self.decoding = decoding;
                if !self.text.is_over() {
                    self.begin_sentence();
                }
            }
            Err(error) => {
                self.failure = Some(error);
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.text.cut();
        self.done = true;
    }

    /// Takes up the text that has become known, sentence by sentence in their order.
    fn take_up_text(&mut self) {
        while !self.text.is_over()
            && let Some(document) = self.decoding.documents.get_mut(self.text.sentence() - self.results.len())
            && self.text.take_up(document, &self.source, &self.session.borrow().model)
        {}
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
        (self.source.join(self.results, &self.decoding.plan.options.stop, self.prefix_len), self.session)
    }

    /// Passes of the decoder so far: as many as tokens, or fewer where tokens were proposed or sentences go side by
    /// side.
    pub fn passes(&self) -> usize {
        self.passes + self.decoding.passes()
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
