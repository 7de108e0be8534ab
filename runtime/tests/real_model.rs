//! The real checkpoint in ../shared, where present.

mod common;

use common::shared;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema;

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
