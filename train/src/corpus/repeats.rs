//! Text that is elsewhere, too: of lines (C4's code) or spans of three sentences (the paper) all but one occurrence go.

use std::collections::BTreeSet;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::clean::MIN_SENTENCES;
use super::text::{lines, strip};
use crate::tasks::split_sentences;

/// Sentences of a span.
pub const SPAN: usize = 3;

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Lines, as the code that made the published corpus.
    #[default]
    Lines,
    /// Spans of three sentences, as the paper says.
    Spans,
    /// Nothing.
    None,
}

/// A hash of 128 bits, whose order is that of its hexadecimal digits.
pub type Hash = [u8; 16];

/// The hash of a text.
pub fn hash(text: &str) -> Hash {
    Md5::digest(text.as_bytes()).into()
}

/// Where a unit occurs, to be compared: of two occurrences that with the smaller place is kept. First the hash of the
/// page's address, then the unit's number in the page, high byte first.
pub fn place(page: &Hash, at: u32) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(page);
    place[16..].copy_from_slice(&at.to_be_bytes());
    place
}

/// The hashes of a text's units in order, each with its number in the text. Empty lines, which any text may have, are
/// numbered and have none.
pub fn hashes(text: &str, unit: Unit) -> Vec<(u32, Hash)> {
    let fold = |text: &str| strip(text).to_lowercase();
    match unit {
        Unit::None => Vec::new(),
        Unit::Lines => {
            let folded = (0..).zip(lines(text).map(fold)).filter(|(_, line)| !line.is_empty());
            folded.map(|(at, line)| (at, hash(&line))).collect()
        }
        Unit::Spans => {
            let sentences: Vec<String> = lines(text).flat_map(split_sentences).map(fold).collect();
            (0..).zip(sentences.windows(SPAN).map(|span| hash(&span.join("\n")))).collect()
        }
    }
}

/// A text without the units of some numbers; `None` where fewer than three sentences are left.
pub fn without(text: &str, unit: Unit, gone: &BTreeSet<u32>) -> Option<String> {
    if gone.is_empty() {
        return Some(text.to_owned());
    }
    let is_gone = |at: usize| u32::try_from(at).is_ok_and(|at| gone.contains(&at));
    let mut number = 0;
    let mut sentences = 0;
    let mut kept: Vec<String> = Vec::new();
    for (at, line) in lines(text).enumerate() {
        let left = match unit {
            Unit::None => line.to_owned(),
            Unit::Lines if is_gone(at) => continue,
            Unit::Lines => line.to_owned(),
            Unit::Spans => {
                let left = split_sentences(line).into_iter().filter(|_| {
                    number += 1;
                    !(number.max(SPAN) - SPAN..number).any(is_gone)
                });
                left.collect::<Vec<_>>().join(" ")
            }
        };
        // A line of which nothing is left goes; one that was empty is between paragraphs.
        if !left.is_empty() || strip(line).is_empty() {
            sentences += split_sentences(&left).len();
            kept.push(left);
        }
    }
    (sentences >= MIN_SENTENCES).then(|| kept.join("\n").trim_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(numbers: &[u32]) -> BTreeSet<u32> {
        numbers.iter().copied().collect()
    }

    #[test]
    fn lines_are_the_same_whatever_their_case_and_ends() {
        let found = hashes("The end.\n  the END. \n\n\u{A0}\nThe end!", Unit::Lines);
        // Empty lines have no hash.
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(found[0].1, found[1].1);
        assert_ne!(found[0].1, found[2].1);
        // `md5("the end.")`, by Python's hashlib.
        assert_eq!(crate::files::hex(&found[0].1), HEX);
    }

    #[test]
    fn paragraphs_stay_apart() {
        let text = "Aa. Bb.\n\nCc.\n \nDd. Ee.";
        let [first, ..] = hashes(text, Unit::Lines)[..] else { panic!("a line") };
        assert_eq!(without(text, Unit::Lines, &gone(&[first.0])).unwrap(), "Cc.\n \nDd. Ee.");
        assert_eq!(without(text, Unit::Lines, &gone(&[2, 4])), None);
        let text = "One a.\n\nTwo b. Three c.\n\nFour d. Five e. Six f.";
        assert_eq!(without(text, Unit::Spans, &gone(&[0])).unwrap(), "Four d. Five e. Six f.");
    }

    const HEX: &str = "a71e884741fddc49847c1e75eb3b4ae1";

    #[test]
    fn a_span_is_three_sentences_over_lines() {
        let text = "A one. B two.\nC three. D four.";
        let found = hashes(text, Unit::Spans);
        assert_eq!(found.len(), 2);
        assert_eq!(hashes("a one.\nB TWO. C three.", Unit::Spans), found[..1]);
        assert_ne!(hashes("A one. B two. C four.", Unit::Spans), found[..1]);
        // Two sentences are no span.
        assert!(hashes("A one. B two.", Unit::Spans).is_empty());
        assert!(hashes(text, Unit::None).is_empty());
    }

    #[test]
    fn what_is_elsewhere_is_left_out_and_three_sentences_must_stay() {
        let text = "Aa. Bb.\nCc.\nDd. Ee.";
        assert_eq!(without(text, Unit::Lines, &gone(&[])).unwrap(), text);
        assert_eq!(without(text, Unit::Lines, &gone(&[1])).unwrap(), "Aa. Bb.\nDd. Ee.");
        assert_eq!(without(text, Unit::Lines, &gone(&[0])).unwrap(), "Cc.\nDd. Ee.");
        assert_eq!(without(text, Unit::Lines, &gone(&[0, 1])), None);
        let text = "One a. Two b.\nThree c.\nFour d. Five e. Six f.";
        assert_eq!(without(text, Unit::Spans, &gone(&[0])).unwrap(), "Four d. Five e. Six f.");
        assert_eq!(without(text, Unit::Spans, &gone(&[1])).unwrap(), "One a.\nFive e. Six f.");
        assert_eq!(without(text, Unit::Spans, &gone(&[3])).unwrap(), "One a. Two b.\nThree c.");
        assert_eq!(without(text, Unit::Spans, &gone(&[0, 3])), None);
    }

    #[test]
    fn the_smaller_place_is_first_by_page_and_then_by_number() {
        let (a, b) = ([1; 16], [2; 16]);
        assert!(place(&a, 300) < place(&b, 0));
        assert!(place(&a, 1) < place(&a, 256));
    }
}
