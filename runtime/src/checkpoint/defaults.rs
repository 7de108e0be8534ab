//! Generation defaults of a Hugging Face folder: generation_config.json, or config.json in old checkpoints.

use serde_json::Value;

use super::folder::Files;
use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::generate::{GenerationDefaults, Setting, Settings, SettingsSource, Task};
use crate::json::object;

/// Keys of generation_config.json that change no result: about what is returned, caches, speed, and where the file
/// comes from.
const WITHOUT_EFFECT: [&str; 31] = [
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "is_encoder_decoder",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
];

/// Settings that are known and not obeyed. In config.json, which has many keys of other kinds, only these are looked
/// for.
const NOT_OBEYED: [&str; 11] = [
    "assistant_ensemble_weight",
    "constraints",
    "dola_layers",
    "force_bos_token_to_be_generated",
    "force_words_ids",
    "forced_decoder_ids",
    "guidance_scale",
    "max_time",
    "penalty_alpha",
    "stop_strings",
    "watermarking_config",
];

/// Where config.json has the tasks.
const TASKS: &str = "task_specific_params";

/// Reads the defaults. Without generation_config.json they are those of config.json, as in the transformers
/// library. Tasks always come from config.json's `task_specific_params`.
pub(super) fn read(files: Files, config: &T5Config, text: &str) -> Result<GenerationDefaults> {
    let config_file = files.place("config.json");
    let config_json = object(&config_file, text.as_bytes())?;
    let generation_file = files.place("generation_config.json");
    let own =
        files.text("generation_config.json")?.map(|text| object(&generation_file, text.as_bytes())).transpose()?;
    let mut not_obeyed = Vec::new();
    let mut settings = match &own {
        Some(json) => {
            let unknown = |key: &str| !Settings::NAMES.contains(&key) && !WITHOUT_EFFECT.contains(&key);
            not_obeyed.extend(described(json, "", unknown));
            Settings::read(&SettingsObject { file: &generation_file, prefix: "", json })?
        }
        None => {
            not_obeyed.extend(described(&config_json, "", |key| NOT_OBEYED.contains(&key)));
            Settings::read(&SettingsObject { file: &config_file, prefix: "", json: &config_json })?
        }
    };
    if settings.do_sample == Some(true) && settings.num_beams.is_some_and(|beams| beams > 1) {
        not_obeyed.push("num_beams with do_sample (tokens are drawn, without beams)".to_owned());
    }
    // What only repeats config.json is left out.
    if settings.decoder_start_token_id == Some(config.decoder_start_token_id) {
        settings.decoder_start_token_id = None;
    }
    if settings.eos_token_id.as_deref() == Some(&[config.eos_token_id]) {
        settings.eos_token_id = None;
    }
    let tasks = tasks(&config_file, &config_json, &mut not_obeyed)?;
    Ok(GenerationDefaults { settings, tasks, not_obeyed })
}

/// Reads settings of both kinds from one object, as [`GenerationDefaults::to_json`] writes them: the settings of
/// generation_config.json, and tasks under `task_specific_params`. `file` names it in messages.
///
/// # Errors
/// If it is not JSON, or a setting has a value of another type.
pub fn parse(file: &str, text: &str) -> Result<GenerationDefaults> {
    let json = object(file, text.as_bytes())?;
    let settings = Settings::read(&SettingsObject { file, prefix: "", json: &json })?;
    let mut not_obeyed = Vec::new();
    let known = |key: &str| key == TASKS || Settings::NAMES.contains(&key) || WITHOUT_EFFECT.contains(&key);
    not_obeyed.extend(described(&json, "", |key| !known(key)));
    let tasks = tasks(file, &json, &mut not_obeyed)?;
    Ok(GenerationDefaults { settings, tasks, not_obeyed })
}

/// `task_specific_params`, in the order of the tasks' names.
fn tasks(file: &str, config: &Value, not_obeyed: &mut Vec<String>) -> Result<Vec<Task>> {
    let Some(tasks) = get(config, TASKS) else { return Ok(Vec::new()) };
    let expected = "an object with one key a task";
    let tasks = tasks.as_object().ok_or_else(|| wrong(file, TASKS, expected, tasks))?;
    let task = |(name, json): (&String, &Value)| {
        let place = format!("task_specific_params.{name}.");
        if !json.is_object() {
            return Err(wrong(file, place.trim_end_matches('.'), "an object", json));
        }
        let prefix = match get(json, "prefix") {
            Some(prefix) => {
                prefix.as_str().ok_or_else(|| wrong(file, &(place.clone() + "prefix"), "a string", prefix))?
            }
            None => "",
        };
        let settings = Settings::read(&SettingsObject { file, prefix: &place, json })?;
        let unknown = |key: &str| key != "prefix" && !Settings::NAMES.contains(&key) && !WITHOUT_EFFECT.contains(&key);
        not_obeyed.extend(described(json, &place, unknown));
        Ok(Task { name: name.clone(), prefix: prefix.to_owned(), settings })
    };
    tasks.iter().map(task).collect()
}

/// The keys for which `counts` holds, each with its value; those that ask for nothing are left out.
fn described<'a>(json: &'a Value, place: &'a str, counts: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = String> {
    let asks = |key: &str, value: &Value| match key {
        "guidance_scale" => value.as_f64() != Some(1.0),
        "penalty_alpha" => value.as_f64() != Some(0.0),
        _ => !value.is_null() && *value != Value::Bool(false) && value.as_array().is_none_or(|list| !list.is_empty()),
    };
    let entries = json.as_object().into_iter().flatten();
    entries.filter(move |(key, value)| counts(key) && !value.is_null() && asks(key, value)).map(move |(key, value)| {
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(40) {
            value.truncate(end);
            value.push('…');
        }
        format!("{place}{key} {value}")
    })
}

/// An object of settings; `prefix` stands before its keys in messages.
struct SettingsObject<'a> {
    file: &'a str,
    prefix: &'a str,
    json: &'a Value,
}

impl SettingsSource for SettingsObject<'_> {
    fn get<T: Setting>(&self, name: &'static str) -> Result<Option<T>> {
        let key = || format!("{}{name}", self.prefix);
        let parse = |value: &Value| T::from_json(value).ok_or_else(|| wrong(self.file, &key(), T::EXPECTED, value));
        get(self.json, name).map(parse).transpose()
    }
}

/// `null` counts as absent.
fn get<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    json.get(key).filter(|value| !value.is_null())
}

fn wrong(file: &str, key: &str, expected: &str, found: &Value) -> Error {
    Error::config(file, key, format!("expected {expected}, found {found}"))
}
