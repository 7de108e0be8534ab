//! Text to ids with ByT5's vocabulary: UTF-8 bytes.

use super::ByteVocabulary;
use super::added::{Matcher, Part, Pattern};
use super::failure;
use crate::error::Result;

pub(super) const PAD: u32 = 0;
pub(super) const EOS: u32 = 1;
pub(super) const UNK: u32 = 2;

/// The bytes that no UTF-8 text holds start here, so what has such an id can only be a sentinel.
const FIRST_IMPOSSIBLE_BYTE: u8 = 0xF5;

/// ByT5's vocabulary ready for use.
pub(super) struct ByteTokenizer {
    vocabulary: ByteVocabulary,
    tokens: Matcher,
    /// The name of each id: the character of an ASCII byte, else `<0xC3>`; a sentinel's name where only it fits.
    names: Vec<String>,
}

impl ByteTokenizer {
    pub(super) fn new(file: &str, vocabulary: &ByteVocabulary) -> Result<ByteTokenizer> {
        let ByteVocabulary { offset, extra_ids, extra_ids_above, vocab_size } = *vocabulary;
        if offset != 3 {
            return Err(failure(file, format!("byte 0 has the id {offset}, expected 3 (after <pad>, </s> and <unk>)")));
        }
        if extra_ids > 256 {
            return Err(failure(
                file,
                format!("there are {extra_ids} sentinels, but only 256 bytes to stand for them"),
            ));
        }
        if extra_ids_above && offset + 256 + extra_ids > vocab_size {
            let what = format!(
                "{extra_ids} sentinels above the {} ids of bytes need more than {vocab_size} rows",
                offset + 256
            );
            return Err(failure(file, what));
        }
        let vocabulary = vocabulary.clone();
        // As transformers does it, the three swallow the white space around them.
        let special = ["<pad>", "</s>", "<unk>"].map(String::from);
        let mut patterns: Vec<Pattern> = (0..)
            .zip(&special)
            .map(|(id, text)| Pattern { text: text.clone(), id, lstrip: true, rstrip: true })
            .collect();
        let sentinel = |n: u32| Some((format!("<extra_id_{n}>"), vocabulary.sentinel_id(n)?));
        patterns.extend((0..extra_ids).filter_map(sentinel).map(|(text, id)| Pattern {
            text,
            id,
            lstrip: false,
            rstrip: false,
        }));
        let mut names = special.to_vec();
        names.extend((0..=255u8).map(|byte| match byte {
            FIRST_IMPOSSIBLE_BYTE.. if !extra_ids_above && u32::from(255 - byte) < extra_ids => {
                format!("<extra_id_{}>", 255 - byte)
            }
            0x20..0x7F => (byte as char).to_string(),
            _ => format!("<0x{byte:02X}>"),
        }));
        if extra_ids_above {
            names.extend((0..extra_ids).filter_map(sentinel).map(|(text, _)| text));
        }
        Ok(ByteTokenizer { vocabulary, tokens: Matcher::new(patterns), names })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.names.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(String::as_str)
    }

    pub(super) fn id_of(&self, piece: &str) -> Option<u32> {
        let sentinel = super::sentinel_number(piece).and_then(|n| self.sentinel_id(u32::try_from(n).ok()?));
        sentinel.or_else(|| self.names.iter().position(|name| name == piece).map(|id| id as u32))
    }

    pub(super) fn sentinel_id(&self, n: u32) -> Option<u32> {
        self.vocabulary.sentinel_id(n)
    }

    /// The byte of `id`.
    pub(super) fn byte(&self, id: u32) -> Option<u8> {
        u8::try_from(id.checked_sub(self.vocabulary.offset)?).ok()
    }

    /// The name of `id` if it is a special token or can only be a sentinel.
    pub(super) fn special(&self, id: u32) -> Option<&str> {
        let is_special = match self.byte(id) {
            Some(byte) => {
                let n = 255 - byte;
                byte >= FIRST_IMPOSSIBLE_BYTE && self.vocabulary.sentinel_id(n.into()) == Some(id)
            }
            // Before or behind the bytes.
            None => true,
        };
        self.names.get(id as usize).filter(|_| is_special).map(String::as_str)
    }

    /// Appends the ids of `text`, without `</s>`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        // Python's white space: Unicode's and four separators of ASCII.
        let is_space = |c: char| c.is_whitespace() || ('\x1C'..='\x1F').contains(&c);
        self.tokens.split(text, is_space, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(_, text) => ids.extend(text.bytes().map(|byte| u32::from(byte) + self.vocabulary.offset)),
        });
    }
}
