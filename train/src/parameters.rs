//! The parameters of a model with their gradients: the schema's tensors, as candle variables in main memory.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Var};
use t5_runtime::config::T5Config;
use t5_runtime::position::Buckets;
use t5_runtime::schema::{self, Role, Stack, TensorId, TensorSpec};

use crate::ops::{Gradients, Sequences, Values, update_in_place};
use crate::{Error, Result};

/// The parameters and their gradients, in the order of the schema.
pub struct Parameters {
    config: T5Config,
    specs: Vec<TensorSpec>,
    index: HashMap<TensorId, usize>,
    /// The schema's tensors that are other parameters, with where those are.
    shared: Vec<(TensorSpec, usize)>,
    vars: Arc<Vec<Var>>,
    gradients: Arc<Gradients>,
}

impl Parameters {
    /// Parameters whose values a function gives, one tensor of the schema at a time.
    ///
    /// # Errors
    /// Where the function fails or gives the wrong number of values, or where the configuration has no decoder.
    pub fn new(config: &T5Config, mut values: impl FnMut(&TensorSpec) -> Result<Vec<f32>>) -> Result<Parameters> {
        if config.is_encoder_only() {
            return Err(Error::Invalid("training needs an encoder-decoder: num_decoder_layers is 0".to_owned()));
        }
        let specs = schema::tensors(config);
        let mut vars = Vec::with_capacity(specs.len());
        for spec in &specs {
            let values = checked(spec, values(spec)?)?;
            vars.push(Var::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?);
        }
        let gradients = Gradients::new(specs.iter().map(count));
        let index = specs.iter().enumerate().map(|(i, spec)| (spec.id, i)).collect();
        let (vars, gradients) = (Arc::new(vars), Arc::new(gradients));
        Ok(Parameters { config: config.clone(), specs, index, shared: Vec::new(), vars, gradients })
    }

    /// Parameters of which the encoder's blocks have the decoder's self-attention, feed-forward and norms, with its
    /// values and gradients that both stacks add to (Raffel et al. 2020, section 3.2.1).
    ///
    /// # Errors
    /// Where the stacks have different numbers of blocks.
    pub fn sharing_stacks(self) -> Result<Parameters> {
        let (encoder, decoder) = (self.config.num_layers, self.config.num_decoder_layers);
        if encoder != decoder {
            let what = format!(
                "expected as many blocks in the decoder as in the encoder to share, found {decoder} and {encoder}"
            );
            return Err(Error::Invalid(what));
        }
        let (mut specs, mut vars, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (spec, var) in self.specs.into_iter().zip(&*self.vars) {
            if is_shared(&spec) {
                others.push(spec);
            } else {
                specs.push(spec);
                vars.push(var.clone());
            }
        }
        let mut index: HashMap<TensorId, usize> = specs.iter().enumerate().map(|(i, spec)| (spec.id, i)).collect();
        let shared: Vec<_> = others
            .into_iter()
            .map(|spec| {
                let owner = index[&TensorId { stack: Some(Stack::Decoder), ..spec.id }];
                (spec, owner)
            })
            .collect();
        index.extend(shared.iter().map(|(spec, owner)| (spec.id, *owner)));
        let gradients = Arc::new(Gradients::new(specs.iter().map(count)));
        Ok(Parameters { config: self.config, specs, index, shared, vars: Arc::new(vars), gradients })
    }

    /// The schema's tensors that are other parameters, with where those are.
    pub fn shared(&self) -> &[(TensorSpec, usize)] {
        &self.shared
    }

    /// The model's configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The schema's rows, without those that are other parameters.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The variables.
    pub fn vars(&self) -> &Arc<Vec<Var>> {
        &self.vars
    }

    /// The gradients.
    pub fn gradients(&self) -> &Arc<Gradients> {
        &self.gradients
    }

    /// Whether the gradient of a parameter is computed; what is not wanted takes no memory.
    pub(crate) fn want_gradient(&self, index: usize, wanted: bool) {
        let mut gradient = self.gradients.get(index);
        let size = if wanted { count(&self.specs[index]) } else { 0 };
        if gradient.len() != size {
            *gradient = vec![0.0; size];
        }
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.specs.iter().map(count).sum()
    }

    /// A copy of one parameter's values.
    ///
    /// # Errors
    /// Where the tensor is not in main memory.
    pub fn values(&self, index: usize) -> Result<Vec<f32>> {
        Ok(Values::new(self.vars[index].as_tensor())?.to_vec())
    }

    /// Replaces all values, by the tensors' Hugging Face names.
    ///
    /// # Errors
    /// Where the function fails or gives the wrong number of values.
    pub fn load(&self, mut values: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<()> {
        for (spec, var) in self.specs.iter().zip(&*self.vars) {
            let values = checked(spec, values(&spec.hf_name)?)?;
            update_in_place(var, |old| old.copy_from_slice(&values))?;
        }
        Ok(())
    }

    /// Where the parameter of a role is.
    pub(crate) fn index(&self, role: Role, stack: Option<Stack>, block: Option<usize>) -> usize {
        self.index[&TensorId { role, stack, block }]
    }

    /// Where the head's matrix is.
    pub(crate) fn head(&self) -> usize {
        let role = if self.config.tie_word_embeddings { Role::TokenEmbedding } else { Role::OutputHead };
        self.index(role, None, None)
    }

    /// The bucket of each distance `key - query`, from `1 - longest` to `longest - 1`.
    pub(crate) fn buckets(&self, sequences: &Sequences, stack: Stack) -> Arc<Vec<u32>> {
        let lengths = sequences.spans.iter().map(|span| match stack {
            Stack::Encoder => span.encoder_len,
            Stack::Decoder => span.decoder_len,
        });
        let longest = lengths.max().unwrap_or(0).max(1);
        let buckets = Buckets::of_stack(&self.config, stack);
        Arc::new((0..2 * longest - 1).map(|position| buckets.of(longest - 1, position) as u32).collect())
    }
}

/// Whether a tensor is another parameter where stacks are shared: all that the encoder's blocks have. Its final norm is
/// its own, as the decoder's is, since it belongs to no block.
pub(crate) fn is_shared(spec: &TensorSpec) -> bool {
    spec.id.stack == Some(Stack::Encoder) && spec.id.block.is_some()
}

/// The number of a tensor's values.
fn count(spec: &TensorSpec) -> usize {
    spec.shape.iter().product()
}

fn checked(spec: &TensorSpec, values: Vec<f32>) -> Result<Vec<f32>> {
    if values.len() == count(spec) {
        return Ok(values);
    }
    let what = format!("{}: expected {} values, found {}", spec.hf_name, count(spec), values.len());
    Err(Error::Invalid(what))
}
