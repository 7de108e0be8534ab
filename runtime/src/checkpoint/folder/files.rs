//! The files of a checkpoint: a folder on disk, or files that are in memory already (dropped on a page).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::PickleReader;
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// A file of weights.
pub(super) const SAFETENSORS: &str = "model.safetensors";
/// The names that the weights of a model go by, best first: one file, or an index that says which of several files each
/// tensor is in. The later ones are what Diffusers calls variants.
pub(crate) const WEIGHTS: [&str; 6] = [
    SAFETENSORS,
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "model.bf16.safetensors",
    "model.safetensors.index.bf16.json",
];

/// Whether a file of [`WEIGHTS`] is an index.
pub(crate) fn is_index(weights: &str) -> bool {
    weights.ends_with(".json")
}

/// The names that a SentencePiece model goes by.
pub(super) const SENTENCEPIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.model"];

/// The names of files that are a whole vocabulary, in the order in which a folder is searched for them.
pub const VOCABULARY_FILES: [&str; 4] = ["tokenizer.json", SENTENCEPIECE[0], SENTENCEPIECE[1], SENTENCEPIECE[2]];

/// What may lie beside the weights and belongs to them, in the order in which it is fetched: what makes a tokenizer
/// whole (of ByT5's that is its configuration) comes behind what adds to it.
pub(crate) static COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "tokenizer.json",
    SENTENCEPIECE[0],
    SENTENCEPIECE[1],
    SENTENCEPIECE[2],
    "vocab.json",
    "merges.txt",
    "vocab.txt",
];

/// Whether a folder has a vocabulary that is whole: in one file, or in all of its parts.
#[cfg(feature = "hub")]
pub(crate) fn has_vocabulary(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    VOCABULARY_FILES.into_iter().any(has) || has("vocab.txt") || (has("vocab.json") && has("merges.txt"))
}

/// How many of [`COMPANIONS`] come before those of the tokenizer.
const NOT_THE_TOKENIZERS: usize = 2;

/// The companions that make a tokenizer.
pub(crate) fn tokenizer_files() -> &'static [&'static str] {
    &COMPANIONS[NOT_THE_TOKENIZERS..]
}

/// A folder, by the names of its files.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) enum Files<'a> {
    /// `tokenizer` is a folder that has the tokenizer's files where the model's has none.
    Disk {
        folder: &'a Path,
        tokenizer: Option<&'a Path>,
        pickles: Option<&'a PickleReader>,
    },
    Memory {
        name: &'a str,
        files: &'a HashMap<String, Bytes>,
    },
}

impl Files<'_> {
    /// The folder's name in messages.
    pub fn name(self) -> String {
        match self {
            Files::Disk { folder, .. } => folder.display().to_string(),
            Files::Memory { name, .. } => name.to_owned(),
        }
    }

    /// A file's name in messages.
    pub fn place(self, file: &str) -> String {
        match self {
            Files::Disk { .. } => self.path(file).unwrap_or_default().display().to_string(),
            Files::Memory { .. } => file.to_owned(),
        }
    }

    /// The path of a file on the disk, whether it is there or not.
    fn path(self, file: &str) -> Option<PathBuf> {
        let Files::Disk { folder, tokenizer, .. } = self else { return None };
        let folder = tokenizer.filter(|_| tokenizer_files().contains(&file)).unwrap_or(folder);
        Some(folder.join(file))
    }

    /// The bytes of a file; `None` if there is none of this name.
    pub fn bytes(self, file: &str) -> Result<Option<Bytes>> {
        match self {
            // What is there and no file is an error, not nothing.
            Files::Disk { .. } => {
                self.path(file).filter(|path| path.exists()).map(|path| Bytes::map(&path)).transpose()
            }
            Files::Memory { files, .. } => Ok(files.get(file).cloned()),
        }
    }

    /// The bytes of a file that must be there.
    pub fn required(self, file: &str) -> Result<Bytes> {
        if let Some(path) = self.path(file) {
            return Bytes::map(&path);
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
