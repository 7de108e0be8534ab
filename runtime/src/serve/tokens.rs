//! Tokens of an answer as protocols show them.

use t5_runtime::tokenizer::{TextStream, Tokenizer};

/// The text of a token by itself, special ones and sentinels by their names.
pub fn name(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.piece(id).map_or_else(|| format!("<{id}>"), |piece| piece.replace('▁', " "))
}

/// Texts of tokens that come one by one.
pub struct Texts(TextStream);

impl Texts {
    pub fn new(tokenizer: &Tokenizer) -> Texts {
        Texts(tokenizer.stream(false))
    }

    /// What a token adds, special ones and sentinels by their names.
    pub fn of(&mut self, id: u32) -> String {
        self.0.push(id).to_owned()
    }
}
