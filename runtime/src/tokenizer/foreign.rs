//! Tokenizers that the `tokenizers` crate runs: byte-level BPE (CodeT5, FRED-T5, pko-T5), WordPiece, and whatever else
//! a `tokenizer.json` describes that [`super::json`] does not translate.

use tokenizers::Tokenizer;

use super::{JsonVocabulary, failure, sentinel_number};
use crate::error::Result;

/// A tokenizer of the crate, with tables of its own for what is asked id by id.
pub(super) struct ForeignTokenizer {
    tokenizer: Tokenizer,
    /// The text of each piece by id; none where no piece has it.
    pieces: Vec<Option<String>>,
    special: Vec<bool>,
    pub(super) sentinels: Vec<Option<u32>>,
    pub(super) eos_id: u32,
    pub(super) pad_id: u32,
    pub(super) unk_id: u32,
}

impl ForeignTokenizer {
    /// Builds the tokenizer, without the file's truncation and padding.
    pub(super) fn new(file: &str, vocabulary: &JsonVocabulary) -> Result<ForeignTokenizer> {
        let refuse = |error: &dyn std::fmt::Display| failure(file, format!("tokenizer.json cannot be used: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(vocabulary.json.as_bytes()).map_err(|error| refuse(&error))?;
        tokenizer.with_truncation(None).map_err(|error| refuse(&error))?;
        tokenizer.with_padding(None);
        // Texts are not refused later: a piece for what is unknown must be there, and what goes around a text.
        let unlikely = "a \u{10fffe}\u{e000}";
        tokenizer.encode_fast(unlikely, true).map_err(|error| refuse(&error))?;
        let mut pieces = vec![None; vocabulary.count];
        for (text, id) in tokenizer.get_vocab(true) {
            let piece = pieces.get_mut(id as usize);
            *piece.ok_or_else(|| {
                refuse(&format!("a piece has the id {id}, expected ids below {}", vocabulary.count))
            })? = Some(text);
        }
        let mut special = vec![false; pieces.len()];
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if let Some(special) = special.get_mut(id as usize) {
                *special = token.special;
            }
        }
        let mut sentinels = Vec::new();
        for (id, piece) in (0..).zip(&pieces) {
            let number = piece.as_ref().and_then(|piece| sentinel_number(piece)).filter(|&n| n < pieces.len());
            if let Some(n) = number {
                sentinels.resize(sentinels.len().max(n + 1), None);
                sentinels[n] = Some(id);
            }
        }
        let id_of = |names: &[&str]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let unk_id = id_of(&["<unk>", "[UNK]", "<|endoftext|>"]).unwrap_or(vocabulary.eos_id);
        let JsonVocabulary { eos_id, pad_id, .. } = *vocabulary;
        Ok(ForeignTokenizer { tokenizer, pieces, special, sentinels, eos_id, pad_id, unk_id })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize)?.as_deref()
    }

    pub(super) fn id_of(&self, piece: &str) -> Option<u32> {
        self.tokenizer.token_to_id(piece)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Appends the ids of `text`; `whole` is whether the file's own tokens go around them.
    pub(super) fn encode(&self, text: &str, whole: bool, ids: &mut Vec<u32>) {
        // What the crate can refuse was seen when this was made.
        if let Ok(encoding) = self.tokenizer.encode_fast(text, whole) {
            ids.extend(encoding.get_ids());
        }
    }

    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.tokenizer.decode(ids, skip_special).unwrap_or_default()
    }
}

/// Ids whose text is not complete, and how much of it has been given out.
#[derive(Default)]
pub(super) struct Window {
    ids: Vec<u32>,
    /// How many of the ids have been given out; those stay as what comes may be joined to them.
    given: usize,
}

impl Window {
    /// Appends what `id` adds to `out`: nothing as long as a character is not complete.
    pub(super) fn push(&mut self, tokenizer: &ForeignTokenizer, skip_special: bool, id: u32, out: &mut String) {
        self.ids.push(id);
        self.give(tokenizer, skip_special, false, out);
    }

    /// Appends what is left.
    pub(super) fn finish(&mut self, tokenizer: &ForeignTokenizer, skip_special: bool, out: &mut String) {
        self.give(tokenizer, skip_special, true, out);
        *self = Window::default();
    }

    fn give(&mut self, tokenizer: &ForeignTokenizer, skip_special: bool, all: bool, out: &mut String) {
        let before = tokenizer.decode(&self.ids[..self.given], skip_special);
        let now = tokenizer.decode(&self.ids, skip_special);
        if now.len() <= before.len() || (now.ends_with(char::REPLACEMENT_CHARACTER) && !all) {
            return;
        }
        // Where the text before changes with what follows it, it stays as it was given.
        out.push_str(now.get(before.len()..).unwrap_or_default());
        self.ids.drain(..self.given);
        self.given = self.ids.len();
    }
}
