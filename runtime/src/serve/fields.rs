//! A JSON object whose fields are taken one by one, so that none is passed over.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The fields that have not been taken.
pub struct Fields {
    map: Map<String, Value>,
    /// What messages put before a name: `parameters.`.
    within: String,
}

/// A type that a field may have.
pub trait Field: Sized {
    /// What messages say was expected.
    const EXPECTED: &'static str;
    fn read(value: &Value) -> Option<Self>;
}

impl Fields {
    /// Reads a request's body.
    pub fn parse(body: &[u8]) -> Result<Fields, Refusal> {
        let wrong = |what: String| Refusal::new(StatusCode::BAD_REQUEST, what);
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            wrong(format!("the body: expected UTF-8, found byte 0x{:02x} at {at}", body[at]))
        })?;
        match serde_json::from_slice(text.as_bytes()) {
            Ok(Value::Object(map)) => Ok(Fields { map, within: String::new() }),
            Ok(other) => Err(wrong(format!("the body: expected a JSON object, found {}", kind(&other)))),
            Err(error) => Err(wrong(format!("the body: expected JSON, found: {error}"))),
        }
    }

    /// The names of those.
    pub fn names(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// The value of a field; null is none.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A field of a type.
    pub fn get<T: Field>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        T::read(&value).map(Some).ok_or_else(|| self.wrong(name, T::EXPECTED, &value))
    }

    /// A field that must be there.
    pub fn need<T: Field>(&mut self, name: &str) -> Result<T, Refusal> {
        self.get(name)?.ok_or_else(|| self.refuse(name, format!("expected {}, found none", T::EXPECTED)))
    }

    /// The fields of an object in a field.
    pub fn object(&mut self, name: &str) -> Result<Fields, Refusal> {
        let within = format!("{}{name}.", self.within);
        match self.value(name) {
            None => Ok(Fields { map: Map::new(), within }),
            Some(Value::Object(map)) => Ok(Fields { map, within }),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    /// The fields of an object in a list in a field.
    pub fn within(&self, name: &str, place: usize, value: Value) -> Result<Fields, Refusal> {
        let name = format!("{name}[{place}]");
        match value {
            Value::Object(map) => Ok(Fields { map, within: format!("{}{name}.", self.within) }),
            other => Err(self.wrong(&name, "an object", &other)),
        }
    }

    /// A field that may only say what is so anyway; `why` says why.
    pub fn only(&mut self, name: &str, value: &Value, why: &str) -> Result<(), Refusal> {
        match self.value(name) {
            Some(found) if !alike(&found, value) => {
                Err(self.refuse(name, format!("expected {value} or nothing ({why}), found {}", short(&found))))
            }
            _ => Ok(()),
        }
    }

    /// An error if there is a field that nobody has taken.
    pub fn end(self) -> Result<(), Refusal> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.refuse(name, "there is no field of this name here")),
        }
    }

    pub fn refuse(&self, name: &str, what: impl std::fmt::Display) -> Refusal {
        Refusal::field(format!("{}{name}", self.within), what)
    }

    pub fn wrong(&self, name: &str, expected: &str, found: &Value) -> Refusal {
        self.refuse(name, format!("expected {expected}, found {}", short(found)))
    }
}

/// 0 and 0.0 are the same number.
fn alike(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as messages show it: the beginning of it.
fn short(value: &Value) -> String {
    cut(&value.to_string(), 60)
}

/// At most so many characters of a text.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Field for u64 {
    const EXPECTED: &'static str = "a whole number of 0 or more";

    fn read(value: &Value) -> Option<u64> {
        // Some languages write 3.0.
        let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(n));
        value.as_u64().or_else(|| float().map(|number| number as u64))
    }
}

impl Field for usize {
    const EXPECTED: &'static str = u64::EXPECTED;

    fn read(value: &Value) -> Option<usize> {
        u64::read(value)?.try_into().ok()
    }
}

impl Field for u32 {
    const EXPECTED: &'static str = "a token id";

    fn read(value: &Value) -> Option<u32> {
        u64::read(value)?.try_into().ok()
    }
}

impl Field for f32 {
    const EXPECTED: &'static str = "a number";

    fn read(value: &Value) -> Option<f32> {
        value.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
}

fn list<T: Field>(value: &Value) -> Option<Vec<T>> {
    value.as_array()?.iter().map(T::read).collect()
}

impl Field for Vec<u32> {
    const EXPECTED: &'static str = "a list of token ids";

    fn read(value: &Value) -> Option<Vec<u32>> {
        list(value)
    }
}

impl Field for Vec<String> {
    const EXPECTED: &'static str = "a list of strings";

    fn read(value: &Value) -> Option<Vec<String>> {
        list(value)
    }
}

/// A string, or a list of strings.
#[derive(Debug, PartialEq)]
pub struct Strings(pub Vec<String>);

impl Field for Strings {
    const EXPECTED: &'static str = "a string or a list of strings";

    fn read(value: &Value) -> Option<Strings> {
        let one = |text: String| Strings(vec![text]);
        String::read(value).map(one).or_else(|| Vec::read(value).map(Strings))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused<T>(result: Result<T, Refusal>) -> String {
        result.err().expect("a refusal").message
    }

    #[test]
    fn every_field_is_taken_or_named() {
        let body = r#"{"a": 3, "b": 3.0, "c": null, "d": [1, 2], "e": "x", "f": {"g": -1}}"#;
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        assert_eq!(fields.get::<usize>("a").unwrap(), Some(3));
        assert_eq!(fields.get::<u64>("b").unwrap(), Some(3));
        assert_eq!(fields.get::<bool>("c").unwrap(), None);
        assert_eq!(fields.get("d").unwrap(), Some(vec![1u32, 2]));
        assert_eq!(fields.get("e").unwrap(), Some(Strings(vec!["x".to_owned()])));
        let mut inner = fields.object("f").unwrap();
        let expected = "f.g: expected a whole number of 0 or more, found -1";
        assert_eq!(refused(inner.get::<usize>("g")), expected);
        inner.end().unwrap();
        assert_eq!(refused(fields.need::<bool>("z")), "z: expected true or false, found none");
        fields.end().unwrap();
        let mut fields = Fields::parse(br#"{"echo": true, "penalty": 0, "colour": 1}"#).unwrap();
        fields.only("penalty", &json!(0.0), "there is none").unwrap();
        let expected = "echo: expected false or nothing (a source is no part of its target), found true";
        assert_eq!(refused(fields.only("echo", &json!(false), "a source is no part of its target")), expected);
        assert_eq!(refused(fields.end()), "colour: there is no field of this name here");
    }

    #[test]
    fn what_is_no_object_is_said_so() {
        let refused = |body: &[u8]| refused(Fields::parse(body));
        assert_eq!(refused(b"{\"a\": \"\xff\"}"), "the body: expected UTF-8, found byte 0xff at 7");
        assert_eq!(refused(b"[1]"), "the body: expected a JSON object, found a list");
        assert!(refused(b"{\"a\": ").starts_with("the body: expected JSON, found: EOF"));
        assert!(refused(b"").starts_with("the body: expected JSON"));
        let deep = "[".repeat(100_000);
        assert!(refused(deep.as_bytes()).starts_with("the body: expected JSON, found: recursion"));
    }
}
