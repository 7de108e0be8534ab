//! Pocket T5: a CPU runtime for the T5 family.

pub mod block;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generation;
pub mod gguf;
pub mod kernels;
pub mod schema;
pub mod storage;
pub mod tensor;
pub mod tokenizer;

pub use error::{Error, Result};
