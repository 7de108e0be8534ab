//! Vocabularies as key-values, both ways (docs/gguf.md 3).

use super::keys;
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::gguf::{Array, File, Value};
use crate::tokenizer::{
    AddedToken, ByteVocabulary, Piece, PieceKind, PieceModel, UnigramVocabulary, Vocabulary, Whitespace,
    check_charsmap, sentinel_number,
};

/// The score of the tokens that fill the array up to the rows of the embedding.
const FILLER_SCORE: f32 = -10000.0;

/// The text of such a token.
fn filler(id: usize) -> String {
    format!("[PAD{id}]")
}

/// Appends the keys of a vocabulary, but for the ids of `</s>` and `<pad>`, which files without one have, too.
pub(super) fn append(vocabulary: &Vocabulary, config: &T5Config, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    match vocabulary {
        Vocabulary::Unigram(unigram) => append_unigram(unigram, config.vocab_size, put),
        Vocabulary::Bytes(bytes) => {
            put(keys::TOKENIZER_MODEL, Value::String(keys::BYTES.to_owned()));
            put(keys::TOKENIZER_OFFSET, Value::U32(bytes.offset));
            put(keys::EXTRA_IDS, Value::U32(bytes.extra_ids));
            // Files without it are older, and mean false.
            if bytes.extra_ids_above {
                put(keys::EXTRA_IDS_ABOVE, Value::Bool(true));
            }
            Ok(())
        }
        Vocabulary::Json(json) => {
            put(keys::TOKENIZER_MODEL, Value::String(keys::JSON.to_owned()));
            put(keys::TOKENIZER_JSON, Value::String(json.json.clone()));
            Ok(())
        }
    }
}

fn append_unigram(vocabulary: &UnigramVocabulary, rows: usize, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    let pieces = &vocabulary.pieces;
    if pieces.len() > rows {
        let what = format!("expected at most {rows} pieces, one for each row of the embedding, found {}", pieces.len());
        return Err(Error::Tokenizer { file: "vocabulary".to_owned(), what });
    }
    let fillers = pieces.len()..rows;
    let texts = pieces.iter().map(|piece| piece.text.clone()).chain(fillers.clone().map(filler));
    let scores = pieces.iter().map(|piece| piece.score).chain(fillers.clone().map(|_| FILLER_SCORE));
    let kinds = pieces.iter().map(|piece| piece.kind).chain(fillers.map(|_| PieceKind::Unused));

    put(keys::TOKENIZER_MODEL, Value::String(model_name(vocabulary.model)));
    put(keys::TOKENIZER_PRE, Value::String("default".to_owned()));
    put(keys::TOKENS, Value::Array(Array::of_strings(texts)));
    put(keys::SCORES, Value::Array(Array::of_floats(scores)));
    put(keys::TOKEN_TYPES, Value::Array(Array::of_i32(kinds.map(|kind| kind.code() as i32))));
    put(keys::ADD_SPACE_PREFIX, Value::Bool(vocabulary.add_dummy_prefix));
    put(keys::REMOVE_EXTRA_WHITESPACES, Value::Bool(vocabulary.whitespace.removes_extra()));
    if let Some(charsmap) = &vocabulary.charsmap {
        put(keys::CHARSMAP, Value::Array(Array::of_bytes(charsmap.clone())));
    }
    put(keys::UNK_ID, Value::U32(vocabulary.unk_id));
    put(keys::ADD_BOS, Value::Bool(false));
    put(keys::ADD_EOS, Value::Bool(true));

    put(keys::EXTRA_IDS, Value::count(pieces.iter().filter(|piece| is_sentinel(&piece.text)).count()));
    put(keys::WHITESPACE, Value::U32(vocabulary.whitespace.code()));
    put(keys::LEGACY, Value::Bool(vocabulary.legacy));
    put(keys::SPLIT_WORDS, Value::Bool(vocabulary.split_words));
    put(keys::BYTE_FALLBACK, Value::Bool(vocabulary.byte_fallback));
    put(keys::ADDED_IDS, Value::Array(Array::of_u32(vocabulary.added.iter().map(|token| token.id))));
    put(keys::ADDED_FLAGS, Value::Array(Array::of_u32(vocabulary.added.iter().map(|token| token.flags()))));
    Ok(())
}

/// The file's name for a kind of SentencePiece model.
fn model_name(model: PieceModel) -> String {
    match model {
        PieceModel::Unigram => "t5".to_owned(),
        other => format!("{}{}", keys::PIECES, other.name()),
    }
}

fn is_sentinel(text: &str) -> bool {
    sentinel_number(text).is_some()
}

/// Reads the vocabulary of a file in llama.cpp's dialect; `None` where it has none. What was repaired is noted.
///
/// # Errors
/// [`Error::Config`] for whatever is wrong with a key; byte-pair vocabularies and such are refused by name.
pub(super) fn read(
    file: &File,
    config: &T5Config,
    bias_per_block: bool,
    notes: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let Some(model) = file.string(keys::TOKENIZER_MODEL)? else { return Ok(None) };
    match model {
        keys::JSON => {
            let json = file.string(keys::TOKENIZER_JSON)?;
            let json = json.ok_or_else(|| file.error(keys::TOKENIZER_JSON, "expected a tokenizer, found nothing"))?;
            let name = format!("{}: {}", file.name(), keys::TOKENIZER_JSON);
            let (eos_id, pad_id) = special_ids(file, config, config.vocab_size)?;
            Vocabulary::from_other_tokenizer_json(&name, json.as_bytes(), eos_id, pad_id).map(Some)
        }
        keys::BYTES => read_bytes(file, config.vocab_size).map(|bytes| Some(Vocabulary::Bytes(bytes))),
        other => match PieceModel::ALL.into_iter().find(|known| model_name(*known) == other) {
            Some(model) => {
                let pieces = read_unigram(file, config, bias_per_block, notes)?;
                Ok(Some(Vocabulary::Unigram(UnigramVocabulary { model, ..pieces })))
            }
            None => {
                let known = PieceModel::ALL.map(model_name).join(", ");
                let what = format!("expected {known}, {} or {}, found {other}", keys::BYTES, keys::JSON);
                Err(file.error(keys::TOKENIZER_MODEL, what))
            }
        },
    }
}

fn read_bytes(file: &File, rows: usize) -> Result<ByteVocabulary> {
    let offset = file.u32(keys::TOKENIZER_OFFSET)?.unwrap_or(3);
    if u64::from(offset) + 256 > rows as u64 {
        let what = format!("expected at most {} for {rows} rows, found {offset}", rows as i64 - 256);
        return Err(file.error(keys::TOKENIZER_OFFSET, what));
    }
    let extra_ids = file.u32(keys::EXTRA_IDS)?.unwrap_or(125);
    if extra_ids > 256 {
        return Err(file.error(keys::EXTRA_IDS, format!("expected at most 256, found {extra_ids}")));
    }
    let extra_ids_above = file.boolean(keys::EXTRA_IDS_ABOVE)?.unwrap_or(false);
    Ok(ByteVocabulary { offset, extra_ids, extra_ids_above, vocab_size: rows as u32 })
}

fn read_unigram(
    file: &File,
    config: &T5Config,
    bias_per_block: bool,
    notes: &mut Vec<String>,
) -> Result<UnigramVocabulary> {
    let mut pieces = pieces(file, config.vocab_size, notes)?;
    if !pieces.iter().any(|piece| is_sentinel(piece.text.trim_start_matches('▁'))) {
        let count = match file.usize(keys::EXTRA_IDS)? {
            Some(count) => count,
            // umT5, the one family with a bias table per block, has 300.
            None => {
                if bias_per_block {
                    300
                } else {
                    100
                }
            }
        };
        if put_sentinels_for_fillers(&mut pieces, count) {
            notes.push(format!("the file names no sentinels: <extra_id_0> to <extra_id_{}> were put in", count - 1));
        }
    }
    let is_filler = |id: usize, piece: &Piece| piece.kind == PieceKind::Unused && piece.text == filler(id);
    while pieces.last().is_some_and(|piece| is_filler(pieces.len() - 1, piece)) {
        pieces.pop();
    }
    let unk_id = unknown_id(file, &pieces)?;
    let (eos_id, pad_id) = special_ids(file, config, pieces.len())?;
    let charsmap = charsmap(file)?;
    let whitespace = match file.u32(keys::WHITESPACE)? {
        Some(code) => Whitespace::from_code(code)
            .ok_or_else(|| file.error(keys::WHITESPACE, format!("expected a rule from 0 to 4, found {code}")))?,
        None => Whitespace::from_removes_extra(file.boolean(keys::REMOVE_EXTRA_WHITESPACES)?.unwrap_or(true)),
    };
    let added = match file.array(keys::ADDED_IDS)? {
        Some(ids) => listed_tokens(file, ids, pieces.len())?,
        None => tokens_by_kind(&mut pieces),
    };
    Ok(UnigramVocabulary {
        model: PieceModel::Unigram,
        unk_id,
        eos_id,
        pad_id,
        charsmap,
        whitespace,
        add_dummy_prefix: file.boolean(keys::ADD_SPACE_PREFIX)?.unwrap_or(true),
        // The rules of SentencePiece itself, which llama.cpp's files come from.
        legacy: file.boolean(keys::LEGACY)?.unwrap_or(true),
        split_words: file.boolean(keys::SPLIT_WORDS)?.unwrap_or(false),
        byte_fallback: match file.boolean(keys::BYTE_FALLBACK)? {
            Some(fallback) => fallback,
            None => pieces.iter().filter(|piece| piece.kind == PieceKind::Byte).count() == 256,
        },
        pieces,
        added,
    })
}

/// The tokens with their scores and kinds: three arrays with an element for each row of the embedding.
fn pieces(file: &File, rows: usize, notes: &mut Vec<String>) -> Result<Vec<Piece>> {
    let array = |key: &str, expected: &str| {
        let array =
            file.array(key)?.ok_or_else(|| file.error(key, format!("expected {rows} {expected}, found nothing")))?;
        if array.len() != rows {
            let what = format!("expected {rows} {expected}, one for each row of the embedding, found {}", array.len());
            return Err(file.error(key, what));
        }
        Ok(array)
    };
    let other = |key: &str, expected: &str, array: &Array| {
        file.error(key, format!("expected {expected}, found {}", array.describe()))
    };
    let tokens = array(keys::TOKENS, "strings")?;
    let texts = tokens.strings().ok_or_else(|| other(keys::TOKENS, "strings", tokens))?;
    let scores = array(keys::SCORES, "scores")?;
    let scores = scores.floats().ok_or_else(|| other(keys::SCORES, "f32 scores", scores))?;
    let kinds = array(keys::TOKEN_TYPES, "token types")?;
    let kinds = kinds.integers().ok_or_else(|| other(keys::TOKEN_TYPES, "token types from 1 to 6", kinds))?;

    // Files of our own say which tokens are never produced; of equal ones that are left the last one counts.
    let by_order = file.array(keys::ADDED_IDS)?.is_none();
    let mut pieces = Vec::with_capacity(rows);
    let mut seen = std::collections::HashSet::with_capacity(rows);
    let mut duplicates = 0;
    for (id, ((text, score), code)) in texts.zip(scores).zip(kinds).enumerate() {
        if !score.is_finite() {
            return Err(file.error(keys::SCORES, format!("token {id}: expected a finite score, found {score}")));
        }
        let mut kind = PieceKind::from_code(code).ok_or_else(|| {
            file.error(keys::TOKEN_TYPES, format!("token {id}: expected a type from 1 to 6, found {code}"))
        })?;
        if by_order && !seen.insert(text) {
            // The first of equal tokens is the one that text becomes; a later one can only be read back.
            kind = PieceKind::Unused;
            duplicates += 1;
        }
        pieces.push(Piece { text: text.to_owned(), score, kind });
    }
    if duplicates > 0 {
        notes.push(format!("{duplicates} tokens that come twice in the vocabulary are never produced from text"));
    }
    Ok(pieces)
}

/// Files made without added_tokens.json have fillers where the sentinels belong: right after the model's own pieces,
/// `<extra_id_0>` last. Does nothing where there are not enough.
fn put_sentinels_for_fillers(pieces: &mut [Piece], count: usize) -> bool {
    let is_filler = |(id, piece): (usize, &Piece)| piece.kind == PieceKind::Unused && piece.text == filler(id);
    let Some(start) = pieces.iter().enumerate().position(is_filler) else { return false };
    let fillers = pieces.iter().enumerate().skip(start).take(count).filter(|&entry| is_filler(entry)).count();
    if count == 0 || fillers < count {
        return false;
    }
    for (n, piece) in (0..count).rev().zip(&mut pieces[start..]) {
        *piece = Piece { text: format!("<extra_id_{n}>"), score: 0.0, kind: PieceKind::UserDefined };
    }
    true
}

/// The ids of `</s>` and `<pad>`, below the number of tokens. The configuration's may be others.
fn special_ids(file: &File, config: &T5Config, count: usize) -> Result<(u32, u32)> {
    let id = |key: &str, default: u32| {
        let id = file.u32(key)?.unwrap_or(default);
        if (id as usize) < count {
            Ok(id)
        } else {
            Err(file.error(key, format!("expected the id of a token below {count}, found {id}")))
        }
    };
    Ok((id(keys::EOS_ID, config.eos_token_id)?, id(keys::PAD_ID, config.pad_token_id)?))
}

/// The id that is stored, else that of the piece of the unknown kind; the usual default of 2 is `</s>` in some files.
fn unknown_id(file: &File, pieces: &[Piece]) -> Result<u32> {
    match file.u32(keys::UNK_ID)? {
        Some(id) if (id as usize) < pieces.len() => Ok(id),
        Some(id) => {
            Err(file.error(keys::UNK_ID, format!("expected the id of a token below {}, found {id}", pieces.len())))
        }
        None => pieces
            .iter()
            .position(|piece| piece.kind == PieceKind::Unknown)
            .map(|id| id as u32)
            .ok_or_else(|| file.error(keys::UNK_ID, "expected an id, or a token of type 2, found neither")),
    }
}

/// The character map, whose bytes the tokenizer checks.
fn charsmap(file: &File) -> Result<Option<Vec<u8>>> {
    let Some(array) = file.array(keys::CHARSMAP)? else { return Ok(None) };
    let bytes = array
        .bytes()
        .ok_or_else(|| file.error(keys::CHARSMAP, format!("expected bytes, found {}", array.describe())))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    check_charsmap(bytes)
        .map_err(|what| file.error(keys::CHARSMAP, format!("expected a character map, found a damaged one: {what}")))?;
    Ok(Some(bytes.to_vec()))
}

/// The added tokens of a file of our own.
fn listed_tokens(file: &File, ids: &Array, count: usize) -> Result<Vec<AddedToken>> {
    let numbers = |key: &str, array: &Array| {
        array.integers().ok_or_else(|| file.error(key, format!("expected whole numbers, found {}", array.describe())))
    };
    let ids = numbers(keys::ADDED_IDS, ids)?;
    let flags = match file.array(keys::ADDED_FLAGS)? {
        Some(flags) => numbers(keys::ADDED_FLAGS, flags)?,
        None => Vec::new(),
    };
    if flags.len() != ids.len() {
        return Err(file.error(keys::ADDED_FLAGS, format!("expected {} values, found {}", ids.len(), flags.len())));
    }
    let token = |(id, flags): (u32, u32)| {
        if id as usize >= count {
            return Err(file.error(keys::ADDED_IDS, format!("expected ids below {count}, found {id}")));
        }
        AddedToken::from_flags(id, flags)
            .ok_or_else(|| file.error(keys::ADDED_FLAGS, format!("expected flags below 32, found {flags}")))
    };
    ids.into_iter().zip(flags).map(token).collect()
}

/// The added tokens of a file that does not list them: all that are not plain text, as for a SentencePiece model.
fn tokens_by_kind(pieces: &mut [Piece]) -> Vec<AddedToken> {
    let mut added = Vec::new();
    for (id, piece) in (0..).zip(pieces) {
        // Sentinels that are spelled as words of their own (mT5): the space before them is theirs.
        let name = piece.text.trim_start_matches('▁');
        let sentinel = is_sentinel(name) && piece.kind != PieceKind::Unused;
        let lstrip = sentinel && name.len() < piece.text.len();
        if sentinel {
            piece.text = name.to_owned();
            piece.kind = PieceKind::UserDefined;
        }
        match piece.kind {
            PieceKind::Unknown | PieceKind::Control | PieceKind::UserDefined => {
                let special = sentinel || piece.kind != PieceKind::UserDefined;
                added.push(AddedToken { special, lstrip, ..AddedToken::special(id) });
            }
            PieceKind::Normal | PieceKind::Unused | PieceKind::Byte => {}
        }
    }
    added
}
