//! The same model composed of candle's own operations, for devices that the fused ones of [`crate::ops`] do not run
//! on. On the CPU it gives their results and is only there to be compared with them.
//!
//! Parameters, their gradients and the optimiser stay in main memory in f32, as for the fused operations, so that
//! checkpoints and optimisers are the same; the device holds a copy of the parameters, renewed after each update,
//! and sends back the gradients of each batch. Products with parameters may have bf16 operands; norms, softmax,
//! attention's products and the loss are f32.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use candle_core::{D, DType, Device, Tensor, Var};
use t5_runtime::config::{Activation, Adapters, OneStack};
use t5_runtime::schema::{Role, Stack};

use crate::kernels::Precision;
use crate::ops::attention::AttentionKind;
use crate::ops::cross_entropy::{LossOptions, Statistics};
use crate::ops::dropout::{Dropout, DropoutPlace, Plan};
use crate::ops::gather::{Gather, NO_ROW};
use crate::ops::soft_targets::SoftTarget;
use crate::ops::{Sequences, SoftTargets, Values};
use crate::parameters::Parameters;

type Result<T> = candle_core::Result<T>;

/// Added to the score of a key that a query may not see; its probability is exactly 0.
const UNSEEN: f32 = -1e9;

/// Tokens whose logits are held at a time.
const CHUNK: usize = 4096;

/// A device and the copy of the parameters on it.
pub(crate) struct Composed {
    device: Device,
    copy: Mutex<Option<Arc<Vec<Var>>>>,
}

impl Composed {
    pub fn new(device: Device) -> Composed {
        Composed { device, copy: Mutex::new(None) }
    }

    /// Parameters have changed: the next pass copies them again.
    pub fn changed(&self) {
        *self.copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    fn copied(&self, parameters: &Parameters) -> Result<Arc<Vec<Var>>> {
        let mut copy = self.copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(copy) = &*copy {
            return Ok(copy.clone());
        }
        let vars = parameters.vars().iter().map(|var| {
            let values = Values::new(var.as_tensor())?;
            Var::from_slice(&values, var.shape(), &self.device)
        });
        Ok(copy.insert(Arc::new(vars.collect::<Result<_>>()?)).clone())
    }

    /// The loss and its parts; while training, gradients are added to the parameters'.
    pub fn loss(
        &self,
        parameters: &Parameters,
        precision: Precision,
        sequences: &Sequences,
        options: &LossOptions,
        dropout: Plan,
        training: bool,
    ) -> Result<(f32, Statistics)> {
        let copy = self.copied(parameters)?;
        let bf16 = training && precision == Precision::Bf16;
        let pass = ComposedPass::new(parameters, &self.device, &copy, sequences, dropout, training, bf16)?;
        let output = pass.output()?;
        let (loss, statistics, surrogate) = pass.cross_entropy(&output, options)?;
        if let Some(surrogate) = surrogate {
            pass.collect(&surrogate)?;
        }
        Ok((loss, statistics))
    }

    /// The decoder's normalised output `[decoder tokens, d_model]`, in main memory, without dropout.
    pub fn output(&self, parameters: &Parameters, sequences: &Sequences) -> Result<Tensor> {
        let copy = self.copied(parameters)?;
        let pass = ComposedPass::new(parameters, &self.device, &copy, sequences, Plan::OFF, false, false)?;
        pass.output()?.to_device(&Device::Cpu)
    }
}

/// The tokens of one stack, ragged, and their places where examples are padded to the longest one.
struct Tokens {
    examples: usize,
    longest: usize,
    lengths: Vec<usize>,
    /// `[tokens]`: the batch row of each.
    rows: Vec<u32>,
    ids: Tensor,
    /// `[examples * longest]`: token of each place.
    to_padded: Tensor,
    /// `[tokens]`: place of each token.
    to_ragged: Tensor,
}

impl Tokens {
    fn new(ids: &[u32], rows: &[u32], spans: &[(usize, usize)], device: &Device) -> Result<Tokens> {
        let lengths: Vec<usize> = spans.iter().map(|&(_, length)| length).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        let (mut to_padded, mut to_ragged) = (vec![NO_ROW; spans.len() * longest], vec![NO_ROW; ids.len()]);
        for (example, &(start, length)) in spans.iter().enumerate() {
            for i in 0..length {
                to_padded[example * longest + i] = (start + i) as u32;
                to_ragged[start + i] = (example * longest + i) as u32;
            }
        }
        Ok(Tokens {
            examples: spans.len(),
            longest,
            lengths,
            rows: rows.to_vec(),
            ids: Tensor::new(ids, device)?,
            to_padded: Tensor::new(to_padded, device)?,
            to_ragged: Tensor::new(to_ragged, device)?,
        })
    }

    /// `[tokens, heads * d_kv]` -> `[examples, heads, longest, d_kv]`, zeros where there is no token.
    fn padded(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let op = Gather { rows: self.to_padded.clone(), inverse: self.to_ragged.clone() };
        let x = x.contiguous()?.apply_op1(op)?;
        x.reshape((self.examples, self.longest, heads, ()))?.transpose(1, 2)?.contiguous()
    }

    /// The inverse of [`Tokens::padded`].
    fn ragged(&self, x: &Tensor) -> Result<Tensor> {
        let op = Gather { rows: self.to_ragged.clone(), inverse: self.to_padded.clone() };
        x.transpose(1, 2)?.contiguous()?.reshape((self.examples * self.longest, ()))?.apply_op1(op)
    }
}

/// One forward pass over one batch.
struct ComposedPass<'a> {
    parameters: &'a Parameters,
    device: &'a Device,
    /// The copy on the device.
    copy: &'a [Var],
    sequences: &'a Sequences,
    encoder: Tokens,
    decoder: Tokens,
    dropout: Plan,
    training: bool,
    bf16: bool,
    /// The embeddings of both stacks, which backpropagation ends at.
    embedded: Mutex<Vec<(Var, bool)>>,
}

impl<'a> ComposedPass<'a> {
    fn new(
        parameters: &'a Parameters,
        device: &'a Device,
        copy: &'a [Var],
        sequences: &'a Sequences,
        dropout: Plan,
        training: bool,
        bf16: bool,
    ) -> Result<ComposedPass<'a>> {
        if device.is_cuda() && dropout.rate > 0.0 {
            // The masks of a pass are drawn in the order of its operations.
            device.set_seed(dropout.seed)?;
        }
        let spans = &sequences.spans;
        let encoder: Vec<_> = spans.iter().map(|span| (span.encoder_start, span.encoder_len)).collect();
        let decoder: Vec<_> = spans.iter().map(|span| (span.decoder_start, span.decoder_len)).collect();
        Ok(ComposedPass {
            encoder: Tokens::new(&sequences.encoder_ids, &sequences.encoder_rows, &encoder, device)?,
            decoder: Tokens::new(&sequences.decoder_input_ids, &sequences.decoder_rows, &decoder, device)?,
            bf16,
            embedded: Mutex::default(),
            parameters,
            device,
            copy,
            sequences,
            dropout,
            training,
        })
    }

    fn tokens(&self, stack: Stack) -> &Tokens {
        if stack == Stack::Decoder { &self.decoder } else { &self.encoder }
    }

    fn parameter(&self, role: Role, stack: Option<Stack>, block: Option<usize>) -> &Tensor {
        self.copy[self.parameters.index(role, stack, block)].as_tensor()
    }

    /// The decoder's normalised output, `[decoder tokens, d_model]`.
    fn output(&self) -> Result<Tensor> {
        let config = self.parameters.config();
        let memory = match config.one_stack() {
            None => Some(self.stack(Stack::Encoder, config.num_layers, None)?),
            Some(_) => None,
        };
        self.stack(Stack::Decoder, config.num_decoder_layers, memory.as_ref())
    }

    fn stack(&self, stack: Stack, blocks: usize, memory: Option<&Tensor>) -> Result<Tensor> {
        let decoder = stack == Stack::Decoder;
        let tokens = self.tokens(stack);
        let mut x = self.embed(tokens, decoder)?;
        let unseen = self.unseen(match self.parameters.config().one_stack() {
            Some(OneStack::Prefix) => AttentionKind::Prefix,
            _ if decoder => AttentionKind::Decoder,
            _ => AttentionKind::Encoder,
        })?;
        let unseen_memory = self.unseen(AttentionKind::Cross)?;
        let mut biases: HashMap<usize, Tensor> = HashMap::new();
        for block in 0..blocks {
            let at = |role| self.parameter(role, Some(stack), Some(block));
            let owner = if self.parameters.config().relative_bias_per_block { block } else { 0 };
            if let Entry::Vacant(bias) = biases.entry(owner) {
                bias.insert(self.position_bias(self.parameter(Role::RelativeBias, Some(stack), Some(owner)), stack)?);
            }
            let y = self.norm(&x, at(Role::AttentionNorm))?;
            let y = ComposedAttention {
                q: &self.linear(&y, at(Role::SelfQ))?,
                k: &self.linear(&y, at(Role::SelfK))?,
                v: &self.linear(&y, at(Role::SelfV))?,
                queries: tokens,
                keys: tokens,
                bias: biases.get(&owner),
                unseen: &unseen,
                dropout: self.dropout.at(DropoutPlace::SelfProbabilities, decoder, block),
            }
            .context(self)?;
            let y = self.linear(&y, at(Role::SelfO))?;
            x = (x + self.drop_rows(y, self.dropout.at(DropoutPlace::SelfOutput, decoder, block), tokens)?)?;
            if let Some(memory) = memory {
                let y = self.norm(&x, at(Role::CrossAttentionNorm))?;
                let y = ComposedAttention {
                    q: &self.linear(&y, at(Role::CrossQ))?,
                    k: &self.linear(memory, at(Role::CrossK))?,
                    v: &self.linear(memory, at(Role::CrossV))?,
                    queries: tokens,
                    keys: &self.encoder,
                    bias: None,
                    unseen: &unseen_memory,
                    dropout: self.dropout.at(DropoutPlace::CrossProbabilities, true, block),
                }
                .context(self)?;
                let y = self.linear(&y, at(Role::CrossO))?;
                x = (x + self.drop_rows(y, self.dropout.at(DropoutPlace::CrossOutput, true, block), tokens)?)?;
            }
            let y = self.norm(&x, at(Role::FeedForwardNorm))?;
            let y = self.feed_forward(&y, stack, block)?;
            let y = self.drop_rows(y, self.dropout.at(DropoutPlace::FeedForwardOutput, decoder, block), tokens)?;
            x = match self.parameters.config().adapters {
                None => (x + y)?,
                Some(Adapters { inside: true, .. }) => (x + (&y + self.adapter(&y, stack, block)?)?)?,
                Some(Adapters { inside: false, .. }) => {
                    let x = (x + y)?;
                    let y = self.norm(&x, at(Role::AdapterNorm))?;
                    (&x + self.adapter(&y, stack, block)?)?
                }
            };
        }
        let y = self.norm(&x, self.parameter(Role::FinalNorm, Some(stack), None))?;
        self.drop_rows(y, self.dropout.at(DropoutPlace::Final, decoder, 0), tokens)
    }

    fn embed(&self, tokens: &Tokens, decoder: bool) -> Result<Tensor> {
        let table = self.parameter(Role::TokenEmbedding, None, None).detach();
        let x = table.index_select(&tokens.ids, 0)?;
        // A leaf: its gradient is scattered over the table in main memory (see `collect`).
        let leaf = Var::from_tensor(&x)?;
        let x = leaf.as_tensor().clone();
        self.embedded.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((leaf, decoder));
        self.drop_rows(x, self.dropout.at(DropoutPlace::Embedding, decoder, 0), tokens)
    }

    /// `x * rsqrt(mean(x^2) + eps) * w`
    fn norm(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + f64::from(self.parameters.config().layer_norm_epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(w)
    }

    /// `x[m, k] w[n, k]^T`, in f32.
    fn linear(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        self.product(x, &w.t()?)
    }

    fn product(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        if self.bf16 {
            return a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(DType::F32);
        }
        a.matmul(b)
    }

    fn feed_forward(&self, x: &Tensor, stack: Stack, block: usize) -> Result<Tensor> {
        let at = |role| self.parameter(role, Some(stack), Some(block));
        let kind = self.parameters.config().feed_forward;
        let wi = self.linear(x, at(if kind.gated { Role::Wi0 } else { Role::Wi }))?;
        let mut inner = match kind.activation {
            Activation::Relu => wi.relu()?,
            // The tanh form.
            Activation::GeluNew => wi.gelu()?,
            Activation::Gelu => wi.gelu_erf()?,
            Activation::Silu => wi.silu()?,
        };
        if kind.gated {
            inner = (inner * self.linear(x, at(Role::Wi1))?)?;
        }
        let decoder = stack == Stack::Decoder;
        let dropout = self.dropout.at(DropoutPlace::FeedForwardHidden, decoder, block);
        self.linear(&self.drop_rows(inner, dropout, self.tokens(stack))?, at(Role::Wo))
    }

    /// `up(relu(down(x)))` with its dropout.
    fn adapter(&self, x: &Tensor, stack: Stack, block: usize) -> Result<Tensor> {
        let at = |role| self.parameter(role, Some(stack), Some(block));
        let (decoder, tokens) = (stack == Stack::Decoder, self.tokens(stack));
        let inner = self.linear(x, at(Role::AdapterDown))?.relu()?;
        let dropout = self.dropout.at(DropoutPlace::AdapterHidden, decoder, block);
        let y = self.linear(&self.drop_rows(inner, dropout, tokens)?, at(Role::AdapterUp))?;
        self.drop_rows(y, self.dropout.at(DropoutPlace::AdapterOutput, decoder, block), tokens)
    }

    /// `[1, heads, longest, longest]`: the bias of each query and key, from the table `[buckets, heads]`.
    ///
    /// The bias depends on `key - query` alone. A row of the biases by distance, 0 to n - 1 first and then -n to
    /// -1, repeated n times and cut into rows that are one shorter, moves by one place from row to row. The rows
    /// are chosen by a product with ones and zeros, whose gradient is a product, too.
    fn position_bias(&self, table: &Tensor, stack: Stack) -> Result<Tensor> {
        let n = self.tokens(stack).longest;
        // By key - query + n - 1.
        let by_distance = self.parameters.buckets(self.sequences, stack);
        let longest = by_distance.len().div_ceil(2);
        let (buckets, heads) = table.dims2()?;
        let mut chosen = vec![0.0f32; 2 * n * buckets];
        for place in 0..2 * n {
            // The place of distance -n is never read.
            let from = if place < n { longest - 1 + place } else { (longest - 1 + place).saturating_sub(2 * n) };
            chosen[place * buckets + by_distance[from] as usize] = 1.0;
        }
        let row = Tensor::from_vec(chosen, (2 * n, buckets), self.device)?.matmul(table)?.t()?.contiguous()?;
        let rows = row.unsqueeze(1)?.broadcast_as((heads, n, 2 * n))?.contiguous()?.reshape((heads, n * 2 * n))?;
        let rows = rows.narrow(1, 0, n * (2 * n - 1))?.contiguous()?.reshape((heads, n, 2 * n - 1))?;
        rows.narrow(2, 0, n)?.contiguous()?.unsqueeze(0)
    }

    /// What is added to scores so that nothing unseen is attended to: `[1, 1, queries, keys]`,
    /// `[examples, 1, queries, keys]` where there are prefixes, or `[examples, 1, 1, keys]`.
    fn unseen(&self, kind: AttentionKind) -> Result<Tensor> {
        let unseen = |hidden: bool| if hidden { UNSEEN } else { 0.0 };
        if kind == AttentionKind::Decoder {
            let n = self.decoder.longest;
            let mask: Vec<f32> = (0..n * n).map(|i| unseen(i % n > i / n)).collect();
            return Tensor::from_vec(mask, (1, 1, n, n), self.device);
        }
        if kind == AttentionKind::Prefix {
            let n = self.decoder.longest;
            let of_example = |prefix: usize| {
                (0..n * n).map(move |i| (i / n, i % n)).map(move |(query, key)| {
                    let last = if query < prefix { prefix - 1 } else { query };
                    unseen(key > last)
                })
            };
            let mask = self.sequences.spans.iter().flat_map(|span| of_example(span.prefix));
            return Tensor::from_vec(mask.collect(), (self.decoder.examples, 1, n, n), self.device);
        }
        let n = self.encoder.longest;
        let mask = self.encoder.lengths.iter().flat_map(|&length| (0..n).map(move |key| unseen(key >= length)));
        Tensor::from_vec(mask.collect(), (self.encoder.examples, 1, 1, n), self.device)
    }

    /// Dropout of `[tokens, width]`.
    fn drop_rows(&self, x: Tensor, dropout: Dropout, tokens: &Tokens) -> Result<Tensor> {
        if dropout.is_off() {
            return Ok(x);
        }
        let shared = self.dropout.shared_over_length;
        let (count, width) = x.dims2()?;
        let mask = if self.device.is_cpu() {
            // The masks of the fused operations.
            let mut mask = vec![1.0f32; count * width];
            for (token, values) in mask.chunks_exact_mut(width).enumerate() {
                dropout.apply(values, if shared { tokens.rows[token] } else { token as u32 });
            }
            Tensor::from_vec(mask, (count, width), self.device)?
        } else if shared {
            let rows = tokens.rows.iter().max().map_or(0, |&row| row as usize + 1);
            let mask = self.random_mask(&[rows, width])?;
            mask.index_select(&Tensor::new(tokens.rows.as_slice(), self.device)?, 0)?
        } else {
            self.random_mask(&[count, width])?
        };
        x * mask
    }

    fn random_mask(&self, shape: &[usize]) -> Result<Tensor> {
        let kept = Tensor::rand(0f32, 1f32, shape, self.device)?.ge(self.dropout.rate)?;
        kept.to_dtype(DType::F32)? * (1.0 / (1.0 - f64::from(self.dropout.rate)))
    }

    /// The loss and its parts and, while training, a scalar whose gradients are those of the loss.
    ///
    /// As in the fused operation (see [`crate::ops::cross_entropy`] for the formulas), logits and their gradients
    /// exist for one chunk of tokens at a time. They are computed outside of automatic differentiation; the sum of
    /// `output * gradient`, with the gradient held constant, hands the gradient on. The head's goes straight into
    /// the model's gradients.
    fn cross_entropy(&self, output: &Tensor, options: &LossOptions) -> Result<(f32, Statistics, Option<Tensor>)> {
        let config = self.parameters.config();
        let head = self.copy[self.parameters.head()].as_tensor().detach();
        let vocab_size = head.dim(0)?;
        let y = (output.detach() * f64::from(config.logits_scale()))?;
        let count = y.dim(0)?;
        let targets = Tensor::new(self.sequences.decoder_target_ids.as_slice(), self.device)?.reshape((count, 1))?;
        let weights = Tensor::new(self.sequences.loss_weights.as_slice(), self.device)?.reshape((count, 1))?;
        let smoothing = f64::from(options.label_smoothing);
        let z_loss = f64::from(options.z_loss);
        let inverse = 1.0 / options.denominator;
        let soft_targets = self.sequences.soft_targets.as_ref();
        let share = soft_targets.map_or(1.0, |soft| 1.0 - f64::from(soft.weight));

        let (mut sums, mut d_outputs) = (Vec::new(), Vec::new());
        let mut d_head: Option<Tensor> = None;
        for start in (0..count).step_by(CHUNK) {
            let len = CHUNK.min(count - start);
            let part = |tensor: &Tensor| tensor.narrow(0, start, len);
            let (y, targets, weights) = (part(&y)?, part(&targets)?.contiguous()?, part(&weights)?);
            let logits = self.linear(&y, &head)?;
            let top = logits.max_keepdim(1)?;
            let log_z = (logits.broadcast_sub(&top)?.exp()?.sum_keepdim(1)?.log()? + &top)?;
            let at_target = logits.gather(&targets, 1)?;
            let penalty = (log_z.sqr()? * z_loss)?;
            let smoothed = ((&at_target * (1.0 - smoothing))? + (logits.mean_keepdim(1)? * smoothing)?)?;
            let taught = soft_targets.map(|soft| self.divergence(soft, start, &logits)).transpose()?;
            let mut loss = (((&log_z - smoothed)? * share)? + &penalty)?;
            let mut divergence = weights.zeros_like()?;
            if let (Some(soft), Some((found, _))) = (soft_targets, &taught) {
                loss = (loss + (found * f64::from(soft.weight * soft.temperature * soft.temperature))?)?;
                divergence = (found * &weights)?;
            }
            let parts = [
                (loss * &weights)?,
                ((&log_z - &at_target)? * &weights)?,
                (&penalty * &weights)?,
                (at_target.ge(&top)?.to_dtype(DType::F32)? * &weights)?,
                divergence,
            ];
            sums.push(Tensor::cat(&parts, 1)?.sum(0)?);
            if self.training {
                let factor = ((((&log_z * (2.0 * z_loss))? + share)? * &weights)? * inverse)?;
                let spread = (&weights * (share * smoothing * inverse / vocab_size as f64))?;
                let p = logits.broadcast_sub(&log_z)?.exp()?;
                let d_logits = p.broadcast_mul(&factor)?.broadcast_sub(&spread)?;
                let at_target = (&weights * (-share * (1.0 - smoothing) * inverse))?;
                let mut d_logits = d_logits.scatter_add(&targets, &at_target.contiguous()?, 1)?;
                if let (Some(soft), Some((_, gradient))) = (soft_targets, &taught) {
                    let factor = (&weights * (f64::from(soft.weight * soft.temperature) * inverse))?;
                    d_logits = (d_logits + gradient.broadcast_mul(&factor)?)?;
                }
                d_outputs.push((self.product(&d_logits, &head)? * f64::from(config.logits_scale()))?);
                let part = self.product(&d_logits.t()?, &y)?;
                d_head = Some(match d_head {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
        }

        let sums: Vec<Vec<f32>> = Tensor::stack(&sums, 0)?.to_vec2()?;
        let total = |i: usize| sums.iter().map(|sums| f64::from(sums[i])).sum::<f64>();
        let statistics = Statistics {
            negative_log_likelihood: total(1),
            z_loss: total(2),
            correct: total(3),
            weight: self.sequences.weight(),
            divergence: total(4),
        };
        let mut surrogate = None;
        if let Some(d_head) = d_head {
            self.add_gradient(self.parameters.head(), &d_head)?;
            surrogate = Some((output * Tensor::cat(&d_outputs, 0)?.detach())?.sum_all()?);
        }
        Ok(((total(0) * inverse) as f32, statistics, surrogate))
    }

    /// Of the tokens from `start` on: how far the logits are from the teacher, `[tokens, 1]`, and the derivative by
    /// `logits / temperature`, `[tokens, vocab_size]`.
    fn divergence(&self, soft: &SoftTargets, start: usize, logits: &Tensor) -> Result<(Tensor, Tensor)> {
        let (len, vocab_size) = logits.dims2()?;
        let rows = start * soft.classes..(start + len) * soft.classes;
        let ids = Tensor::from_slice(&soft.ids[rows.clone()], (len, soft.classes), self.device)?;
        let kept = Tensor::from_slice(&soft.probabilities[rows], (len, soft.classes), self.device)?;
        let each = |value: &dyn Fn(SoftTarget) -> f32| {
            let values: Vec<f32> = (start..start + len).map(|token| value(soft.token(token))).collect();
            Tensor::from_vec(values, (len, 1), self.device)
        };
        let rest = each(&|token| token.rest(vocab_size))?;
        let entropy = each(&|token| token.negative_entropy(vocab_size))?;
        let teacher = rest.broadcast_as((len, vocab_size))?.contiguous()?;
        let teacher = teacher.scatter_add(&ids, &kept.broadcast_sub(&rest)?, 1)?;
        let y = (logits * (1.0 / f64::from(soft.temperature)))?;
        let y = y.broadcast_sub(&y.max_keepdim(1)?)?;
        let log_q = y.broadcast_sub(&y.exp()?.sum_keepdim(1)?.log()?)?;
        let divergence = (entropy - (&teacher * &log_q)?.sum_keepdim(1)?)?;
        Ok((divergence, (log_q.exp()?.broadcast_mul(&teacher.sum_keepdim(1)?)? - teacher)?))
    }

    fn add_gradient(&self, index: usize, gradient: &Tensor) -> Result<()> {
        let values: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
        self.parameters.gradients().get(index).iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        Ok(())
    }

    /// Backward from the surrogate; adds all gradients to the model's.
    fn collect(&self, surrogate: &Tensor) -> Result<()> {
        let gradients = surrogate.backward()?;
        for (index, var) in self.copy.iter().enumerate() {
            if let Some(gradient) = gradients.get(var.as_tensor()) {
                self.add_gradient(index, gradient)?;
            }
        }
        let d = self.parameters.config().d_model;
        let mut table = self.parameters.gradients().get(self.parameters.index(Role::TokenEmbedding, None, None));
        if table.is_empty() {
            return Ok(());
        }
        for (leaf, decoder) in &*self.embedded.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            let Some(gradient) = gradients.get(leaf.as_tensor()) else {
                continue;
            };
            let values: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            let ids = if *decoder { &self.sequences.decoder_input_ids } else { &self.sequences.encoder_ids };
            for (&id, values) in ids.iter().zip(values.chunks_exact(d)) {
                let row = &mut table[id as usize * d..(id as usize + 1) * d];
                row.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(())
    }
}

/// One attention between the projections `[tokens, heads * d_kv]`.
struct ComposedAttention<'a> {
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    queries: &'a Tokens,
    keys: &'a Tokens,
    bias: Option<&'a Tensor>,
    unseen: &'a Tensor,
    dropout: Dropout,
}

impl ComposedAttention<'_> {
    /// `dropout(softmax(q k^T + bias)) v`, `[query tokens, heads * d_kv]`.
    fn context(&self, pass: &ComposedPass) -> Result<Tensor> {
        let heads = pass.parameters.config().num_heads;
        let q = self.queries.padded(self.q, heads)?;
        let (k, v) = (self.keys.padded(self.k, heads)?, self.keys.padded(self.v, heads)?);
        let mut scores = q.matmul(&k.t()?)?;
        if let Some(bias) = self.bias {
            scores = scores.broadcast_add(bias)?;
        }
        let scores = scores.broadcast_add(self.unseen)?;
        let top = scores.max_keepdim(D::Minus1)?.detach();
        let exp = scores.broadcast_sub(&top)?.exp()?;
        let mut p = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        if !self.dropout.is_off() {
            p = p.broadcast_mul(&self.mask(pass, heads)?)?;
        }
        self.queries.ragged(&p.matmul(&v)?)
    }

    /// Dropout factors of the probabilities: `[examples, heads, queries or 1, keys]`.
    fn mask(&self, pass: &ComposedPass, heads: usize) -> Result<Tensor> {
        let (examples, queries, keys) = (self.queries.examples, self.queries.longest, self.keys.longest);
        let shared = pass.dropout.shared_over_length;
        if !pass.device.is_cpu() {
            return pass.random_mask(&[examples, heads, if shared { 1 } else { queries }, keys]);
        }
        // The masks of the fused operation, which counts the keys of each example.
        let mut mask = Vec::with_capacity(examples * heads * queries * keys);
        for (example, &length) in self.keys.lengths.iter().enumerate() {
            for head in 0..heads {
                let stream = self.dropout.stream(((example as u64) << 32) | head as u64);
                for query in 0..queries {
                    let at = if shared { 0 } else { query * length };
                    mask.extend((0..keys).map(|key| stream.factor((at + key) as u32)));
                }
            }
        }
        Tensor::from_vec(mask, (examples, heads, queries, keys), pass.device)
    }
}
