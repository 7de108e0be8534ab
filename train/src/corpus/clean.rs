//! C4's heuristics for lines and pages, `clean_page` of its published code, rule by rule in its order.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::bad_words::BadWords;
use super::text::{lines, strip, words};
use crate::tasks::split_sentences;

/// A line with a longer word, in characters, is dropped.
pub const MAX_WORD: usize = 1000;
/// A line with fewer words is dropped.
pub const MIN_WORDS: usize = 5;
/// A page with fewer sentences is dropped.
pub const MIN_SENTENCES: usize = 3;

/// Lines with one of these are about the site, not of the page.
const POLICIES: [&str; 6] =
    ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// Marks of references, as Wikipedia has them.
static CITATIONS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[\d*\]|\[edit\]|\[citation needed\]").ok());

/// Why a line is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRule {
    /// A word of more than 1,000 characters.
    LongWord,
    /// No `.`, `?`, `!` or `"` at its end, or `...`.
    EndMark,
    /// Fewer than five words.
    FewWords,
    /// It speaks of JavaScript.
    JavaScript,
    /// It speaks of cookies, terms or privacy.
    Policy,
}

/// Why a page is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRule {
    /// Text to fill a layout.
    LoremIpsum,
    /// `{`: a program.
    CurlyBracket,
    /// A word of the list.
    BadWord,
    /// Fewer than three sentences are left.
    FewSentences,
}

/// Lines that each rule dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    pub long_word: u64,
    pub end_mark: u64,
    pub few_words: u64,
    pub java_script: u64,
    pub policy: u64,
}

impl LineCounts {
    /// Adds other counts.
    pub fn add(&mut self, other: &LineCounts) {
        self.long_word += other.long_word;
        self.end_mark += other.end_mark;
        self.few_words += other.few_words;
        self.java_script += other.java_script;
        self.policy += other.policy;
    }

    /// Whether no line was dropped.
    pub fn is_zero(&self) -> bool {
        *self == LineCounts::default()
    }

    /// The counts with their rules in words, in order.
    pub fn rows(&self) -> [(u64, &'static str); 5] {
        [
            (self.long_word, "a word of over 1,000 characters"),
            (self.end_mark, "no mark at the end, or ..."),
            (self.few_words, "fewer than five words"),
            (self.java_script, "JavaScript"),
            (self.policy, "cookies, terms or privacy"),
        ]
    }

    fn count(&mut self, rule: LineRule) {
        *match rule {
            LineRule::LongWord => &mut self.long_word,
            LineRule::EndMark => &mut self.end_mark,
            LineRule::FewWords => &mut self.few_words,
            LineRule::JavaScript => &mut self.java_script,
            LineRule::Policy => &mut self.policy,
        } += 1;
    }
}

/// The text without marks of references: `[1]`, `[]`, `[edit]`, `[citation needed]`.
pub fn without_citations(line: &str) -> Cow<'_, str> {
    match &*CITATIONS {
        Some(pattern) if line.contains('[') => pattern.replace_all(line, ""),
        _ => line.into(),
    }
}

/// A line as it is kept: the outer error drops the page, the inner one the line.
///
/// # Errors
/// The rule that drops the page.
pub fn clean_line<'a>(raw: &'a str, bad: Option<&BadWords>) -> Result<Result<Cow<'a, str>, LineRule>, PageRule> {
    let line = strip(raw);
    // Bytes first: few lines have so many, and a word has no more characters than bytes.
    if line.len() > MAX_WORD && words(line).any(|word| word.len() > MAX_WORD && word.chars().count() > MAX_WORD) {
        return Ok(Err(LineRule::LongWord));
    }
    let line = without_citations(line);
    if !line.ends_with(['.', '?', '!', '"']) || line.ends_with("...") {
        return Ok(Err(LineRule::EndMark));
    }
    if words(&line).take(MIN_WORDS).count() < MIN_WORDS {
        return Ok(Err(LineRule::FewWords));
    }
    let lower = line.to_lowercase();
    if lower.contains("lorem ipsum") {
        return Err(PageRule::LoremIpsum);
    }
    if lower.contains("javascript") {
        return Ok(Err(LineRule::JavaScript));
    }
    if line.contains('{') {
        return Err(PageRule::CurlyBracket);
    }
    if POLICIES.iter().any(|policy| lower.contains(policy)) {
        return Ok(Err(LineRule::Policy));
    }
    if bad.is_some_and(|bad| bad.in_line(&lower)) {
        return Err(PageRule::BadWord);
    }
    Ok(Ok(line))
}

/// The lines of a page that are kept, joined. `bad` has the words that drop a page where a line has one. What is
/// counted of a page that is dropped are its lines until then.
///
/// # Errors
/// The rule that drops the page.
pub fn clean_page(text: &str, bad: Option<&BadWords>, counts: &mut LineCounts) -> Result<String, PageRule> {
    let mut kept = String::with_capacity(text.len());
    let mut sentences = 0;
    for raw in lines(text) {
        match clean_line(raw, bad)? {
            Err(rule) => counts.count(rule),
            Ok(line) => {
                sentences += split_sentences(&line).len();
                if !kept.is_empty() {
                    kept.push('\n');
                }
                kept.push_str(&line);
            }
        }
    }
    if sentences < MIN_SENTENCES {
        return Err(PageRule::FewSentences);
    }
    Ok(strip(&kept).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Result<Cow<'_, str>, LineRule>, PageRule> {
        clean_line(text, None)
    }

    fn kept(text: &str) -> bool {
        matches!(line(text), Ok(Ok(found)) if found == text)
    }

    #[test]
    fn a_word_of_1001_characters_drops_its_line() {
        let with = |n: usize| format!("{} b c d e.", "é".repeat(n));
        assert_eq!(line(&with(1001)), Ok(Err(LineRule::LongWord)));
        assert!(kept(&with(1000)));
        // It comes first: this line has no end mark, either.
        assert_eq!(line(&"a".repeat(1001)), Ok(Err(LineRule::LongWord)));
    }

    #[test]
    fn a_line_ends_with_a_mark_and_not_with_three_full_stops() {
        for (end, keeps) in
            [(".", true), ("?", true), ("!", true), ("\"", true), ("", false), ("'", false), (":", false), (")", false)]
        {
            assert_eq!(kept(&format!("a b c d e{end}")), keeps, "{end}");
        }
        assert_eq!(line("a b c d e..."), Ok(Err(LineRule::EndMark)));
        assert!(kept("a b c d e.."));
        assert!(kept("a b c d e...\""));
        assert!(kept("a b c d e…."));
        // White space at its ends is no part of it.
        assert_eq!(line("\ta b c d e. \r"), Ok(Ok("a b c d e.".into())));
    }

    #[test]
    fn a_line_has_five_words() {
        assert_eq!(line("a b c d."), Ok(Err(LineRule::FewWords)));
        assert!(kept("a b c d e."));
        assert_eq!(line("a b\u{A0}c d\u{200B}e."), Ok(Err(LineRule::FewWords)));
        assert!(kept("a - b c ."));
    }

    #[test]
    fn marks_of_references_are_taken_out_before_the_end_is_looked_at() {
        assert_eq!(line("a b c d e.[1]"), Ok(Ok("a b c d e.".into())));
        assert_eq!(line("[edit]a [] b c[citation needed] d e[23]."), Ok(Ok("a  b c d e.".into())));
        assert!(kept("a b c d [1a] [ 1] [Edit] e."));
        // The line is not stripped again: what stood before the mark is now the end.
        assert_eq!(line("a b c d e. [1]"), Ok(Err(LineRule::EndMark)));
        // A digit is any script's.
        assert_eq!(line("a b c d e[٣]."), Ok(Ok("a b c d e.".into())));
    }

    #[test]
    fn lorem_ipsum_drops_the_page() {
        assert_eq!(line("a b Lorem Ipsum c."), Err(PageRule::LoremIpsum));
        assert!(kept("a b lorem  ipsum c."));
        // Only in a line that is kept until then.
        assert_eq!(line("lorem ipsum dolor."), Ok(Err(LineRule::FewWords)));
    }

    #[test]
    fn a_line_about_javascript_is_dropped() {
        assert_eq!(line("please do enable JavaScript."), Ok(Err(LineRule::FewWords)));
        assert_eq!(line("please do now enable JavaScript."), Ok(Err(LineRule::JavaScript)));
        assert!(kept("please do now enable Java Script."));
    }

    #[test]
    fn an_opening_bracket_drops_the_page_unless_its_line_goes_first() {
        assert_eq!(line("if a then b { c."), Err(PageRule::CurlyBracket));
        assert!(kept("if a then b } c."));
        assert_eq!(line("var x = { y"), Ok(Err(LineRule::EndMark)));
        assert_eq!(line("some javascript is { here."), Ok(Err(LineRule::JavaScript)));
        assert_eq!(line("a { b our privacy policy."), Err(PageRule::CurlyBracket));
    }

    #[test]
    fn lines_about_policies_are_dropped() {
        for policy in POLICIES {
            assert_eq!(line(&format!("a b c {} d.", policy.to_uppercase())), Ok(Err(LineRule::Policy)), "{policy}");
        }
        for text in
            ["the terms of our use.", "a privacy and cookie question.", "a cook uses a cookie.", "we all use a cookie."]
        {
            assert!(kept(text), "{text}");
        }
    }

    #[test]
    fn a_page_has_three_sentences_over_all_its_lines() {
        let counts = &mut LineCounts::default();
        let two = "One two three four five. Six seven.";
        assert_eq!(clean_page(two, None, counts), Err(PageRule::FewSentences));
        let three = "One two three four five. Six seven.\nEight nine ten eleven twelve.";
        assert_eq!(clean_page(three, None, counts).as_deref(), Ok(three));
        assert_eq!(clean_page("", None, counts), Err(PageRule::FewSentences));
        assert_eq!(*counts, LineCounts::default());
    }

    #[test]
    fn what_is_kept_is_joined_and_what_is_dropped_is_counted() {
        let counts = &mut LineCounts::default();
        let text = "Menu\n  One two three four five.\r\n\nHe said so to us[2]! Did he?\nshort one.\n\
                    We use cookies on this site.\nThis page needs JavaScript to work.\n";
        assert_eq!(clean_page(text, None, counts).unwrap(), "One two three four five.\nHe said so to us! Did he?");
        // The empty line has no mark, either.
        assert_eq!(*counts, LineCounts { end_mark: 2, few_words: 1, java_script: 1, policy: 1, long_word: 0 });
    }
}
