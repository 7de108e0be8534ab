//! Pocket T5: a CPU runtime for the T5 family of encoder-decoder models.
//!
//! Text goes in, text comes out, and data meets the modules in this order: a [`checkpoint`] gives weights, judged by
//! [`config`] and [`schema`]; the [`tokenizer`] turns text into ids; the encoder runs once per input; the decoder
//! runs once per token; [`generate`] chooses the tokens.
//!
//! ```no_run
//! use t5_runtime::{GenerateOptions, Model};
//!
//! # fn main() -> t5_runtime::Result<()> {
//! let model = Model::open("model.gguf")?;
//! let mut session = model.session();
//! for piece in session.generate("translate English to German: Good morning.", &GenerateOptions::default())? {
//!     print!("{piece}");
//! }
//! # Ok(())
//! # }
//! ```

pub mod block;
pub mod checkpoint;
pub mod config;
mod decoder;
mod encoder;
pub mod error;
pub mod generate;
pub mod generation;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
mod incoming;
pub mod kernels;
mod layers;
mod loader;
mod memory;
pub mod model;
#[cfg(feature = "default-model")]
pub mod pocket;
pub mod position;
pub mod schema;
pub mod session;
pub mod storage;
pub mod tensor;
mod threads;
pub mod tokenizer;

pub use error::{Error, Result};
pub use generate::{EarlyStopping, Finish, GenerateOptions, Generation, LengthPenalty, Lookup, Output};
pub use incoming::Incoming;
pub use model::{Model, ModelOptions};
pub use session::{Alignment, Score, Session};
pub use threads::physical_cores;
