//! Drawing a token: temperature, top-k, top-p and min-p, in the order of the transformers library.

use super::options::GenerateOptions;
use crate::kernels::Kernels;

/// A small seeded generator (SplitMix64, Steele et al. 2014): the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of draw number `stream` under a seed.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        // Neighbouring seeds differ in few bits; one step spreads them.
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Candidate tokens with their values, kept between draws so that none allocates.
#[derive(Default)]
pub(crate) struct Sampler {
    candidates: Vec<(f32, u32)>,
    weights: Vec<f32>,
}

impl Sampler {
    /// Draws a token from processed logits `row` `[vocab_size]`.
    ///
    /// Ties at the border of top-k are decided for the lower id. Where every logit is -inf or NaN, token 0 results.
    pub fn draw(&mut self, kernels: Kernels, options: &GenerateOptions, row: &[f32], random: &mut Random) -> u32 {
        self.candidates.clear();
        self.candidates.extend(
            row.iter()
                .enumerate()
                .filter(|(_, value)| **value > f32::NEG_INFINITY)
                .map(|(id, &value)| (value, id as u32)),
        );
        let best_first = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if options.top_k > 0 && options.top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(options.top_k - 1, best_first);
            self.candidates.truncate(options.top_k);
        }
        // Sorted order makes the cumulative sums below, and so the draw, independent of everything else.
        self.candidates.sort_unstable_by(best_first);
        let inverse = 1.0 / options.temperature;
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|(value, _)| value * inverse));
        kernels.softmax(&mut self.weights);
        if options.top_p < 1.0 {
            let mut sum = 0.0;
            // The token that crosses the threshold is kept.
            let keep = self.weights.iter().position(|weight| {
                sum += *weight as f64;
                sum >= f64::from(options.top_p)
            });
            self.weights.truncate(keep.map_or(self.weights.len(), |last| last + 1));
        }
        if options.min_p > 0.0 {
            let least = self.weights.first().map_or(0.0, |best| best * options.min_p);
            let keep = self.weights.iter().position(|&weight| weight < least);
            self.weights.truncate(keep.unwrap_or(self.weights.len()));
        }
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut left = random.uniform() * total;
        for (weight, (_, id)) in self.weights.iter().zip(&self.candidates) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *id;
            }
        }
        self.candidates.first().map_or(0, |(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(options: &GenerateOptions, row: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::default();
        let mut random = Random::new(7, 0);
        let mut counts = vec![0.0; row.len()];
        let draws = 40_000;
        for _ in 0..draws {
            counts[sampler.draw(Kernels::detect(), options, row, &mut random) as usize] += 1.0 / f64::from(draws);
        }
        counts
    }

    /// Probabilities 0.5, 0.3, 0.15, 0.05 at temperature 1; forty thousand draws have a standard error under 0.0025.
    const ROW: [f32; 4] = [-std::f32::consts::LN_2, -1.203_972_8, -1.897_12, -2.995_732_3];

    #[track_caller]
    fn assert_close(found: &[f64], expected: [f64; 4]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.0125, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let options = GenerateOptions { temperature: 1.0, ..Default::default() };
        assert_close(&frequencies(&options, &ROW), [0.5, 0.3, 0.15, 0.05]);
        let options = GenerateOptions { temperature: 0.5, ..Default::default() };
        let sum = 0.25 + 0.09 + 0.0225 + 0.0025;
        assert_close(&frequencies(&options, &ROW), [0.25 / sum, 0.09 / sum, 0.0225 / sum, 0.0025 / sum]);
    }

    #[test]
    fn filters_keep_the_right_tokens() {
        let base = GenerateOptions { temperature: 1.0, ..Default::default() };
        let options = GenerateOptions { top_k: 2, ..base.clone() };
        assert_close(&frequencies(&options, &ROW), [0.625, 0.375, 0.0, 0.0]);
        // 0.5 does not reach 0.6; the second token crosses.
        let options = GenerateOptions { top_p: 0.6, ..base.clone() };
        assert_close(&frequencies(&options, &ROW), [0.625, 0.375, 0.0, 0.0]);
        let options = GenerateOptions { min_p: 0.2, ..base };
        assert_close(&frequencies(&options, &ROW), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]);
    }

    #[test]
    fn seeds_and_streams_differ() {
        let numbers = |seed, stream| Random::new(seed, stream).uniform();
        assert_ne!(numbers(0, 0), numbers(1, 0));
        assert_ne!(numbers(0, 0), numbers(0, 1));
        assert_eq!(numbers(5, 3), numbers(5, 3));
    }
}
