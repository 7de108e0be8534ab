//! The model's configuration: fields named as in Hugging Face's `config.json`, which `checkpoint::folder` reads.

use crate::error::{Error, Result};

pub use crate::kernels::Activation;

impl Activation {
    fn name(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::Gelu => "gelu",
            Activation::GeluNew => "gelu_new",
            Activation::Silu => "silu",
        }
    }

    /// Reads Hugging Face's `dense_act_fn`; `None` for a function that no T5 checkpoint uses.
    pub fn from_name(name: &str) -> Option<Activation> {
        Some(match name {
            "relu" => Activation::Relu,
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Activation::GeluNew,
            "silu" | "swish" => Activation::Silu,
            _ => return None,
        })
    }
}

/// The feed-forward layer: `wo(act(wi x))`, or gated `wo(act(wi_0 x) * wi_1 x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardKind {
    /// What is applied to `wi x`, or to the gate `wi_0 x`.
    pub activation: Activation,
    /// Whether there are two matrices, of which one gates the other.
    pub gated: bool,
}

impl FeedForwardKind {
    /// Reads Hugging Face's `feed_forward_proj`: `relu`, `gated-gelu` (which means gelu_new), `gated-silu` …
    /// `None` for an activation that no T5 checkpoint uses.
    pub fn from_name(name: &str) -> Option<FeedForwardKind> {
        let (gated, activation) = match name.strip_prefix("gated-") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let activation = match activation {
            // Only the gated spelling means the tanh form.
            "gelu" if gated => Activation::GeluNew,
            name => Activation::from_name(name)?,
        };
        Some(FeedForwardKind { activation, gated })
    }

    /// The Hugging Face spelling.
    pub fn name(self) -> String {
        match (self.gated, self.activation) {
            (true, Activation::GeluNew) => "gated-gelu".to_owned(),
            // Another name for what "gelu" is without a gate.
            (true, Activation::Gelu) => "gated-gelu_python".to_owned(),
            (true, activation) => format!("gated-{}", activation.name()),
            (false, activation) => activation.name().to_owned(),
        }
    }
}

/// A small dense-ReLU-dense layer behind each feed-forward layer (Houlsby et al. 2019; Raffel et al. 2020, section
/// 3.5.1), which can be trained alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapters {
    /// Its width.
    pub size: usize,
    /// Inside the feed-forward layer, `y + up(relu(down(y)))` of what that would add to the residual stream, in the
    /// place of a layer of its own with a norm, `x + up(relu(down(norm(x))))`.
    pub inside: bool,
}

/// What the positions of a model of one stack see (docs/t5.md 1.7): a decoder without cross-attention that reads the
/// source as the beginning of its own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneStack {
    /// A language model: each position sees what is before it, and itself.
    Causal,
    /// A prefix language model: those that read the source see each other, too.
    Prefix,
}

impl OneStack {
    /// Both.
    pub const ALL: [OneStack; 2] = [OneStack::Causal, OneStack::Prefix];

    /// The `model_type`, which is of this project: no other program has such models.
    pub fn model_type(self) -> &'static str {
        match self {
            OneStack::Causal => "pocket_t5_lm",
            OneStack::Prefix => "pocket_t5_prefix_lm",
        }
    }

    /// The model of this `model_type`; `None` for an encoder and its decoder.
    pub fn of_type(model_type: &str) -> Option<OneStack> {
        OneStack::ALL.into_iter().find(|one| one.model_type() == model_type)
    }
}

/// The sizes and switches of a model: all that is known of it beside its tensors and its vocabulary.
///
/// Read from `config.json` by [`T5Config::from_json`], or from the keys of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// The published family: `t5`, `mt5`, `umt5` …; or what its one stack is ([`OneStack::model_type`]).
    pub model_type: String,
    /// Rows of the embedding, usually more than the tokenizer has pieces.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    /// Width inside the feed-forward layer.
    pub d_ff: usize,
    /// Encoder blocks; 0 for a model of one stack.
    pub num_layers: usize,
    /// Decoder blocks; 0 for an encoder-only model.
    pub num_decoder_layers: usize,
    /// Attention heads, in every layer.
    pub num_heads: usize,
    /// Rows of a bias table.
    pub relative_attention_num_buckets: usize,
    /// From this distance between tokens on, all share the last bucket.
    pub relative_attention_max_distance: usize,
    /// umT5: every block has a relative-position table of its own; otherwise block 0's serves the whole stack.
    pub relative_bias_per_block: bool,
    /// Added to the mean square in a norm.
    pub layer_norm_epsilon: f32,
    /// What the feed-forward layer computes.
    pub feed_forward: FeedForwardKind,
    /// Layers that were put in behind the feed-forward layers.
    pub adapters: Option<Adapters>,
    /// No `lm_head` of its own: the embedding is the output matrix, too.
    pub tie_word_embeddings: bool,
    /// Multiply the decoder's output by d_model^-0.5 before the head. Independent of the tie (docs/t5.md 1.6).
    pub scale_decoder_outputs: bool,
    /// `<pad>`.
    pub pad_token_id: u32,
    /// `</s>`; generation_config.json may name more tokens that end a text.
    pub eos_token_id: u32,
    /// The token that a decoder starts with.
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

    /// What the one stack of a model without an encoder sees; `None` where there is an encoder.
    pub fn one_stack(&self) -> Option<OneStack> {
        OneStack::of_type(&self.model_type)
    }

    /// Whether there is no decoder.
    pub fn is_encoder_only(&self) -> bool {
        self.num_decoder_layers == 0
    }

    /// What the decoder's output is multiplied with before the head: d_model^-0.5 or 1.
    pub fn logits_scale(&self) -> f32 {
        if self.scale_decoder_outputs { (self.d_model as f32).powf(-0.5) } else { 1.0 }
    }

    /// Refuses sizes that no model can have, before anything is allocated from them. `file` is named in messages.
    ///
    /// # Errors
    /// [`Error::Config`] for the first value that is out of range.
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
        if let Some(adapters) = self.adapters {
            check("adapter_size", adapters.size, 1, 1 << 20)?;
        }
        check("num_heads", self.num_heads, 1, 1 << 16)?;
        check("num_heads * d_kv", self.inner_dim(), 1, 1 << 20)?;
        match self.one_stack() {
            None => {
                check("num_layers", self.num_layers, 1, 1024)?;
                check("num_decoder_layers", self.num_decoder_layers, 0, 1024)?;
            }
            Some(_) => {
                check("num_layers", self.num_layers, 0, 0)?;
                check("num_decoder_layers", self.num_decoder_layers, 1, 1024)?;
            }
        }
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
