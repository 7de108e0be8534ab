//! Tokenizers in parts, as they were before `tokenizer.json`: `vocab.json` with `merges.txt` (byte-level BPE) and
//! `vocab.txt` (WordPiece). Each becomes the `tokenizer.json` that the transformers library makes of it.

use serde_json::{Value, json};

use super::Files;
use super::special::Special;
use crate::error::{Error, Result};
use crate::json::{self, Keys};

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
    let pair = |key: &str| special.named.get(key).and_then(|text| Some(json!([text, special.tokens.get(text)?.id])));
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
        let text = special.named.entry(key).or_insert_with(|| text.to_owned()).clone();
        special.mark(&text, &Value::Null, id_of(&vocabulary, &text));
    }
    let id = |key: &str| {
        let text = &special.named[key];
        let id = special.tokens.get(text).map(|token| token.id);
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
