//! The text of a request as it comes, sentence by sentence in their order, up to a stop string.

use super::decoding::LiveDocument;
use super::plan::Plan;
use super::{Finish, SourceText};
use crate::model::Model;
use crate::tokenizer::TextStream;

pub(super) struct GrowingText {
    /// `None` where a sentence's text can only be known at its end.
    stream: Option<TextStream>,
    /// `..given` has been handed out.
    text: String,
    given: usize,
    /// Where in it stop strings are looked for: see [`SourceText::behind_prefix`].
    behind_prefix: usize,
    /// The sentence whose text comes next.
    sentence: usize,
    /// Whether what stands before that sentence is there, and how many of its new tokens are.
    begun: bool,
    seen: usize,
    /// Whether nothing comes any more: all is there, a stop string has ended it, or it was cut short.
    over: bool,
}

impl GrowingText {
    pub fn new(model: &Model, plan: &Plan) -> GrowingText {
        // A choice is given as it was written, which its tokens may not be.
        let streams = plan.sequences() == 1 && plan.choices.is_none();
        let stream = if streams { model.tokenizer().ok().map(|tokenizer| tokenizer.stream(true)) } else { None };
        let text = String::with_capacity(1024);
        GrowingText { stream, text, given: 0, behind_prefix: 0, sentence: 0, begun: false, seen: 0, over: false }
    }

    /// Whether it comes token by token.
    pub fn streams(&self) -> bool {
        self.stream.is_some()
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The sentence whose text comes next.
    pub fn sentence(&self) -> usize {
        self.sentence
    }

    /// How many of its tokens have been taken up.
    pub fn seen(&self) -> usize {
        if self.begun { self.seen } else { 0 }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Writes what stands before the next sentence, and its forced prefix, if they are not there yet.
    pub fn begin_sentence(&mut self, document: &mut LiveDocument, source: &SourceText) {
        if self.begun || self.over {
            return;
        }
        (self.begun, self.seen) = (true, 0);
        let plan = document.plan.clone();
        self.text.push_str(source.before(self.sentence, &self.text));
        if self.sentence == 0 {
            self.behind_prefix = source.behind_prefix(plan.prefix_len);
        }
        if let Some(stream) = &mut self.stream {
            plan.prefix.iter().for_each(|&id| self.text.push_str(stream.push(id)));
        }
        self.look_for_stop(&plan.options.stop);
        if self.over && self.stream.is_some() {
            document.stop_after(0);
        }
    }

    /// Takes up what has become known of the next sentence's text; a stop string in it ends the document. Whether the
    /// sentence is whole, and the one behind it can be taken up.
    pub fn take_up(&mut self, document: &mut LiveDocument, source: &SourceText, model: &Model) -> bool {
        self.begin_sentence(document, source);
        if self.stream.is_some() {
            while !self.over
                && let (Some(&id), Some(stream)) = (document.ids().get(self.seen), &mut self.stream)
            {
                self.seen += 1;
                self.text.push_str(stream.push(id));
                self.look_for_stop(&document.plan.options.stop);
                if self.over {
                    document.stop_after(self.seen);
                }
            }
        }
        if self.over || !document.is_done() {
            return false;
        }
        if let Some(stream) = &mut self.stream {
            self.text.push_str(stream.finish());
        } else if let Some(best) = document.best(model, 1).first() {
            self.text.push_str(&best.text);
            self.over = best.finish == Finish::Stop;
        }
        self.over |= document.cut.is_some();
        if !self.over {
            (self.sentence, self.begun) = (self.sentence + 1, false);
        }
        !self.over
    }

    /// Writes what stands behind the last sentence.
    pub fn end(&mut self, source: &SourceText, stop: &[String]) {
        if !self.over {
            self.text.push_str(source.before(self.sentence, &self.text));
            self.look_for_stop(stop);
            self.over = true;
        }
    }

    /// Ends it where it is.
    pub fn cut(&mut self) {
        self.over = true;
    }

    /// Ends the text where a stop string begins.
    fn look_for_stop(&mut self, stop: &[String]) {
        if let Some(end) = find_stop(&self.text, stop, self.behind_prefix) {
            self.text.truncate(end);
            self.over = true;
        }
    }

    /// What can no longer change and has not been handed out.
    pub fn piece(&mut self, stop: &[String]) -> Option<&str> {
        let piece = self.given..self.certain(stop);
        self.given = piece.end;
        (!piece.is_empty()).then(|| &self.text[piece])
    }

    /// Whether there is such.
    pub fn has_piece(&self, stop: &[String]) -> bool {
        self.given < self.certain(stop)
    }

    /// How many bytes can no longer change.
    fn certain(&self, stop: &[String]) -> usize {
        let searched = self.text.get(self.behind_prefix..).unwrap_or_default();
        let held_back = if self.over { 0 } else { held_back(searched, stop) };
        self.text.len() - held_back
    }
}

/// Where the first of the stop strings begins, in what stands from a byte on.
pub(super) fn find_stop(text: &str, stop: &[String], from: usize) -> Option<usize> {
    let text = text.get(from..)?;
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min().map(|at| from + at)
}

/// How many bytes at the end of `text` could still become a stop string and are held back.
fn held_back(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        (1..stop.len().min(text.len() + 1)).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
    };
    stop.iter().filter_map(begins).max().unwrap_or(0)
}
