//! `hf:OWNER/NAME[/FOLDER|/FILE][:VARIANT][@REVISION]`: the parts, checked before they become addresses and paths.

use std::path::Path;

use crate::error::{Error, Result};

pub(super) const PREFIX: &str = "hf:";
pub(super) const MAIN: &str = "main";

/// A parsed name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HubName {
    /// `OWNER/NAME`
    pub repository: String,
    /// A file of weights in the repository, perhaps in a folder; `None` leaves the choice to us.
    pub file: Option<String>,
    /// A folder of the repository that holds the model.
    pub folder: Option<String>,
    /// What the name of the one GGUF file to take ends with: `Q8_0`.
    pub variant: Option<String>,
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
        let (path, variant) = match path.split_once(':') {
            Some((path, variant)) => (path, Some(variant)),
            None => (path, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let ([owner, repository], inside) = match &parts[..] {
            [owner, repository, inside @ ..] => ([*owner, *repository], inside),
            _ => return wrong("expected hf:OWNER/NAME, hf:OWNER/NAME/FILE, hf:OWNER/NAME:Q8_0 or any with @REVISION"),
        };
        if !is_plain_name(owner) || !is_plain_name(repository) || !parts.iter().all(|part| is_file_name(part)) {
            return wrong("expected hf:OWNER/NAME of letters, digits, '-', '_' and '.'");
        }
        let is_file = inside.last().is_some_and(|last| is_weights(last));
        if inside.last().is_some_and(|last| [".json", ".txt", ".model", ".md"].iter().any(|end| last.ends_with(end))) {
            return wrong("expected a folder or a file of weights after the repository");
        }
        if variant.is_some_and(|variant| !is_file_name(variant) || is_file) {
            return wrong("expected one GGUF file's type after ':', as in hf:OWNER/NAME:Q8_0");
        }
        if !revision.split('/').all(is_plain_name) {
            return wrong("expected a branch, tag or commit after '@'");
        }
        Ok(HubName {
            repository: format!("{owner}/{repository}"),
            file: is_file.then(|| inside.join("/")),
            folder: (!is_file && !inside.is_empty()).then(|| inside.join("/")),
            variant: variant.map(str::to_owned),
            revision: revision.to_owned(),
        })
    }

    /// An error about this name.
    pub fn error(&self, what: impl Into<String>) -> Error {
        let mut repository = self.repository.clone();
        if let Some(inside) = self.file.as_ref().or(self.folder.as_ref()) {
            repository.extend(["/", inside]);
        }
        if let Some(variant) = &self.variant {
            repository.extend([":", variant]);
        }
        if self.revision != MAIN {
            repository.extend(["@", &self.revision]);
        }
        Error::Hub { repository, what: what.into() }
    }
}

/// Whether a file has the name of weights.
pub(super) fn is_weights(file: &str) -> bool {
    file.ends_with(".gguf") || file.ends_with(".safetensors") || crate::checkpoint::is_pickle(Path::new(file))
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
            folder: None,
            variant: None,
            revision: revision.to_owned(),
        };
        let parse = |text| HubName::parse(text).unwrap();
        assert_eq!(parse("hf:google/flan-t5-small"), name("google/flan-t5-small", None, "main"));
        assert_eq!(parse("hf:google/t5-v1_1-xl@refs/pr/3"), name("google/t5-v1_1-xl", None, "refs/pr/3"));
        assert_eq!(parse("hf:a/b/t5.Q8_0.gguf"), name("a/b", Some("t5.Q8_0.gguf"), "main"));
        assert_eq!(parse("hf:a/b/sub/x.gguf@v1.0"), name("a/b", Some("sub/x.gguf"), "v1.0"));
        assert_eq!(parse("hf:a/b/x.safetensors"), name("a/b", Some("x.safetensors"), "main"));
        let folder = HubName { folder: Some("text_encoder_2".to_owned()), ..name("a/b", None, "v1") };
        assert_eq!(parse("hf:a/b/text_encoder_2@v1"), folder);
        assert_eq!(folder.error("x").to_string(), "hf:a/b/text_encoder_2@v1: x");
        let variant = HubName { variant: Some("Q8_0".to_owned()), ..name("a/b", None, "main") };
        assert_eq!(parse("hf:a/b:Q8_0"), variant);
        assert_eq!(variant.error("x").to_string(), "hf:a/b:Q8_0: x");
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
            "hf:a/b:",
            "hf:a/b:Q8_0/x",
            "hf:a/b/x.gguf:Q8_0",
            "hf:a/b:../x",
            "hf:a/b@x@y",
            "hf:é/b",
        ] {
            let error = HubName::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(text) && error.contains("expected"), "{text}: {error}");
        }
    }
}
