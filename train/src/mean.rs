//! The mean of models that have a beginning in common, such as rounds of training or seeds: often better than each of
//! them, and no slower than one (model soups, Wortsman et al. 2022).

use std::path::Path;

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::tokenizer::{UnigramVocabulary, Vocabulary};

use crate::model::{Model, expanded};
use crate::{Error, Result, export, extend};

/// How far the sum of shares may be from 1, since they are typed as decimal fractions.
const ROUNDING: f64 = 1e-6;

/// Models, each with its share of the mean.
pub struct WeightedMean {
    parts: Vec<(Checkpoint, f64)>,
}

impl WeightedMean {
    /// Models with `shares` in their order; `None`: equal ones. A share below 0 leads away from what its model learned
    /// (Ilharco et al. 2023).
    ///
    /// # Errors
    /// Where there are not two models, or other than one share for each, with the sum 1.
    pub fn new(models: Vec<Checkpoint>, shares: Option<&[f64]>) -> Result<WeightedMean> {
        let count = models.len();
        if count < 2 {
            return Err(Error::Invalid(format!("a mean: expected two models or more, found {count}")));
        }
        let equal = vec![1.0 / count as f64; count];
        let shares = shares.unwrap_or(&equal);
        let whole = (shares.iter().sum::<f64>() - 1.0).abs() <= ROUNDING;
        if shares.len() != count || !whole {
            let what = format!("expected {count} numbers with the sum 1, found {shares:?}");
            return Err(Error::Option { option: "shares", what });
        }
        Ok(WeightedMean { parts: models.into_iter().zip(shares.iter().copied()).collect() })
    }

    /// What to say before where files are no originals: matrices of a balanced file are W s, behind norms g / s, with
    /// factors s of the file's own, and the mean of such values is not that of the models. The factors of the encoder's
    /// last norm are known and undone, those inside of blocks and before a head are not. Whether a file was balanced it
    /// does not say but by the former, nor that one without blocks was made of one.
    pub fn doubt(&self) -> Option<String> {
        let is_quantised = |checkpoint: &Checkpoint| {
            checkpoint.encoder_scale.is_some() || checkpoint.tensors().any(|(_, tensor)| tensor.dtype.block_len() > 1)
        };
        let quantised =
            self.parts.iter().map(|(checkpoint, _)| checkpoint).filter(|checkpoint| is_quantised(checkpoint));
        let files: Vec<&str> = quantised.map(|checkpoint| checkpoint.file.as_str()).collect();
        (!files.is_empty()).then(|| {
            format!(
                "quantised before: {}; norms and matrices of such a file may be balanced, in each otherwise, and the \
                 mean is then not that of the models: better take what was quantised",
                files.join(", ")
            )
        })
    }

    /// Writes the mean as a Hugging Face folder, whose texts' longest length is the first model's. Returns the model.
    ///
    /// # Errors
    /// Where models differ in shape or vocabulary, or have no vocabulary of pieces, or the folder is one of theirs or
    /// cannot be written.
    pub fn write(&self, output: &Path) -> Result<Model> {
        self.parts.iter().try_for_each(|(checkpoint, _)| export::expect_other_folder(checkpoint, output))?;
        let (model, vocabulary) = self.mean()?;
        export::write_model(&self.parts[0].0, &model, vocabulary, output)?;
        Ok(model)
    }

    /// The mean and the vocabulary that the models share.
    ///
    /// # Errors
    /// Where models differ in shape or vocabulary, or have no vocabulary of pieces.
    pub fn mean(&self) -> Result<(Model, UnigramVocabulary)> {
        let (first, _) = &self.parts[0];
        let vocabulary = extend::pieces(first)?.clone();
        for (other, _) in &self.parts[1..] {
            let same = matches!(&other.vocabulary, Some(Vocabulary::Unigram(pieces)) if *pieces == vocabulary);
            if !export::is_same_shape(&other.config, &first.config) || !same {
                let what =
                    format!("expected a model of the same shape and vocabulary as {}, found another", first.file);
                return Err(Error::file(Path::new(&other.file), what));
            }
        }
        let model = Model::from_values(&first.config, |spec| {
            let mut sum: Vec<f64> = Vec::new();
            for (checkpoint, share) in &self.parts {
                let values = expanded(checkpoint, spec)?;
                sum.resize(values.len(), 0.0);
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * f64::from(value));
            }
            Ok(sum.into_iter().map(|value| value as f32).collect())
        })?;
        Ok((model, vocabulary))
    }
}
