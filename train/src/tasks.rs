//! The registry of text-to-text tasks: declared in TOML, loaded into examples.
//!
//! A task has source files, a way to make (input, target) texts of their records, and metrics. After loading, the n-th
//! training example of an epoch is a pure function of (task, epoch, n, seed), so that any order can be computed again.

mod config;
mod data;
mod example;
mod formatters;
mod joined;
mod loading;
mod mapped;
mod slips;
mod text;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use config::{HoldOut, LengthFilter, SourceConfig, TaskConfig};
pub use example::{Example, Limits, TextExample, TooLong};
pub(crate) use formatters::words_of_span;
pub use formatters::{Examples, Template, postprocess_stsb, winograd::wsc_score, wnli::wnli_to_wsc};
pub use loading::{LoadReport, training_examples, training_texts};
pub use slips::{Slips, add_slips};
pub use text::split_sentences;

use data::{Data, Digest, denoise, stream};
use mapped::Segments;

use crate::{
    Result,
    mixture::Size,
    random::{Permutation, Random, derive, hash_bytes},
    source::Format,
    vocabulary::Vocabulary,
};

/// A loaded task.
pub struct Task {
    pub config: TaskConfig,
    pub dev: Vec<TextExample>,
    pub report: LoadReport,
    /// Ids of evaluation examples that their text does not give back: corrupted ones, whose pieces may be cut anywhere.
    dev_ids: Option<Vec<Example>>,
    limits: Limits,
    seed: u64,
    data: Data,
}

impl Task {
    /// Reads and tokenises a task's files.
    ///
    /// # Errors
    /// Where a file is missing, empty or malformed, a template names an unknown field, or no example is left.
    pub fn load(
        config: &TaskConfig,
        data_dir: &Path,
        vocabulary: &Vocabulary,
        limits: Limits,
        seed: u64,
    ) -> Result<Task> {
        let seed = derive(seed, &[hash_bytes(config.name.as_bytes())]);
        config.examples.check(&config.name)?;
        if config.divide_inputs.max(config.divide_targets) > 0.0 && !vocabulary.can_divide() {
            return Err(crate::Error::Invalid(format!(
                "task {}: divide_inputs, divide_targets: expected a vocabulary of pieces, found bytes",
                config.name
            )));
        }
        if let Examples::Denoise { objective, .. } = &config.examples
            && objective.needs_sentinels()
            && vocabulary.sentinels().count == 0
        {
            let found = match vocabulary.of_bytes() {
                Some(_) => "bytes with other sentinels than those of pre-training, 258 and downwards",
                None => "one without",
            };
            return Err(crate::Error::Invalid(format!(
                "task {}: examples: objective: expected a vocabulary with sentinels (<extra_id_0>), found {found}",
                config.name
            )));
        }
        let mut report = LoadReport::default();
        let source = loading::Loader { config, vocabulary, limits, seed, limit_tokens: config.limit_tokens };
        let (data, (dev, dev_ids)) = if config.source.format == Format::Shards {
            let folders = |files: &[PathBuf]| files.iter().map(|file| data_dir.join(file)).collect::<Vec<_>>();
            let data = source.mapped(&folders(&config.train), &mut report)?;
            (data, source.mapped_dev_examples(&folders(&config.dev))?)
        } else {
            let (records, dev_records) = loading::split_records(config, data_dir, seed, &mut report)?;
            let data = source.training_data(&records, &mut report)?;
            (data, source.dev_examples(&dev_records)?)
        };
        report.examples = data.len();
        if !config.train.is_empty() && report.examples == 0 {
            return Err(crate::Error::Invalid(format!(
                "task {}: expected training examples, found none in {} records ({} filtered, {} too long, {} unused)",
                config.name, report.records, report.filtered, report.dropped, report.unused
            )));
        }
        report.dev_examples = dev.len();
        Ok(Task { config: config.clone(), dev, report, dev_ids, limits, seed, data })
    }

    /// Training examples per epoch.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits that its examples keep to.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A hash of its contents, where a source has one: of shards, whose ids may be others under the same name.
    pub fn contents(&self) -> Option<&str> {
        match &self.data {
            Data::Segments { segments: Segments::Mapped(segments), .. } => Some(segments.fingerprint()),
            _ => None,
        }
    }

    /// What counts in the mixture: the rate that the task names, or its number of examples.
    pub fn mixing_size(&self) -> Size {
        Size::of(self.config.rate, self.len())
    }

    /// The n-th training example that the run draws from this task, for ever: each epoch has an order of its own.
    ///
    /// # Panics
    /// Where the task [is empty](Task::is_empty).
    pub fn draw(&self, n: u64, vocabulary: &Vocabulary) -> Example {
        let len = self.len() as u64;
        let (epoch, place) = (n / len, n % len);
        let order = Permutation::new(len, derive(self.seed, &[stream::ORDER, epoch]));
        self.example(epoch, order.at(place) as usize, vocabulary)
    }

    /// Training example `index` as it is in an epoch.
    ///
    /// # Panics
    /// Where `index` is not below [`Task::len`].
    pub fn example(&self, epoch: u64, index: usize, vocabulary: &Vocabulary) -> Example {
        let seed = derive(self.seed, &[stream::EXAMPLE, epoch, index as u64]);
        let mut example = match &self.data {
            Data::Pairs { inputs, targets } => {
                Example { inputs: inputs.get(index).to_vec(), targets: targets.get(index).to_vec() }
            }
            Data::Segments { segments, objective, prefix, modes } => {
                denoise(&segments.get(index), objective, prefix, modes, vocabulary, seed)
            }
            Data::Slips { texts, prefix, slips } => {
                let clean = &texts[index];
                Example {
                    inputs: vocabulary.encode(&format!("{prefix}{}", add_slips(clean, slips, seed))),
                    targets: vocabulary.encode(clean),
                }
            }
            Data::Joined(joined) => {
                let text = joined.draw(index, self.limits, seed);
                Example { inputs: vocabulary.encode(&text.inputs), targets: vocabulary.encode(&text.targets) }
            }
        };
        let random = &mut Random::from_path(seed, &[stream::DIVISION]);
        let TaskConfig { divide_inputs, divide_targets, .. } = self.config;
        // The end mark follows. A text that would be cut for its spelling keeps its own.
        for (ids, probability, most) in [
            (&mut example.inputs, divide_inputs, self.limits.inputs_length.saturating_sub(1)),
            (&mut example.targets, divide_targets, self.limits.targets_length.saturating_sub(1)),
        ] {
            if probability > 0.0 {
                let divided = vocabulary.divide(ids, probability, random);
                if divided.len() <= most {
                    *ids = divided;
                }
            }
        }
        self.limits.end(&mut example);
        example
    }

    /// A digest of what was read for training, the same on every machine.
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        self.data.digest(&mut digest);
        digest.hex()
    }

    /// The same of what was read for evaluation.
    pub fn dev_digest(&self) -> String {
        let mut digest = Digest::default();
        self.dev.iter().for_each(|example| example.digest(&mut digest));
        for Example { inputs, targets } in self.dev_ids.iter().flatten() {
            [inputs, targets].into_iter().for_each(|ids| digest.ids(ids));
        }
        digest.hex()
    }

    /// The evaluation examples as ids, for the loss: one per example, its first reference.
    pub fn dev_tokens(&self, vocabulary: &Vocabulary) -> Vec<Example> {
        let encode = |text: &TextExample| Example {
            inputs: vocabulary.encode(&text.inputs),
            targets: vocabulary.encode(&text.targets),
        };
        let mut examples = match &self.dev_ids {
            Some(examples) => examples.clone(),
            None => self.dev.par_iter().map(encode).collect(),
        };
        examples.iter_mut().for_each(|example| self.limits.end(example));
        examples
    }
}
