//! A JSON object whose fields are taken one by one, so that none is passed over.

use std::fmt;

use axum::http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The fields that have not been taken.
pub struct Fields {
    map: Map<String, Value>,
    /// What messages put before a name: `parameters.`.
    within: String,
}

/// What the library calls a field, and what a protocol does.
pub type Renaming = (&'static str, &'static str);

/// JSON in which no object has two fields of one name, of which only one would be obeyed.
struct Once(Value);

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
            Ok(Once(Value::Object(map))) => Ok(Fields { map, within: String::new() }),
            Ok(Once(other)) => Err(wrong(format!("the body: expected a JSON object, found {}", kind(&other)))),
            Err(error) if error.is_data() => Err(wrong(format!("the body: expected each field once, found {error}"))),
            Err(error) => Err(wrong(format!("the body: expected JSON, found: {error}"))),
        }
    }

    /// The names of those.
    pub fn names(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// Whether there is a field of this name; null is none.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// Of pairs of the library's name and the protocol's those in which a request has not used the library's: a message
    /// names what was sent.
    pub fn renamed(&self, names: &[Renaming]) -> Vec<Renaming> {
        names.iter().copied().filter(|(ours, _)| !self.has(ours)).collect()
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

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Once)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Once(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("a second {:?}", cut(&name, 60))));
            }
            let Once(value) = object.next_value()?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
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
        let names = [("a", "x"), ("c", "y"), ("g", "z")];
        assert_eq!(fields.renamed(&names), [("c", "y"), ("g", "z")]);
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
        let twice = "the body: expected each field once, found a second \"a\" at line 1 column ";
        for body in
            [&br#"{"a": 1, "b": 2, "a": 1}"#[..], br#"{"b": {"a": 1, "a": null}}"#, br#"[{"a": [], "\u0061": 1}]"#]
        {
            assert!(refused(body).starts_with(twice), "{}", refused(body));
        }
        let deep = "[".repeat(100_000);
        assert!(refused(deep.as_bytes()).starts_with("the body: expected JSON, found: recursion"));
    }
}
