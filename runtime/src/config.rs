//! The model's configuration: fields named as in Hugging Face's `config.json`.

use crate::error::{Error, Result};

pub use crate::kernels::Activation;

impl Activation {
    fn name(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::GeluNew => "gelu_new",
            Activation::Silu => "silu",
        }
    }
}

/// The feed-forward layer: `wo(act(wi x))`, or gated `wo(act(wi_0 x) * wi_1 x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForward {
    pub activation: Activation,
    pub gated: bool,
}

impl FeedForward {
    /// Reads Hugging Face's `feed_forward_proj`: `relu`, `gated-gelu` (which means gelu_new), `gated-silu` …
    /// `None` for an activation that no T5 checkpoint uses.
    pub fn from_name(name: &str) -> Option<FeedForward> {
        let (gated, activation) = match name.strip_prefix("gated-") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let activation = match activation {
            "relu" => Activation::Relu,
            "gelu_new" => Activation::GeluNew,
            // Plain "gelu" would be the erf form; only the gated spelling is re-interpreted.
            "gelu" if gated => Activation::GeluNew,
            "silu" | "swish" => Activation::Silu,
            _ => return None,
        };
        Some(FeedForward { activation, gated })
    }

    /// The Hugging Face spelling.
    pub fn name(self) -> String {
        match (self.gated, self.activation) {
            (true, Activation::GeluNew) => "gated-gelu".to_owned(),
            (true, activation) => format!("gated-{}", activation.name()),
            (false, activation) => activation.name().to_owned(),
        }
    }
}

/// Which published family a checkpoint belongs to, as `model_type` says. Only the bias tables depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// `t5`, `mt5`, `umt5` …
    pub model_type: String,
    /// Rows of the embedding, usually more than the tokenizer has pieces.
    pub vocab_size: usize,
    pub d_model: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    pub d_ff: usize,
    /// Encoder blocks.
    pub num_layers: usize,
    /// Decoder blocks; 0 for an encoder-only model.
    pub num_decoder_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    /// umT5: every block has a relative-position table of its own; otherwise block 0's serves the whole stack.
    pub relative_bias_per_block: bool,
    pub layer_norm_epsilon: f32,
    pub feed_forward: FeedForward,
    /// No `lm_head` of its own: the embedding is the output matrix, too.
    pub tie_word_embeddings: bool,
    /// Multiply the decoder's output by d_model^-0.5 before the head. Independent of the tie (docs/t5.md 1.6).
    pub scale_decoder_outputs: bool,
    pub pad_token_id: u32,
    pub eos_token_id: u32,
    pub decoder_start_token_id: u32,
    /// For training only.
    pub dropout_rate: f32,
    /// For training only.
    pub initializer_factor: f32,
}

impl T5Config {
    /// heads × d_kv: the width of queries, keys and values. Not always d_model.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Whether there is no decoder.
    pub fn is_encoder_only(&self) -> bool {
        self.num_decoder_layers == 0
    }

    /// What the decoder's output is multiplied with before the head: d_model^-0.5 or 1.
    pub fn logits_scale(&self) -> f32 {
        if self.scale_decoder_outputs { (self.d_model as f32).powf(-0.5) } else { 1.0 }
    }

    /// Parses `config.json`. `file` names it in messages.
    ///
    /// `tie_word_embeddings` here is only what the file says; the checkpoint reader replaces it by what the
    /// tensors say, since transformers 5 writes `true` for untied models, too.
    pub fn from_json(file: &str, text: &str) -> Result<T5Config> {
        let json: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| Error::format(file, format!("expected a JSON object: {error}")))?;
        let json = Keys { file, json: &json };
        let model_type = json.string("model_type")?.unwrap_or("t5").to_owned();
        if !matches!(model_type.as_str(), "t5" | "mt5" | "umt5" | "byt5") {
            return Err(Error::config(file, "model_type", format!("expected t5, mt5 or umt5, found {model_type}")));
        }
        let architecture = json.json.get("architectures").and_then(|list| list.get(0)).and_then(|name| name.as_str());
        let encoder_only = architecture.is_some_and(|name| name.ends_with("EncoderModel"))
            || json.boolean("is_encoder_decoder")? == Some(false);
        let num_layers = json.required("num_layers")?;
        let num_decoder_layers =
            if encoder_only { 0 } else { json.integer("num_decoder_layers")?.unwrap_or(num_layers) };
        let feed_forward = json.string("feed_forward_proj")?.unwrap_or("relu");
        let tie_word_embeddings = json.boolean("tie_word_embeddings")?.unwrap_or(true);
        let config = T5Config {
            vocab_size: json.required("vocab_size")?,
            d_model: json.required("d_model")?,
            d_kv: json.required("d_kv")?,
            d_ff: json.required("d_ff")?,
            num_layers,
            num_decoder_layers,
            num_heads: json.required("num_heads")?,
            relative_attention_num_buckets: json.integer("relative_attention_num_buckets")?.unwrap_or(32),
            relative_attention_max_distance: json.integer("relative_attention_max_distance")?.unwrap_or(128),
            relative_bias_per_block: model_type == "umt5",
            layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-6) as f32,
            feed_forward: FeedForward::from_name(feed_forward).ok_or_else(|| {
                Error::config(
                    file,
                    "feed_forward_proj",
                    format!("expected relu, gated-gelu, gated-silu or the like, found {feed_forward}"),
                )
            })?,
            tie_word_embeddings,
            scale_decoder_outputs: json.boolean("scale_decoder_outputs")?.unwrap_or(tie_word_embeddings),
            pad_token_id: json.token("pad_token_id")?.unwrap_or(0),
            eos_token_id: json.token("eos_token_id")?.unwrap_or(1),
            decoder_start_token_id: json.token("decoder_start_token_id")?.unwrap_or(0),
            dropout_rate: json.number("dropout_rate")?.unwrap_or(0.1) as f32,
            initializer_factor: json.number("initializer_factor")?.unwrap_or(1.0) as f32,
            model_type,
        };
        config.validate(file)?;
        Ok(config)
    }

    /// Writes `config.json` so that the transformers library builds the same model.
    pub fn to_json(&self) -> serde_json::Value {
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

    /// Refuses sizes that no model can have, before anything is allocated from them.
    pub fn validate(&self, file: &str) -> Result<()> {
        let check = |key: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(file, key, format!("expected {low} to {high}, found {value}")))
            }
        };
        check("vocab_size", self.vocab_size, 3, 1 << 24)?;
        check("d_model", self.d_model, 1, 1 << 20)?;
        check("d_kv", self.d_kv, 1, 1 << 16)?;
        check("d_ff", self.d_ff, 1, 1 << 22)?;
        check("num_heads", self.num_heads, 1, 1 << 16)?;
        check("num_heads * d_kv", self.inner_dim(), 1, 1 << 20)?;
        check("num_layers", self.num_layers, 1, 1024)?;
        check("num_decoder_layers", self.num_decoder_layers, 0, 1024)?;
        check("relative_attention_num_buckets", self.relative_attention_num_buckets, 4, 4096)?;
        if !self.relative_attention_num_buckets.is_multiple_of(2) {
            return Err(Error::config(
                file,
                "relative_attention_num_buckets",
                format!("expected an even number, found {}", self.relative_attention_num_buckets),
            ));
        }
        // Below that the logarithmic buckets have no width.
        let exact = self.relative_attention_num_buckets / 2;
        check("relative_attention_max_distance", self.relative_attention_max_distance, exact + 1, 1 << 30)?;
        if !(self.layer_norm_epsilon.is_finite() && self.layer_norm_epsilon > 0.0) {
            return Err(Error::config(
                file,
                "layer_norm_epsilon",
                format!("expected a positive number, found {}", self.layer_norm_epsilon),
            ));
        }
        for (key, id) in [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ] {
            if id as usize >= self.vocab_size {
                return Err(Error::config(file, key, format!("expected an id below {}, found {id}", self.vocab_size)));
            }
        }
        Ok(())
    }
}

/// Typed access to a JSON object; `null` counts as absent.
struct Keys<'a> {
    file: &'a str,
    json: &'a serde_json::Value,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a serde_json::Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &serde_json::Value) -> Error {
        Error::config(self.file, key, format!("expected {expected}, found {found}"))
    }

    fn integer(&self, key: &str) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|value| usize::try_from(value).ok())
                    .ok_or_else(|| self.wrong(key, "a whole number", value))
            })
            .transpose()
    }

    fn required(&self, key: &str) -> Result<usize> {
        self.integer(key)?.ok_or_else(|| Error::config(self.file, key, "expected a whole number, found nothing"))
    }

    /// A token id; lists of ids (transformers allows several end tokens) give their first.
    fn token(&self, key: &str) -> Result<Option<u32>> {
        self.get(key)
            .map(|value| {
                let first = value.get(0).unwrap_or(value);
                first
                    .as_u64()
                    .and_then(|value| u32::try_from(value).ok())
                    .ok_or_else(|| self.wrong(key, "a token id", value))
            })
            .transpose()
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| value.as_f64().ok_or_else(|| self.wrong(key, "a number", value))).transpose()
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))).transpose()
    }

    fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string", value))).transpose()
    }
}
