//! A model to train on from: an existing one with more tokens, with blocks left out or put in.
//!
//! A new token's row starts as the mean of the rows of the pieces that spelled it before. A block that is listed again
//! starts as a copy whose outputs are zero, so that a deeper model computes what the shallower one did (Net2Net, Chen
//! et al. 2016; its use for Transformers is LLaMA Pro's, Wu et al. 2024).

use std::collections::HashMap;
use std::path::Path;

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::schema::{self, Role, Stack, TensorId, TensorSpec};
use t5_runtime::tokenizer::{self, AddedToken, Piece, PieceKind, Tokenizer, UnigramVocabulary};

use crate::model::{Model, expanded};
use crate::{Error, Result, export, vocabulary};

/// What becomes of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Texts that become one token each, wherever they stand in a text.
    pub add_tokens: Vec<String>,
    /// The blocks of the new encoder, by their numbers in the old one; `None`: as they are.
    pub encoder_blocks: Option<Vec<usize>>,
    /// The blocks of the new decoder.
    pub decoder_blocks: Option<Vec<usize>>,
}

impl Extension {
    /// Writes the extended model as a Hugging Face folder that `model.from` takes. Returns the model.
    ///
    /// # Errors
    /// Where the checkpoint has no vocabulary of pieces, a token is there already or a block is not, or the folder is
    /// the checkpoint's or cannot be written.
    pub fn write(&self, checkpoint: &Checkpoint, output: &Path) -> Result<Model> {
        export::expect_other_folder(checkpoint, output)?;
        let (model, vocabulary) = self.apply(checkpoint)?;
        export::write_model(checkpoint, &model, vocabulary, output)?;
        Ok(model)
    }

    /// The extended model and vocabulary.
    ///
    /// # Errors
    /// As [`Extension::write`].
    pub fn apply(&self, checkpoint: &Checkpoint) -> Result<(Model, UnigramVocabulary)> {
        let old = &checkpoint.config;
        let (vocabulary, spelled) = with_tokens(&checkpoint.file, pieces(checkpoint)?, &self.add_tokens)?;
        let encoder = blocks(self.encoder_blocks.as_deref(), Stack::Encoder, old.num_layers)?;
        let decoder = blocks(self.decoder_blocks.as_deref(), Stack::Decoder, old.num_decoder_layers)?;
        let config = T5Config {
            vocab_size: old.vocab_size.max(vocabulary::padded_rows(vocabulary.pieces.len())),
            num_layers: encoder.len(),
            num_decoder_layers: decoder.len(),
            ..old.clone()
        };
        config.validate(&checkpoint.file)?;
        let sources = Sources::new(checkpoint);
        let first_new = vocabulary.pieces.len() - spelled.len();
        let model = Model::from_values(&config, |spec| match (spec.id.role, spec.id.stack, spec.id.block) {
            (Role::TokenEmbedding | Role::OutputHead, ..) => {
                let values = sources.values(spec.id)?;
                Ok(with_rows(values, config.vocab_size, old.d_model, first_new, &spelled))
            }
            (role, Some(stack), Some(block)) => {
                let list = if stack == Stack::Encoder { &encoder } else { &decoder };
                // The one table of a stack is its first block's, whichever that is.
                let shared = role == Role::RelativeBias && !old.relative_bias_per_block;
                let from = if shared { 0 } else { list[block] };
                let mut values = sources.values(TensorId { block: Some(from), ..spec.id })?;
                if list[..block].contains(&list[block]) && adds_to_the_stream(role) {
                    values.fill(0.0);
                }
                Ok(values)
            }
            _ => sources.values(spec.id),
        })?;
        Ok((model, vocabulary))
    }
}

/// The field of an [`Extension`] whose tokens are typed as lists.
const ADD_TOKENS: &str = "add_tokens";

fn wrong(option: &'static str, what: String) -> Error {
    Error::Option { option, what }
}

/// The blocks of a new stack, by their numbers among the `count` of the old one.
fn blocks(list: Option<&[usize]>, stack: Stack, count: usize) -> Result<Vec<usize>> {
    let (option, name) = match stack {
        Stack::Encoder => ("encoder_blocks", "encoder"),
        Stack::Decoder => ("decoder_blocks", "decoder"),
    };
    match list {
        None => Ok((0..count).collect()),
        Some(list) if count == 0 => {
            Err(wrong(option, format!("expected none, as the model has no {name}, found {list:?}")))
        }
        Some(list) if list.is_empty() || list.iter().any(|&block| block >= count) => {
            Err(wrong(option, format!("expected one or more blocks of 0 to {}, found {list:?}", count - 1)))
        }
        Some(list) => Ok(list.to_vec()),
    }
}

/// Whether a matrix is the last one of a layer, whose products are added to the residual stream.
fn adds_to_the_stream(role: Role) -> bool {
    matches!(role, Role::SelfO | Role::CrossO | Role::Wo | Role::AdapterUp)
}

/// The old model's tensors by their places.
struct Sources<'a> {
    checkpoint: &'a Checkpoint,
    specs: HashMap<TensorId, TensorSpec>,
}

impl<'a> Sources<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Sources<'a> {
        let specs = schema::tensors(&checkpoint.config).into_iter().map(|spec| (spec.id, spec)).collect();
        Sources { checkpoint, specs }
    }

    fn values(&self, id: TensorId) -> Result<Vec<f32>> {
        expanded(self.checkpoint, &self.specs[&id])
    }
}

/// The vocabulary of a model that can be written as a folder.
pub(crate) fn pieces(checkpoint: &Checkpoint) -> Result<&UnigramVocabulary> {
    match &checkpoint.vocabulary {
        Some(tokenizer::Vocabulary::Unigram(vocabulary)) => Ok(vocabulary),
        _ => {
            let what = "expected a model with a vocabulary of pieces, found one of bytes or none";
            Err(Error::file(Path::new(&checkpoint.file), what))
        }
    }
}

/// The vocabulary with tokens behind its last piece, and for each the ids that spelled it before.
fn with_tokens(
    file: &str,
    vocabulary: &UnigramVocabulary,
    tokens: &[String],
) -> Result<(UnigramVocabulary, Vec<Vec<u32>>)> {
    let tokenizer = Tokenizer::new(file, &tokenizer::Vocabulary::Unigram(vocabulary.clone()))?;
    let mut extended = vocabulary.clone();
    let mut spelled = Vec::new();
    for text in tokens {
        if text.is_empty() || text.contains('\0') {
            return Err(wrong(ADD_TOKENS, format!("expected texts, found {text:?}")));
        }
        if extended.pieces.iter().any(|piece| piece.text == *text) {
            return Err(wrong(ADD_TOKENS, format!("{text:?} is in the vocabulary already")));
        }
        spelled.push(tokenizer.encode_prefix(text).into_iter().filter(|&id| id != vocabulary.unk_id).collect());
        let id = extended.pieces.len() as u32;
        extended.pieces.push(Piece { text: text.clone(), score: 0.0, kind: PieceKind::UserDefined });
        let token = AddedToken { id, special: false, lstrip: false, rstrip: false, normalized: false, outside: true };
        extended.added.push(token);
    }
    Ok((extended, spelled))
}

/// `[rows, d_model]` with the rows of new ids: each the mean of the rows of `spelled`, or of all rows where nothing
/// spelled it.
fn with_rows(mut values: Vec<f32>, rows: usize, d_model: usize, first_new: usize, spelled: &[Vec<u32>]) -> Vec<f32> {
    let all: Vec<u32> = (0..first_new as u32).collect();
    let means: Vec<Vec<f32>> = spelled
        .iter()
        .map(|ids| {
            let ids = if ids.is_empty() { &all } else { ids };
            let column = |at: usize| ids.iter().map(|&id| f64::from(values[id as usize * d_model + at])).sum::<f64>();
            (0..d_model).map(|at| (column(at) / ids.len() as f64) as f32).collect()
        })
        .collect();
    values.resize(rows * d_model, 0.0);
    for (row, mean) in means.iter().enumerate() {
        values[(first_new + row) * d_model..][..d_model].copy_from_slice(mean);
    }
    values
}

/// A character as [`parse_tokens`] takes it.
pub(crate) fn typed(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        ',' | '\\' => format!("\\{c}"),
        c => c.to_string(),
    }
}

/// The parts of a list of tokens as it is typed: commas between them; `\n`, `\t`, `\,` and `\\` stand for a line break,
/// a tab, a comma and a backslash.
///
/// # Errors
/// Where a backslash stands before something else.
pub fn parse_tokens(list: &str) -> Result<Vec<String>> {
    let mut tokens = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let last = tokens.len() - 1;
        match c {
            ',' => tokens.push(String::new()),
            '\\' => tokens[last].push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(plain @ (',' | '\\')) => plain,
                other => {
                    let found = other.map_or("the end".to_owned(), |other| format!("{other:?}"));
                    let what = format!("expected n, t, a comma or a backslash behind a backslash, found {found}");
                    return Err(wrong(ADD_TOKENS, what));
                }
            }),
            c => tokens[last].push(c),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tokens_have_escapes() {
        assert_eq!(parse_tokens(r"{,},\n").unwrap(), ["{", "}", "\n"]);
        assert_eq!(parse_tokens(r"a b: c,\,\\\t").unwrap(), ["a b: c", ",\\\t"]);
        assert!(parse_tokens(r"\x").unwrap_err().to_string().contains("found 'x'"));
        assert!(parse_tokens("a\\").unwrap_err().to_string().contains("found the end"));
    }

    #[test]
    fn blocks_are_those_that_are_there() {
        assert_eq!(blocks(None, Stack::Encoder, 3).unwrap(), [0, 1, 2]);
        assert_eq!(blocks(Some(&[2, 0, 0]), Stack::Decoder, 3).unwrap(), [2, 0, 0]);
        assert!(blocks(None, Stack::Encoder, 0).unwrap().is_empty());
        let message = |list: &[usize], stack, count| blocks(Some(list), stack, count).unwrap_err().to_string();
        let found = message(&[3], Stack::Decoder, 3);
        assert_eq!(found, "decoder_blocks: expected one or more blocks of 0 to 2, found [3]");
        // A model of one stack.
        let found = message(&[0], Stack::Encoder, 0);
        assert_eq!(found, "encoder_blocks: expected none, as the model has no encoder, found [0]");
    }

    #[test]
    fn new_rows_are_means_and_others_stay() {
        // Three ids in four rows; two new ids, of which one had no spelling.
        let values = vec![1.0, 2.0, 3.0, 4.0, 8.0, 6.0, 9.0, 9.0];
        let rows = with_rows(values.clone(), 6, 2, 3, &[vec![0, 1], vec![]]);
        assert_eq!(rows[..6], values[..6]);
        assert_eq!(rows[6..], [2.0, 3.0, 4.0, 4.0, 0.0, 0.0]);
    }
}
