//! `hf:OWNER/NAME[/FILE.gguf][@REVISION]`: the parts, checked before they become addresses and paths.

use crate::error::{Error, Result};

pub(super) const PREFIX: &str = "hf:";
pub(super) const MAIN: &str = "main";

/// A parsed name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HubName {
    /// `OWNER/NAME`
    pub repository: String,
    /// A GGUF file of the repository, perhaps in a folder; `None` leaves the choice to us.
    pub file: Option<String>,
    /// A branch, tag or commit, or `refs/pr/N`.
    pub revision: String,
}

impl HubName {
    pub fn parse(text: &str) -> Result<HubName> {
        let name = text.strip_prefix(PREFIX).unwrap_or(text);
        let wrong = |what: &str| Err(Error::Hub { repository: name.to_owned(), what: what.to_owned() });
        let (path, revision) = match name.split_once('@') {
            Some((path, revision)) => (path, revision),
            None => (name, MAIN),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let ([owner, repository], file) = match &parts[..] {
            [owner, repository, file @ ..] => ([*owner, *repository], file),
            _ => return wrong("expected hf:OWNER/NAME, hf:OWNER/NAME/FILE.gguf or either with @REVISION"),
        };
        if !is_plain_name(owner) || !is_plain_name(repository) || !parts.iter().all(|part| is_file_name(part)) {
            return wrong("expected hf:OWNER/NAME of letters, digits, '-', '_' and '.'");
        }
        if file.last().is_some_and(|file| !file.ends_with(".gguf")) {
            return wrong("expected the name of a .gguf file after the repository; other models are taken whole");
        }
        if !revision.split('/').all(is_plain_name) {
            return wrong("expected a branch, tag or commit after '@'");
        }
        Ok(HubName {
            repository: format!("{owner}/{repository}"),
            file: (!file.is_empty()).then(|| file.join("/")),
            revision: revision.to_owned(),
        })
    }

    /// An error about this name.
    pub fn error(&self, what: impl Into<String>) -> Error {
        let mut repository = self.repository.clone();
        if let Some(file) = &self.file {
            repository.extend(["/", file]);
        }
        if self.revision != MAIN {
            repository.extend(["@", &self.revision]);
        }
        Error::Hub { repository, what: what.into() }
    }
}

/// Whether `name` is safe as one part of a path and of an address. Holds for owners, repositories, parts of
/// revisions, commits and ETags.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.len() <= 128
        && !name.starts_with(['.', '-'])
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether `name` is safe as one part of a file's path in a repository; more characters are common there.
pub(super) fn is_file_name(name: &str) -> bool {
    name.len() <= 255
        && !name.starts_with('.')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+=,()~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = |repository: &str, file: Option<&str>, revision: &str| HubName {
            repository: repository.to_owned(),
            file: file.map(str::to_owned),
            revision: revision.to_owned(),
        };
        let parse = |text| HubName::parse(text).unwrap();
        assert_eq!(parse("hf:google/flan-t5-small"), name("google/flan-t5-small", None, "main"));
        assert_eq!(parse("hf:google/t5-v1_1-xl@refs/pr/3"), name("google/t5-v1_1-xl", None, "refs/pr/3"));
        assert_eq!(parse("hf:a/b/t5.Q8_0.gguf"), name("a/b", Some("t5.Q8_0.gguf"), "main"));
        assert_eq!(parse("hf:a/b/sub/x.gguf@v1.0"), name("a/b", Some("sub/x.gguf"), "v1.0"));
        assert_eq!(parse("hf:a/b@v1").error("x").to_string(), "hf:a/b@v1: x");
    }

    #[test]
    fn names_that_could_leave_the_cache_or_the_address_are_refused() {
        for text in [
            "hf:",
            "hf:t5-small",
            "hf:/b",
            "hf:a/",
            "hf:../b",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b@x//y",
            "hf:a b/c",
            "hf:a/b?x",
            "hf:a/b#x",
            "hf:a/b%2e",
            "hf:a/b@x y",
            "hf:a/b@/etc",
            "hf:a\\b/c",
            "hf:a/b/../x.gguf",
            "hf:a/b//x.gguf",
            "hf:a/b/config.json",
            "hf:a/b@x@y",
            "hf:é/b",
        ] {
            let error = HubName::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(text) && error.contains("expected"), "{text}: {error}");
        }
    }
}
