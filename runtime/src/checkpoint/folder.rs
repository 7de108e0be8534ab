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
    let vocabulary = vocabulary(folder, &config, &text, &mut notes)?;
    if let Some(found) = vocabulary.as_ref().map(Vocabulary::len).filter(|&found| found > config.vocab_size) {
        let what =
            format!("expected at most {} pieces, one for each row of the embedding, found {found}", config.vocab_size);
        return Err(Error::Tokenizer { file: folder.display().to_string(), what });
    }
    Ok(Checkpoint { file: file.to_owned(), config, vocabulary, generation, notes, tensors })
}

/// The vocabulary of a folder: bytes where a tokenizer class says so, else tokenizer.json, else a SentencePiece model.
fn vocabulary(
    folder: &Path,
    config: &T5Config,
    config_text: &str,
    notes: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let path = folder.join("tokenizer_config.json");
    let tokenizer_config = if path.is_file() {
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let wrong = |error| Error::format(path.display().to_string(), format!("expected a JSON object: {error}"));
        serde_json::from_slice::<serde_json::Value>(&text).map_err(wrong)?
    } else {
        serde_json::Value::Null
    };
    let is_byte_class =
        |json: &serde_json::Value| json.get("tokenizer_class").is_some_and(|name| name == "ByT5Tokenizer");
    if config.model_type == "byt5"
        || is_byte_class(&tokenizer_config)
        || serde_json::from_str(config_text).is_ok_and(|json| is_byte_class(&json))
    {
        return Ok(Some(Vocabulary::bytes(config.vocab_size as u32)));
    }

    let path = folder.join("tokenizer.json");
    if path.is_file() {
        let (file, bytes) = (path.display().to_string(), Bytes::map(&path)?);
        let vocabulary = Vocabulary::from_tokenizer_json(&file, &bytes)?;
        notes.extend(Vocabulary::ignored_in_tokenizer_json(&file, &bytes)?);
        return Ok(Some(vocabulary));
    }
    for name in ["spiece.model", "tokenizer.model", "sentencepiece.model"] {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let (file, bytes) = (path.display().to_string(), Bytes::map(&path)?);
        let usual = if config.model_type == "umt5" { 300 } else { 100 };
        let stored = tokenizer_config.get("extra_ids").and_then(serde_json::Value::as_u64);
        let extra_ids = stored.and_then(|count| u32::try_from(count).ok()).unwrap_or(usual);
        let vocabulary = Vocabulary::from_sentencepiece(&file, &bytes, extra_ids)?;
        // Models without sentinels (MADLAD) have no rows for them either.
        return if vocabulary.len() > config.vocab_size && stored.is_none() {
            Vocabulary::from_sentencepiece(&file, &bytes, 0).map(Some)
        } else {
            Ok(Some(vocabulary))
        };
    }
    notes.push("no tokenizer.json or spiece.model: only token ids can be used".to_owned());
    Ok(None)
}
