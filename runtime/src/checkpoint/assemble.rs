//! Compares what a file stores with what the schema asks for; the result is a checkpoint or one clear error. All
//! readers end here.

use std::collections::HashMap;

use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::order::sorted_by;
use crate::schema::{self, EMBEDDING_ALIASES, Role, Stack, TensorId, TensorSpec};
use crate::storage::Bytes;
use crate::tensor::Tensor;

/// The tensors of one or more files, by the names the files use.
#[derive(Default)]
pub(super) struct Stored {
    pub tensors: HashMap<String, Tensor>,
    /// Tensors of types that no model tensor may have (I64 …): name to type. An error only where one is needed.
    pub unsupported: HashMap<String, String>,
    /// What has not the T5's prefix: other models, and a head of the T5.
    pub others: HashMap<String, Tensor>,
    /// A SentencePiece model among the tensors, with the name it has there.
    pub sentencepiece: Option<(String, Bytes)>,
}

impl Stored {
    /// Tensors by the names that they have.
    pub fn of(tensors: Vec<Tensor>) -> Stored {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Stored { tensors, ..Stored::default() }
    }

    /// Whether there is a tensor of this name, of whatever type.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.unsupported.contains_key(name)
    }
}

/// How a file spells tensor names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    HuggingFace,
    LlamaCpp,
}

impl Dialect {
    fn name(self, spec: &TensorSpec) -> &str {
        match self {
            Dialect::HuggingFace => &spec.hf_name,
            Dialect::LlamaCpp => &spec.gguf_name,
        }
    }

    fn id_name(self, id: TensorId) -> String {
        match self {
            Dialect::HuggingFace => schema::hf_name(id),
            Dialect::LlamaCpp => schema::gguf_name(id),
        }
    }
}

/// Takes the tensors of the schema out of `stored`, by canonical name, and corrects `config` by what is there:
/// the tie (a head of its own or none) and whether every block has a bias table. `file` is named where a tensor
/// is missing. Says in `notes` what was left over.
pub(super) fn assemble(
    file: &str,
    dialect: Dialect,
    config: &mut T5Config,
    mut stored: Stored,
    notes: &mut Vec<String>,
) -> Result<HashMap<String, Tensor>> {
    if dialect == Dialect::HuggingFace {
        choose_embedding(config.is_encoder_only(), &mut stored)?;
    }
    let has = |stored: &Stored, id| stored.has(&dialect.id_name(id));
    // docs/t5.md 1.6: what is stored decides about the tie; the scale is another question.
    let head = TensorId { role: Role::OutputHead, stack: None, block: None };
    config.tie_word_embeddings = config.is_encoder_only() || !has(&stored, head);
    config.relative_bias_per_block = [(Stack::Encoder, config.num_layers), (Stack::Decoder, config.num_decoder_layers)]
        .into_iter()
        .any(|(stack, blocks)| {
            (1..blocks).any(|block| {
                has(&stored, TensorId { role: Role::RelativeBias, stack: Some(stack), block: Some(block) })
            })
        });

    let mut tensors = HashMap::new();
    for spec in schema::tensors(config) {
        let name = dialect.name(&spec);
        let Some(mut tensor) = stored.tensors.remove(name) else {
            let what = match stored.unsupported.get(name) {
                Some(dtype) => format!("expected numbers of type F32, F16, BF16 or F8, found {dtype}"),
                None => format!("expected a tensor of shape {:?}, found none", spec.shape),
            };
            return Err(Error::tensor(file, name, what));
        };
        if tensor.shape != spec.shape {
            return Err(tensor.error(format!("expected shape {:?}, found {:?}", spec.shape, tensor.shape)));
        }
        tensor.check_size()?;
        tensor.name = spec.hf_name.clone();
        tensors.insert(spec.hf_name, tensor);
    }
    note_leftovers(config, stored, notes);
    Ok(tensors)
}

/// Files store the embedding under one or more of three names; puts the one to be used under the first of them.
fn choose_embedding(encoder_only: bool, stored: &mut Stored) -> Result<()> {
    let aliases = if encoder_only { &EMBEDDING_ALIASES[..2] } else { &EMBEDDING_ALIASES[..] };
    let mut chosen: Option<Tensor> = None;
    for alias in aliases {
        let Some(tensor) = stored.tensors.remove(*alias) else { continue };
        match &chosen {
            None => chosen = Some(tensor),
            Some(first) => {
                let same = (first.dtype, &first.shape, first.scale) == (tensor.dtype, &tensor.shape, tensor.scale)
                    && *first.data == *tensor.data;
                if !same {
                    let what = format!("expected the same values as {}, found others: ", first.name);
                    return Err(tensor.error(what + "different embeddings in one model are not supported"));
                }
            }
        }
    }
    if let Some(tensor) = chosen {
        stored.tensors.insert(EMBEDDING_ALIASES[0].to_owned(), tensor);
    }
    Ok(())
}

/// One note per kind of tensor that is stored and not used. Names that are known to be useless go unmentioned.
fn note_leftovers(config: &T5Config, stored: Stored, notes: &mut Vec<String>) {
    let names = stored.tensors.into_keys().chain(stored.unsupported.into_keys());
    let (mut decoder, mut unknown) = (0, Vec::new());
    for name in names {
        let of_decoder = ["decoder.", "dec.", "lm_head.", "output."].iter().any(|prefix| name.starts_with(prefix));
        if config.is_encoder_only() && of_decoder {
            decoder += 1;
        } else if !schema::is_ignored(&name) {
            unknown.push(name);
        }
    }
    if decoder > 0 {
        notes.push(format!("an encoder-only model: {decoder} tensors of a decoder are not used"));
    }
    unknown = sorted_by(unknown, String::cmp);
    if let Some(more) = unknown.len().checked_sub(4) {
        unknown.truncate(3);
        unknown.push(format!("and {} more", more + 1));
    }
    if !unknown.is_empty() {
        notes.push(format!("unknown tensors are not used: {}", unknown.join(", ")));
    }
}
