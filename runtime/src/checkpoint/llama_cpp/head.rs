//! A head as key-values, both ways (docs/gguf.md 9.2).

use super::defaults::strings;
use super::keys;
use super::sentence::{append_dense, read_dense};
use crate::error::Result;
use crate::gguf::{Array, File, Value};
use crate::head::{Head, HeadTask, Problem};

pub(super) fn append(head: &Head, put: &mut impl FnMut(&str, Value)) {
    put(keys::HEAD_TASK, Value::String(head.task.name().to_owned()));
    put(keys::HEAD_LABELS, Value::Array(Array::of_strings(&head.labels)));
    put(keys::HEAD_PROBLEM, Value::String(head.problem.name().to_owned()));
    put(keys::HEAD_LAYERS, Value::count(head.layers.len()));
    for (index, layer) in head.layers.iter().enumerate() {
        append_dense(layer, &|key| keys::head_layer(index, key), put);
    }
}

/// Reads it again; `None` in a file without.
pub(super) fn read(file: &File, d_model: usize) -> Result<Option<Head>> {
    let Some(name) = file.string(keys::HEAD_TASK)? else { return Ok(None) };
    let names: Vec<&str> = HeadTask::ALL.iter().map(|(.., name)| *name).collect();
    let wrong = || file.error(keys::HEAD_TASK, format!("expected one of {}, found {name}", names.join(", ")));
    let task = HeadTask::from_name(name).ok_or_else(wrong)?;
    let problem = file.string(keys::HEAD_PROBLEM)?.unwrap_or(Problem::SingleLabel.name());
    let layers = file.usize(keys::HEAD_LAYERS)?.unwrap_or(0);
    if !(1..=2).contains(&layers) {
        return Err(file.error(keys::HEAD_LAYERS, format!("expected 1 or 2, found {layers}")));
    }
    let layer = |index| read_dense(file, &|key| keys::head_layer(index, key));
    let head = Head {
        task,
        labels: strings(file, keys::HEAD_LABELS)?.unwrap_or_default(),
        problem: Problem::from_name(problem)
            .ok_or_else(|| file.error(keys::HEAD_PROBLEM, format!("expected a problem_type, found {problem}")))?,
        layers: (0..layers).map(layer).collect::<Result<_>>()?,
    };
    head.check(file.name(), d_model)?;
    Ok(Some(head))
}
