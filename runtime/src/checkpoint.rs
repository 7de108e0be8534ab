//! Where weights come from: a Hugging Face folder or a GGUF file of either dialect, judged by the schema.

use std::collections::HashMap;
use std::path::Path;

use crate::config::T5Config;
use crate::error::Result;
use crate::generation::GenerationDefaults;
use crate::storage::Bytes;
use crate::tensor::Tensor;
use crate::tokenizer::Vocabulary;

/// A checked model file: every tensor of the schema is there with the right shape.
pub struct Checkpoint {
    /// The path it was opened from, for messages.
    pub file: String,
    pub config: T5Config,
    /// `None` where the checkpoint has weights only; then only ids can be used.
    pub vocabulary: Option<Vocabulary>,
    pub generation: GenerationDefaults,
    /// What a curious user may want to know (settings ignored, tensors skipped).
    pub notes: Vec<String>,
    /// By canonical (Hugging Face) name.
    tensors: HashMap<String, Tensor>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a GGUF file, or a safetensors or candle GGUF file with config.json beside it.
    pub fn open(_path: &Path) -> Result<Checkpoint> {
        todo!()
    }

    /// Opens a GGUF file that is already in memory. `file` names it in messages.
    pub fn from_gguf(_file: &str, _bytes: Bytes) -> Result<Checkpoint> {
        todo!()
    }

    /// A tensor by its canonical name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }
}
