//! Text to ids with a SentencePiece vocabulary, step by step as [`UnigramVocabulary`] lists them.

use super::added::{Matcher, Part, Pattern};
use super::normalizer::Normalizer;
use super::segmenter::{NOT_A_CANDIDATE, PathBuffer, Segmenter};
use super::spm::Spm;
use super::trie::Trie;
use super::{PieceKind, UnigramVocabulary, Whitespace, failure, sentinel_number};
use crate::error::Result;

/// What SentencePiece writes for a space.
pub(super) const SPACE_MARK: char = '▁';

/// A Unigram vocabulary ready for use.
pub(super) struct UnigramTokenizer {
    /// Tokens looked for in the text as it is, and in the normalised text.
    raw_tokens: Matcher,
    normalized_tokens: Option<Matcher>,
    normalizer: Normalizer,
    segmenter: Segmenter,
    /// What is used in their place where the model is not Unigram.
    spm: Option<Spm>,
    whitespace: Whitespace,
    pub(super) add_dummy_prefix: bool,
    legacy: bool,
    split_words: bool,
    /// The texts of all pieces one after the other, and where each ends.
    texts: String,
    text_ends: Vec<u32>,
    /// What each id means to decoding.
    readings: Vec<Reading>,
    /// How normalised added tokens are written, where that is not their text.
    normalized_texts: Vec<(u32, String)>,
    /// The id of `<extra_id_n>`, if there is one.
    pub(super) sentinels: Vec<Option<u32>>,
    pub(super) unk_id: u32,
    pub(super) eos_id: u32,
    pub(super) pad_id: u32,
}

/// What decoding makes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Its text.
    Text,
    /// Its text, which ends a line: the `▁` that encoding puts in front of the stretch behind it is no space.
    LineEnd,
    /// Its text, unless special tokens are left out.
    Special,
    /// One byte of a character.
    Byte(u8),
}

/// Buffers for one call of [`UnigramTokenizer::encode`].
#[derive(Default)]
struct EncodeBuffers {
    normalized: String,
    marked: String,
    scratch: PathBuffer,
}

impl UnigramTokenizer {
    /// Checks the vocabulary and builds the tables.
    pub(super) fn new(file: &str, vocabulary: &UnigramVocabulary) -> Result<UnigramTokenizer> {
        let min_score = check(file, vocabulary)?;
        let pieces = &vocabulary.pieces;
        let count = pieces.len();
        let normalizer = Normalizer::new(file, vocabulary.charsmap.as_deref(), vocabulary.whitespace)?;
        let mut outside = vec![false; count];
        let (mut raw, mut normalized, mut normalized_texts) = (Vec::new(), Vec::new(), Vec::new());
        let mut readings: Vec<Reading> = pieces.iter().map(|piece| byte_of(&piece.text, piece.kind)).collect();
        for token in &vocabulary.added {
            let content = &pieces[token.id as usize].text;
            outside[token.id as usize] = token.outside;
            if token.special {
                readings[token.id as usize] = Reading::Special;
            } else if content.ends_with('\n') && vocabulary.add_dummy_prefix && vocabulary.legacy {
                readings[token.id as usize] = Reading::LineEnd;
            }
            let mut text = String::new();
            if token.normalized {
                normalizer.normalize(content, &mut text);
                if text != *content {
                    normalized_texts.push((token.id, text.clone()));
                }
            } else {
                text.push_str(content);
            }
            let pattern = Pattern { text, id: token.id, lstrip: token.lstrip, rstrip: token.rstrip };
            if token.normalized { normalized.push(pattern) } else { raw.push(pattern) }
        }
        for id in [vocabulary.unk_id, vocabulary.eos_id, vocabulary.pad_id] {
            readings[id as usize] = Reading::Special;
        }

        // An earlier key loses against a later one, so candidates come last.
        let is_candidate = |id: usize| !outside[id] && !matches!(pieces[id].kind, PieceKind::Unused | PieceKind::Byte);
        let key = |id: usize, flag: u32| (pieces[id].text.as_bytes(), id as u32 | flag);
        let others = (0..count).filter(|&id| !is_candidate(id)).map(|id| key(id, NOT_A_CANDIDATE));
        let candidates = (0..count).filter(|&id| is_candidate(id)).map(|id| key(id, 0));
        let trie = Trie::new(others.chain(candidates));

        let mut texts = String::with_capacity(pieces.iter().map(|piece| piece.text.len()).sum());
        let mut sentinels = Vec::new();
        let mut text_ends = Vec::with_capacity(count);
        for (id, piece) in pieces.iter().enumerate() {
            texts.push_str(&piece.text);
            text_ends.push(texts.len() as u32);
            if let Some(n) = sentinel_number(&piece.text).filter(|&n| n < count) {
                sentinels.resize(sentinels.len().max(n + 1), None);
                sentinels[n] = Some(id as u32);
            }
        }
        let byte_ids = if vocabulary.byte_fallback { Some(byte_ids(file, &readings)?) } else { None };
        Ok(UnigramTokenizer {
            spm: Spm::new(vocabulary, byte_ids.as_deref()),
            raw_tokens: Matcher::new(raw),
            normalized_tokens: (!normalized.is_empty()).then(|| Matcher::new(normalized)),
            normalizer,
            segmenter: Segmenter {
                trie,
                scores: pieces.iter().map(|piece| piece.score).collect(),
                min_score,
                unk_id: vocabulary.unk_id,
                byte_ids,
            },
            whitespace: vocabulary.whitespace,
            add_dummy_prefix: vocabulary.add_dummy_prefix,
            legacy: vocabulary.legacy,
            split_words: vocabulary.split_words,
            texts,
            text_ends,
            readings,
            normalized_texts,
            sentinels,
            unk_id: vocabulary.unk_id,
            eos_id: vocabulary.eos_id,
            pad_id: vocabulary.pad_id,
        })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.text_ends.len()
    }

    /// The text of piece `id`.
    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        let end = *self.text_ends.get(id as usize)? as usize;
        let start = if id == 0 { 0 } else { self.text_ends[id as usize - 1] as usize };
        Some(&self.texts[start..end])
    }

    pub(super) fn id_of(&self, piece: &str) -> Option<u32> {
        self.segmenter.trie.get(piece.as_bytes()).map(|value| value & !NOT_A_CANDIDATE)
    }

    /// What decoding makes of `id`; none if it is outside of the vocabulary.
    pub(super) fn reading(&self, id: u32) -> Option<Reading> {
        self.readings.get(id as usize).copied()
    }

    /// Appends the text of `id` as it stands in a sentence to `out`: with spaces for marks, or without them `first`.
    pub(super) fn write(&self, id: u32, first: bool, out: &mut String) {
        let normalized = self.normalized_texts.iter().find(|text| text.0 == id);
        let piece = normalized.map(|text| text.1.as_str()).or_else(|| self.piece(id)).unwrap_or_default();
        let drop_marks = first && self.add_dummy_prefix;
        for (index, part) in piece.split(SPACE_MARK).enumerate() {
            if index > 0 && !drop_marks {
                out.push(' ');
            }
            out.push_str(part);
        }
    }

    /// Appends the ids of `text`, without `</s>`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut work = EncodeBuffers::default();
        self.raw_tokens.split(text, char::is_whitespace, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(start, stretch) => self.encode_stretch(stretch, start == 0, &mut work, ids),
        });
    }

    fn encode_stretch(&self, stretch: &str, at_start: bool, work: &mut EncodeBuffers, ids: &mut Vec<u32>) {
        if let Some(spm) = &self.spm {
            let prefix = self.add_dummy_prefix && (self.legacy || at_start);
            return spm.encode(&self.segmenter.trie, stretch, prefix, ids);
        }
        let EncodeBuffers { normalized, marked, scratch } = work;
        normalized.clear();
        self.normalizer.normalize(stretch, normalized);
        match &self.normalized_tokens {
            None => self.encode_normalized(normalized, at_start, marked, scratch, ids),
            Some(matcher) => matcher.split(normalized, char::is_whitespace, |part| match part {
                Part::Token(id) => ids.push(id),
                Part::Text(start, text) => {
                    self.encode_normalized(text, at_start && start == 0, marked, scratch, ids);
                }
            }),
        }
    }

    /// Puts the `▁` where they belong, in `marked`, and segments.
    fn encode_normalized(
        &self,
        text: &str,
        at_start: bool,
        marked: &mut String,
        scratch: &mut PathBuffer,
        ids: &mut Vec<u32>,
    ) {
        let dummy_prefix = self.add_dummy_prefix && (self.legacy || at_start);
        marked.clear();
        if self.whitespace == Whitespace::Split {
            // A space between an added token and the first word counts as any other; one before the text does not.
            let mut prefix = dummy_prefix || (!at_start && text.starts_with(char::is_whitespace));
            for word in text.split(char::is_whitespace).filter(|word| !word.is_empty()) {
                if prefix && !word.starts_with(SPACE_MARK) {
                    marked.push(SPACE_MARK);
                }
                marked.push_str(word);
                prefix = true;
            }
        } else {
            let wants_prefix = match self.whitespace {
                Whitespace::Verbatim => true,
                _ => !text.is_empty() && !text.starts_with([' ', SPACE_MARK]),
            };
            if dummy_prefix && wants_prefix {
                marked.push(SPACE_MARK);
            }
            for (index, part) in text.split(' ').enumerate() {
                if index > 0 {
                    marked.push(SPACE_MARK);
                }
                marked.push_str(part);
            }
        }
        if !self.split_words {
            return self.segmenter.segment(marked, scratch, ids);
        }
        let mut rest = marked.as_str();
        while let Some(first) = rest.chars().next() {
            let len = first.len_utf8();
            let end = rest[len..].find(SPACE_MARK).map_or(rest.len(), |found| len + found);
            self.segmenter.segment(&rest[..end], scratch, ids);
            rest = &rest[end..];
        }
    }
}

/// Refuses a vocabulary whose ids, scores or sizes cannot be. Gives the lowest score of a normal piece.
fn check(file: &str, vocabulary: &UnigramVocabulary) -> Result<f32> {
    let pieces = &vocabulary.pieces;
    let count = pieces.len();
    let bytes = pieces.iter().map(|piece| piece.text.len()).sum::<usize>();
    if count >= NOT_A_CANDIDATE as usize || bytes >= u32::MAX as usize {
        return Err(failure(file, format!("{count} pieces of {bytes} bytes are too many")));
    }
    for (name, id) in [("<unk>", vocabulary.unk_id), ("</s>", vocabulary.eos_id), ("<pad>", vocabulary.pad_id)] {
        if id as usize >= count {
            return Err(failure(file, format!("{name} has the id {id}, but there are only {count} pieces")));
        }
    }
    if let Some(token) = vocabulary.added.iter().find(|token| token.id as usize >= count) {
        return Err(failure(
            file,
            format!("an added token has the id {}, but there are only {count} pieces", token.id),
        ));
    }
    if let Some((id, piece)) = pieces.iter().enumerate().find(|(_, piece)| !piece.score.is_finite()) {
        return Err(failure(file, format!("piece {id} ({:?}) has the score {}", piece.text, piece.score)));
    }
    let normal = pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
    let min_score = normal.map(|piece| piece.score).fold(f32::INFINITY, f32::min);
    if min_score == f32::INFINITY { Err(failure(file, "there is no normal piece")) } else { Ok(min_score) }
}

/// The reading of a piece that is not special.
fn byte_of(text: &str, kind: PieceKind) -> Reading {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|digits| digits.len() == 2);
    match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) if kind == PieceKind::Byte => Reading::Byte(byte),
        _ => Reading::Text,
    }
}

/// The id of the piece of each byte.
fn byte_ids(file: &str, readings: &[Reading]) -> Result<Box<[u32; 256]>> {
    let mut ids = [None; 256];
    for (id, reading) in readings.iter().enumerate() {
        if let Reading::Byte(byte) = reading {
            ids[*byte as usize] = Some(id as u32);
        }
    }
    match ids.iter().position(Option::is_none) {
        Some(byte) => Err(failure(file, format!("byte fallback is on, but there is no byte piece <0x{byte:02X}>"))),
        None => Ok(Box::new(ids.map(Option::unwrap_or_default))),
    }
}
