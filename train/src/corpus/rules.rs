//! The rules of a corpus, with the lists that they need: what a page becomes by itself, and what of it is kept when all
//! others are known.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::bad_words::BadWords;
use super::clean::{LineCounts, clean_page};
use super::language::Language;
use super::options::{Options, Variant};
use super::read::{Found, Page};
use super::repeated::WHOLE;
use super::repeats::{hash, without};
use super::report::Removed;
use super::rows::Row;
use super::url::{Listed, normalise};
use crate::{Error, Result};

/// The rules of a corpus.
pub struct Rules {
    options: Options,
    sites: Option<Listed>,
    addresses: Option<Listed>,
    bad_words: Option<BadWords>,
    language: Option<Language>,
}

/// Raised where the same options make another corpus of the same pages than before: what was made stays as it was, and
/// is made anew when it is asked for again.
const REVISION: u32 = 3;

/// What decides about pages: the options but for those that do not, the lists' contents, and what the program makes of
/// them.
///
/// # Errors
/// Where a list cannot be read.
pub fn decisive(options: &Options) -> Result<Sha256> {
    let decisive =
        Options { input: Vec::new(), output: "".into(), vocabulary: "".into(), threads: 0, ..options.clone() };
    let mut hash = Sha256::new();
    hash.update(REVISION.to_le_bytes());
    hash.update(serde_json::to_string(&decisive).unwrap_or_default());
    for list in [&options.sites, &options.addresses, &options.bad_words] {
        if !list.as_os_str().is_empty() {
            hash.update(std::fs::read(crate::source::find(list)?).map_err(Error::io(list))?);
        }
    }
    Ok(hash)
}

impl Rules {
    /// Reads the lists that the options name.
    ///
    /// # Errors
    /// Where a list cannot be read, or a language is not known.
    pub fn new(options: &Options) -> Result<Rules> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        let sites = match options.variant {
            Variant::Wikipedia => Some(Listed::of(["en.wikipedia.org"])),
            _ => given(&options.sites).then(|| Listed::read_sites(&options.sites)).transpose()?,
        };
        let addresses = given(&options.addresses).then(|| Listed::read(&options.addresses)).transpose()?;
        let bad_words = given(&options.bad_words)
            .then(|| BadWords::read(&options.bad_words, options.bad_words_in, &options.language))
            .transpose()?;
        let language = (!options.language.is_empty())
            .then(|| Language::new(&options.language, options.language_confidence))
            .transpose()?;
        Ok(Rules { options: options.clone(), sites, addresses, bad_words, language })
    }

    /// What a page becomes before others are known.
    pub fn prepare(&self, found: Found) -> Row {
        let page = match found {
            Found::Page(page) => page,
            Found::NotText => return self.row(Page::default(), LineCounts::default(), Err(Removed::NotText)),
            Found::Empty => return self.row(Page::default(), LineCounts::default(), Err(Removed::Empty)),
        };
        let mut lines = LineCounts::default();
        let most = self.options.max_characters;
        if most > 0 && page.text.len() > most && page.text.chars().count() > most {
            return self.row(page, lines, Err(Removed::TooLong));
        }
        let key = normalise(&page.url);
        if self.sites.as_ref().is_some_and(|sites| !sites.has_site(&key))
            || self.addresses.as_ref().is_some_and(|addresses| !addresses.has_address(&key))
        {
            return self.row(page, lines, Err(Removed::NotListed));
        }
        let text = if self.options.clean {
            clean_page(&page.text, self.bad_words.as_ref(), &mut lines).map_err(Removed::from)
        } else {
            Ok(page.text.clone())
        };
        self.row(page, lines, text)
    }

    fn row(&self, page: Page, lines: LineCounts, text: Result<String, Removed>) -> Row {
        let bytes = page.text.len() as u64;
        let (removed, text) = match text {
            Ok(text) => (None, text),
            // The text is needed again only for a sample.
            Err(rule) => (Some(rule), if self.options.keep_removed > 0 { page.text } else { String::new() }),
        };
        Row { url: page.url, timestamp: page.timestamp, bytes, removed, lines, text }
    }

    /// What of a page is kept when others are known: `gone` has the numbers of what is elsewhere, too.
    ///
    /// # Errors
    /// The rule that removes the page.
    pub fn finish(&self, row: &Row, gone: &BTreeSet<u32>) -> Result<String, Removed> {
        if gone.contains(&WHOLE) {
            return Err(Removed::SameAddress);
        }
        if let Some(rule) = row.removed {
            return Err(rule);
        }
        let text = without(&row.text, self.options.repeats, gone).ok_or(Removed::Repeated)?;
        if self.language.as_ref().is_some_and(|language| !language.is_of(&text)) {
            return Err(Removed::OtherLanguage);
        }
        if self.bad_words.as_ref().is_some_and(|bad| bad.in_page(&text)) {
            return Err(Removed::BadWord);
        }
        Ok(text)
    }

    /// Whether a page is held out: by its address, so that a corpus made again has it on the same side.
    pub fn holds_out(&self, url: &str) -> bool {
        let number = hash(&normalise(url)).iter().fold(0, |rest, &byte| (rest << 8 | u32::from(byte)) % 1000);
        number < self.options.validation_per_thousand
    }
}
