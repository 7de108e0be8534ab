//! What the sentence-transformers library puts behind an encoder: pooling, dense layers, a normalisation; and what it
//! does to texts before: prompts, small letters, a length at which they are cut.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::pooling::{self, Pooling};

/// The modules of a sentence model behind its encoder, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SentenceModel {
    /// The first one pools.
    pub modules: Vec<SentenceModule>,
    /// Texts by name that are put before an input.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that an input gets unless another one is asked for.
    pub default_prompt: Option<String>,
    /// Longer inputs are cut to so many tokens, `</s>` among them.
    pub max_seq_length: Option<usize>,
    /// Whether capitals of an input become small letters.
    pub lower_case: bool,
}

/// One module.
#[derive(Clone, Debug, PartialEq)]
pub enum SentenceModule {
    /// Vectors of each kind, one behind the other.
    Pooling {
        /// At least one; none is [`Pooling::None`].
        kinds: Vec<Pooling>,
        /// Whether tokens of the prompt take part.
        include_prompt: bool,
    },
    /// A linear layer.
    Dense(Dense),
    /// The vector divided by its length.
    Normalize,
}

/// `activation(W x + b)`, in f32 with sums in f64: the weights are few and decide over whole vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// `[out, in]`
    pub weight: Vec<f32>,
    /// `[out]`
    pub bias: Vec<f32>,
    /// What is applied to each value.
    pub activation: DenseActivation,
}

/// An activation of PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

impl DenseActivation {
    const ALL: [(&'static str, DenseActivation); 4] = [
        ("identity", DenseActivation::Identity),
        ("tanh", DenseActivation::Tanh),
        ("relu", DenseActivation::Relu),
        ("sigmoid", DenseActivation::Sigmoid),
    ];

    /// The activation of a name in small letters: that of PyTorch's class.
    pub fn from_name(name: &str) -> Option<DenseActivation> {
        DenseActivation::ALL.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        DenseActivation::ALL.iter().find(|(_, activation)| *activation == self).map_or("", |(name, _)| name)
    }
}

impl Dense {
    /// Values of a result.
    pub fn out_features(&self) -> usize {
        self.bias.len()
    }

    /// Values of an input.
    pub fn in_features(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// The result for `x` `[in]`, appended to `out`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        let rows = self.weight.chunks_exact(self.in_features().max(1));
        out.extend(rows.zip(&self.bias).map(|(row, &bias)| {
            // Eight sums in a fixed order: the same bits everywhere, and no chain of additions to wait for.
            let mut sums = [0f64; 8];
            for (weights, values) in row.chunks(8).zip(x.chunks(8)) {
                for (sum, (&weight, &value)) in sums.iter_mut().zip(weights.iter().zip(values)) {
                    *sum += f64::from(weight) * f64::from(value);
                }
            }
            let sum = sums.iter().sum::<f64>() + f64::from(bias);
            let value = match self.activation {
                DenseActivation::Identity => sum,
                DenseActivation::Tanh => sum.tanh(),
                DenseActivation::Relu => sum.max(0.0),
                DenseActivation::Sigmoid => 1.0 / (1.0 + (-sum).exp()),
            };
            value as f32
        }));
    }
}

impl std::fmt::Display for SentenceModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, module) in self.modules.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match module {
                SentenceModule::Pooling { kinds, .. } => {
                    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                    write!(f, "pooling {}", kinds.join(" and "))?;
                }
                SentenceModule::Dense(dense) => {
                    let (from, to) = (dense.in_features(), dense.out_features());
                    write!(f, "dense {from} to {to} with {}", dense.activation.name())?;
                }
                SentenceModule::Normalize => f.write_str("normalize")?,
            }
        }
        Ok(())
    }
}

impl SentenceModel {
    /// Values of a vector; the encoder's have `d_model`.
    pub fn width(&self, d_model: usize) -> usize {
        self.modules.iter().fold(d_model, |width, module| match module {
            SentenceModule::Pooling { kinds, .. } => d_model * kinds.len(),
            SentenceModule::Dense(dense) => dense.out_features(),
            SentenceModule::Normalize => width,
        })
    }

    /// Refuses modules that do not fit behind one another. `file` names where they come from.
    ///
    /// # Errors
    /// [`Error::Config`] for the first that does not.
    pub fn check(&self, file: &str, d_model: usize) -> Result<()> {
        let wrong = |index: usize, what: String| Err(Error::config(file, format!("module {index}"), what));
        let mut width = d_model;
        for (index, module) in self.modules.iter().enumerate() {
            match module {
                SentenceModule::Pooling { kinds, .. } if index == 0 && !kinds.is_empty() => {
                    width = d_model * kinds.len();
                }
                SentenceModule::Pooling { .. } => {
                    return wrong(index, "expected pooling first, of one kind at least, and only there".to_owned());
                }
                _ if index == 0 => return wrong(index, "expected a pooling module first, found another".to_owned()),
                SentenceModule::Dense(dense) => {
                    let (weights, rows) = (dense.weight.len(), dense.out_features());
                    if rows == 0 || width.checked_mul(rows) != Some(weights) {
                        let what = format!("expected {rows} x {width} weights of a dense layer, found {weights}");
                        return wrong(index, what);
                    }
                    width = rows;
                }
                SentenceModule::Normalize => {}
            }
        }
        if let Some(name) = self.default_prompt.as_ref().filter(|name| !self.prompts.contains_key(*name)) {
            let what = format!("expected the name of a prompt, found {name:?}");
            return Err(Error::config(file, "default_prompt_name", what));
        }
        if self.max_seq_length == Some(0) {
            return Err(Error::config(file, "max_seq_length", "expected at least 1, found 0"));
        }
        Ok(())
    }

    /// Whether tokens of a prompt take part in pooling.
    pub(crate) fn includes_prompt(&self) -> bool {
        self.modules.iter().all(|module| !matches!(module, SentenceModule::Pooling { include_prompt: false, .. }))
    }

    /// The prompt of a name, or the one that every input gets.
    pub(crate) fn prompt(&self, name: Option<&str>) -> Result<&str> {
        let Some(name) = name.or(self.default_prompt.as_deref()) else { return Ok("") };
        self.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
            let what = match &names[..] {
                [] => format!("expected none, since the model has no prompts, found {name}"),
                names => format!("expected one of {}, found {name}", names.join(", ")),
            };
            Error::Option { option: "prompt", what }
        })
    }

    /// The vector of a text whose tokens are `tokens` of the rows of `states` `[rows, d]`.
    pub(crate) fn apply(&self, states: &[f32], d: usize, tokens: Range<usize>) -> Vec<f32> {
        let mut vector = Vec::new();
        for module in &self.modules {
            match module {
                SentenceModule::Pooling { kinds, .. } => {
                    kinds.iter().for_each(|kind| kind.pool(states, d, tokens.clone(), &mut vector));
                }
                SentenceModule::Dense(dense) => {
                    let mut out = Vec::with_capacity(dense.out_features());
                    dense.apply(&vector, &mut out);
                    vector = out;
                }
                SentenceModule::Normalize => {
                    let width = vector.len();
                    pooling::normalize(&mut vector, width);
                }
            }
        }
        vector
    }
}
