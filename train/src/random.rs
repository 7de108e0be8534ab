//! Seeded random numbers: a counter, not a state machine.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
//! the n-th draw is a mixing function of `key + n * GAMMA`. So a stream is wholly described by its key and the number
//! of draws, any draw can be computed without the ones before it, and every (seed, epoch, example) or (seed, step,
//! layer) has a stream of its own. Nothing here reads a clock or the operating system.

/// 2^64 divided by the golden ratio, odd: the step of the counter.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function: a bijection of 64 bits in which every input bit changes half of the output bits (Stafford's
/// "Mix13" constants, as in SplitMix64).
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The first output of the SplitMix64 generator whose state is `state`: steps the counter once, then mixes.
pub fn splitmix64(state: u64) -> u64 {
    mix(state.wrapping_add(GAMMA))
}

/// A seed derived from a seed and a path of numbers, such as `[epoch, example]`. Different paths, also of different
/// lengths, give unrelated seeds.
pub fn derive(seed: u64, path: &[u64]) -> u64 {
    path.iter().fold(splitmix64(seed), |key, &part| {
        mix(key.wrapping_mul(3).wrapping_add(GAMMA).wrapping_add(splitmix64(part)))
    })
}

/// A 64-bit hash of bytes for hold-out decisions and names (FNV-1a, then [`mix`]): the same on every machine, for ever.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fnv =
        bytes.iter().fold(0xCBF2_9CE4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(fnv)
}

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    counter: u64,
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random { counter: mix(seed) }
    }

    /// The stream of a seed and a path, see [`derive()`].
    pub fn from_path(seed: u64, path: &[u64]) -> Random {
        Random::new(derive(seed, path))
    }

    /// The state: give it to [`Random::from_state`] to continue.
    pub fn state(&self) -> u64 {
        self.counter
    }

    /// Continues a stream.
    pub fn from_state(state: u64) -> Random {
        Random { counter: state }
    }

    /// Passes over `draws` 64-bit draws at once.
    pub fn skip(&mut self, draws: u64) {
        self.counter = self.counter.wrapping_add(GAMMA.wrapping_mul(draws));
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(GAMMA);
        mix(self.counter)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n`, without bias (Lemire's multiplication with rejection). 0 if `n` is 0 or 1.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        if n <= 1 {
            return 0;
        }
        let n = n as u64;
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// Uniform in `low..=high`; `low` if the range is empty.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        if high <= low { low } else { low + self.below(high - low + 1) }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// One element, or `None` of an empty slice.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { Some(&items[self.below(items.len())]) }
    }

    /// A standard normal draw (Box-Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        // 1 - u is in (0, 1], so that its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts the elements in a uniformly random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A random permutation of `0..n` whose values are computed one by one: an epoch's order without a table or a shuffle
/// buffer, so that resuming at any example costs nothing.
///
/// A Feistel network of six rounds permutes the numbers of `2 * half_bits` bits; values outside `0..n` are sent through
/// again until they fall inside (cycle walking, Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The
/// power of four is at most 4 n, so four rounds of walking are enough on average.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; 6],
}

impl Permutation {
    /// The permutation of `0..n` that belongs to a seed.
    pub fn new(n: u64, seed: u64) -> Permutation {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        let mut random = Random::new(seed);
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| random.next_u64()) }
    }

    /// Where `index` goes. Indices outside `0..n` go to themselves.
    pub fn at(&self, index: u64) -> u64 {
        if index >= self.n {
            return index;
        }
        let mask = (1u64 << self.half_bits) - 1;
        let mut value = index;
        loop {
            let (mut left, mut right) = (value >> self.half_bits, value & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right.wrapping_add(key)) & mask));
            }
            value = left << self.half_bits | right;
            if value < self.n {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // First outputs of the reference implementation for state 1234567.
        let mut random = Random::from_state(1234567);
        let reference = [
            6457827717110365317u64,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ];
        assert_eq!(splitmix64(1234567), reference[0]);
        for expected in reference {
            assert_eq!(random.next_u64(), expected);
        }
    }

    #[test]
    fn skipping_equals_drawing() {
        let mut a = Random::from_path(7, &[1, 2]);
        let mut b = a.clone();
        for _ in 0..1000 {
            a.next_u64();
        }
        b.skip(1000);
        assert_eq!(a.next_u64(), b.next_u64());
        let mut c = Random::from_state(b.state());
        assert_eq!(c.next_u64(), b.next_u64());
    }

    #[test]
    fn paths_give_different_streams() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..20 {
            assert!(seen.insert(derive(seed, &[])));
            for a in 0..20 {
                assert!(seen.insert(derive(seed, &[a])));
                for b in 0..20 {
                    assert!(seen.insert(derive(seed, &[a, b])));
                }
            }
        }
    }

    #[test]
    fn below_is_uniform() {
        let mut random = Random::new(3);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        // Standard deviation of a count is 93; five of them.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 463), "{counts:?}");
    }

    #[test]
    fn normal_has_mean_0_and_variance_1() {
        let mut random = Random::new(5);
        let draws: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / draws.len() as f64;
        // Five standard errors: 1/sqrt(n) and sqrt(2/n).
        assert!(mean.abs() < 0.0159, "{mean}");
        assert!((variance - 1.0).abs() < 0.0224, "{variance}");
    }

    #[test]
    fn permutations_are_bijections_and_depend_on_the_seed() {
        for n in [1u64, 2, 3, 4, 5, 16, 17, 1000, 4097] {
            let permutation = Permutation::new(n, 9);
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let j = permutation.at(i) as usize;
                assert!(!std::mem::replace(&mut seen[j], true), "{n}: {j} twice");
            }
        }
        let (a, b) = (Permutation::new(1000, 1), Permutation::new(1000, 2));
        let same = (0..1000).filter(|&i| a.at(i) == b.at(i)).count();
        assert!(same < 10, "{same}");
    }

    #[test]
    fn permutations_have_no_visible_order() {
        // Rank correlation of index and value: standard error 1/sqrt(n).
        let n = 10_000u64;
        let permutation = Permutation::new(n, 4);
        let mean = (n - 1) as f64 / 2.0;
        let covariance: f64 =
            (0..n).map(|i| (i as f64 - mean) * (permutation.at(i) as f64 - mean)).sum::<f64>() / n as f64;
        let correlation = covariance / ((n * n - 1) as f64 / 12.0);
        assert!(correlation.abs() < 0.05, "{correlation}");
    }
}
