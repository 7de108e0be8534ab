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
        match &error {
            Error::Option { option, what } => Failure::new(code, format!("{}: {what}", in_javascript(option))),
            _ => Failure::new(code, error.to_string()),
        }
    }
}

/// An option's name as it is in JavaScript: `top_k` is `topK`.
fn in_javascript(option: &str) -> String {
    let mut words = option.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        let error = js_sys::Error::new(&failure.message);
        // Setting a property of a fresh object cannot fail.
        let _ = js_sys::Reflect::set(&error, &"code".into(), &failure.code.into());
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_names_that_callers_wrote() {
        for (option, name) in [("beams", "beams"), ("top_k", "topK"), ("max_new_tokens", "maxNewTokens")] {
            let failure = Failure::from(Error::Option { option, what: "expected x, found y".to_owned() });
            assert_eq!((failure.code, failure.message), ("bad-option", format!("{name}: expected x, found y")));
        }
    }

    #[test]
    fn memory_that_is_not_there_has_a_code_of_its_own() {
        let failure = Failure::from(Error::Memory { what: "a text", bytes: 4 << 20 });
        assert_eq!(failure.code, "out-of-memory");
        assert!(failure.message.starts_with("not enough memory for a text: "), "{}", failure.message);
    }
}
