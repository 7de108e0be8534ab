//! The fields that a formatter needs of a record.

use std::borrow::Cow;

use crate::source::Record;

/// The sentence about a field that a record does not have.
pub fn no_field(name: &str, record: &Record) -> String {
    format!("expected a field {name:?}, found {:?}", record.names().collect::<Vec<_>>())
}

/// What a formatter says about a record that it cannot use.
pub type Formatted<T> = std::result::Result<T, String>;

/// A field's text.
pub fn text<'a>(record: &'a Record, name: &str) -> Formatted<Cow<'a, str>> {
    record.text(name).ok_or_else(|| no_field(name, record))
}

/// The values of a list field.
pub fn values<'a>(record: &'a Record, name: &str) -> Formatted<&'a [String]> {
    record.values(name).ok_or_else(|| no_field(name, record))
}
