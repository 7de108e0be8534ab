//! What a teacher says of every target: its likeliest classes and their probabilities, and how far a student's logits
//! are from them.

use crate::kernels::{math, max, sum1};

/// A teacher's distribution for every decoder token, in the order of [`Sequences`](super::Sequences).
///
/// What the kept classes leave is spread evenly over the others, so that each row is a whole distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SoftTargets {
    /// The share of the loss that is the teacher's; the targets' own cross-entropy has the rest.
    pub weight: f32,
    /// Teacher's and student's logits are divided by it before the softmax.
    pub temperature: f32,
    /// Classes kept of each token.
    pub classes: usize,
    /// `[decoder tokens, classes]`
    pub ids: Vec<u32>,
    /// `[decoder tokens, classes]`, at the temperature.
    pub probabilities: Vec<f32>,
}

/// One row of [`SoftTargets`].
#[derive(Clone, Copy, Debug)]
pub struct SoftTarget<'a> {
    pub weight: f32,
    pub temperature: f32,
    pub ids: &'a [u32],
    pub probabilities: &'a [f32],
}

impl SoftTargets {
    /// The distribution of one token.
    pub fn token(&self, token: usize) -> SoftTarget<'_> {
        let range = token * self.classes..(token + 1) * self.classes;
        SoftTarget {
            weight: self.weight,
            temperature: self.temperature,
            ids: &self.ids[range.clone()],
            probabilities: &self.probabilities[range],
        }
    }
}

impl SoftTarget<'_> {
    /// The probability of each class of `classes` that is not kept.
    pub fn rest(&self, classes: usize) -> f32 {
        let left = (1.0 - self.probabilities.iter().sum::<f32>()).max(0.0);
        if classes > self.ids.len() { left / (classes - self.ids.len()) as f32 } else { 0.0 }
    }

    /// `sum t ln t` over the distribution: its negative entropy.
    pub fn negative_entropy(&self, classes: usize) -> f32 {
        let term = |t: f32| if t > 0.0 { t * t.ln() } else { 0.0 };
        let others = classes.saturating_sub(self.ids.len()) as f32;
        self.probabilities.iter().map(|&t| term(t)).sum::<f32>() + others * term(self.rest(classes))
    }

    /// `KL(t || q)` with `q = softmax(logits / temperature)`. `gradient` becomes `sum(t) q - t`, which is the
    /// divergence's derivative by `logits / temperature`. Rounded probabilities add up to nearly 1, not to 1.
    #[inline(always)]
    pub fn divergence(&self, logits: &[f32], gradient: &mut [f32]) -> f32 {
        let inverse = 1.0 / self.temperature;
        let top = max(logits);
        for (y, x) in gradient.iter_mut().zip(logits) {
            *y = (x - top) * inverse;
        }
        let rest = self.rest(logits.len());
        let total = self.probabilities.iter().sum::<f32>() + rest * (logits.len() - self.ids.len()) as f32;
        // sum t y: every class has the rest, and the kept ones what they have beyond it.
        let mut expected = rest * sum1(gradient, |y| y);
        for (&id, &t) in self.ids.iter().zip(self.probabilities) {
            expected += (t - rest) * gradient[id as usize];
        }
        gradient.iter_mut().for_each(|y| *y = math::exp(*y));
        let sum = sum1(gradient, |q| q);
        let scale = total / sum;
        gradient.iter_mut().for_each(|q| *q = *q * scale - rest);
        for (&id, &t) in self.ids.iter().zip(self.probabilities) {
            gradient[id as usize] -= t - rest;
        }
        total * sum.ln() - expected + self.negative_entropy(logits.len())
    }
}
