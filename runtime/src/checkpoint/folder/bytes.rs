//! ByT5's vocabulary, of which a folder says no more than which ids its sentinels have.

use serde_json::Value;

use super::Files;
use crate::error::{Error, Result};
use crate::json::{self, Keys};
use crate::tokenizer::{ByteVocabulary, Vocabulary, sentinel_number};

/// The vocabulary of a folder for an embedding of `rows` rows. The sentinels are those of pre-training unless
/// tokenizer_config.json (`added_tokens_decoder`) or added_tokens.json give them ids of their own, as the transformers
/// library does where it saves the tokenizer that a model was trained with.
pub(super) fn read(files: Files, tokenizer_config: Keys, rows: usize) -> Result<ByteVocabulary> {
    let Vocabulary::Bytes(usual) = Vocabulary::bytes(rows as u32) else { unreachable!("made of bytes") };
    let (file, ids) = match tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object) {
        Some(tokens) => {
            let token = |(id, token): (&String, &Value)| sentinel(token.get("content")?.as_str()?, id.parse().ok());
            (tokenizer_config.file.to_owned(), tokens.iter().filter_map(token).collect::<Vec<_>>())
        }
        None => {
            let file = files.place("added_tokens.json");
            let Some(text) = files.bytes("added_tokens.json")? else { return Ok(usual) };
            let json = json::object(&file, &text)?;
            let tokens = json.as_object().into_iter().flatten();
            let ids = tokens.filter_map(|(name, id)| sentinel(name, id.as_u64())).collect();
            (file, ids)
        }
    };
    if ids.is_empty() {
        return Ok(usual);
    }
    let above = ByteVocabulary { extra_ids: ids.len() as u32, extra_ids_above: true, ..usual.clone() };
    for vocabulary in [above, usual] {
        let fits = |(n, id): &(u32, Option<u64>)| id.is_some() && vocabulary.sentinel_id(*n).map(u64::from) == *id;
        if ids.iter().all(fits) && vocabulary.id_count() <= rows {
            return Ok(vocabulary);
        }
    }
    let what = "expected <extra_id_n> to have the id 258 - n or 259 + n, for all n and below the rows of the embedding";
    Err(Error::Tokenizer { file, what: what.to_owned() })
}

/// The n of a token `<extra_id_n>`, with its id; none for other tokens.
fn sentinel(name: &str, id: Option<u64>) -> Option<(u32, Option<u64>)> {
    Some((u32::try_from(sentinel_number(name)?).ok()?, id))
}
