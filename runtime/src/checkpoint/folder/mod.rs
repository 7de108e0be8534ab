//! Hugging Face's layout: weights with config.json, a tokenizer and generation_config.json beside them.

mod bytes;
mod config;
mod deduced;
mod files;
mod head;
mod names;
mod pieces;
mod pipeline;
pub(crate) mod safetensors;
mod sentence;
mod special;

use std::path::Path;

pub(super) use files::Files;
pub use files::VOCABULARY_FILES;
pub(crate) use files::{COMPANIONS, WEIGHTS, is_index};
#[cfg(feature = "hub")]
pub(crate) use files::{has_vocabulary, tokenizer_files};
#[cfg(feature = "hub")]
pub(crate) use pipeline::tokenizer_beside;
pub(crate) use pipeline::{encoder_in, tokenizer};
#[cfg(feature = "hub")]
pub(crate) use sentence::is_file_of_module;
pub(super) use special::ADDED_TOKENS;

use super::assemble::{Dialect, Stored, assemble};
use super::{Checkpoint, PickleReader, defaults, is_pickle};
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::json::{self, Keys};
use crate::schema::{self, Role, Stack, TensorId};
use crate::storage::Bytes;
use crate::tokenizer::Vocabulary;
use special::Special;

/// Opens a folder on the disk: a model's, or a pipeline's with a model in it.
pub(super) fn open_disk(folder: &Path, pickles: Option<&PickleReader>) -> Result<Checkpoint> {
    let inner = encoder_in(folder)?;
    with_tokenizer(inner.as_deref().unwrap_or(folder), pickles, open_with_modules)
}

/// Calls `open` with the files of a folder, among them those of a tokenizer in a folder beside it.
fn with_tokenizer<T>(folder: &Path, pickles: Option<&PickleReader>, open: impl FnOnce(Files) -> T) -> T {
    let tokenizer = tokenizer(folder);
    open(Files::Disk { folder, tokenizer: tokenizer.as_deref(), pickles })
}

/// Opens a folder, which may be one of sentence-transformers: then what is behind the encoder belongs to it.
pub(super) fn open_with_modules(files: Files) -> Result<Checkpoint> {
    let mut checkpoint = match (sentence::transformer_folder(files)?, files) {
        (Some(inner), Files::Disk { folder, pickles, .. }) if !inner.is_empty() => {
            open(Files::Disk { folder: &folder.join(inner), tokenizer: None, pickles })?
        }
        (Some(folder), Files::Memory { .. }) if !folder.is_empty() => {
            let what = format!("expected the encoder beside it, found it in {folder}");
            return Err(Error::format(files.place(sentence::MODULES), what));
        }
        _ => open(files)?,
    };
    checkpoint.sentence = sentence::read(files, checkpoint.config.d_model)?;
    Ok(checkpoint)
}

/// Opens files with config.json and weights under one of the names of [`WEIGHTS`] or [`PICKLES`].
pub(super) fn open(files: Files) -> Result<Checkpoint> {
    let not_a_model = |expected: &str| Error::NotAModel { path: files.name().into(), expected: expected.to_owned() };
    for weights in WEIGHTS.into_iter().chain(PICKLES) {
        if files.bytes(weights)?.is_none() {
            continue;
        }
        let stored = match is_index(weights) {
            true => safetensors::parse_sharded(files, weights)?,
            false => weights_of(files, weights)?,
        };
        return with_companions(files, &files.name(), &files.place(weights), stored);
    }
    if let Some(text) = files.text(ADAPTER)? {
        let adapter = json::object(&files.place(ADAPTER), text.as_bytes())?;
        let base = adapter.get("base_model_name_or_path").and_then(serde_json::Value::as_str).unwrap_or("MODEL");
        return Err(not_a_model(&format!(
            "a whole model, found a LoRA adapter of {base}; `t5-quantize {base} OUT.gguf --adapter {}` merges the two",
            files.name()
        )));
    }
    Err(not_a_model(match files.bytes("config.json")? {
        Some(_) => "model.safetensors or model.safetensors.index.json in this folder",
        None => "config.json and model.safetensors in this folder",
    }))
}

/// What PEFT says of an adapter, which lies in a folder without a model.
const ADAPTER: &str = "adapter_config.json";

/// What PyTorch saves weights as: pickles, which are programs. The reader of t5-quantize runs none of them.
pub(crate) const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The tensors of one file that must be there.
fn weights_of(files: Files, file: &str) -> Result<Stored> {
    let place = files.place(file);
    match files {
        _ if !is_pickle(Path::new(file)) => safetensors::parse(&place, &files.required(file)?),
        Files::Disk { pickles: Some(read), .. } => Ok(Stored::of(read(Path::new(&place))?)),
        _ => Err(pickle(&place, &files.name())),
    }
}

/// The error that weights are in a pickle; `input` is what the converter has to be given.
fn pickle(file: &str, input: &str) -> Error {
    Error::NotAModel {
        path: file.into(),
        expected: format!("safetensors or GGUF; `t5-quantize {input} OUT.gguf` makes a GGUF file of a PyTorch pickle"),
    }
}

/// Opens one safetensors file, or a pickle.
pub(super) fn open_file(path: &Path, pickles: Option<&PickleReader>) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let stored = match pickles {
        _ if !is_pickle(path) => safetensors::parse(&file, &Bytes::map(path)?)?,
        Some(read) => Stored::of(read(path)?),
        None => return Err(pickle(&file, &file)),
    };
    beside(path, stored)
}

/// Opens tensors that are in the file `path`, or in files beside it, with what else lies in its folder.
pub(super) fn beside(path: &Path, stored: Stored) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    with_tokenizer(folder, None, |files| with_companions(files, &file, &file, stored))
}

/// Adds to weights with names of any spelling what lies in the same folder. `weights` names the file of weights.
pub(super) fn with_companions(files: Files, file: &str, weights: &str, mut stored: Stored) -> Result<Checkpoint> {
    let (mut notes, mut not_obeyed) = (Vec::new(), Vec::new());
    let prefix = names::settle(weights, &mut stored)?;
    let text = files.text("config.json")?;
    let own = match &text {
        // An image model's, beside which somebody has put an encoder.
        Some(text) => Some(json::object(&files.place("config.json"), text.as_bytes())?)
            .filter(|json| json.get("_class_name").is_none()),
        None => None,
    };
    let text = text.filter(|_| own.is_some()).unwrap_or_else(|| "{}".to_owned());
    let (place, json) = match own {
        Some(json) => (files.place("config.json"), json),
        None => {
            let (json, note) = deduced::config(weights, &stored)?;
            notes.push(note);
            (weights.to_owned(), json)
        }
    };
    let json = Keys { file: &place, json: &json };
    let gate = schema::hf_name(TensorId { role: Role::Wi0, stack: Some(Stack::Encoder), block: Some(0) });
    let mut config = config::read(json, stored.tensors.contains_key(&gate), &mut not_obeyed)?;
    head::note_class(json, &mut not_obeyed);
    let head = head::take(weights, json, &mut stored, config.d_model)?;
    notes.extend(prefix.note(weights, &stored));
    let tied = config.tie_word_embeddings;
    let inner_tokenizer = stored.sentencepiece.take();
    let tensors = assemble(weights, Dialect::HuggingFace, &mut config, stored, &mut notes)
        .map_err(|error| config::explain(error, json))?;
    note_head(json, tied, &config, &mut not_obeyed);
    notes.splice(0..0, not_obeyed.iter().cloned());
    let generation = defaults::read(files, &config, &text)?;
    not_obeyed.extend(generation.note());
    notes.extend(generation.note());
    let vocabulary = match inner_tokenizer {
        Some((name, model)) => {
            let nothing = Keys { file: &place, json: &serde_json::Value::Null };
            Some(sentencepiece(&format!("{weights}: {name}"), &model, &config, nothing)?)
        }
        None => vocabulary(files, &config, json, &mut notes, &mut not_obeyed)?,
    };
    check_rows(&files.name(), vocabulary.as_ref(), &config)?;
    Ok(Checkpoint {
        file: file.to_owned(),
        config,
        vocabulary,
        generation,
        sentence: None,
        head,
        encoder_scale: None,
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

/// Refuses a vocabulary with more pieces than the embedding has rows.
pub(super) fn check_rows(file: &str, vocabulary: Option<&Vocabulary>, config: &T5Config) -> Result<()> {
    match vocabulary.map(Vocabulary::len).filter(|&found| found > config.vocab_size) {
        Some(found) => {
            let rows = config.vocab_size;
            let what = format!("expected at most {rows} pieces, one for each row of the embedding, found {found}");
            Err(Error::Tokenizer { file: file.to_owned(), what })
        }
        None => Ok(()),
    }
}

/// The vocabulary in a folder, or in one file of it: a model's of this configuration. Notes as for [`vocabulary`].
pub(super) fn vocabulary_at(
    path: &Path,
    config: &T5Config,
    notes: &mut Vec<String>,
    not_obeyed: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let nothing = serde_json::json!({});
    let keys = |file| Keys { file, json: &nothing };
    if path.is_dir() {
        return with_tokenizer(path, None, |files| vocabulary(files, config, keys("config.json"), notes, not_obeyed));
    }
    let file = path.display().to_string();
    let bytes = Bytes::map(path)?;
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return tokenizer_json(&file, &bytes, config, notes).map(Some);
    }
    sentencepiece(&file, &bytes, config, keys(&file)).map(Some)
}

/// A SentencePiece model, with the sentinels that its tokenizer class adds.
fn sentencepiece(file: &str, bytes: &[u8], config: &T5Config, tokenizer_config: Keys) -> Result<Vocabulary> {
    let usual = if config.model_type == "umt5" { 300 } else { 100 };
    let stored = tokenizer_config.get("extra_ids").and_then(serde_json::Value::as_u64);
    let extra_ids = stored.and_then(|count| u32::try_from(count).ok()).unwrap_or(usual);
    let vocabulary = Vocabulary::from_sentencepiece(file, bytes, extra_ids)?;
    // Models without sentinels (MADLAD) have no rows for them either.
    if vocabulary.len() > config.vocab_size && stored.is_none() {
        Vocabulary::from_sentencepiece(file, bytes, 0)
    } else {
        Ok(vocabulary)
    }
}

/// A `tokenizer.json`: translated where it is Unigram, else as it is.
fn tokenizer_json(file: &str, bytes: &[u8], config: &T5Config, notes: &mut Vec<String>) -> Result<Vocabulary> {
    if Vocabulary::kind_in_tokenizer_json(bytes).is_some_and(|kind| kind != "Unigram") {
        return Vocabulary::from_other_tokenizer_json(file, bytes, config.eos_token_id, config.pad_token_id);
    }
    let vocabulary = Vocabulary::from_tokenizer_json(file, bytes)?;
    notes.extend(Vocabulary::ignored_in_tokenizer_json(file, bytes)?);
    Ok(vocabulary)
}

/// The vocabulary of a folder: bytes where a tokenizer class says so, else tokenizer.json, else a SentencePiece model
/// with the tokens that other files add to it. What everybody should know of it comes to both lists of notes.
fn vocabulary(
    files: Files,
    config: &T5Config,
    config_json: Keys,
    notes: &mut Vec<String>,
    not_obeyed: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let place = files.place("tokenizer_config.json");
    let tokenizer_config =
        files.bytes("tokenizer_config.json")?.map(|text| json::object(&place, &text)).transpose()?.unwrap_or_default();
    let tokenizer_config = Keys { file: &place, json: &tokenizer_config };
    let mut note = |left_out: Option<String>| {
        notes.extend(left_out.clone());
        not_obeyed.extend(left_out);
    };
    let is_byte_class = |keys: Keys| keys.get("tokenizer_class").is_some_and(|name| name == "ByT5Tokenizer");
    if config.model_type == "byt5" || is_byte_class(tokenizer_config) || is_byte_class(config_json) {
        let (bytes, left_out) = bytes::read(files, tokenizer_config, config.vocab_size)?;
        note(left_out);
        return Ok(Some(Vocabulary::Bytes(bytes)));
    }

    if let Some(bytes) = files.bytes("tokenizer.json")? {
        let file = files.place("tokenizer.json");
        return tokenizer_json(&file, &bytes, config, notes).map(Some);
    }
    for name in files::SENTENCEPIECE {
        let Some(bytes) = files.bytes(name)? else { continue };
        let place = files.place(name);
        let usual = sentencepiece(&place, &bytes, config, tokenizer_config)?;
        let plain = || Vocabulary::from_sentencepiece(&place, &bytes, 0);
        let special = Special::read(files, tokenizer_config, |_| None)?;
        let (vocabulary, left_out) = special.add_to(usual, plain, config.vocab_size)?;
        note(left_out);
        return Ok(Some(vocabulary));
    }
    if let Some((file, json)) = pieces::read(files, tokenizer_config)? {
        let (eos_id, pad_id) = (config.eos_token_id, config.pad_token_id);
        return Vocabulary::from_other_tokenizer_json(&file, json.as_bytes(), eos_id, pad_id).map(Some);
    }
    notes.push("no tokenizer.json or spiece.model: only token ids can be used".to_owned());
    Ok(None)
}
