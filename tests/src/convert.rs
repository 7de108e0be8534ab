//! Checkpoints stored anew, in memory.

use std::path::Path;

use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;

/// The GGUF file that `t5-quantize --type DTYPE` makes of a checkpoint.
pub fn gguf(path: &Path, dtype: DType) -> Vec<u8> {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = Vec::new();
    quantize(&checkpoint, &Policy::new(dtype), "memory.gguf", &mut bytes, &mut ())
        .unwrap_or_else(|error| panic!("{error}"));
    bytes
}

/// That file opened again.
pub fn converted(path: &Path, dtype: DType) -> Checkpoint {
    let bytes = Bytes::from_vec(gguf(path, dtype));
    Checkpoint::from_gguf("memory.gguf", bytes).unwrap_or_else(|error| panic!("{error}"))
}
