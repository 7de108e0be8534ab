//! Checkpoints that tests write, for the tests of every crate: the crates below this one include the file by its path.
//! Nothing of the project writes the bytes, so that anything about them can be wrong.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use t5_runtime::config::{FeedForwardKind, T5Config};
use t5_runtime::schema;

/// A tensor of a safetensors file.
#[derive(Clone)]
pub struct Part {
    /// The type's name in such files: `F32`.
    pub dtype: &'static str,
    /// Rows first.
    pub shape: Vec<usize>,
    /// Values as they are stored.
    pub data: Vec<u8>,
}

/// The tensors of a file by name.
pub type Parts = BTreeMap<String, Part>;

impl Part {
    /// An F32 tensor.
    pub fn f32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Part {
        let data = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Part { dtype: "F32", shape: shape.to_vec(), data }
    }
}

/// The tensors of a configuration, F32, by Hugging Face name. Values depend on the name, so no two are alike.
pub fn parts(config: &Value) -> Parts {
    let config = T5Config::from_json("config.json", &config.to_string()).expect("a configuration");
    schema::tensors(&config).into_iter().map(|spec| (spec.hf_name.clone(), part(&spec.hf_name, &spec.shape))).collect()
}

/// An F32 tensor with values made from its name.
pub fn part(name: &str, shape: &[usize]) -> Part {
    let mut state = name.bytes().fold(7u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let values = (0..shape.iter().product()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    });
    Part::f32(shape, values)
}

/// The bytes of a safetensors file.
pub fn safetensors(parts: &Parts) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for (name, part) in parts {
        let offsets = [data.len(), data.len() + part.data.len()];
        header.insert(name.clone(), json!({"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}));
        data.extend(&part.data);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Writes a Hugging Face folder. `config` is what config.json says.
pub fn write_folder(folder: &Path, config: &impl ToString, parts: &Parts) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("config.json is written");
    std::fs::write(folder.join("model.safetensors"), safetensors(parts)).expect("weights are written");
}

/// The configuration of docs/t5.md 8.2: V 11, d 4, 2 heads of 3, f 6, 2 + 2 layers, 8 buckets to distance 20.
pub fn specification_config(feed_forward: &str, tied: bool, model_type: &str) -> T5Config {
    T5Config {
        model_type: model_type.to_owned(),
        vocab_size: 11,
        d_model: 4,
        d_kv: 3,
        d_ff: 6,
        num_layers: 2,
        num_decoder_layers: 2,
        num_heads: 2,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        relative_bias_per_block: model_type == "umt5",
        layer_norm_epsilon: 1e-6,
        feed_forward: FeedForwardKind::from_name(feed_forward).expect("a known name"),
        adapters: None,
        tie_word_embeddings: tied,
        scale_decoder_outputs: tied,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
        dropout_rate: 0.1,
        initializer_factor: 1.0,
    }
}
