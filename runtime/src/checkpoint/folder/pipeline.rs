//! Folders of Diffusers' pipelines: the encoder in `text_encoder`, its tokenizer in `tokenizer`, each perhaps with a
//! number behind, side by side with image models and encoders of other kinds.

use std::path::{Path, PathBuf};

use super::PICKLES;
use super::files::{WEIGHTS, tokenizer_files};
use crate::error::{Error, Result};

const ENCODER: &str = "text_encoder";
const TOKENIZER: &str = "tokenizer";

/// The folder of the one T5 inside a pipeline's folder; `None` where `folder` is none.
///
/// # Errors
/// Where a pipeline has no T5 or several.
pub(crate) fn encoder_in(folder: &Path) -> Result<Option<PathBuf>> {
    if WEIGHTS.iter().chain(&PICKLES).chain(&["config.json"]).any(|file| folder.join(file).exists()) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?.flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| number(name, ENCODER).is_some())
        .collect();
    names.sort();
    if names.is_empty() {
        return Ok(None);
    }
    let kinds: Vec<(&String, String)> = names.iter().map(|name| (name, kind(&folder.join(name)))).collect();
    let is_t5 = |kind: &str| ["t5", "mt5", "umt5"].contains(&kind);
    let t5: Vec<&String> = kinds.iter().filter(|(_, kind)| is_t5(kind)).map(|(name, _)| *name).collect();
    match &t5[..] {
        [one] => Ok(Some(folder.join(one))),
        [] => {
            let found: Vec<String> = kinds.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
            let expected = format!("a T5 in one of its folders, found {}", found.join(", "));
            Err(Error::NotAModel { path: folder.to_owned(), expected })
        }
        several => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            let what = format!("expected one T5, found {}: name the folder of one: {}", names.len(), names.join(", "));
            Err(Error::format(folder.display().to_string(), what))
        }
    }
}

/// The folder of the tokenizer that belongs to an encoder's folder without one.
pub(crate) fn tokenizer(folder: &Path) -> Option<PathBuf> {
    let has = |folder: &Path| tokenizer_files().iter().any(|file| folder.join(file).exists());
    // The name may be "." or a link's.
    let whole = std::path::absolute(folder).ok()?;
    let beside = whole.parent()?.join(tokenizer_beside(whole.file_name()?.to_str()?)?);
    (!has(folder) && has(&beside)).then_some(beside)
}

/// The name of the tokenizer's folder for that of an encoder: `tokenizer_2` for `text_encoder_2`.
pub(crate) fn tokenizer_beside(encoder: &str) -> Option<String> {
    Some(format!("{TOKENIZER}{}", number(encoder, ENCODER)?))
}

/// What stands behind the stem in a folder's name: nothing, `_2`, `_3`.
fn number<'a>(name: &'a str, stem: &str) -> Option<&'a str> {
    let number = name.strip_prefix(stem)?;
    let is_number = number.strip_prefix('_').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    (number.is_empty() || is_number).then_some(number)
}

/// What a folder's config.json says the model is.
fn kind(folder: &Path) -> String {
    let text = std::fs::read(folder.join("config.json")).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    json.get("model_type").and_then(|kind| kind.as_str()).unwrap_or("unknown").to_owned()
}
