//! Tables of a configuration: one laid over another, and the differences of two.

use toml::{Table, Value};

use crate::edit_distance::edit_distance;
use crate::{Error, Result};

/// Deserialises, and turns serde's list of expected names into the nearest one.
pub fn serde_path<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| {
        let message = error.message().to_owned();
        let mut quoted = message.split('`').skip(1).step_by(2);
        match (message.starts_with("unknown field") || message.starts_with("unknown variant"), quoted.next()) {
            (true, Some(found)) => match nearest(found, quoted) {
                Some(known) => format!("{found} is not known; did you mean {known}?"),
                None => message,
            },
            _ => message,
        }
    })
}

/// `a.b = value` as nested tables. What is not a TOML value is a string.
pub fn nested(key: &str, value: &str) -> Table {
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let first = parts.remove(0);
    for part in parts.into_iter().rev() {
        value = Value::Table(Table::from_iter([(part.to_owned(), value)]));
    }
    Table::from_iter([(first.to_owned(), value)])
}

/// Replaces values of `table` by those of `changes`, whose keys must all be in it. `file` names the changes in
/// messages.
///
/// # Errors
/// Where a key is unknown, or a value is of another type than the one that it replaces.
pub fn merge(table: &mut Table, changes: &Table, file: &str) -> Result<()> {
    let mut known = Vec::new();
    flatten(table, "", &mut known);
    merge_at(table, changes, "", file, &known)
}

fn merge_at(table: &mut Table, changes: &Table, path: &str, file: &str, known: &[String]) -> Result<()> {
    for (key, change) in changes {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(old) = table.get_mut(key) else {
            let hint = nearest(&full, known.iter().map(String::as_str))
                .map_or_else(String::new, |known| format!("; did you mean {known}?"));
            return Err(Error::config(file, full, format!("unknown key{hint}")));
        };
        match (old, change) {
            (Value::Table(old), Value::Table(change)) => merge_at(old, change, &full, file, known)?,
            (old @ Value::Float(_), Value::Integer(change)) => *old = Value::Float(*change as f64),
            (old, change) if std::mem::discriminant(old) == std::mem::discriminant(change) => *old = change.clone(),
            (old, change) => {
                let what = format!("expected a value like {old}, found {change}");
                return Err(Error::config(file, full, what));
            }
        }
    }
    Ok(())
}

/// All keys with their paths, tables included.
pub fn flatten(table: &Table, path: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Value::Table(table) = value {
            flatten(table, &full, keys);
        }
        keys.push(full);
    }
}

pub fn compare(one: &Value, other: &Value, path: &str, differences: &mut Vec<String>) {
    match (one, other) {
        (Value::Table(one), Value::Table(other)) => {
            let missing = Value::String("nothing".to_owned());
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let (one, other) = (one.get(key).unwrap_or(&missing), other.get(key).unwrap_or(&missing));
                compare(one, other, &full, differences);
            }
        }
        _ if one != other => differences.push(format!("{path} was {one} and is {other}")),
        _ => {}
    }
}

fn letters_apart(one: &str, other: &str) -> usize {
    let letters = |name: &str| name.chars().collect::<Vec<char>>();
    edit_distance(&letters(one), &letters(other))
}

/// The known name that needs the fewest edits; none if more than half of the name would have to change.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    // A right name in the wrong table is nearer than its spelling says.
    let distance = |known: &str| {
        let whole = letters_apart(name, known);
        if name.contains('.') || known.contains('.') {
            whole.min(letters_apart(&last(name), &last(known)) + 1)
        } else {
            whole
        }
    };
    let (distance, known) = known.map(|known| (distance(known), known)).min_by_key(|&(distance, _)| distance)?;
    (2 * distance <= last(name).len() + 2).then_some(known)
}
