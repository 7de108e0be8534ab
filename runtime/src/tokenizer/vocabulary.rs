//! A vocabulary as arrays: what every tokenizer file is turned into, and what the GGUF writer stores.

/// A vocabulary, independent of the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Vocabulary {}
