//! A file that arrives in pieces gives the model that the whole file gives, whatever its weights are stored as.

use std::path::Path;

use t5_quantize::policy::FILE_TYPES;
use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::{Incoming, Model, ModelOptions};

/// The bits of what a model computes: its encoder's states if it has one, and logits if it has a decoder.
fn computed(model: &Model) -> Vec<u32> {
    let mut session = model.session();
    let mut values: Vec<f32> = Vec::new();
    if model.config().one_stack().is_none() {
        values.extend(session.encode_ids(&[3, 7, 2, 9, 1]).unwrap());
    }
    if !model.config().is_encoder_only() {
        values.extend(session.logits_ids(&[3, 7, 2, 9, 1], &[4, 8, 1]).unwrap());
    }
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_family_and_type() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let mut models = 0;
    for family in std::fs::read_dir(families).unwrap() {
        let folder = family.unwrap().path();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for dtype in FILE_TYPES {
            let policy = Policy::new(dtype);
            let mut file = Vec::new();
            if quantize(&checkpoint, &policy, "model.gguf", &mut file, &mut ()).is_err() {
                // Rows that the type's blocks do not fill.
                continue;
            }
            let whole = Model::from_gguf("model.gguf", Bytes::from_vec(file.clone())).unwrap();
            let expected = computed(&whole);
            for piece in [1009, file.len()] {
                let mut incoming = Incoming::new("model.gguf", file.len(), &ModelOptions::default()).unwrap();
                file.chunks(piece).for_each(|piece| incoming.push(piece).unwrap());
                let found = computed(&incoming.finish().unwrap());
                assert!(found == expected, "{}, {dtype}, pieces of {piece}", folder.display());
            }
            models += 1;
        }
    }
    assert!(models > 40, "{models} models");
}
