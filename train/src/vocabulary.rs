//! The vocabulary: reading one for training, and training one.

mod charsmap;
mod training;

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

pub use charsmap::nmt_nfkc;
pub use training::{VocabularyConfig, save, train};

use crate::{Error, Result, objectives::Sentinels};

/// Id of padding and of the decoder's start.
pub const PAD: u32 = 0;
/// Id of the end mark.
pub const EOS: u32 = 1;
/// Id of what no piece covers.
pub const UNK: u32 = 2;

/// Text to ids and back while training: what the data modules need of a tokenizer.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    sentinels: Sentinels,
    size: u32,
    path: PathBuf,
}

impl Vocabulary {
    /// Reads a `tokenizer.json`, or the one in a folder.
    ///
    /// # Errors
    /// Where there is none, or where it is not a T5 vocabulary (pad 0, `</s>` 1, `<unk>` 2, sentinels descending from
    /// `<extra_id_0>`).
    pub fn read(path: &Path) -> Result<Vocabulary> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|e| Error::file(&path, format!("expected a tokenizer.json: {e}")))?;
        Vocabulary::new(tokenizer, &path)
    }

    /// Checks that a tokenizer has T5's special tokens. `path` is for messages.
    ///
    /// # Errors
    /// As [`Vocabulary::read`].
    pub fn new(mut tokenizer: Tokenizer, path: &Path) -> Result<Vocabulary> {
        for (text, id) in [("<pad>", PAD), ("</s>", EOS), ("<unk>", UNK)] {
            let found = tokenizer.token_to_id(text);
            if found != Some(id) {
                let found = found.map_or("none".to_string(), |id| id.to_string());
                return Err(Error::file(path, format!("expected {text} to have id {id}, found {found}")));
            }
        }
        let first = tokenizer.token_to_id("<extra_id_0>").unwrap_or(0);
        let mut count = 0;
        while first > count && tokenizer.token_to_id(&format!("<extra_id_{count}>")) == Some(first - count) {
            count += 1;
        }
        // Lengths are this crate's business: a tokenizer saved with limits would cut examples without counting them.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| Error::file(path, format!("the tokenizer's limits cannot be lifted: {e}")))?;
        let size = tokenizer.get_vocab_size(true) as u32;
        Ok(Vocabulary { tokenizer, sentinels: Sentinels { first, count }, size, path: path.to_path_buf() })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of ids, sentinels included, without padding rows.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The ids that stand for removed spans; a count of 0 where the vocabulary has none.
    pub fn sentinels(&self) -> Sentinels {
        self.sentinels
    }

    /// The ids of a text, without an end mark.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer
            .encode_fast(text, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| Error::Invalid(format!("tokenizer: {e} in {text:?}")))
    }

    /// The text of ids; pad and end marks are left out, sentinels are written as `<extra_id_n>`.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| id != PAD && id != EOS).collect();
        self.tokenizer.decode(&ids, false).map_err(|e| Error::Invalid(format!("tokenizer: {e}")))
    }

    /// The piece of an id as it is spelled in the vocabulary.
    pub fn piece(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_else(|| format!("[{id}]"))
    }
}
