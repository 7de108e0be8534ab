//! `tokenizer.json` to a vocabulary.
//!
//! The file describes a pipeline of normalizers, pre-tokenizers, a model, a post-processor and a decoder, each a JSON
//! object with a "type". Those that T5-family files have in circulation are translated; anything else is refused by
//! its name, since ids that are almost right are worse than none.

use std::collections::HashSet;

use super::{
    AddedToken, JsonVocabulary, Piece, PieceKind, PieceModel, UnigramVocabulary, Whitespace, failure, sentinel_number,
};
use crate::error::{Error, Result};
use crate::order::sorted_by;
use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    padding: Option<Value>,
    model: ModelSection,
}

#[derive(Deserialize)]
struct ModelSection {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_id: Option<u32>,
    vocab: Vec<(String, f64)>,
    #[serde(default)]
    byte_fallback: bool,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// Reads the file.
pub(super) fn read(file: &str, bytes: &[u8]) -> Result<UnigramVocabulary> {
    let refuse = |what: String| failure(file, what);
    let TokenizerFile { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, padding, model } =
        serde_json::from_slice(bytes).map_err(|error| not_unigram(file, bytes, &error))?;
    if let Some(kind) = model.kind.filter(|kind| kind != "Unigram") {
        return Err(refuse(format!("the model is {kind}, expected Unigram")));
    }
    let unk_id = model.unk_id.ok_or_else(|| refuse("the model has no unk_id".into()))?;

    let Normalization { charsmap, strip_left, strip_right, collapse } =
        normalization(normalizer.as_ref()).map_err(|what| refuse(format!("normalizer: {what}")))?;
    let Words { split_white_space, prepend, split_words } =
        words(pre_tokenizer.as_ref()).map_err(|what| refuse(format!("pre_tokenizer: {what}")))?;
    let whitespace = match (split_white_space, strip_right, collapse) {
        (true, _, _) => Whitespace::Split,
        (false, true, true) => Whitespace::Trim,
        (false, false, true) => Whitespace::Collapse,
        (false, false, false) => Whitespace::Keep,
        (false, true, false) => {
            return Err(refuse("normalizer: Strip without Replace \" {2,}\" is not supported".into()));
        }
    };
    if split_white_space && prepend != Prepend::Always {
        return Err(refuse("pre_tokenizer: after WhitespaceSplit only prepend_scheme \"always\" is supported".into()));
    }
    if strip_left && prepend != Prepend::Always {
        return Err(refuse("normalizer: strip_left is only supported with prepend_scheme \"always\"".into()));
    }
    check_decoder(decoder.as_ref(), prepend).map_err(|what| refuse(format!("decoder: {what}")))?;

    let mut pieces: Vec<Piece> = (model.vocab.into_iter())
        .map(|(text, score)| Piece { text, score: score as f32, kind: PieceKind::Normal })
        .collect();
    let in_model = pieces.len();
    let added_tokens = sorted_by(added_tokens, |a, b| a.id.cmp(&b.id)).into_iter();
    let added: Result<Vec<AddedToken>> = added_tokens
        .map(|token| add_token(&mut pieces, in_model, token).map_err(|what| refuse(format!("added token {what}"))))
        .collect();
    let added = added?;
    mark_bytes(&mut pieces);
    let id_of = |text: &str| pieces.iter().position(|piece| piece.text == text).map(|id| id as u32);
    let eos_id = match &post_processor {
        Some(template) => eos_of_template(template).map_err(|what| refuse(format!("post_processor: {what}")))?,
        None => id_of("</s>").ok_or_else(|| refuse("there is neither a post_processor nor a piece </s>".into()))?,
    };
    let padding_id = || padding.as_ref()?.get("pad_id")?.as_u64().and_then(|id| u32::try_from(id).ok());
    let pad_id = (id_of("<pad>").or_else(padding_id).or_else(|| id_of("<s>")))
        .ok_or_else(|| refuse("there is no piece <pad>".into()))?;
    for (id, kind) in [(unk_id, PieceKind::Unknown), (eos_id, PieceKind::Control), (pad_id, PieceKind::Control)] {
        let count = pieces.len();
        let piece = pieces.get_mut(id as usize);
        piece.ok_or_else(|| refuse(format!("a special token has the id {id}, but there are {count} pieces")))?.kind =
            kind;
    }
    Ok(UnigramVocabulary {
        model: PieceModel::Unigram,
        pieces,
        unk_id,
        eos_id,
        pad_id,
        charsmap,
        whitespace,
        add_dummy_prefix: prepend != Prepend::Never,
        legacy: prepend != Prepend::First,
        split_words,
        byte_fallback: model.byte_fallback,
        added,
    })
}

/// The type of the file's model, if it is to be seen.
pub(super) fn kind_of_model(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyKind {
        model: Kind,
    }
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_slice(bytes).ok().map(|OnlyKind { model: Kind { kind } }| kind)
}

/// A file of another kind than Unigram, as it is.
pub(super) fn other(file: &str, bytes: &[u8], eos_id: u32, pad_id: u32) -> Result<JsonVocabulary> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        added_tokens: Vec<Added>,
        model: OtherModel,
    }
    #[derive(Deserialize)]
    struct OtherModel {
        #[serde(rename = "type")]
        kind: String,
        vocab: std::collections::HashMap<String, u32>,
    }
    let Ids { added_tokens, model } = serde_json::from_slice(bytes)
        .map_err(|error| Error::format(file, format!("expected a tokenizer with pieces and their ids: {error}")))?;
    let ids = model.vocab.values().copied().chain(added_tokens.iter().map(|token| token.id));
    let count = ids.max().map_or(0, |id| id as usize + 1);
    if count == 0 || count > 1 << 24 {
        return Err(failure(file, format!("expected 1 to {} pieces, found {count}", 1 << 24)));
    }
    let json = std::str::from_utf8(bytes).map_err(|error| Error::format(file, format!("expected UTF-8: {error}")))?;
    Ok(JsonVocabulary { json: json.to_owned(), kind: model.kind, count, eos_id, pad_id })
}

/// Names the settings that [`read`] leaves out.
pub(super) fn ignored(file: &str, bytes: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Settings {
        truncation: Option<Value>,
        padding: Option<Value>,
    }
    let Settings { truncation, padding } =
        serde_json::from_slice(bytes).map_err(|error| Error::format(file, format!("not a tokenizer: {error}")))?;
    let mut notes = Vec::new();
    if let Some(truncation) = truncation {
        let length = truncation.get("max_length").map_or("?".into(), Value::to_string);
        notes.push(format!("{file}: truncation to {length} tokens is ignored"));
    }
    if padding.is_some() {
        notes.push(format!("{file}: padding is ignored"));
    }
    Ok(notes)
}

/// Why the file could not be read: the type of its model says more than the place where the JSON differs.
fn not_unigram(file: &str, bytes: &[u8], error: &serde_json::Error) -> Error {
    match kind_of_model(bytes) {
        Some(kind) if kind != "Unigram" => failure(file, format!("the model is {kind}, expected Unigram")),
        _ => Error::format(file, format!("not a Unigram tokenizer: {error}")),
    }
}

/// Adds tokens to a vocabulary that came from another file, each an object as in `added_tokens`, below `rows`.
/// Sentinels that it has stay as they are. Gives those that do not fit, each with the reason; without them the folder
/// can still be used.
pub(super) fn add_listed(
    file: &str,
    vocabulary: &mut UnigramVocabulary,
    tokens: Vec<Value>,
    rows: usize,
) -> Result<Vec<String>> {
    let mut tokens: Vec<Added> = serde_json::from_value(tokens.into())
        .map_err(|error| Error::format(file, format!("expected tokens as in tokenizer.json: {error}")))?;
    let UnigramVocabulary { pieces, added, unk_id, eos_id, pad_id, model, .. } = vocabulary;
    // Where a list gives them other ids, those of the model are the ones that pre-training knew. (The library gives a
    // listed `<extra_id_0>` a second id where the model has `▁<extra_id_0>`, as SeqIO stores it.)
    let texts = pieces.iter().map(|piece| piece.text.as_str());
    let sentinels: HashSet<&str> = texts.filter(|text| sentinel_number(text).is_some()).collect();
    tokens.retain(|token| !sentinels.contains(token.content.trim_start_matches('▁')));
    let named = [*unk_id, *eos_id, *pad_id].map(|id| id as usize);
    let kinds = named.map(|id| pieces[id].kind);
    let in_model = pieces.len();
    let (mut listed, mut left_out) = (Vec::new(), Vec::new());
    for mut token in sorted_by(tokens, |a, b| a.id.cmp(&b.id)) {
        // SentencePiece's other models have no step behind the rewriting of a text at which to look for tokens.
        token.normalized &= *model == PieceModel::Unigram;
        let fits = match token.id as usize {
            id if id < rows => add_token(pieces, in_model, token),
            id => Err(format!("{:?} (id {id}): the embedding has {rows} rows", token.content)),
        };
        match fits {
            Ok(token) => listed.push(token),
            Err(what) => left_out.push(what),
        }
    }
    for (id, kind) in named.into_iter().zip(kinds) {
        pieces[id].kind = kind;
    }
    added.retain(|before| listed.iter().all(|token: &AddedToken| token.id != before.id));
    added.extend(listed);
    Ok(left_out)
}

/// Appends a token to `pieces` unless it is there, as the first `in_model` were.
///
/// # Errors
/// The token, and why its id cannot be had.
fn add_token(pieces: &mut Vec<Piece>, in_model: usize, token: Added) -> Result<AddedToken, String> {
    let Added { id, content, single_word, lstrip, rstrip, normalized, special } = token;
    let refuse = |what: String| Err(format!("{content:?} (id {id}): {what}"));
    if single_word {
        return refuse("single_word is not supported".into());
    }
    let kind = if special && sentinel_number(&content).is_none() { PieceKind::Control } else { PieceKind::UserDefined };
    let count = pieces.len();
    match pieces.get_mut(id as usize) {
        Some(piece) if piece.text == content => piece.kind = kind,
        Some(piece) => return refuse(format!("the model has {:?} at this id", piece.text)),
        None if id as usize == count => pieces.push(Piece { text: content, score: 0.0, kind }),
        None => return refuse(format!("there are only {count} ids before it")),
    }
    Ok(AddedToken { id, special, lstrip, rstrip, normalized, outside: id as usize >= in_model })
}

/// Marks `<0x00>` to `<0xFF>` as bytes if all are there.
fn mark_bytes(pieces: &mut [Piece]) {
    let is_byte = |piece: &Piece| {
        let digits = piece.text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        piece.kind == PieceKind::Normal
            && digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
    };
    if pieces.iter().filter(|piece| is_byte(piece)).count() == 256 {
        pieces.iter_mut().filter(|piece| is_byte(piece)).for_each(|piece| piece.kind = PieceKind::Byte);
    }
}

/// What the normalizers do.
#[derive(Default)]
struct Normalization {
    charsmap: Option<Vec<u8>>,
    strip_left: bool,
    strip_right: bool,
    collapse: bool,
}

fn normalization(normalizer: Option<&Value>) -> Result<Normalization, String> {
    let mut found = Normalization::default();
    // In this order, each at most once.
    let mut last_rank = 0;
    for step in steps(normalizer, "normalizers")? {
        let rank = match kind(step)? {
            "Precompiled" => {
                let text = step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                let bytes = bytes.map_err(|error| format!("Precompiled: the character map is not base64: {error}"))?;
                found.charsmap = (!bytes.is_empty()).then_some(bytes);
                1
            }
            "Strip" => {
                found.strip_left = step.get("strip_left") == Some(&Value::Bool(true));
                found.strip_right = step.get("strip_right") == Some(&Value::Bool(true));
                2
            }
            // "▁" instead of a space comes to the same, as Metaspace puts it for the space.
            "Replace" if is_replace(step, "Regex", " {2,}", &[" ", "▁"]) => {
                found.collapse = true;
                3
            }
            other => return Err(format!("{other} is not supported: {}", shortened(step))),
        };
        if rank <= last_rank {
            return Err(format!("{} comes too late", shortened(step)));
        }
        last_rank = rank;
    }
    Ok(found)
}

/// Where a `▁` is put in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepend {
    Always,
    First,
    Never,
}

/// What the pre-tokenizers do.
struct Words {
    split_white_space: bool,
    prepend: Prepend,
    split_words: bool,
}

fn words(pre_tokenizer: Option<&Value>) -> Result<Words, String> {
    let steps = steps(pre_tokenizer, "pretokenizers")?;
    let (split_white_space, metaspace) = match steps.as_slice() {
        [metaspace] => (false, *metaspace),
        [split, metaspace] if kind(split)? == "WhitespaceSplit" => (true, *metaspace),
        [] => return Err("there is none, expected Metaspace".into()),
        _ => return Err("expected Metaspace or WhitespaceSplit and Metaspace".into()),
    };
    let (prepend, split_words) = read_metaspace(metaspace)?;
    Ok(Words { split_white_space, prepend, split_words })
}

fn read_metaspace(step: &Value) -> Result<(Prepend, bool), String> {
    if kind(step)? != "Metaspace" {
        return Err(format!("{} is not supported, expected Metaspace", kind(step)?));
    }
    if step.get("replacement").and_then(Value::as_str) != Some("▁") {
        return Err(format!("the replacement of Metaspace is not \"▁\": {}", shortened(step)));
    }
    // add_prefix_space is what files before 2024 have in place of prepend_scheme.
    let prefix = step.get("add_prefix_space").and_then(Value::as_bool);
    let prepend = match (step.get("prepend_scheme").and_then(Value::as_str), prefix) {
        (None, None | Some(true)) | (Some("always"), None | Some(true)) => Prepend::Always,
        (Some("first"), None | Some(true)) => Prepend::First,
        (None, Some(false)) | (Some("never"), _) => Prepend::Never,
        _ => return Err(format!("prepend_scheme is not known or contradicts add_prefix_space: {}", shortened(step))),
    };
    Ok((prepend, step.get("split").and_then(Value::as_bool).unwrap_or(true)))
}

/// Takes what undoes Metaspace; that byte pieces are spelled out is not asked for, it is done anyway.
fn check_decoder(decoder: Option<&Value>, prepend: Prepend) -> Result<(), String> {
    let mut drops_first_space = None;
    let mut replaces = false;
    for step in steps(decoder, "decoders")? {
        match kind(step)? {
            "ByteFallback" | "Fuse" => {}
            "Metaspace" => drops_first_space = Some(read_metaspace(step)?.0 != Prepend::Never),
            "Replace" if is_replace(step, "String", "▁", &[" "]) => {
                replaces = true;
                drops_first_space.get_or_insert(false);
            }
            "Strip"
                if replaces
                    && step.get("content").and_then(Value::as_str) == Some(" ")
                    && step.get("start").and_then(Value::as_u64) == Some(1)
                    && step.get("stop").and_then(Value::as_u64) == Some(0) =>
            {
                drops_first_space = Some(true);
            }
            other => return Err(format!("{other} is not supported: {}", shortened(step))),
        }
    }
    match drops_first_space {
        Some(drops) if drops != (prepend != Prepend::Never) => Err(format!(
            "it {} the first space, which the pre_tokenizer does not fit",
            if drops { "drops" } else { "keeps" }
        )),
        _ => Ok(()),
    }
}

/// The id that a template puts behind a text, if it does nothing else.
fn eos_of_template(template: &Value) -> Result<u32, String> {
    if kind(template)? != "TemplateProcessing" {
        return Err(format!("{} is not supported, expected TemplateProcessing", kind(template)?));
    }
    let single = template.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let token = match single {
        [text, token] if text.get("Sequence").is_some() => token.get("SpecialToken").and_then(|token| token.get("id")),
        _ => None,
    };
    let name = token.and_then(Value::as_str).ok_or("expected the text and one special token behind it")?;
    let ids = template.get("special_tokens").and_then(|tokens| tokens.get(name)).and_then(|token| token.get("ids"));
    match ids.and_then(Value::as_array).map(Vec::as_slice) {
        Some([id]) => id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or(format!("{id} is not an id")),
        _ => Err(format!("{name} is not one id")),
    }
}

/// The parts of a sequence, or the one step itself.
fn steps<'a>(value: Option<&'a Value>, list: &str) -> Result<Vec<&'a Value>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if kind(value)? != "Sequence" {
        return Ok(vec![value]);
    }
    let list = value.get(list).and_then(Value::as_array).ok_or_else(|| format!("the Sequence has no {list}"))?;
    Ok(list.iter().collect())
}

fn kind(step: &Value) -> Result<&str, String> {
    step.get("type").and_then(Value::as_str).ok_or_else(|| format!("it has no type: {}", shortened(step)))
}

fn is_replace(step: &Value, pattern_kind: &str, pattern: &str, contents: &[&str]) -> bool {
    let found = step.get("pattern").and_then(|found| found.get(pattern_kind)).and_then(Value::as_str);
    let content = step.get("content").and_then(Value::as_str);
    found == Some(pattern) && content.is_some_and(|content| contents.contains(&content))
}

/// A step as JSON, short enough for a message.
fn shortened(step: &Value) -> String {
    let text = step.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
