//! Small seeded checkpoints in Hugging Face layout.
#![allow(dead_code, unused_imports)] // Each test crate uses a part.

#[path = "../../../tests/src/checkpoint.rs"]
mod checkpoints;
#[path = "../../../tests/src/shared.rs"]
mod shared_folder;

use std::io::Write;
use std::path::{Path, PathBuf};

use t5_runtime::config::T5Config;
use t5_runtime::schema::{self, TensorSpec};
use t5_runtime::tensor::DType;

use checkpoints::write_folder;
pub use checkpoints::{Part, Parts, safetensors};
pub use shared_folder::shared;

/// One tiny model of each family: name, config.json. `heads * d_kv` is not `d_model` in some, depths differ in others.
pub const FAMILIES: [(&str, &str); 8] = [
    (
        "t5",
        r#"{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 64, "d_model": 32,
            "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}"#,
    ),
    (
        "t5 1.1",
        r#"{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 64, "d_model": 64,
            "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 6,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#,
    ),
    (
        "mt5",
        r#"{"architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5", "vocab_size": 96, "d_model": 32,
            "d_kv": 32, "d_ff": 32, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 1,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "relative_attention_max_distance": 64}"#,
    ),
    (
        "umt5",
        r#"{"architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5", "vocab_size": 64, "d_model": 32,
            "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 32, "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": false, "scale_decoder_outputs": true}"#,
    ),
    (
        "gated silu",
        r#"{"model_type": "t5", "vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1,
            "num_heads": 4, "feed_forward_proj": "gated-silu", "tie_word_embeddings": false}"#,
    ),
    (
        "encoder only",
        r#"{"architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": 64, "d_model": 32, "d_kv": 16,
            "d_ff": 64, "num_layers": 2, "num_heads": 2, "is_encoder_decoder": false}"#,
    ),
    (
        "odd widths",
        r#"{"model_type": "t5", "vocab_size": 50, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 1,
            "num_heads": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}"#,
    ),
    (
        "wide",
        r#"{"model_type": "t5", "vocab_size": 64, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 1,
            "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#,
    ),
];

/// The configuration of a family.
pub fn config(json: &str) -> T5Config {
    T5Config::from_json("config.json", json).unwrap()
}

/// Values from -1 to 1 that look random and are the same everywhere.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// The values that [`write_checkpoint`] gives a tensor.
pub fn tensor_values(index: usize, spec: &TensorSpec) -> Vec<f32> {
    values(index as u64 + 1, spec.shape.iter().product())
}

/// Writes a folder with config.json and model.safetensors; `edit` may change the values of each tensor.
pub fn write_checkpoint(folder: &Path, json: &str, dtype: DType, edit: impl Fn(&str, &mut Vec<f32>)) {
    let mut parts = Parts::new();
    for (index, spec) in schema::tensors(&config(json)).into_iter().enumerate() {
        let mut values = tensor_values(index, &spec);
        edit(&spec.hf_name, &mut values);
        let sixteen = |bits: fn(f32) -> u16| values.iter().flat_map(|&value| bits(value).to_le_bytes()).collect();
        let part = match dtype {
            DType::F32 => Part::f32(&spec.shape, values),
            DType::F16 => {
                Part { dtype: "F16", shape: spec.shape, data: sixteen(|value| half::f16::from_f32(value).to_bits()) }
            }
            DType::BF16 => {
                Part { dtype: "BF16", shape: spec.shape, data: sixteen(|value| half::bf16::from_f32(value).to_bits()) }
            }
            other => panic!("{other:?}"),
        };
        parts.insert(spec.hf_name, part);
    }
    write_folder(folder, &json, &parts);
}

/// As [`write_checkpoint`] with F32 zeros that take no room on the disk: for sizes that matter.
pub fn write_sparse_checkpoint(folder: &Path, json: &str) {
    let (mut header, mut offset) = (serde_json::Map::new(), 0);
    for spec in schema::tensors(&config(json)) {
        let end = offset + 4 * spec.shape.iter().product::<usize>();
        let info = serde_json::json!({"dtype": "F32", "shape": spec.shape, "data_offsets": [offset, end]});
        header.insert(spec.hf_name, info);
        offset = end;
    }
    let header = serde_json::Value::from(header).to_string();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), json).unwrap();
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + offset) as u64).unwrap();
}

/// A folder with the F32 checkpoint of a family.
pub fn checkpoint(folder: &Path, json: &str) -> PathBuf {
    let path = folder.join("model");
    write_checkpoint(&path, json, DType::F32, |_, _| {});
    path
}

/// The names of the files in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
