//! Export to a Hugging Face folder: `model.safetensors`, `config.json`, `generation_config.json`, `tokenizer.json` and
//! `tokenizer_config.json`, which the transformers library loads, and `spiece.model` for what reads SentencePiece
//! models alone, such as llama.cpp's converter, unless the vocabulary has added tokens. Bytes have neither of these
//! files: `tokenizer_config.json` says it.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;
use t5_quantize::adapter;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::schema;
use t5_runtime::tokenizer::{self, ByteVocabulary, Piece, PieceKind, UnigramVocabulary};

use crate::checkpoint::{self, Checkpoints, Saved};
use crate::files::{self, TensorFile};
use crate::model::Model;
use crate::vocabulary::{self, Vocabulary};
use crate::{Error, Result};

/// Names of the files beside the weights. A checkpoint has one of the two vocabularies, or none where it is bytes.
const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TOKENIZER: &str = "tokenizer.json";
const SENTENCEPIECE: &str = "spiece.model";

/// What says anything of a vocabulary in folders like ours and those of the transformers library.
const OF_VOCABULARIES: [&str; 4] = [TOKENIZER, SENTENCEPIECE, "added_tokens.json", "special_tokens_map.json"];

/// The tokenizer class of a vocabulary of bytes.
const OF_BYTES: &str = "ByT5Tokenizer";

/// Of a model that does not say how long its answers may be.
const MAX_NEW_TOKENS: usize = 128;

/// Everything of a Hugging Face folder but the weights, as (name, contents). `tokenizer` is the vocabulary's file, of
/// which bytes have none.
pub fn model_files(
    config: &T5Config,
    max_new_tokens: usize,
    tokenizer: Option<Vec<u8>>,
    vocabulary: &Vocabulary,
) -> Vec<(String, Vec<u8>)> {
    let pretty = |value: &serde_json::Value| format!("{value:#}\n").into_bytes();
    let generation = json!({
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "max_new_tokens": max_new_tokens,
    });
    let count = vocabulary.of_bytes().map_or(vocabulary.sentinels().count, |bytes| bytes.extra_ids);
    let sentinels: Vec<String> = (0..count).map(|n| format!("<extra_id_{n}>")).collect();
    let mut tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": sentinels,
        "clean_up_tokenization_spaces": false,
    });
    let is_sentencepiece = vocabulary::is_sentencepiece(vocabulary.path());
    if is_sentencepiece {
        // The class that reads such a file, and how many sentinels it appends.
        tokenizer_config["tokenizer_class"] = json!("T5Tokenizer");
        tokenizer_config["extra_ids"] = json!(count);
    }
    if let Some(bytes) = vocabulary.of_bytes() {
        tokenizer_config["tokenizer_class"] = json!(OF_BYTES);
        tokenizer_config["extra_ids"] = json!(count);
        if bytes.extra_ids_above {
            tokenizer_config["added_tokens_decoder"] = added_tokens(bytes);
        }
    }
    let name = if is_sentencepiece { SENTENCEPIECE } else { TOKENIZER };
    let mut files = vec![(CONFIG, pretty(&config.to_json())), (GENERATION_CONFIG, pretty(&generation))];
    files.extend(tokenizer.map(|contents| (name, contents)));
    files.push((TOKENIZER_CONFIG, pretty(&tokenizer_config)));
    files.into_iter().map(|(name, contents)| (name.to_owned(), contents)).collect()
}

/// The sentinels of a vocabulary of bytes that have ids of their own, as the transformers library writes them.
fn added_tokens(bytes: &ByteVocabulary) -> serde_json::Value {
    let token = |n: u32| {
        let token = json!({
            "content": format!("<extra_id_{n}>"), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        Some((bytes.sentinel_id(n)?.to_string(), token))
    };
    (0..bytes.extra_ids).filter_map(token).collect()
}

/// Refuses a folder that holds what a checkpoint is read from: its weights, in whatever files, or what is beside them.
pub(crate) fn expect_other_folder(checkpoint: &Checkpoint, output: &Path) -> Result<()> {
    let written = [checkpoint::MODEL, CONFIG, GENERATION_CONFIG, TOKENIZER, SENTENCEPIECE, TOKENIZER_CONFIG];
    if written.iter().any(|name| checkpoint.reads(&output.join(name))) {
        let what = format!("expected another folder than that of {}, which is read", checkpoint.file);
        return Err(Error::file(output, what));
    }
    Ok(())
}

/// Whether models have the same tensors and compute the same with them: dropout and how values began are of training.
pub(crate) fn is_same_shape(one: &T5Config, other: &T5Config) -> bool {
    let T5Config { dropout_rate, initializer_factor, .. } = *other;
    T5Config { dropout_rate, initializer_factor, ..one.clone() } == *other
}

/// Refuses a checkpoint whose vocabulary is another than the one among `files`.
pub(crate) fn expect_vocabulary(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let Some((name, contents)) = files.iter().find(|(name, _)| [TOKENIZER, SENTENCEPIECE].contains(&name.as_str()))
    else {
        return Ok(());
    };
    let path = folder.join(tokenizer_of(folder).unwrap_or(SENTENCEPIECE));
    let saved = read(&path)?;
    // The same one may be spelled otherwise, or be in a file of another kind.
    let pieces = |name: &Path, bytes: &[u8]| vocabulary::arrays(name, bytes).ok();
    let is_same = |(one, other): (tokenizer::Vocabulary, tokenizer::Vocabulary)| match (one, other) {
        // Kinds of file differ in what they say beside the pieces, and in the scores of those that no text is cut into.
        (tokenizer::Vocabulary::Unigram(one), tokenizer::Vocabulary::Unigram(other)) if !path.ends_with(name) => {
            let of = |piece: &Piece| (piece.text.clone(), (piece.kind == PieceKind::Normal).then_some(piece.score));
            one.pieces.iter().map(of).eq(other.pieces.iter().map(of))
        }
        (one, other) => one == other,
    };
    if saved != *contents && !pieces(&path, &saved).zip(pieces(Path::new(name), contents)).is_some_and(is_same) {
        let what = "expected the vocabulary that is trained with, found another: its file was changed since";
        return Err(Error::file(path, what));
    }
    Ok(())
}

/// Writes a model that was made of a checkpoint, with its vocabulary, as a Hugging Face folder that `model.from` takes.
pub(crate) fn write_model(
    checkpoint: &Checkpoint,
    model: &Model,
    vocabulary: UnigramVocabulary,
    output: &Path,
) -> Result<()> {
    files::create_folder(output)?;
    let json = vocabulary::to_tokenizer_json(&checkpoint.file, &vocabulary)?;
    let read = Vocabulary::new(&tokenizer::Vocabulary::Unigram(vocabulary), &output.join(TOKENIZER))?;
    let longest = checkpoint.generation.settings.max_new_tokens.unwrap_or(MAX_NEW_TOKENS);
    remove_other_vocabularies(output, &[TOKENIZER])?;
    for (name, contents) in model_files(model.config(), longest, Some(json), &read) {
        files::write_synced(&output.join(name), &contents)?;
    }
    checkpoint::write_model(&output.join(checkpoint::MODEL), model, None)
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

/// Refuses a folder that is no run with a checkpoint.
///
/// # Errors
/// Where it is none, or cannot be read.
pub fn expect_checkpoint(run: &Path) -> Result<()> {
    choose(run, None, false).map(drop)
}

/// Writes a run's checkpoint as a Hugging Face folder. `step`: which one; `None`: the best, or the newest where there
/// was no evaluation. With `others`, runs of the same model from the same beginning, it is the mean of what each gives
/// (Wortsman et al. 2022). Returns the step of the first.
///
/// # Errors
/// Where there is no such checkpoint, another run's model has another shape or vocabulary, or the folder cannot be
/// written.
pub fn export(run: &Path, step: Option<u64>, weights: Weights, others: &[PathBuf], output: &Path) -> Result<u64> {
    let Chosen { folder, step: chosen, mut sources } = Chosen::of(run, step, weights)?;
    let (config, copied) = (config_of(&folder)?, tokenizer_of(&folder));
    let vocabulary_of = |folder: &Path| tokenizer_of(folder).map(|name| read(&folder.join(name))).transpose();
    for other in others {
        let other_chosen = Chosen::of(other, step, weights)?;
        let there = &other_chosen.folder;
        let same = is_same_shape(&config_of(there)?, &config) && vocabulary_of(there)? == vocabulary_of(&folder)?;
        if !same {
            let what = format!("expected a run of the same shape and vocabulary as {}", run.display());
            return Err(Error::file(other, format!("{what}, found another")));
        }
        sources.extend(other_chosen.sources);
    }
    files::create_folder(output)?;
    let specs = schema::tensors(&config);
    let tensors = specs
        .iter()
        .map(|spec| Ok((spec.hf_name.clone(), spec.shape.as_slice(), Cow::Owned(mean(&sources, &spec.hf_name)?))))
        .collect::<Result<Vec<_>>>()?;
    files::write_tensors(&output.join(checkpoint::MODEL), tensors)?;
    let converted = match copied {
        Some(TOKENIZER) => sentencepiece(&folder.join(TOKENIZER))?,
        _ => None,
    };
    let vocabularies: Vec<&str> = copied.into_iter().chain(converted.is_some().then_some(SENTENCEPIECE)).collect();
    remove_other_vocabularies(output, &vocabularies)?;
    for name in [CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG].into_iter().chain(copied) {
        files::write_synced(&output.join(name), &read(&folder.join(name))?)?;
    }
    if let Some(model) = converted {
        files::write_synced(&output.join(SENTENCEPIECE), &model)?;
    }
    Ok(chosen)
}

/// Writes the LoRA factors of a run's checkpoint as PEFT's folder. `step` and the step that it returns are as
/// [`export`]'s.
///
/// # Errors
/// As [`export`], and where the run trained no factors.
pub fn adapter(run: &Path, step: Option<u64>, output: &Path) -> Result<u64> {
    let (checkpoints, _, chosen) = choose(run, step, false)?;
    let folder = checkpoints.path(chosen);
    if !folder.join(adapter::WEIGHTS).exists() {
        return Err(Error::file(
            run,
            "expected a run with tuning.method = \"lora\", found one that trained parameters",
        ));
    }
    files::create_folder(output)?;
    for name in [adapter::CONFIG, adapter::WEIGHTS] {
        files::write_synced(&output.join(name), &read(&folder.join(name))?)?;
    }
    Ok(chosen)
}

/// What is exported of a run.
struct Chosen {
    /// The checkpoint's.
    folder: PathBuf,
    step: u64,
    /// The weights, of which the mean is taken.
    sources: Vec<TensorFile>,
}

impl Chosen {
    fn of(run: &Path, step: Option<u64>, weights: Weights) -> Result<Chosen> {
        let (checkpoints, steps, step) = choose(run, step, matches!(weights, Weights::MeanOfLast(_)))?;
        let folder = checkpoints.path(step);
        let sources = match weights {
            Weights::Current => vec![Saved::open(&folder)?.model()?],
            Weights::Best => {
                let saved = Saved::open(&folder)?;
                vec![saved.average()?.map_or_else(|| saved.model(), Ok)?]
            }
            Weights::MeanOfLast(count) => {
                let until: Vec<PathBuf> =
                    steps.iter().filter(|&&other| other <= step).map(|&step| checkpoints.path(step)).collect();
                if count == 0 || count > until.len() {
                    let what = format!("expected 1 to {} checkpoints to average, found {count}", until.len());
                    return Err(Error::file(run, what));
                }
                until[until.len() - count..].iter().map(|folder| Saved::open(folder)?.model()).collect::<Result<_>>()?
            }
        };
        Ok(Chosen { folder, step, sources })
    }
}

fn config_of(folder: &Path) -> Result<T5Config> {
    let path = folder.join(CONFIG);
    let config = fs::read_to_string(&path).map_err(Error::io(&path))?;
    Ok(T5Config::from_json(&path.display().to_string(), &config)?)
}

/// The name of a checkpoint's vocabulary, whether or not it is there; none where it is bytes.
fn tokenizer_of(folder: &Path) -> Option<&'static str> {
    let found = [TOKENIZER, SENTENCEPIECE].into_iter().find(|name| folder.join(name).is_file());
    found.or_else(|| {
        let settings = fs::read_to_string(folder.join(TOKENIZER_CONFIG)).unwrap_or_default();
        (!settings.contains(OF_BYTES)).then_some(SENTENCEPIECE)
    })
}

/// Removes what an earlier model's folder says of its vocabulary, and is not `written` anew: some readers would take it
/// first, or for a part of the new one's.
fn remove_other_vocabularies(output: &Path, written: &[&str]) -> Result<()> {
    for name in OF_VOCABULARIES.iter().filter(|name| !written.contains(name)) {
        let path = output.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&path)(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(path))
}

/// A run's checkpoints, their steps, and which is to be exported: the one that was named, else the best or, where the
/// newest is wanted or there was no evaluation, the newest.
fn choose(run: &Path, step: Option<u64>, newest_wanted: bool) -> Result<(Checkpoints, Vec<u64>, u64)> {
    let none = || Error::file(run, "expected a run with checkpoints, found none");
    let folder = run.join("checkpoints");
    // Opening makes the folder.
    if !folder.is_dir() {
        return Err(none());
    }
    let checkpoints = Checkpoints::open(&folder, 1)?;
    let steps = checkpoints.steps()?;
    let newest = *steps.last().ok_or_else(none)?;
    let best = Saved::open(&checkpoints.path(newest))?.state.best.map(|best| best.step);
    let chosen = match step {
        Some(step) if !steps.contains(&step) => {
            return Err(Error::file(
                run,
                format!("expected a checkpoint of one of the steps {steps:?}, found no {step}"),
            ));
        }
        Some(step) => step,
        None if newest_wanted => newest,
        None => best.filter(|best| steps.contains(best)).unwrap_or(newest),
    };
    Ok((checkpoints, steps, chosen))
}

/// A `tokenizer.json` as a SentencePiece model; none where tokens were added that such a file cannot say.
fn sentencepiece(path: &Path) -> Result<Option<Vec<u8>>> {
    let bytes = read(path)?;
    let arrays = tokenizer::Vocabulary::from_tokenizer_json(&path.display().to_string(), &bytes)?;
    let sentinels = Vocabulary::new(&arrays, path)?.sentinels();
    match arrays {
        tokenizer::Vocabulary::Unigram(unigram) => {
            let added = unigram.added.iter().any(|token| token.outside && !token.special);
            Ok((!added).then(|| vocabulary::to_sentencepiece(&unigram, sentinels)))
        }
        tokenizer::Vocabulary::Json(json) => {
            Err(Error::file(path, format!("expected a vocabulary of Unigram pieces, found {}", json.kind)))
        }
        tokenizer::Vocabulary::Bytes(_) => Err(Error::file(path, "expected a vocabulary of pieces, found bytes")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_is_the_same_in_files_of_both_kinds() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
        let [json, model] = [TOKENIZER, SENTENCEPIECE].map(|name| (name, fs::read(golden.join(name)).unwrap()));
        let folder = tempfile::tempdir().unwrap();
        for ((name, contents), (other, trained)) in [(&json, &model), (&model, &json)] {
            fs::write(folder.path().join(name), contents).unwrap();
            for (kind, bytes) in [(name, contents), (other, trained)] {
                expect_vocabulary(folder.path(), &[((*kind).to_owned(), bytes.clone())]).unwrap();
            }
            let mut vocabulary: serde_json::Value = serde_json::from_slice(&json.1).unwrap();
            vocabulary["model"]["vocab"].as_array_mut().unwrap().swap(40, 41);
            let swapped = vec![(TOKENIZER.to_owned(), vocabulary.to_string().into_bytes())];
            let message = expect_vocabulary(folder.path(), &swapped).unwrap_err().to_string();
            assert!(message.contains("expected the vocabulary that is trained with, found another"), "{message}");
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }

    #[test]
    fn a_folder_keeps_no_other_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        for written in [&[SENTENCEPIECE][..], &[TOKENIZER, SENTENCEPIECE]] {
            for name in OF_VOCABULARIES.into_iter().chain([CONFIG, "tokenizer.model"]) {
                fs::write(folder.path().join(name), name).unwrap();
            }
            remove_other_vocabularies(folder.path(), written).unwrap();
            assert!(OF_VOCABULARIES.iter().all(|name| is_there(name) == written.contains(name)), "{written:?}");
            // A name that no export has is somebody's own.
            assert!(is_there(CONFIG) && is_there("tokenizer.model"));
        }
    }
}
