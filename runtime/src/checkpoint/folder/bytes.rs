//! ByT5's vocabulary, of which a folder says no more than which ids its sentinels have.

use serde_json::Value;

use super::{ADDED_TOKENS, Files};
use crate::error::{Error, Result};
use crate::json::{self, Keys};
use crate::tokenizer::{ByteVocabulary, Vocabulary, sentinel_number};

/// The vocabulary of a folder for an embedding of `rows` rows, and a note on the tokens that it leaves out. The
/// sentinels are those of pre-training unless tokenizer_config.json (`added_tokens_decoder`) or added_tokens.json give
/// them ids of their own, as the transformers library does where it saves the tokenizer that a model was trained with.
pub(super) fn read(files: Files, tokenizer_config: Keys, rows: usize) -> Result<(ByteVocabulary, Option<String>)> {
    let Vocabulary::Bytes(usual) = Vocabulary::bytes(rows as u32) else { unreachable!("made of bytes") };
    let (file, tokens): (String, Vec<(String, Option<u64>)>) =
        match tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object) {
            Some(tokens) => {
                let token = |(id, token): (&String, &Value)| {
                    Some((token.get("content")?.as_str()?.to_owned(), id.parse::<u64>().ok()))
                };
                (tokenizer_config.file.to_owned(), tokens.iter().filter_map(token).collect())
            }
            None => {
                let file = files.place("added_tokens.json");
                let Some(text) = files.bytes("added_tokens.json")? else { return Ok((usual, None)) };
                let json = json::object(&file, &text)?;
                let tokens = json.as_object().into_iter().flatten();
                (file, tokens.map(|(name, id)| (name.clone(), id.as_u64())).collect())
            }
        };
    let left_out = left_out(&file, tokens.iter().map(|(name, _)| name.as_str()));
    let ids: Vec<(u32, Option<u64>)> = tokens.iter().filter_map(|(name, id)| Some((sentinel(name)?, *id))).collect();
    if ids.is_empty() {
        return Ok((usual, left_out));
    }
    let above = ByteVocabulary { extra_ids: ids.len() as u32, extra_ids_above: true, ..usual.clone() };
    for vocabulary in [above, usual] {
        let fits = |(n, id): &(u32, Option<u64>)| id.is_some() && vocabulary.sentinel_id(*n).map(u64::from) == *id;
        if ids.iter().all(fits) && vocabulary.id_count() <= rows {
            return Ok((vocabulary, left_out));
        }
    }
    let what = "expected <extra_id_n> to have the id 258 - n or 259 + n, for all n and below the rows of the embedding";
    Err(Error::Tokenizer { file, what: what.to_owned() })
}

/// Names the tokens that are neither sentinels nor those that every vocabulary of bytes has.
fn left_out<'a>(file: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let is_other = |name: &&str| sentinel(name).is_none() && !["<pad>", "</s>", "<unk>"].contains(name);
    let others: Vec<&str> = names.filter(is_other).collect();
    let note = || format!("{file}{ADDED_TOKENS}not obeyed, they are read byte by byte: {}", others.join(", "));
    (!others.is_empty()).then(note)
}

/// The n of a token `<extra_id_n>`.
fn sentinel(name: &str) -> Option<u32> {
    u32::try_from(sentinel_number(name)?).ok()
}
