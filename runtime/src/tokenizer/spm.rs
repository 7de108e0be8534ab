//! SentencePiece's models other than Unigram: byte pairs, words and characters, with SentencePiece's own normalisation.
//!
//! Nothing but SentencePiece runs these (where Unigram's reference is the `tokenizers` crate, see [`super`]), so this
//! follows it step by step: `normalizer.cc`, `bpe_model.cc`, `word_model.cc`, `char_model.cc`, and the way in which
//! `sentencepiece_processor.cc` joins unknown pieces.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::segmenter::NOT_A_CANDIDATE;
use super::trie::Trie;
use super::unigram::SPACE_MARK;
use super::{PieceKind, PieceModel, UnigramVocabulary};

/// What the model needs beside the trie from pieces to ids.
pub(super) struct Spm {
    model: PieceModel,
    charsmap: Option<Charsmap>,
    remove_extra_whitespaces: bool,
    scores: Vec<f32>,
    kinds: Vec<PieceKind>,
    unk_id: u32,
    byte_ids: Option<Box<[u32; 256]>>,
}

/// SentencePiece's compiled character map, checked before.
struct Charsmap {
    units: Vec<u32>,
    /// Replacements that end in NUL.
    strings: String,
}

/// A part of the text that is one piece, or empty since it became part of another.
#[derive(Clone, Copy)]
struct Symbol {
    prev: usize,
    next: usize,
    start: usize,
    len: usize,
}

/// Behind the last symbol and before the first.
const NONE: usize = usize::MAX;

/// Two neighbours that together are a piece.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Ord for Pair {
    /// The better score, then the earlier place, is the larger.
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Spm {
    /// `None` for Unigram. The character map and the ids of bytes have been checked.
    pub(super) fn new(vocabulary: &UnigramVocabulary, byte_ids: Option<&[u32; 256]>) -> Option<Spm> {
        (vocabulary.model != PieceModel::Unigram).then(|| Spm {
            model: vocabulary.model,
            charsmap: vocabulary.charsmap.as_deref().map(Charsmap::new),
            remove_extra_whitespaces: vocabulary.whitespace.removes_extra(),
            scores: vocabulary.pieces.iter().map(|piece| piece.score).collect(),
            kinds: vocabulary.pieces.iter().map(|piece| piece.kind).collect(),
            unk_id: vocabulary.unk_id,
            byte_ids: byte_ids.map(|ids| Box::new(*ids)),
        })
    }

    /// Appends the ids of a stretch of text; `prefix` is whether it starts as a word does.
    pub(super) fn encode(&self, trie: &Trie, text: &str, prefix: bool, ids: &mut Vec<u32>) {
        let text = self.normalize(text, prefix);
        let mut out = Out { spm: self, ids, after_unknown: false };
        match self.model {
            PieceModel::Unigram => {}
            PieceModel::Bpe => self.merge(trie, &text, &mut out),
            PieceModel::Word => {
                let mut rest = &*text;
                while let Some(first) = rest.chars().next() {
                    let len = first.len_utf8();
                    let end = rest[len..].find(SPACE_MARK).map_or(rest.len(), |found| len + found);
                    out.push(self.id(trie, &rest[..end]), &rest[..end]);
                    rest = &rest[end..];
                }
            }
            PieceModel::Char => {
                let mut buffer = [0; 4];
                for c in text.chars() {
                    let c: &str = c.encode_utf8(&mut buffer);
                    out.push(self.id(trie, c), c);
                }
            }
        }
    }

    /// The text with `▁` for spaces.
    fn normalize(&self, text: &str, prefix: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 4 + 3);
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while let (len @ 1.., " ") = self.rewritten(rest) {
                rest = &rest[len..];
            }
        }
        if rest.is_empty() {
            return out;
        }
        if prefix {
            out.push(SPACE_MARK);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (len, piece) = self.rewritten(rest);
            let kept = if after_space { piece.trim_start_matches(' ') } else { piece };
            if !kept.is_empty() {
                out.extend(kept.chars().map(|c| if c == ' ' { SPACE_MARK } else { c }));
                after_space = kept.ends_with(' ');
            }
            if !self.remove_extra_whitespaces {
                after_space = false;
            }
            rest = &rest[len..];
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(SPACE_MARK).len());
        }
        out
    }

    /// How much of the start of `rest` the map rewrites, or the length of its first character, and what it becomes.
    fn rewritten<'a>(&'a self, rest: &'a str) -> (usize, &'a str) {
        match self.charsmap.as_ref().and_then(|map| map.longest(rest.as_bytes())) {
            Some(found) => found,
            None => {
                let len = rest.chars().next().map_or(0, char::len_utf8);
                (len, &rest[..len])
            }
        }
    }

    /// The id of a piece; that of the unknown one for others.
    fn id(&self, trie: &Trie, piece: &str) -> u32 {
        self.piece(trie, piece).unwrap_or(self.unk_id)
    }

    /// The id of a piece of text.
    fn piece(&self, trie: &Trie, piece: &str) -> Option<u32> {
        let id = trie.get(piece.as_bytes())? & !NOT_A_CANDIDATE;
        let is_text =
            matches!(self.kinds.get(id as usize)?, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused);
        is_text.then_some(id)
    }

    /// Joins neighbours, the best pair first (Sennrich et al. 2016), and appends what is left.
    fn merge(&self, trie: &Trie, text: &str, out: &mut Out) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            let index = symbols.len();
            symbols.push(Symbol { prev: index.wrapping_sub(1), next: index + 1, start, len: c.len_utf8() });
        }
        let Some(last) = symbols.last_mut() else { return };
        last.next = NONE;
        let mut pairs = BinaryHeap::new();
        // Pieces that are never produced, by their place, and where they came together.
        let mut unused: Vec<(usize, usize, usize)> = Vec::new();
        let mut offer = |symbols: &[Symbol], left: usize, right: usize, pairs: &mut BinaryHeap<Pair>| {
            if left == NONE || right == NONE {
                return;
            }
            let (a, b) = (symbols[left], symbols[right]);
            let len = a.len + b.len;
            let Some(id) = self.piece(trie, &text[a.start..a.start + len]) else { return };
            pairs.push(Pair { score: self.scores[id as usize], left, right, len });
            if self.kinds[id as usize] == PieceKind::Unused {
                unused.push((a.start, len, a.len));
            }
        };
        for right in 1..symbols.len() {
            offer(&symbols, right - 1, right, &mut pairs);
        }
        while let Some(Pair { left, right, len, .. }) = pairs.pop() {
            let (a, b) = (symbols[left], symbols[right]);
            if a.len == 0 || b.len == 0 || a.len + b.len != len {
                continue;
            }
            symbols[left] = Symbol { len, next: b.next, ..a };
            symbols[right].len = 0;
            if b.next != NONE {
                symbols[b.next].prev = left;
            }
            offer(&symbols, a.prev, left, &mut pairs);
            offer(&symbols, left, b.next, &mut pairs);
        }
        let mut index = 0;
        while index != NONE {
            let Symbol { start, len, next, .. } = symbols[index];
            self.push_used(trie, text, (start, len), &unused, out);
            index = next;
        }
    }

    /// Appends a piece, or the parts of one that is never produced.
    fn push_used(
        &self,
        trie: &Trie,
        text: &str,
        whole: (usize, usize),
        unused: &[(usize, usize, usize)],
        out: &mut Out,
    ) {
        let mut left = vec![whole];
        while let Some((start, len)) = left.pop() {
            let piece = &text[start..start + len];
            let id = self.id(trie, piece);
            let parts = || unused.iter().rev().find(|(at, whole, _)| (*at, *whole) == (start, len));
            match (self.kinds.get(id as usize), parts()) {
                (Some(PieceKind::Unused), Some((_, _, first))) => {
                    left.push((start + first, len - first));
                    left.push((start, *first));
                }
                _ => out.push(id, piece),
            }
        }
    }
}

/// Where ids go.
struct Out<'a> {
    spm: &'a Spm,
    ids: &'a mut Vec<u32>,
    after_unknown: bool,
}

impl Out<'_> {
    /// Appends an id: neighbouring unknown pieces are one, or are spelled in bytes.
    fn push(&mut self, id: u32, piece: &str) {
        let unknown = id == self.spm.unk_id;
        match &self.spm.byte_ids {
            Some(bytes) if unknown => self.ids.extend(piece.bytes().map(|byte| bytes[byte as usize])),
            _ if unknown && self.after_unknown => {}
            _ => self.ids.push(id),
        }
        self.after_unknown = unknown;
    }
}

impl Charsmap {
    /// Of bytes that [`super::normalizer::check`] has passed.
    fn new(bytes: &[u8]) -> Charsmap {
        let size = bytes.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let (units, strings) = bytes[4..].split_at(size);
        Charsmap {
            units: units.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            strings: String::from_utf8_lossy(strings).into_owned(),
        }
    }

    /// The length of the longest start of `text` that the map has, and its replacement.
    fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let offset = |unit: u32| (unit as usize >> 10) << ((unit & 1 << 9) >> 6);
        let mut node = offset(self.units[0]);
        let mut found = None;
        for (index, &byte) in text.iter().enumerate() {
            // Where the replacements start: a label of 0, which no text has.
            node ^= byte as usize;
            let unit = *self.units.get(node)?;
            if unit & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                found = Some((index + 1, (self.units[node] & 0x7FFF_FFFF) as usize));
            }
        }
        let (len, start) = found?;
        let end = start + self.strings[start..].find('\0')?;
        Some((len, &self.strings[start..end]))
    }
}
