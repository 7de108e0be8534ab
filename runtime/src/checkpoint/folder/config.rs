//! `config.json`, both ways.

use serde_json::Value;

use super::head;
use crate::config::{Activation, Adapters, FeedForwardKind, OneStack, T5Config};
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

    /// Writes `config.json` so that the transformers library builds the same model, but for adapters and models of one
    /// stack, which it does not know.
    pub fn to_json(&self) -> Value {
        let family = match self.model_type.as_str() {
            "mt5" => "MT5",
            "umt5" => "UMT5",
            _ => "T5",
        };
        let class = match self.one_stack() {
            Some(OneStack::Causal) => "PocketT5LanguageModel".to_owned(),
            Some(OneStack::Prefix) => "PocketT5PrefixLanguageModel".to_owned(),
            None if self.is_encoder_only() => format!("{family}EncoderModel"),
            None => format!("{family}ForConditionalGeneration"),
        };
        let mut json = serde_json::json!({
            "architectures": [class],
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
            "is_encoder_decoder": !self.is_encoder_only() && self.one_stack().is_none(),
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
        if let Some(Adapters { size, inside }) = self.adapters {
            (json["adapter_size"], json["adapter_inside"]) = (size.into(), inside.into());
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

/// The sizes of the transformers library's configurations, which count where a file leaves them out: in the order of
/// [`SIZES`], for `t5` and for `mt5` and `umt5`.
const DEFAULTS: [[usize; 6]; 2] = [[32128, 512, 64, 2048, 6, 8], [250112, 512, 64, 1024, 8, 6]];
const SIZES: [&str; 6] = ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"];

/// Architectures that are near enough to T5 to be tried, and what runs them.
const OTHERS: [(&str, &str); 8] = [
    ("longt5", "LongT5 attends within windows; the transformers library runs it"),
    ("switch_transformers", "Switch Transformers route tokens to experts; the transformers library runs them"),
    ("t5gemma", "T5Gemma is Gemma with an encoder; the transformers library runs it"),
    ("t5gemma2", "T5Gemma 2 is Gemma with an encoder; the transformers library runs it"),
    ("pix2struct", "Pix2Struct reads images; the transformers library runs it"),
    ("pop2piano", "Pop2Piano reads sound; the transformers library runs it"),
    ("udop", "UDOP reads pages with their layout; the transformers library runs it"),
    ("nllb-moe", "NLLB-MoE is no T5; CTranslate2 and the transformers library run it"),
];

/// Reads the configuration. `gated` says of a file without `feed_forward_proj` whether its feed-forward layers have a
/// gate, as those of mT5 and umT5 have. `notes` get one sentence for each key that changes values elsewhere and does
/// not here.
pub(super) fn read(json: Keys, gated: bool, notes: &mut Vec<String>) -> Result<T5Config> {
    let model_type = json.string("model_type")?.unwrap_or("t5").to_owned();
    let one_stack = OneStack::of_type(&model_type).is_some();
    if !matches!(model_type.as_str(), "t5" | "mt5" | "umt5" | "byt5") && !one_stack {
        let other = OTHERS.iter().find(|(name, _)| *name == model_type);
        let hint = other.map_or_else(String::new, |(_, hint)| format!(": {hint}"));
        let what = format!("expected t5, mt5 or umt5, found {model_type}{hint}");
        return Err(Error::config(json.file, "model_type", what));
    }
    let num_layers = size(json, &model_type, "num_layers")?;
    let num_decoder_layers = match !one_stack && is_encoder_only(json)? {
        true => 0,
        false => json.integer("num_decoder_layers")?.unwrap_or(num_layers),
    };
    let tie_word_embeddings = json.boolean("tie_word_embeddings")?.unwrap_or(model_type != "mt5");
    let pad_token_id = token(json, "pad_token_id")?.unwrap_or(0);
    // Without the key the transformers library starts with the beginning of a text, if the model has one.
    let start = token(json, "decoder_start_token_id")?.or(token(json, "bos_token_id")?);
    let config = T5Config {
        vocab_size: size(json, &model_type, "vocab_size")?,
        d_model: size(json, &model_type, "d_model")?,
        d_kv: size(json, &model_type, "d_kv")?,
        d_ff: size(json, &model_type, "d_ff")?,
        num_layers,
        num_decoder_layers,
        num_heads: size(json, &model_type, "num_heads")?,
        relative_attention_num_buckets: json.integer("relative_attention_num_buckets")?.unwrap_or(32),
        relative_attention_max_distance: json.integer("relative_attention_max_distance")?.unwrap_or(128),
        relative_bias_per_block: model_type == "umt5",
        layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-6),
        feed_forward: feed_forward(json, gated)?,
        adapters: match json.integer("adapter_size")?.unwrap_or(0) {
            0 => None,
            size => Some(Adapters { size, inside: json.boolean("adapter_inside")?.unwrap_or(false) }),
        },
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
fn feed_forward(json: Keys, gated: bool) -> Result<FeedForwardKind> {
    let usual = if gated { "gated-gelu" } else { "relu" };
    let name = json.string("feed_forward_proj")?.unwrap_or(usual);
    let mut feed_forward = FeedForwardKind::from_name(name).ok_or_else(|| {
        let what = format!("expected relu, gelu, gelu_new or silu, perhaps with gated- before it, found {name}");
        Error::config(json.file, "feed_forward_proj", what)
    })?;
    if let Some(gated) = json.boolean("is_gated_act")? {
        feed_forward.gated = gated;
    }
    if let Some(name) = json.string("dense_act_fn")? {
        feed_forward.activation = Activation::from_name(name).ok_or_else(|| {
            let what = format!("expected relu, gelu, gelu_new or silu, found {name}");
            Error::config(json.file, "dense_act_fn", what)
        })?;
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

/// A size, under its own name or that of [`ALIASES`], else the library's default. That one is as good as any other: the
/// tensors' shapes confirm it, or [`explain`] says where it came from.
fn size(json: Keys, model_type: &str, key: &str) -> Result<usize> {
    match (json.integer(key)?, alias(json, key)?) {
        (Some(own), Some((alias, other))) if own != other => {
            let what = format!("expected {own}, as {key} says the same in other words, found {other}");
            Err(Error::config(json.file, alias, what))
        }
        (own, other) => Ok(own.or(other.map(|(_, size)| size)).unwrap_or_else(|| default(model_type, key))),
    }
}

/// A size under its other name.
fn alias(json: Keys, key: &str) -> Result<Option<(&'static str, usize)>> {
    let Some((_, alias)) = ALIASES.into_iter().find(|(name, _)| *name == key) else { return Ok(None) };
    Ok(json.integer(alias)?.map(|size| (alias, size)))
}

fn default(model_type: &str, key: &str) -> usize {
    let family = usize::from(matches!(model_type, "mt5" | "umt5"));
    SIZES.into_iter().zip(DEFAULTS[family]).find(|(name, _)| *name == key).map_or(0, |(_, size)| size)
}

/// Adds to the error that a tensor is not as expected which expectations are not the file's.
pub(super) fn explain(error: Error, json: Keys) -> Error {
    let absent = |key: &&str| json.get(key).is_none() && !matches!(alias(json, key), Ok(Some(_)));
    let absent: Vec<&str> = SIZES.into_iter().filter(absent).collect();
    match error {
        Error::Tensor { file, tensor, what } if !absent.is_empty() => {
            let what = format!(
                "{what}; {} does not say {}, so the transformers library's default counts",
                json.file,
                absent.join(", ")
            );
            Error::Tensor { file, tensor, what }
        }
        error => error,
    }
}

/// A token id; of a list (transformers allows several end tokens) the first.
fn token(json: Keys, key: &str) -> Result<Option<u32>> {
    Ok(json.ids(key)?.first().copied())
}
