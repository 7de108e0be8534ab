//! The trainable model: its parameters, and the graph of fused operations over them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{Device, Tensor, Var};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::{Activation, Adapters, FeedForwardKind, OneStack, T5Config};
use t5_runtime::schema::{Role, Stack, TensorId, TensorSpec};

use crate::checkpoint::Saved;
use crate::composed::Composed;
use crate::init::{self, Scheme};
use crate::kernels::Precision;
use crate::ops::attention::{Attention, AttentionKind, PositionBias};
use crate::ops::block::{Block, Recomputed};
pub use crate::ops::cross_entropy::LossOptions;
use crate::ops::cross_entropy::{self, CrossEntropy, Statistics};
use crate::ops::dropout::{DropoutPlace, Plan};
use crate::ops::embedding::Embedding;
use crate::ops::feed_forward::FeedForwardLayer;
use crate::ops::norm::FinalNorm;
use crate::ops::{ForBackward, Gradients, Pass, Sequences};
use crate::parameters::Parameters;
use crate::tuning::{self, Lora};
use crate::{Error, Result};

/// A T5 encoder-decoder, or a model of one stack, with its gradients.
pub struct Model {
    parameters: Parameters,
    precision: Precision,
    lora: Option<Lora>,
    /// Which parameters are trained, where not all are.
    chosen: Option<Vec<bool>>,
    /// Where passes run, if not as fused operations on the CPU.
    composed: Option<Composed>,
    /// Whether blocks keep nothing but their inputs for the backward pass.
    recomputes: bool,
}

/// A tensor that an optimiser changes.
pub struct Trained<'a> {
    /// Of its state in checkpoints.
    pub name: String,
    pub shape: Vec<usize>,
    /// A norm's weight or a table of positions, which decay only where that is asked for.
    pub is_vector: bool,
    /// How many blocks are between it and the top of its stack.
    pub depth: usize,
    pub var: &'a Var,
    gradients: &'a Gradients,
    index: usize,
}

impl Trained<'_> {
    /// Its gradient; empty while it is not trained yet.
    pub fn gradient(&self) -> MutexGuard<'_, Vec<f32>> {
        self.gradients.get(self.index)
    }
}

impl Model {
    /// A model with initial values.
    ///
    /// # Errors
    /// Where the configuration has no decoder.
    pub fn new(config: &T5Config, scheme: Scheme, seed: u64) -> Result<Model> {
        Model::from_values(config, |spec| Ok(init::values(scheme, config, spec, seed)))
    }

    /// A model that continues from any checkpoint the runtime reads; quantised weights are expanded, and factors that
    /// the encoder of a balanced file has traded with the decoder are undone.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Model> {
        Model::from_values(&checkpoint.config, |spec| expanded(checkpoint, spec))
    }

    /// A model whose values a function gives, one tensor of the schema at a time.
    ///
    /// # Errors
    /// Where the function fails or gives the wrong number of values, or where the configuration has no decoder.
    pub fn from_values(config: &T5Config, values: impl FnMut(&TensorSpec) -> Result<Vec<f32>>) -> Result<Model> {
        Ok(Model {
            parameters: Parameters::new(config, values)?,
            precision: Precision::F32,
            lora: None,
            chosen: None,
            composed: None,
            recomputes: false,
        })
    }

    /// The same model whose encoder has the decoder's blocks, cross-attention aside; what its own had is dropped.
    ///
    /// # Errors
    /// Where the stacks have different numbers of blocks.
    pub fn with_shared_stacks(self) -> Result<Model> {
        Ok(Model { parameters: self.parameters.sharing_stacks()?, ..self })
    }

    /// The same model of which low-rank factors alone are trained. `base_model` is the name of what stays as it is.
    ///
    /// # Errors
    /// Where the options name no matrix of the model, or an adapter that does not fit it.
    pub fn with_lora(mut self, options: &tuning::Options, base_model: &str, seed: u64) -> Result<Model> {
        self.lora = Some(Lora::new(&self.parameters, options, base_model, seed)?);
        self.changed();
        Ok(self)
    }

    /// The same model with adapters behind its feed-forward layers, which are trained alone, or with all norms. New
    /// ones change nothing at first; those that the model has are trained on.
    ///
    /// # Errors
    /// Where the model has adapters of another kind.
    pub fn with_adapters(self, adapters: Adapters, norms: bool, seed: u64) -> Result<Model> {
        let old = self.config();
        if let Some(found) = old.adapters.filter(|found| *found != adapters) {
            let what = format!("expected a model without adapters or with {adapters:?}, found {found:?}");
            return Err(Error::config("configuration", "tuning.adapter_size", what));
        }
        let config = T5Config { adapters: Some(adapters), ..old.clone() };
        config.validate("configuration")?;
        let places: HashMap<TensorId, usize> = self.specs().iter().enumerate().map(|(i, spec)| (spec.id, i)).collect();
        let model = Model::from_values(&config, |spec| match places.get(&spec.id) {
            Some(&index) => self.values(index),
            None => Ok(init::values(Scheme::T5x, &config, spec, seed)),
        })?;
        let chosen: Vec<bool> = model.specs().iter().map(|spec| tuning::is_chosen(spec.id.role, norms)).collect();
        chosen.iter().enumerate().for_each(|(index, &chosen)| model.parameters.want_gradient(index, chosen));
        Ok(Model { chosen: Some(chosen), precision: self.precision, recomputes: self.recomputes, ..model })
    }

    /// The factors that are trained, where only they are.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// Computes the gradients of so many blocks of each stack alone, counted from the top; `None`: of all. Those that
    /// come in are zero.
    pub(crate) fn train_top_blocks(&self, blocks: Option<usize>) {
        let Some(blocks) = blocks else { return };
        let (encoder, decoder) = (self.config().num_layers, self.config().num_decoder_layers);
        for (index, spec) in self.specs().iter().enumerate() {
            self.parameters.want_gradient(index, tuning::is_trained(spec, blocks, encoder, decoder));
        }
    }

    /// The tensors that an optimiser changes, in the order of their states.
    pub fn trained(&self) -> Vec<Trained<'_>> {
        match &self.lora {
            Some(lora) => lora
                .tensors()
                .map(|(name, shape, var, index)| Trained {
                    name,
                    shape,
                    is_vector: false,
                    depth: self.depth(&self.specs()[lora.factored(index)]),
                    var,
                    gradients: lora.gradients(),
                    index,
                })
                .collect(),
            None => {
                let trained = self.specs().iter().zip(self.vars()).enumerate();
                let is_chosen = |index: usize| self.chosen.as_ref().is_none_or(|chosen| chosen[index]);
                trained
                    .filter(|(index, _)| is_chosen(*index))
                    .map(|(index, (spec, var))| Trained {
                        name: spec.hf_name.clone(),
                        shape: spec.shape.clone(),
                        is_vector: spec.shape.len() < 2 || spec.id.role == Role::RelativeBias,
                        depth: self.depth(spec),
                        var,
                        gradients: self.gradients(),
                        index,
                    })
                    .collect()
            }
        }
    }

    /// How many blocks are between a tensor and the top of its stack: none for the last block, the final norm and an
    /// untied head, all for the embedding, which is also the head where the two are tied.
    fn depth(&self, spec: &TensorSpec) -> usize {
        let (encoder, decoder) = (self.config().num_layers, self.config().num_decoder_layers);
        match spec.id.role {
            Role::TokenEmbedding => encoder.max(decoder),
            _ => tuning::blocks_above(spec, encoder, decoder).unwrap_or(0),
        }
    }

    /// To be called between the last backward pass and the update: brings gradients to what is trained.
    ///
    /// # Errors
    /// Where a tensor is not in main memory.
    pub fn collect_gradients(&self) -> Result<()> {
        self.lora.as_ref().map_or(Ok(()), |lora| lora.collect(&self.parameters))
    }

    /// Writes the trained factors as PEFT's adapter, where only they are trained.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write_adapter(&self, folder: &Path) -> Result<()> {
        self.lora.as_ref().map_or(Ok(()), |lora| lora.write(folder))
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

    /// The same model; if it `recomputes`, its blocks keep nothing but their inputs for the backward pass, which
    /// computes the rest again: the same gradients to the last bit, in less memory and more time. Not on a device.
    /// (Where stacks are shared, the order in which they add to a gradient may be another one.)
    pub fn recomputing_blocks(self, recomputes: bool) -> Model {
        Model { recomputes, ..self }
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
        self.parameters.config()
    }

    /// The schema's rows, in the order of the parameters, without those that are other parameters.
    pub fn specs(&self) -> &[TensorSpec] {
        self.parameters.specs()
    }

    /// The schema's tensors that are other parameters, with where those are.
    pub fn shared(&self) -> &[(TensorSpec, usize)] {
        self.parameters.shared()
    }

    /// The parameters, in the order of the schema.
    pub fn vars(&self) -> &[Var] {
        self.parameters.vars()
    }

    /// The gradients, in the order of the schema. Backward passes add to them.
    pub fn gradients(&self) -> &Gradients {
        self.parameters.gradients()
    }

    /// The number of values.
    pub fn parameters(&self) -> usize {
        self.parameters.count()
    }

    /// The number of values that are trained.
    pub fn trained_values(&self) -> usize {
        self.trained().iter().map(|trained| trained.shape.iter().product::<usize>()).sum()
    }

    /// To be called when trained tensors were changed.
    ///
    /// # Errors
    /// Where a tensor is not in main memory.
    pub fn updated(&self) -> Result<()> {
        if let Some(lora) = &self.lora {
            lora.merge(&self.parameters)?;
        }
        self.changed();
        Ok(())
    }

    /// Goes on with the values of a checkpoint's folder.
    ///
    /// # Errors
    /// Where they cannot be read or are another model's.
    pub(crate) fn restore(&self, saved: &Saved) -> Result<()> {
        match &self.lora {
            Some(lora) => lora.restore(&self.parameters, saved.folder())?,
            None => {
                let model = saved.model()?;
                self.parameters.load(|name| model.read(name))?;
            }
        }
        self.changed();
        Ok(())
    }

    fn changed(&self) {
        if let Some(composed) = &self.composed {
            composed.changed();
        }
    }

    /// A copy of one parameter's values.
    ///
    /// # Errors
    /// Where the tensor is not in main memory.
    pub fn values(&self, index: usize) -> Result<Vec<f32>> {
        self.parameters.values(index)
    }

    /// Replaces all values, by the tensors' Hugging Face names.
    ///
    /// # Errors
    /// Where the function fails or gives the wrong number of values.
    pub fn load(&self, values: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<()> {
        self.parameters.load(values)?;
        self.changed();
        Ok(())
    }

    /// Forward and backward over one batch: adds to [`Model::gradients`] and returns the loss and its parts.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn backward(&self, sequences: Sequences, options: &LossOptions, dropout: Plan) -> Result<(f32, Statistics)> {
        if let Some(composed) = &self.composed {
            self.check(&sequences)?;
            return Ok(composed.loss(&self.parameters, self.precision, &sequences, options, dropout, true)?);
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
            self.check(&sequences)?;
            return Ok(composed.loss(&self.parameters, self.precision, &sequences, options, Plan::OFF, false)?);
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
        self.check(&sequences)?;
        let pass = self.pass(sequences, dropout, training);
        let output = self.forward(&pass)?;
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let loss = output.apply_op1(CrossEntropy {
            head: self.parameters.head(),
            d_model: self.config().d_model,
            logits_scale: self.config().logits_scale(),
            label_smoothing: options.label_smoothing,
            z_loss: options.z_loss,
            denominator: options.denominator,
            statistics: statistics.clone(),
            saved: ForBackward::default(),
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
        self.check(&sequences)?;
        let output = match &self.composed {
            Some(composed) => composed.output(&self.parameters, &sequences)?,
            None => self.forward(&self.pass(sequences, Plan::OFF, false))?,
        };
        Ok(cross_entropy::logits(
            &output,
            self.vars()[self.parameters.head()].as_tensor(),
            self.config().logits_scale(),
        )?)
    }

    fn pass(&self, sequences: Sequences, dropout: Plan, training: bool) -> Arc<Pass> {
        let (vars, gradients) = (self.parameters.vars().clone(), self.parameters.gradients().clone());
        let precision = if training { self.precision } else { Precision::F32 };
        Arc::new(Pass { sequences, vars, gradients, dropout, training, precision })
    }

    fn check(&self, sequences: &Sequences) -> Result<()> {
        if sequences.decoder_input_ids.is_empty() {
            return Err(Error::Invalid("batch: no decoder tokens".to_owned()));
        }
        if self.config().one_stack().is_some() && !sequences.encoder_ids.is_empty() {
            let what = "batch: expected examples as one text each for a model of one stack, found inputs by themselves";
            return Err(Error::Invalid(what.to_owned()));
        }
        Ok(())
    }

    /// The decoder's normalised output, `[decoder tokens, d_model]`.
    fn forward(&self, pass: &Arc<Pass>) -> Result<Tensor> {
        let (encoder, decoder) = (self.config().num_layers, self.config().num_decoder_layers);
        let memory = match self.config().one_stack() {
            None => Some(self.stack(pass, Stack::Encoder, encoder, None)?),
            Some(_) => None,
        };
        self.stack(pass, Stack::Decoder, decoder, memory.as_ref())
    }

    fn stack(&self, pass: &Arc<Pass>, stack: Stack, blocks: usize, memory: Option<&Tensor>) -> Result<Tensor> {
        let decoder = stack == Stack::Decoder;
        let table = self.parameters.index(Role::TokenEmbedding, None, None);
        let mut x = self.vars()[table].as_tensor().apply_op1(Embedding {
            pass: pass.clone(),
            table,
            d_model: self.config().d_model,
            decoder,
            dropout: pass.dropout.at(DropoutPlace::Embedding, decoder, 0),
        })?;
        let buckets = self.parameters.buckets(&pass.sequences, stack);
        // A pass that keeps nothing, for blocks that are computed again.
        let first = (self.recomputes && pass.training).then(|| Arc::new(pass.without_training()));
        for number in 0..blocks {
            let block = self.block(pass, stack, number, &buckets);
            x = match &first {
                None => block.apply(&x, memory)?,
                Some(first) => Recomputed::new(self.block(first, stack, number, &buckets), block).apply(&x, memory)?,
            };
        }
        Ok(x.apply_op1(FinalNorm {
            pass: pass.clone(),
            weight: self.parameters.index(Role::FinalNorm, Some(stack), None),
            eps: self.config().layer_norm_epsilon,
            decoder,
            dropout: pass.dropout.at(DropoutPlace::Final, decoder, 0),
            inverse: ForBackward::default(),
        })?)
    }

    fn block(&self, pass: &Arc<Pass>, stack: Stack, block: usize, buckets: &Arc<Vec<u32>>) -> Block {
        let adapters = self.config().adapters;
        let reads_states = stack == Stack::Decoder && self.config().one_stack().is_none();
        Block {
            attention: self.self_attention(pass, stack, block, buckets),
            cross: reads_states.then(|| self.cross_attention(pass, block)),
            feed_forward: FeedForwardLayer {
                residual: !adapters.is_some_and(|adapters| adapters.inside),
                ..self.feed_forward(pass, stack, block)
            },
            adapter: adapters.map(|Adapters { size, .. }| self.adapter(pass, stack, block, size)),
        }
    }

    fn self_attention(&self, pass: &Arc<Pass>, stack: Stack, block: usize, buckets: &Arc<Vec<u32>>) -> Attention {
        let decoder = stack == Stack::Decoder;
        let at = |role| self.parameters.index(role, Some(stack), Some(block));
        let table = self.parameters.index(
            Role::RelativeBias,
            Some(stack),
            Some(if self.config().relative_bias_per_block { block } else { 0 }),
        );
        Attention {
            pass: pass.clone(),
            kind: match self.config().one_stack() {
                Some(OneStack::Prefix) => AttentionKind::Prefix,
                _ if decoder => AttentionKind::Decoder,
                _ => AttentionKind::Encoder,
            },
            norm: at(Role::AttentionNorm),
            q: at(Role::SelfQ),
            k: at(Role::SelfK),
            v: at(Role::SelfV),
            o: at(Role::SelfO),
            bias: Some(PositionBias { table, buckets: buckets.clone(), longest: buckets.len().div_ceil(2) }),
            eps: self.config().layer_norm_epsilon,
            num_heads: self.config().num_heads,
            d_kv: self.config().d_kv,
            probability_dropout: pass.dropout.at(DropoutPlace::SelfProbabilities, decoder, block),
            output_dropout: pass.dropout.at(DropoutPlace::SelfOutput, decoder, block),
            saved: ForBackward::default(),
        }
    }

    fn cross_attention(&self, pass: &Arc<Pass>, block: usize) -> Attention {
        let at = |role| self.parameters.index(role, Some(Stack::Decoder), Some(block));
        Attention {
            pass: pass.clone(),
            kind: AttentionKind::Cross,
            norm: at(Role::CrossAttentionNorm),
            q: at(Role::CrossQ),
            k: at(Role::CrossK),
            v: at(Role::CrossV),
            o: at(Role::CrossO),
            // Cross-attention has no position bias.
            bias: None,
            eps: self.config().layer_norm_epsilon,
            num_heads: self.config().num_heads,
            d_kv: self.config().d_kv,
            probability_dropout: pass.dropout.at(DropoutPlace::CrossProbabilities, true, block),
            output_dropout: pass.dropout.at(DropoutPlace::CrossOutput, true, block),
            saved: ForBackward::default(),
        }
    }

    fn feed_forward(&self, pass: &Arc<Pass>, stack: Stack, block: usize) -> FeedForwardLayer {
        let decoder = stack == Stack::Decoder;
        let at = |role| self.parameters.index(role, Some(stack), Some(block));
        let gated = self.config().feed_forward.gated;
        FeedForwardLayer {
            pass: pass.clone(),
            norm: Some(at(Role::FeedForwardNorm)),
            wi: at(if gated { Role::Wi0 } else { Role::Wi }),
            wi_linear: gated.then(|| at(Role::Wi1)),
            wo: at(Role::Wo),
            eps: self.config().layer_norm_epsilon,
            kind: self.config().feed_forward,
            d_ff: self.config().d_ff,
            d_model: self.config().d_model,
            residual: true,
            decoder,
            hidden_dropout: pass.dropout.at(DropoutPlace::FeedForwardHidden, decoder, block),
            output_dropout: pass.dropout.at(DropoutPlace::FeedForwardOutput, decoder, block),
            saved: ForBackward::default(),
        }
    }

    /// The adapter behind a feed-forward layer, which is one itself: plain, with ReLU.
    fn adapter(&self, pass: &Arc<Pass>, stack: Stack, block: usize, size: usize) -> FeedForwardLayer {
        let decoder = stack == Stack::Decoder;
        let at = |role| self.parameters.index(role, Some(stack), Some(block));
        let inside = self.config().adapters.is_some_and(|adapters| adapters.inside);
        FeedForwardLayer {
            norm: (!inside).then(|| at(Role::AdapterNorm)),
            wi: at(Role::AdapterDown),
            wi_linear: None,
            wo: at(Role::AdapterUp),
            kind: FeedForwardKind { activation: Activation::Relu, gated: false },
            d_ff: size,
            hidden_dropout: pass.dropout.at(DropoutPlace::AdapterHidden, decoder, block),
            output_dropout: pass.dropout.at(DropoutPlace::AdapterOutput, decoder, block),
            ..self.feed_forward(pass, stack, block)
        }
    }
}

/// A checkpoint's tensor in f32. In a balanced file the encoder's last norm is g / s and the matrices that read its
/// states are W s: here g and W again, since what is made of them has no place for s.
pub(crate) fn expanded(checkpoint: &Checkpoint, spec: &TensorSpec) -> Result<Vec<f32>> {
    let missing = || t5_runtime::Error::tensor(&checkpoint.file, &spec.hf_name, "expected, but not in the checkpoint");
    let mut values = t5_runtime::block::decode_tensor(checkpoint.tensor(&spec.hf_name).ok_or_else(missing)?)?;
    let is_norm = (spec.id.role, spec.id.stack) == (Role::FinalNorm, Some(Stack::Encoder));
    if let Some(scale) = &checkpoint.encoder_scale
        && (is_norm || spec.id.role.reads_encoder_states())
    {
        for row in values.chunks_exact_mut(scale.len()) {
            let row = row.iter_mut().zip(scale);
            row.for_each(|(value, s)| if is_norm { *value *= s } else { *value /= s });
        }
    }
    Ok(values)
}
