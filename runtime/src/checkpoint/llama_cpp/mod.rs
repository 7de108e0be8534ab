//! GGUF files: llama.cpp's dialect, which holds everything, and candle's, which holds tensors only.

mod config;
mod defaults;
mod head;
pub mod keys;
mod sentence;
mod vocabulary;

use std::path::Path;

pub use config::metadata;

use super::Checkpoint;
use super::assemble::{Dialect, Stored, assemble};
use super::folder;
use crate::error::{Error, Result};
use crate::gguf::{Array, File, Value};
use crate::storage::Bytes;

/// Opens a file of either dialect; llama.cpp's names its architecture, candle's has no metadata.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let file = File::open(path)?;
    if file.value(keys::ARCHITECTURE).is_some() {
        return read(file);
    }
    folder::beside(path, stored(file))
}

/// Reads a file in memory, of llama.cpp's dialect.
pub(super) fn from_memory(name: &str, bytes: Bytes) -> Result<Checkpoint> {
    let file = File::parse(name, bytes)?;
    let count = file.split_count()?;
    if count > 1 {
        return Err(Error::format(name, format!("expected a whole model, found one part of {count}")));
    }
    read(file)
}

fn read(file: File) -> Result<Checkpoint> {
    let mut notes = Vec::new();
    let mut config = config::read(&file)?;
    let generation = defaults::read(&file)?;
    let mut not_obeyed = defaults::strings(&file, keys::CONFIG_NOT_OBEYED)?.unwrap_or_default();
    not_obeyed.extend(generation.note());
    notes.extend(not_obeyed.iter().cloned());
    let has_model_type = file.value(keys::MODEL_TYPE).is_some();
    let is_later_table = |name: &str| name.ends_with(".attn_rel_b.weight") && !name.contains(".blk.0.");
    let bias_per_block = file.tensors().iter().any(|tensor| is_later_table(&tensor.name));
    let vocabulary = vocabulary::read(&file, &config, bias_per_block, &mut notes)?;
    let sentence = sentence::read(&file, config.d_model)?;
    let head = head::read(&file, config.d_model)?;
    let encoder_scale = encoder_scale(&file, config.d_model)?;
    let about = file.about();
    let name = file.name().to_owned();
    let tensors = assemble(&name, Dialect::LlamaCpp, &mut config, stored(file), &mut notes)?;
    if config.relative_bias_per_block && !has_model_type {
        config.model_type = "umt5".to_owned();
    }
    Ok(Checkpoint {
        file: name,
        config,
        vocabulary,
        generation,
        sentence,
        head,
        encoder_scale,
        about,
        notes,
        not_obeyed,
        tensors,
    })
}

fn encoder_scale(file: &File, d_model: usize) -> Result<Option<Vec<f32>>> {
    let Some(array) = file.array(keys::ENCODER_SCALE)? else { return Ok(None) };
    let scale: Option<Vec<f32>> = array.floats().map(Iterator::collect);
    let usable = scale.filter(|scale| scale.len() == d_model && scale.iter().all(|factor| factor.is_normal()));
    let wrong = || {
        let what = format!("expected {d_model} f32 values that are numbers and not 0, found {}", array.describe());
        file.error(keys::ENCODER_SCALE, what)
    };
    usable.ok_or_else(wrong).map(Some)
}

/// Key-values of what a checkpoint has and says beside its model, behind those of [`metadata`].
pub fn more_metadata(checkpoint: &Checkpoint) -> Vec<(String, Value)> {
    let mut values = Vec::from_iter(not_obeyed(checkpoint));
    if let Some(model) = &checkpoint.sentence {
        sentence::append(model, &mut |key, value| values.push((key.to_owned(), value)));
    }
    if let Some(head) = &checkpoint.head {
        head::append(head, &mut |key, value| values.push((key.to_owned(), value)));
    }
    values
}

/// The key-value that keeps what a checkpoint says of its configuration, without the folder that it was read from:
/// what begins with the file's path.
fn not_obeyed(checkpoint: &Checkpoint) -> Option<(String, Value)> {
    let of_generation = checkpoint.generation.note();
    let notes = checkpoint.not_obeyed.iter().filter(|&note| Some(note) != of_generation.as_ref());
    let without_folder = |note: &String| {
        let (file, what) = note.split_once(": ")?;
        Some(format!("{}: {what}", Path::new(file).file_name()?.display()))
    };
    let notes: Vec<String> = notes.map(|note| without_folder(note).unwrap_or_else(|| note.clone())).collect();
    (!notes.is_empty()).then(|| (keys::CONFIG_NOT_OBEYED.to_owned(), Value::Array(Array::of_strings(&notes))))
}

fn stored(file: File) -> Stored {
    let tensors = file.into_tensors().into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    Stored { tensors, ..Stored::default() }
}
