//! GGUF files, the container: a checked reader over mapped bytes and a streaming writer. What the keys and tensors of a
//! T5 model are called is [`crate::checkpoint::llama_cpp`]'s.
//!
//! Versions 2 and 3, little endian. Reading copies no tensor data; every count is checked against the bytes that are
//! left before anything is allocated from it.

mod cursor;
mod reader;
mod split;
mod value;
mod writer;

pub use reader::File;
pub use value::{Array, Value, ValueType};
pub use writer::{TensorInfo, Writer};

use crate::tensor::DType;

/// The first four bytes of every file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Where tensors start in files that do not say otherwise: multiples of this many bytes.
pub const DEFAULT_ALIGNMENT: usize = 32;

/// GGML's limit for tensor names, in bytes, which llama.cpp's loader keeps.
const MAX_NAME: usize = 63;

/// The number of a type in tensor infos; `None` where the format has none.
pub fn type_code(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q4_K => 12,
        DType::Q5_K => 13,
        DType::Q6_K => 14,
        DType::BF16 => 30,
        DType::F8_E4M3 | DType::F8_E5M2 => return None,
    })
}

/// The types that a GGUF file can hold.
pub fn types() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|&dtype| type_code(dtype).is_some())
}

/// The type with a number, if it can be read.
pub fn type_from_code(code: u32) -> Option<DType> {
    types().find(|&dtype| type_code(dtype) == Some(code))
}

/// GGML's name for a type number, read or not: for messages.
fn type_name(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        4 => "Q4_2 (retired)",
        5 => "Q4_3 (retired)",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        30 => "BF16",
        31 => "Q4_0_4_4 (retired)",
        32 => "Q4_0_4_8 (retired)",
        33 => "Q4_0_8_8 (retired)",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36..=38 => "IQ4_NL repacked (retired)",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        42 => "Q2_0",
        _ => return None,
    })
}
