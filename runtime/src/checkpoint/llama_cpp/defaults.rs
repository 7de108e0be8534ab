//! Generation defaults as key-values, both ways.

use super::keys;
use crate::error::Result;
use crate::generate::{GenerationDefaults, Setting, Settings, SettingsSink, SettingsSource, Task};
use crate::gguf::{Array, File, Value};

/// The settings of a file whose keys begin with `prefix`.
struct StoredSettings<'a> {
    file: &'a File,
    prefix: &'a str,
}

impl SettingsSource for StoredSettings<'_> {
    fn get<T: Setting>(&self, name: &'static str) -> Result<Option<T>> {
        T::from_gguf(self.file, &keys::setting(self.prefix, name))
    }
}

struct Append<'a, P> {
    prefix: &'a str,
    put: P,
}

impl<P: FnMut(&str, Value)> SettingsSink for Append<'_, P> {
    fn put<T: Setting>(&mut self, name: &'static str, value: &T) {
        (self.put)(&keys::setting(self.prefix, name), value.to_gguf());
    }
}

pub(super) fn append(defaults: &GenerationDefaults, put: &mut impl FnMut(&str, Value)) {
    let GenerationDefaults { settings, tasks, not_obeyed } = defaults;
    settings.write(&mut Append { prefix: keys::GENERATION, put: &mut *put });
    if !tasks.is_empty() {
        put(keys::TASKS, Value::Array(Array::of_strings(tasks.iter().map(|task| &task.name))));
        put(keys::TASK_PREFIXES, Value::Array(Array::of_strings(tasks.iter().map(|task| &task.prefix))));
    }
    for (index, task) in tasks.iter().enumerate() {
        task.settings.write(&mut Append { prefix: &keys::task(index), put: &mut *put });
    }
    if !not_obeyed.is_empty() {
        put(keys::NOT_OBEYED, Value::Array(Array::of_strings(not_obeyed)));
    }
}

/// Reads them again. Files from before tasks had names have prefixes only, which then serve as names, too.
pub(super) fn read(file: &File) -> Result<GenerationDefaults> {
    let prefixes = strings(file, keys::TASK_PREFIXES)?.unwrap_or_default();
    let names = strings(file, keys::TASKS)?
        .unwrap_or_else(|| prefixes.iter().map(|prefix| prefix.trim_end_matches([':', ' ']).to_owned()).collect());
    if names.len() != prefixes.len() {
        let what = format!("expected one string for each of {} tasks, found {}", names.len(), prefixes.len());
        return Err(file.error(keys::TASK_PREFIXES, what));
    }
    let task = |(index, (name, prefix))| {
        let settings = Settings::read(&StoredSettings { file, prefix: &keys::task(index) })?;
        Ok(Task { name, prefix, settings })
    };
    Ok(GenerationDefaults {
        settings: Settings::read(&StoredSettings { file, prefix: keys::GENERATION })?,
        tasks: names.into_iter().zip(prefixes).enumerate().map(task).collect::<Result<_>>()?,
        not_obeyed: strings(file, keys::NOT_OBEYED)?.unwrap_or_default(),
    })
}

pub(super) fn strings(file: &File, key: &str) -> Result<Option<Vec<String>>> {
    let Some(array) = file.array(key)? else { return Ok(None) };
    let wrong = || file.error(key, format!("expected strings, found {}", array.describe()));
    Ok(Some(array.strings().ok_or_else(wrong)?.map(str::to_owned).collect()))
}
