//! Export to a Hugging Face folder: `model.safetensors`, `config.json`, `generation_config.json`, `tokenizer.json` and
//! `tokenizer_config.json`, which the transformers library loads.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use t5_runtime::config::T5Config;
use t5_runtime::schema;

use crate::checkpoint::{Checkpoints, Saved};
use crate::files::{self, TensorFile};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Names of the files beside the weights.
const FILES: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// Everything of a Hugging Face folder but the weights, as (name, contents).
pub fn model_files(
    config: &T5Config,
    max_new_tokens: usize,
    tokenizer: Vec<u8>,
    vocabulary: &Vocabulary,
) -> Vec<(String, Vec<u8>)> {
    let pretty = |value: &serde_json::Value| format!("{value:#}\n").into_bytes();
    let generation = json!({
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "max_new_tokens": max_new_tokens,
    });
    let sentinels: Vec<String> = (0..vocabulary.sentinels().count).map(|n| format!("<extra_id_{n}>")).collect();
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": sentinels,
        "clean_up_tokenization_spaces": false,
    });
    let contents = [pretty(&config.to_json()), pretty(&generation), tokenizer, pretty(&tokenizer_config)];
    FILES.iter().map(|name| (*name).to_owned()).zip(contents).collect()
}

/// Which weights are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// The moving average where the run keeps one, else the parameters.
    Best,
    /// The parameters.
    Current,
    /// The mean over the last so many checkpoints.
    MeanOfLast(usize),
}

/// Writes a run's checkpoint as a Hugging Face folder. `step`: which one; `None`: the best, or the newest where there
/// was no evaluation. Returns the step.
///
/// # Errors
/// Where there is no such checkpoint, or the folder cannot be written.
pub fn export(run: &Path, step: Option<u64>, weights: Weights, output: &Path) -> Result<u64> {
    let checkpoints = Checkpoints::open(&run.join("checkpoints"), 1)?;
    let steps = checkpoints.steps()?;
    let newest = *steps.last().ok_or_else(|| Error::file(run, "expected a run with checkpoints, found none"))?;
    let best = Saved::open(&checkpoints.path(newest))?.state.best.map(|best| best.step);
    let chosen = match (step, weights) {
        (Some(step), _) if !steps.contains(&step) => {
            return Err(Error::file(
                run,
                format!("expected a checkpoint of one of the steps {steps:?}, found no {step}"),
            ));
        }
        (Some(step), _) => step,
        (None, Weights::MeanOfLast(_)) => newest,
        (None, _) => best.filter(|best| steps.contains(best)).unwrap_or(newest),
    };
    let folder = checkpoints.path(chosen);
    let config = fs::read_to_string(folder.join("config.json")).map_err(Error::io(folder.join("config.json")))?;
    let config = T5Config::from_json(&folder.join("config.json").display().to_string(), &config)?;

    let sources: Vec<TensorFile> = match weights {
        Weights::Current => vec![Saved::open(&folder)?.model()?],
        Weights::Best => {
            let saved = Saved::open(&folder)?;
            vec![saved.average()?.map_or_else(|| saved.model(), Ok)?]
        }
        Weights::MeanOfLast(count) => {
            let until: Vec<PathBuf> =
                steps.iter().filter(|&&step| step <= chosen).map(|&step| checkpoints.path(step)).collect();
            if count == 0 || count > until.len() {
                let what = format!("expected 1 to {} checkpoints to average, found {count}", until.len());
                return Err(Error::file(run, what));
            }
            until[until.len() - count..].iter().map(|folder| Saved::open(folder)?.model()).collect::<Result<_>>()?
        }
    };
    files::create_folder(output)?;
    let specs = schema::tensors(&config);
    let tensors = specs
        .iter()
        .map(|spec| Ok((spec.hf_name.clone(), spec.shape.as_slice(), Cow::Owned(mean(&sources, &spec.hf_name)?))))
        .collect::<Result<Vec<_>>>()?;
    files::write_tensors(&output.join("model.safetensors"), tensors)?;
    for name in FILES {
        let path = folder.join(name);
        files::write_synced(&output.join(name), &fs::read(&path).map_err(Error::io(&path))?)?;
    }
    Ok(chosen)
}

/// The mean of a tensor over several files.
fn mean(sources: &[TensorFile], name: &str) -> Result<Vec<f32>> {
    let mut sum: Vec<f64> = Vec::new();
    for source in sources {
        let values = source.read(name)?;
        if sources.len() == 1 {
            return Ok(values);
        }
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(&values).for_each(|(sum, &value)| *sum += value as f64);
    }
    Ok(sum.into_iter().map(|sum| (sum / sources.len() as f64) as f32).collect())
}
