//! Workers that lend themselves to the runtime as threads.
//!
//! Each loads this module over the memory of the first one, calls `enterWorker`, says that it is there, and calls
//! `serveWorker`, which does not return.

use t5_runtime::kernels::workers;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

/// Registers the calling worker: a model that is opened from now on may count on it.
#[wasm_bindgen(js_name = enterWorker)]
pub fn enter_worker() {
    workers::enter(now);
}

/// Does what it is given until the worker is ended.
#[wasm_bindgen(js_name = serveWorker)]
pub fn serve_worker() {
    workers::serve()
}

/// Says that a worker's `serveWorker` ended with a trap.
#[wasm_bindgen(js_name = loseWorker)]
pub fn lose_worker() {
    workers::lose();
}
