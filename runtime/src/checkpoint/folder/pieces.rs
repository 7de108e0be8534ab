//! Tokenizers in parts, as they were before `tokenizer.json`: `vocab.json` with `merges.txt` (byte-level BPE) and
//! `vocab.txt` (WordPiece). Each becomes the `tokenizer.json` that the transformers library makes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Files;
use crate::error::{Error, Result};
use crate::json::{self, Keys};

/// Keys of tokenizer_config.json and special_tokens_map.json that name tokens.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What a tokenizer's files say of single tokens.
struct Special {
    /// By key: the token's text.
    named: BTreeMap<&'static str, String>,
    /// All that are special, and all that were added, by text.
    ids: BTreeMap<String, (u32, bool)>,
}

/// The file that names the pieces, and the tokenizer.json that is made of it; `None` where there is neither kind.
///
/// # Errors
/// Where a file is damaged, or a piece that every text needs is missing.
pub(super) fn read(files: Files, config: Keys) -> Result<Option<(String, String)>> {
    match byte_level(files, config)? {
        None => word_piece(files, config),
        found => Ok(found),
    }
}

/// Byte-level BPE.
fn byte_level(files: Files, config: Keys) -> Result<Option<(String, String)>> {
    let (Some(vocabulary), Some(merges)) = (files.bytes("vocab.json")?, files.text("merges.txt")?) else {
        return Ok(None);
    };
    let file = files.place("vocab.json");
    let vocabulary = json::object(&file, &vocabulary)?;
    let merges_file = files.place("merges.txt");
    let lines = merges
        .lines()
        .enumerate()
        .filter(|(index, line)| !(line.is_empty() || (*index == 0 && line.starts_with("#version"))));
    let merge = |(index, line): (usize, &str)| {
        let (left, right) = line.split_once(' ').ok_or_else(|| {
            Error::format(&merges_file, format!("line {}: expected two pieces, found {line:?}", index + 1))
        })?;
        Ok(json!([left, right]))
    };
    let merges = lines.map(merge).collect::<Result<Vec<Value>>>()?;
    let special = Special::read(files, config, |text| id_of(&vocabulary, text))?;
    let prefix = config.boolean("add_prefix_space")?.unwrap_or(false);
    let class = config.string("tokenizer_class")?.unwrap_or_default();
    let pair = |key: &str| special.named.get(key).and_then(|text| Some(json!([text, special.ids.get(text)?.0])));
    let post = match (pair("cls_token"), pair("sep_token")) {
        (Some(cls), Some(sep)) if !class.starts_with("GPT2") => {
            json!({"type": "RobertaProcessing", "cls": cls, "sep": sep, "trim_offsets": true,
                "add_prefix_space": prefix})
        }
        _ => json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}),
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": special.added(),
        "normalizer": null,
        "pre_tokenizer":
            {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true},
        "post_processor": post,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    });
    Ok(Some((file, tokenizer.to_string())))
}

/// WordPiece.
fn word_piece(files: Files, config: Keys) -> Result<Option<(String, String)>> {
    let Some(text) = files.text("vocab.txt")? else { return Ok(None) };
    let file = files.place("vocab.txt");
    let ids = text.lines().zip(0u32..).map(|(piece, id)| (piece.to_owned(), Value::from(id)));
    let vocabulary = Value::Object(ids.collect());
    let mut special = Special::read(files, config, |text| id_of(&vocabulary, text))?;
    for (key, text) in [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ] {
        let text = special.named.entry(key).or_insert_with(|| text.to_owned());
        if let Some(id) = id_of(&vocabulary, text) {
            special.ids.insert(text.clone(), (id, true));
        }
    }
    let id = |key: &str| {
        let text = &special.named[key];
        let id = special.ids.get(text).map(|(id, _)| *id);
        id.map(|id| (text, id)).ok_or_else(|| Error::format(&file, format!("expected the piece {text}, found none")))
    };
    let ((cls, cls_id), (sep, sep_id), (unk, _)) = (id("cls_token")?, id("sep_token")?, id("unk_token")?);
    let lowercase = config.boolean("do_lower_case")?.unwrap_or(true);
    let chinese = config.boolean("tokenize_chinese_chars")?.unwrap_or(true);
    let template = |second: bool| {
        let mut template = vec![json!({"SpecialToken": {"id": cls, "type_id": 0}})];
        template.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        template.push(json!({"SpecialToken": {"id": sep, "type_id": 0}}));
        if second {
            template.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
            template.push(json!({"SpecialToken": {"id": sep, "type_id": 1}}));
        }
        template
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": special.added(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
            "strip_accents": config.get("strip_accents"), "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": template(false), "pair": template(true),
            "special_tokens": {
                cls: {"id": cls, "ids": [cls_id], "tokens": [cls]},
                sep: {"id": sep, "ids": [sep_id], "tokens": [sep]},
            }},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    Ok(Some((file, tokenizer.to_string())))
}

fn id_of(vocabulary: &Value, text: &str) -> Option<u32> {
    u32::try_from(vocabulary.get(text)?.as_u64()?).ok()
}

impl Special {
    fn read(files: Files, config: Keys, id_of: impl Fn(&str) -> Option<u32>) -> Result<Special> {
        let object = |name: &str| match files.bytes(name)? {
            Some(bytes) => json::object(&files.place(name), &bytes),
            None => Ok(Value::Null),
        };
        let (map, added) = (object("special_tokens_map.json")?, object("added_tokens.json")?);
        let mut special = Special { named: BTreeMap::new(), ids: BTreeMap::new() };
        for (text, id) in added.as_object().into_iter().flatten() {
            if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                special.ids.insert(text.clone(), (id, false));
            }
        }
        for (id, token) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            if let (Some(text), Ok(id)) = (token.get("content").and_then(Value::as_str), id.parse()) {
                special.ids.insert(text.to_owned(), (id, token.get("special") == Some(&Value::Bool(true))));
            }
        }
        let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        let mark = |special: &mut Special, text: &str| {
            let id = special.ids.get(text).map(|(id, _)| *id).or_else(|| id_of(text));
            special.ids.extend(id.map(|id| (text.to_owned(), (id, true))));
        };
        for key in NAMES {
            if let Some(text) = map.get(key).or_else(|| config.get(key)).and_then(text) {
                mark(&mut special, &text);
                special.named.insert(key, text);
            }
        }
        for source in [&map, config.json] {
            let list = source.get("additional_special_tokens").and_then(Value::as_array);
            list.into_iter().flatten().filter_map(text).for_each(|text| mark(&mut special, &text));
        }
        Ok(special)
    }

    /// The tokens as tokenizer.json lists them, by id.
    fn added(&self) -> Vec<Value> {
        let mut tokens: Vec<_> = self.ids.iter().collect();
        tokens.sort_by_key(|(_, (id, _))| *id);
        let mask = self.named.get("mask_token");
        let token = |(text, (id, special)): (&String, &(u32, bool))| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": mask == Some(text), "rstrip": false,
                "normalized": !special, "special": special})
        };
        tokens.into_iter().map(token).collect()
    }
}
