//! Optimisers: Adafactor as T5 was trained with, AdamW, and nanoT5's AdamW scaled by the parameters' RMS. Each
//! updates a tensor in one or two fused passes over its values.

use std::slice;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::files::TensorFile;
use crate::kernels::{sum1, vectorised};
use crate::model::{Model, Trained};
use crate::ops::update_in_place;
use crate::{Error, Result};

/// How gradients become updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Adafactor,
    AdamW,
    /// AdamW whose rate is multiplied by `max(epsilon_scale, RMS(parameter))`.
    #[serde(rename = "adamw-rms")]
    AdamWRms,
}

/// The optimiser's settings; those of other kinds are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub kind: Method,
    /// Goes on with the state of the checkpoint that the model comes from, instead of zeros.
    pub keep_slots: bool,
    /// Gradients are scaled down to this norm over all parameters; 0 leaves them.
    pub clip_norm: f64,
    /// AdamW: `rate * weight_decay` of a parameter is taken off each step; Adafactor: `weight_decay` itself.
    pub weight_decay: f64,
    /// Whether norm weights and position tables decay, too.
    pub decay_vectors: bool,
    /// The rate of a tensor is multiplied by this for each block between it and the top of its stack, and that of the
    /// embedding by as much as that of the lowest block and once more: layer-wise decay (Clark et al. 2020).
    pub layer_decay: f64,
    /// Adafactor: beta2 is `1 - (step - step_offset + 1)^-decay_exponent`.
    pub decay_exponent: f64,
    pub step_offset: u64,
    /// Adafactor: added to squared gradients.
    pub epsilon_gradient: f64,
    /// Adafactor and AdamW-RMS: the least RMS that a parameter counts with.
    pub epsilon_scale: f64,
    /// Adafactor: an update's RMS is cut to this.
    pub clip_update: f64,
    /// Adafactor: multiply the rate by the parameter's RMS.
    pub scale_parameter: bool,
    /// Adafactor: matrices with a smaller side keep full second moments.
    pub factored_min_side: usize,
    /// AdamW.
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

/// The state of one parameter: the meaning of the slots is the method's.
#[derive(Clone, Debug, Default, PartialEq)]
struct Slots {
    /// Adafactor: R, or V of an unfactored tensor. AdamW: first moments.
    first: Vec<f32>,
    /// Adafactor: C, empty for an unfactored tensor. AdamW: second moments.
    second: Vec<f32>,
    /// AdamW: the updates that the moments are of, a float as PyTorch's `step`. From 2^24 on it stands still, when
    /// betas of up to 0.999999 correct nothing any more.
    age: f32,
}

/// An optimiser and its state.
pub struct Optimizer {
    options: Options,
    slots: Vec<Slots>,
}

impl Optimizer {
    /// The state before the first step.
    pub fn new(options: &Options, trained: &[Trained]) -> Optimizer {
        let slots = trained.iter().map(|spec| {
            let [first, second] = slot_lengths(options, &spec.shape).map(|length| vec![0.0; length]);
            Slots { first, second, age: 0.0 }
        });
        Optimizer { options: options.clone(), slots: slots.collect() }
    }

    /// The state by slot name, `NAME/first`, `NAME/second` and, of AdamW, `NAME/age`, for checkpoints.
    pub fn state(&self, trained: &[Trained]) -> Vec<(String, &[f32])> {
        let slots = trained.iter().zip(&self.slots).flat_map(|(spec, slots)| {
            let age: &[f32] = match self.options.kind {
                Method::Adafactor => &[],
                Method::AdamW | Method::AdamWRms => slice::from_ref(&slots.age),
            };
            let slots = [("first", slots.first.as_slice()), ("second", slots.second.as_slice()), ("age", age)];
            slots.map(|(suffix, values)| (format!("{}/{suffix}", spec.name), values))
        });
        slots.filter(|(_, values)| !values.is_empty()).collect()
    }

    /// Restores what [`Optimizer::state`] gave, from a file. `updates` are those that the state is of where the file
    /// does not say it, as those of earlier versions.
    ///
    /// # Errors
    /// Where it is the state of another method, or a slot is missing or has another size.
    pub fn restore(&mut self, trained: &[Trained], file: &TensorFile, updates: u64) -> Result<()> {
        let (expected, other, found) = match self.options.kind {
            Method::Adafactor => ("adafactor", Method::AdamW, "adamw"),
            // Moments of gradients are the same in both.
            Method::AdamW | Method::AdamWRms => ("adamw", Method::Adafactor, "adafactor"),
        };
        // Names and lengths tell them apart: no tensor has the same slots in both.
        let lengths = file.lengths()?;
        let is_of = |kind: Method| {
            let options = Options { kind, ..self.options.clone() };
            trained.iter().all(|spec| {
                let found = ["first", "second"].map(|slot| lengths.get(&format!("{}/{slot}", spec.name)).copied());
                found.map(Option::unwrap_or_default) == slot_lengths(&options, &spec.shape)
            })
        };
        if !is_of(self.options.kind) && is_of(other) {
            let what = format!("expected the state of {expected}, found that of {found}");
            return Err(Error::file(file.path(), what));
        }
        let read = |name: &str, expected: usize| -> Result<Vec<f32>> {
            let values = file.read(name)?;
            if values.len() != expected {
                let what = format!("{name}: expected {expected} values, found {}", values.len());
                return Err(Error::file(file.path(), what));
            }
            Ok(values)
        };
        for (spec, slots) in trained.iter().zip(&mut self.slots) {
            for (suffix, slot) in [("first", &mut slots.first), ("second", &mut slots.second)] {
                if !slot.is_empty() {
                    *slot = read(&format!("{}/{suffix}", spec.name), slot.len())?;
                }
            }
            let age = format!("{}/age", spec.name);
            slots.age = match lengths.contains_key(&age) {
                true => read(&age, 1)?[0],
                // A tensor that had not joined yet.
                false if slots.second.iter().all(|&moment| moment == 0.0) => 0.0,
                false => updates as f32,
            };
        }
        Ok(())
    }

    /// Bytes of state.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slots| 4 * (slots.first.len() + slots.second.len())).sum()
    }

    /// The norm of all gradients together.
    pub fn gradient_norm(model: &Model) -> f64 {
        let squares: Vec<f64> = model
            .trained()
            .par_iter()
            .map(|trained| {
                let gradient = trained.gradient();
                gradient.chunks(1 << 14).map(|part| vectorised(|| sum1(part, |g| g * g)) as f64).sum()
            })
            .collect();
        squares.iter().sum::<f64>().sqrt()
    }

    /// One update of every parameter that has a gradient, which is zero afterwards. `step` counts from 0, or from the
    /// steps before the run that goes on, for Adafactor; `gradient_norm` is [`Optimizer::gradient_norm`]'s.
    ///
    /// # Errors
    /// Where a parameter is not in main memory.
    pub fn step(&mut self, model: &Model, step: u64, rate: f64, gradient_norm: f64) -> Result<()> {
        let options = &self.options;
        let clip = options.clip_norm;
        let scale = if clip > 0.0 && gradient_norm > clip { (clip / gradient_norm) as f32 } else { 1.0 };
        let trained = model.trained();
        self.slots.par_iter_mut().zip(&trained).try_for_each(|(slots, trained)| -> Result<()> {
            let mut gradient = trained.gradient();
            if gradient.is_empty() {
                return Ok(());
            }
            let decay = if trained.is_vector && !options.decay_vectors { 0.0 } else { options.weight_decay };
            let rate = rate * options.layer_decay.powi(trained.depth as i32);
            let update = Update { options, step, rate, scale, decay };
            update_in_place(trained.var, |x| match options.kind {
                Method::Adafactor => update.adafactor(&trained.shape, x, &mut gradient, slots),
                Method::AdamW | Method::AdamWRms => update.adamw(x, &mut gradient, slots),
            })?;
            gradient.fill(0.0);
            Ok(())
        })?;
        model.updated()
    }
}

/// Values of the state of a tensor.
pub(crate) fn slot_values(options: &Options, shape: &[usize]) -> usize {
    slot_lengths(options, shape).iter().sum()
}

/// Values of each slot of a tensor.
fn slot_lengths(options: &Options, shape: &[usize]) -> [usize; 2] {
    let count: usize = shape.iter().product();
    match (options.kind, factored(options, shape)) {
        // R runs along the smaller side.
        (Method::Adafactor, Some((rows, columns))) => [rows.min(columns), rows.max(columns)],
        (Method::Adafactor, None) => [count, 0],
        (Method::AdamW | Method::AdamWRms, _) => [count, count],
    }
}

/// Rows and columns of a tensor whose second moments are factored.
fn factored(options: &Options, shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [rows, columns] if rows.min(columns) >= options.factored_min_side => Some((rows, columns)),
        _ => None,
    }
}

/// Root of the mean square.
fn rms(x: &[f32]) -> f64 {
    let sum: f64 = x.chunks(1 << 14).map(|part| vectorised(|| sum1(part, |x| x * x)) as f64).sum();
    (sum / x.len() as f64).sqrt()
}

/// What one step does to one tensor.
struct Update<'a> {
    options: &'a Options,
    /// Adafactor: of the run and those before it.
    step: u64,
    rate: f64,
    /// Gradients are multiplied by it.
    scale: f32,
    decay: f64,
}

impl Update<'_> {
    /// Adafactor (docs/t5.md 6.2).
    fn adafactor(&self, shape: &[usize], x: &mut [f32], gradient: &mut [f32], slots: &mut Slots) {
        let options = self.options;
        let age = (self.step.saturating_sub(options.step_offset) + 1) as f64;
        let beta2 = (1.0 - age.powf(-options.decay_exponent)) as f32;
        let parameter_scale = if options.scale_parameter { rms(x).max(options.epsilon_scale) } else { 1.0 };
        let (scale, epsilon) = (self.scale, options.epsilon_gradient as f32);

        // The update direction replaces the gradient.
        match factored(options, shape) {
            Some((rows, columns)) => {
                let (mut row_means, mut column_means) = (vec![0.0f32; rows], vec![0.0f32; columns]);
                vectorised(|| {
                    for (gradient, row_mean) in gradient.chunks_exact_mut(columns).zip(&mut row_means) {
                        for (g, sum) in gradient.iter_mut().zip(&mut column_means) {
                            *g *= scale;
                            *sum += *g * *g + epsilon;
                        }
                        *row_mean = sum1(gradient, |g| g * g + epsilon) / columns as f32;
                    }
                    column_means.iter_mut().for_each(|sum| *sum /= rows as f32);
                });
                // R is the mean over the larger side, so it runs along the smaller one; rows on a tie.
                let (r_new, c_new) = if rows > columns {
                    (&mut column_means, &mut row_means)
                } else {
                    (&mut row_means, &mut column_means)
                };
                blend(&mut slots.first, r_new, beta2);
                blend(&mut slots.second, c_new, beta2);
                let mean = slots.first.iter().map(|&r| r as f64).sum::<f64>() / slots.first.len() as f64;
                for (out, &r) in r_new.iter_mut().zip(&slots.first) {
                    *out = 1.0 / (r / mean as f32).sqrt();
                }
                for (out, &c) in c_new.iter_mut().zip(&slots.second) {
                    *out = 1.0 / c.sqrt();
                }
                vectorised(|| {
                    for (gradient, &row) in gradient.chunks_exact_mut(columns).zip(&row_means) {
                        for (g, &column) in gradient.iter_mut().zip(&column_means) {
                            *g = *g * row * column;
                        }
                    }
                });
            }
            None => vectorised(|| {
                for (g, v) in gradient.iter_mut().zip(&mut slots.first) {
                    *g *= scale;
                    *v = beta2 * *v + (1.0 - beta2) * (*g * *g + epsilon);
                    *g /= v.sqrt();
                }
            }),
        }
        let clip = (rms(gradient) / options.clip_update).max(1.0);
        let (factor, keep) = ((self.rate * parameter_scale / clip) as f32, (1.0 - self.decay) as f32);
        vectorised(|| {
            for (x, u) in x.iter_mut().zip(&*gradient) {
                *x = keep * *x - factor * u;
            }
        });
    }

    /// AdamW as PyTorch's, and nanoT5's variant of it.
    fn adamw(&self, x: &mut [f32], gradient: &mut [f32], slots: &mut Slots) {
        let options = self.options;
        let rate = match options.kind {
            Method::AdamWRms => self.rate * rms(x).max(options.epsilon_scale),
            _ => self.rate,
        };
        // Of this tensor, which may have joined late, or go on from a state of fewer steps than the run counts.
        slots.age += 1.0;
        let age = slots.age as i32;
        let (correction1, correction2) = (1.0 - options.beta1.powi(age), 1.0 - options.beta2.powi(age));
        // rate / correction1 * m / (sqrt(v / correction2) + epsilon)
        let factor = (rate / correction1) as f32;
        let root2 = (1.0 / correction2.sqrt()) as f32;
        let (beta1, beta2, epsilon) = (options.beta1 as f32, options.beta2 as f32, options.epsilon as f32);
        // 1 - beta in f64: 1 - 0.999 in f32 is off by 1e-5 of itself.
        let (rest1, rest2) = ((1.0 - options.beta1) as f32, (1.0 - options.beta2) as f32);
        let (scale, keep) = (self.scale, (1.0 - self.rate * self.decay) as f32);
        vectorised(|| {
            let state = slots.first.iter_mut().zip(&mut slots.second);
            for ((x, g), (m, v)) in x.iter_mut().zip(&*gradient).zip(state) {
                let g = g * scale;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *x = keep * *x - factor * *m / (v.sqrt() * root2 + epsilon);
            }
        });
    }
}

/// `old = beta * old + (1 - beta) * new`.
fn blend(old: &mut [f32], new: &[f32], beta: f32) {
    for (old, new) in old.iter_mut().zip(new) {
        *old = beta * *old + (1.0 - beta) * new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adafactor(min_side: usize) -> Options {
        Options {
            layer_decay: 1.0,
            kind: Method::Adafactor,
            keep_slots: false,
            clip_norm: 0.0,
            weight_decay: 0.0,
            decay_vectors: false,
            decay_exponent: 0.8,
            step_offset: 0,
            epsilon_gradient: 1e-30,
            epsilon_scale: 1e-3,
            clip_update: 1.0,
            scale_parameter: true,
            factored_min_side: min_side,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((*found as f64 - expected).abs() < 5e-7, "{found} {expected}");
        }
    }

    #[test]
    fn adafactor_takes_the_reference_step() {
        // docs/t5.md 6.2: X = ones(3, 2), R along the smaller side.
        let options = adafactor(0);
        let update = Update { options: &options, step: 1, rate: 0.1, scale: 1.0, decay: 0.0 };
        let (mut x, mut g) = (vec![1.0; 6], vec![1.0; 6]);
        let mut slots = Slots { first: vec![0.9; 2], second: vec![0.1; 3], age: 0.0 };
        update.adafactor(&[3, 2], &mut x, &mut g, &mut slots);
        close(&slots.first, &[0.9574349; 2]);
        close(&slots.second, &[0.6169143; 3]);
        close(&x, &[0.9; 6]);

        let options = adafactor(128);
        let update = Update { options: &options, step: 1, rate: 0.1, scale: 1.0, decay: 0.0 };
        let (mut x, mut g) = (vec![1.0; 6], vec![1.0; 6]);
        let mut slots = Slots { first: vec![0.5; 6], second: Vec::new(), age: 0.0 };
        update.adafactor(&[3, 2], &mut x, &mut g, &mut slots);
        close(&slots.first, &[0.5 * 0.42565082 + 0.57434918; 6]); // 0.787174 in the reference, cut
        close(&x, &[0.9; 6]);
    }

    #[test]
    fn adafactor_takes_two_computed_steps() {
        // docs/t5.md 6.2, the second vector.
        let options = adafactor(0);
        let mut x = vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let gradient = [0.1, -0.2, 0.3, 0.4, 0.5, -0.6];
        let mut slots = Slots { first: vec![0.0; 2], second: vec![0.0; 3], age: 0.0 };
        let update = Update { options: &options, step: 0, rate: 0.01, scale: 1.0, decay: 0.0 };
        update.adafactor(&[2, 3], &mut x, &mut gradient.to_vec(), &mut slots);
        close(&slots.first, &[0.04666667, 0.25666667]);
        close(&slots.second, &[0.085, 0.145, 0.225]);
        close(&x, &[0.09759188, 0.20368751, 0.29555965, 0.3958927, 0.49606911, 0.60378674]);
        // Half the gradient, given as a clipping scale.
        let update = Update { options: &options, step: 1, rate: 0.01, scale: 0.5, decay: 0.0 };
        update.adafactor(&[2, 3], &mut x, &mut gradient.to_vec(), &mut slots);
        close(&slots.first, &[0.02656445, 0.14610445]);
        close(&slots.second, &[0.04838524, 0.08253953, 0.12807858]);
        close(&x, &[0.09599974, 0.20612553, 0.29262389, 0.39317714, 0.49347017, 0.60629037]);

        let options = adafactor(128);
        let mut x = vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let mut slots = Slots { first: vec![0.0; 6], second: Vec::new(), age: 0.0 };
        let update = Update { options: &options, step: 0, rate: 0.01, scale: 1.0, decay: 0.0 };
        update.adafactor(&[2, 3], &mut x, &mut gradient.to_vec(), &mut slots);
        close(&x, &[0.09610556, 0.20389444, 0.29610556, 0.39610556, 0.49610556, 0.60389444]);
    }

    #[test]
    fn adafactor_keeps_its_invariants() {
        let value = |i: usize| ((i * 7919 + 3) % 101) as f32 / 50.0 - 1.0;
        let options = adafactor(0);
        let shape = [5, 4];
        let step = |scale: f32| {
            let mut x: Vec<f32> = (0..20).map(value).collect();
            let mut g: Vec<f32> = (0..20).map(|i| value(i + 31)).collect();
            let mut slots = Slots { first: vec![0.0; 4], second: vec![0.0; 5], age: 0.0 };
            let update = Update { options: &options, step: 0, rate: 0.01, scale, decay: 0.0 };
            update.adafactor(&shape, &mut x, &mut g, &mut slots);
            let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
            assert!((mean(&slots.first) / mean(&slots.second) - 1.0).abs() < 1e-5);
            x
        };
        let (one, thousand) = (step(1.0), step(1000.0));
        one.iter().zip(&thousand).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "scale of the gradient matters"));
        let start: Vec<f32> = (0..20).map(value).collect();
        let moved: Vec<f32> = one.iter().zip(&start).map(|(a, b)| a - b).collect();
        assert!(rms(&moved) <= 0.01 * rms(&start) * 1.0001);
    }

    #[test]
    fn adamw_takes_pytorch_s_steps() {
        // torch 2.15: AdamW(lr 0.1, weight_decay 0.01) on [1, -2], gradients [0.5, -0.25], then [0.1, 0.3].
        let options = Options { kind: Method::AdamW, weight_decay: 0.01, ..adafactor(0) };
        let mut x = vec![1.0, -2.0];
        let mut slots = Slots { first: vec![0.0; 2], second: vec![0.0; 2], age: 0.0 };
        for gradient in [[0.5, -0.25], [0.1, 0.3]] {
            let update = Update { options: &options, step: 0, rate: 0.1, scale: 1.0, decay: 0.01 };
            update.adamw(&mut x, &mut gradient.to_vec(), &mut slots);
        }
        close(&x, &ADAMW);
    }

    #[test]
    fn rms_scaled_adamw_moves_in_proportion() {
        let options = Options { kind: Method::AdamWRms, epsilon: 1e-6, ..adafactor(0) };
        for scale in [1.0f32, 10.0, 1e-6] {
            let mut x = vec![scale, -scale];
            let mut slots = Slots { first: vec![0.0; 2], second: vec![0.0; 2], age: 0.0 };
            let update = Update { options: &options, step: 0, rate: 0.1, scale: 1.0, decay: 0.0 };
            update.adamw(&mut x, &mut [0.5, -0.25], &mut slots);
            // The first step moves each value by the rate times the RMS, at least times epsilon_scale.
            let moved = 0.1 * scale.max(1e-3);
            assert!((x[0] - (scale - moved)).abs() < 1e-4 * moved, "{x:?}");
            assert!((x[1] + (scale - moved)).abs() < 1e-4 * moved, "{x:?}");
        }
    }

    const ADAMW: [f64; 2] = [0.81779691, -1.91039648];
}
