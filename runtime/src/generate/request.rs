//! A request's options as JSON, as programs in other languages write them: the names of [`Overrides`]' fields with
//! their values.

use serde_json::{Map, Value as Json};

use super::options::{EarlyStopping, LengthPenaltyKind, Lookup, Overrides};
use crate::error::{Error, Result};

/// Whole numbers below it are numbers of their own as f64, too.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A type that an option may have, and how JSON holds it.
pub(super) trait Requested: Sized {
    /// # Errors
    /// [`Error::Option`] for a value of another type.
    fn from_request(option: &'static str, value: &Json) -> Result<Self>;
}

fn wrong(option: &'static str, expected: &str, found: &Json) -> Error {
    Error::Option { option, what: format!("expected {expected}, found {found}") }
}

fn list<'v>(option: &'static str, value: &'v Json) -> Result<&'v [Json]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(option, "a list", value))
}

/// Numbers, or digits in a text where a language has no numbers of 64 bits.
impl Requested for u64 {
    fn from_request(option: &'static str, value: &Json) -> Result<u64> {
        let digits = || value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
        // 1e3 is a whole number, too.
        let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..EXACT).contains(n)).map(|n| n as u64);
        let whole = value.as_u64().or_else(digits).or_else(float);
        whole.ok_or_else(|| wrong(option, "a whole number of 0 or more", value))
    }
}

impl Requested for usize {
    fn from_request(option: &'static str, value: &Json) -> Result<usize> {
        let number = u64::from_request(option, value)?;
        let expected = || wrong(option, &format!("a number of at most {}", usize::MAX), value);
        usize::try_from(number).map_err(|_| expected())
    }
}

/// A token's id.
impl Requested for u32 {
    fn from_request(option: &'static str, value: &Json) -> Result<u32> {
        let number = u64::from_request(option, value)?;
        u32::try_from(number).map_err(|_| wrong(option, "ids below 4294967296", value))
    }
}

impl Requested for f32 {
    fn from_request(option: &'static str, value: &Json) -> Result<f32> {
        value.as_f64().map(|number| number as f32).ok_or_else(|| wrong(option, "a number", value))
    }
}

impl Requested for bool {
    fn from_request(option: &'static str, value: &Json) -> Result<bool> {
        value.as_bool().ok_or_else(|| wrong(option, "true or false", value))
    }
}

impl Requested for String {
    fn from_request(option: &'static str, value: &Json) -> Result<String> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong(option, "a text", value))
    }
}

impl<T: Requested> Requested for Vec<T> {
    fn from_request(option: &'static str, value: &Json) -> Result<Vec<T>> {
        list(option, value)?.iter().map(|value| T::from_request(option, value)).collect()
    }
}

impl<A: Requested, B: Requested> Requested for (A, B) {
    fn from_request(option: &'static str, value: &Json) -> Result<(A, B)> {
        match list(option, value)? {
            [first, second] => Ok((A::from_request(option, first)?, B::from_request(option, second)?)),
            _ => Err(wrong(option, "a list of two", value)),
        }
    }
}

impl Requested for EarlyStopping {
    fn from_request(option: &'static str, value: &Json) -> Result<EarlyStopping> {
        match value {
            Json::Bool(true) => Ok(EarlyStopping::Yes),
            Json::Bool(false) => Ok(EarlyStopping::No),
            Json::String(never) if never == "never" => Ok(EarlyStopping::Never),
            _ => Err(wrong(option, "true, false or \"never\"", value)),
        }
    }
}

impl Requested for Lookup {
    fn from_request(option: &'static str, value: &Json) -> Result<Lookup> {
        match value.as_str() {
            Some("auto") => Ok(Lookup::Auto),
            Some("on") => Ok(Lookup::On),
            Some("off") => Ok(Lookup::Off),
            _ => Err(wrong(option, "\"auto\", \"on\" or \"off\"", value)),
        }
    }
}

impl Requested for LengthPenaltyKind {
    fn from_request(option: &'static str, value: &Json) -> Result<LengthPenaltyKind> {
        match value.as_str() {
            Some("t5") => Ok(LengthPenaltyKind::T5),
            Some("hugging_face") => Ok(LengthPenaltyKind::HuggingFace),
            _ => Err(wrong(option, "\"t5\" or \"hugging_face\"", value)),
        }
    }
}

impl Overrides {
    /// What a JSON object asks for, by the names of the fields: `{"beams": 4, "length_penalty_kind": "hugging_face",
    /// "early_stopping": "never", "sequence_bias": [[[17], -2.5]], "lookup": "off"}`. Seeds above 2^53 may also be
    /// digits in a text. Ranges are judged by [`Overrides::apply`].
    ///
    /// # Errors
    /// For a name that is none of an option, and a value of another type.
    pub fn from_json(request: &Map<String, Json>) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        for (name, value) in request {
            if !overrides.set(name, value)? {
                return Err(Error::Option { option: "options", what: format!("there is no option {name:?}") });
            }
        }
        Ok(overrides)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Json) -> Result<Overrides> {
        Overrides::from_json(json.as_object().unwrap())
    }

    #[test]
    fn options_of_each_type_arrive() {
        let request = json!({
            "task": "t", "max_new_tokens": 1e1, "length_penalty": 0.5, "length_penalty_kind": "hugging_face",
            "early_stopping": "never", "seed": "18446744073709551615", "exponential_decay": [7, 1.125],
            "forced_bos": 11, "allowed": [10], "bad_words": [[14, 15], [16]], "sequence_bias": [[[17], -2.5]],
            "stop": ["b"], "logprobs": false, "lookup": "on", "split_sentences": true, "source_prefix": "p: ",
        });
        let expected = Overrides {
            task: Some("t".to_owned()),
            max_new_tokens: Some(10),
            length_penalty: Some(0.5),
            length_penalty_kind: Some(LengthPenaltyKind::HuggingFace),
            early_stopping: Some(EarlyStopping::Never),
            seed: Some(u64::MAX),
            exponential_decay: Some((7, 1.125)),
            forced_bos: Some(11),
            allowed: Some(vec![10]),
            bad_words: Some(vec![vec![14, 15], vec![16]]),
            sequence_bias: Some(vec![(vec![17], -2.5)]),
            stop: Some(vec!["b".to_owned()]),
            logprobs: Some(false),
            lookup: Some(Lookup::On),
            split_sentences: Some(true),
            source_prefix: Some("p: ".to_owned()),
            ..Overrides::default()
        };
        assert_eq!(read(request).unwrap(), expected);
        assert_eq!(read(json!({ "seed": u64::MAX })).unwrap().seed, Some(u64::MAX));
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        for (request, message) in [
            (json!({"beam": 2}), "options: there is no option \"beam\""),
            (json!({"beams": null}), "beams: expected a whole number of 0 or more, found null"),
            (json!({"beams": 1.5}), "beams: expected a whole number of 0 or more, found 1.5"),
            (json!({"seed": "-1"}), "seed: expected a whole number of 0 or more, found \"-1\""),
            (json!({"allowed": [4294967296u64]}), "allowed: expected ids below 4294967296, found 4294967296"),
            (json!({"top_p": "x"}), "top_p: expected a number, found \"x\""),
            (json!({"sequence_bias": [[1, 2, 3]]}), "sequence_bias: expected a list of two, found [1,2,3]"),
            (json!({"length_penalty_kind": 1}), "length_penalty_kind: expected \"t5\" or \"hugging_face\", found 1"),
        ] {
            assert_eq!(read(request).unwrap_err().to_string(), message);
        }
    }
}
