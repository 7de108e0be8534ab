//! One example, as text and as ids, and how long it may be.

use serde::{Deserialize, Serialize};

use super::data::Digest;
use crate::objectives;

/// What to do with an example that is longer than the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// Keep the first tokens and an end mark, as the reference does.
    #[default]
    Truncate,
    /// Leave it out.
    Drop,
}

/// Limits of an example in tokens, end mark included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub inputs_length: usize,
    pub targets_length: usize,
    pub too_long: TooLong,
}

impl Limits {
    /// Trims an example and appends its end marks.
    pub(super) fn end(&self, example: &mut Example) {
        objectives::append_eos_after_trim(&mut example.inputs, self.inputs_length);
        objectives::append_eos_after_trim(&mut example.targets, self.targets_length);
    }
}

/// An example as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextExample {
    pub inputs: String,
    pub targets: String,
    /// Every accepted target; at least `targets` where the task is evaluated.
    pub references: Vec<String>,
    /// Examples that are judged together (MultiRC's questions); for Winograd schemas whether `targets` is the right
    /// noun, "1" or "0"; else "".
    pub group: String,
    /// The text whose words a predicted span counts (SQuAD); else "".
    pub context: String,
}

impl TextExample {
    /// An example whose only reference is its target.
    pub fn new(inputs: impl Into<String>, targets: impl Into<String>) -> TextExample {
        let targets = targets.into();
        let references = vec![targets.clone()];
        TextExample { inputs: inputs.into(), targets, references, ..TextExample::default() }
    }

    /// Digests all of it.
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.count(self.references.len());
        let texts = [&self.inputs, &self.targets, &self.group, &self.context];
        texts.into_iter().chain(&self.references).for_each(|text| digest.text(text));
    }

    /// The same example with other accepted answers.
    pub(super) fn with_references(self, references: Vec<String>) -> TextExample {
        TextExample { references, ..self }
    }
}

/// An example as ids, each list ending with the end mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
}
