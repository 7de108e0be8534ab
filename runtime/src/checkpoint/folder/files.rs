//! The files of a checkpoint: a folder on disk, or files that are in memory already (dropped on a page).

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::storage::Bytes;

/// The weights of a model, whole.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Which of several files each tensor is in.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The names that a SentencePiece model goes by.
pub(super) const SENTENCEPIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.model"];

/// What may lie beside the weights and belongs to them.
pub(crate) const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    SENTENCEPIECE[0],
    SENTENCEPIECE[1],
    SENTENCEPIECE[2],
];

/// A folder, by the names of its files.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) enum Files<'a> {
    Disk(&'a Path),
    Memory { name: &'a str, files: &'a HashMap<String, Bytes> },
}

impl Files<'_> {
    /// The folder's name in messages.
    pub fn name(self) -> String {
        match self {
            Files::Disk(folder) => folder.display().to_string(),
            Files::Memory { name, .. } => name.to_owned(),
        }
    }

    /// A file's name in messages.
    pub fn place(self, file: &str) -> String {
        match self {
            Files::Disk(folder) => folder.join(file).display().to_string(),
            Files::Memory { .. } => file.to_owned(),
        }
    }

    /// The bytes of a file; `None` if there is none of this name.
    pub fn bytes(self, file: &str) -> Result<Option<Bytes>> {
        match self {
            Files::Disk(folder) => {
                // What is there and no file is an error, not nothing.
                let path = folder.join(file);
                if path.exists() { Bytes::map(&path).map(Some) } else { Ok(None) }
            }
            Files::Memory { files, .. } => Ok(files.get(file).cloned()),
        }
    }

    /// The bytes of a file that must be there.
    pub fn required(self, file: &str) -> Result<Bytes> {
        if let Files::Disk(folder) = self {
            return Bytes::map(&folder.join(file));
        }
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "No such file among those given");
        self.bytes(file)?.ok_or_else(|| Error::io(file)(missing()))
    }

    /// The text of a file; `None` if there is none of this name.
    pub fn text(self, file: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(file)? else { return Ok(None) };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => Err(Error::format(self.place(file), format!("expected UTF-8 text: {error}"))),
        }
    }
}
