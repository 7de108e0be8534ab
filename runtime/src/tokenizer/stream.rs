//! Ids to text, one id at a time.

use std::fmt;
use std::sync::Arc;

use super::Inner;
use super::unigram::Reading;

/// Turns ids that come one by one into pieces of text whose concatenation is
/// [`Tokenizer::decode`](super::Tokenizer::decode) of all ids. A piece never ends inside a UTF-8 character.
pub struct TextStream {
    inner: Arc<Inner>,
    skip_special: bool,
    state: State,
    /// The text of the last push; reused, so that nothing is allocated per token once it has grown to the longest.
    text: String,
}

impl fmt::Debug for TextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextStream").field("text", &self.text).finish_non_exhaustive()
    }
}

impl TextStream {
    pub(super) fn new(inner: Arc<Inner>, skip_special: bool) -> TextStream {
        TextStream { inner, skip_special, state: State::default(), text: String::with_capacity(256) }
    }

    /// The text that `id` adds; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        self.state.push(&self.inner, self.skip_special, id, &mut self.text);
        &self.text
    }

    /// What is left after the last id: bytes of an incomplete character. The stream then starts over.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.state.finish(&self.inner, self.skip_special, &mut self.text);
        self.state = State::default();
        &self.text
    }
}

/// What decoding must remember between two ids.
#[derive(Default)]
pub(super) struct State {
    /// Whether the last token keeps the next one's space: not at the start, and not at the end of a line.
    keeps_space: bool,
    /// The bytes of a character that is not complete.
    pending: [u8; 4],
    pending_len: usize,
    #[cfg(feature = "tokenizers")]
    window: super::foreign::Window,
}

impl State {
    /// Appends what `id` adds to `out`.
    pub(super) fn push(&mut self, inner: &Inner, skip_special: bool, id: u32, out: &mut String) {
        match inner {
            Inner::Unigram(unigram) => {
                let known = unigram.reading(id).map(|reading| (id, reading));
                let (id, reading) = known.unwrap_or((unigram.unk_id, Reading::Special));
                match reading {
                    Reading::Special if skip_special => return,
                    Reading::Byte(byte) => self.push_byte(byte, Invalid::Replace, out),
                    Reading::Text | Reading::LineEnd | Reading::Special => {
                        self.flush(Invalid::Replace, out);
                        unigram.write(id, !self.keeps_space, out);
                    }
                }
                self.keeps_space = reading != Reading::LineEnd;
            }
            Inner::Bytes(bytes) => {
                if let Some(name) = bytes.special(id) {
                    if !skip_special {
                        self.flush(Invalid::Drop, out);
                        out.push_str(name);
                    }
                } else if let Some(byte) = bytes.byte(id) {
                    self.push_byte(byte, Invalid::Drop, out);
                }
            }
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => self.window.push(foreign, skip_special, id, out),
        }
    }

    /// Appends what is left of an incomplete character to `out`.
    #[cfg_attr(not(feature = "tokenizers"), allow(unused_variables))]
    pub(super) fn finish(&mut self, inner: &Inner, skip_special: bool, out: &mut String) {
        let invalid = match inner {
            Inner::Unigram(_) => Invalid::Replace,
            Inner::Bytes(_) => Invalid::Drop,
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => return self.window.finish(foreign, skip_special, out),
        };
        self.flush(invalid, out);
    }

    fn push_byte(&mut self, byte: u8, invalid: Invalid, out: &mut String) {
        // At most three bytes are pending: four are a character or not the start of one.
        self.pending[self.pending_len] = byte;
        self.pending_len += 1;
        while self.pending_len > 0 {
            match std::str::from_utf8(&self.pending[..self.pending_len]) {
                Ok(text) => {
                    out.push_str(text);
                    self.pending_len = 0;
                }
                // The bytes that cannot start a character come first: anything valid before them was written.
                Err(error) => match error.error_len() {
                    Some(len) => {
                        invalid.write(len, out);
                        self.pending.copy_within(len..self.pending_len, 0);
                        self.pending_len -= len;
                    }
                    None => break,
                },
            }
        }
    }

    fn flush(&mut self, invalid: Invalid, out: &mut String) {
        invalid.write(self.pending_len, out);
        self.pending_len = 0;
    }
}

/// What becomes of bytes that are not UTF-8.
#[derive(Clone, Copy)]
enum Invalid {
    /// Each is a U+FFFD, as in SentencePiece.
    Replace,
    /// They vanish, as in ByT5.
    Drop,
}

impl Invalid {
    fn write(self, count: usize, out: &mut String) {
        if let Invalid::Replace = self {
            out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
        }
    }
}
