//! Distillation: a student learns from a larger model, its teacher, which the runtime runs.
//!
//! Token by token ([`Teacher`]): the teacher's probabilities of every target are learned beside the targets (Hinton et
//! al. 2015). Text by text ([`answers`]): what the teacher answers by beam search is written as records, and they are
//! trained on as any others (Kim and Rush 2016).

pub mod answers;
mod cache;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::model::{Model, ModelOptions};

use crate::kernels::{math, max, sum1, vectorised};
use crate::ops::{Sequences, SoftTargets};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};
use cache::{Cache, Key};

/// The section `[distill]` of a run's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The teacher, a model folder or GGUF file with the run's vocabulary; empty: none.
    pub teacher: String,
    /// The share of the loss that is the teacher's.
    pub weight: f32,
    /// Both models' logits are divided by it.
    pub temperature: f32,
    /// Classes kept of the teacher for each token.
    pub top_k: usize,
    /// The folder for what the teacher said; empty: `teacher` in the run's folder.
    pub cache: String,
    /// The most that is kept there, in 10^9 bytes; 0 keeps nothing.
    pub cache_gb: f64,
}

impl Options {
    /// The options of one rank of a run: what others than the first keep is in folders of their own, for no two
    /// processes can keep it in one. `output` is the run's folder.
    pub(crate) fn of_rank(&self, output: &Path, rank: usize) -> Options {
        let mut options = self.clone();
        if rank > 0 {
            options.cache = self.cache_folder(output).join(format!("rank-{rank}")).display().to_string();
        }
        options
    }

    fn cache_folder(&self, output: &Path) -> PathBuf {
        match self.cache.as_str() {
            "" => output.join(FOLDER),
            folder => PathBuf::from(folder),
        }
    }
}

/// The folder in a run's folder that holds what the teacher said, where none is named.
const FOLDER: &str = "teacher";

/// A model whose probabilities are learned.
pub struct Teacher {
    model: Model,
    /// Rows of its head that are classes of the student, too.
    rows: usize,
    classes: usize,
    temperature: f32,
    weight: f32,
    cache: Option<Cache>,
    counts: Counts,
    told: bool,
}

/// Examples that a teacher was asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whose answers were in the cache.
    pub cached: u64,
    /// For which the teacher ran.
    pub computed: u64,
}

/// What a teacher says of one example: for each target token its likeliest classes and their probabilities, which are
/// halves, so that what was computed is what is read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// `[targets, classes]`
    pub ids: Vec<u32>,
    /// `[targets, classes]`
    pub probabilities: Vec<half::f16>,
}

/// Opens a teacher's checkpoint, whose vocabulary has to be the run's.
///
/// # Errors
/// Where it cannot be read, or has another vocabulary.
pub(crate) fn open(options: &Options, vocabulary: &Vocabulary) -> Result<Checkpoint> {
    let wrong = |what: String| Error::config("configuration", "distill.teacher", what);
    if options.teacher.is_empty() {
        return Err(wrong("expected a model folder or a GGUF file, found none".to_owned()));
    }
    let checkpoint = t5_quantize::pytorch::open(Path::new(&options.teacher))?;
    if checkpoint.config.is_encoder_only() {
        return Err(wrong(format!("expected a model with a decoder, found {}", options.teacher)));
    }
    match vocabulary.difference(&checkpoint)? {
        Some(difference) => Err(wrong(format!(
            "expected a model with the run's vocabulary ({}), found {}, {difference}",
            vocabulary.path().display(),
            options.teacher
        ))),
        None => Ok(checkpoint),
    }
}

/// A digest of a model's values: that of its configuration and its tensors as they are stored, in the schema's order.
fn digest(checkpoint: &Checkpoint) -> Sha256 {
    let mut digest = Sha256::new();
    digest.update(checkpoint.config.to_json().to_string());
    for (spec, tensor) in checkpoint.tensors() {
        let (dtype, scale) = (tensor.dtype.name(), tensor.scale);
        digest.update(format!("\n{} {dtype} {scale} {:?}\n", spec.hf_name, tensor.shape));
        digest.update(&*tensor.data);
    }
    digest
}

impl Teacher {
    /// Opens the teacher for a student with `rows` classes. `output` is the run's folder.
    ///
    /// # Errors
    /// Where the teacher cannot be read or has another vocabulary, or the cache is another process's or not ours.
    pub fn open(options: &Options, output: &Path, vocabulary: &Vocabulary, rows: usize) -> Result<Teacher> {
        let checkpoint = open(options, vocabulary)?;
        let rows = rows.min(checkpoint.config.vocab_size);
        let classes = options.top_k.min(rows);
        let cache = if options.cache_gb > 0.0 {
            let folder = options.cache_folder(output);
            let mut digest = digest(&checkpoint);
            digest.update(format!("temperature {} classes {classes} of {rows}", options.temperature));
            Some(Cache::open(&folder, digest.finalize().into(), classes, (options.cache_gb * 1e9) as u64)?)
        } else {
            None
        };
        Ok(Teacher {
            model: Model::from_checkpoint(checkpoint, &ModelOptions::default())?,
            rows,
            classes,
            temperature: options.temperature,
            weight: options.weight,
            cache,
            counts: Counts::default(),
            told: false,
        })
    }

    /// How many examples it was asked about since it was opened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Of the first tokens that it was asked about: a sentence where the classes that are kept have less than half of
    /// the probability. What they leave is spread evenly over the others, so that little is learned then.
    pub(crate) fn note(&mut self, sequences: &Sequences) -> Option<String> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let kept: f64 = sequences.soft_targets.as_ref()?.probabilities.iter().map(|&p| f64::from(p)).sum();
        let tokens: usize = sequences.spans.iter().map(|span| span.decoder_len).sum();
        let percent = 100.0 * kept / tokens as f64;
        let (classes, temperature) = (self.classes, self.temperature);
        (percent < 50.0).then(|| {
            format!(
                "note: of the teacher's probability {percent:.0} % is in the {classes} classes that are kept; a \
                 distill.temperature below {temperature} or a larger distill.top_k has more"
            )
        })
    }

    /// Says of every decoder token what the teacher expects there. The values do not depend on the cache, the batch or
    /// the number of threads.
    ///
    /// # Errors
    /// Where the teacher cannot read an example, or the cache cannot be read or written.
    pub fn teach(&mut self, sequences: &mut Sequences) -> Result<()> {
        let classes = self.classes;
        let mut soft = SoftTargets {
            weight: self.weight,
            temperature: self.temperature,
            classes,
            ids: vec![0; sequences.decoder_target_ids.len() * classes],
            probabilities: vec![0.0; sequences.decoder_target_ids.len() * classes],
        };
        let examples: Vec<(&[u32], &[u32], usize)> = (sequences.spans.iter())
            .filter(|span| span.decoder_len > 0)
            .map(|span| {
                let inputs = &sequences.encoder_ids[span.encoder_start..span.encoder_start + span.encoder_len];
                let targets = &sequences.decoder_target_ids[span.decoder_start..span.decoder_start + span.decoder_len];
                (inputs, targets, span.decoder_start)
            })
            .collect();
        let mut put = |start: usize, answer: &Answer| {
            let at = start * classes;
            soft.ids[at..at + answer.ids.len()].copy_from_slice(&answer.ids);
            let probabilities = &mut soft.probabilities[at..at + answer.ids.len()];
            probabilities.iter_mut().zip(&answer.probabilities).for_each(|(p, half)| *p = half.to_f32());
        };
        let mut missing = Vec::new();
        for &(inputs, targets, start) in &examples {
            let key = Key::new(inputs, targets);
            let known = match &mut self.cache {
                Some(cache) => cache.read(&key, targets.len())?,
                None => None,
            };
            match known {
                Some(answer) => {
                    self.counts.cached += 1;
                    put(start, &answer);
                }
                None => missing.push((key, inputs, targets, start)),
            }
        }
        let this = &*self;
        let computed: Vec<Answer> = missing
            .par_iter()
            .map_init(
                || this.model.session(),
                |session, &(_, inputs, targets, _)| Ok(this.answer(&session.logits_ids(inputs, targets)?)),
            )
            .collect::<Result<_>>()?;
        self.counts.computed += computed.len() as u64;
        for ((key, _, _, start), answer) in missing.iter().zip(&computed) {
            put(*start, answer);
            if let Some(cache) = &mut self.cache {
                cache.add(key, answer);
            }
        }
        if let Some(cache) = &mut self.cache {
            cache.flush()?;
        }
        sequences.soft_targets = Some(soft);
        Ok(())
    }

    /// The likeliest classes of logits `[targets, vocab_size]`.
    fn answer(&self, logits: &[f32]) -> Answer {
        let mut answer = Answer::default();
        let mut order: Vec<u32> = Vec::with_capacity(self.rows);
        let mut tempered = vec![0.0f32; self.rows];
        for logits in logits.chunks_exact(self.model.config().vocab_size) {
            let logits = &logits[..self.rows];
            let sum = vectorised(|| {
                let top = max(logits);
                for (p, x) in tempered.iter_mut().zip(logits) {
                    *p = math::exp((x - top) / self.temperature);
                }
                sum1(&tempered, |p| p)
            });
            order.clear();
            order.extend(0..self.rows as u32);
            // Of equal logits the smaller id comes first.
            let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
            if self.classes < self.rows {
                order.select_nth_unstable_by(self.classes, by_logit);
                order.truncate(self.classes);
            }
            order.sort_unstable_by(by_logit);
            answer.ids.extend_from_slice(&order);
            answer.probabilities.extend(order.iter().map(|&id| half::f16::from_f32(tempered[id as usize] / sum)));
        }
        answer
    }
}
