//! Tiny checkpoints with made-up values, in both file formats, with every part open to damage.

use super::{Raw, array, key_value, string, tensor};
use serde_json::{Value, json};
use t5_runtime::config::T5Config;
use t5_runtime::schema;

pub use super::checkpoint::{Part, Parts, part, parts, safetensors, write_folder};

/// Rows of the embedding: 120 pieces and 8 rows without one.
pub const ROWS: usize = 128;

/// config.json of a tied ReLU model of 2 + 2 blocks.
pub fn config() -> Value {
    json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5",
        "vocab_size": ROWS, "d_model": 8, "d_kv": 3, "d_ff": 16, "num_layers": 2, "num_heads": 2,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16
    })
}

/// `config()` with other values; `null` removes a key.
pub fn config_with(changes: Value) -> Value {
    let mut config = config();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    config
}

/// A token, its score and its type.
pub type Token = (String, f32, i32);

/// A GGUF file in llama.cpp's dialect whose key-values can be changed.
#[derive(Clone)]
pub struct Gguf {
    pub values: Vec<(String, u32, Vec<u8>)>,
    /// GGUF name, shape in Hugging Face order, F32 data.
    pub tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Gguf {
    /// The file that llama.cpp's converter would make of a configuration.
    pub fn new(config: &Value) -> Gguf {
        let config = T5Config::from_json("config.json", &config.to_string()).unwrap();
        let architecture = if config.is_encoder_only() { "t5encoder" } else { "t5" };
        let mut file = Gguf { values: Vec::new(), tensors: Vec::new() };
        file.set("general.architecture", 8, &string(architecture));
        for (key, value) in [
            ("context_length", 512),
            ("embedding_length", config.d_model),
            ("feed_forward_length", config.d_ff),
            ("block_count", config.num_layers),
            ("attention.head_count", config.num_heads),
            ("attention.key_length", config.d_kv),
            ("attention.value_length", config.d_kv),
            ("attention.relative_buckets_count", config.relative_attention_num_buckets),
        ] {
            file.set_u32(&format!("{architecture}.{key}"), value as u32);
        }
        if !config.is_encoder_only() {
            file.set_u32("t5.decoder_block_count", config.num_decoder_layers as u32);
            file.set_u32("t5.decoder_start_token_id", 0);
        }
        let epsilon = 1e-6f32.to_le_bytes();
        file.set(&format!("{architecture}.attention.layer_norm_epsilon"), 6, &epsilon);
        file.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 6, &epsilon);
        file.set_tokens(&tokens(config.vocab_size, config.vocab_size - 8));
        for (key, value) in [("eos", 1), ("padding", 0), ("unknown", 2)] {
            file.set_u32(&format!("tokenizer.ggml.{key}_token_id"), value);
        }
        file.set("tokenizer.ggml.add_space_prefix", 7, &[1]);
        file.set("tokenizer.ggml.remove_extra_whitespaces", 7, &[1]);
        for spec in schema::tensors(&config) {
            let part = part(&spec.hf_name, &spec.shape);
            file.tensors.push((spec.gguf_name, part.shape, part.data));
        }
        file
    }

    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, code: u32, value: &[u8]) -> &mut Gguf {
        self.remove(key);
        self.values.push((key.to_owned(), code, value.to_owned()));
        self
    }

    pub fn set_u32(&mut self, key: &str, value: u32) -> &mut Gguf {
        self.set(key, 4, &value.to_le_bytes())
    }

    pub fn set_string(&mut self, key: &str, value: &str) -> &mut Gguf {
        self.set(key, 8, &string(value))
    }

    pub fn remove(&mut self, key: &str) -> &mut Gguf {
        self.values.retain(|(present, ..)| present != key);
        self
    }

    /// Sets tokens, scores and types.
    pub fn set_tokens(&mut self, tokens: &[Token]) -> &mut Gguf {
        self.set("tokenizer.ggml.model", 8, &string("t5"));
        let count = tokens.len() as u64;
        let texts: Vec<u8> = tokens.iter().flat_map(|(text, ..)| string(text)).collect();
        let scores: Vec<u8> = tokens.iter().flat_map(|(_, score, _)| score.to_le_bytes()).collect();
        let types: Vec<u8> = tokens.iter().flat_map(|(.., kind)| kind.to_le_bytes()).collect();
        self.set("tokenizer.ggml.tokens", 9, &array(8, count, &texts));
        self.set("tokenizer.ggml.scores", 9, &array(6, count, &scores));
        self.set("tokenizer.ggml.token_type", 9, &array(5, count, &types))
    }

    /// The data of a tensor, to be changed.
    pub fn tensor(&mut self, name: &str) -> &mut (String, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|(present, ..)| present == name).unwrap()
    }

    pub fn raw(&self) -> Raw {
        let values = self.values.iter().map(|(key, code, value)| key_value(key, *code, value)).collect();
        let mut raw = Raw { values, ..Raw::default() };
        for (name, shape, data) in &self.tensors {
            raw.data.resize(raw.data.len().next_multiple_of(32), 0);
            let extents: Vec<u64> = shape.iter().rev().map(|&extent| extent as u64).collect();
            raw.tensors.push(tensor(name, &extents, 0, raw.data.len() as u64));
            raw.data.extend(data);
        }
        raw
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.raw().bytes()
    }
}

/// `rows` tokens of which the first `pieces` are T5's special ones and made-up pieces, the others fillers.
pub fn tokens(rows: usize, pieces: usize) -> Vec<Token> {
    let mut tokens = vec![("<pad>".to_owned(), 0.0, 3), ("</s>".to_owned(), 0.0, 3), ("<unk>".to_owned(), 0.0, 2)];
    tokens.extend((3..pieces).map(|id| {
        let letters: String = [id / 26, id % 26].map(|digit| (b'a' + digit as u8) as char).iter().collect();
        (if id % 2 == 0 { format!("▁{letters}") } else { letters }, -1.0 - id as f32 / 16.0, 1)
    }));
    tokens.extend((pieces..rows).map(|id| (format!("[PAD{id}]"), -10000.0, 5)));
    tokens
}
