//! Every tensor of a model: its Hugging Face name, its GGUF name and its shape, from the configuration.
//!
//! This table is the contract between train, quantize and runtime; nothing else spells a tensor name.

use crate::config::T5Config;

/// One of the two stacks; the one of a language model is a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stack {
    /// Reads the source.
    Encoder,
    /// Writes the target.
    Decoder,
}

/// What a tensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A row for each token.
    TokenEmbedding,
    /// The output matrix, where it is not the embedding.
    OutputHead,
    /// What is added to scores of self-attention, by distance.
    RelativeBias,
    /// Before self-attention.
    AttentionNorm,
    /// Before cross-attention.
    CrossAttentionNorm,
    /// Before the feed-forward layer.
    FeedForwardNorm,
    /// Behind the last block of a stack.
    FinalNorm,
    /// Queries of self-attention.
    SelfQ,
    /// Its keys.
    SelfK,
    /// Its values.
    SelfV,
    /// What its heads are put together with.
    SelfO,
    /// Queries of cross-attention.
    CrossQ,
    /// Its keys, made of the encoder's output.
    CrossK,
    /// Its values, made of the encoder's output.
    CrossV,
    /// What its heads are put together with.
    CrossO,
    /// The first matrix of an ungated feed-forward layer.
    Wi,
    /// The activated branch of a gated one.
    Wi0,
    /// Its linear branch.
    Wi1,
    /// The last matrix of a feed-forward layer.
    Wo,
    /// Before an adapter that is a layer of its own.
    AdapterNorm,
    /// The first matrix of an adapter.
    AdapterDown,
    /// Its last one.
    AdapterUp,
}

impl Role {
    /// Every role, in the order of reports.
    pub const ALL: [Role; 22] = [
        Role::TokenEmbedding,
        Role::OutputHead,
        Role::RelativeBias,
        Role::AttentionNorm,
        Role::CrossAttentionNorm,
        Role::FeedForwardNorm,
        Role::FinalNorm,
        Role::SelfQ,
        Role::SelfK,
        Role::SelfV,
        Role::SelfO,
        Role::CrossQ,
        Role::CrossK,
        Role::CrossV,
        Role::CrossO,
        Role::Wi,
        Role::Wi0,
        Role::Wi1,
        Role::Wo,
        Role::AdapterNorm,
        Role::AdapterDown,
        Role::AdapterUp,
    ];

    /// Norm weights: always F32 vectors.
    pub fn is_norm(self) -> bool {
        matches!(
            self,
            Role::AttentionNorm
                | Role::CrossAttentionNorm
                | Role::FeedForwardNorm
                | Role::FinalNorm
                | Role::AdapterNorm
        )
    }

    /// Matrices of the decoder that multiply what the encoder gives, behind its last norm.
    pub fn reads_encoder_states(self) -> bool {
        matches!(self, Role::CrossK | Role::CrossV)
    }

    /// What belongs to adapters.
    pub fn is_adapter(self) -> bool {
        matches!(self, Role::AdapterNorm | Role::AdapterDown | Role::AdapterUp)
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Role::TokenEmbedding => "token embedding",
            Role::OutputHead => "output head",
            Role::RelativeBias => "relative bias",
            Role::AttentionNorm => "attention norm",
            Role::CrossAttentionNorm => "cross-attention norm",
            Role::FeedForwardNorm => "feed-forward norm",
            Role::FinalNorm => "final norm",
            Role::SelfQ => "self-attention q",
            Role::SelfK => "self-attention k",
            Role::SelfV => "self-attention v",
            Role::SelfO => "self-attention o",
            Role::CrossQ => "cross-attention q",
            Role::CrossK => "cross-attention k",
            Role::CrossV => "cross-attention v",
            Role::CrossO => "cross-attention o",
            Role::Wi => "feed-forward wi",
            Role::Wi0 => "feed-forward wi_0",
            Role::Wi1 => "feed-forward wi_1",
            Role::Wo => "feed-forward wo",
            Role::AdapterNorm => "adapter norm",
            Role::AdapterDown => "adapter down",
            Role::AdapterUp => "adapter up",
        }
    }
}

/// Where a tensor stands in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorId {
    /// What it does there.
    pub role: Role,
    /// `None` for the embedding and the head.
    pub stack: Option<Stack>,
    /// `None` outside blocks.
    pub block: Option<usize>,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Where it stands.
    pub id: TensorId,
    /// As in a Hugging Face state dict; the canonical name everywhere in this project.
    pub hf_name: String,
    /// As in llama.cpp's T5 files.
    pub gguf_name: String,
    /// Hugging Face order: `[out, in]`, vectors `[d_model]`, the bias table `[buckets, heads]`.
    pub shape: Vec<usize>,
}

/// Other names under which checkpoints store the embedding, best first.
pub const EMBEDDING_ALIASES: [&str; 3] =
    ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// Tensors that old checkpoints carry and that no model uses (a left-over of the 2019 port).
pub fn is_ignored(name: &str) -> bool {
    name == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        || name == "dec.blk.0.cross_attn_rel_b.weight"
        || name == "encoder.embed_tokens.weight"
        || name == "decoder.embed_tokens.weight"
}

/// The tensors of a model in file order. `lm_head` is among them unless `tie_word_embeddings`.
///
/// ```
/// use t5_runtime::config::T5Config;
/// let config = T5Config::from_json("config.json", r#"{"vocab_size": 32128, "d_model": 512, "d_kv": 64,
///     "d_ff": 2048, "num_layers": 6, "num_heads": 8}"#).unwrap();
/// let values: usize = t5_runtime::schema::tensors(&config).iter().map(|t| t.shape.iter().product::<usize>()).sum();
/// assert_eq!(values, 60_506_624); // t5-small
/// ```
pub fn tensors(config: &T5Config) -> Vec<TensorSpec> {
    let d = config.d_model;
    let mut table = vec![spec(Role::TokenEmbedding, None, None, vec![config.vocab_size, d])];
    if config.one_stack().is_none() {
        stack(config, Stack::Encoder, config.num_layers, &mut table);
    }
    if !config.is_encoder_only() {
        stack(config, Stack::Decoder, config.num_decoder_layers, &mut table);
        if !config.tie_word_embeddings {
            table.push(spec(Role::OutputHead, None, None, vec![config.vocab_size, d]));
        }
    }
    table
}

fn stack(config: &T5Config, stack: Stack, blocks: usize, table: &mut Vec<TensorSpec>) {
    let (d, inner, f) = (config.d_model, config.inner_dim(), config.d_ff);
    for block in 0..blocks {
        let mut add = |role, shape| table.push(spec(role, Some(stack), Some(block), shape));
        add(Role::AttentionNorm, vec![d]);
        add(Role::SelfQ, vec![inner, d]);
        add(Role::SelfK, vec![inner, d]);
        add(Role::SelfV, vec![inner, d]);
        add(Role::SelfO, vec![d, inner]);
        if block == 0 || config.relative_bias_per_block {
            add(Role::RelativeBias, vec![config.relative_attention_num_buckets, config.num_heads]);
        }
        if stack == Stack::Decoder && config.one_stack().is_none() {
            add(Role::CrossAttentionNorm, vec![d]);
            add(Role::CrossQ, vec![inner, d]);
            add(Role::CrossK, vec![inner, d]);
            add(Role::CrossV, vec![inner, d]);
            add(Role::CrossO, vec![d, inner]);
        }
        add(Role::FeedForwardNorm, vec![d]);
        if config.feed_forward.gated {
            add(Role::Wi0, vec![f, d]);
            add(Role::Wi1, vec![f, d]);
        } else {
            add(Role::Wi, vec![f, d]);
        }
        add(Role::Wo, vec![d, f]);
        if let Some(adapters) = config.adapters {
            if !adapters.inside {
                add(Role::AdapterNorm, vec![d]);
            }
            add(Role::AdapterDown, vec![adapters.size, d]);
            add(Role::AdapterUp, vec![d, adapters.size]);
        }
    }
    table.push(spec(Role::FinalNorm, Some(stack), None, vec![d]));
}

fn spec(role: Role, stack: Option<Stack>, block: Option<usize>, shape: Vec<usize>) -> TensorSpec {
    let id = TensorId { role, stack, block };
    TensorSpec { id, hf_name: hf_name(id), gguf_name: gguf_name(id), shape }
}

/// The Hugging Face name of a tensor.
pub fn hf_name(id: TensorId) -> String {
    let stack = match id.stack {
        None => {
            return match id.role {
                Role::OutputHead => "lm_head.weight".to_owned(),
                _ => "shared.weight".to_owned(),
            };
        }
        Some(Stack::Encoder) => "encoder",
        Some(Stack::Decoder) => "decoder",
    };
    let Some(block) = id.block else {
        return format!("{stack}.final_layer_norm.weight");
    };
    // The feed-forward is the last layer of a block: 1 in the encoder, 2 in the decoder.
    let ff = if id.stack == Some(Stack::Encoder) { 1 } else { 2 };
    let (layer, rest) = match id.role {
        Role::AttentionNorm => (0, "layer_norm"),
        Role::SelfQ => (0, "SelfAttention.q"),
        Role::SelfK => (0, "SelfAttention.k"),
        Role::SelfV => (0, "SelfAttention.v"),
        Role::SelfO => (0, "SelfAttention.o"),
        Role::RelativeBias => (0, "SelfAttention.relative_attention_bias"),
        Role::CrossAttentionNorm => (1, "layer_norm"),
        Role::CrossQ => (1, "EncDecAttention.q"),
        Role::CrossK => (1, "EncDecAttention.k"),
        Role::CrossV => (1, "EncDecAttention.v"),
        Role::CrossO => (1, "EncDecAttention.o"),
        Role::FeedForwardNorm => (ff, "layer_norm"),
        Role::Wi => (ff, "DenseReluDense.wi"),
        Role::Wi0 => (ff, "DenseReluDense.wi_0"),
        Role::Wi1 => (ff, "DenseReluDense.wi_1"),
        Role::Wo => (ff, "DenseReluDense.wo"),
        Role::AdapterNorm => (ff + 1, "layer_norm"),
        Role::AdapterDown => (ff + 1, "Adapter.down"),
        Role::AdapterUp => (ff + 1, "Adapter.up"),
        Role::TokenEmbedding | Role::OutputHead | Role::FinalNorm => unreachable!("not inside a block"),
    };
    format!("{stack}.block.{block}.layer.{layer}.{rest}.weight")
}

/// The name of a tensor in llama.cpp's T5 dialect of GGUF.
pub fn gguf_name(id: TensorId) -> String {
    let stack = match id.stack {
        None => {
            return match id.role {
                Role::OutputHead => "output.weight".to_owned(),
                _ => "token_embd.weight".to_owned(),
            };
        }
        Some(Stack::Encoder) => "enc",
        Some(Stack::Decoder) => "dec",
    };
    let Some(block) = id.block else {
        return format!("{stack}.output_norm.weight");
    };
    let rest = match id.role {
        Role::AttentionNorm => "attn_norm",
        Role::SelfQ => "attn_q",
        Role::SelfK => "attn_k",
        Role::SelfV => "attn_v",
        Role::SelfO => "attn_o",
        Role::RelativeBias => "attn_rel_b",
        Role::CrossAttentionNorm => "cross_attn_norm",
        Role::CrossQ => "cross_attn_q",
        Role::CrossK => "cross_attn_k",
        Role::CrossV => "cross_attn_v",
        Role::CrossO => "cross_attn_o",
        Role::FeedForwardNorm => "ffn_norm",
        Role::Wi0 => "ffn_gate",
        Role::Wi | Role::Wi1 => "ffn_up",
        Role::Wo => "ffn_down",
        Role::AdapterNorm => "adapter_norm",
        Role::AdapterDown => "adapter_down",
        Role::AdapterUp => "adapter_up",
        Role::TokenEmbedding | Role::OutputHead | Role::FinalNorm => unreachable!("not inside a block"),
    };
    format!("{stack}.blk.{block}.{rest}.weight")
}
