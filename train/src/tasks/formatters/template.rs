//! Texts with places for a record's fields.

use super::fields::{Formatted, text, values};
use crate::{
    Error, Result,
    source::{Record, Value},
};

/// A text with `{field}` places; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Where a brace is not closed or stands alone.
    pub fn parse(template: &str) -> Result<Template> {
        let bad = |what: &str| Error::Invalid(format!("template {template:?}: {what}"));
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(bad("expected a `{` before `}`; write `}}` for a brace"));
            } else {
                let end = rest.find('}').ok_or_else(|| bad("expected a `}` after `{`; write `{{` for a brace"))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(rest[..end].trim().to_string()));
                rest = &rest[end + 1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { parts })
    }

    /// The text for a record; lists are joined by spaces.
    ///
    /// # Errors
    /// Where the record lacks a field.
    pub fn fill(&self, record: &Record) -> Formatted<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Field(name) => out.push_str(&text(record, name)?),
            }
        }
        Ok(out)
    }

    /// Every text for a record: one, or one per value where the template is a single list field.
    pub(super) fn fill_all(&self, record: &Record) -> Formatted<Vec<String>> {
        match self.parts.as_slice() {
            [Part::Field(name)] => Ok(values(record, name)?.to_vec()),
            _ => Ok(vec![self.fill(record)?]),
        }
    }

    /// The opposite of [`Template::fill`]: divides a text into fields at the literals.
    pub(super) fn extract(&self, line: usize, text: &str) -> Formatted<Record> {
        let mismatch = || format!("expected a text of the form {:?}, found {text:?}", self.parts);
        let mut rest = text;
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str()).ok_or_else(mismatch)?,
                Part::Field(name) => {
                    let end = match parts.peek() {
                        Some(Part::Literal(literal)) => rest.find(literal.as_str()).ok_or_else(mismatch)?,
                        _ => rest.len(),
                    };
                    fields.push((name.clone(), Value::Text(rest[..end].trim().to_string())));
                    rest = &rest[end..];
                }
            }
        }
        Ok(Record::new(line, fields))
    }
}
