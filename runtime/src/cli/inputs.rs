//! The inputs of a job: lines, or the texts of JSON objects.

use anyhow::anyhow;
use serde_json::{Map, Value};

use super::args::{InputArgs, WorkArgs};
use super::lines::Lines;

/// One input.
pub struct Input {
    /// The object that it is, where inputs are objects.
    pub object: Map<String, Value>,
    /// Its line, from 1.
    pub line: usize,
    /// Bytes of the file up to its end.
    pub end: u64,
    /// Or why there is none.
    text: Result<String, String>,
}

impl Input {
    /// Its text.
    pub fn text(&self) -> anyhow::Result<&str> {
        self.text.as_deref().map_err(|what| anyhow!("{what}"))
    }

    /// The bytes of its text.
    pub fn len(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }
}

/// Inputs, one after the other.
pub struct Inputs<'a> {
    pub lines: Lines,
    args: &'a WorkArgs,
}

impl<'a> Inputs<'a> {
    /// Opens what the arguments name.
    pub fn open(input: &InputArgs, args: &'a WorkArgs) -> anyhow::Result<Inputs<'a>> {
        args.check()?;
        Ok(Inputs { lines: Lines::open(input)?, args })
    }

    /// The next one. What is wrong with one input is part of it; an error is one of all.
    pub fn next(&mut self) -> anyhow::Result<Option<Input>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let mut object = Map::new();
        let text = line.and_then(|line| {
            if !self.args.are_objects() {
                return Ok(line);
            }
            object = serde_json::from_str(&line).map_err(|error| format!("expected a JSON object: {error}"))?;
            let result = self.args.output_field();
            if object.contains_key(result) {
                return Err(format!("expected no {result:?}, which the result is called: see --output-field"));
            }
            field(&object, self.args.text_field()).map(str::to_owned)
        });
        let text = text.map_err(|what| format!("{}: {what}", self.lines.place()));
        Ok(Some(Input { object, line: self.lines.number(), end: self.lines.bytes_read(), text }))
    }
}

/// A string of an object.
pub fn field<'o>(object: &'o Map<String, Value>, name: &str) -> Result<&'o str, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("expected a string {name:?}, found {}", kind(other))),
        None => Err(format!("expected a string {name:?}, found none")),
    }
}

/// What a value is, in a word: it may be long.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
