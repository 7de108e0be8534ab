//! Pocket T5 for browsers and Node: the runtime behind calls that JavaScript can make. No model code lives here.
//!
//! A model file goes into a [`Download`] in pieces as they arrive, [`Engine::open`] takes it over, and a generation
//! gives one piece of text per call, so that whoever drives it can stop between two tokens. Requests and results are
//! JSON with the names of the JavaScript package; wrong ones, like wrong files, throw an `Error` with a `code`.

mod buffer;
mod download;
mod engine;
mod error;
mod given;
mod quantize;
mod request;
#[cfg(target_feature = "atomics")]
mod workers;

pub use buffer::Buffer;
pub use download::Download;
pub use engine::Engine;
pub use quantize::Folder;

/// Whether this module was compiled with relaxed vectors.
#[wasm_bindgen::prelude::wasm_bindgen(js_name = buildName)]
pub fn build_name() -> String {
    let relaxed = cfg!(target_feature = "relaxed-simd");
    let threads = cfg!(target_feature = "atomics");
    match (relaxed, threads) {
        (_, true) => "threads",
        (true, false) => "relaxed",
        (false, false) => "simd128",
    }
    .to_owned()
}
