//! The real checkpoint in ../shared, where present.

mod common;

use common::shared;
use t5_runtime::checkpoint::{Checkpoint, llama_cpp};
use t5_runtime::gguf::{TensorInfo, Writer};
use t5_runtime::schema;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;

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
    let notes = checkpoint.notes.join("\n");
    assert!(notes.contains("truncation to 48 tokens is ignored") && notes.contains("padding is ignored"), "{notes}");
    assert_eq!(checkpoint.notes.len(), 2, "{notes}");
    assert_eq!(checkpoint.vocabulary.unwrap().len(), 32100);
}

/// Writes a checkpoint as a GGUF file in memory, every tensor as it is stored.
fn write(checkpoint: &Checkpoint) -> Vec<u8> {
    let metadata = llama_cpp::metadata(
        &[("general.name".to_owned(), "titler".to_owned())].into(),
        &checkpoint.config,
        checkpoint.vocabulary.as_ref(),
        &checkpoint.generation,
        DType::F16,
    )
    .unwrap();
    let infos: Vec<_> = checkpoint
        .tensors()
        .map(|(spec, tensor)| TensorInfo { name: spec.gguf_name, dtype: tensor.dtype, shape: spec.shape })
        .collect();
    let mut writer = Writer::new("titler.gguf".as_ref(), Vec::new(), &metadata, &infos).unwrap();
    for (info, (_, tensor)) in infos.iter().zip(checkpoint.tensors()) {
        writer.append(&info.name, &tensor.data).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn the_titler_survives_being_written_as_gguf() {
    let Some(path) = shared("models/flan-t5-small-titler") else { return };
    let original = Checkpoint::open(&path).unwrap();
    let bytes = write(&original);
    let read = Checkpoint::from_gguf("titler.gguf", Bytes::from_vec(bytes)).unwrap();
    assert_eq!(read.config, original.config);
    assert_eq!(read.generation, original.generation);
    assert_eq!(read.vocabulary, original.vocabulary);
    assert_eq!(read.notes, Vec::<String>::new());
    for ((spec, read), (_, original)) in read.tensors().zip(original.tensors()) {
        assert_eq!(
            (read.dtype, &read.shape, &*read.data),
            (original.dtype, &original.shape, &*original.data),
            "{spec:?}"
        );
    }
}
