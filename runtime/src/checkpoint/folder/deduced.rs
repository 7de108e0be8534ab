//! A configuration for weights that came without one: shapes say all but a few numbers that every T5 shares.

use serde_json::{Value, json};

use crate::checkpoint::assemble::Stored;
use crate::error::{Error, Result};
use crate::schema::{self, EMBEDDING_ALIASES, Role, Stack, TensorId};

/// Rows of ByT5's embedding, which no other family has.
const ROWS_OF_BYT5: usize = 384;

/// What config.json would say of the tensors of `file`, and a sentence that says what was deduced.
///
/// # Errors
/// Where a tensor that sizes are told from is missing or has another number of extents.
pub(super) fn config(file: &str, stored: &Stored) -> Result<(Value, String)> {
    let of = |role, stack, block| schema::hf_name(TensorId { role, stack: Some(stack), block: Some(block) });
    let first = |role| of(role, Stack::Encoder, 0);
    let embedding = EMBEDDING_ALIASES.into_iter().find(|name| stored.has(name)).unwrap_or(EMBEDDING_ALIASES[0]);
    let [vocab_size, d_model] = extents(file, stored, embedding, "[vocabulary, d_model]")?;
    let [buckets, heads] = extents(file, stored, &first(Role::RelativeBias), "[buckets, heads]")?;
    let query = first(Role::SelfQ);
    let [inner, _] = extents(file, stored, &query, "[heads × d_kv, d_model]")?;
    if heads == 0 || inner == 0 || !inner.is_multiple_of(heads) {
        let what = format!("expected a number of rows that {heads} heads divide, found {inner}");
        return Err(Error::tensor(file, query, what));
    }
    let gated = stored.has(&first(Role::Wi0));
    let [d_ff, _] = extents(file, stored, &first(if gated { Role::Wi0 } else { Role::Wi }), "[d_ff, d_model]")?;
    let blocks = |stack| (0..).take_while(|&block| stored.has(&of(Role::SelfQ, stack, block))).count();
    let (encoder_blocks, decoder_blocks) = (blocks(Stack::Encoder), blocks(Stack::Decoder));
    let tied = !stored.has(&schema::hf_name(TensorId { role: Role::OutputHead, stack: None, block: None }));
    let (model_type, feed_forward) = match (stored.has(&of(Role::RelativeBias, Stack::Encoder, 1)), gated) {
        (true, true) => ("umt5", "gated-gelu"),
        (true, false) => ("umt5", "relu"),
        (false, _) if vocab_size == ROWS_OF_BYT5 => ("byt5", if gated { "gated-gelu" } else { "relu" }),
        (false, true) => ("t5", "gated-gelu"),
        (false, false) => ("t5", "relu"),
    };
    let json = json!({
        "model_type": model_type,
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_kv": inner / heads,
        "d_ff": d_ff,
        "num_layers": encoder_blocks,
        "num_decoder_layers": decoder_blocks,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": feed_forward,
        "tie_word_embeddings": tied,
        "is_encoder_decoder": decoder_blocks > 0,
    });
    let stacks = match decoder_blocks {
        0 => format!("an encoder of {encoder_blocks} blocks"),
        _ => format!("an encoder of {encoder_blocks} and a decoder of {decoder_blocks} blocks"),
    };
    let note = format!(
        "{file}: no config.json, so the tensors say what it is: {model_type}, {stacks}, vocab_size {vocab_size}, \
         d_model {d_model}, {heads} heads of {}, d_ff {d_ff}, {feed_forward}, {buckets} buckets; as in every T5, \
         relative_attention_max_distance is 128, layer_norm_epsilon 1e-6, <pad> 0 and </s> 1",
        inner / heads
    );
    Ok((json, note))
}

/// The two extents of a matrix that must be there.
fn extents(file: &str, stored: &Stored, name: &str, expected: &str) -> Result<[usize; 2]> {
    let shape = stored.tensors.get(name).map(|tensor| &tensor.shape[..]);
    shape.and_then(|shape| shape.try_into().ok()).ok_or_else(|| {
        let found = match (shape, stored.unsupported.get(name)) {
            (Some(shape), _) => format!("shape {shape:?}"),
            (None, Some(dtype)) => format!("numbers of type {dtype}"),
            (None, None) => "none".to_owned(),
        };
        let what = format!("expected a matrix {expected}, since there is no config.json; found {found}");
        Error::tensor(file, name, what)
    })
}
