//! Which words of a source a target's words come from, by cross-attention.

use std::ops::Range;

use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::generate::Settings;
use crate::tokenizer::Tokenizer;

/// The heads of cross-attention that show where a token comes from, as a model's file says or as somebody measured.
///
/// Heads differ: some look at what the token translates, others at the end of the sentence or at what was translated
/// before. And models differ in when they look: at the step that predicts a token, or at the next one, which reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlignmentHeads {
    /// (block, head) of each; empty: all of them.
    pub heads: Vec<(usize, usize)>,
    /// Whether the step that reads a token is looked at, in place of the step that predicts it.
    pub reading: bool,
}

impl AlignmentHeads {
    /// What a checkpoint's settings say, which may not suit the model.
    pub(crate) fn of(settings: &Settings) -> AlignmentHeads {
        let pair = |pair: &Vec<u32>| match pair[..] {
            [block, head] => (block as usize, head as usize),
            // No model has such a head.
            _ => (usize::MAX, usize::MAX),
        };
        let heads = settings.alignment_heads.iter().flatten().map(pair).collect();
        AlignmentHeads { heads, reading: settings.alignment_reading.unwrap_or(false) }
    }

    /// Each head's share of an average, `[num_decoder_layers, num_heads]`.
    ///
    /// # Errors
    /// If the model has no such head.
    pub(crate) fn shares(&self, config: &T5Config) -> Result<Vec<f32>> {
        let (blocks, heads) = (config.num_decoder_layers, config.num_heads);
        if self.heads.is_empty() {
            return Ok(vec![1.0 / (blocks * heads) as f32; blocks * heads]);
        }
        let mut shares = vec![0.0; blocks * heads];
        for &(block, head) in &self.heads {
            if block >= blocks || head >= heads {
                let what = format!("expected a head of {blocks} blocks of {heads}; found head {head} of block {block}");
                return Err(Error::Option { option: "alignment heads", what });
            }
            // One that is there twice counts twice.
            shares[block * heads + head] += 1.0 / self.heads.len() as f32;
        }
        Ok(shares)
    }
}

/// Which source tokens each target token looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// The source's ids, as they were given.
    pub source_ids: Vec<u32>,
    /// The target's ids, as they were given.
    pub target_ids: Vec<u32>,
    /// `[target, source]`: cross-attention weights, averaged over the heads that were asked for; each row sums to 1.
    pub weights: Vec<f32>,
}

/// A word of a text, without the space before it, and the places of its tokens.
struct Word {
    text: String,
    tokens: Range<usize>,
}

/// An alignment of words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WordAlignment {
    /// The source's words, without those of a task's prefix.
    pub source: Vec<String>,
    /// The target's words.
    pub target: Vec<String>,
    /// `[target, source]`: a source word has the sum of its tokens' weights, a target word the mean of its tokens'.
    pub weights: Vec<f32>,
}

impl WordAlignment {
    /// The weights of each target word, `[source]`: as many rows as it has words, also where the source has none.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let width = self.source.len();
        (0..self.target.len()).map(move |row| &self.weights[row * width..][..width])
    }

    /// The source word that a target word looked at most; `None` where there are none.
    pub fn strongest(&self, target: usize) -> Option<usize> {
        let row = &self.weights[target * self.source.len()..][..self.source.len()];
        // The first of equals.
        (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]))
    }

    /// Appends the alignment of the texts that follow; words of one have nothing to do with those of the other.
    pub(crate) fn append(&mut self, next: WordAlignment) {
        let (before, more) = (self.source.len(), next.source.len());
        let own = self.rows().map(|row| (row, 0));
        let others = next.rows().map(|row| (row, before));
        let mut weights = vec![0.0; (self.target.len() + next.target.len()) * (before + more)];
        for (to, (from, first)) in weights.chunks_exact_mut((before + more).max(1)).zip(own.chain(others)) {
            to[first..first + from.len()].copy_from_slice(from);
        }
        self.weights = weights;
        self.source.extend(next.source);
        self.target.extend(next.target);
    }
}

impl Alignment {
    /// The alignment of words. The first `prefix` words of the source, those of a task's prefix, are left out.
    pub fn by_words(&self, tokenizer: &Tokenizer, prefix: usize) -> WordAlignment {
        let mut source = words(tokenizer, &self.source_ids);
        // One token may be a whole prefix.
        let mut left = prefix;
        while left > 0 && !source.is_empty() {
            left = left.saturating_sub(source.remove(0).text.split_whitespace().count().max(1));
        }
        let target = words(tokenizer, &self.target_ids);
        let columns = self.source_ids.len();
        let mut weights = Vec::with_capacity(source.len() * target.len());
        for to in &target {
            for from in &source {
                let row = |row: usize| self.weights[row * columns..][from.tokens.clone()].iter().sum::<f32>();
                weights.push(to.tokens.clone().map(row).sum::<f32>() / to.tokens.len() as f32);
            }
        }
        let texts = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
        WordAlignment { source: texts(source), target: texts(target), weights }
    }
}

/// Words of a list of ids, by the text that each adds: white space begins one, and what waits for the next token (a
/// part of a character, the mark of a space at the start) belongs to that one's word. Special tokens are none, and no
/// part of any.
fn words(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut stream = tokenizer.stream(false);
    let (mut open, mut first) = (false, 0);
    // Where a vocabulary has no piece for what is unknown, that id is another one's.
    let unknown = Some(tokenizer.unk_id()).filter(|&id| id != tokenizer.eos_id());
    for (place, &id) in ids.iter().enumerate() {
        let is_text = tokenizer.piece(id).is_some() && (!tokenizer.is_special(id) || Some(id) == unknown);
        if !is_text {
            stream.finish();
            (open, first) = (false, place + 1);
            continue;
        }
        let text = stream.push(id);
        if text.is_empty() {
            continue;
        }
        let word = text.trim();
        match words.last_mut() {
            Some(last) if open && !text.starts_with(char::is_whitespace) => {
                last.text += word;
                last.tokens.end = place + 1;
            }
            _ => words.push(Word { text: word.to_owned(), tokens: first..place + 1 }),
        }
        open = word.is_empty() || !text.ends_with(char::is_whitespace);
        first = place + 1;
    }
    words.retain(|word| !word.text.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocabulary;

    #[track_caller]
    fn check(vocabulary: &Vocabulary, ids: &[u32], expected: &[(&str, Range<usize>)]) {
        let tokenizer = Tokenizer::new("x", vocabulary).unwrap();
        let words = words(&tokenizer, ids);
        let found: Vec<_> = words.iter().map(|word| (word.text.as_str(), word.tokens.clone())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn words_of_bytes() {
        let vocabulary = Vocabulary::bytes(384);
        let ids = Tokenizer::new("x", &vocabulary).unwrap().encode("hé  lo\nx<extra_id_0>y");
        check(&vocabulary, &ids, &[("hé", 0..3), ("lo", 4..7), ("x", 7..9), ("y", 10..11)]);
        check(&vocabulary, &[3 + u32::from(b' '), 1], &[]);
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn words_of_byte_level_pieces() {
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{"id": 0,
            "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true}], "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"</s>": 0, "a": 1, "b": 2, "Ġ": 3, "Ã": 4, "©": 5, "Ġb": 6}, "merges": ["Ġ b"]}}"#;
        let vocabulary = Vocabulary::from_other_tokenizer_json("x", json.as_bytes(), 0, 0).unwrap();
        check(&vocabulary, &[1, 3, 4, 5, 6, 2, 0], &[("a", 0..1), ("é", 1..4), ("bb", 4..6)]);
    }
}
