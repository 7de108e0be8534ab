//! What may be asked of a generation.

use std::ffi::c_char;

use serde_json::Value;
use t5_runtime::Overrides;

use crate::border::{Failure, Growing, Result, optional_text, pt5_status, sized, texts};
use crate::cancel::{Cancel, pt5_cancel};

/// What may be asked of a generation. Zeros: as the model's checkpoint wants it; greedy search where it says nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pt5_options {
    /// sizeof(pt5_options)
    pub size: usize,
    /// One of the checkpoint's tasks, whose prefix and settings are then used. NULL: none.
    pub task: *const c_char,
    /// The same seed gives the same draws.
    pub seed: u64,
    /// Limit of new tokens. 0: the checkpoint's, or 256.
    pub max_new_tokens: u32,
    /// Beam search with so many beams; 1: greedy search. 0: the checkpoint's.
    pub beams: u32,
    /// How many results of each text: the best beams, or draws. 0: the checkpoint's, or 1.
    pub n_best: u32,
    /// Above 0: draw tokens. 0: as the checkpoint wants it (where it draws and you want none, say so in `json`).
    pub temperature: f32,
    /// If there are any, results are each one of these texts.
    pub choices: *const *const c_char,
    /// How many.
    pub choices_count: usize,
    /// Generation ends where one of these appears, and the text before it.
    pub stop: *const *const c_char,
    /// How many.
    pub stop_count: usize,
    /// All other options, as a JSON object with the names of the Rust library's `Overrides`:
    /// {"no_repeat_ngram": 3, "length_penalty": 1.0, "prefix": "Es war"}. NULL: none.
    pub json: *const c_char,
    /// Ends the request from another thread. NULL: nothing does.
    pub cancel: *const pt5_cancel,
}

// SAFETY: its size comes first, and zeros are numbers and NULL.
unsafe impl Growing for pt5_options {
    const NAME: &'static str = "pt5_options";
}

/// What options ask for, and what may end the request.
///
/// # Safety
/// As the header says.
pub unsafe fn read(options: *const pt5_options) -> Result<(Overrides, Cancel)> {
    // SAFETY: as the caller says.
    let (given, task, json, choices, stop, cancel) = unsafe {
        let given = sized(options)?;
        let task = optional_text("task", given.task)?;
        let json = optional_text("json", given.json)?;
        let choices = texts("choices", given.choices, std::ptr::null(), given.choices_count)?;
        let stop = texts("stop", given.stop, std::ptr::null(), given.stop_count)?;
        (given, task, json, choices, stop, Cancel::of(given.cancel)?)
    };
    let mut overrides = json.map_or(Ok(Overrides::default()), from_json)?;
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<String>>();
    let count = |number: u32| (number > 0).then_some(number as usize);
    put("task", &mut overrides.task, task.map(str::to_owned))?;
    put("seed", &mut overrides.seed, (given.seed > 0).then_some(given.seed))?;
    put("max_new_tokens", &mut overrides.max_new_tokens, count(given.max_new_tokens))?;
    put("beams", &mut overrides.beams, count(given.beams))?;
    put("n_best", &mut overrides.n_best, count(given.n_best))?;
    // A number that is none is for the library to refuse.
    put("temperature", &mut overrides.temperature, (given.temperature != 0.0).then_some(given.temperature))?;
    put("choices", &mut overrides.choices, (!choices.is_empty()).then(|| owned(choices)))?;
    put("stop", &mut overrides.stop, (!stop.is_empty()).then(|| owned(stop)))?;
    Ok((overrides, cancel))
}

fn from_json(json: &str) -> Result<Overrides> {
    let wrong = |what: String| Failure::new(pt5_status::PT5_OPTION, format!("json: expected an object, found {what}"));
    match serde_json::from_str(json) {
        Ok(Value::Object(request)) => Ok(Overrides::from_json(&request)?),
        Ok(other) => Err(wrong(other.to_string())),
        Err(error) => Err(wrong(format!("what is no JSON ({error})"))),
    }
}

/// What a field says goes where nothing is yet.
fn put<T>(name: &str, place: &mut Option<T>, field: Option<T>) -> Result<()> {
    if field.is_some() {
        if place.is_some() {
            let what = format!("{name}: expected in its field or in json, found in both");
            return Err(Failure::new(pt5_status::PT5_OPTION, what));
        }
        *place = field;
    }
    Ok(())
}
