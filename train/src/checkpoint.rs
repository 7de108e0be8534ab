//! Checkpoints of a run: folders `step-NNNNNNNN`, each a Hugging Face model folder plus the optimiser's state, the
//! data position and the running averages. A resumed run continues bit by bit.
//!
//! A folder appears under its name by one rename after everything in it is on the disk, so a folder that exists is
//! complete, whenever the process was killed. Old folders go only after a new one has appeared.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, TensorFile};
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::record::number_or_nan;
use crate::{Error, Result};

/// Everything of a run that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Encoder and decoder tokens trained on.
    pub tokens: u64,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// The data position, as [`crate::batches::BatchSource::state`] gave it.
    pub data: serde_json::Value,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Sums since the last log record.
    pub interval: Interval,
}

/// An evaluation that was the best so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    /// Larger is better; losses are negated.
    #[serde(deserialize_with = "number_or_nan")]
    pub score: f64,
    /// What it was measured by, as [`crate::config::Config::measure`] says it, and on which dev examples. Earlier
    /// versions did not note it.
    #[serde(default)]
    pub by: String,
}

/// Sums over the steps since the last log record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub negative_log_likelihood: f64,
    pub z_loss: f64,
    pub correct: f64,
    pub weight: f64,
    #[serde(default)]
    pub divergence: f64,
    pub tokens: u64,
    pub seconds: f64,
    /// Only of runs with several ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// What several ranks took for the steps of an [`Interval`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// That each rank handed to the others.
    pub bytes: u64,
    /// That the first rank spent exchanging, and waiting for others to do so.
    pub exchange_seconds: f64,
    /// Of all ranks together.
    pub rank_seconds: f64,
    /// That one rank would have needed: the passes of all, and of the rest what the first one did.
    pub alone_seconds: f64,
}

/// The tensors of a checkpoint.
pub struct Tensors<'a> {
    pub model: &'a Model,
    pub optimizer: &'a Optimizer,
    /// The exponential moving average of the parameters, where the run keeps one.
    pub average: Option<&'a [Vec<f32>]>,
}

/// The checkpoints of one run.
pub struct Checkpoints {
    folder: PathBuf,
    keep_last: usize,
}

/// The weights' file, in a checkpoint as in a Hugging Face folder.
pub const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const AVERAGE: &str = "average.safetensors";
const STATE: &str = "state.json";

impl Checkpoints {
    /// The checkpoints in a folder, of which the newest `keep_last` and the best are kept.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn open(folder: &Path, keep_last: usize) -> Result<Checkpoints> {
        files::create_folder(folder)?;
        Ok(Checkpoints { folder: folder.to_owned(), keep_last: keep_last.max(1) })
    }

    /// Steps that have a checkpoint, ascending.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let name = entry.map_err(Error::io(&self.folder))?.file_name();
            if let Some(step) = name.to_str().and_then(|name| name.strip_prefix("step-")) {
                steps.extend(step.parse::<u64>());
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The folder of a step's checkpoint.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// Saves a checkpoint and then removes those that need not be kept. `extra` are files to put beside, as
    /// (name, contents): the model's configuration and vocabulary.
    ///
    /// # Errors
    /// Where the disk is full or the folder cannot be written; checkpoints saved before are then all still there.
    pub fn save(&self, state: &State, tensors: &Tensors, extra: &[(String, Vec<u8>)]) -> Result<PathBuf> {
        let partial = self.folder.join(format!(".partial-{:08}", state.step));
        let done = self.path(state.step);
        let saved = write(&partial, state, tensors, extra).and_then(|()| {
            if done.exists() {
                // There is one only if the run went back to an earlier step and comes by again.
                fs::remove_dir_all(&done).map_err(Error::io(&done))?;
            }
            fs::rename(&partial, &done).map_err(Error::io(&done))?;
            files::sync_parent(&done)
        });
        if saved.is_err() {
            // Frees the space of the failed attempt. The first error is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        saved?;
        self.prune(state)?;
        Ok(done)
    }

    fn prune(&self, state: &State) -> Result<()> {
        let steps = self.steps()?;
        let old = steps.len().saturating_sub(self.keep_last);
        let best = state.best.as_ref().map(|best| best.step);
        for &step in steps[..old].iter().filter(|&&step| Some(step) != best) {
            // Renamed first, so that a kill in the middle leaves no half folder under a valid name.
            let (path, hidden) = (self.path(step), self.folder.join(format!(".removed-{step:08}")));
            fs::rename(&path, &hidden).map_err(Error::io(&path))?;
            fs::remove_dir_all(&hidden).map_err(Error::io(&hidden))?;
        }
        Ok(())
    }

    /// Removes what a killed process left half done.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn clean(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(".partial-") || name.starts_with(".removed-") {
                fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }
}

fn write(folder: &Path, state: &State, tensors: &Tensors, extra: &[(String, Vec<u8>)]) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io(folder))?;
    }
    files::create_folder(folder)?;
    write_model(&folder.join(MODEL), tensors.model, None)?;
    if let Some(average) = tensors.average {
        write_model(&folder.join(AVERAGE), tensors.model, Some(average))?;
    }
    tensors.model.write_adapter(folder)?;
    let slots = tensors.optimizer.state(&tensors.model.trained());
    let shapes: Vec<[usize; 1]> = slots.iter().map(|(_, values)| [values.len()]).collect();
    let slots = slots.into_iter().zip(&shapes).map(|((name, values), shape)| (name, &shape[..], Cow::Borrowed(values)));
    files::write_tensors(&folder.join(OPTIMIZER), slots)?;
    for (name, contents) in extra {
        files::write_synced(&folder.join(name), contents)?;
    }
    let json = serde_json::to_vec_pretty(state).map_err(|error| Error::Invalid(format!("state: {error}")))?;
    files::write_synced(&folder.join(STATE), &json)?;
    // The names in the folder have to be on the disk before the folder gets its own.
    files::sync_parent(&folder.join(STATE))
}

/// Writes the parameters, or other values for them, under their Hugging Face names. What stacks share is written for
/// each, as readers expect it.
///
/// # Errors
/// Where the disk is full.
pub fn write_model(path: &Path, model: &Model, values: Option<&[Vec<f32>]>) -> Result<()> {
    let own = model.specs().iter().enumerate().map(|(index, spec)| (spec, index));
    let tensors: Vec<_> = own
        .chain(model.shared().iter().map(|(spec, index)| (spec, *index)))
        .map(|(spec, index)| {
            let values = match values {
                Some(values) => Cow::Borrowed(values[index].as_slice()),
                None => Cow::Owned(model.values(index)?),
            };
            Ok((spec.hf_name.clone(), spec.shape.as_slice(), values))
        })
        .collect::<Result<_>>()?;
    files::write_tensors(path, tensors)
}

/// A checkpoint that is being read.
pub struct Saved {
    folder: PathBuf,
    pub state: State,
}

impl Saved {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// Where it is not one, or damaged.
    pub fn open(folder: &Path) -> Result<Saved> {
        let path = folder.join(STATE);
        let json = fs::read(&path).map_err(Error::io(&path))?;
        let mut state: State = serde_json::from_slice(&json).map_err(|error| Error::file(&path, error.to_string()))?;
        // Earlier versions could record NaN as the best score, which no later score would beat.
        state.best = state.best.filter(|best| !best.score.is_nan());
        Ok(Saved { folder: folder.to_owned(), state })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The parameters' file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn model(&self) -> Result<TensorFile> {
        TensorFile::open(&self.folder.join(MODEL))
    }

    /// The averaged parameters, where the run keeps them.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn average(&self) -> Result<Option<TensorFile>> {
        let path = self.folder.join(AVERAGE);
        path.exists().then(|| TensorFile::open(&path)).transpose()
    }

    /// The optimiser's file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn optimizer(&self) -> Result<TensorFile> {
        optimizer_file(&self.folder)
    }
}

/// The optimiser's file of a checkpoint folder.
///
/// # Errors
/// Where it cannot be read.
pub fn optimizer_file(folder: &Path) -> Result<TensorFile> {
    TensorFile::open(&folder.join(OPTIMIZER))
}
