//! What a checkpoint says about how it wants to be decoded (`generation_config.json`, `pocket_t5.generation.*`).

/// Generation settings of a checkpoint; `None` where it says nothing. Names as in Hugging Face.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    pub max_new_tokens: Option<usize>,
    /// Counts the start token, as in Hugging Face.
    pub max_length: Option<usize>,
    pub min_length: Option<usize>,
    pub num_beams: Option<usize>,
    pub length_penalty: Option<f32>,
    pub early_stopping: Option<bool>,
    pub no_repeat_ngram_size: Option<usize>,
    pub repetition_penalty: Option<f32>,
    /// All tokens that end a sequence; empty means the configuration's `eos_token_id`.
    pub eos_token_ids: Vec<u32>,
    pub suppress_tokens: Vec<u32>,
    /// Text prefixes of the tasks the model knows, e.g. `translate English to German: `.
    pub task_prefixes: Vec<String>,
}

impl GenerationDefaults {
    /// What is set, as an object with the names of `generation_config.json` (and `task_prefixes`).
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "max_new_tokens": self.max_new_tokens,
            "max_length": self.max_length,
            "min_length": self.min_length,
            "num_beams": self.num_beams,
            "length_penalty": self.length_penalty,
            "early_stopping": self.early_stopping,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "repetition_penalty": self.repetition_penalty,
            "eos_token_id": self.eos_token_ids,
            "suppress_tokens": self.suppress_tokens,
            "task_prefixes": self.task_prefixes,
        });
        if let Some(object) = object.as_object_mut() {
            object.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        }
        object
    }
}
