//! The Winograd family as text to text: a pronoun is marked with asterisks, the target is the noun that it means.

use crate::tasks::example::TextExample;

/// Words that do not tell nouns apart.
const DETERMINERS: [&str; 21] = [
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that", "the", "their",
    "these", "this", "those", "which", "whose", "your",
];

/// Definite pronoun resolution: the first ` pronoun` before a space, a full stop or a comma is marked. Without one the
/// sentence stays as it is.
pub(super) fn dpr(sentence: &str, pronoun: &str, candidates: &[String], label: &str) -> Result<TextExample, String> {
    let target = label
        .parse::<usize>()
        .ok()
        .and_then(|label| candidates.get(label))
        .ok_or_else(|| format!("label: expected 0 to {}, found {label:?}", candidates.len().saturating_sub(1)))?;
    let wanted = format!(" {pronoun}");
    let places = sentence.match_indices(&wanted).map(|(at, _)| sentence.split_at(at));
    let mut parts = places.map(|(before, rest)| (before, &rest[wanted.len()..]));
    let marked = match parts.find(|(_, after)| after.starts_with([' ', '.', ','])) {
        Some((before, after)) => format!("wsc: {before} *{pronoun}*{after}"),
        None => format!("wsc: {sentence}"),
    };
    Ok(TextExample::new(marked, target.as_str()))
}

/// A Winograd schema: the word at `index` (words are separated by single spaces) is marked.
///
/// Two published texts have the pronoun beside its place or before a mark that is no part of it: then the nearest word
/// that is the pronoun, marks aside, is taken, and the marks are set off by a space.
pub(super) fn wsc(text: &str, noun: &str, pronoun: &str, index: usize) -> Result<TextExample, String> {
    let words: Vec<&str> = text.split(' ').collect();
    let with = |at: usize, marked: &str| {
        let mut words = words.clone();
        words[at] = marked;
        format!("wsc: {}", words.join(" "))
    };
    if words.get(index) == Some(&pronoun) {
        return Ok(TextExample::new(with(index, &format!("*{pronoun}*")), noun));
    }
    let same = |word: &str| word.trim_end_matches(|c: char| c.is_ascii_punctuation()).eq_ignore_ascii_case(pronoun);
    let at = (0..words.len())
        .filter(|&i| same(words[i]))
        .min_by_key(|&i| i.abs_diff(index))
        .ok_or_else(|| format!("text: expected the pronoun {pronoun:?}, found {text:?}"))?;
    let (word, marks) = words[at].split_at(pronoun.len());
    let marked = if marks.is_empty() { format!("*{word}*") } else { format!("*{word}* {marks}") };
    Ok(TextExample::new(with(at, &marked).trim_end(), noun))
}

/// Whether a predicted noun means the referent: 1 or 0, and -1 where nothing is left of the prediction.
///
/// Determiners do not count. One of the two with a possessive and one without do not mean the same. As in the
/// reference, two spaces have an empty word between them, and a referent of nothing but determiners is an empty word.
pub fn wsc_score(prediction: &str, referent: &str) -> i32 {
    let clean = |text: &str| {
        let lower = text.trim().to_lowercase();
        lower.split(' ').filter(|word| !DETERMINERS.contains(word)).collect::<Vec<_>>().join(" ")
    };
    let (prediction, referent) = (clean(prediction), clean(referent));
    if prediction.is_empty() {
        return -1;
    }
    if prediction.contains('\'') != referent.contains('\'') {
        return 0;
    }
    let (predicted, wanted): (Vec<&str>, Vec<&str>) = (prediction.split(' ').collect(), referent.split(' ').collect());
    let within = |a: &[&str], b: &[&str]| a.iter().all(|word| b.contains(word));
    i32::from(within(&predicted, &wanted) || within(&wanted, &predicted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas() {
        let example = wsc("Mitchell asked Tom if he could lend some money.", "Tom", "he", 4).unwrap();
        assert_eq!(
            (example.inputs.as_str(), example.targets.as_str()),
            ("wsc: Mitchell asked Tom if *he* could lend some money.", "Tom")
        );
        // The two irregular texts.
        let example = wsc("John laughed out quite loud. \"Good for him,\" he said. ", "the pony", "him", 7).unwrap();
        assert_eq!(example.inputs, "wsc: John laughed out quite loud. \"Good for *him* ,\" he said.");
        let example = wsc("Some day they might want to use it , but really", "the pebble", "it", 6).unwrap();
        assert_eq!(example.inputs, "wsc: Some day they might want to use *it* , but really");
        assert!(wsc("none", "x", "he", 0).is_err());
        let candidates = ["Bob".to_string(), "Al".to_string()];
        let example = dpr("Bob gave Al theirs, but he kept it, he said.", "he", &candidates, "0").unwrap();
        assert_eq!(
            (example.inputs.as_str(), example.targets.as_str()),
            ("wsc: Bob gave Al theirs, but *he* kept it, he said.", "Bob")
        );
        assert!(dpr("Now he left.", "he", &candidates, "2").is_err());
    }

    #[test]
    fn a_pronoun_with_its_mark_is_marked_with_it() {
        // As two texts of the test set have it.
        let text = "Sam lay down with a blanket stretched out beside it, a book in his hand.";
        let example = wsc(text, "a blanket", "it,", 9).unwrap();
        let expected = "wsc: Sam lay down with a blanket stretched out beside *it,* a book in his hand.";
        assert_eq!(example.inputs, expected);
    }

    #[test]
    fn a_sentence_without_its_pronoun_is_kept() {
        let candidates = ["Bob".to_string(), "Al".to_string()];
        for (sentence, pronoun) in [("ends with he", "he"), ("Bob left.", "he"), ("Then he; he!", "he")] {
            let example = dpr(sentence, pronoun, &candidates, "1").unwrap();
            assert_eq!((example.inputs, example.targets.as_str()), (format!("wsc: {sentence}"), "Al"));
        }
    }

    #[test]
    fn scores_of_the_reference() {
        for (prediction, referent, expected) in [
            ("the cat", "cat", 1),
            ("Bob's hat", "Bob", 0),
            ("fuzzy bunny", "fuzzy hungry bunny", 1),
            ("a potato", "my potato", 1),
            ("a this", "cat", -1),
            ("dog", "cat", 0),
            // A referent of nothing but determiners.
            ("cat", "his", 0),
            ("cat", "a this", 0),
            ("cat", "", 0),
            // Two spaces have an empty word between them.
            ("cat dog", "The  Cat", 0),
            ("the   this", "x  y", 1),
            ("a   b", "b", 1),
            ("a  the", "cat", -1),
            ("his's", "his", 0),
        ] {
            assert_eq!(wsc_score(prediction, referent), expected, "{prediction} {referent}");
        }
    }
}
