//! Hugging Face's layout: weights with config.json, a tokenizer and generation_config.json beside them.

mod bytes;
mod config;
mod files;
mod safetensors;

use std::path::Path;

pub(super) use files::Files;
pub(crate) use files::{COMPANIONS, INDEX, WEIGHTS};

use super::assemble::{Dialect, Stored, assemble};
use super::{Checkpoint, defaults};
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::json::{self, Keys};
use crate::schema::{self, Role, Stack, TensorId};
use crate::storage::Bytes;
use crate::tokenizer::Vocabulary;

/// Opens files with config.json and model.safetensors, or several under model.safetensors.index.json.
pub(super) fn open(files: Files) -> Result<Checkpoint> {
    let not_a_model = |expected: &str| Error::NotAModel { path: files.name().into(), expected: expected.to_owned() };
    if files.bytes("config.json")?.is_none() {
        return Err(not_a_model("config.json in this folder"));
    }
    for (weights, is_index) in [(WEIGHTS, false), (INDEX, true)] {
        let Some(bytes) = files.bytes(weights)? else { continue };
        let place = files.place(weights);
        let stored =
            if is_index { safetensors::parse_sharded(files, weights)? } else { safetensors::parse(&place, &bytes)? };
        return with_companions(files, &files.name(), &place, stored);
    }
    Err(not_a_model("model.safetensors or model.safetensors.index.json in this folder"))
}

/// Opens one safetensors file with config.json beside it.
pub(super) fn open_safetensors(path: &Path) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let stored = safetensors::parse(&file, &Bytes::map(path)?)?;
    with_companions(Files::Disk(path.parent().unwrap_or(Path::new(""))), &file, &file, stored)
}

/// Adds to weights with Hugging Face names what lies in the same folder. `weights` names the file of weights.
pub(super) fn with_companions(files: Files, file: &str, weights: &str, stored: Stored) -> Result<Checkpoint> {
    let Some(text) = files.text("config.json")? else {
        return Err(Error::NotAModel { path: file.into(), expected: "config.json beside it".to_owned() });
    };
    let (mut notes, mut not_obeyed) = (Vec::new(), Vec::new());
    let place = files.place("config.json");
    let json = json::object(&place, text.as_bytes())?;
    let json = Keys { file: &place, json: &json };
    let gate = schema::hf_name(TensorId { role: Role::Wi0, stack: Some(Stack::Encoder), block: Some(0) });
    let mut config = config::read(json, stored.tensors.contains_key(&gate), &mut not_obeyed)?;
    let tied = config.tie_word_embeddings;
    let tensors = assemble(weights, Dialect::HuggingFace, &mut config, stored, &mut notes)?;
    note_head(json, tied, &config, &mut not_obeyed);
    notes.splice(0..0, not_obeyed.iter().cloned());
    let generation = defaults::read(files, &config, &text)?;
    not_obeyed.extend(generation.note());
    notes.extend(generation.note());
    let vocabulary = vocabulary(files, &config, json, &mut notes)?;
    if let Some(found) = vocabulary.as_ref().map(Vocabulary::len).filter(|&found| found > config.vocab_size) {
        let what =
            format!("expected at most {} pieces, one for each row of the embedding, found {found}", config.vocab_size);
        return Err(Error::Tokenizer { file: files.name(), what });
    }
    Ok(Checkpoint {
        file: file.to_owned(),
        config,
        vocabulary,
        generation,
        about: Default::default(),
        notes,
        not_obeyed,
        tensors,
    })
}

/// Notes where what the file says of the head and what is stored do not go together. `tied` is what the file says.
fn note_head(json: Keys, tied: bool, config: &T5Config, notes: &mut Vec<String>) {
    let file = json.file;
    match (tied, config.tie_word_embeddings) {
        (false, true) if !config.is_encoder_only() => notes.push(format!(
            "{file}: tie_word_embeddings is false, but there is no lm_head.weight: the embedding is the output matrix"
        )),
        // transformers 5 forgets what the file of an umT5 said before, and scales all of them itself.
        (true, false) if config.model_type == "umt5" && json.get("scale_decoder_outputs").is_none() => {
            notes.push(format!(
                "{file}: the decoder's outputs are scaled by d_model^-0.5, as transformers 5 does with every umT5; if \
                 the model was trained without (all that are published were), add \"scale_decoder_outputs\": false"
            ));
        }
        _ => {}
    }
}

/// The vocabulary of a folder: bytes where a tokenizer class says so, else tokenizer.json, else a SentencePiece model.
fn vocabulary(
    files: Files,
    config: &T5Config,
    config_json: Keys,
    notes: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let place = files.place("tokenizer_config.json");
    let tokenizer_config =
        files.bytes("tokenizer_config.json")?.map(|text| json::object(&place, &text)).transpose()?.unwrap_or_default();
    let tokenizer_config = Keys { file: &place, json: &tokenizer_config };
    let is_byte_class = |keys: Keys| keys.get("tokenizer_class").is_some_and(|name| name == "ByT5Tokenizer");
    if config.model_type == "byt5" || is_byte_class(tokenizer_config) || is_byte_class(config_json) {
        return bytes::read(files, tokenizer_config, config.vocab_size).map(|bytes| Some(Vocabulary::Bytes(bytes)));
    }

    if let Some(bytes) = files.bytes("tokenizer.json")? {
        let file = files.place("tokenizer.json");
        let vocabulary = Vocabulary::from_tokenizer_json(&file, &bytes)?;
        notes.extend(Vocabulary::ignored_in_tokenizer_json(&file, &bytes)?);
        return Ok(Some(vocabulary));
    }
    for name in files::SENTENCEPIECE {
        let Some(bytes) = files.bytes(name)? else { continue };
        let file = files.place(name);
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
