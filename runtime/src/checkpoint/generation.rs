//! Generation defaults of a Hugging Face folder: generation_config.json, or config.json in old checkpoints.

use serde_json::Value;

use super::folder::Files;
use crate::error::{Error, Result};
use crate::generation::GenerationDefaults;

/// Reads the defaults. Without generation_config.json they are those of config.json, as in the transformers
/// library. Task prefixes always come from config.json's `task_specific_params`.
pub(super) fn read(files: Files, config: &str, notes: &mut Vec<String>) -> Result<GenerationDefaults> {
    let config_file = files.place("config.json");
    let config = object(&config_file, config)?;
    let mut defaults = match files.text("generation_config.json")? {
        Some(text) => {
            let file = files.place("generation_config.json");
            parse(&file, &object(&file, &text)?, notes)?
        }
        None => parse(&config_file, &config, notes)?,
    };
    defaults.task_prefixes = task_prefixes(&config_file, &config)?;
    Ok(defaults)
}

fn object(file: &str, text: &str) -> Result<Value> {
    let json: Value =
        serde_json::from_str(text).map_err(|error| Error::format(file, format!("expected a JSON object: {error}")))?;
    if json.is_object() { Ok(json) } else { Err(Error::format(file, "expected a JSON object, found another value")) }
}

fn parse(file: &str, json: &Value, notes: &mut Vec<String>) -> Result<GenerationDefaults> {
    let early_stopping = match get(json, "early_stopping") {
        Some(Value::String(never)) if never == "never" => {
            notes.push(format!("{file}: early_stopping \"never\" is taken as false"));
            Some(false)
        }
        other => other
            .map(|value| value.as_bool().ok_or_else(|| wrong(file, "early_stopping", "true or false", value)))
            .transpose()?,
    };
    Ok(GenerationDefaults {
        max_new_tokens: integer(file, json, "max_new_tokens")?,
        max_length: integer(file, json, "max_length")?,
        min_length: integer(file, json, "min_length")?,
        num_beams: integer(file, json, "num_beams")?,
        length_penalty: number(file, json, "length_penalty")?,
        early_stopping,
        no_repeat_ngram_size: integer(file, json, "no_repeat_ngram_size")?,
        repetition_penalty: number(file, json, "repetition_penalty")?,
        eos_token_ids: ids(file, json, "eos_token_id")?,
        suppress_tokens: ids(file, json, "suppress_tokens")?,
        task_prefixes: Vec::new(),
    })
}

/// The `prefix` of every task in `task_specific_params`, in the order of the tasks' names.
fn task_prefixes(file: &str, config: &Value) -> Result<Vec<String>> {
    let Some(tasks) = get(config, "task_specific_params") else { return Ok(Vec::new()) };
    let tasks =
        tasks.as_object().ok_or_else(|| wrong(file, "task_specific_params", "an object with one key a task", tasks))?;
    let mut prefixes = Vec::new();
    for task in tasks.values() {
        if let Some(prefix) = get(task, "prefix") {
            let prefix = prefix.as_str().ok_or_else(|| wrong(file, "prefix", "a string", prefix))?;
            if !prefixes.iter().any(|known| known == prefix) {
                prefixes.push(prefix.to_owned());
            }
        }
    }
    Ok(prefixes)
}

/// `null` counts as absent.
fn get<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    json.get(key).filter(|value| !value.is_null())
}

fn wrong(file: &str, key: &str, expected: &str, found: &Value) -> Error {
    Error::config(file, key, format!("expected {expected}, found {found}"))
}

fn integer(file: &str, json: &Value, key: &str) -> Result<Option<usize>> {
    get(json, key)
        .map(|value| {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| wrong(file, key, "a whole number", value))
        })
        .transpose()
}

fn number(file: &str, json: &Value, key: &str) -> Result<Option<f32>> {
    get(json, key)
        .map(|value| {
            let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
            number.ok_or_else(|| wrong(file, key, "a number", value))
        })
        .transpose()
}

/// One id or a list of ids.
fn ids(file: &str, json: &Value, key: &str) -> Result<Vec<u32>> {
    let Some(value) = get(json, key) else { return Ok(Vec::new()) };
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter()
        .map(|id| {
            let number = id.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| wrong(file, key, "a token id or a list of them", value))
        })
        .collect()
}
