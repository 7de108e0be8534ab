//! Hugging Face's layout: weights with config.json, a tokenizer and generation_config.json beside them.

use std::path::Path;

use super::assemble::{Dialect, Stored, assemble};
use super::{Checkpoint, generation, safetensors};
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::storage::Bytes;
use crate::tokenizer::Vocabulary;

/// Opens a folder with config.json and model.safetensors, or several files under model.safetensors.index.json.
pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let not_a_model = |expected: &str| Error::NotAModel { path: folder.to_owned(), expected: expected.to_owned() };
    if !folder.join("config.json").is_file() {
        return Err(not_a_model("config.json in this folder"));
    }
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if single.is_file() {
        let stored = safetensors::parse(&single.display().to_string(), &Bytes::map(&single)?)?;
        with_companions(folder, &folder.display().to_string(), &single.display().to_string(), stored)
    } else if index.is_file() {
        let stored = safetensors::parse_sharded(&index)?;
        with_companions(folder, &folder.display().to_string(), &index.display().to_string(), stored)
    } else {
        Err(not_a_model("model.safetensors or model.safetensors.index.json in this folder"))
    }
}

/// Opens one safetensors file with config.json beside it.
pub(super) fn open_safetensors(path: &Path) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let stored = safetensors::parse(&file, &Bytes::map(path)?)?;
    with_companions(path.parent().unwrap_or(Path::new("")), &file, &file, stored)
}

/// Adds to weights with Hugging Face names what lies in the same folder. `weights` names the file of weights.
pub(super) fn with_companions(folder: &Path, file: &str, weights: &str, stored: Stored) -> Result<Checkpoint> {
    let path = folder.join("config.json");
    if !path.is_file() {
        return Err(Error::NotAModel { path: file.into(), expected: "config.json beside it".to_owned() });
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut config = T5Config::from_json(&path.display().to_string(), &text)?;
    let mut notes = Vec::new();
    let tensors = assemble(weights, Dialect::HuggingFace, &mut config, stored, &mut notes)?;
    let generation = generation::read(folder, &path, &text, &mut notes)?;
    let vocabulary = vocabulary(folder, &config, &mut notes)?;
    Ok(Checkpoint { file: file.to_owned(), config, vocabulary, generation, notes, tensors })
}

/// The vocabulary of a folder.
fn vocabulary(_folder: &Path, _config: &T5Config, _notes: &mut Vec<String>) -> Result<Option<Vocabulary>> {
    Ok(None)
}
