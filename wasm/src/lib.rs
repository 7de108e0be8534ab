//! Pocket T5 for browsers and Node: the runtime behind calls that JavaScript can make. No model code lives here.
//!
//! A model file goes into a [`Download`] in pieces as they arrive, [`Engine::open`] takes it over, and a generation
//! gives one piece of text per call, so that whoever drives it can stop between two tokens. Requests and results are
//! JSON with the names of the JavaScript package; wrong ones, like wrong files, throw an `Error` with a `code`.
//!
//! The package ships this crate as two modules: `engine`, which every visitor loads, and `convert`, which makes one
//! file of a checkpoint ([`Folder`]) and is loaded by those who bring one.

#[cfg(feature = "convert")]
mod buffer;
#[cfg(feature = "engine")]
mod download;
#[cfg(feature = "engine")]
mod engine;
mod error;
mod given;
#[cfg(feature = "convert")]
mod quantize;
#[cfg(feature = "engine")]
mod request;
#[cfg(all(feature = "engine", target_feature = "atomics"))]
mod workers;

#[cfg(feature = "convert")]
pub use buffer::Buffer;
#[cfg(feature = "engine")]
pub use download::Download;
#[cfg(feature = "engine")]
pub use engine::Engine;
#[cfg(feature = "convert")]
pub use quantize::Folder;
