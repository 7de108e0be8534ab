//! Text to ids and back.
//!
//! [`Vocabulary`] holds a tokenizer as arrays, whichever file it came from (`json`, `sentencepiece`, or GGUF keys);
//! [`Tokenizer`] is built from it and gives the same ids as the `tokenizers` crate does for the same file. A text goes
//! through `added` (tokens cut out), `normalizer` (SentencePiece's character map, by the reader that the crate uses,
//! then white space), `segmenter` (the most probable pieces, found in a `trie`) or, where the model is not Unigram,
//! through `spm`; ByT5's goes through `bytes`, and what else there is through the crate itself (`foreign`). Ids come
//! back through `stream`.
//!
//! Where this departs from the crate: a text that ends with `</s>` gets no second one; decoding stops at `</s>`, gives
//! `<unk>` for ids outside of the vocabulary and turns byte pieces into characters whatever the file's decoder is; a
//! byte piece is never produced by text that spells its name, `<0x41>`; behind an added token that ends a line, the
//! next line's first word has no space in front (the crate: `\n B` for what was `\nB`). Where the crate departs from
//! SentencePiece, this follows the crate: the character map is applied to whole grapheme clusters, and draws between
//! segmentations (`....`) go to the earlier one.

mod added;
mod bytes;
#[cfg(feature = "tokenizers")]
mod foreign;
mod json;
mod normalizer;
mod segmenter;
mod sentencepiece;
mod spm;
mod stream;
mod trie;
mod unigram;
mod vocabulary;

pub(crate) use normalizer::check as check_charsmap;
pub use stream::TextStream;
pub use vocabulary::{
    AddedToken, ByteVocabulary, JsonVocabulary, Piece, PieceKind, PieceModel, UnigramVocabulary, Vocabulary, Whitespace,
};

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use bytes::ByteTokenizer;
#[cfg(feature = "tokenizers")]
use foreign::ForeignTokenizer;
use unigram::{Reading, UnigramTokenizer};

/// Text to ids and back, exactly as the reference tokenizer does it. One may be used by many threads at once.
pub struct Tokenizer {
    /// Shared with the streams that decode with it.
    inner: Arc<Inner>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

enum Inner {
    Unigram(Box<UnigramTokenizer>),
    Bytes(ByteTokenizer),
    #[cfg(feature = "tokenizers")]
    Foreign(Box<ForeignTokenizer>),
}

impl Tokenizer {
    /// Checks a vocabulary and builds the tables: some milliseconds for T5's 32,100 pieces. `file` is the name used in
    /// messages.
    ///
    /// Fails if an id is out of range, a score is not a number, the character map is damaged, or byte fallback is on
    /// without all 256 byte pieces.
    pub fn new(file: &str, vocabulary: &Vocabulary) -> Result<Tokenizer> {
        let inner = match vocabulary {
            Vocabulary::Unigram(unigram) => Inner::Unigram(Box::new(UnigramTokenizer::new(file, unigram)?)),
            Vocabulary::Bytes(bytes) => Inner::Bytes(ByteTokenizer::new(file, bytes)?),
            #[cfg(feature = "tokenizers")]
            Vocabulary::Json(json) => Inner::Foreign(Box::new(ForeignTokenizer::new(file, json)?)),
            #[cfg(not(feature = "tokenizers"))]
            Vocabulary::Json(json) => {
                let what = format!(
                    "the model is {}, expected Unigram or bytes: others need a build with the feature \"tokenizers\", \
                     as the t5 command's",
                    json.kind
                );
                return Err(failure(file, what));
            }
        };
        Ok(Tokenizer { inner: Arc::new(inner) })
    }

    /// The ids of `text`, ending with `</s>` (of a [`Vocabulary::Json`]: as its file says). Tokens written out in the
    /// text, such as `<extra_id_0>`, get their ids; a text that ends with `</s>` does not get a second one.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        #[cfg(feature = "tokenizers")]
        if let Inner::Foreign(foreign) = &*self.inner {
            let mut ids = Vec::new();
            foreign.encode(text, true, &mut ids);
            return ids;
        }
        let mut ids = self.encode_prefix(text);
        if ids.last() != Some(&self.eos_id()) {
            ids.push(self.eos_id());
        }
        ids
    }

    /// The ids of `text` without `</s>` behind it: the start of a target, for example.
    pub fn encode_prefix(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.encode(text, &mut ids),
            Inner::Bytes(bytes) => bytes.encode(text, &mut ids),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.encode(text, false, &mut ids),
        }
        ids
    }

    /// The text of `ids`, those behind a `</s>` among them; ids outside of the vocabulary count as `<unk>` (ByT5: as
    /// nothing). Special tokens (`<pad>`, `</s>`, `<unk>`) and sentinels are left out if `skip_special`.
    ///
    /// Spaces are those of the pieces: `<extra_id_0>` has none of its own, nothing is cleaned up before punctuation
    /// (`clean_up_tokenization_spaces` of transformers, which undoes itself in "don 't"). Byte pieces become
    /// characters, U+FFFD for each byte that is none.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut text = String::with_capacity(ids.len() * 4);
        let mut state = stream::State::default();
        ids.iter().for_each(|&id| state.push(&self.inner, skip_special, id, &mut text));
        state.finish(&self.inner, skip_special, &mut text);
        text
    }

    /// A decoder for ids that come one by one; special tokens and sentinels are left out if `skip_special`.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.inner.clone(), skip_special)
    }

    /// The number of ids that mean something: 32100 for T5, whose embedding has 32128 rows; 259 for ByT5 (384).
    pub fn vocab_size(&self) -> usize {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.vocab_size(),
            Inner::Bytes(bytes) => bytes.vocab_size(),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.vocab_size(),
        }
    }

    /// The text of a piece, with `▁` for a space; for ByT5 a character or `<0xC3>`.
    pub fn piece(&self, id: u32) -> Option<&str> {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.piece(id),
            Inner::Bytes(bytes) => bytes.piece(id),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.piece(id),
        }
    }

    /// The id of a piece, spelled as [`Tokenizer::piece`] spells it, or of a sentinel `<extra_id_n>`.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.id_of(piece),
            Inner::Bytes(bytes) => bytes.id_of(piece),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.id_of(piece),
        }
    }

    /// The id of the sentinel `<extra_id_n>`: 32099 - n for T5; 258 - n for ByT5, or 259 + n with
    /// [`ByteVocabulary::extra_ids_above`].
    pub fn sentinel_id(&self, n: u32) -> Option<u32> {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.sentinels.get(n as usize).copied().flatten(),
            Inner::Bytes(bytes) => bytes.sentinel_id(n),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.sentinels.get(n as usize).copied().flatten(),
        }
    }

    /// Whether decoding may leave `id` out: `<pad>`, `</s>`, `<unk>`, sentinels and other special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.reading(id) == Some(Reading::Special),
            Inner::Bytes(bytes) => bytes.special(id).is_some(),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.is_special(id),
        }
    }

    /// The bytes that a token adds to a text in which others stand before it, with its space: none if it is no text, or
    /// if it has spaces also elsewhere than in front, which are lost where it comes first. `None` for tokenizers of
    /// other kinds, whose tokens are not bytes by themselves.
    #[cfg(feature = "grammar")]
    pub(crate) fn bytes_in_a_sentence(&self, id: u32) -> Option<Vec<u8>> {
        match &*self.inner {
            Inner::Unigram(unigram) => Some(match unigram.reading(id) {
                Some(Reading::Byte(byte)) => vec![byte],
                Some(Reading::Text | Reading::LineEnd) => {
                    let mut text = String::new();
                    unigram.write(id, false, &mut text);
                    let lost = unigram.add_dummy_prefix && text.chars().skip(1).any(|c| c == ' ');
                    if lost { Vec::new() } else { text.into_bytes() }
                }
                Some(Reading::Special) | None => Vec::new(),
            }),
            Inner::Bytes(bytes) => Some(bytes.byte(id).into_iter().collect()),
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(_) => None,
        }
    }

    /// Whether the space of a text's first token is not written.
    #[cfg(feature = "grammar")]
    pub(crate) fn drops_first_space(&self) -> bool {
        matches!(&*self.inner, Inner::Unigram(unigram) if unigram.add_dummy_prefix)
    }

    /// The id of `<pad>`, which also starts a decoder.
    pub fn pad_id(&self) -> u32 {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.pad_id,
            Inner::Bytes(_) => bytes::PAD,
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.pad_id,
        }
    }

    /// The id of `</s>`.
    pub fn eos_id(&self) -> u32 {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.eos_id,
            Inner::Bytes(_) => bytes::EOS,
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.eos_id,
        }
    }

    /// The id of `<unk>`.
    pub fn unk_id(&self) -> u32 {
        match &*self.inner {
            Inner::Unigram(unigram) => unigram.unk_id,
            Inner::Bytes(_) => bytes::UNK,
            #[cfg(feature = "tokenizers")]
            Inner::Foreign(foreign) => foreign.unk_id,
        }
    }
}

/// An [`Error::Tokenizer`].
fn failure(file: &str, what: impl Into<String>) -> Error {
    Error::Tokenizer { file: file.into(), what: what.into() }
}

/// The n of `<extra_id_n>`.
pub(crate) fn sentinel_number(piece: &str) -> Option<usize> {
    let digits = piece.strip_prefix("<extra_id_")?.strip_suffix('>')?;
    let canonical = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { digits.parse().ok() } else { None }
}
