//! Pocket T5: a CPU runtime for the T5 family.

pub mod block;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generation;
pub mod kernels;
pub mod position;
pub mod schema;
pub mod storage;
pub mod tensor;
pub mod tokenizer;

pub use error::{Error, Result};
