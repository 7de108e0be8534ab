//! Text to ids and back.

mod vocabulary;

pub use vocabulary::{AddedToken, ByteVocabulary, Piece, PieceKind, UnigramVocabulary, Vocabulary, Whitespace};

use crate::error::Result;

/// Text to ids and back, exactly as the reference tokenizer does it.
pub struct Tokenizer {}

impl Tokenizer {
    /// Builds the segmenter from a vocabulary.
    pub fn new(_file: &str, _vocabulary: &Vocabulary) -> Result<Tokenizer> {
        todo!()
    }

    /// The ids of `text`, ending with `</s>`.
    pub fn encode(&self, _text: &str) -> Result<Vec<u32>> {
        todo!()
    }

    /// The ids of `text` without `</s>`: a target prefix.
    pub fn encode_prefix(&self, _text: &str) -> Result<Vec<u32>> {
        todo!()
    }

    /// The text of `ids`; special tokens (`<pad>`, `</s>`, `<unk>`) and sentinels are left out if `skip_special`.
    pub fn decode(&self, _ids: &[u32], _skip_special: bool) -> String {
        todo!()
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self) -> TextStream {
        todo!()
    }
}

/// Turns ids that come one by one into pieces of text whose concatenation is [`Tokenizer::decode`] of all ids.
/// A piece never ends inside a UTF-8 character.
#[derive(Default)]
pub struct TextStream {}

impl TextStream {
    /// The text that `id` adds; empty while a character is incomplete.
    pub fn push(&mut self, _tokenizer: &Tokenizer, _id: u32) -> &str {
        todo!()
    }

    /// What is left after the last id.
    pub fn finish(&mut self, _tokenizer: &Tokenizer) -> &str {
        todo!()
    }
}
