//! Text to sentences, for models that were trained on one sentence at a time.
//!
//! A sentence ends at a line break, and behind its marks where white space follows and then no lower-case letter; the
//! marks of Chinese and Japanese need no space. Not behind abbreviations ("Dr. Smith"), initials ("J. Smith"), ordinals
//! before a month ("3. Oktober"), nor inside a sentence that quotes another one (`"Why?" she asked.`).
//!
//! The boundaries of Unicode's Annex 29 would take a table that is larger than all that is done here with sentences
//! (8 kB of a browser's module, compressed), and `Intl.Segmenter` differs from browser to browser: the same text must
//! come out everywhere. Whatever the text, each character is looked at a few times at most.

use std::ops::Range;

/// Marks that end a sentence where white space follows.
const MARKS: &str = ".?!…．‼⁇⁈⁉؟۔।॥։።។။";
/// Marks that end a sentence whatever follows.
const WIDE_MARKS: &str = "。！？｡";
/// What may stand between a mark and the white space behind a sentence. German quotes end with what English ones begin
/// with.
const CLOSING: &str = "\"'“”‘’«»‹›)]}」』）】〉》";
/// What stands before the items of lists, with white space behind it.
const BULLETS: &str = "-–—*•‣◦·>#";

/// The sentences of a text, in their order, without white space around them. A model does not see what stands between
/// them: white space, line breaks, bullets, and anything without letters, such as the number of a list's item.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut begin = 0;
    for end in boundaries(text).into_iter().chain([text.len()]) {
        let stretch = without_bullets(&text[begin..end]);
        let body = stretch.trim_end();
        if body.contains(char::is_alphabetic) {
            let start = end - stretch.len();
            sentences.push(start..start + body.len());
        }
        begin = end;
    }
    sentences
}

/// Whether text that ends like this needs no space before the next sentence.
pub fn ends_wide(text: &str) -> bool {
    text.trim_end_matches(|c| CLOSING.contains(c)).ends_with(|c| WIDE_MARKS.contains(c))
}

/// The rest of a text behind white space and bullets.
fn without_bullets(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix(|c| BULLETS.contains(c)) {
            Some(rest) if rest.starts_with(char::is_whitespace) => text = rest,
            _ => return text,
        }
    }
}

/// Where sentences begin, but for the first.
fn boundaries(text: &str) -> Vec<usize> {
    let mut boundaries = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let is_mark = |c| MARKS.contains(c) || WIDE_MARKS.contains(c);
    while let Some(found) = text[at..].find(|c| is_mark(c) || is_break(c)) {
        let mark = at + found;
        let marks = &text[mark..skip(text, mark, |c| is_mark(c) || CLOSING.contains(c))];
        let end = mark + marks.len();
        let next = skip(text, end, char::is_whitespace);
        let space = &text[end..next];
        let ends = space.contains(is_break)
            || if space.is_empty() {
                marks.contains(|c| WIDE_MARKS.contains(c))
            } else {
                !goes_on(&text[begin..mark], marks, &text[next..])
            };
        if ends && next < text.len() {
            boundaries.push(next);
            begin = next;
        }
        at = next;
    }
    boundaries
}

fn is_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The first place from `at` on whose character is not of the kind.
fn skip(text: &str, at: usize, kind: impl Fn(char) -> bool) -> usize {
    text[at..].find(|c| !kind(c)).map_or(text.len(), |len| at + len)
}

/// Whether a sentence goes on behind its marks and a space.
fn goes_on(before: &str, marks: &str, after: &str) -> bool {
    let lower = after.chars().take_while(|&c| !MARKS.contains(c) && !is_break(c)).find(|c| c.is_alphanumeric());
    // "How are you? i am fine." are two, `"How are you?" he asked.` is one.
    let weak = marks.contains(['.', '…', '．']) || marks.contains(|c| CLOSING.contains(c));
    if weak && lower.is_some_and(char::is_lowercase) {
        return true;
    }
    if marks != "." {
        return false;
    }
    let word = before.rsplit(|c: char| c.is_whitespace() || "([{\"'„“‚‘«»–—/".contains(c)).next().unwrap_or_default();
    let next = &after[..skip(after, 0, char::is_alphanumeric)];
    let number = next.starts_with(|c: char| c.is_ascii_digit());
    let starts = STARTERS.contains(&next) && !after[next.len()..].starts_with('.');
    ABBREVIATIONS.contains(&word)
        || (is_short(word, &before[..before.len() - word.len()]) && !starts)
        || (number && BEFORE_NUMBER.contains(&word))
        || (is_ordinal(word) && AFTER_ORDINAL.contains(&next))
}

/// One letter ("J", "z"), or several parts of one or two: "e.g", "U.S", "Ph.D". "I" is a word, but in "A. I. Smith".
fn is_short(word: &str, before: &str) -> bool {
    let is_part = |part: &str| part.chars().all(char::is_alphabetic) && (1..=2).contains(&part.chars().count());
    match word {
        "I" => before.trim_end().ends_with('.'),
        _ => word.split('.').all(is_part) && (word.contains('.') || word.chars().count() == 1),
    }
}

fn is_ordinal(word: &str) -> bool {
    (1..=2).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit())
}

/// Words with a full stop behind them within a sentence, and a capital letter or digit after it often enough to matter.
/// English, German and French.
#[rustfmt::skip]
const ABBREVIATIONS: [&str; 41] = [
    "Capt", "Col", "Dipl", "Dr", "Fr", "Frl", "Gen", "Gov", "Hon", "Hr", "Hrn", "Ing", "Lt", "MM", "Mag", "Maj",
    "Messrs", "Mgr", "Mlle", "Mlles", "Mme", "Mmes", "Mr", "Mrs", "Ms", "Mt", "Pres", "Prof", "Rep", "Rev", "Sen",
    "Sgt", "St", "Ste", "allg", "bzw", "ca", "cf", "inkl", "vgl", "vs",
];

/// Words that are abbreviations before a number only: "No."
#[rustfmt::skip]
const BEFORE_NUMBER: [&str; 32] = [
    "Abs", "Apr", "Art", "Aug", "Bd", "Dec", "Dez", "Feb", "Fig", "Jan", "Kap", "No", "Nov", "Nr", "Oct", "Okt", "S",
    "Sept", "Str", "Tel", "Vol", "art", "env", "evtl", "fig", "max", "min", "no", "p", "pp", "vol", "zzgl",
];

/// What an ordinal of German stands before.
#[rustfmt::skip]
const AFTER_ORDINAL: [&str; 22] = [
    "Januar", "Jänner", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
    "Dezember", "Jahrhundert", "Jahrhunderts", "Klasse", "Stock", "Etage", "Auflage", "Kapitel", "Geburtstag", "Mal",
];

/// Words that begin a sentence behind "p.m." or "U.S.", rather than go on.
#[rustfmt::skip]
const STARTERS: [&str; 44] = [
    "A", "An", "And", "As", "At", "But", "For", "He", "Her", "His", "How", "I", "If", "In", "It", "My", "On", "She",
    "So", "That", "The", "Their", "Then", "There", "These", "They", "This", "We", "What", "When", "Where", "Who", "Why",
    "You", "Das", "Der", "Die", "Er", "Es", "Sie", "Wir", "Il", "Elle", "Nous",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn sentences_end_at_their_marks() {
        let cases: &[(&str, &[&str])] = &[
            ("The cat sleeps. The dog barks.", &["The cat sleeps.", "The dog barks."]),
            ("Why? Because! Well… Yes.", &["Why?", "Because!", "Well…", "Yes."]),
            ("He said: \"Go away!\" Then he left.", &["He said: \"Go away!\"", "Then he left."]),
            ("(It rained.) We stayed... Then we went.", &["(It rained.)", "We stayed...", "Then we went."]),
            ("how are you? i am fine! and you?", &["how are you?", "i am fine!", "and you?"]),
            ("Er sagte: „Geh!“ Dann ging er.", &["Er sagte: „Geh!“", "Dann ging er."]),
            ("Ça va ? Oui ! «Bien.» Merci.", &["Ça va ?", "Oui !", "«Bien.»", "Merci."]),
            ("¿Qué? ¡Sí! Claro.", &["¿Qué?", "¡Sí!", "Claro."]),
            ("No mark at the end", &["No mark at the end"]),
            ("猫は眠る。犬は「ワン！」と吠える。鳥", &["猫は眠る。", "犬は「ワン！」", "と吠える。", "鳥"]),
            ("यह एक है। वह दो है।", &["यह एक है।", "वह दो है।"]),
            ("", &[]),
            (" \n ", &[]),
            ("... 12. -", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(cut(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn a_full_stop_inside_a_sentence_does_not_end_it() {
        let whole = [
            "Dr. Smith met Mrs. Jones at 3.50 p.m. in St. Louis.",
            "J. R. R. Tolkien wrote it.",
            "A. I. Lebedev wrote it, too.",
            "The U.S. Army came, e.g. by train.",
            "Am 3. Oktober feiern wir.",
            "Das kostet z. B. 3.50 Euro, d. h. wenig.",
            "M. Dupont et Mme. Durand arrivent.",
            "See No. 5 and fig. 3 here.",
            "\"Why?\" she asked.",
            "We waited... and waited… and left.",
            "Is http://example.com/?a=b!c the place, or version 2.0.1?",
        ];
        for text in whole {
            assert_eq!(cut(text), [text]);
        }
    }

    #[test]
    fn words_that_look_like_abbreviations_end_a_sentence() {
        let cases = [
            ("So am I. He is not.", ["So am I.", "He is not."]),
            ("No. It is not.", ["No.", "It is not."]),
            ("He is 12. She is 9.", ["He is 12.", "She is 9."]),
            ("He came at 3 p.m. The train left.", ["He came at 3 p.m.", "The train left."]),
            ("She lives in the U.S. I do not.", ["She lives in the U.S.", "I do not."]),
            ("It took 5 min. Then we left.", ["It took 5 min.", "Then we left."]),
        ];
        for (text, expected) in cases {
            assert_eq!(cut(text), expected);
        }
    }

    #[test]
    fn lines_end_sentences_and_what_has_no_letters_is_none() {
        let text = "  One.  Two.\n\n- three\r\n* four, five\u{2028}1. Six. 2. Seven.\n---\n> # eight\t-9 and -10\n";
        let expected = ["One.", "Two.", "three", "four, five", "Six.", "Seven.", "eight\t-9 and -10"];
        assert_eq!(cut(text), expected);
    }

    /// A rule that looks ahead or back from every mark would take hours.
    #[test]
    fn hostile_texts_take_no_longer() {
        for part in [". ", ".(", ".", "!\" ", "a.", "a. ", "。", "\n", "- ", "….“", "1. A", "A.B. c"] {
            let text = part.repeat(1 << 18);
            let ranges = sentences(&text);
            assert!(ranges.is_sorted_by(|a, b| a.end <= b.start), "{part:?}");
        }
    }
}
