//! Typed access to the JSON objects of a checkpoint. A value of the wrong type is an error that names file, key, what
//! was expected and what was found.

use serde_json::Value;

use crate::error::{Error, Result};

/// Parses a file that must hold a JSON object. `file` names it in messages.
///
/// # Errors
/// [`Error::Format`] where the text is no JSON, or another value than an object.
pub(crate) fn object(file: &str, text: &[u8]) -> Result<Value> {
    let mut json: Value = serde_json::from_slice(text)
        .map_err(|error| Error::format(file, format!("expected a JSON object: {error}")))?;
    // Programs may be built so that the order of the file is kept (`preserve_order` of serde_json): what is listed, and
    // the files that are written, must not depend on it.
    json.sort_all_objects();
    if json.is_object() { Ok(json) } else { Err(Error::format(file, "expected a JSON object, found another value")) }
}

/// The keys of an object. `null` counts as absent; so does every key of a value that is no object.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// The file's name in messages.
    pub file: &'a str,
    pub json: &'a Value,
}

impl<'a> Keys<'a> {
    /// The value of a key.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// The error that a key has another value than expected.
    pub fn wrong(self, key: &str, expected: &str, found: &Value) -> Error {
        Error::config(self.file, key, format!("expected {expected}, found {found}"))
    }

    fn typed<T>(self, key: &str, expected: &str, get: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| self.wrong(key, expected, value))
    }

    /// A whole number that is not negative.
    pub fn integer(self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    /// A number that is finite as f32.
    pub fn number(self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", |value| Some(value.as_f64()? as f32).filter(|number| number.is_finite()))
    }

    /// True or false.
    pub fn boolean(self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn string(self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// One token id, or a list of them; none where the key is absent.
    pub fn ids(self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => Some(vec![id(one)?]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}
