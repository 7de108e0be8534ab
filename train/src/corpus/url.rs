//! Addresses: the form in which two are the same, and lists of sites and of addresses.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use crate::Result;
use crate::source::for_each_line;

static SCHEME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"https?://(www\.)?").ok());
static TAIL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\?(?:utm_|ref|feed).*").ok());

/// An address without `http://`, `www.`, what follows from `?utm_`, `?ref` or `?feed` on, and slashes at its end.
pub fn normalise(url: &str) -> String {
    let replace = |pattern: &Option<Regex>, text: &str| match pattern {
        Some(pattern) => pattern.replace_all(text, "").into_owned(),
        None => text.to_owned(),
    };
    let mut url = replace(&TAIL, &replace(&SCHEME, url));
    url.truncate(url.trim_end_matches('/').len());
    url
}

/// The host of a normalised address: what stands before its first `/`, `?`, `#` or `:`.
fn host(normalised: &str) -> &str {
    normalised.split(['/', '?', '#', ':']).next().unwrap_or_default()
}

/// A list of sites (RealNews-like corpora) or of addresses (WebText-like ones), one a line.
#[derive(Debug, Default)]
pub struct Listed {
    entries: HashSet<String>,
}

impl Listed {
    /// Reads a list of addresses, which are normalised.
    ///
    /// # Errors
    /// Where the file cannot be read or is empty.
    pub fn read(path: &Path) -> Result<Listed> {
        Listed::read_as(path, normalise)
    }

    /// Reads a list of sites, whose case does not matter.
    ///
    /// # Errors
    /// Where the file cannot be read or is empty.
    pub fn read_sites(path: &Path) -> Result<Listed> {
        Listed::read_as(path, |line| normalise(&line.to_ascii_lowercase()))
    }

    fn read_as(path: &Path, entry: impl Fn(&str) -> String) -> Result<Listed> {
        let mut entries = HashSet::new();
        for_each_line(path, |_, line| {
            let entry = entry(line.trim());
            if !entry.is_empty() {
                entries.insert(entry);
            }
            Ok(())
        })?;
        Ok(Listed { entries })
    }

    /// A list of sites.
    pub fn of<'a>(sites: impl IntoIterator<Item = &'a str>) -> Listed {
        Listed { entries: sites.into_iter().map(str::to_owned).collect() }
    }

    /// Whether a normalised address is in the list.
    pub fn has_address(&self, normalised: &str) -> bool {
        self.entries.contains(normalised)
    }

    /// Whether the site of a normalised address is in the list: `news.com` is all hosts below it, too, and
    /// `local.news.com` these alone.
    pub fn has_site(&self, normalised: &str) -> bool {
        let host = host(normalised).to_ascii_lowercase();
        let mut rest = host.as_str();
        loop {
            if self.entries.contains(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_are_one_page() {
        for (url, expected) in [
            ("https://www.a.com/b/", "a.com/b"),
            ("http://a.com/b//", "a.com/b"),
            ("https://a.com/b?utm_source=x&y=1", "a.com/b"),
            ("https://a.com/b?ref=1", "a.com/b"),
            ("https://a.com/b/?feed=rss", "a.com/b"),
            // The nearest that stay apart.
            ("https://a.com/b?page=2", "a.com/b?page=2"),
            ("https://a.com/b?x=1&utm_source=x", "a.com/b?x=1&utm_source=x"),
            ("https://www2.a.com/b", "www2.a.com/b"),
            ("ftp://a.com/b", "ftp://a.com/b"),
            ("HTTP://a.com", "HTTP://a.com"),
            ("a.com/to/http://b.com", "a.com/to/b.com"),
        ] {
            assert_eq!(normalise(url), expected, "{url}");
        }
    }

    #[test]
    fn lists_name_sites_and_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let text = "https://www.news.com/\nlocal.paper.org\n\nblog.net/one?ref=x\nHTTPS://www.NYTimes.com/\nA.com/B\n";
        std::fs::write(&path, text).unwrap();
        let (sites, addresses) = (Listed::read_sites(&path).unwrap(), Listed::read(&path).unwrap());
        for (url, site, address) in [
            ("http://news.com", true, true),
            ("http://NEWS.com/a", true, false),
            ("http://sport.news.com:80/a", true, false),
            ("http://badnews.com", false, false),
            ("http://local.paper.org/a?b", true, false),
            ("http://paper.org/a", false, false),
            ("http://news.com.evil.net/", false, false),
            ("http://blog.net/one", false, true),
            ("http://blog.net/one/two", false, false),
            ("https://www.nytimes.com/a", true, false),
            ("https://cooking.NYTimes.com", true, false),
            // Of an address case is a part.
            ("http://A.com/B", false, true),
            ("http://A.com/b", false, false),
        ] {
            let url = normalise(url);
            assert_eq!((sites.has_site(&url), addresses.has_address(&url)), (site, address), "{url}");
        }
    }
}
