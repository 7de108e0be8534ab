//! Dropout masks from a counter-based generator: a mask is a pure function of (seed, step, place, position), so
//! the backward pass computes it again instead of storing it, and a resumed run draws the same masks.

use crate::random::splitmix64;

/// Where a mask is applied. Together with the layer it names a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutPlace {
    /// The embeddings of a stack.
    Embedding,
    /// Attention probabilities.
    SelfProbabilities,
    CrossProbabilities,
    /// A sub-layer's output before it is added to the residual stream.
    SelfOutput,
    CrossOutput,
    FeedForwardOutput,
    /// The hidden activations of the feed-forward layer, after the gate product.
    FeedForwardHidden,
    /// After a stack's final norm.
    Final,
    /// As those of the feed-forward layer.
    AdapterHidden,
    AdapterOutput,
}

/// All masks of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The share of values that become zero.
    pub rate: f32,
    /// Changes with every pass.
    pub seed: u64,
    /// One mask for all positions of a row (Mesh TensorFlow, T5X) instead of independent ones (transformers).
    pub shared_over_length: bool,
}

impl Plan {
    /// No dropout.
    pub const OFF: Plan = Plan { rate: 0.0, seed: 0, shared_over_length: false };

    /// The masks of one place. `layer` counts blocks, encoder and decoder apart.
    pub fn at(&self, place: DropoutPlace, decoder: bool, layer: usize) -> Dropout {
        let stream = ((layer as u64) << 8) | ((decoder as u64) << 4) | place as u64;
        Dropout::new(self.rate, splitmix64(self.seed ^ splitmix64(stream)))
    }
}

/// A stream of masks.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: u64,
    /// Numbers below it drop their value.
    threshold: u32,
    /// 1 / (1 - rate)
    scale: f32,
}

impl Dropout {
    /// Masks that drop `rate` of the values and scale the others by `1 / (1 - rate)`.
    pub fn new(rate: f32, key: u64) -> Dropout {
        Dropout { key, threshold: (rate as f64 * 4_294_967_296.0) as u32, scale: 1.0 / (1.0 - rate) }
    }

    /// Whether nothing is dropped.
    pub fn is_off(&self) -> bool {
        self.threshold == 0
    }

    /// What a value that is kept is multiplied with.
    pub fn factor_kept(&self) -> f32 {
        self.scale
    }

    /// A sub-stream, for one example and head for instance.
    pub fn stream(&self, index: u64) -> Dropout {
        Dropout { key: splitmix64(self.key ^ splitmix64(index)), ..*self }
    }

    /// What the value at a position is multiplied with: 0 or `1 / (1 - rate)`.
    #[inline(always)]
    pub fn factor(&self, position: u32) -> f32 {
        // Two rounds of a 32-bit finaliser (Wellons' lowbias32), each with half of the key.
        let mut x = position ^ self.key as u32;
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x = (x ^ (x >> 16) ^ (self.key >> 32) as u32).wrapping_mul(0x9e37_79b1);
        x ^= x >> 15;
        if x < self.threshold { 0.0 } else { self.scale }
    }

    /// Multiplies a row by the mask of row `row`.
    #[inline(always)]
    pub fn apply(&self, values: &mut [f32], row: u32) {
        let start = row.wrapping_mul(values.len() as u32);
        for (i, value) in values.iter_mut().enumerate() {
            *value *= self.factor(start.wrapping_add(i as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_rate_and_are_independent() {
        let n = 1_000_000u32;
        let plan = Plan { rate: 0.1, seed: 5, shared_over_length: false };
        let one = plan.at(DropoutPlace::Final, false, 0);
        let two = plan.at(DropoutPlace::Final, true, 0);
        let dropped = |mask: &Dropout, i: u32| mask.factor(i) == 0.0;
        let count = |f: &dyn Fn(u32) -> bool| (0..n).filter(|&i| f(i)).count() as f64 / n as f64;
        // Standard deviations: sqrt(0.09 / n) = 0.0003 and sqrt(0.0099 / n) = 0.0001; five of them.
        assert!((count(&|i| dropped(&one, i)) - 0.1).abs() < 0.0015);
        assert!((count(&|i| dropped(&one, i) && dropped(&two, i)) - 0.01).abs() < 0.0005);
        assert!((count(&|i| dropped(&one, i) && dropped(&one, i + 1)) - 0.01).abs() < 0.0005);
        assert!((count(&|i| dropped(&one, i) && dropped(&one.stream(1), i)) - 0.01).abs() < 0.0005);
        assert_eq!(one.factor(0).max(one.factor(1)).max(one.factor(2)), 1.0 / 0.9);
        assert!(Dropout::new(0.0, 1).is_off() && Dropout::new(0.0, 1).factor(7) == 1.0);
    }
}
