//! The run configuration. `configs/base.toml` holds every knob with its default; a run's file overrides a few of
//! them, and `--set key=value` a few more. A key that the base does not have is an error.

pub(crate) mod keys;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use t5_runtime::config::{FeedForwardKind, OneStack, T5Config};
use toml::{Table, Value};

use crate::data::DataConfig;
use crate::init::Scheme;
use crate::kernels::Precision;
use crate::sums::Sum;
use crate::vocabulary::{self, VocabularyConfig};
use crate::{Error, Result, distill, optimizer, schedule, tuning};
pub(crate) use keys::serde_path;
use keys::{compare, merge, nested};

/// Every knob with its default value and what it means.
pub const BASE: &str = include_str!("../configs/base.toml");

/// The published sizes, by name.
const SIZES: &str = include_str!("../configs/sizes.toml");

/// The file in a run's folder that holds its configuration, every knob in it.
pub const KEPT: &str = "config.toml";

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub run: Run,
    pub model: ModelOptions,
    pub data: DataConfig,
    pub vocabulary: VocabularyConfig,
    pub loss: Loss,
    pub distill: distill::Options,
    pub tuning: tuning::Options,
    pub optimizer: optimizer::Options,
    pub schedule: schedule::Schedule,
    pub checkpoint: CheckpointOptions,
    pub log: Log,
    pub evaluation: Evaluation,
}

/// What is run, where and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Where checkpoints and logs go.
    pub output: PathBuf,
    pub seed: u64,
    pub steps: u64,
    /// Steps before this run, which schedule and Adafactor count on from: a run of `steps` steps is the last part of
    /// one of `start_step + steps`.
    pub start_step: u64,
    /// Batches whose gradients are added up for one step, by all ranks together.
    pub accumulate: usize,
    /// How they are added. Runs begun before there was a choice do not name it.
    #[serde(default)]
    pub sum: Sum,
    /// Steps between comparisons of the ranks' parameters; 0: only where a run begins or goes on.
    #[serde(default)]
    pub compare_steps: u64,
    /// Of each rank; 0 takes every processor.
    pub threads: usize,
    /// Of the products with parameters; parameters and everything else are f32.
    pub precision: PrecisionChoice,
    /// Where the passes run. Runs begun before there was a choice do not name it.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Whether blocks keep nothing but their inputs for the backward pass, which computes the rest again.
    #[serde(default)]
    pub recompute_blocks: bool,
}

/// The precision of products, or that it is to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// The fastest on this machine, measured when a run begins.
    Auto,
    F32,
    Bf16,
}

impl PrecisionChoice {
    /// The precision; f32 where it is not chosen yet.
    pub fn precision(self) -> Precision {
        match self {
            PrecisionChoice::Bf16 => Precision::Bf16,
            PrecisionChoice::Auto | PrecisionChoice::F32 => Precision::F32,
        }
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> PrecisionChoice {
        match precision {
            Precision::F32 => PrecisionChoice::F32,
            Precision::Bf16 => PrecisionChoice::Bf16,
        }
    }
}

/// Where forward and backward passes run; parameters and the optimiser stay in main memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The fused operations on the processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU: of the ranks on a machine, each its own.
    Cuda,
}

impl DeviceChoice {
    /// The device of the rank with this number on its machine, or `None` for the processor. Where
    /// `CUDA_VISIBLE_DEVICES` names one device, somebody else has given each rank its own, and that is taken.
    ///
    /// # Errors
    /// Where this program was built without the feature, or there is no such device.
    pub fn device(self, local_rank: usize) -> Result<Option<candle_core::Device>> {
        if self == DeviceChoice::Cpu {
            return Ok(None);
        }
        if !candle_core::utils::cuda_is_available() {
            let what = "expected cpu, since this t5-train was built without --features cuda; found cuda";
            return Err(Error::config("configuration", "run.device", what));
        }
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let one = !visible.is_empty() && !visible.contains(',');
        let ordinal = if one { 0 } else { local_rank };
        candle_core::Device::new_cuda(ordinal).map(Some).map_err(|error| {
            let what = format!("expected NVIDIA GPU {ordinal}, one for each rank of this machine: {error}");
            Error::config("configuration", "run.device", what)
        })
    }
}

/// Which stacks a model made from scratch has (Raffel et al. 2020, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// An encoder and a decoder.
    #[default]
    EncoderDecoder,
    /// One stack that reads inputs and targets as one text, of which each token sees what is before it.
    LanguageModel,
    /// As that, and the tokens of the inputs see each other.
    PrefixLanguageModel,
}

impl Architecture {
    /// What its one stack sees; `None` where there is an encoder.
    pub fn one_stack(self) -> Option<OneStack> {
        match self {
            Architecture::EncoderDecoder => None,
            Architecture::LanguageModel => Some(OneStack::Causal),
            Architecture::PrefixLanguageModel => Some(OneStack::Prefix),
        }
    }
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// A checkpoint to continue from; empty: initial values. The sizes below then are the checkpoint's.
    pub from: String,
    /// tokenizer.json, or what has one; `bytes`: ByT5's; empty: the one of the checkpoint.
    pub vocabulary: String,
    /// A published size: what stands there is the default of the values below.
    pub size: String,
    /// Rows of the embedding; 0: the vocabulary's ids, filled up as in the reference.
    pub rows: usize,
    #[serde(default)]
    pub architecture: Architecture,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_decoder_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    /// umT5's: a table of positions in every block.
    pub relative_bias_per_block: bool,
    pub share_stacks: bool,
    pub feed_forward: String,
    pub tie_word_embeddings: bool,
    pub layer_norm_epsilon: f32,
    pub initial_values: Scheme,
    pub initializer_factor: f32,
    pub dropout: f32,
    pub dropout_shared_over_length: bool,
}

impl ModelOptions {
    /// The configuration of a model made from scratch, for a vocabulary of `pieces` ids.
    ///
    /// # Errors
    /// Where a value is out of range.
    pub fn t5_config(&self, file: &str, pieces: usize) -> Result<T5Config> {
        let feed_forward = FeedForwardKind::from_name(&self.feed_forward).ok_or_else(|| {
            let what = format!("expected relu, gated-gelu, gated-silu or the like, found {}", self.feed_forward);
            Error::config(file, "model.feed_forward", what)
        })?;
        if self.rows > 0 && self.rows < pieces {
            let what = format!("expected at least the vocabulary's {pieces}, or 0, found {}", self.rows);
            return Err(Error::config(file, "model.rows", what));
        }
        let one_stack = self.architecture.one_stack();
        for (key, set) in
            [("model.share_stacks", self.share_stacks), ("model.relative_bias_per_block", self.relative_bias_per_block)]
        {
            if set && one_stack.is_some() {
                return Err(Error::config(file, key, "expected false for a model of one stack, found true"));
            }
        }
        let family = if self.relative_bias_per_block { "umt5" } else { "t5" };
        let config = T5Config {
            model_type: one_stack.map_or(family, OneStack::model_type).to_owned(),
            vocab_size: if self.rows > 0 { self.rows } else { vocabulary::padded_rows(pieces) },
            d_model: self.d_model,
            d_kv: self.d_kv,
            d_ff: self.d_ff,
            num_layers: if one_stack.is_some() { 0 } else { self.num_layers },
            num_decoder_layers: self.num_decoder_layers,
            num_heads: self.num_heads,
            relative_attention_num_buckets: self.relative_attention_num_buckets,
            relative_attention_max_distance: self.relative_attention_max_distance,
            relative_bias_per_block: self.relative_bias_per_block,
            layer_norm_epsilon: self.layer_norm_epsilon,
            feed_forward,
            adapters: None,
            tie_word_embeddings: self.tie_word_embeddings,
            scale_decoder_outputs: self.tie_word_embeddings,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: 0,
            dropout_rate: self.dropout,
            initializer_factor: self.initializer_factor,
        };
        config.validate(file)?;
        Ok(config)
    }
}

/// What the summed loss is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denominator {
    /// The target tokens that count.
    Tokens,
    /// All target positions with padding, as Mesh TensorFlow.
    Positions,
    /// Nothing, as T5X by default.
    None,
}

/// The loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Of a model of one stack: whether it learns to predict the inputs, too.
    #[serde(default)]
    pub on_inputs: bool,
    pub label_smoothing: f32,
    pub z_loss: f32,
    pub denominator: Denominator,
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointOptions {
    pub every_steps: u64,
    /// The newest ones that are kept; the best one is kept beside them.
    pub keep_last: usize,
    /// Of the exponential moving average of the parameters; 0 keeps none.
    pub average_decay: f64,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub every_steps: u64,
    pub tensorboard: bool,
}

/// Evaluation on the tasks' dev examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// 0: never during training.
    pub every_steps: u64,
    /// Examples of each task during training.
    pub examples: usize,
    /// 1 is greedy.
    pub beam_size: usize,
    pub length_penalty: f32,
    pub max_tokens: usize,
    /// What makes a checkpoint the best one: "loss", or TASK/METRIC; of several, with commas between them, the mean.
    pub best_by: String,
    /// Evaluations in a row without a better one after which a run ends early; 0: it never does.
    pub patience: u64,
}

impl Evaluation {
    /// What `best_by` names.
    pub fn best_names(&self) -> impl Iterator<Item = &str> {
        self.best_by.split(',').map(str::trim)
    }
}

impl Config {
    /// The base with a file's and the command line's changes. Relative paths stay as they are written.
    ///
    /// # Errors
    /// Where the file cannot be read or is not TOML, a key is unknown, or a value has the wrong type or range.
    pub fn load(path: &Path, sets: &[String]) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Config::parse(&path.display().to_string(), &text, sets)
    }

    /// As [`Config::load`], from a text; `file` names it in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str, sets: &[String]) -> Result<Config> {
        let mut table = base();
        let changes: Table = text.parse().map_err(|error: toml::de::Error| {
            Error::config(file, "TOML", error.to_string().trim_end().replace('\n', " "))
        })?;
        if let Some(size) = size(&changes, sets) {
            merge(&mut table, &published(file, &size)?, file)?;
        }
        merge(&mut table, &changes, file)?;
        for set in sets {
            let Some((key, value)) = set.split_once('=') else {
                return Err(Error::config("override", set.as_str(), "expected key=value"));
            };
            merge(&mut table, &nested(key.trim(), value.trim()), "override")?;
        }
        let config = Config::from_table(file, table)?;
        config.check(file)?;
        Ok(config)
    }

    /// The configuration of the run in a folder, as it began; `None` where there is none.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn kept(output: &Path) -> Result<Option<Config>> {
        let path = output.join(KEPT);
        path.exists().then(|| Config::load(&path, &[])).transpose()
    }

    /// The keys of which two ranks of a run have different values. The number of threads and where data lie may differ.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn differences_of_ranks(&self, other: &Config) -> Result<Vec<String>> {
        let neutral = |config: &Config| {
            let mut config = config.clone();
            config.run.threads = 0;
            config.data.dir = PathBuf::new();
            Value::try_from(config).map_err(|error| Error::Invalid(format!("configuration: {error}")))
        };
        let mut differences = Vec::new();
        compare(&neutral(self)?, &neutral(other)?, "", &mut differences);
        Ok(differences.iter().filter_map(|line| Some(line.split_once(" was ")?.0.to_owned())).collect())
    }

    fn from_table(file: &str, table: Table) -> Result<Config> {
        serde_path(Value::Table(table)).map_err(|what| Error::config(file, "configuration", what))
    }

    /// The configuration as TOML, every knob in it.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|error| Error::Invalid(format!("configuration: {error}")))
    }

    /// Refuses values out of range before anything is computed from them.
    fn check(&self, file: &str) -> Result<()> {
        let short = |value: f64| match value.abs() {
            0.0 | 1e-6..1e15 => format!("{value}"),
            _ => format!("{value:e}"),
        };
        let in_range = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                let what = format!("expected {} to {}, found {}", short(low), short(high), short(value));
                Err(Error::config(file, key, what))
            }
        };
        in_range("run.steps", self.run.steps as f64, 1.0, 1e12)?;
        in_range("run.start_step", self.run.start_step as f64, 0.0, 1e12)?;
        in_range("run.accumulate", self.run.accumulate as f64, 1.0, 1e6)?;
        in_range("run.threads", self.run.threads as f64, 0.0, 1024.0)?;
        in_range("model.dropout", self.model.dropout as f64, 0.0, 0.99)?;
        in_range("model.initializer_factor", self.model.initializer_factor as f64, 0.0, 1e3)?;
        in_range("loss.label_smoothing", self.loss.label_smoothing as f64, 0.0, 1.0)?;
        in_range("loss.z_loss", self.loss.z_loss as f64, 0.0, 1.0)?;
        in_range("distill.weight", self.distill.weight as f64, 0.0, 1.0)?;
        in_range("distill.temperature", self.distill.temperature as f64, 0.01, 1e3)?;
        in_range("distill.top_k", self.distill.top_k as f64, 1.0, 1e6)?;
        in_range("distill.cache_gb", self.distill.cache_gb, 0.0, 1e6)?;
        in_range("optimizer.clip_norm", self.optimizer.clip_norm, 0.0, f64::MAX)?;
        in_range("optimizer.layer_decay", self.optimizer.layer_decay, 0.0, 1.0)?;
        in_range("optimizer.weight_decay", self.optimizer.weight_decay, 0.0, 1.0)?;
        // At 1 nothing is ever forgotten, and the correction for that divides by zero.
        in_range("optimizer.beta1", self.optimizer.beta1, 0.0, 0.999_999_9)?;
        in_range("optimizer.beta2", self.optimizer.beta2, 0.0, 0.999_999_9)?;
        in_range("optimizer.decay_exponent", self.optimizer.decay_exponent, 0.0, 10.0)?;
        // Gradients of zero, such as those of rows that no text has, are divided by these alone, in f32.
        in_range("optimizer.epsilon", self.optimizer.epsilon, 1e-37, 1.0)?;
        in_range("optimizer.epsilon_gradient", self.optimizer.epsilon_gradient, 1e-37, 1.0)?;
        in_range("optimizer.epsilon_scale", self.optimizer.epsilon_scale, 0.0, 1e3)?;
        in_range("optimizer.clip_update", self.optimizer.clip_update, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("schedule.peak_rate", self.schedule.peak_rate, 0.0, 1e6)?;
        in_range("schedule.final_rate", self.schedule.final_rate, 0.0, 1e6)?;
        in_range("schedule.cycles", self.schedule.cycles as f64, 1.0, 1e4)?;
        in_range("schedule.cycle_growth", self.schedule.cycle_growth, 1e-3, 1e3)?;
        let falls = matches!(self.schedule.kind, schedule::Shape::Linear | schedule::Shape::Cosine);
        if self.schedule.cycles > 1 && !falls {
            let what = format!("expected 1, since only linear and cosine fall, found {}", self.schedule.cycles);
            return Err(Error::config(file, "schedule.cycles", what));
        }
        in_range("checkpoint.every_steps", self.checkpoint.every_steps as f64, 1.0, 1e12)?;
        in_range("checkpoint.keep_last", self.checkpoint.keep_last as f64, 1.0, 1e6)?;
        in_range("checkpoint.average_decay", self.checkpoint.average_decay, 0.0, 0.999_999_9)?;
        in_range("log.every_steps", self.log.every_steps as f64, 1.0, 1e12)?;
        in_range("evaluation.beam_size", self.evaluation.beam_size as f64, 1.0, 64.0)?;
        in_range("evaluation.max_tokens", self.evaluation.max_tokens as f64, 1.0, 1e6)?;
        if self.run.recompute_blocks && self.run.device == DeviceChoice::Cuda {
            return Err(Error::config(file, "run.recompute_blocks", "expected false with run.device = \"cuda\""));
        }
        self.tuning.check(file, self)?;
        if self.optimizer.keep_slots {
            let refuse = |what: &str| -> Result<()> { Err(Error::config(file, "optimizer.keep_slots", what)) };
            if self.model.from.is_empty() {
                return refuse(
                    "expected model.from, the checkpoint of a run whose optimiser's state is kept; found none",
                );
            }
            match self.optimizer.kind {
                // Its beta2 is 0 at step 0: kept state would be forgotten at once.
                optimizer::Method::Adafactor if self.run.start_step <= self.optimizer.step_offset => refuse(
                    "expected run.start_step above optimizer.step_offset, or the first step forgets what is kept",
                )?,
                // Moments that do not say how many updates they are of would be taken for those of the first one.
                optimizer::Method::AdamW | optimizer::Method::AdamWRms if self.run.start_step == 0 => {
                    refuse("expected run.start_step above 0, the steps that the kept state is of")?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the scores of evaluations depend on beside the model, in words: those of one measure can be compared.
    pub fn measure(&self) -> String {
        let Evaluation { examples, beam_size, length_penalty, max_tokens, best_by, .. } = &self.evaluation;
        let mut text = format!("{best_by} of {examples} examples");
        if self.evaluation.best_names().any(|name| name != "loss") {
            text += &format!(", {beam_size} beams, length penalty {length_penalty}, {max_tokens} tokens at most");
        }
        for task in self.data.tasks.iter().filter(|task| task.merge_references) {
            text += &format!(", merged references of {}", task.name);
        }
        text
    }

    /// The keys whose change would make a resumed run another run, with both values.
    ///
    /// Logging, threads, evaluation, where the data lies and how often checkpoints are made may change; so may the
    /// number of steps where neither the schedule nor what is trained depends on it.
    pub fn differences(&self, other: &Config) -> Result<Vec<String>> {
        let neutral = |config: &Config| {
            let mut config = config.clone();
            config.run.output = PathBuf::new();
            config.run.threads = 0;
            config.run.compare_steps = 0;
            config.run.recompute_blocks &= config.model.share_stacks;
            config.log = Log { every_steps: 1, tensorboard: false };
            config.checkpoint.every_steps = 1;
            config.checkpoint.keep_last = 1;
            config.evaluation = self.evaluation.clone();
            config.data.dir = PathBuf::new();
            config.distill.cache = String::new();
            config.distill.cache_gb = 0.0;
            config.data.tasks.iter_mut().for_each(|task| task.merge_references = false);
            config.vocabulary = VocabularyConfig::default();
            let any_length =
                matches!(config.schedule.kind, schedule::Shape::Constant | schedule::Shape::InverseSquareRoot);
            if any_length && !config.tuning.divides_the_run() {
                config.run.steps = 1;
            }
            Value::try_from(config).map_err(|error| Error::Invalid(format!("configuration: {error}")))
        };
        let mut differences = Vec::new();
        compare(&neutral(self)?, &neutral(other)?, "", &mut differences);
        Ok(differences)
    }
}

/// The names of the published sizes.
pub fn sizes() -> Vec<String> {
    sizes_table().keys().cloned().collect()
}

fn sizes_table() -> Table {
    SIZES.parse().unwrap_or_else(|error| panic!("configs/sizes.toml: {error}"))
}

/// The size that a file or the command line names, if one does.
fn size(changes: &Table, sets: &[String]) -> Option<String> {
    let set = sets.iter().rev().find_map(|set| given(set, "model", "size"));
    let named = set.or_else(|| changes.get("model")?.get("size").cloned())?;
    named.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The value that KEY=VALUE gives a knob of a section, by its name or in a table.
pub(crate) fn given(set: &str, section: &str, key: &str) -> Option<Value> {
    let (name, value) = set.split_once('=')?;
    nested(name.trim(), value.trim()).remove(section)?.as_table_mut()?.remove(key)
}

/// A published size as changes of the base.
fn published(file: &str, size: &str) -> Result<Table> {
    let Some(values) = sizes_table().remove(size) else {
        let what = format!("expected one of {}, found {size}", sizes().join(", "));
        return Err(Error::config(file, "model.size", what));
    };
    Ok(Table::from_iter([("model".to_owned(), values)]))
}

fn base() -> Table {
    BASE.parse().unwrap_or_else(|error| panic!("configs/base.toml: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::flatten;

    fn message(text: &str, sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::parse("run.toml", text, &sets).unwrap_err().to_string()
    }

    #[test]
    fn the_base_is_complete() {
        let config = Config::parse("run.toml", "", &[]).unwrap();
        // What is written out is read back as the same run, so every knob has a key.
        assert_eq!(Config::parse("again.toml", &config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn paper_toml_has_the_paper_s_knobs() {
        let paper = include_str!("../configs/paper.toml");
        let config = Config::parse("paper.toml", paper, &[]).unwrap();
        config.data.check().unwrap();
        assert!(config.model.dropout_shared_over_length && config.loss.denominator == Denominator::Positions);
        assert_eq!((config.model.dropout, config.loss.z_loss, config.loss.label_smoothing), (0.1, 1e-4, 0.0));
        assert_eq!((config.model.feed_forward.as_str(), config.model.initial_values), ("relu", Scheme::Mesh));
        let optimizer = &config.optimizer;
        assert_eq!(optimizer.kind, optimizer::Method::Adafactor);
        assert_eq!((optimizer.decay_exponent, optimizer.clip_update, optimizer.epsilon_scale), (0.8, 1.0, 1e-3));
        assert!(optimizer.scale_parameter && optimizer.clip_norm == 0.0 && optimizer.factored_min_side == 128);
        // 1 / sqrt(max(step, 10^4)).
        let rate = |step: u64| config.schedule.rate(step, config.run.steps);
        assert!((rate(0) - 0.01).abs() < 1e-12 && (rate(40_000) - 0.005).abs() < 1e-12);
        let task = &config.data.tasks[0];
        let crate::tasks::Examples::Denoise { objective, concatenate, .. } = &task.examples else { panic!("{task:?}") };
        assert!(*concatenate && objective.segment_length(config.data.inputs_length, config.data.targets_length) == 568);

        // The base says of each of these knobs what the paper has.
        let changes: Table = paper.parse().unwrap();
        let mut keys = Vec::new();
        flatten(&changes, "", &mut keys);
        let silent = ["run", "model", "data", "data.batches", "data.tasks", "vocabulary", "loss", "checkpoint"];
        let not_in_comments = ["checkpoint.every_steps"];
        for key in keys.iter().filter(|key| !silent.contains(&key.as_str()) && !not_in_comments.contains(&key.as_str()))
        {
            let name = key.rsplit('.').next().unwrap();
            let line = BASE.lines().find(|line| line.starts_with(&format!("{name} = ")) && line.contains("paper: "));
            assert!(line.is_some(), "base.toml does not say how {key} differs");
        }
    }

    #[test]
    fn kept_slots_need_a_checkpoint_and_a_step() {
        let keep = "[optimizer]\nkeep_slots = true";
        assert!(message(keep, &[]).contains("optimizer.keep_slots: expected model.from"));
        assert!(message(keep, &["model.from=a"]).contains("expected run.start_step above optimizer.step_offset"));
        let parse = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            Config::parse("run.toml", keep, &sets)
        };
        assert!(parse(&["model.from=a", "run.start_step=5"]).is_ok());
        for kind in ["optimizer.kind=adamw", "optimizer.kind=adamw-rms"] {
            let expected = "optimizer.keep_slots: expected run.start_step above 0";
            assert!(message(keep, &["model.from=a", kind]).contains(expected), "{kind}");
            assert!(parse(&["model.from=a", kind, "run.start_step=5"]).is_ok(), "{kind}");
        }
    }

    #[test]
    fn a_file_and_the_command_line_override() {
        let sets = ["optimizer.kind=adamw".to_owned(), "run.seed=9".to_owned(), "loss.z_loss=0".to_owned()];
        let config = Config::parse("run.toml", "[run]\nseed = 4\nsteps = 7\n", &sets).unwrap();
        assert_eq!((config.run.seed, config.run.steps), (9, 7));
        assert_eq!(config.optimizer.kind, optimizer::Method::AdamW);
        assert_eq!(config.loss.z_loss, 0.0);
    }

    #[test]
    fn a_size_is_read_wherever_it_is_named() {
        for sets in [["model.size=t5-large", "run.seed=2"], ["model={size=\"t5-large\"}", "model={dropout=0}"]] {
            let sets = sets.map(str::to_owned);
            let config = Config::parse("run.toml", "[model]\nsize = \"t5-base\"", &sets).unwrap();
            assert_eq!((config.model.size.as_str(), config.model.d_model), ("t5-large", 1024), "{sets:?}");
        }
        assert!(message("", &["model={size=\"t5-huge\"}"]).contains("model.size: expected one of "));
        assert!(message("", &["model.size=5"]).contains("model.size: expected a value like "));
    }

    #[test]
    fn bad_keys_and_values_are_named() {
        assert_eq!(
            message("[schedule]\nwarmup_step = 3", &[]),
            "run.toml: schedule.warmup_step: unknown key; did you mean schedule.warmup_steps?"
        );
        assert_eq!(message("", &["run.dmodel=4"]), "override: run.dmodel: unknown key; did you mean model.d_model?");
        assert_eq!(message("", &["zebra=4"]), "override: zebra: unknown key");
        assert_eq!(message("", &["run.seed"]), "override: run.seed: expected key=value");
        assert!(message("[run]\nsteps = \"many\"", &[]).contains("run.steps: expected a value like"));
        assert!(message("[run]\nsteps = 0", &[]).contains("run.steps: expected 1 to"));
        assert!(message("[optimizer]\nkind = \"adamv\"", &[]).contains("did you mean adamw?"));
        for (set, expected) in [
            ("beta1=1", "expected 0 to 0.9999999, found 1"),
            ("beta2=1", "expected 0 to 0.9999999, found 1"),
            ("decay_exponent=-0.8", "expected 0 to 10, found -0.8"),
            ("epsilon=-1", "expected 1e-37 to 1, found -1"),
            ("epsilon_gradient=0", "expected 1e-37 to 1, found 0"),
            ("epsilon_scale=nan", "expected 0 to 1000, found NaN"),
        ] {
            let (key, _) = set.split_once('=').unwrap();
            assert_eq!(message("", &[&format!("optimizer.{set}")]), format!("run.toml: optimizer.{key}: {expected}"));
        }
        assert!(message("[run\n", &[]).contains("TOML"));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_in_is_refused() {
        let config = Config::parse("run.toml", "", &["run.device=cuda".to_owned()]).unwrap();
        assert!(config.run.device.device(0).unwrap_err().to_string().contains("built without --features cuda"));
        assert_eq!(message("", &["run.device=gpu"]), "run.toml: configuration: gpu is not known; did you mean cpu?");
    }

    #[test]
    fn differences_name_what_matters() {
        let one = Config::parse("run.toml", "", &[]).unwrap();
        let sets = ["log.every_steps=7".to_owned(), "run.threads=2".to_owned(), "run.seed=2".to_owned()];
        let other = Config::parse("run.toml", "", &sets).unwrap();
        assert_eq!(one.differences(&other).unwrap(), ["run.seed was 1 and is 2"]);
        assert_eq!(one.differences(&one).unwrap(), Vec::<String>::new());
        // How long a run is matters where its episodes are shares of it.
        for (episode, differs) in [("tuning.episode_steps=0", true), ("tuning.episode_steps=5", false)] {
            let [short, long] = ["run.steps=6", "run.steps=9"].map(|steps| {
                let sets = ["tuning.method=gradual", episode, steps].map(str::to_owned);
                Config::parse("run.toml", "", &sets).unwrap()
            });
            let expected = differs.then(|| "run.steps was 6 and is 9".to_owned());
            assert_eq!(short.differences(&long).unwrap(), Vec::from_iter(expected), "{episode}");
        }
    }
}
