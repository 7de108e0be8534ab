//! What a corpus is made of and by which rules: `configs/corpus.toml` and what a file overrides.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::bad_words::Place;
use super::read::Documents;
use super::repeats::Unit;
use crate::config::keys::{merge, nested, serde_path};
use crate::{Error, Result};

/// Every knob with its default value and what it means.
pub const BASE: &str = include_str!("../../configs/corpus.toml");

/// The corpora of the paper's table 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Every rule.
    C4,
    /// Addresses, lengths and the language alone.
    Unfiltered,
    /// C4 of a list of news sites.
    Realnews,
    /// C4 of a list of addresses.
    Webtext,
    /// C4 of the English Wikipedia's site.
    Wikipedia,
    /// No rule.
    Text,
}

impl Variant {
    /// What it sets otherwise than the base.
    fn table(self) -> &'static str {
        match self {
            Variant::C4 | Variant::Realnews | Variant::Webtext | Variant::Wikipedia => "",
            Variant::Unfiltered => "clean = false\nrepeats = \"none\"",
            Variant::Text => {
                "max_characters = 0\none_of_an_address = false\nclean = false\nrepeats = \"none\"\nlanguage = \"\"\n\
                 validation_per_thousand = 0"
            }
        }
    }
}

/// A corpus's configuration; see [`BASE`] for what each means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub input: Vec<PathBuf>,
    pub output: PathBuf,
    pub variant: Variant,
    pub documents: Documents,
    pub threads: usize,
    pub max_characters: usize,
    pub sites: PathBuf,
    pub addresses: PathBuf,
    pub one_of_an_address: bool,
    pub clean: bool,
    pub bad_words: PathBuf,
    pub bad_words_in: Place,
    pub repeats: Unit,
    pub language: String,
    pub language_confidence: f64,
    pub validation_per_thousand: u32,
    pub vocabulary: PathBuf,
    /// Pages kept of each rule that removed some, to look at.
    #[serde(default)]
    pub keep_removed: usize,
}

impl Options {
    /// The base with a file's and the command line's changes. Relative paths stay as they are written.
    ///
    /// # Errors
    /// Where the file cannot be read or is not TOML, a key is unknown, or a value has the wrong type or range.
    pub fn load(path: &Path, sets: &[String], keep_removed: usize) -> Result<Options> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Options::parse(&path.display().to_string(), &text, sets, keep_removed)
    }

    /// As [`Options::load`], from a text; `file` names it in messages.
    ///
    /// # Errors
    /// As [`Options::load`].
    pub fn parse(file: &str, text: &str, sets: &[String], keep_removed: usize) -> Result<Options> {
        let parsed = |name: &str, text: &str| {
            text.parse::<Table>()
                .map_err(|error| Error::config(name, "TOML", error.to_string().trim().replace('\n', " ")))
        };
        let mut changes = vec![(file, parsed(file, text)?)];
        for set in sets {
            let Some((key, value)) = set.split_once('=') else {
                return Err(Error::config("override", set.as_str(), "expected key=value"));
            };
            changes.push(("override", nested(key.trim(), value.trim())));
        }
        let named = changes.iter().rev().find_map(|(_, table)| table.get("variant")).cloned();
        let mut table = parsed("corpus.toml", BASE)?;
        if let Some(named) = named {
            let variant: Variant = serde_path(named).map_err(|what| Error::config(file, "variant", what))?;
            merge(&mut table, &parsed("variant", variant.table())?, file)?;
        }
        for (name, changes) in &changes {
            merge(&mut table, changes, name)?;
        }
        let mut options: Options =
            serde_path(Value::Table(table)).map_err(|what| Error::config(file, "configuration", what))?;
        options.keep_removed = keep_removed;
        options.check(file)?;
        Ok(options)
    }

    fn check(&self, file: &str) -> Result<()> {
        let wrong = |key: &str, what: String| Err(Error::config(file, key, what));
        if self.input.is_empty() {
            return wrong("input", "expected files or folders, found none".into());
        }
        for (key, path, variant) in
            [("sites", &self.sites, Variant::Realnews), ("addresses", &self.addresses, Variant::Webtext)]
        {
            if self.variant == variant && path.as_os_str().is_empty() {
                return wrong(key, "expected a file, as the variant takes pages of a list, found none".into());
            }
        }
        // What would be ignored.
        if self.variant == Variant::Wikipedia && !self.sites.as_os_str().is_empty() {
            let found = self.sites.display();
            return wrong("sites", format!("expected none, as the variant has en.wikipedia.org alone, found {found}"));
        }
        if self.bad_words_in == Place::Lines && !self.bad_words.as_os_str().is_empty() && !self.clean {
            let what = "expected pages where clean is false, as lines are looked at as they are cleaned, found lines";
            return wrong("bad_words_in", what.into());
        }
        if !(0.0..=1.0).contains(&self.language_confidence) {
            return wrong("language_confidence", format!("expected 0 to 1, found {}", self.language_confidence));
        }
        if self.validation_per_thousand > 999 {
            let found = self.validation_per_thousand;
            return wrong("validation_per_thousand", format!("expected 0 to 999, found {found}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse("c.toml", text, &[], 0)
    }

    #[test]
    fn a_variant_sets_what_the_file_may_set_again() {
        let options = parse("input = [\"a\"]").unwrap();
        assert!(options.clean && options.repeats == Unit::Lines && options.language == "en");
        let options = parse("input = [\"a\"]\nvariant = \"unfiltered\"").unwrap();
        assert!(!options.clean && options.repeats == Unit::None && options.one_of_an_address);
        assert_eq!((options.language.as_str(), options.max_characters), ("en", 190_000));
        let options = parse("input = [\"a\"]\nvariant = \"text\"\nclean = true").unwrap();
        assert!(options.clean && !options.one_of_an_address && options.language.is_empty());
        let sets = ["variant=unfiltered".to_owned(), "repeats=spans".to_owned()];
        let options = Options::parse("c.toml", "input = [\"a\"]", &sets, 3).unwrap();
        assert!(!options.clean && options.repeats == Unit::Spans && options.keep_removed == 3);
        assert!(parse("input = [\"a\"]\nvariant = \"webtext\"\naddresses = \"list\"").is_ok());
        let text = "input = [\"a\"]\nclean = false\nbad_words = \"list\"\nbad_words_in = \"pages\"";
        assert!(parse(text).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", "c.toml: input: expected files or folders, found none"),
            ("input = [\"a\"]\nclaen = true", "c.toml: claen: unknown key; did you mean clean?"),
            ("input = [\"a\"]\nclean = 1", "c.toml: clean: expected a value like true, found 1"),
            ("input = [\"a\"]\nvariant = \"c5\"", "c.toml: variant: c5 is not known; did you mean c4?"),
            ("input = [\"a\"]\nvariant = \"realnews\"", "c.toml: sites: expected a file"),
            (
                "input = [\"a\"]\nvariant = \"wikipedia\"\nsites = \"list\"",
                "c.toml: sites: expected none, as the variant has en.wikipedia.org alone, found list",
            ),
            (
                "input = [\"a\"]\nvariant = \"text\"\nbad_words = \"list\"",
                "c.toml: bad_words_in: expected pages where clean is false",
            ),
            ("input = [\"a\"]\nlanguage_confidence = 2.0", "c.toml: language_confidence: expected 0 to 1, found 2"),
            ("input = [\"a\"]\nvalidation_per_thousand = 1000", "expected 0 to 999, found 1000"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
