//! A vocabulary as a `tokenizer.json`, for what was read from a GGUF file or a SentencePiece model.

use serde_json::{Value, json};
use t5_runtime::tokenizer::{UnigramVocabulary, Vocabulary, Whitespace};
use tokenizers::normalizers::Precompiled;

use crate::{Error, Result};

/// The bytes of a `tokenizer.json` that is read back as the same vocabulary. `file` names where it comes from.
///
/// # Errors
/// Where such a file cannot say what the vocabulary does.
pub fn to_tokenizer_json(file: &str, vocabulary: &UnigramVocabulary) -> Result<Vec<u8>> {
    let refuse = |what: &str| Err(Error::file(std::path::Path::new(file), format!("its vocabulary {what}")));
    let normalizers = normalizers(file, vocabulary)?;
    let scheme = match (vocabulary.add_dummy_prefix, vocabulary.legacy) {
        (true, true) => "always",
        (true, false) => "first",
        (false, _) => "never",
    };
    let metaspace = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": vocabulary.split_words,
    });
    let pre_tokenizer = match vocabulary.whitespace {
        Whitespace::Split => {
            json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace] })
        }
        _ => metaspace.clone(),
    };
    let piece = |id: u32| vocabulary.pieces[id as usize].text.as_str();
    let eos = piece(vocabulary.eos_id);
    let outside = |id: usize| vocabulary.added.iter().any(|token| token.id as usize == id && token.outside);
    let inside = (0..vocabulary.pieces.len()).take_while(|&id| !outside(id));
    let pieces: Vec<Value> =
        inside.map(|id| json!([vocabulary.pieces[id].text, vocabulary.pieces[id].score])).collect();
    let added: Vec<Value> = vocabulary
        .added
        .iter()
        .map(|token| {
            json!({
                "id": token.id, "content": piece(token.id), "single_word": false, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
            })
        })
        .collect();
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let end = json!({ "SpecialToken": { "id": eos, "type_id": 0 } });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": if normalizers.is_empty() {
            Value::Null
        } else {
            json!({ "type": "Sequence", "normalizers": normalizers })
        },
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A"), end],
            "pair": [sequence("A"), end, sequence("B"), end],
            "special_tokens": { eos: { "id": eos, "ids": [vocabulary.eos_id], "tokens": [eos] } },
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk_id,
            "vocab": pieces,
            "byte_fallback": vocabulary.byte_fallback,
        },
    });
    let bytes = format!("{json:#}\n").into_bytes();
    // A tokenizer that is almost right would be worse than none.
    match Vocabulary::from_tokenizer_json(file, &bytes)? {
        Vocabulary::Unigram(read) if read == *vocabulary => Ok(bytes),
        Vocabulary::Unigram(read) => {
            let pieces = read.pieces.iter().zip(&vocabulary.pieces).position(|(a, b)| a != b);
            match pieces {
                Some(id) => refuse(&format!("has a piece {id} that no tokenizer.json can say")),
                None => refuse("treats text as no tokenizer.json can say"),
            }
        }
        Vocabulary::Bytes(_) => refuse("is one of bytes"),
        Vocabulary::Json(_) => refuse("is not one of Unigram pieces"),
    }
}

/// What is done to a text before it is cut into words.
fn normalizers(file: &str, vocabulary: &UnigramVocabulary) -> Result<Vec<Value>> {
    let mut normalizers = Vec::new();
    if let Some(charsmap) = &vocabulary.charsmap {
        let map = Precompiled::from(charsmap)
            .map_err(|e| Error::Invalid(format!("{file}: the vocabulary's character map is not valid: {e}")))?;
        normalizers.push(serde_json::to_value(map).map_err(|e| Error::Invalid(format!("{file}: {e}")))?);
    }
    if vocabulary.whitespace == Whitespace::Trim {
        normalizers.push(json!({ "type": "Strip", "strip_left": false, "strip_right": true }));
    }
    if matches!(vocabulary.whitespace, Whitespace::Trim | Whitespace::Collapse) {
        normalizers.push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }));
    }
    Ok(normalizers)
}
