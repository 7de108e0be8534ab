//! What a folder's files beside a vocabulary say of single tokens: which were added to it, and which are special.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Files;
use crate::error::Result;
use crate::json::{self, Keys};
use crate::tokenizer::Vocabulary;

/// Keys of tokenizer_config.json and special_tokens_map.json that name tokens.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// How a token is looked for in a text.
const FLAGS: [&str; 4] = ["single_word", "lstrip", "rstrip", "normalized"];

/// What stands behind the file's name in every note on tokens that a vocabulary lacks.
pub(in crate::checkpoint) const ADDED_TOKENS: &str = ": added tokens are ";

/// What a tokenizer's files say of single tokens.
pub(super) struct Special {
    /// By key: the token's text.
    pub named: BTreeMap<&'static str, String>,
    /// All that are special, and all that were added, by text.
    pub tokens: BTreeMap<String, Token>,
    /// The file that gives added tokens their ids.
    pub file: String,
}

/// One of them.
pub(super) struct Token {
    pub id: u32,
    special: bool,
    /// Of each of [`FLAGS`] what is said.
    flags: [Option<bool>; 4],
}

impl Special {
    /// Reads all of them. `id_of` gives the id that the vocabulary has for a text.
    pub fn read(files: Files, config: Keys, id_of: impl Fn(&str) -> Option<u32>) -> Result<Special> {
        let object = |name: &str| match files.bytes(name)? {
            Some(bytes) => json::object(&files.place(name), &bytes),
            None => Ok(Value::Null),
        };
        let map = object("special_tokens_map.json")?;
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        // What an older version wrote; beside a decoder it is not read.
        let added = if decoder.is_some() { Value::Null } else { object("added_tokens.json")? };
        let file = decoder.map_or_else(|| files.place("added_tokens.json"), |_| config.file.to_owned());
        let mut special = Special { named: BTreeMap::new(), tokens: BTreeMap::new(), file };
        for (text, id) in added.as_object().into_iter().flatten() {
            if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                special.tokens.insert(text.clone(), Token { id, special: false, flags: [None; 4] });
            }
        }
        for (id, token) in decoder.into_iter().flatten() {
            if let (Some(text), Ok(id)) = (token.get("content").and_then(Value::as_str), id.parse()) {
                let is_special = token.get("special") == Some(&Value::Bool(true));
                special.tokens.insert(text.to_owned(), Token { id, special: is_special, flags: flags(token) });
            }
        }
        let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        for key in NAMES {
            let value = map.get(key).or_else(|| config.get(key));
            if let Some((value, text)) = value.and_then(|value| Some((value, text(value)?))) {
                special.mark(&text, value, id_of(&text));
                special.named.insert(key, text);
            }
        }
        for source in [&map, config.json] {
            let list = source.get("additional_special_tokens").and_then(Value::as_array);
            for value in list.into_iter().flatten() {
                if let Some(text) = text(value) {
                    special.mark(&text, value, id_of(&text));
                }
            }
        }
        Ok(special)
    }

    /// Notes that a token is special, if it has an id: `id` unless it was added. Of its flags, what was said first
    /// counts.
    pub fn mark(&mut self, text: &str, said: &Value, id: Option<u32>) {
        let Some(id) = self.tokens.get(text).map(|token| token.id).or(id) else { return };
        let token = self.tokens.entry(text.to_owned()).or_insert(Token { id, special: true, flags: [None; 4] });
        token.special = true;
        for (flag, said) in token.flags.iter_mut().zip(flags(said)) {
            *flag = flag.or(said);
        }
    }

    /// Adds the tokens to a SentencePiece model with the usual sentinels, or to the `plain` one without, for an
    /// embedding of `rows` rows. A note tells of those that are left out.
    pub fn add_to(
        &self,
        mut vocabulary: Vocabulary,
        plain: impl FnOnce() -> Result<Vocabulary>,
        rows: usize,
    ) -> Result<(Vocabulary, Option<String>)> {
        let is_other = |(text, token): (&String, &Token)| match &vocabulary {
            Vocabulary::Unigram(model) => model.pieces.get(token.id as usize).is_some_and(|piece| piece.text != *text),
            _ => false,
        };
        if self.tokens.iter().any(is_other) {
            // That there are the usual sentinels is a guess, which a list beats that begins where they would.
            let plain = plain()?;
            if self.tokens.values().any(|token| token.id as usize == plain.len()) {
                vocabulary = plain;
            }
        }
        let left_out = vocabulary.add_tokens(&self.file, self.added(), rows)?;
        let more = left_out.len().saturating_sub(3);
        let mut list = left_out[..left_out.len() - more].join("; ");
        if more > 0 {
            list += &format!("; and {more} more");
        }
        let note = || format!("{}{ADDED_TOKENS}left out: {list}", self.file);
        Ok((vocabulary, (!left_out.is_empty()).then(note)))
    }

    /// The tokens as tokenizer.json lists them, by id.
    pub fn added(&self) -> Vec<Value> {
        let mut tokens: Vec<_> = self.tokens.iter().collect();
        tokens.sort_by_key(|(_, token)| token.id);
        let mask = self.named.get("mask_token");
        let value = |(text, token): (&String, &Token)| {
            let mut value = json!({"id": token.id, "content": text, "special": token.special});
            // What the transformers library takes for granted.
            let usual = [false, mask == Some(text), false, !token.special];
            for ((name, said), usual) in FLAGS.into_iter().zip(token.flags).zip(usual) {
                value[name] = said.unwrap_or(usual).into();
            }
            value
        };
        tokens.into_iter().map(value).collect()
    }
}

/// What an object says of each of [`FLAGS`]; a plain text says nothing.
fn flags(token: &Value) -> [Option<bool>; 4] {
    FLAGS.map(|flag| token.get(flag).and_then(Value::as_bool))
}
