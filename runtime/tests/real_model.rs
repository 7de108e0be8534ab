//! The real checkpoint in ../shared, where present.

use std::path::PathBuf;

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema;

/// A path below the folder of shared data, or `None`, saying why, where it is absent.
fn shared(path: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("POCKET_T5_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let path = folder.join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_titler_opens_with_all_its_tensors() {
    let Some(path) = shared("models/flan-t5-small-titler") else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors().count(), 190);
    let values: usize = checkpoint.tensors().map(|(_, tensor)| tensor.len()).sum();
    assert_eq!(values, 76_961_152);
    assert!(!checkpoint.config.tie_word_embeddings);
    assert!(!checkpoint.config.scale_decoder_outputs);
    assert!(!checkpoint.config.relative_bias_per_block);
    for spec in schema::tensors(&checkpoint.config) {
        let tensor = checkpoint.tensor(&spec.hf_name).unwrap();
        assert_eq!(tensor.shape, spec.shape, "{}", spec.hf_name);
    }
    assert_eq!(checkpoint.notes, Vec::<String>::new());
}
