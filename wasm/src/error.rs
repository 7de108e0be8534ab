//! Errors as JavaScript sees them: an `Error` with one sentence for people and a `code` for programs.

use t5_runtime::Error;
use wasm_bindgen::JsValue;

/// A message and the code that goes with it.
#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match &error {
            Error::NotAModel { .. }
            | Error::Format { .. }
            | Error::Tensor { .. }
            | Error::Config { .. }
            | Error::Tokenizer { .. } => "bad-model",
            Error::Option { .. } => "bad-option",
            Error::Memory { .. } => "out-of-memory",
            _ => "failed",
        };
        Failure::new(code, error.to_string())
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        let error = js_sys::Error::new(&failure.message);
        // Setting a property of a fresh object cannot fail.
        let _ = js_sys::Reflect::set(&error, &"code".into(), &failure.code.into());
        error.into()
    }
}
