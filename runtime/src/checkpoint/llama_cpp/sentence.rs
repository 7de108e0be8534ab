//! The modules of a sentence model as key-values, both ways (docs/gguf.md 9.1). Their weights are arrays, not tensors:
//! other programs skip keys that they do not know, and refuse files with tensors that they do not.

use super::defaults::strings;
use super::keys;
use crate::error::Result;
use crate::gguf::{Array, File, Value};
use crate::pooling::Pooling;
use crate::sentence_model::{Dense, DenseActivation, SentenceModel, SentenceModule};

pub(super) fn append(model: &SentenceModel, put: &mut impl FnMut(&str, Value)) {
    let text = |text: &str| Value::String(text.to_owned());
    let name = |module: &SentenceModule| match module {
        SentenceModule::Pooling { .. } => "pooling",
        SentenceModule::Dense(_) => "dense",
        SentenceModule::Normalize => "normalize",
    };
    put(keys::SENTENCE_MODULES, Value::Array(Array::of_strings(model.modules.iter().map(name))));
    for (index, module) in model.modules.iter().enumerate() {
        match module {
            SentenceModule::Pooling { kinds, include_prompt } => {
                let kinds = Array::of_strings(kinds.iter().map(|kind| kind.name()));
                put(&keys::sentence_module(index, keys::MODULE_POOLING), Value::Array(kinds));
                put(&keys::sentence_module(index, keys::MODULE_INCLUDE_PROMPT), Value::Bool(*include_prompt));
            }
            SentenceModule::Dense(dense) => append_dense(dense, &|key| keys::sentence_module(index, key), put),
            SentenceModule::Normalize => {}
        }
    }
    if !model.prompts.is_empty() {
        put(keys::PROMPT_NAMES, Value::Array(Array::of_strings(model.prompts.keys())));
        put(keys::PROMPTS, Value::Array(Array::of_strings(model.prompts.values())));
    }
    if let Some(name) = &model.default_prompt {
        put(keys::DEFAULT_PROMPT, text(name));
    }
    if let Some(length) = model.max_seq_length {
        put(keys::MAX_SEQ_LENGTH, Value::count(length));
    }
    put(keys::LOWER_CASE, Value::Bool(model.lower_case));
}

/// Reads them again; `None` in a file without.
pub(super) fn read(file: &File, d_model: usize) -> Result<Option<SentenceModel>> {
    let Some(names) = strings(file, keys::SENTENCE_MODULES)? else { return Ok(None) };
    let module = |(index, name): (usize, &String)| match name.as_str() {
        "pooling" => {
            let key = keys::sentence_module(index, keys::MODULE_POOLING);
            let kinds = strings(file, &key)?.unwrap_or_default();
            let kind = |name: &String| {
                Pooling::from_name(name)
                    .ok_or_else(|| file.error(&key, format!("expected a kind of pooling, found {name}")))
            };
            let include_prompt = file.boolean(&keys::sentence_module(index, keys::MODULE_INCLUDE_PROMPT))?;
            let kinds = kinds.iter().map(kind).collect::<Result<_>>()?;
            Ok(SentenceModule::Pooling { kinds, include_prompt: include_prompt.unwrap_or(true) })
        }
        "dense" => Ok(SentenceModule::Dense(read_dense(file, &|key| keys::sentence_module(index, key))?)),
        "normalize" => Ok(SentenceModule::Normalize),
        other => {
            let what = format!("expected pooling, dense or normalize, found {other}");
            Err(file.error(keys::SENTENCE_MODULES, what))
        }
    };
    let modules = names.iter().enumerate().map(module).collect::<Result<_>>()?;
    let prompts = strings(file, keys::PROMPTS)?.unwrap_or_default();
    let prompt_names = strings(file, keys::PROMPT_NAMES)?.unwrap_or_default();
    if prompts.len() != prompt_names.len() {
        let what = format!("expected one string for each of {} names, found {}", prompt_names.len(), prompts.len());
        return Err(file.error(keys::PROMPTS, what));
    }
    let model = SentenceModel {
        modules,
        prompts: prompt_names.into_iter().zip(prompts).collect(),
        default_prompt: file.string(keys::DEFAULT_PROMPT)?.map(str::to_owned),
        max_seq_length: file.usize(keys::MAX_SEQ_LENGTH)?,
        lower_case: file.boolean(keys::LOWER_CASE)?.unwrap_or(false),
    };
    model.check(file.name(), d_model)?;
    Ok(Some(model))
}

/// A linear layer under the keys that `key` makes.
pub(super) fn append_dense(dense: &Dense, key: &dyn Fn(&str) -> String, put: &mut impl FnMut(&str, Value)) {
    put(&key(keys::DENSE_ACTIVATION), Value::String(dense.activation.name().to_owned()));
    put(&key(keys::DENSE_WEIGHT), Value::Array(Array::of_floats(dense.weight.iter().copied())));
    put(&key(keys::DENSE_BIAS), Value::Array(Array::of_floats(dense.bias.iter().copied())));
}

pub(super) fn read_dense(file: &File, key: &dyn Fn(&str) -> String) -> Result<Dense> {
    let floats = |key: String| {
        let floats: Option<Vec<f32>> = file.array(&key)?.and_then(Array::floats).map(Iterator::collect);
        let finite = floats.filter(|floats| !floats.is_empty() && floats.iter().all(|value| value.is_finite()));
        finite.ok_or_else(|| file.error(&key, "expected finite f32 values, found none or others"))
    };
    let activation = key(keys::DENSE_ACTIVATION);
    let name = file.string(&activation)?.unwrap_or("none");
    Ok(Dense {
        weight: floats(key(keys::DENSE_WEIGHT))?,
        bias: floats(key(keys::DENSE_BIAS))?,
        activation: DenseActivation::from_name(name).ok_or_else(|| {
            file.error(&activation, format!("expected identity, tanh, relu or sigmoid, found {name}"))
        })?,
    })
}
