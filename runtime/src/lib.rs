//! Pocket T5: a CPU runtime for the T5 family of encoder-decoder models. Text goes in, text comes out:
//!
//! ```no_run
//! use t5_runtime::{Model, Overrides};
//!
//! # fn main() -> t5_runtime::Result<()> {
//! let model = Model::open("model.gguf")?;
//! let mut session = model.session();
//! // What the checkpoint asks for, with what is asked for here in its place.
//! let options = model.options(&Overrides { max_new_tokens: Some(100), ..Overrides::default() })?;
//! for piece in session.generate("translate English to German: Good morning.", &options)? {
//!     print!("{piece}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Model`] is immutable and shared between threads; a [`Session`] is the working space of one thread and encodes,
//! generates, scores and embeds. The folder `examples` has small programs that translate, stream, embed and serve.
//!
//! Data meets the modules in this order:
//!
//! - [`checkpoint`] reads a Hugging Face folder or a GGUF file ([`gguf`], [`storage`], `hub`), judged by [`config`],
//!   what T5's configuration says, and [`schema`], which tensors follow from it; [`tensor`] and [`block`] are what they
//!   hold.
//! - [`model`] makes weights ready for products; an [`Incoming`] one comes in pieces.
//! - [`tokenizer`] turns text into ids, and ids into text.
//! - The encoder runs once for each text and the decoder once for each token, in blocks of the same layers;
//!   [`position`] is what attention knows of places.
//! - [`generate`] chooses the tokens, as a checkpoint wants it and as a caller asks for it.
//! - The kernels below them are the arithmetic of each instruction set ([`Isa`]), equal to the last bit. They know
//!   nothing of the model.
//!
//! Kernels are fast whatever the settings of a release build are. A debug build needs this in the manifest of the
//! program, or it is some hundred times as slow:
//!
//! ```toml
//! [profile.dev.package.t5-runtime]
//! opt-level = 3
//! ```
//!
//! Whatever is wrong with a file or a request is an [`Error`] of one sentence; input does not make the library panic.

#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

mod alignment;
pub mod block;
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod command;
pub mod config;
mod cores;
mod decoder;
mod encode;
mod encoder;
mod ensemble;
pub mod error;
mod forced;
pub mod generate;
pub mod gguf;
pub mod head;
#[cfg(feature = "hub")]
pub mod hub;
mod incoming;
mod json;
#[doc(hidden)] // for benches, tests and the browser's threads
pub mod kernels;
mod layers;
mod loader;
mod memory;
pub mod model;
mod one_stack;
mod order;
#[cfg(any(not(target_arch = "wasm32"), target_os = "wasi"))]
#[doc(hidden)] // for the commands of the other crates
pub mod output;
#[cfg(not(target_arch = "wasm32"))]
mod packed;
#[cfg(feature = "default-model")]
pub mod pocket;
mod pooling;
pub mod position;
pub mod schema;
pub mod sentence_model;
mod sentences;
pub mod session;
pub mod storage;
pub mod tensor;
pub mod tokenizer;
mod under_way;

pub use alignment::{Alignment, AlignmentHeads, WordAlignment};
pub use cores::{MAX_THREADS, default_threads, physical_cores};
pub use encode::{EncodeOptions, Encoded, Passage};
pub use ensemble::Mean;
pub use error::{Error, Result};
#[cfg(feature = "grammar")]
pub use generate::Grammar;
pub use generate::{
    Batch, BatchEvent, Choice, Choices, EarlyStopping, Finish, GenerateOptions, Generation, GenerationDefaults,
    LengthPenalty, LengthPenaltyKind, LogitsProcessor, Lookup, Output, Overrides, SourceText, SplitSentences, Steps,
    Token,
};
pub use incoming::Incoming;
pub use kernels::Isa;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)] // for the trainer, whose products on tiles are of bfloat16
pub use kernels::amx;
pub use model::{Model, ModelOptions};
pub use pooling::Pooling;
pub use sentence_model::SentenceModel;
pub use sentences::sentences;
pub use session::{Score, Session};
pub use under_way::UnderWay;
