//! Text to sentences, for models that were trained on one sentence at a time.
//!
//! A sentence ends at a line break, and behind its marks where white space follows and then no lower-case letter; the
//! marks of Chinese and Japanese need no space. Not behind abbreviations ("Dr. Smith"), initials ("J. Smith"), ordinals
//! before a month ("3. Oktober"), nor inside a sentence that quotes another one (`"Why?" she asked.`).
//!
//! The boundaries of Unicode's Annex 29 would take a table that is larger than all that is done here with sentences
//! (8 kB of a browser's module, compressed), and `Intl.Segmenter` differs from browser to browser: the same text must
//! come out everywhere. Whatever the text, each character is looked at a few times at most. Lists are strings, and
//! letters are told by their blocks, to be small as well.

use std::ops::Range;

/// Marks that end a sentence where white space follows.
const MARKS: &str = ".?!…．‼⁇⁈⁉؟۔।॥։።។။";
/// Marks that end a sentence whatever follows.
const WIDE_MARKS: &str = "。！？｡";
/// What may stand between a mark and the white space behind a sentence. German quotes end with what English ones begin
/// with.
const CLOSING: &str = "\"'“”‘’«»‹›)]}」』）】〉》";
/// What may stand before a word.
const OPENING: &str = "\"'“‘„‚«»‹›([{–—/";
/// What stands before the items of lists, with white space behind it.
const BULLETS: &str = "-–—*•‣◦·>#";

/// The sentences of a text, in their order, without white space around them. A model does not see what stands between
/// them: white space, line breaks, bullets, and anything without letters, such as the number of a list's item.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut push = |begin: usize, end: usize| {
        let stretch = without_bullets(&text[begin..end]);
        let body = stretch.trim_end();
        if body.contains(is_letter) {
            let start = end - stretch.len();
            sentences.push(start..start + body.len());
        }
    };
    let (mut begin, mut at) = (0, 0);
    // The next place that may end a sentence.
    while let Some(found) = text[at..].find(|c| is_mark(c) || is_break(c)) {
        let mark = at + found;
        let end = skip(text, mark, |c| is_mark(c) || is(CLOSING, c));
        at = skip(text, end, char::is_whitespace);
        let (marks, space) = (&text[mark..end], &text[end..at]);
        let ends = match space {
            "" => marks.contains(|c| is(WIDE_MARKS, c)),
            _ => space.contains(is_break) || !goes_on(&text[begin..mark], marks, &text[at..]),
        };
        if ends {
            push(begin, at);
            begin = at;
        }
    }
    push(begin, text.len());
    sentences
}

/// Whether text that ends like this needs no space before the next sentence.
pub fn ends_wide(text: &str) -> bool {
    text.trim_end_matches(|c| is(CLOSING, c)).ends_with(|c| is(WIDE_MARKS, c))
}

/// The rest of a text behind white space and bullets.
fn without_bullets(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix(|c| is(BULLETS, c)) {
            Some(rest) if rest.starts_with(char::is_whitespace) => text = rest,
            _ => return text,
        }
    }
}

/// Whether a character is one of these. One function of its own: inlined, it would be most of this module.
#[inline(never)]
fn is(these: &str, c: char) -> bool {
    these.chars().any(|one| one == c)
}

/// Whether a word is one of these, which have spaces between them.
#[inline(never)]
fn is_listed(these: &str, word: &str) -> bool {
    these.split_ascii_whitespace().any(|one| one == word)
}

fn is_mark(c: char) -> bool {
    is(MARKS, c) || is(WIDE_MARKS, c)
}

fn is_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Letters of all scripts. Blocks of punctuation and symbols have none.
fn is_letter(c: char) -> bool {
    match c {
        ..='\u{bf}' | '×' | '÷' => c.is_ascii_alphabetic() || matches!(c, 'ª' | 'µ' | 'º'),
        '\u{2000}'..='\u{2bff}' | '\u{3000}'..='\u{3004}' | '\u{3007}'..='\u{3030}' => false,
        '\u{fe00}'..='\u{fe6f}' | '\u{ff01}'..='\u{ff20}' | '\u{1f000}'..='\u{1faff}' => false,
        _ => !is_mark(c) && !is(CLOSING, c),
    }
}

fn is_lower(c: char) -> bool {
    // Small letters have capitals. (The table of these is there anyway.)
    c.to_uppercase().next() != Some(c)
}

/// The first place from `at` on whose character is not of the kind. As [`is`].
#[inline(never)]
fn skip(text: &str, at: usize, kind: fn(char) -> bool) -> usize {
    text[at..].find(|c| !kind(c)).map_or(text.len(), |len| at + len)
}

/// Whether a sentence goes on behind its marks and a space.
fn goes_on(before: &str, marks: &str, after: &str) -> bool {
    let is_part = |c: char| is_letter(c) || c.is_ascii_digit();
    let first = after.chars().take_while(|&c| !is_mark(c) && !is_break(c)).find(|&c| is_part(c));
    // "How are you? i am fine." are two, `"How are you?" he asked.` is one.
    let weak = marks.contains(|c| is(".…．", c) || is(CLOSING, c));
    if weak && first.is_some_and(is_lower) {
        return true;
    }
    if marks != "." {
        return false;
    }
    let start = before.rfind(|c: char| c.is_whitespace() || is(OPENING, c));
    let word = before[start.unwrap_or(0)..].trim_start_matches(|c: char| c.is_whitespace() || is(OPENING, c));
    let (next, rest) = after.split_at(skip(after, 0, is_part));
    let number = next.starts_with(|c: char| c.is_ascii_digit());
    let begins = is_listed(STARTERS, next) && !rest.starts_with('.');
    is_listed(ABBREVIATIONS, word)
        || (is_short(word, &before[..before.len() - word.len()]) && !begins)
        || (number && is_listed(BEFORE_NUMBER, word))
        || (is_ordinal(word) && is_listed(AFTER_ORDINAL, next))
}

/// One letter ("J", "z"), or several parts of one or two: "e.g", "U.S", "Ph.D". "I" is a word, but in "A. I. Smith".
fn is_short(word: &str, before: &str) -> bool {
    let is_part = |part: &str| part.chars().all(is_letter) && (1..=2).contains(&part.chars().count());
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
const ABBREVIATIONS: &str = "\
    Capt Col Dipl Dr Fr Frl Gen Gov Hon Hr Hrn Ing Lt MM Mag Maj Messrs Mgr Mlle Mlles Mme Mmes Mr Mrs Ms Mt Pres \
    Prof Rep Rev Sen Sgt St Ste allg bzw ca cf inkl vgl vs";

/// Words that are abbreviations before a number only: "No."
const BEFORE_NUMBER: &str = "\
    Abs Apr Art Aug Bd Dec Dez Feb Fig Jan Kap No Nov Nr Oct Okt S Sept Str Tel Vol art env evtl fig max min no p pp \
    vol zzgl";

/// What an ordinal of German stands before.
const AFTER_ORDINAL: &str = "\
    Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember Jahrhundert \
    Jahrhunderts Klasse Stock Etage Auflage Kapitel Geburtstag Mal";

/// Words that begin a sentence behind "p.m." or "U.S.", rather than go on.
const STARTERS: &str = "\
    A An And As At But For He Her His How I If In It My On She So That The Their Then There These They This We What \
    When Where Who Why You Das Der Die Er Es Sie Wir Il Elle Nous";

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

    /// All that Unicode calls alphabetic is a letter, but for symbols made of letters.
    #[test]
    fn letters_are_told_by_their_blocks() {
        let letters = (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_alphabetic() && !is_letter(*c));
        for c in letters {
            let symbol =
                matches!(c, 'ⁱ' | 'ⁿ' | 'ₐ'..='ₜ' | '\u{2100}'..='\u{218f}' | 'Ⓐ'..='ⓩ' | '\u{3007}'..='\u{3029}');
            assert!(symbol || ('\u{1f100}'..='\u{1f1ff}').contains(&c), "{c} U+{:04X}", c as u32);
        }
        assert!("0 9 ½ – — … « ★ ✓ ™ 😀 ─ 〜 、 ＋ € °".split(' ').all(|text| !text.contains(is_letter)));
        let lower = (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_lowercase() != is_lower(*c));
        // Among others modifier letters, and letters of phonetic alphabets, which have no capitals.
        assert!(lower.clone().all(|c| !"aäéñøœß".contains(c) && !('а'..='я').contains(&c)), "{}", lower.count());
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
