//! The Winograd family as text to text: a pronoun is marked with asterisks, the target is the noun that it means.

use super::TextExample;

/// Pronouns that WNLI's hypotheses replace.
const PRONOUNS: [&str; 9] = ["he", "she", "they", "it", "her", "his", "their", "them", "him"];
const ARTICLES: [&str; 3] = ["a", "an", "the"];
/// Words that do not tell nouns apart.
const DETERMINERS: [&str; 21] = [
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that", "the", "their",
    "these", "this", "those", "which", "whose", "your",
];

/// Definite pronoun resolution: the first ` pronoun` before a space, a full stop or a comma is marked.
pub(super) fn dpr(sentence: &str, pronoun: &str, candidates: &[String], label: &str) -> Result<TextExample, String> {
    let wanted = format!(" {pronoun}");
    let at = sentence
        .match_indices(&wanted)
        .map(|(at, _)| at)
        .find(|at| sentence[at + wanted.len()..].starts_with([' ', '.', ',']))
        .ok_or_else(|| format!("sentence: expected the pronoun {pronoun:?}, found {sentence:?}"))?;
    let target = label
        .parse::<usize>()
        .ok()
        .and_then(|label| candidates.get(label))
        .ok_or_else(|| format!("label: expected 0 to {}, found {label:?}", candidates.len().saturating_sub(1)))?;
    let (before, after) = (&sentence[..at], &sentence[at + wanted.len()..]);
    Ok(TextExample::new(format!("wsc: {before} *{pronoun}*{after}"), target.as_str()))
}

/// A Winograd schema: the word at `index` (words are separated by single spaces) is marked.
///
/// Two published texts have the pronoun beside its place or before a mark: then the nearest word that is the pronoun,
/// marks aside, is taken, and the marks are set off by a space.
pub(super) fn wsc(text: &str, noun: &str, pronoun: &str, index: usize) -> Result<TextExample, String> {
    let words: Vec<&str> = text.split(' ').collect();
    let same = |word: &str| word.trim_end_matches(|c: char| c.is_ascii_punctuation()).eq_ignore_ascii_case(pronoun);
    let at = (0..words.len())
        .filter(|&i| same(words[i]))
        .min_by_key(|&i| i.abs_diff(index))
        .ok_or_else(|| format!("text: expected the pronoun {pronoun:?}, found {text:?}"))?;
    let (word, marks) = words[at].split_at(pronoun.len());
    let marked = if marks.is_empty() { format!("*{word}*") } else { format!("*{word}* {marks}") };
    let all: Vec<&str> =
        words[..at].iter().copied().chain([marked.as_str()]).chain(words[at + 1..].iter().copied()).collect();
    Ok(TextExample::new(format!("wsc: {}", all.join(" ").trim_end()), noun))
}

/// A WNLI pair as a Winograd schema: (inputs, the noun that the hypothesis puts in place of a pronoun), or `None`
/// where the premise has no pronoun.
///
/// Of the premise's pronouns, the one whose surroundings the hypothesis repeats most is meant. Its noun is what the
/// hypothesis has between the repeated parts, from the last article on.
pub fn wnli_to_wsc(premise: &str, hypothesis: &str) -> Option<(String, String)> {
    let words: Vec<&str> = premise.split_whitespace().collect();
    let said: Vec<&str> = hypothesis.split_whitespace().collect();
    let (plain, plain_said) = (plain_words(&words), plain_words(&said));
    let mut best: Option<(usize, Surroundings)> = None;
    for (i, word) in plain.iter().enumerate() {
        if !PRONOUNS.contains(&word.as_str()) {
            continue;
        }
        let found = Surroundings::find(&plain[..i], &plain[i + 1..], &plain_said);
        if best.as_ref().is_none_or(|(_, known)| found.score() > known.score()) {
            best = Some((i, found));
        }
    }
    let (at, found) = best?;
    let (word, mark) = split_mark(words[at]);
    let marked = if mark.is_empty() { format!("*{word}*") } else { format!("*{word}* {mark}") };
    let all: Vec<&str> =
        words[..at].iter().copied().chain([marked.as_str()]).chain(words[at + 1..].iter().copied()).collect();
    let range = found.between(said.len());
    let range =
        range.clone().rev().find(|&i| ARTICLES.contains(&plain_said[i].as_str())).unwrap_or(range.start)..range.end;
    let noun = said[range].join(" ");
    let noun = split_mark(&noun).0;
    let noun = noun.strip_suffix("'s").or_else(|| noun.strip_suffix('\'')).unwrap_or(noun);
    Some((format!("wsc: {}", all.join(" ")), noun.to_string()))
}

/// The longest parts next to a pronoun that another sentence repeats: (place there, length).
struct Surroundings {
    before: (usize, usize),
    after: (usize, usize),
}

impl Surroundings {
    fn find(before: &[String], after: &[String], said: &[String]) -> Surroundings {
        let place = |part: &[String]| {
            if part.is_empty() { None } else { said.windows(part.len()).position(|window| window == part) }
        };
        let longest = |part: &dyn Fn(usize) -> Vec<String>, most: usize| {
            (1..=most).rev().find_map(|len| place(&part(len)).map(|at| (at, len))).unwrap_or((0, 0))
        };
        Surroundings {
            before: longest(&|len| before[before.len() - len..].to_vec(), before.len()),
            after: longest(&|len| after[..len].to_vec(), after.len()),
        }
    }

    fn score(&self) -> usize {
        self.before.1 + self.after.1
    }

    /// What lies between the two; where nothing does, what lies before the one or behind the other.
    fn between(&self, len: usize) -> std::ops::Range<usize> {
        let start = self.before.0 + self.before.1;
        let end = if self.after.1 > 0 { self.after.0 } else { len };
        if start < end {
            start..end
        } else if self.after.1 > 0 && self.after.0 > 0 {
            0..self.after.0
        } else {
            start.min(len)..len
        }
    }
}

/// Small letters without one last mark.
fn plain_words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| split_mark(word).0.to_lowercase()).collect()
}

fn split_mark(word: &str) -> (&str, &str) {
    if word.ends_with(['.', ',', '?', '!']) { word.split_at(word.len() - 1) } else { (word, "") }
}

/// Whether a predicted noun means the referent: 1 or 0, and -1 where nothing is left of the prediction.
///
/// Determiners do not count. One of the two with a possessive and one without do not mean the same.
pub fn wsc_score(prediction: &str, referent: &str) -> i32 {
    let words = |text: &str| -> Vec<String> {
        text.trim()
            .to_lowercase()
            .split(' ')
            .filter(|word| !word.is_empty() && !DETERMINERS.contains(word))
            .map(str::to_string)
            .collect()
    };
    let (predicted, wanted) = (words(prediction), words(referent));
    if predicted.is_empty() {
        return -1;
    }
    if prediction.contains('\'') != referent.contains('\'') {
        return 0;
    }
    let within = |a: &[String], b: &[String]| a.iter().all(|word| b.contains(word));
    i32::from(within(&predicted, &wanted) || within(&wanted, &predicted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wnli_vectors_of_the_reference() {
        let cases = [
            (
                "Lily spoke to Donna breaking her silence.",
                "Lily spoke to Donna breaking Donna's silence.",
                "wsc: Lily spoke to Donna breaking *her* silence.",
                "Donna",
            ),
            (
                "The fish ate the worm. It was tasty.",
                "The worm was tasty.",
                "wsc: The fish ate the worm. *It* was tasty.",
                "The worm",
            ),
            (
                "Edward dropped adhesive tape onto his window sill, and when he pulled the tape off, some of the glue \
                 was stuck on it.",
                "Some of the glue was stuck on the window sill.",
                "wsc: Edward dropped adhesive tape onto his window sill, and when he pulled the tape off, some of the \
                 glue was stuck on *it* .",
                "the window sill",
            ),
            (
                "Al stole Bob's wallet and car, and then he was driving it really fast to get away.",
                "He was driving the car really fast to get away.",
                "wsc: Al stole Bob's wallet and car, and then he was driving *it* really fast to get away.",
                "the car",
            ),
        ];
        for (premise, hypothesis, inputs, noun) in cases {
            assert_eq!(wnli_to_wsc(premise, hypothesis), Some((inputs.to_string(), noun.to_string())));
        }
        assert_eq!(wnli_to_wsc("No pronoun here.", "None."), None);
        // Nothing in common: no panic, some noun.
        assert!(wnli_to_wsc("it", "").is_some() && wnli_to_wsc("He left.", "Tom").is_some());
    }

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
        assert!(
            dpr("Bob left.", "he", &candidates, "0").is_err() && dpr("Now he left.", "he", &candidates, "2").is_err()
        );
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
        ] {
            assert_eq!(wsc_score(prediction, referent), expected, "{prediction} {referent}");
        }
    }
}
