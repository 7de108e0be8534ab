//! The head and the loss in one: `logits = (scale * y) E^T`, then weighted cross-entropy with label smoothing and
//! z-loss, and the divergence from a teacher where there is one.
//!
//! Logits exist for one chunk of tokens at a time. While training, their gradient replaces them in place and is
//! multiplied back at once, so the `[tokens, vocab_size]` matrices are never held.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::soft_targets::SoftTarget;
use super::{ForBackward, Linear, Pass, Values, argument};
use crate::kernels::{Mat, MatMut, Packed, Precision, Product, math, max, sum1, vectorised};

/// Tokens whose logits are held at a time: at 8,192 rows of vocabulary they take 8 MB and stay in the cache.
const CHUNK: usize = 256;

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

/// What is counted beside the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Sum of `weight * -ln p(target)`, without smoothing and z-loss.
    pub negative_log_likelihood: f64,
    /// Sum of `weight * z_loss * ln(Z)^2`.
    pub z_loss: f64,
    /// Sum of the weights whose target has the largest logit.
    pub correct: f64,
    /// Sum of the weights.
    pub weight: f64,
    /// Sum of `weight * KL(teacher || model)` at the temperature; 0 without a teacher.
    pub divergence: f64,
}

impl Statistics {
    /// Adds another batch's.
    pub fn add(&mut self, other: &Statistics) {
        self.negative_log_likelihood += other.negative_log_likelihood;
        self.z_loss += other.z_loss;
        self.correct += other.correct;
        self.weight += other.weight;
        self.divergence += other.divergence;
    }
}

/// The decoder's output `[tokens, d_model]` -> the loss, a scalar: the sum over tokens divided by `denominator`.
pub struct CrossEntropy {
    pub pass: Arc<Pass>,
    /// Index of the head `[vocab_size, d_model]`; the embedding where they are tied.
    pub head: usize,
    pub d_model: usize,
    /// d_model^-0.5 for T5 1.0, 1 for 1.1.
    pub logits_scale: f32,
    pub label_smoothing: f32,
    pub z_loss: f32,
    pub denominator: f64,
    pub statistics: Arc<std::sync::Mutex<Statistics>>,
    /// The gradient of the input, for a loss gradient of 1.
    pub saved: ForBackward<Vec<f32>>,
}

impl CrossEntropy {
    /// The loss of one token from its logits, which become their gradient (before the division).
    ///
    /// With smoothing e over V classes the target distribution is `(1 - e) onehot + e / V`, so
    /// `loss = ln Z - (1 - e) x_t - e mean(x) + z ln(Z)^2` and `d loss = (1 + 2 z ln Z) softmax - target`.
    ///
    /// Of a teacher with the share w and the temperature T, `w T^2 KL(teacher || model)` is added, both at T, and the
    /// cross-entropy has the share 1 - w; T^2 keeps the size of the gradients (Hinton et al. 2015). `tempered` is room
    /// for `[vocab_size]`.
    #[inline(always)]
    fn token(
        &self,
        logits: &mut [f32],
        target: Target,
        training: bool,
        tempered: &mut [f32],
        statistics: &mut Statistics,
    ) -> f64 {
        let Target { id: target, weight, soft } = target;
        let (mut share, mut taught) = (1.0, 0.0);
        if let Some(soft) = &soft {
            let divergence = soft.divergence(logits, tempered);
            statistics.divergence += (weight * divergence) as f64;
            share = 1.0 - soft.weight;
            taught = (soft.weight * soft.temperature * soft.temperature * divergence) as f64;
        }
        let top = max(logits);
        let at_target = logits[target];
        let mean = if self.label_smoothing > 0.0 { sum1(logits, |x| x) / logits.len() as f32 } else { 0.0 };
        let sum = if training {
            logits.iter_mut().for_each(|x| *x = math::exp(*x - top));
            sum1(logits, |p| p)
        } else {
            sum1(logits, |x| math::exp(x - top))
        };
        let log_z = top + sum.ln();
        if training {
            let factor = weight * (share + 2.0 * self.z_loss * log_z) / sum;
            let spread = weight * share * self.label_smoothing / logits.len() as f32;
            logits.iter_mut().for_each(|p| *p = *p * factor - spread);
            logits[target] -= weight * share * (1.0 - self.label_smoothing);
            if let Some(soft) = &soft {
                let factor = weight * soft.weight * soft.temperature;
                logits.iter_mut().zip(&*tempered).for_each(|(d, t)| *d += factor * t);
            }
        }
        let weight = weight as f64;
        let penalty = self.z_loss as f64 * (log_z as f64).powi(2);
        statistics.negative_log_likelihood += weight * (log_z - at_target) as f64;
        statistics.z_loss += weight * penalty;
        statistics.correct += if at_target >= top { weight } else { 0.0 };
        statistics.weight += weight;
        let smoothed = (1.0 - self.label_smoothing) * at_target + self.label_smoothing * mean;
        weight * ((share * (log_z - smoothed)) as f64 + penalty + taught)
    }
}

/// What one token should be.
struct Target<'a> {
    id: usize,
    weight: f32,
    soft: Option<SoftTarget<'a>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = argument(storage, layout)?;
        let pass = &self.pass;
        let head = pass.parameter(self.head)?;
        let d = self.d_model;
        let rows = head.len() / d;
        let sequences = &pass.sequences;

        let mut loss = 0.0f64;
        let mut statistics = Statistics::default();
        let mut logits = vec![0.0; CHUNK.min(y.len() / d) * rows];
        let mut scaled = vec![0.0; CHUNK.min(y.len() / d) * d];
        let mut tempered = vec![0.0; if sequences.soft_targets.is_some() { rows } else { 0 }];
        let mut dy = vec![0.0; if pass.training { y.len() } else { 0 }];
        let inverse = (1.0 / self.denominator) as f32;
        // The head is used by every chunk, so it is packed once for each of its two products.
        let head = Mat::new(&head, rows, d, d);
        let forward = Packed::new(head.t(), pass.precision);
        let backward = pass.training.then(|| Packed::new(head, pass.precision));
        for (chunk, y) in y.chunks(CHUNK * d).enumerate() {
            let (start, tokens) = (chunk * CHUNK, y.len() / d);
            let (logits, scaled) = (&mut logits[..tokens * rows], &mut scaled[..tokens * d]);
            scaled.iter_mut().zip(y).for_each(|(scaled, y)| *scaled = y * self.logits_scale);
            forward.multiply(MatMut::new(logits, tokens, rows, rows), Product::Set, Mat::new(scaled, tokens, d, d));
            for (i, logits) in logits.chunks_exact_mut(rows).enumerate() {
                let token = start + i;
                let target = Target {
                    id: sequences.decoder_target_ids[token] as usize,
                    weight: sequences.loss_weights[token],
                    soft: sequences.soft_targets.as_ref().map(|soft| soft.token(token)),
                };
                vectorised(|| loss += self.token(logits, target, pass.training, &mut tempered, &mut statistics));
            }
            if let Some(backward) = &backward {
                // The two constant factors go on the small side of each product.
                scaled.iter_mut().for_each(|y| *y *= inverse);
                pass.linear(tokens, rows, d).weight_gradient(logits, scaled, &mut pass.gradients.get(self.head));
                let dy = &mut dy[start * d..(start + tokens) * d];
                backward.multiply(MatMut::new(dy, tokens, d, d), Product::Set, Mat::new(logits, tokens, rows, rows));
                dy.iter_mut().for_each(|dy| *dy *= self.logits_scale * inverse);
            }
        }
        self.statistics.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&statistics);
        if pass.training {
            self.saved.put(dy);
        }
        Ok((CpuStorage::F32(vec![(loss / self.denominator) as f32]), Shape::from(())))
    }

    fn bwd(&self, y: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // The head's gradient was added in the forward pass, so the loss has to be the root.
        if gradient.to_scalar::<f32>()? != 1.0 {
            candle_core::bail!("cross-entropy: the loss must be the root of the backward pass");
        }
        Ok(Some(Tensor::from_vec(self.saved.take(self.name())?, y.shape(), y.device())?))
    }
}

/// Logits of every decoder token, `[tokens, vocab_size]`, for tests and small evaluations.
pub fn logits(y: &Tensor, head: &Tensor, logits_scale: f32) -> candle_core::Result<Vec<f32>> {
    let (y, head, d) = (Values::new(y)?, Values::new(head)?, head.dim(1)?);
    let (tokens, rows) = (y.len() / d, head.len() / d);
    let scaled: Vec<f32> = y.iter().map(|y| y * logits_scale).collect();
    let mut out = vec![0.0; tokens * rows];
    Linear { m: tokens, n: rows, k: d, precision: Precision::F32 }.forward(&scaled, &head, &mut out);
    Ok(out)
}
