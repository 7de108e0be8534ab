//! What the class in config.json says of a checkpoint: an encoder, a model that generates, or one with another head.

use serde_json::Value;

use crate::checkpoint::assemble::Stored;
use crate::error::{Error, Result};
use crate::head::{Head, HeadTask, Problem};
use crate::json::Keys;
use crate::sentence_model::{Dense, DenseActivation};
use crate::tensor::Tensor;

/// Ends of the names of classes without a head of their own: an encoder, a model without a head or of one stack, one
/// that generates.
const PLAIN: [&str; 4] = ["EncoderModel", "Model", "ForConditionalGeneration", "WithLMHeadModel"];

/// The class that config.json names first.
pub(super) fn class<'a>(json: Keys<'a>) -> Option<&'a str> {
    json.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str)
}

/// Notes a class that is not known.
pub(super) fn note_class(json: Keys, notes: &mut Vec<String>) {
    let known = |class: &str| HeadTask::of_class(class).is_some() || PLAIN.iter().any(|end| class.ends_with(end));
    if let Some(class) = class(json).filter(|class| !known(class)) {
        let file = json.file;
        notes.push(format!("{file}: architectures: {class} is not known: the file is read as a model that generates"));
    }
}

/// Takes the head that config.json names out of what is stored; `None` where it names none. Its rows have `d_model`
/// values.
pub(super) fn take(file: &str, json: Keys, stored: &mut Stored, d_model: usize) -> Result<Option<Head>> {
    let Some(task) = class(json).and_then(HeadTask::of_class) else { return Ok(None) };
    let mut dense = |name: &str, activation| {
        let mut tensor = |part: &str| {
            let name = format!("{name}.{part}");
            // Beside the model, where that has a prefix.
            let tensor = stored.tensors.remove(&name).or_else(|| stored.others.remove(&name));
            tensor.ok_or_else(|| Error::tensor(file, &name, "expected a tensor of the head, found none"))
        };
        let (weight, bias) = (values(&tensor("weight")?)?, values(&tensor("bias")?)?);
        Ok(Dense { weight, bias, activation })
    };
    let layers = match task {
        HeadTask::Sequence => vec![
            dense("classification_head.dense", DenseActivation::Tanh)?,
            dense("classification_head.out_proj", DenseActivation::Identity)?,
        ],
        HeadTask::Tokens => vec![dense("classifier", DenseActivation::Identity)?],
        HeadTask::Question => vec![dense("qa_outputs", DenseActivation::Identity)?],
    };
    let count = layers.last().map_or(0, Dense::out_features);
    let labels = labels(json, count)?;
    let problem = match json.string("problem_type")? {
        Some(name) => Problem::from_name(name).ok_or_else(|| {
            let what = "expected single_label_classification, multi_label_classification or regression, found";
            Error::config(json.file, "problem_type", format!("{what} {name}"))
        })?,
        // As the library's pipeline takes it.
        None if count == 1 && task == HeadTask::Sequence => Problem::MultiLabel,
        None => Problem::SingleLabel,
    };
    let head = Head { task, labels, problem, layers };
    head.check(file, d_model)?;
    Ok(Some(head))
}

/// The labels of `id2label`, by number; the library's own names where there are none.
fn labels(json: Keys, count: usize) -> Result<Vec<String>> {
    let Some(given) = json.get("id2label") else { return Ok((0..count).map(|id| format!("LABEL_{id}")).collect()) };
    let label = |id: usize| given.get(id.to_string()).and_then(Value::as_str).map(str::to_owned);
    let entries = given.as_object().map_or(0, serde_json::Map::len);
    let labels: Option<Vec<String>> = (0..entries).map(label).collect();
    labels
        .filter(|labels| !labels.is_empty())
        .ok_or_else(|| json.wrong("id2label", "an object with a label for each number from 0 on", given))
}

/// A tensor's values, which must be numbers.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.check_size()?;
    let mut values = vec![0.0; tensor.len()];
    tensor.decode(&tensor.data, &mut values);
    match values.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(tensor.error(format!("expected finite numbers, found {bad}"))),
        None => Ok(values),
    }
}
