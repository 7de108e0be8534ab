//! Values from JavaScript, whose types nobody has checked: what is not as declared is refused by name.
//!
//! Declared as `&str` or `&[u32]`, a value of another type would be a length and an address of nothing in particular.

#[cfg(feature = "engine")]
use js_sys::{Array, Uint32Array};
use js_sys::{JsString, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::Failure;

/// The largest whole number up to which all are numbers of their own.
const LARGEST: f64 = 9_007_199_254_740_991.0;

fn wrong(name: &str, expected: &str, found: &JsValue) -> Failure {
    Failure::new("bad-option", format!("{name}: expected {expected}, found {}", described(found)))
}

/// What a value is, without running code of its own.
fn described(value: &JsValue) -> String {
    match (value.as_f64(), value.as_bool()) {
        (Some(number), _) => format!("{number}"),
        (_, Some(truth)) => format!("{truth}"),
        _ if value.is_undefined() => "undefined".to_owned(),
        _ if value.is_null() => "null".to_owned(),
        _ if value.is_string() => "a text".to_owned(),
        _ if value.is_function() => "a function".to_owned(),
        _ => "an object".to_owned(),
    }
}

/// A text; lone surrogates become U+FFFD.
pub fn text(name: &str, value: &JsValue) -> Result<String, Failure> {
    let text = value.dyn_ref::<JsString>().ok_or_else(|| wrong(name, "a text", value))?;
    Ok(String::from(text))
}

/// A text, or nothing.
#[cfg(feature = "engine")]
pub fn optional_text(name: &str, value: &JsValue) -> Result<Option<String>, Failure> {
    if value.is_undefined() || value.is_null() { Ok(None) } else { text(name, value).map(Some) }
}

/// Texts in an array.
#[cfg(feature = "engine")]
pub fn texts(name: &str, value: &JsValue) -> Result<Vec<String>, Failure> {
    let texts = value.dyn_ref::<Array>().ok_or_else(|| wrong(name, "an array of texts", value))?;
    texts.iter().map(|one| text(name, &one)).collect()
}

/// Ids in an array of 32-bit numbers.
#[cfg(feature = "engine")]
pub fn ids(name: &str, value: &JsValue) -> Result<Vec<u32>, Failure> {
    let ids = value.dyn_ref::<Uint32Array>().ok_or_else(|| wrong(name, "a Uint32Array", value))?;
    Ok(ids.to_vec())
}

/// Bytes that stay where they are.
pub fn bytes<'a>(name: &str, value: &'a JsValue) -> Result<&'a Uint8Array, Failure> {
    value.dyn_ref().ok_or_else(|| wrong(name, "a Uint8Array", value))
}

/// A number of bytes. One that no memory here holds is left to whoever asks for the memory.
pub fn size(name: &str, value: &JsValue) -> Result<f64, Failure> {
    let number = value.as_f64().filter(|size| size.fract() == 0.0 && (0.0..=LARGEST).contains(size));
    number.ok_or_else(|| wrong(name, "a whole number of bytes", value))
}
