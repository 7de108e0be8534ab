//! `config.json`, both ways.

use serde_json::Value;

use super::head;
use crate::config::{Activation, FeedForwardKind, T5Config};
use crate::error::{Error, Result};
use crate::head::HeadTask;
use crate::json::{self, Keys};

impl T5Config {
    /// Parses `config.json`. `file` names it in messages. What
    /// [`Checkpoint::open`](crate::checkpoint::Checkpoint::open) would remark about it is left out.
    ///
    /// `tie_word_embeddings` here is only what the file says; the checkpoint reader replaces it by what the
    /// tensors say, since transformers 5 writes `true` for untied models, too.
    ///
    /// # Errors
    /// Where the text is no JSON object, a key is missing or has a value that no T5 model can have, or two keys
    /// contradict each other.
    pub fn from_json(file: &str, text: &str) -> Result<T5Config> {
        let json = json::object(file, text.as_bytes())?;
        let json = Keys { file, json: &json };
        read(json, matches!(json.string("model_type")?, Some("mt5" | "umt5")), &mut Vec::new())
    }

    /// Writes `config.json` so that the transformers library builds the same model.
    pub fn to_json(&self) -> Value {
        let family = match self.model_type.as_str() {
            "mt5" => "MT5",
            "umt5" => "UMT5",
            _ => "T5",
        };
        let class = if self.is_encoder_only() { "EncoderModel" } else { "ForConditionalGeneration" };
        let mut json = serde_json::json!({
            "architectures": [format!("{family}{class}")],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.relative_attention_num_buckets,
            "relative_attention_max_distance": self.relative_attention_max_distance,
            "dropout_rate": self.dropout_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_factor": self.initializer_factor,
            "feed_forward_proj": self.feed_forward.name(),
            "is_encoder_decoder": !self.is_encoder_only(),
            "use_cache": true,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "scale_decoder_outputs": self.scale_decoder_outputs,
        });
        if !self.is_encoder_only() {
            json["num_decoder_layers"] = self.num_decoder_layers.into();
        }
        json
    }
}

/// What the transformers library takes a size for under another name.
const ALIASES: [(&str, &str); 4] = [
    ("d_model", "hidden_size"),
    ("d_kv", "head_dim"),
    ("num_layers", "num_hidden_layers"),
    ("num_heads", "num_attention_heads"),
];

/// Reads the configuration. `gated` says of a file without `feed_forward_proj` whether its feed-forward layers have a
/// gate, as those of mT5 and umT5 have. `notes` get one sentence for each key that changes values elsewhere and does
/// not here.
pub(super) fn read(json: Keys, gated: bool, notes: &mut Vec<String>) -> Result<T5Config> {
    let model_type = json.string("model_type")?.unwrap_or("t5").to_owned();
    if !matches!(model_type.as_str(), "t5" | "mt5" | "umt5" | "byt5") {
        return Err(Error::config(json.file, "model_type", format!("expected t5, mt5 or umt5, found {model_type}")));
    }
    let num_layers = required(json, "num_layers")?;
    let num_decoder_layers =
        if is_encoder_only(json)? { 0 } else { json.integer("num_decoder_layers")?.unwrap_or(num_layers) };
    let tie_word_embeddings = json.boolean("tie_word_embeddings")?.unwrap_or(model_type != "mt5");
    let pad_token_id = token(json, "pad_token_id")?.unwrap_or(0);
    // Without the key the transformers library starts with the beginning of a text, if the model has one.
    let start = token(json, "decoder_start_token_id")?.or(token(json, "bos_token_id")?);
    let config = T5Config {
        vocab_size: required(json, "vocab_size")?,
        d_model: required(json, "d_model")?,
        d_kv: required(json, "d_kv")?,
        d_ff: required(json, "d_ff")?,
        num_layers,
        num_decoder_layers,
        num_heads: required(json, "num_heads")?,
        relative_attention_num_buckets: json.integer("relative_attention_num_buckets")?.unwrap_or(32),
        relative_attention_max_distance: json.integer("relative_attention_max_distance")?.unwrap_or(128),
        relative_bias_per_block: model_type == "umt5",
        layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-6),
        feed_forward: feed_forward(json, gated, notes)?,
        tie_word_embeddings,
        scale_decoder_outputs: scales(json, &model_type, tie_word_embeddings)?,
        pad_token_id,
        eos_token_id: token(json, "eos_token_id")?.unwrap_or(1),
        decoder_start_token_id: start.unwrap_or(pad_token_id),
        dropout_rate: json.number("dropout_rate")?.unwrap_or(0.1),
        initializer_factor: json.number("initializer_factor")?.unwrap_or(1.0),
        model_type,
    };
    config.validate(json.file)?;
    note_unused(json, notes);
    Ok(config)
}

/// Whether there is no decoder.
fn is_encoder_only(json: Keys) -> Result<bool> {
    // The classifier of tokens has an encoder, whatever else its file says.
    let is_encoder = head::class(json)
        .is_some_and(|name| name.ends_with("EncoderModel") || HeadTask::of_class(name) == Some(HeadTask::Tokens));
    Ok(is_encoder || json.boolean("is_encoder_decoder")? == Some(false))
}

/// Whether the decoder's output is scaled before the head. transformers 5 writes `tie_word_embeddings: true` for every
/// model and says here what the word meant before; files without the key are older, or not T5's: its mT5 never scales.
/// (transformers 4 scaled an mT5 whose embedding is tied. None was published, but its files say who wrote them.)
fn scales(json: Keys, model_type: &str, tied: bool) -> Result<bool> {
    if let Some(scales) = json.boolean("scale_decoder_outputs")? {
        return Ok(scales);
    }
    let by_transformers_4 = json.string("transformers_version")?.is_some_and(|version| version.starts_with("4."));
    Ok(tied && (model_type != "mt5" || by_transformers_4))
}

/// The feed-forward layer. transformers derives `dense_act_fn` and `is_gated_act` from `feed_forward_proj`, but takes
/// them from the file where they are there.
fn feed_forward(json: Keys, gated: bool, notes: &mut Vec<String>) -> Result<FeedForwardKind> {
    let usual = if gated { "gated-gelu" } else { "relu" };
    let name = json.string("feed_forward_proj")?.unwrap_or(usual);
    let mut feed_forward = FeedForwardKind::from_name(name).ok_or_else(|| {
        let what = format!("expected relu, gated-gelu, gated-silu or the like, found {name}");
        Error::config(json.file, "feed_forward_proj", what)
    })?;
    if let Some(gated) = json.boolean("is_gated_act")? {
        feed_forward.gated = gated;
    }
    if let Some(name) = json.string("dense_act_fn")? {
        feed_forward.activation = match name {
            "relu" => Activation::Relu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Activation::GeluNew,
            "gelu" | "gelu_python" => {
                notes.push(format!(
                    "{}: dense_act_fn: {name} is computed as gelu_new, its tanh form: values differ by up to 0.0005",
                    json.file
                ));
                Activation::GeluNew
            }
            "silu" | "swish" => Activation::Silu,
            other => {
                let what = format!("expected relu, gelu_new or silu, found {other}");
                return Err(Error::config(json.file, "dense_act_fn", what));
            }
        };
    }
    Ok(feed_forward)
}

/// Notes the keys that change what the transformers library computes and not what this one does.
fn note_unused(json: Keys, notes: &mut Vec<String>) {
    let is_set = |key: &str| {
        json.get(key).is_some_and(|value| match value {
            Value::Bool(value) => *value,
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        })
    };
    for (key, what) in [
        ("tie_encoder_decoder", "the decoder's weights are read as they are stored"),
        ("pruned_heads", "every block has all its heads"),
        ("quantization_config", "weights are read as they are stored"),
        ("prefix", "only what a task names goes before a text"),
    ] {
        if is_set(key) {
            notes.push(format!("{}: {key} is not obeyed: {what}", json.file));
        }
    }
}

/// A size that must be there, under its own name or that of [`ALIASES`].
fn required(json: Keys, key: &str) -> Result<usize> {
    let own = json.integer(key)?;
    let Some((_, alias)) = ALIASES.iter().find(|(name, _)| *name == key) else {
        return own.ok_or_else(|| missing(json, key));
    };
    match (own, json.integer(alias)?) {
        (Some(own), Some(other)) if own != other => {
            let what = format!("expected {own}, as {key} says the same in other words, found {other}");
            Err(Error::config(json.file, *alias, what))
        }
        (own, other) => own.or(other).ok_or_else(|| missing(json, key)),
    }
}

fn missing(json: Keys, key: &str) -> Error {
    Error::config(json.file, key, "expected a whole number, found nothing")
}

/// A token id; of a list (transformers allows several end tokens) the first.
fn token(json: Keys, key: &str) -> Result<Option<u32>> {
    Ok(json.ids(key)?.first().copied())
}
