//! Drawing a token: temperature, and filters of candidates in the order of the transformers library.

use crate::generate::GenerateOptions;
use crate::kernels::Kernels;

/// A small seeded generator (SplitMix64, Steele et al. 2014): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

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

/// How many of the likeliest tokens `top_h` looks at.
const TOP_H: usize = 100;

/// Candidate tokens with their values, kept between draws so that none allocates.
#[derive(Default)]
pub struct Sampler {
    /// Most likely first. The order makes the sums below, and so the draw, independent of everything else.
    candidates: Vec<(f32, u32)>,
    /// In the same order, probabilities but for a common factor.
    weights: Vec<f32>,
    /// How far each candidate's information is from the entropy, with its place.
    distances: Vec<(f64, usize)>,
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
        // The entropy is that of a hundred tokens, however few top-k leaves.
        let most = if options.top_h > 0.0 { TOP_H } else { options.top_k };
        if most > 0 && most < self.candidates.len() {
            self.candidates.select_nth_unstable_by(most - 1, best_first);
            self.candidates.truncate(most);
        }
        self.candidates.sort_unstable_by(best_first);
        let inverse = 1.0 / options.temperature;
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|(value, _)| value * inverse));
        kernels.softmax(&mut self.weights);
        self.filter(options);
        let mut left = random.uniform() * self.total();
        for (weight, (_, id)) in self.weights.iter().zip(&self.candidates) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *id;
            }
        }
        self.candidates.first().map_or(0, |(_, id)| *id)
    }

    fn total(&self) -> f64 {
        self.weights.iter().map(|&weight| f64::from(weight)).sum()
    }

    /// The sum of -p ln p over the candidates.
    fn entropy(&self) -> f64 {
        let total = self.total();
        self.weights.iter().map(|&weight| information(f64::from(weight) / total)).map(|(p, bits)| p * bits).sum()
    }

    /// Keeps the candidates at the front for which `keep` holds, and at least one.
    fn keep_while(&mut self, mut keep: impl FnMut(f32) -> bool) {
        let kept = self.weights.iter().take_while(|weight| keep(**weight)).count();
        self.weights.truncate(kept.max(1));
    }

    fn filter(&mut self, options: &GenerateOptions) {
        if options.top_h > 0.0 {
            let (total, most) = (self.total(), self.entropy() * f64::from(options.top_h));
            let mut sum = 0.0;
            self.keep_while(|weight| {
                let (p, bits) = information(f64::from(weight) / total);
                sum += p * bits;
                sum <= most
            });
            self.weights.truncate(if options.top_k > 0 { options.top_k } else { usize::MAX });
        }
        if options.top_p < 1.0 {
            // The token that crosses the threshold is kept.
            let (total, mut sum) = (self.total(), 0.0);
            self.keep_while(|weight| {
                let before = sum;
                sum += f64::from(weight) / total;
                before < f64::from(options.top_p)
            });
        }
        if options.min_p > 0.0 {
            let least = self.weights.first().map_or(0.0, |best| best * options.min_p);
            self.keep_while(|weight| weight >= least);
        }
        if options.typical_p < 1.0 {
            self.keep_typical(f64::from(options.typical_p));
        }
        if options.epsilon_cutoff > 0.0 {
            let least = f64::from(options.epsilon_cutoff) * self.total();
            self.keep_while(|weight| f64::from(weight) >= least);
        }
        if options.eta_cutoff > 0.0 {
            let epsilon = f64::from(options.eta_cutoff);
            let least = epsilon.min(epsilon.sqrt() * (-self.entropy()).exp()) * self.total();
            self.keep_while(|weight| f64::from(weight) >= least);
        }
    }

    /// Keeps the candidates whose information is nearest to the entropy, until they reach probability `mass`.
    fn keep_typical(&mut self, mass: f64) {
        let (total, entropy) = (self.total(), self.entropy());
        let distance = |(place, &weight): (usize, &f32)| {
            let (_, bits) = information(f64::from(weight) / total);
            ((bits - entropy).abs(), place)
        };
        self.distances.clear();
        self.distances.extend(self.weights.iter().enumerate().map(distance));
        self.distances.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut sum = 0.0;
        let weights = &self.weights;
        let reached = self.distances.iter().position(|&(_, place)| {
            sum += f64::from(weights[place]) / total;
            sum >= mass
        });
        let Some(farthest) = reached.and_then(|place| self.distances.get(place)).map(|(distance, _)| *distance) else {
            return;
        };
        let mut kept = 0;
        for place in 0..self.weights.len() {
            let (_, bits) = information(f64::from(self.weights[place]) / total);
            if (bits - entropy).abs() <= farthest {
                self.weights[kept] = self.weights[place];
                self.candidates[kept] = self.candidates[place];
                kept += 1;
            }
        }
        self.weights.truncate(kept);
    }
}

/// A probability and -ln of it; 0 has no information, so that sums leave it out.
fn information(p: f64) -> (f64, f64) {
    if p > 0.0 { (p, -p.ln()) } else { (0.0, 0.0) }
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
        let options = GenerateOptions::default().temperature(1.0);
        assert_close(&frequencies(&options, &ROW), [0.5, 0.3, 0.15, 0.05]);
        let options = GenerateOptions::default().temperature(0.5);
        let sum = 0.25 + 0.09 + 0.0225 + 0.0025;
        assert_close(&frequencies(&options, &ROW), [0.25 / sum, 0.09 / sum, 0.0225 / sum, 0.0025 / sum]);
    }

    #[test]
    fn filters_keep_the_right_tokens() {
        let base = GenerateOptions::default().temperature(1.0);
        let check = |options: GenerateOptions, expected| assert_close(&frequencies(&options, &ROW), expected);
        let two = [0.625, 0.375, 0.0, 0.0];
        let three = [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0];
        check(base.clone().top_k(2), two);
        // 0.5 does not reach 0.6; the second token crosses.
        check(base.clone().top_p(0.6), two);
        check(base.clone().min_p(0.2), three);
        check(base.clone().epsilon_cutoff(0.1), three);
        // The entropy is 1.142: min(0.3, 0.548 * 0.319 = 0.175).
        check(base.clone().eta_cutoff(0.3), two);
        // Information 0.693, 1.204, 1.897, 2.996; the nearest to 1.142 are the second, the first and the third.
        check(base.clone().typical_p(0.2), [0.0, 1.0, 0.0, 0.0]);
        check(base.clone().typical_p(0.7), two);
        // Parts of the entropy: 0.347, 0.361, 0.285, 0.150.
        check(base.clone().top_h(0.65), two);
        check(base.clone().top_h(0.1), [1.0, 0.0, 0.0, 0.0]);
        check(base.clone().top_h(0.9).top_k(2), two);
        // Each filter sees the probabilities that the one before left: 0.375, not 0.3.
        check(base.clone().top_p(0.6).epsilon_cutoff(0.35), two);
        check(base.top_p(0.6).epsilon_cutoff(0.4), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn seeds_and_streams_differ() {
        let numbers = |seed, stream| Random::new(seed, stream).uniform();
        assert_ne!(numbers(0, 0), numbers(1, 0));
        assert_ne!(numbers(0, 0), numbers(0, 1));
        assert_eq!(numbers(5, 3), numbers(5, 3));
    }
}
