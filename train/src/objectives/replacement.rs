//! What becomes of tokens under a noise mask: the `inputs_fn` and `targets_fn` of the reference preprocessors.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The first id that a random token may have: pad, eos and unk are never drawn.
const FIRST_ORDINARY_ID: u32 = 3;

/// Which ids stand for removed spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinels {
    /// Id of `<extra_id_0>`, the highest one: `vocab_size - 1` without padding rows (32099 for T5, 258 for ByT5).
    pub first: u32,
    /// How many there are, downwards from `first`. More spans than that walk on into ordinary ids, as the reference
    /// does. [`span_corruption`](super::span_corruption) never makes more spans than sentinels.
    pub count: u32,
}

impl Sentinels {
    /// The sentinel of the n-th span, counted from 0.
    pub fn id(&self, n: usize) -> u32 {
        self.first.saturating_sub(n as u32)
    }
}

/// The number of runs of `true`.
pub fn runs(mask: &[bool]) -> usize {
    (0..mask.len()).filter(|&i| starts_run(mask, i)).count()
}

pub(super) fn starts_run(mask: &[bool], i: usize) -> bool {
    mask[i] && (i == 0 || !mask[i - 1])
}

pub(super) fn inverted(mask: &[bool]) -> Vec<bool> {
    mask.iter().map(|noise| !noise).collect()
}

/// What becomes of tokens under a mask. The `inputs_fn` and `targets_fn` of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replacement {
    /// Everything is kept.
    Full,
    /// Each noise token becomes the first sentinel.
    NoiseToken,
    /// Each run of noise becomes one first sentinel.
    NoiseSpan,
    /// Each run of noise becomes a sentinel of its own, descending.
    NoiseSpanUnique,
    /// Each run of kept tokens becomes one first sentinel.
    NonnoiseSpan,
    /// Each run of kept tokens becomes a sentinel of its own, descending.
    NonnoiseSpanUnique,
    /// Noise is left out.
    DropNoise,
    /// Only noise is left.
    DropNonnoise,
    /// Noise tokens change places among the noise positions.
    PermuteNoise,
    /// Each noise token becomes a uniformly drawn one of the vocabulary, pad, eos and unk excluded.
    RandomToken,
    /// Each noise token becomes a random token with probability 0.1, else the first sentinel.
    RandomTokenOrSentinel,
    /// Each noise token becomes a token drawn from the sequence.
    GatheredToken,
}

/// Applies a replacement. `vocab_size` bounds random tokens and is counted without padding rows, sentinels included.
///
/// # Panics
/// Where the mask is not as long as the tokens.
pub fn replace(
    tokens: &[u32],
    mask: &[bool],
    how: Replacement,
    sentinels: Sentinels,
    vocab_size: u32,
    random: &mut Random,
) -> Vec<u32> {
    assert_eq!(tokens.len(), mask.len(), "a mask covers every token");
    match how {
        Replacement::Full => tokens.to_vec(),
        Replacement::NoiseToken => map_noise(tokens, mask, |_| sentinels.first),
        Replacement::NoiseSpan => spans_to(tokens, mask, |_| sentinels.first),
        Replacement::NoiseSpanUnique => spans_to(tokens, mask, |n| sentinels.id(n)),
        Replacement::NonnoiseSpan => spans_to(tokens, &inverted(mask), |_| sentinels.first),
        Replacement::NonnoiseSpanUnique => spans_to(tokens, &inverted(mask), |n| sentinels.id(n)),
        Replacement::DropNoise => filter(tokens, mask, false),
        Replacement::DropNonnoise => filter(tokens, mask, true),
        Replacement::PermuteNoise => {
            let mut noise = filter(tokens, mask, true);
            random.shuffle(&mut noise);
            let mut next = noise.into_iter();
            map_noise(tokens, mask, |token| next.next().unwrap_or(token))
        }
        Replacement::RandomToken => map_noise(tokens, mask, |_| random_token(vocab_size, random)),
        Replacement::RandomTokenOrSentinel => {
            map_noise(
                tokens,
                mask,
                |_| {
                    if random.chance(0.1) { random_token(vocab_size, random) } else { sentinels.first }
                },
            )
        }
        Replacement::GatheredToken => map_noise(tokens, mask, |_| tokens[random.below(tokens.len())]),
    }
}

fn map_noise(tokens: &[u32], mask: &[bool], mut f: impl FnMut(u32) -> u32) -> Vec<u32> {
    tokens.iter().zip(mask).map(|(&token, &noise)| if noise { f(token) } else { token }).collect()
}

fn filter(tokens: &[u32], mask: &[bool], keep: bool) -> Vec<u32> {
    tokens.iter().zip(mask).filter(|&(_, &noise)| noise == keep).map(|(&token, _)| token).collect()
}

pub(super) fn spans_to(tokens: &[u32], mask: &[bool], sentinel: impl Fn(usize) -> u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut spans = 0;
    for (i, &token) in tokens.iter().enumerate() {
        if !mask[i] {
            out.push(token);
        } else if starts_run(mask, i) {
            out.push(sentinel(spans));
            spans += 1;
        }
    }
    out
}

fn random_token(vocab_size: u32, random: &mut Random) -> u32 {
    FIRST_ORDINARY_ID + random.below(vocab_size.saturating_sub(FIRST_ORDINARY_ID) as usize) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: bool = true;
    const F: bool = false;

    fn apply(tokens: &[u32], mask: &[bool], how: Replacement, vocab_size: u32) -> Vec<u32> {
        let sentinels = Sentinels { first: vocab_size - 1, count: 100 };
        replace(tokens, mask, how, sentinels, vocab_size, &mut Random::new(1))
    }

    #[test]
    fn reference_vectors_of_the_primitives() {
        let tokens = [10, 11, 12, 13, 14, 15];
        let mask = [T, T, F, F, T, F];
        let cases: &[(Replacement, &[u32])] = &[
            (Replacement::NoiseToken, &[999, 999, 12, 13, 999, 15]),
            (Replacement::NoiseSpan, &[999, 12, 13, 999, 15]),
            (Replacement::NonnoiseSpan, &[10, 11, 999, 14, 999]),
            (Replacement::NoiseSpanUnique, &[999, 12, 13, 998, 15]),
            (Replacement::NonnoiseSpanUnique, &[10, 11, 999, 14, 998]),
            (Replacement::DropNoise, &[12, 13, 15]),
            (Replacement::DropNonnoise, &[10, 11, 14]),
            (Replacement::Full, &tokens),
        ];
        for (how, expected) in cases {
            assert_eq!(apply(&tokens, &mask, *how, 1000), *expected, "{how:?}");
        }
    }

    #[test]
    fn reference_vector_of_two_spans() {
        let tokens = [3, 2, 20, 4, 3, 2, 8, 13, 2, 3, 2, 23, 7, 19, 22, 3, 2, 7, 2];
        let mask: Vec<bool> = (0..19).map(|i| i == 8 || i >= 14).collect();
        assert_eq!(
            apply(&tokens, &mask, Replacement::NoiseSpanUnique, 26),
            [3, 2, 20, 4, 3, 2, 8, 13, 25, 3, 2, 23, 7, 19, 24]
        );
        assert_eq!(apply(&tokens, &mask, Replacement::NonnoiseSpanUnique, 26), [25, 2, 24, 22, 3, 2, 7, 2]);
    }

    /// Table 3 of the paper, words as tokens: 100 = Thank, ... 110 = full stop.
    #[test]
    fn table_3_of_the_paper() {
        let tokens: Vec<u32> = (100..111).collect();
        let [x, y, z] = [32099, 32098, 32097];
        let mask_of = |noise: &[usize]| -> Vec<bool> { (0..11).map(|i| noise.contains(&i)).collect() };
        let pair = |mask: &[bool], inputs, targets| {
            (apply(&tokens, mask, inputs, 32100), apply(&tokens, mask, targets, 32100))
        };
        // Prefix LM: the first four words are the input.
        assert_eq!(
            pair(&mask_of(&[0, 1, 2, 3]), Replacement::DropNonnoise, Replacement::DropNoise),
            ((100..104).collect(), (104..111).collect())
        );
        // MASS-style.
        let mask = mask_of(&[2, 3, 8]);
        let (inputs, targets) = pair(&mask, Replacement::NoiseToken, Replacement::Full);
        assert_eq!(inputs, [100, 101, x, x, 104, 105, 106, 107, x, 109, 110]);
        assert_eq!(targets, tokens);
        // Replace spans: also a last run of kept tokens becomes a sentinel of the targets.
        let (inputs, targets) = pair(&mask, Replacement::NoiseSpanUnique, Replacement::NonnoiseSpanUnique);
        assert_eq!(inputs, [100, 101, x, 104, 105, 106, 107, y, 109, 110]);
        assert_eq!(targets, [x, 102, 103, y, 108, z]);
        // Drop tokens.
        let (inputs, targets) = pair(&mask, Replacement::DropNoise, Replacement::DropNonnoise);
        assert_eq!(inputs, [100, 101, 104, 105, 106, 107, 109, 110]);
        assert_eq!(targets, [102, 103, 108]);
        // Random spans.
        let mask = mask_of(&[1, 2, 3, 4, 6, 7, 8]);
        let (inputs, targets) = pair(&mask, Replacement::NoiseSpanUnique, Replacement::NonnoiseSpanUnique);
        assert_eq!(inputs, [100, x, 105, y, 109, 110]);
        assert_eq!(targets, [x, 101, 102, 103, 104, y, 106, 107, 108, z]);
    }

    #[test]
    fn a_sequence_that_starts_with_noise_shifts_the_sentinels_as_the_reference_does() {
        let tokens = [10, 11, 12, 13];
        let mask = [T, F, T, F];
        assert_eq!(apply(&tokens, &mask, Replacement::NoiseSpanUnique, 1000), [999, 11, 998, 13]);
        assert_eq!(apply(&tokens, &mask, Replacement::NonnoiseSpanUnique, 1000), [10, 999, 12, 998]);
    }

    #[test]
    fn random_and_gathered_tokens_keep_what_is_not_noise() {
        let tokens: Vec<u32> = (500..600).collect();
        let mask: Vec<bool> = (0..100).map(|i| i % 3 == 0).collect();
        for how in [Replacement::RandomToken, Replacement::GatheredToken, Replacement::PermuteNoise] {
            let out = apply(&tokens, &mask, how, 1000);
            for i in 0..100 {
                assert!(mask[i] || out[i] == tokens[i]);
                assert!(out[i] >= 3 && out[i] < 1000);
            }
            assert_ne!(out, tokens);
            if how != Replacement::RandomToken {
                assert!(out.iter().all(|t| tokens.contains(t)));
            }
        }
    }
}
