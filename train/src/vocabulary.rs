//! The vocabulary: reading one for training, and training one.

mod charsmap;
mod training;

use std::path::{Path, PathBuf};

use t5_runtime::tokenizer::{self, Tokenizer};

pub use charsmap::nmt_nfkc;
pub use training::{VocabularyConfig, save, train};

use crate::{Error, Result, objectives::Sentinels};

/// Id of padding and of the decoder's start.
pub const PAD: u32 = 0;
/// Id of the end mark.
pub const EOS: u32 = 1;
/// Id of what no piece covers.
pub const UNK: u32 = 2;

/// Sentinels of a SentencePiece model, which does not have them itself.
const EXTRA_IDS: u32 = 100;

/// Text to ids and back while training: the runtime's tokenizer, so that a model is trained on what it will see.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    sentinels: Sentinels,
    path: PathBuf,
}

impl Vocabulary {
    /// Reads a `tokenizer.json` or a SentencePiece model, or the one in a folder.
    ///
    /// # Errors
    /// Where there is none, or where it is not a T5 vocabulary (pad 0, `</s>` 1, `<unk>` 2).
    pub fn read(path: &Path) -> Result<Vocabulary> {
        let mut path = path.to_path_buf();
        if path.is_dir() {
            let model = path.join("spiece.model");
            path.push("tokenizer.json");
            if !path.exists() && model.exists() {
                path = model;
            }
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let file = path.display().to_string();
        let arrays = if path.extension().is_some_and(|suffix| suffix == "model") {
            tokenizer::Vocabulary::from_sentencepiece(&file, &bytes, EXTRA_IDS)?
        } else {
            tokenizer::Vocabulary::from_tokenizer_json(&file, &bytes)?
        };
        Vocabulary::new(Tokenizer::new(&file, &arrays)?, &path)
    }

    /// ByT5's vocabulary, for a model of so many embedding rows.
    ///
    /// # Errors
    /// Where the rows are too few.
    pub fn bytes(rows: u32) -> Result<Vocabulary> {
        let path = Path::new("bytes");
        Vocabulary::new(Tokenizer::new("bytes", &tokenizer::Vocabulary::bytes(rows))?, path)
    }

    /// Checks that a tokenizer has T5's special tokens. `path` is for messages.
    ///
    /// # Errors
    /// As [`Vocabulary::read`].
    pub fn new(tokenizer: Tokenizer, path: &Path) -> Result<Vocabulary> {
        for (text, found, id) in
            [("<pad>", tokenizer.pad_id(), PAD), ("</s>", tokenizer.eos_id(), EOS), ("<unk>", tokenizer.unk_id(), UNK)]
        {
            if found != id {
                return Err(Error::file(path, format!("expected {text} to have id {id}, found {found}")));
            }
        }
        let first = tokenizer.sentinel_id(0).unwrap_or(0);
        let mut count = 0;
        while first > count && tokenizer.sentinel_id(count) == Some(first - count) {
            count += 1;
        }
        Ok(Vocabulary { tokenizer, sentinels: Sentinels { first, count }, path: path.to_path_buf() })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of ids, sentinels included, without padding rows.
    pub fn size(&self) -> u32 {
        self.tokenizer.vocab_size() as u32
    }

    /// The ids that stand for removed spans; a count of 0 where the vocabulary has none.
    pub fn sentinels(&self) -> Sentinels {
        self.sentinels
    }

    /// The ids of a text, without an end mark.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_prefix(text)
    }

    /// The text of ids; pad and end marks are left out, sentinels are written as `<extra_id_n>`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| id != PAD && id != EOS).collect();
        self.tokenizer.decode(&ids, false)
    }

    /// The piece of an id as it is spelled in the vocabulary.
    pub fn piece(&self, id: u32) -> &str {
        self.tokenizer.piece(id).unwrap_or("<unused>")
    }
}
