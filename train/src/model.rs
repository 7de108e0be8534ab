//! The trainable model: the schema's tensors as candle variables, and the graph of fused operations over them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor, Var};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::position::Buckets;
use t5_runtime::schema::{self, Role, Stack, TensorId, TensorSpec};

use crate::composed::Composed;
use crate::init::{self, Scheme};
use crate::kernels::Precision;
use crate::ops::attention::{Attention, Kind, PositionBias};
use crate::ops::cross_entropy::{self, CrossEntropy, Statistics};
use crate::ops::dropout::{Place, Plan};
use crate::ops::embedding::Embedding;
use crate::ops::feed_forward::FeedForwardLayer;
use crate::ops::norm::FinalNorm;
use crate::ops::{Gradients, Pass, Saved, Sequences, Values};
use crate::optimizer::update_in_place;
use crate::{Error, Result};

/// How the loss is computed from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// The share of the target distribution that is spread over all classes.
    pub label_smoothing: f32,
    /// The factor of `ln(Z)^2`; the paper's runs used 1e-4.
    pub z_loss: f32,
    /// What the sum over tokens is divided by.
    pub denominator: f64,
}

/// A T5 encoder-decoder with its gradients.
pub struct Model {
    config: T5Config,
    specs: Vec<TensorSpec>,
    index: HashMap<TensorId, usize>,
    vars: Arc<Vec<Var>>,
    gradients: Arc<Gradients>,
    precision: Precision,
    /// Where passes run, if not as fused operations on the CPU.
    composed: Option<Composed>,
}

impl Model {
    /// A model with initial values.
    ///
    /// # Errors
    /// Where the configuration has no decoder.
    pub fn new(config: &T5Config, scheme: Scheme, seed: u64) -> Result<Model> {
        Model::from_values(config, |spec| Ok(init::values(scheme, config, spec, seed)))
    }

    /// A model that continues from any checkpoint the runtime reads; quantised weights are expanded.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Model> {
        Model::from_values(&checkpoint.config, |spec| {
            let tensor = checkpoint.tensor(&spec.hf_name).ok_or_else(|| {
                t5_runtime::Error::tensor(&checkpoint.file, &spec.hf_name, "expected, but not in the checkpoint")
            })?;
            Ok(t5_runtime::block::decode_tensor(tensor)?)
        })
    }

    /// A model whose values a function gives, one tensor of the schema at a time.
    ///
    /// # Errors
    /// Where the function fails or gives the wrong number of values, or where the configuration has no decoder.
    pub fn from_values(config: &T5Config, mut values: impl FnMut(&TensorSpec) -> Result<Vec<f32>>) -> Result<Model> {
        if config.is_encoder_only() {
            return Err(Error::Invalid("training needs an encoder-decoder: num_decoder_layers is 0".to_owned()));
        }
        let specs = schema::tensors(config);
        let mut vars = Vec::with_capacity(specs.len());
        for spec in &specs {
            let (values, expected) = (values(spec)?, spec.shape.iter().product::<usize>());
            if values.len() != expected {
                let what = format!("{}: expected {expected} values, found {}", spec.hf_name, values.len());
                return Err(Error::Invalid(what));
            }
            vars.push(Var::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?);
        }
        let gradients = Gradients::new(specs.iter().map(|spec| spec.shape.iter().product()));
        let index = specs.iter().enumerate().map(|(i, spec)| (spec.id, i)).collect();
        Ok(Model {
            config: config.clone(),
            specs,
            index,
            vars: Arc::new(vars),
            gradients: Arc::new(gradients),
            precision: Precision::F32,
            composed: None,
        })
    }

    /// The same model whose passes run on a device, composed of candle's own operations. Parameters, gradients and
    /// the optimiser stay in main memory.
    ///
    /// On the CPU this is slower than the fused operations and gives the same results, dropout masks included; on
    /// others, masks come from the device's own generator.
    pub fn composed_on(mut self, device: Device) -> Model {
        self.composed = Some(Composed::new(device));
        self
    }

    /// The same model with products of another precision while training.
    ///
    /// # Errors
    /// Where this machine has no such products.
    pub fn with_precision(mut self, precision: Precision) -> Result<Model> {
        if self.composed.is_none() && !precision.is_available() {
            let what = format!("run.precision: this processor has no {precision:?} products (AVX512_BF16); take f32");
            return Err(Error::Invalid(what));
        }
        self.precision = precision;
        Ok(self)
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The schema's rows, in the order of the parameters.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The parameters, in the order of the schema.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The gradients, in the order of the schema. Backward passes add to them.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// The number of trained values.
    pub fn parameters(&self) -> usize {
        self.specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// The precision of products with parameters while training.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// To be called when parameters were changed.
    pub(crate) fn changed(&self) {
        if let Some(composed) = &self.composed {
            composed.changed();
        }
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
            let (values, expected) = (values(&spec.hf_name)?, spec.shape.iter().product::<usize>());
            if values.len() != expected {
                let what = format!("{}: expected {expected} values, found {}", spec.hf_name, values.len());
                return Err(Error::Invalid(what));
            }
            update_in_place(var, |old| old.copy_from_slice(&values))?;
        }
        self.changed();
        Ok(())
    }

    /// Forward and backward over one batch: adds to [`Model::gradients`] and returns the loss and its parts.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn backward(&self, sequences: Sequences, options: &LossOptions, dropout: Plan) -> Result<(f32, Statistics)> {
        if let Some(composed) = &self.composed {
            check(&sequences)?;
            return Ok(composed.loss(self, &sequences, options, dropout, true)?);
        }
        let (loss, statistics) = self.loss(sequences, options, dropout, true)?;
        // Activations' gradients die inside; parameters' are in the shared buffers.
        loss.backward()?;
        Ok((loss.to_scalar::<f32>()?, statistics))
    }

    /// Forward over one batch without dropout or gradients.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn evaluate(&self, sequences: Sequences, options: &LossOptions) -> Result<(f32, Statistics)> {
        if let Some(composed) = &self.composed {
            check(&sequences)?;
            return Ok(composed.loss(self, &sequences, options, Plan::OFF, false)?);
        }
        let (loss, statistics) = self.loss(sequences, options, Plan::OFF, false)?;
        Ok((loss.to_scalar::<f32>()?, statistics))
    }

    fn loss(
        &self,
        sequences: Sequences,
        options: &LossOptions,
        dropout: Plan,
        training: bool,
    ) -> Result<(Tensor, Statistics)> {
        check(&sequences)?;
        let pass = self.pass(sequences, dropout, training);
        let output = self.forward(&pass)?;
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let loss = output.apply_op1(CrossEntropy {
            head: self.head(),
            d_model: self.config.d_model,
            logits_scale: self.config.logits_scale(),
            label_smoothing: options.label_smoothing,
            z_loss: options.z_loss,
            denominator: options.denominator,
            statistics: statistics.clone(),
            saved: Saved::default(),
            pass,
        })?;
        let statistics = *statistics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok((loss, statistics))
    }

    /// The logits of every decoder token, `[decoder tokens, vocab_size]`, without dropout.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn logits(&self, sequences: Sequences) -> Result<Vec<f32>> {
        let output = match &self.composed {
            Some(composed) => composed.output(self, &sequences)?,
            None => self.forward(&self.pass(sequences, Plan::OFF, false))?,
        };
        Ok(cross_entropy::logits(&output, self.vars[self.head()].as_tensor(), self.config.logits_scale())?)
    }

    fn pass(&self, sequences: Sequences, dropout: Plan, training: bool) -> Arc<Pass> {
        let (vars, gradients) = (self.vars.clone(), self.gradients.clone());
        let precision = if training { self.precision } else { Precision::F32 };
        Arc::new(Pass { sequences, vars, gradients, dropout, training, precision })
    }

    /// The decoder's normalised output, `[decoder tokens, d_model]`.
    fn forward(&self, pass: &Arc<Pass>) -> Result<Tensor> {
        let memory = self.stack(pass, Stack::Encoder, self.config.num_layers, None)?;
        self.stack(pass, Stack::Decoder, self.config.num_decoder_layers, Some(&memory))
    }

    fn stack(&self, pass: &Arc<Pass>, stack: Stack, blocks: usize, memory: Option<&Tensor>) -> Result<Tensor> {
        let decoder = stack == Stack::Decoder;
        let table = self.index(Role::TokenEmbedding, None, None);
        let mut x = self.vars[table].as_tensor().apply_op1(Embedding {
            pass: pass.clone(),
            table,
            d_model: self.config.d_model,
            decoder,
            dropout: pass.dropout.at(Place::Embedding, decoder, 0),
        })?;
        let buckets = self.buckets(&pass.sequences, stack);
        for block in 0..blocks {
            x = x.apply_op1(self.self_attention(pass, stack, block, &buckets))?;
            if let Some(memory) = memory {
                x = x.apply_op2(memory, self.cross_attention(pass, block))?;
            }
            x = x.apply_op1(self.feed_forward(pass, stack, block))?;
        }
        Ok(x.apply_op1(FinalNorm {
            pass: pass.clone(),
            weight: self.index(Role::FinalNorm, Some(stack), None),
            eps: self.config.layer_norm_epsilon,
            decoder,
            dropout: pass.dropout.at(Place::Final, decoder, 0),
            inverse: Saved::default(),
        })?)
    }

    fn self_attention(&self, pass: &Arc<Pass>, stack: Stack, block: usize, buckets: &Arc<Vec<u32>>) -> Attention {
        let decoder = stack == Stack::Decoder;
        let at = |role| self.index(role, Some(stack), Some(block));
        let table = self.index(
            Role::RelativeBias,
            Some(stack),
            Some(if self.config.relative_bias_per_block { block } else { 0 }),
        );
        Attention {
            pass: pass.clone(),
            kind: if decoder { Kind::Decoder } else { Kind::Encoder },
            norm: at(Role::AttentionNorm),
            q: at(Role::SelfQ),
            k: at(Role::SelfK),
            v: at(Role::SelfV),
            o: at(Role::SelfO),
            bias: Some(PositionBias { table, buckets: buckets.clone(), longest: buckets.len().div_ceil(2) }),
            eps: self.config.layer_norm_epsilon,
            num_heads: self.config.num_heads,
            d_kv: self.config.d_kv,
            probability_dropout: pass.dropout.at(Place::SelfProbabilities, decoder, block),
            output_dropout: pass.dropout.at(Place::SelfOutput, decoder, block),
            saved: Saved::default(),
        }
    }

    fn cross_attention(&self, pass: &Arc<Pass>, block: usize) -> Attention {
        let at = |role| self.index(role, Some(Stack::Decoder), Some(block));
        Attention {
            pass: pass.clone(),
            kind: Kind::Cross,
            norm: at(Role::CrossAttentionNorm),
            q: at(Role::CrossQ),
            k: at(Role::CrossK),
            v: at(Role::CrossV),
            o: at(Role::CrossO),
            // Cross-attention has no position bias.
            bias: None,
            eps: self.config.layer_norm_epsilon,
            num_heads: self.config.num_heads,
            d_kv: self.config.d_kv,
            probability_dropout: pass.dropout.at(Place::CrossProbabilities, true, block),
            output_dropout: pass.dropout.at(Place::CrossOutput, true, block),
            saved: Saved::default(),
        }
    }

    fn feed_forward(&self, pass: &Arc<Pass>, stack: Stack, block: usize) -> FeedForwardLayer {
        let decoder = stack == Stack::Decoder;
        let at = |role| self.index(role, Some(stack), Some(block));
        let gated = self.config.feed_forward.gated;
        FeedForwardLayer {
            pass: pass.clone(),
            norm: at(Role::FeedForwardNorm),
            wi: at(if gated { Role::Wi0 } else { Role::Wi }),
            wi_linear: gated.then(|| at(Role::Wi1)),
            wo: at(Role::Wo),
            eps: self.config.layer_norm_epsilon,
            kind: self.config.feed_forward,
            d_ff: self.config.d_ff,
            decoder,
            hidden_dropout: pass.dropout.at(Place::FeedForwardHidden, decoder, block),
            output_dropout: pass.dropout.at(Place::FeedForwardOutput, decoder, block),
            saved: Saved::default(),
        }
    }

    /// The bucket of each distance `key - query`, from `1 - longest` to `longest - 1`.
    pub(crate) fn buckets(&self, sequences: &Sequences, stack: Stack) -> Arc<Vec<u32>> {
        let lengths = sequences.spans.iter().map(|span| match stack {
            Stack::Encoder => span.encoder_len,
            Stack::Decoder => span.decoder_len,
        });
        let longest = lengths.max().unwrap_or(0).max(1);
        let config = &self.config;
        let buckets =
            Buckets::new(stack.into(), config.relative_attention_num_buckets, config.relative_attention_max_distance);
        Arc::new((0..2 * longest - 1).map(|position| buckets.of(longest - 1, position) as u32).collect())
    }

    /// Index of the head's matrix.
    pub(crate) fn head(&self) -> usize {
        let role = if self.config.tie_word_embeddings { Role::TokenEmbedding } else { Role::OutputHead };
        self.index(role, None, None)
    }

    pub(crate) fn index(&self, role: Role, stack: Option<Stack>, block: Option<usize>) -> usize {
        self.index[&TensorId { role, stack, block }]
    }
}

fn check(sequences: &Sequences) -> Result<()> {
    if sequences.decoder_input_ids.is_empty() {
        return Err(Error::Invalid("batch: no decoder tokens".to_owned()));
    }
    Ok(())
}
