//! An encoder with a row for each piece of a vocabulary that is larger than those of the families.

use serde_json::Value;
use tempfile::TempDir;

use crate::families;

/// A family's encoder in a folder, with an embedding of `rows` rows and other changes to its configuration.
pub fn encoder(rows: usize, change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = families::folder("encoder-only");
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let d_model = config["d_model"].as_u64().unwrap() as usize;
    config["vocab_size"] = rows.into();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let embedding = vec![0u8; rows * d_model * 4];
    let other = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, d_model], &embedding).unwrap();
    let tensors = whole.tensors().into_iter().map(|(name, view)| {
        let is_embedding = name.contains("shared") || name.contains("embed_tokens");
        (name, if is_embedding { other.clone() } else { view })
    });
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}
