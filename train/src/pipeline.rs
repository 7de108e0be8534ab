//! From a configuration to what a run is made of: vocabulary, tasks, batches and model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use t5_runtime::config::T5Config;
use t5_runtime::schema::{Stack, TensorId};

use crate::batches::{Batch, TaskBatches};
use crate::config::Config;
use crate::distill::Teacher;
use crate::evaluate::{self, RuntimeEvaluator};
use crate::model::Model;
use crate::random::derive;
use crate::ranks::Ranks;
use crate::tasks::{Example, Task};
use crate::tuning::Method;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result, export, files, parameters};

/// Streams of random numbers that belong to a run.
pub(crate) mod stream {
    pub const DATA: u64 = 1;
    pub const VALUES: u64 = 2;
    pub const FACTORS: u64 = 3;
}

/// What the data half of a run is made of.
pub struct Pipeline {
    pub vocabulary: Arc<Vocabulary>,
    pub tasks: Arc<Vec<Task>>,
}

impl Pipeline {
    /// Reads the vocabulary and every task's files.
    ///
    /// # Errors
    /// Where a file is missing or malformed, there is no task, or a task's metrics are not for it.
    pub fn load(config: &Config) -> Result<Pipeline> {
        evaluate::check_metrics(&config.data.tasks)?;
        let vocabulary = Vocabulary::read(&vocabulary_path(config)?)?;
        let tasks = config.data.load(&vocabulary, derive(config.run.seed, &[stream::DATA]))?;
        Ok(Pipeline { vocabulary: Arc::new(vocabulary), tasks: Arc::new(tasks) })
    }

    /// The endless stream of training batches.
    ///
    /// # Errors
    /// Where the mixture has no task, or the batching's knobs do not fit the examples.
    pub fn batches(&self, config: &Config) -> Result<TaskBatches> {
        let seed = derive(config.run.seed, &[stream::DATA]);
        config.data.batches(self.tasks.clone(), self.vocabulary.clone(), seed)
    }

    /// What judges a model on the first `examples` dev examples of each task; 0 takes all.
    pub fn evaluator(&self, config: &Config, examples: usize) -> RuntimeEvaluator {
        let (tasks, vocabulary) = (self.tasks.clone(), self.vocabulary.clone());
        RuntimeEvaluator { tasks, vocabulary, options: config.evaluation.clone(), examples, ranks: Ranks::ALONE }
    }

    /// Compares the program, the configuration and all that was read on the ranks of a run.
    ///
    /// # Errors
    /// Where they differ: all ranks get the same error.
    pub fn expect_same(&self, config: &Config, ranks: Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let all = ranks.gather(config.to_toml()?.as_bytes());
        let read = |text: &[u8]| Config::parse("a rank's configuration", &String::from_utf8_lossy(text), &[]);
        let first = read(&all[0])?;
        for (rank, other) in all.iter().enumerate() {
            let keys = first.differences_of_ranks(&read(other)?)?;
            if !keys.is_empty() {
                let what = "expected the same configuration on all ranks, found another on rank";
                return Err(Error::Ranks(format!("{what} {rank} than 0: {}", keys.join(", "))));
            }
        }
        let path = std::env::current_exe().map_err(|error| Error::Invalid(format!("this program: {error}")))?;
        ranks.expect_same("program", &Sha256::digest(std::fs::read(&path).map_err(Error::io(&path))?))?;
        let vocabulary = self.vocabulary.file()?.unwrap_or_else(|| self.vocabulary.fingerprint().into_bytes());
        ranks.expect_same("vocabulary", &Sha256::digest(vocabulary))?;
        for task in self.tasks.iter() {
            let contents = task.digest() + &task.dev_digest();
            ranks.expect_same(&format!("data of the task {}", task.config.name), contents.as_bytes())?;
        }
        Ok(())
    }

    /// A name for what was read for evaluation, the same on every machine: eight digits of a digest.
    pub fn dev_name(&self) -> String {
        let digests: String = self.tasks.iter().map(Task::dev_digest).collect();
        files::hex(&Sha256::digest(digests)[..4])
    }

    /// Batches of the first `examples` dev examples of each task, in order; 0 takes all.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn dev_batches(&self, examples: usize) -> Result<Vec<Batch>> {
        const ROWS: usize = 32;
        let mut batches = Vec::new();
        for task in self.tasks.iter() {
            let mut tokens = task.dev_tokens(&self.vocabulary);
            if examples > 0 {
                tokens.truncate(examples);
            }
            // Similar lengths side by side waste less memory; the mean does not depend on the order.
            tokens.sort_by_key(|example| (example.inputs.len(), example.targets.len()));
            for rows in tokens.chunks(ROWS) {
                let rows: Vec<Vec<&Example>> = rows.iter().map(|example| vec![example]).collect();
                batches.push(Batch::of_rows(&rows, 0, 0));
            }
        }
        Ok(batches)
    }
}

/// Where the vocabulary of a run is.
pub(crate) fn vocabulary_path(config: &Config) -> Result<PathBuf> {
    match (config.model.vocabulary.as_str(), config.model.from.as_str()) {
        ("", "") => {
            let what = "expected a tokenizer.json (t5-train vocab makes one), bytes, or model.from, found none of them";
            Err(Error::config("configuration", "model.vocabulary", what))
        }
        ("", from) => Ok(PathBuf::from(from)),
        (vocabulary, _) => Ok(PathBuf::from(vocabulary)),
    }
}

/// The configuration of a run's model, which is not made. Where neither a vocabulary nor a checkpoint is named,
/// `model.rows` says how many rows there are.
///
/// # Errors
/// Where the checkpoint or the vocabulary cannot be read, or nothing says how many rows there are.
pub fn t5_config(config: &Config) -> Result<T5Config> {
    let model = &config.model;
    if !model.from.is_empty() {
        let found = t5_quantize::pytorch::open(Path::new(&model.from))?.config;
        let adapters = (config.tuning.method == Method::Adapters).then(|| config.tuning.adapters());
        return Ok(T5Config { adapters: adapters.or(found.adapters), ..found });
    }
    let pieces = match model.vocabulary.as_str() {
        "" if model.rows > 0 => model.rows,
        _ => Vocabulary::read(&vocabulary_path(config)?)?.size() as usize,
    };
    model.t5_config("configuration", pieces)
}

/// The model that a run starts from.
///
/// # Errors
/// Where the checkpoint cannot be read or does not fit the vocabulary.
pub fn model(config: &Config, vocabulary: &Vocabulary) -> Result<Model> {
    let pieces = vocabulary.size() as usize;
    if config.model.from.is_empty() {
        let t5_config = config.model.t5_config("configuration", pieces)?;
        let model = Model::new(&t5_config, config.model.initial_values, derive(config.run.seed, &[stream::VALUES]))?;
        let model = model.recomputing_blocks(config.run.recompute_blocks);
        return if config.model.share_stacks { model.with_shared_stacks() } else { Ok(model) };
    }
    let checkpoint = t5_quantize::pytorch::open(Path::new(&config.model.from))?;
    let rows = checkpoint.config.vocab_size;
    if pieces > rows {
        let what = format!("its {pieces} ids do not fit the {rows} rows of {}", config.model.from);
        return Err(Error::file(vocabulary.path(), what));
    }
    if checkpoint.vocabulary.is_some()
        && let Some(difference) = vocabulary.difference(&checkpoint)?
    {
        let what = format!("is not the vocabulary that {} was trained with, {difference}", config.model.from);
        return Err(Error::file(vocabulary.path(), what));
    }
    let mut model = Model::from_checkpoint(&checkpoint)?;
    if config.model.share_stacks {
        if let Some(name) = difference_of_stacks(&model)? {
            let what = format!("{name}: expected the values of the decoder, since model.share_stacks is true");
            return Err(Error::file(Path::new(&config.model.from), what));
        }
        model = model.with_shared_stacks()?;
    }
    let model = model.recomputing_blocks(config.run.recompute_blocks);
    match config.tuning.method {
        Method::Lora => {
            model.with_lora(&config.tuning, &config.model.from, derive(config.run.seed, &[stream::FACTORS]))
        }
        Method::Adapters => {
            let adapters = config.tuning.adapters();
            model.with_adapters(adapters, config.tuning.adapter_norms, derive(config.run.seed, &[stream::FACTORS]))
        }
        Method::All | Method::Gradual => Ok(model),
    }
}

/// The first tensor of the encoder's blocks that is not the decoder's, by name.
fn difference_of_stacks(model: &Model) -> Result<Option<String>> {
    let places: HashMap<TensorId, usize> = model.specs().iter().enumerate().map(|(i, spec)| (spec.id, i)).collect();
    for (index, spec) in model.specs().iter().enumerate().filter(|(_, spec)| parameters::is_shared(spec)) {
        let owner = places.get(&TensorId { stack: Some(Stack::Decoder), ..spec.id });
        if owner.map(|&owner| model.values(owner)).transpose()? != Some(model.values(index)?) {
            return Ok(Some(spec.hf_name.clone()));
        }
    }
    Ok(None)
}

/// The teacher that a run learns from, where it names one.
///
/// # Errors
/// As [`Teacher::open`], and for a student of one stack.
pub fn teacher(
    config: &Config,
    t5_config: &T5Config,
    vocabulary: &Vocabulary,
    ranks: Ranks,
) -> Result<Option<Teacher>> {
    let output = &config.run.output;
    let open = || {
        let options = config.distill.of_rank(output, ranks.rank());
        Teacher::open(&options, output, vocabulary, t5_config.vocab_size)
    };
    if !config.distill.teacher.is_empty() && t5_config.one_stack().is_some() {
        let what = format!("expected none for a student of one stack, found {}", config.distill.teacher);
        return Err(Error::config("configuration", "distill.teacher", what));
    }
    (!config.distill.teacher.is_empty()).then(open).transpose()
}

/// The files that make a folder of weights a Hugging Face model.
///
/// # Errors
/// Where the vocabulary cannot be read again.
pub fn model_files(config: &Config, t5_config: &T5Config, vocabulary: &Vocabulary) -> Result<Vec<(String, Vec<u8>)>> {
    Ok(export::model_files(t5_config, config.evaluation.max_tokens, vocabulary.file()?, vocabulary))
}

/// Makes the folder of a file.
///
/// # Errors
/// Where the operating system refuses.
pub fn create_parent(path: &Path) -> Result<()> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), files::create_folder)
}
