//! What a checkpoint says about how it wants to be decoded: the settings of `generation_config.json`, and the tasks of
//! `config.json`. Each setting is declared once, here, with its type; every file format reads and writes them by this
//! list.

use serde_json::Value as Json;

use super::options::EarlyStopping;
use crate::error::{Error, Result};
use crate::gguf::{Array, File, Value};

/// Where settings come from.
pub(crate) trait SettingsSource {
    /// The setting of this name; `None` where the source says nothing.
    fn get<T: Setting>(&self, name: &'static str) -> Result<Option<T>>;
}

/// Where settings go.
pub(crate) trait SettingsSink {
    fn put<T: Setting>(&mut self, name: &'static str, value: &T);
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// Generation settings; `None` where the checkpoint says nothing. Names and meanings as in Hugging Face's
        /// `GenerationConfig`.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Settings {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        impl Settings {
            /// The names of all settings.
            pub(crate) const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            pub(crate) fn read(source: &impl SettingsSource) -> Result<Settings> {
                Ok(Settings { $($name: source.get(stringify!($name))?,)* })
            }

            pub(crate) fn write(&self, sink: &mut impl SettingsSink) {
                $(if let Some(value) = &self.$name {
                    sink.put(stringify!($name), value);
                })*
            }

            /// These settings, with those of `base` where these say nothing.
            pub fn over(&self, base: &Settings) -> Settings {
                Settings { $($name: self.$name.clone().or_else(|| base.$name.clone()),)* }
            }
        }
    };
}

settings! {
    /// Limit of new tokens; goes before `max_length`.
    max_new_tokens: usize,
    /// Limit of tokens, the start token included.
    max_length: usize,
    /// The end token is held back before so many new tokens; goes before `min_length`.
    min_new_tokens: usize,
    /// The same, the start token included.
    min_length: usize,
    /// Draw tokens instead of choosing the likeliest.
    do_sample: bool,
    /// Beams of beam search; 1: none.
    num_beams: usize,
    /// Groups that the beams are divided into, each unlike those before it; 1: none.
    num_beam_groups: usize,
    /// What a token loses for each time that a group before it chose it in the same step.
    diversity_penalty: f32,
    /// Exponent of the length that beams' scores are divided by.
    length_penalty: f32,
    /// When beam search ends.
    early_stopping: EarlyStopping,
    /// Results of one request.
    num_return_sequences: usize,
    /// Logits are divided by it before a token is drawn.
    temperature: f32,
    /// Draw among so many likeliest tokens; 0: all. Where `do_sample` is true and this is absent, the library's is 50.
    top_k: usize,
    /// Draw among the likeliest tokens that reach this probability together.
    top_p: f32,
    /// Draw among tokens at least this fraction as likely as the likeliest.
    min_p: f32,
    /// Draw among the most typical tokens that reach this probability together.
    typical_p: f32,
    /// Draw among tokens of at least this probability.
    epsilon_cutoff: f32,
    /// The same, with a bound that falls with the entropy.
    eta_cutoff: f32,
    /// Draw among the likeliest tokens that hold this fraction of the entropy.
    top_h: f32,
    /// Above 1: tokens of the output become less likely.
    repetition_penalty: f32,
    /// Above 1: tokens of the source become more likely.
    encoder_repetition_penalty: f32,
    /// No so many tokens in a row occur twice in the output; 0: off.
    no_repeat_ngram_size: usize,
    /// No so many tokens in a row of the source occur in the output; 0: off.
    encoder_no_repeat_ngram_size: usize,
    /// Sequences of tokens that are never generated.
    bad_words_ids: Vec<Vec<u32>>,
    /// Sequences of tokens with what is added to the logit of their last token where the others stand before it.
    sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    begin_suppress_tokens: Vec<u32>,
    /// The first token.
    forced_bos_token_id: u32,
    /// The token at the limit of length: the likeliest of these.
    forced_eos_token_id: Vec<u32>,
    /// From so many new tokens on, the end token becomes likelier by a factor with each token.
    exponential_decay_length_penalty: (usize, f32),
    /// Normalise log-probabilities again after everything else has changed them.
    renormalize_logits: bool,
    /// Replace logits that are not numbers or infinite.
    remove_invalid_values: bool,
    /// The token that starts a target, if another than the configuration's.
    decoder_start_token_id: u32,
    /// All tokens that end a sequence; absent: the configuration's `eos_token_id`.
    eos_token_id: Vec<u32>,
    /// Texts are read sentence by sentence. Not a setting of the library, which takes no notice of it.
    split_sentences: bool,
    /// Texts are read word by word, each spelled out: its letters, small and with spaces between them. Not of the
    /// library.
    spell_words: bool,
    /// Heads of cross-attention that show where a token comes from, each a block and a head of it; absent: all. (The
    /// library has this for Whisper.)
    alignment_heads: Vec<Vec<u32>>,
    /// Whether they show it in the step that reads the token, not in the one that predicts it. Not of the library.
    alignment_reading: bool,
}

/// One of the tasks that a checkpoint was trained for (`task_specific_params`): what stands before its sources, and
/// settings that go before the checkpoint's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// What `--task` calls it: `translation_en_to_de`.
    pub name: String,
    /// Text before every source, e.g. `translate English to German: `.
    pub prefix: String,
    /// What the task asks for in place of the checkpoint's settings.
    pub settings: Settings,
}

/// How a checkpoint wants to be decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// What `generation_config.json` says.
    pub settings: Settings,
    /// In the order of their names.
    pub tasks: Vec<Task>,
    /// What else the checkpoint asks for and does not get, each with its value.
    pub not_obeyed: Vec<String>,
}

impl GenerationDefaults {
    /// The task of this name.
    ///
    /// # Errors
    /// For another name; the message lists those that there are.
    pub fn task(&self, name: &str) -> Result<&Task> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            let what = match known.as_slice() {
                [] => format!("expected none, since the model names no tasks, found {name}"),
                _ => format!("expected one of {}, found {name}", known.join(", ")),
            };
            Error::Option { option: "task", what }
        })
    }

    /// The task that a text belongs to by its beginning; of several, the one with the longest prefix.
    pub fn task_of(&self, text: &str) -> Option<&Task> {
        let known = self.tasks.iter().filter(|task| !task.prefix.is_empty() && text.starts_with(&task.prefix));
        known.max_by_key(|task| task.prefix.len())
    }

    /// One sentence on what is not obeyed; `None` where there is nothing to say.
    pub fn note(&self) -> Option<String> {
        let list = self.not_obeyed.join(", ");
        (!list.is_empty()).then(|| format!("settings of the checkpoint's generation that are not obeyed: {list}"))
    }

    /// What is set, as an object with the names of `generation_config.json`; tasks under `task_specific_params`.
    pub fn to_json(&self) -> Json {
        let mut object = JsonObject::default();
        self.settings.write(&mut object);
        if !self.tasks.is_empty() {
            let task = |task: &Task| {
                let mut object = JsonObject::default();
                object.0.insert("prefix".to_owned(), task.prefix.as_str().into());
                task.settings.write(&mut object);
                (task.name.clone(), Json::Object(object.0))
            };
            let mut tasks = serde_json::Map::new();
            tasks.extend(self.tasks.iter().map(task));
            object.0.insert("task_specific_params".to_owned(), tasks.into());
        }
        if !self.not_obeyed.is_empty() {
            object.0.insert("not_obeyed".to_owned(), self.not_obeyed.clone().into());
        }
        let mut json = Json::Object(object.0);
        json.sort_all_objects(); // by name, however serde_json is built
        json
    }
}

#[derive(Default)]
struct JsonObject(serde_json::Map<String, Json>);

impl SettingsSink for JsonObject {
    fn put<T: Setting>(&mut self, name: &'static str, value: &T) {
        self.0.insert(name.to_owned(), value.to_json());
    }
}

/// A type that a setting may have, and how files hold it.
pub(crate) trait Setting: Sized + Clone {
    /// What messages say was expected.
    const EXPECTED: &'static str;
    fn from_json(json: &Json) -> Option<Self>;
    fn to_json(&self) -> Json;

    /// Lists in lists, which GGUF has no place for, are stored as JSON.
    fn from_gguf(file: &File, key: &str) -> Result<Option<Self>> {
        let parse = |text: &str| {
            let json = serde_json::from_slice(text.as_bytes()).ok();
            json.as_ref()
                .and_then(Self::from_json)
                .ok_or_else(|| file.error(key, format!("expected {} as JSON, found {text:?}", Self::EXPECTED)))
        };
        file.string(key)?.map(parse).transpose()
    }

    fn to_gguf(&self) -> Value {
        Value::String(self.to_json().to_string())
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number";

    fn from_json(json: &Json) -> Option<usize> {
        json.as_u64().and_then(|number| number.try_into().ok())
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<usize>> {
        file.usize(key)
    }

    fn to_gguf(&self) -> Value {
        Value::count(*self)
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a token id";

    fn from_json(json: &Json) -> Option<u32> {
        json.as_u64().and_then(|number| number.try_into().ok())
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<u32>> {
        file.u32(key)
    }

    fn to_gguf(&self) -> Value {
        Value::U32(*self)
    }
}

impl Setting for f32 {
    const EXPECTED: &'static str = "a number";

    fn from_json(json: &Json) -> Option<f32> {
        json.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<f32>> {
        file.float(key)
    }

    fn to_gguf(&self) -> Value {
        Value::F32(*self)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_json(json: &Json) -> Option<bool> {
        json.as_bool()
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<bool>> {
        file.boolean(key)
    }

    fn to_gguf(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Setting for EarlyStopping {
    const EXPECTED: &'static str = "true, false or \"never\"";

    fn from_json(json: &Json) -> Option<EarlyStopping> {
        match json {
            Json::Bool(true) => Some(EarlyStopping::Yes),
            Json::Bool(false) => Some(EarlyStopping::No),
            Json::String(never) if never == "never" => Some(EarlyStopping::Never),
            _ => None,
        }
    }

    fn to_json(&self) -> Json {
        match self {
            EarlyStopping::Yes => true.into(),
            EarlyStopping::No => false.into(),
            EarlyStopping::Never => "never".into(),
        }
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<EarlyStopping>> {
        match file.value(key) {
            Some(Value::String(never)) if never == "never" => Ok(Some(EarlyStopping::Never)),
            _ => Ok(file.boolean(key)?.map(|yes| if yes { EarlyStopping::Yes } else { EarlyStopping::No })),
        }
    }

    fn to_gguf(&self) -> Value {
        match self {
            EarlyStopping::Yes => Value::Bool(true),
            EarlyStopping::No => Value::Bool(false),
            EarlyStopping::Never => Value::String("never".to_owned()),
        }
    }
}

impl Setting for Vec<u32> {
    const EXPECTED: &'static str = "a token id or a list of them";

    fn from_json(json: &Json) -> Option<Vec<u32>> {
        let list = json.as_array().map_or(std::slice::from_ref(json), Vec::as_slice);
        list.iter().map(u32::from_json).collect()
    }

    fn to_json(&self) -> Json {
        self.as_slice().into()
    }

    fn from_gguf(file: &File, key: &str) -> Result<Option<Vec<u32>>> {
        let Some(array) = file.array(key)? else { return Ok(None) };
        let wrong = || file.error(key, format!("expected token ids, found {}", array.describe()));
        array.integers().ok_or_else(wrong).map(Some)
    }

    fn to_gguf(&self) -> Value {
        Value::Array(Array::of_u32(self.iter().copied()))
    }
}

/// A pair as a list of two.
fn pair(json: &Json) -> Option<(&Json, &Json)> {
    match json.as_array().map(Vec::as_slice) {
        Some([first, second]) => Some((first, second)),
        _ => None,
    }
}

/// A list of ids that is not empty.
fn sequence(json: &Json) -> Option<Vec<u32>> {
    json.as_array().filter(|list| !list.is_empty())?.iter().map(u32::from_json).collect()
}

impl Setting for (usize, f32) {
    const EXPECTED: &'static str = "a list of a whole number and a number";

    fn from_json(json: &Json) -> Option<(usize, f32)> {
        let (start, factor) = pair(json)?;
        Some((usize::from_json(start)?, f32::from_json(factor)?))
    }

    fn to_json(&self) -> Json {
        serde_json::json!([self.0, self.1])
    }
}

impl Setting for Vec<Vec<u32>> {
    const EXPECTED: &'static str = "a list of lists of token ids";

    fn from_json(json: &Json) -> Option<Vec<Vec<u32>>> {
        json.as_array()?.iter().map(sequence).collect()
    }

    fn to_json(&self) -> Json {
        self.iter().map(Setting::to_json).collect()
    }
}

impl Setting for Vec<(Vec<u32>, f32)> {
    const EXPECTED: &'static str = "a list of pairs of a list of token ids and a number";

    fn from_json(json: &Json) -> Option<Vec<(Vec<u32>, f32)>> {
        let entry = |json: &Json| {
            let (ids, bias) = pair(json)?;
            Some((sequence(ids)?, f32::from_json(bias)?))
        };
        json.as_array()?.iter().map(entry).collect()
    }

    fn to_json(&self) -> Json {
        self.iter().map(|(ids, bias)| serde_json::json!([ids, bias])).collect()
    }
}
