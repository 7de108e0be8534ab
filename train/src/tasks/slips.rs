//! Typing and grammar slips, added to clean sentences: the training data of the task `fix`.
//!
//! A slip is one small, local mistake of the kinds that people make when they type: letters changed, lost, doubled or
//! swapped, a neighbour's key, words that sound alike, a wrong article or verb form, a missing apostrophe, capital or
//! mark, a space too many or too few. Everything is a pure function of the text and a seed.

mod bare;
mod grammar;
mod words;

use crate::random::Random;
use bare::{lower_core, with_core};
use words::{AGREEMENT, MISSPELLINGS, SOUNDS_ALIKE};

/// How many slips of which sort a text gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slips {
    /// Expected slips per word.
    pub rate: f64,
    /// The share of texts that stay as they are, so that a model also learns to leave right sentences alone.
    pub clean: f64,
    /// The share of slips that are of grammar; the others are of typing and spelling.
    pub grammar: f64,
}

impl Slips {
    /// The share of clean texts where a task does not say it.
    pub const USUAL_CLEAN_SHARE: f64 = 0.08;

    /// Says what is out of range.
    pub(super) fn check(&self) -> Result<(), String> {
        let Slips { rate, clean, grammar } = self;
        if !(0.0..=10.0).contains(rate) {
            return Err(format!("rate: expected 0 to 10 slips per word, found {rate}"));
        }
        for (name, share) in [("clean", clean), ("grammar", grammar)] {
            if !(0.0..=1.0).contains(share) {
                return Err(format!("{name}: expected a share of 0 to 1, found {share}"));
            }
        }
        Ok(())
    }
}

/// The kinds of slips with their weights.
const KINDS: [(SlipKind, u32); 14] = [
    (SlipKind::Transpose, 14),
    (SlipKind::DropLetter, 14),
    (SlipKind::DoubleLetter, 8),
    (SlipKind::NeighbourKey, 14),
    (SlipKind::ExtraKey, 6),
    (SlipKind::SoundsAlike, 12),
    (SlipKind::Misspelling, 8),
    (SlipKind::Article, 6),
    (SlipKind::Agreement, 10),
    (SlipKind::Apostrophe, 8),
    (SlipKind::Case, 8),
    (SlipKind::Space, 7),
    (SlipKind::Mark, 5),
    (SlipKind::DoubleWord, 3),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlipKind {
    Transpose,
    DropLetter,
    DoubleLetter,
    NeighbourKey,
    ExtraKey,
    SoundsAlike,
    Misspelling,
    Article,
    Agreement,
    Apostrophe,
    Case,
    Space,
    Mark,
    DoubleWord,
}

const KEY_ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// Adds slips to a text: none in a few texts, else one and, for each word, another with probability `rate`.
pub fn add_slips(text: &str, slips: &Slips, seed: u64) -> String {
    let Slips { rate, clean, grammar } = *slips;
    let random = &mut Random::new(seed);
    let mut words: Vec<String> = text.split(' ').map(str::to_string).collect();
    if rate <= 0.0 || random.chance(clean) {
        return text.to_string();
    }
    let more = words.iter().skip(1).filter(|_| random.chance(rate)).count();
    let total: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
    // More slips than half the words would leave nothing to mend them by.
    for _ in 0..(1 + more).min(words.len().div_ceil(2)) {
        // A text without a place for a slip of grammar gets one of typing.
        if grammar > 0.0 && random.chance(grammar) && grammar::slip(&mut words, random) {
            continue;
        }
        // Not every kind of slip finds a place in every text.
        for _ in 0..20 {
            let mut ticket = random.below(total as usize) as u32;
            let kind = KINDS.iter().find(|(_, weight)| {
                let found = ticket < *weight;
                ticket = ticket.wrapping_sub(*weight);
                found
            });
            if kind.is_some_and(|(kind, _)| slip(*kind, &mut words, random)) {
                break;
            }
        }
    }
    words.join(" ")
}

/// Tries one slip of a kind at a random place; false where there is none.
fn slip(kind: SlipKind, words: &mut Vec<String>, random: &mut Random) -> bool {
    let candidates: Vec<usize> = (0..words.len()).filter(|&i| fits(kind, words, i)).collect();
    let Some(&i) = random.choose(&candidates) else { return false };
    match kind {
        SlipKind::Transpose
        | SlipKind::DropLetter
        | SlipKind::DoubleLetter
        | SlipKind::NeighbourKey
        | SlipKind::ExtraKey => {
            words[i] = letters(kind, &words[i], random);
        }
        SlipKind::SoundsAlike => {
            if let Some(other) = random.choose(&sound_alikes(&lower_core(&words[i]))) {
                words[i] = with_core(&words[i], other);
            }
        }
        SlipKind::Misspelling => {
            let core = lower_core(&words[i]);
            if let Some((_, wrong)) = MISSPELLINGS.iter().find(|(right, _)| *right == core) {
                words[i] = with_core(&words[i], wrong);
            }
        }
        SlipKind::Article => match (lower_core(&words[i]).as_str(), random.below(3)) {
            ("a", 0 | 1) => words[i] = with_core(&words[i], "an"),
            ("an", 0 | 1) => words[i] = with_core(&words[i], "a"),
            _ if words.len() > 2 && i + 1 < words.len() => {
                words.remove(i);
            }
            _ => return false,
        },
        SlipKind::Agreement => {
            if let Some(other) = random.choose(&other_forms(&lower_core(&words[i]))) {
                words[i] = with_core(&words[i], other);
            }
        }
        SlipKind::Apostrophe => words[i] = words[i].replacen(['\'', '’'], "", 1),
        SlipKind::Case => {
            let mut chars = words[i].chars();
            let first = chars.next().unwrap_or(' ');
            words[i] = if first.is_uppercase() {
                first.to_lowercase().chain(chars).collect()
            } else {
                first.to_uppercase().chain(chars).collect()
            };
        }
        SlipKind::Space => {
            let len = words[i].chars().count();
            if i + 1 < words.len() && (len < 4 || random.chance(0.6)) {
                let next = words.remove(i + 1);
                words[i].push_str(&next);
            } else if len >= 4 {
                let at = random.between(1, len - 1);
                words[i] = words[i]
                    .chars()
                    .enumerate()
                    .flat_map(|(n, c)| (n == at).then_some(' ').into_iter().chain([c]))
                    .collect();
            } else {
                return false;
            }
        }
        SlipKind::Mark => {
            words[i].pop();
        }
        SlipKind::DoubleWord => words.insert(i, words[i].clone()),
    }
    true
}

/// The words that are written for a word.
fn sound_alikes(word: &str) -> Vec<&'static str> {
    let sets = SOUNDS_ALIKE.iter().filter(|set| set.contains(&word));
    sets.flat_map(|set| set.iter().copied()).filter(|other| *other != word).collect()
}

/// The verb forms and pronouns that change places with a word.
fn other_forms(word: &str) -> Vec<&'static str> {
    let partner = |(a, b): &(&'static str, &'static str)| match (*a == word, b.to_lowercase() == word) {
        (true, _) => Some(*b),
        (_, true) => Some(*a),
        _ => None,
    };
    AGREEMENT.iter().filter_map(partner).collect()
}

fn fits(kind: SlipKind, words: &[String], i: usize) -> bool {
    let word = &words[i];
    let letters = word.chars().filter(char::is_ascii_alphabetic).count();
    let core = || lower_core(word);
    match kind {
        SlipKind::Transpose | SlipKind::DropLetter => letters >= 3,
        SlipKind::DoubleLetter | SlipKind::NeighbourKey | SlipKind::ExtraKey => letters >= 3,
        SlipKind::SoundsAlike => SOUNDS_ALIKE.iter().any(|set| set.contains(&core().as_str())),
        SlipKind::Misspelling => MISSPELLINGS.iter().any(|(right, _)| *right == core()),
        SlipKind::Article => matches!(core().as_str(), "a" | "an" | "the"),
        SlipKind::Agreement => AGREEMENT.iter().any(|(a, b)| *a == core() || b.to_lowercase() == core()),
        SlipKind::Apostrophe => {
            let at = word.find(['\'', '’']);
            at.is_some_and(|at| at > 0 && word[at..].chars().nth(1).is_some_and(char::is_alphabetic))
        }
        // Only capitals that the sentence's rules ask for can be restored; names in the middle count as such.
        SlipKind::Case => {
            word.chars().next().is_some_and(|c| c.is_uppercase() || (i > 0 && c.is_lowercase() && letters > 2))
        }
        SlipKind::Space => letters >= 2 && !word.contains(['\'', '’']),
        SlipKind::Mark => word.ends_with(['.', ',', '?', '!']) && letters > 0,
        SlipKind::DoubleWord => letters > 0 && letters == word.len() && letters <= 5,
    }
}

/// Changes letters inside a word. The place is a letter whose neighbours make the change visible.
fn letters(kind: SlipKind, word: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = word.chars().collect();
    let places: Vec<usize> = (0..chars.len())
        .filter(|&i| {
            let letter = chars[i].is_ascii_alphabetic();
            match kind {
                SlipKind::Transpose => {
                    letter && chars.get(i + 1).is_some_and(|n| n.is_ascii_alphabetic() && *n != chars[i])
                }
                // A lost or changed first letter is rare and hard to mend.
                SlipKind::DropLetter | SlipKind::NeighbourKey => letter && i > 0,
                _ => letter,
            }
        })
        .collect();
    let Some(&i) = random.choose(&places) else { return word.to_string() };
    match kind {
        SlipKind::Transpose => {
            // A capital stays where it is: "Tihs", not "hTis".
            let (a, b) = (chars[i], chars[i + 1]);
            let like = |c: char, model: char| {
                if model.is_uppercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
            };
            (chars[i], chars[i + 1]) = (like(b, a), like(a, b));
        }
        SlipKind::DropLetter => {
            chars.remove(i);
        }
        SlipKind::DoubleLetter => chars.insert(i, chars[i]),
        SlipKind::NeighbourKey => chars[i] = neighbour_key(chars[i], random),
        _ => {
            let key = neighbour_key(chars[i], random).to_ascii_lowercase();
            chars.insert(i + 1, key);
        }
    }
    chars.into_iter().collect()
}

/// A key beside the letter's own on an English keyboard, in the letter's case.
fn neighbour_key(letter: char, random: &mut Random) -> char {
    let lower = letter.to_ascii_lowercase();
    let Some((row, column)) = KEY_ROWS.iter().enumerate().find_map(|(r, keys)| keys.find(lower).map(|c| (r, c))) else {
        return letter;
    };
    let key = |row: usize, column: usize| KEY_ROWS.get(row).and_then(|keys| keys.as_bytes().get(column)).copied();
    let around = [
        column.checked_sub(1).and_then(|c| key(row, c)),
        key(row, column + 1),
        row.checked_sub(1).and_then(|r| key(r, column)),
        key(row + 1, column),
    ];
    let around: Vec<u8> = around.into_iter().flatten().collect();
    let chosen = random.choose(&around).map_or(lower, |&b| char::from(b));
    if letter.is_uppercase() { chosen.to_ascii_uppercase() } else { chosen }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPING: Slips = Slips { rate: 0.1, clean: Slips::USUAL_CLEAN_SHARE, grammar: 0.0 };

    const TEXT: &str = "They're going to the station because an old friend of their father's was waiting there.";

    #[test]
    fn slips_are_a_function_of_text_and_seed() {
        let slipped: Vec<String> = (0..200).map(|seed| add_slips(TEXT, &TYPING, seed)).collect();
        assert_eq!(slipped, (0..200).map(|seed| add_slips(TEXT, &TYPING, seed)).collect::<Vec<_>>());
        let clean = slipped.iter().filter(|s| *s == TEXT).count();
        // 8 % of 200, and the rare slip that changes nothing.
        assert!((4..40).contains(&clean), "{clean}");
        let different: std::collections::HashSet<_> = slipped.iter().collect();
        assert!(different.len() > 150);
        assert_eq!(add_slips(TEXT, &Slips { rate: 0.0, ..TYPING }, 1), TEXT);
    }

    #[test]
    fn slips_stay_small() {
        for seed in 0..500 {
            let slipped = add_slips(TEXT, &TYPING, seed);
            let (a, b) = (slipped.chars().count(), TEXT.chars().count());
            assert!(a.abs_diff(b) < 30, "{slipped}");
            assert!(!slipped.is_empty() && !slipped.contains('\n'));
        }
    }

    #[test]
    fn every_kind_does_what_its_name_says() {
        let one = |kind: SlipKind, text: &str, seed: u64| {
            let mut words: Vec<String> = text.split(' ').map(str::to_string).collect();
            let done = slip(kind, &mut words, &mut Random::new(seed));
            done.then(|| words.join(" "))
        };
        let cases: &[(SlipKind, &str, &[&str])] = &[
            (SlipKind::Transpose, "abc", &["bac", "acb"]),
            (SlipKind::DropLetter, "abc", &["ac", "ab"]),
            (SlipKind::DoubleLetter, "abc", &["aabc", "abbc", "abcc"]),
            (SlipKind::SoundsAlike, "\"Their", &["\"There", "\"They're"]),
            (SlipKind::Misspelling, "Receive,", &["Recieve,"]),
            (SlipKind::Article, "see an egg", &["see a egg", "see egg"]),
            (SlipKind::Agreement, "Is", &["Are", "Am"]),
            (SlipKind::Apostrophe, "don't", &["dont"]),
            (SlipKind::Case, "Tom", &["tom"]),
            (SlipKind::Space, "go on", &["goon"]),
            (SlipKind::Mark, "so.", &["so"]),
            (SlipKind::DoubleWord, "so", &["so so"]),
        ];
        for (kind, text, expected) in cases {
            let mut seen = std::collections::BTreeSet::new();
            for seed in 0..60 {
                if let Some(out) = one(*kind, text, seed) {
                    assert!(expected.contains(&out.as_str()), "{kind:?}: {text} -> {out}");
                    seen.insert(out);
                }
            }
            assert_eq!(seen.len(), expected.len(), "{kind:?}: {seen:?}");
        }
        // No place for a slip of this kind.
        assert_eq!(one(SlipKind::Apostrophe, "no marks here", 1), None);
    }

    #[test]
    fn neighbours_are_beside_the_key() {
        let seen: std::collections::BTreeSet<char> =
            (0..50).map(|seed| neighbour_key('S', &mut Random::new(seed))).collect();
        assert_eq!(seen.into_iter().collect::<String>(), "ADWX");
    }

    #[test]
    fn odd_texts_do_not_panic() {
        for text in ["", " ", "ß", "日本語", "'", "a", "«Ü»", "I", "...", "x' y'"] {
            for seed in 0..100 {
                add_slips(text, &Slips { rate: 2.0, grammar: 0.5, ..TYPING }, seed);
            }
        }
    }
}
