//! Training a unigram vocabulary in T5's layout.
//!
//! The pieces come from the `tokenizers` crate's unigram trainer (Kudo, "Subword regularization", 2018: a suffix
//! array's frequent substrings, thinned out by expectation maximisation). Around it this module does what SentencePiece
//! does:
//! `nmt_nfkc` normalisation, rare characters left out of the alphabet, T5's special tokens and sentinels in their
//! places.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, Tokenizer,
    decoders::DecoderWrapper,
    models::unigram::{Unigram, UnigramTrainer},
    normalizers::{NormalizerWrapper, Precompiled, Replace, Sequence, replace::ReplacePattern},
    pre_tokenizers::{
        PreTokenizerWrapper,
        metaspace::{Metaspace, PrependScheme},
    },
    processors::{PostProcessorWrapper, template::TemplateProcessing},
};

use super::{SPACE, Vocabulary};
use crate::{Error, Result, files};

/// Longer words are not trained on. Bytes.
const LONGEST_WORD: usize = 128;

/// The knobs of vocabulary training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VocabularyConfig {
    /// Pieces, special tokens (pad, eos, unk) counted, sentinels not.
    pub pieces: usize,
    /// Sentinels `<extra_id_0>` (the highest id) downwards.
    pub sentinels: usize,
    /// Characters are in the alphabet until this share of the text is covered; the rest becomes `<unk>`.
    pub character_coverage: f64,
    /// Longest piece in characters.
    pub max_piece_length: usize,
    /// Characters that are in the alphabet however rare they are.
    pub required_characters: String,
    /// Words that are one piece each, such as the symbols of a task's targets.
    pub whole_words: Vec<String>,
    /// Characters of text sampled from the mixture's tasks, by their rates.
    pub characters: usize,
}

impl Default for VocabularyConfig {
    fn default() -> VocabularyConfig {
        VocabularyConfig {
            pieces: 8000,
            sentinels: 100,
            character_coverage: 0.9995,
            max_piece_length: 16,
            required_characters: (' '..='~').collect(),
            whole_words: Vec::new(),
            characters: 30_000_000,
        }
    }
}

impl VocabularyConfig {
    /// Rows of the embedding: pieces and sentinels, padded.
    pub fn rows(&self) -> usize {
        super::padded_rows(self.pieces + self.sentinels)
    }
}

/// Trains a vocabulary on texts and returns its tokenizer.
///
/// # Errors
/// Where there is no text, or not enough pieces for the alphabet.
pub fn train<'a>(texts: impl Iterator<Item = &'a str>, config: &VocabularyConfig) -> Result<Tokenizer> {
    if config.pieces < 4 || !(0.0..=1.0).contains(&config.character_coverage) || config.max_piece_length == 0 {
        return Err(Error::Invalid(
            "vocabulary: expected at least 4 pieces, a character_coverage of 0 to 1 and a max_piece_length of 1 or more"
                .into(),
        ));
    }
    let mut words = count_words(texts)?;
    let total: u64 = words.values().map(|&count| u64::from(count)).sum();
    let whole = config.whole_words.iter().map(|word| format!("{SPACE}{word}"));
    let whole: Vec<(String, u32)> =
        whole.map(|word| (words.remove(&word).unwrap_or(0), word)).map(|(n, w)| (w, n)).collect();
    let alphabet = alphabet(&words, &config.required_characters, config.character_coverage);
    // The trainer's sums over segmentations overflow on very long words, which are no words anyway.
    words.retain(|word, _| word.len() <= LONGEST_WORD && word.chars().all(|c| alphabet.contains_key(&c)));
    if words.is_empty() {
        return Err(Error::Invalid("vocabulary: expected text to train on, found none".into()));
    }
    if alphabet.len() + 3 + whole.len() > config.pieces {
        return Err(Error::Invalid(format!(
            "vocabulary: expected more pieces than the alphabet's {} characters and the whole words, found {}",
            alphabet.len(),
            config.pieces
        )));
    }
    let mut pieces = train_pieces(&words, &alphabet, config)?;
    insert_whole_words(&mut pieces, &whole, total, config.pieces);
    assemble(pieces, config)
}

/// The words of texts, each with a space mark in front, and how often they occur.
fn count_words<'a>(texts: impl Iterator<Item = &'a str>) -> Result<HashMap<String, u32>> {
    let normalizer = normalizer()?;
    let mut words: HashMap<String, u32> = HashMap::new();
    for text in texts {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).map_err(failed)?;
        for word in text.get().split(' ').filter(|word| !word.is_empty()) {
            let count = words.entry(format!("{SPACE}{word}")).or_default();
            *count = count.saturating_add(1);
        }
    }
    Ok(words)
}

/// The special tokens, and the pieces of words with their scores.
fn train_pieces(
    words: &HashMap<String, u32>,
    alphabet: &BTreeMap<char, u64>,
    config: &VocabularyConfig,
) -> Result<Vec<(String, f64)>> {
    let special = |text: &str| AddedToken::from(text, true);
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(config.pieces as u32)
        // A hundred candidates for each piece are plenty, and the first round's time is proportional to them.
        .seed_size((config.pieces * 100).clamp(10_000, 1_000_000))
        .special_tokens(vec![special("<pad>"), special("</s>"), special("<unk>")])
        .unk_token(Some("<unk>".into()))
        .max_piece_length(config.max_piece_length)
        .initial_alphabet(alphabet.keys().copied().collect())
        .build()
        .map_err(|e| Error::Invalid(format!("vocabulary: {e}")))?;
    let mut runs: BTreeMap<&str, u32> = BTreeMap::new();
    for (word, &count) in words {
        for run in runs_of_one_kind(word) {
            let sum = runs.entry(run).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    // Candidates are substrings that are followed by different characters, and a frequent word that is no part of
    // longer ones is followed by nothing: a copy with a mark behind it, which counts as zero words, makes it one. The
    // mark has to count as something, or its logarithm would not.
    let mark = |&(c, count): &(&char, &u64)| (!c.is_alphanumeric() && *c != SPACE, *count);
    let mark = alphabet.iter().max_by_key(mark).map_or('.', |(c, _)| *c);
    let copies = runs.iter().filter(|(_, count)| **count > 1).map(|(run, _)| (format!("{run}{mark}"), 0));
    // In a fixed order: the trainer's sums depend on it.
    let sentences: Vec<(String, u32)> = runs
        .iter()
        .map(|(run, &count)| (run.to_string(), count))
        .chain([(mark.to_string(), 1)])
        .chain(copies)
        .collect();
    let mut model = Unigram::default();
    trainer.do_train(sentences, &mut model).map_err(failed)?;
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    // Characters that no piece needed are put back with scores a little above the lowest, each a step higher, in the
    // order of a hash table: all get the lowest, so that the same text gives the same vocabulary.
    let lowest = pieces[3..].iter().map(|(_, score)| *score).fold(0.0, f64::min);
    let highest = lowest + 1e-4 * (alphabet.len() + 1) as f64;
    for (piece, score) in &mut pieces[3..] {
        if piece.chars().nth(1).is_none() && *score <= highest {
            *score = lowest;
        }
    }
    Ok(pieces)
}

/// Makes words single pieces. They take the places of the least likely other pieces that are no single characters,
/// until no more than `most` are left. `total` is the number of words of the text.
fn insert_whole_words(pieces: &mut Vec<(String, f64)>, whole: &[(String, u32)], total: u64, most: usize) {
    for (word, count) in whole {
        // Its own frequency, and in any case better than the best way to spell it in other pieces.
        let frequency = (f64::from((*count).max(1)) / total.max(1) as f64).ln();
        let spelled = best_spelling(word, pieces);
        pieces.retain(|(piece, _)| piece != word);
        pieces.push((word.clone(), frequency.max(spelled + 1.0).min(0.0)));
    }
    sort_by_score(&mut pieces[3..]);
    let whole: HashSet<&String> = whole.iter().map(|(word, _)| word).collect();
    let removable = |piece: &String| piece.chars().nth(1).is_some() && !whole.contains(piece);
    while let Some(at) = pieces.iter().rposition(|(piece, _)| removable(piece)).filter(|_| pieces.len() > most) {
        pieces.remove(at);
    }
}

/// The most likely pieces first. Names decide between equal scores, whose order follows a hash table.
fn sort_by_score(pieces: &mut [(String, f64)]) {
    pieces.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Invalid(format!("vocabulary: {error}"))
}

/// Parts of a word that pieces do not cross, as SentencePiece's `split_by_unicode_script`: letters (with the space mark
/// before them, digits and apostrophes between them), and everything else.
fn runs_of_one_kind(word: &str) -> Vec<&str> {
    let chars: Vec<(usize, char)> = word.char_indices().collect();
    let letter = |i: usize| chars.get(i).is_some_and(|(_, c)| c.is_alphanumeric());
    let in_word = |i: usize| {
        let inner = i > 0 && letter(i - 1) && letter(i + 1);
        letter(i) || (matches!(chars[i].1, '\'' | '’') && inner)
    };
    let mut runs = Vec::new();
    let mut start = 0;
    for i in 1..chars.len() {
        // The space mark belongs to what follows it.
        if chars[i - 1].1 != SPACE && in_word(i) != in_word(i - 1) {
            runs.push(&word[start..chars[i].0]);
            start = chars[i].0;
        }
    }
    runs.push(&word[start..]);
    runs
}

/// The score of the best segmentation of a word into pieces; the lowest piece's for what none covers.
fn best_spelling(word: &str, pieces: &[(String, f64)]) -> f64 {
    let scores: HashMap<&str, f64> = pieces.iter().map(|(piece, score)| (piece.as_str(), *score)).collect();
    let lowest = pieces.iter().map(|(_, score)| *score).fold(0.0, f64::min);
    let ends: Vec<usize> = word.char_indices().map(|(at, _)| at).skip(1).chain([word.len()]).collect();
    let mut best: BTreeMap<usize, f64> = BTreeMap::from([(0, 0.0)]);
    let mut start_of_char = 0;
    for &end in &ends {
        let score = best
            .iter()
            .filter_map(|(&start, &before)| scores.get(&word[start..end]).map(|score| before + score))
            .fold(best[&start_of_char] + lowest - 10.0, f64::max);
        best.insert(end, score);
        start_of_char = end;
    }
    best[&word.len()]
}

/// The characters that cover a share of the text, with their counts; always the space mark and those required.
fn alphabet(words: &HashMap<String, u32>, required: &str, coverage: f64) -> BTreeMap<char, u64> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, &count) in words {
        for c in word.chars() {
            *counts.entry(c).or_default() += u64::from(count);
        }
    }
    let total: u64 = counts.values().sum();
    let mut by_count: Vec<(char, u64)> = counts.into_iter().collect();
    by_count.sort_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
    let mut covered = 0u64;
    let mut alphabet: BTreeMap<char, u64> = by_count
        .into_iter()
        .take_while(|&(_, count)| {
            let wanted = (covered as f64) < coverage * total as f64;
            covered += count;
            wanted
        })
        .collect();
    for c in required.chars().filter(|c| !c.is_whitespace()).chain([SPACE]) {
        alphabet.entry(c).or_insert(0);
    }
    alphabet
}

/// `nmt_nfkc`, then runs of spaces become one, as SentencePiece's `remove_extra_whitespaces` does.
fn normalizer() -> Result<NormalizerWrapper> {
    let map = Precompiled::from(super::nmt_nfkc())
        .map_err(|e| Error::Invalid(format!("vocabulary: the character map is not valid: {e}")))?;
    let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ")
        .map_err(|e| Error::Invalid(format!("vocabulary: {e}")))?;
    Ok(NormalizerWrapper::Sequence(Sequence::new(vec![map.into(), spaces.into()])))
}

/// The trained pieces and the sentinels as a tokenizer in T5's layout.
fn assemble(mut pieces: Vec<(String, f64)>, config: &VocabularyConfig) -> Result<Tokenizer> {
    sort_by_score(&mut pieces[3..]);
    let found = pieces.len();
    if found < config.pieces {
        return Err(Error::Invalid(format!(
            "vocabulary: expected text for {} pieces, found only {found} different ones: \
             ask for fewer or give more text",
            config.pieces
        )));
    }
    for n in (0..config.sentinels).rev() {
        pieces.push((format!("<extra_id_{n}>"), 0.0));
    }
    let model = Unigram::from(pieces, Some(super::UNK as usize), false).map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    let metaspace = Metaspace::new(SPACE, PrependScheme::Always, true);
    let post = TemplateProcessing::builder()
        .try_single("$A </s>")
        .and_then(|builder| builder.try_pair("$A </s> $B </s>"))
        .map_err(|e| Error::Invalid(format!("vocabulary: {e}")))?
        .special_tokens(vec![("</s>", super::EOS)])
        .build()
        .map_err(|e| Error::Invalid(format!("vocabulary: {e}")))?;
    tokenizer
        .with_normalizer(Some(normalizer()?))
        .map_err(failed)?
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Metaspace(metaspace.clone())))
        .with_post_processor(Some(PostProcessorWrapper::Template(post)))
        .with_decoder(Some(DecoderWrapper::Metaspace(metaspace)));
    let sentinels = (0..config.sentinels).rev().map(|n| format!("<extra_id_{n}>"));
    let special: Vec<AddedToken> = ["<pad>".to_string(), "</s>".into(), "<unk>".into()]
        .into_iter()
        .chain(sentinels)
        .map(|text| AddedToken::from(text, true).normalized(false))
        .collect();
    tokenizer.add_special_tokens(special).map_err(failed)?;
    Ok(tokenizer)
}

/// Checks the name of a file that [`save`] is to write, before there is something to lose.
///
/// # Errors
/// Where the name is that of a file of another kind, as which it would be read.
pub fn check_name(path: &Path) -> Result<()> {
    if super::is_gguf(path) || super::is_sentencepiece(path) {
        let what =
            format!("expected a name such as tokenizer.json, as what is written is JSON, found {}", path.display());
        return Err(Error::Option { option: "output", what });
    }
    Ok(())
}

/// Writes a trained tokenizer as `tokenizer.json`, in one step, and reads it back, checked.
///
/// # Errors
/// Where the file cannot be written (the old one is then still there), or what was written is no T5 vocabulary.
pub fn save(tokenizer: &Tokenizer, path: &Path) -> Result<Vocabulary> {
    let json = tokenizer
        .to_string(true)
        .map_err(|e| Error::file(path, format!("the vocabulary cannot be written as JSON: {e}")))?;
    files::replace(path, json.as_bytes())?;
    Vocabulary::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VocabularyConfig {
        VocabularyConfig {
            pieces: 80,
            sentinels: 10,
            whole_words: vec!["AH0".into(), "K".into(), "ZH".into()],
            required_characters: "abcz?!~é".into(),
            ..VocabularyConfig::default()
        }
    }

    fn texts() -> Vec<String> {
        let pairs = crate::testing::sentence_pairs(400);
        let mut texts: Vec<String> = pairs.lines().map(|line| line.replace('\t', " ")).collect();
        texts.extend((0..200).map(|_| "tom says: K AH0 K, don't!".to_string()));
        texts
    }

    #[test]
    fn trains_a_vocabulary_in_t5_layout() {
        let texts = texts();
        let config = config();
        let tokenizer = train(texts.iter().map(String::as_str), &config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Who still reads an old file keeps it.
        let [path, old] = ["tokenizer.json", "old"].map(|name| dir.path().join(name));
        std::fs::write(&path, "old").unwrap();
        std::fs::hard_link(&path, &old).unwrap();
        let vocabulary = save(&tokenizer, &path).unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
        assert_eq!((vocabulary.size(), config.rows()), (90, 128));
        assert_eq!((vocabulary.sentinels().first, vocabulary.sentinels().count), (89, 10));
        assert_eq!(
            [0, 1, 2, 89, 80].map(|id| vocabulary.piece(id)),
            ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_9>"]
        );
        // Whole words are one piece, also one that the text does not have.
        for word in ["AH0", "K", "ZH"] {
            assert_eq!(vocabulary.encode(word).len(), 1, "{word}");
        }
        // Required characters are known, others are not.
        assert!(!vocabulary.encode("z~é").contains(&2));
        assert!(vocabulary.encode("日").contains(&2));
        // Pieces keep to letters or to marks.
        for id in 3..80 {
            let piece = vocabulary.piece(id).trim_start_matches(SPACE);
            let letters = piece.chars().filter(|c| c.is_alphanumeric()).count();
            assert!(letters == 0 || piece.chars().all(|c| c.is_alphanumeric() || c == '\''), "{piece}");
        }
        assert_eq!(vocabulary.decode(&vocabulary.encode("tom sees a red house.")), "tom sees a red house.");
        // The runtime and the reference give the same ids.
        let odd = ["", " ", "tom  sees\tthe\u{200B}house", "ﬁve don't K?", "AH0AH0 K", "日 z"];
        for text in texts.iter().map(String::as_str).take(50).chain(odd) {
            let reference = tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
            assert_eq!(vocabulary.encode(text), reference, "{text:?}");
        }
        let [before, after] = ["ﬁve don't", " K?"].map(|text| vocabulary.encode(text));
        assert_eq!(vocabulary.encode("ﬁve don't <extra_id_3> K?"), [before, vec![86], after].concat());
        // The same text gives the same vocabulary.
        let again = train(texts.iter().map(String::as_str), &config).unwrap();
        assert_eq!(again.to_string(false).unwrap(), tokenizer.to_string(false).unwrap());
    }

    #[test]
    fn too_little_text_is_an_error() {
        let error = train(["a b"].into_iter(), &config()).unwrap_err().to_string();
        assert!(error.contains("expected text for 80 pieces, found only"), "{error}");
        assert!(
            train([].into_iter(), &config()).unwrap_err().to_string().contains("expected text to train on, found none")
        );
        let few = VocabularyConfig { pieces: 12, ..config() };
        let texts = texts();
        let error = train(texts.iter().map(String::as_str), &few).unwrap_err().to_string();
        assert!(error.contains("expected more pieces than the alphabet's"), "{error}");
    }

    #[test]
    fn runs_divide_letters_from_marks() {
        assert_eq!(runs_of_one_kind("▁don't."), ["▁don't", "."]);
        assert_eq!(runs_of_one_kind("▁'It's(3.5)"), ["▁'", "It's", "(", "3", ".", "5", ")"]);
        assert_eq!(runs_of_one_kind("▁«Où"), ["▁«", "Où"]);
        assert_eq!(runs_of_one_kind("▁"), ["▁"]);
    }

    #[test]
    fn the_best_spelling_is_the_most_probable_one() {
        let pieces =
            [("▁".to_string(), -3.0), ("▁A".to_string(), -4.0), ("A".to_string(), -2.0), ("H".to_string(), -1.5)];
        assert_eq!(best_spelling("▁AH", &pieces), -5.5);
        assert_eq!(best_spelling("▁A?", &pieces), -4.0 - 4.0 - 10.0);
    }
}
