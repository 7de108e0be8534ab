//! The language of a page, by `whatlang` (C4 asked `langdetect`).

use whatlang::{Lang, detect};

use crate::{Error, Result};

/// A language that pages must be in.
#[derive(Clone, Copy, Debug)]
pub struct Language {
    lang: Lang,
    least: f64,
}

/// Codes of two letters, as C4 names languages, for whatlang's of three.
const CODES: [(&str, &str); 25] = [
    ("ar", "ara"),
    ("bg", "bul"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("es", "spa"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("hi", "hin"),
    ("hu", "hun"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("ko", "kor"),
    ("nl", "nld"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("sv", "swe"),
    ("th", "tha"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("zh", "cmn"),
];

/// The language of a code of two or three letters.
pub(super) fn lang(code: &str) -> Option<Lang> {
    Lang::from_code(CODES.iter().find(|(short, _)| *short == code).map_or(code, |(_, long)| long))
}

impl Language {
    /// A language by its code (`en` or `eng`), which must be found with at least so much confidence, 0 to 1.
    ///
    /// # Errors
    /// Where there is no such language.
    pub fn new(code: &str, least: f64) -> Result<Language> {
        let lang = lang(code).ok_or(Error::Option {
            option: "language",
            what: format!("expected a code such as en, de or fra, found {code}"),
        })?;
        Ok(Language { lang, least })
    }

    /// Whether a text is in the language. One without letters is in none.
    pub fn is_of(&self, text: &str) -> bool {
        detect(text).is_some_and(|found| found.lang() == self.lang && found.confidence() >= self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_another_language_are_none() {
        let english = Language::new("en", 0.99).unwrap();
        let text = "The road went down to the river, and nobody who lived there had ever thought that it might not.";
        assert!(english.is_of(text));
        assert!(!Language::new("de", 0.99).unwrap().is_of(text));
        let german = "Die Straße ging hinunter zum Fluss, und niemand, der dort lebte, hatte je anders gedacht.";
        assert!(!english.is_of(german));
        assert!(Language::new("deu", 0.99).unwrap().is_of(german));
        assert!(!english.is_of("12 + 30 = 42."));
        // Both together are not sure enough, and are English where nothing is asked for.
        let mixed = "The road. Die Straße.";
        assert!(!english.is_of(mixed));
        let message = Language::new("xx", 0.5).unwrap_err().to_string();
        assert_eq!(message, "language: expected a code such as en, de or fra, found xx");
    }

    #[test]
    fn every_short_code_is_a_language() {
        for (short, _) in CODES {
            assert!(Language::new(short, 0.0).is_ok(), "{short}");
        }
    }
}
