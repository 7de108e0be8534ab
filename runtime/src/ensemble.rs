//! Several models that decode as one: what each predicts for the next token is averaged, and every search goes on from
//! the mean (Raffel et al. 2020, section 3.6, where four models are).

use std::sync::Arc;

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::layers::Scratch;
use crate::model::Model;
use crate::session::Session;

/// What is averaged at each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mean {
    /// The logits, before the softmax, as the T5 paper's ensembles: the normalised geometric mean of probabilities.
    #[default]
    Logits,
    /// The probabilities, as Mesh TensorFlow does where nobody says otherwise.
    Probabilities,
}

/// The models beside the first one.
pub(crate) struct Ensemble {
    others: Vec<Model>,
    mean: Mean,
}

impl Model {
    /// Models that decode as one. Texts are read by the vocabulary, and with the settings, of the first; each encodes
    /// the source itself, and before a token is chosen the models' predictions are averaged. Greedy search, beams,
    /// draws, batches, scores and [`Steps`](crate::Steps) work as for one model, with the mean in the place of its
    /// logits. One model alone is that model.
    ///
    /// # Errors
    /// For no model, and for one that does not generate, has another vocabulary or is an ensemble itself.
    pub fn ensemble(models: Vec<Model>, mean: Mean) -> Result<Model> {
        let mut models = models.into_iter();
        let Some(first) = models.next() else {
            return Err(option("expected one model or more, found none".to_owned()));
        };
        let others: Vec<Model> = models.collect();
        if others.is_empty() {
            return Ok(first);
        }
        for model in std::iter::once(&first).chain(&others) {
            model.check_generates()?;
            model.data().decoder()?;
            model.check_alone("an ensemble of single models")?;
        }
        if let Some(what) = others.iter().find_map(|other| first.difference(other)) {
            return Err(option(what));
        }
        Ok(first.with_others(Arc::new(Ensemble { others, mean })))
    }

    /// How many models decode as one: 1, but for an ensemble.
    pub fn members(&self) -> usize {
        1 + self.others().len()
    }

    pub(crate) fn others(&self) -> &[Model] {
        self.with().map_or(&[], |ensemble| &ensemble.others)
    }

    pub(crate) fn mean(&self) -> Mean {
        self.with().map_or(Mean::default(), |ensemble| ensemble.mean)
    }

    /// Refuses an ensemble for what only one model can do.
    pub(crate) fn check_alone(&self, what: &str) -> Result<()> {
        match self.members() {
            1 => Ok(()),
            found => Err(option(format!("expected one model for {what}, found an ensemble of {found}"))),
        }
    }

    /// Why two models cannot decode as one.
    fn difference(&self, other: &Model) -> Option<String> {
        let files = format!("of {} and {}", self.file(), other.file());
        let vocabularies = [self, other].map(|model| model.tokenizer().ok());
        if let [Some(ours), Some(theirs)] = vocabularies {
            let ids = 0..ours.vocab_size().max(theirs.vocab_size()) as u32;
            if let Some(id) = ids.into_iter().find(|&id| ours.piece(id) != theirs.piece(id)) {
                let [ours, theirs] = [ours.piece(id), theirs.piece(id)]
                    .map(|piece| piece.map_or_else(|| "none".to_owned(), |piece| format!("{piece:?}")));
                return Some(format!("expected one vocabulary {files}, found id {id} to be {ours} and {theirs}"));
            }
        } else if vocabularies.iter().any(Option::is_some) {
            return Some(format!("expected one vocabulary {files}, found one of them without"));
        }
        let rows = [self, other].map(|model| model.config().vocab_size);
        if rows[0] != rows[1] {
            return Some(format!("expected as many rows in the heads {files}, found {} and {}", rows[0], rows[1]));
        }
        let marks = |model: &Model| {
            let (settings, config) = (&model.generation_defaults().settings, model.config());
            let mut ends = settings.eos_token_id.clone().unwrap_or_default();
            if ends.is_empty() {
                ends.push(config.eos_token_id);
            }
            (model.data().start(), ends)
        };
        let marks = [self, other].map(marks);
        (marks[0] != marks[1]).then(|| {
            let [ours, theirs] = marks.map(|(start, ends)| format!("{start} and {ends:?}"));
            format!("expected the same start and end tokens {files}, found {ours}, {theirs}")
        })
    }
}

fn option(what: String) -> Error {
    Error::Option { option: "models", what }
}

impl Session {
    /// Works with the scratch memory, and the threads, of another session.
    pub(crate) fn lend<T>(&mut self, scratch: &mut Scratch, work: impl FnOnce(&mut Session) -> T) -> T {
        std::mem::swap(self.scratch(), scratch);
        let done = work(self);
        std::mem::swap(self.scratch(), scratch);
        done
    }
}

impl Decoder<'_> {
    /// Lets the decoder of every other model of an ensemble do the same.
    pub(crate) fn others_too(&mut self, mut work: impl FnMut(&mut Decoder<'_>) -> Result<()>) -> Result<()> {
        for other in self.others.iter_mut() {
            other.lend(self.scratch, |other| work(&mut other.decoder()?))?;
        }
        Ok(())
    }

    /// Replaces the first `rows` rows of logits by the mean over all models of an ensemble.
    pub(crate) fn average(&mut self, rows: usize) {
        let (kernels, count) = (self.model.kernels, 1 + self.others.len());
        let vocab = self.weights.head().n();
        let mut own = self.take_logits();
        let logits = &mut own[..rows * vocab];
        let others = self.others.iter_mut().map(|other| {
            let mut decoder = other.decoder().expect("every model of an ensemble has a decoder");
            decoder.take_logits()
        });
        let others: Vec<Vec<f32>> = others.collect();
        match self.mean {
            Mean::Logits => {
                others.iter().for_each(|other| kernels.add(logits, &other[..logits.len()]));
                logits.iter_mut().for_each(|logit| *logit /= count as f32);
            }
            Mean::Probabilities => {
                let mut column = vec![0.0; count];
                let ln_count = kernels.log_sum_exp(&column);
                for (row, logits) in logits.chunks_exact_mut(vocab).enumerate() {
                    let others: Vec<&[f32]> = others.iter().map(|other| &other[row * vocab..][..vocab]).collect();
                    let own_sum = kernels.log_sum_exp(logits);
                    let sums: Vec<f32> = others.iter().map(|other| kernels.log_sum_exp(other)).collect();
                    for (id, logit) in logits.iter_mut().enumerate() {
                        column[0] = *logit - own_sum;
                        for ((place, other), sum) in column[1..].iter_mut().zip(&others).zip(&sums) {
                            *place = other[id] - sum;
                        }
                        *logit = kernels.log_sum_exp(&column) - ln_count;
                    }
                }
            }
        }
        for (other, logits) in self.others.iter_mut().zip(others) {
            other.decoder().expect("every model of an ensemble has a decoder").put_logits(logits);
        }
        self.state.put_logits(own);
    }
}
