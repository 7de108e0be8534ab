//! Pages with words of a list are dropped. The list is a file of the user's, a word or words a line; C4 took the
//! English one of the "List of Dirty, Naughty, Obscene, and Otherwise Bad Words".

use std::path::Path;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::language::lang;
use crate::source::for_each_line;
use crate::{Error, Result};

/// Where and how the words are looked for: C4's code had two versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In each line as it is cleaned, between characters that are no letters a to z; at a line's start or end there is
    /// none. Words are patterns: `.` is any character. The corpus that T5 was trained on was made so.
    #[default]
    Lines,
    /// In the page after its language is known, between what is no part of a word, also at its start and end.
    Pages,
}

/// A list of words.
#[derive(Debug)]
pub struct BadWords {
    place: Place,
    pattern: Regex,
}

impl BadWords {
    /// Reads a list for pages of a language, by its code: Japanese, Thai and Chinese have no spaces between words.
    ///
    /// # Errors
    /// Where the file cannot be read, is empty, or its words make no pattern.
    pub fn read(path: &Path, place: Place, language: &str) -> Result<BadWords> {
        let mut words = Vec::new();
        for_each_line(path, |_, line| {
            let word = line.trim();
            if !word.is_empty() {
                words.push(word.to_lowercase());
            }
            Ok(())
        })?;
        BadWords::new(&words, place, language).map_err(|error| {
            let error = error.to_string().replace('\n', " ");
            Error::file(path, format!("expected words, one a line, found some that make no pattern: {error}"))
        })
    }

    /// As [`BadWords::read`], of words in lower case.
    ///
    /// # Errors
    /// Where the words make no pattern, or too large a one.
    pub fn new(words: &[String], place: Place, language: &str) -> Result<BadWords, regex::Error> {
        let all = match place {
            Place::Lines => words.join("|"),
            Place::Pages => words.iter().map(|word| regex::escape(word)).collect::<Vec<_>>().join("|"),
        };
        let pattern = match place {
            Place::Lines => format!("[^a-z]({all})[^a-z]"),
            Place::Pages if matches!(lang(language), Some(Lang::Jpn | Lang::Tha | Lang::Cmn)) => all,
            Place::Pages => format!(r"(?:\W|^)({all})(?:\W|$)"),
        };
        Ok(BadWords { place, pattern: RegexBuilder::new(&pattern).size_limit(64 << 20).build()? })
    }

    /// Whether a line, in lower case, drops its page while it is cleaned.
    pub fn in_line(&self, lower: &str) -> bool {
        self.place == Place::Lines && self.pattern.is_match(lower)
    }

    /// Whether a page drops at the end.
    pub fn in_page(&self, text: &str) -> bool {
        self.place == Place::Pages && self.pattern.is_match(&text.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::clean::{LineCounts, PageRule, clean_page};

    fn list(words: &[&str], place: Place, language: &str) -> BadWords {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        BadWords::new(&words, place, language).unwrap()
    }

    #[test]
    fn in_lines_a_word_has_something_on_both_sides() {
        let bad = list(&["darn", "two words", "d.t"], Place::Lines, "en");
        for (line, found) in [
            ("so darn it.", true),
            ("what a darn!", true),
            ("so_darn1it", true),
            // As the code had it: not at the start, not at the end, not within letters a to z.
            ("darn it all.", false),
            ("what a darn", false),
            ("so darned it.", false),
            ("so édarné it.", true),
            ("in two words.", true),
            ("in two  words.", false),
            // A word is a pattern.
            ("a dot.", true),
            ("a dt.", false),
        ] {
            assert_eq!(bad.in_line(line), found, "{line}");
            assert!(!bad.in_page(line));
        }
        let page = "One two three four five. So it is. And so.\nAnd what a Darn thing it was.";
        assert_eq!(clean_page(page, Some(&bad), &mut LineCounts::default()), Err(PageRule::BadWord));
        let page = page.replace("Darn", "Yarn");
        assert!(clean_page(&page, Some(&bad), &mut LineCounts::default()).is_ok());
    }

    #[test]
    fn in_pages_a_word_may_stand_at_the_ends() {
        let bad = list(&["darn", "d.t"], Place::Pages, "en");
        for (page, found) in
            [("Darn", true), ("so\ndarn.", true), ("darned", false), ("édarn", false), ("dot", false), ("(d.t)", true)]
        {
            assert_eq!(bad.in_page(page), found, "{page}");
            assert!(!bad.in_line(page));
        }
        for (code, found) in [
            ("ja", true),
            ("jpn", true),
            ("zh", true),
            ("cmn", true),
            ("th", true),
            ("tha", true),
            ("en", false),
            ("", false),
        ] {
            assert_eq!(list(&["悪"], Place::Pages, code).in_page("最悪だ"), found, "{code}");
        }
    }

    #[test]
    fn lists_are_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "Darn\r\n\n two words \n").unwrap();
        assert!(BadWords::read(&path, Place::Pages, "en").unwrap().in_page("in Two Words"));
        std::fs::write(&path, "a(\n").unwrap();
        let message = BadWords::read(&path, Place::Lines, "en").unwrap_err().to_string();
        assert!(message.contains("list: expected words, one a line, found some that make no pattern"), "{message}");
        assert!(BadWords::read(&folder.path().join("none"), Place::Lines, "en").is_err());
    }
}
