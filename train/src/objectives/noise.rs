//! Noise masks, `true` where a token is noise, and the lengths that go with them.
//!
//! Rounding is half to even throughout. The span mask multiplies in `f32` and [`random_spans_helper`] in `f64`, each as
//! the reference does.

use crate::random::Random;

/// Independent noise: each position with probability `density`.
pub fn iid_noise_mask(len: usize, density: f64, random: &mut Random) -> Vec<bool> {
    (0..len).map(|_| random.chance(density)).collect()
}

/// A random prefix is noise, the rest is kept: for `density` 0.5 its length is uniform in `[1, len - 1]`.
pub fn random_prefix_noise_mask(len: usize, density: f64, random: &mut Random) -> Vec<bool> {
    if len < 2 {
        return vec![false; len];
    }
    let shortest = ((1.0 - 2.0 * density) * (len - 1) as f64).round_ties_even().max(1.0) as usize;
    let prefix = random.between(shortest.min(len - 1), len - 1);
    (0..len).map(|i| i < prefix).collect()
}

/// `round(len * density)` as the span mask has it: the reference multiplies in single precision there, and 0.15 * 190
/// is 28.5 in double but 28.500002 in single.
fn noise_of(len: usize, density: f64) -> usize {
    (len as f32 * density as f32).round_ties_even() as usize
}

fn spans_of(noise: usize, mean_span: f64) -> usize {
    (noise as f32 / mean_span as f32).round_ties_even() as usize
}

/// Spans of noise of random lengths: exactly `round(len * density)` noise tokens (at least 1, at most `len - 1`) in
/// `round(noise / mean_span)` spans, both compositions uniform. Starts with kept tokens and ends with noise, unless
/// rolled. `max_spans` bounds the spans, as each needs a sentinel of its own.
pub fn random_spans_noise_mask(
    len: usize,
    density: f64,
    mean_span: f64,
    max_spans: usize,
    roll: bool,
    random: &mut Random,
) -> Vec<bool> {
    if density == 0.0 || len == 0 {
        return vec![false; len];
    }
    // A single token counts as two, of which the second is noise and then cut off.
    let padded = len.max(2);
    let noise = noise_of(padded, density).clamp(1, padded - 1);
    let kept = padded - noise;
    let spans = spans_of(noise, mean_span).min(max_spans).clamp(1, noise.min(kept));
    let noise_lengths = random_segmentation(noise, spans, random);
    let kept_lengths = random_segmentation(kept, spans, random);
    let mut mask = Vec::with_capacity(padded);
    for (kept, noise) in kept_lengths.into_iter().zip(noise_lengths) {
        mask.resize(mask.len() + kept, false);
        mask.resize(mask.len() + noise, true);
    }
    mask.truncate(len);
    if roll {
        mask.rotate_right(random.below(len));
    }
    mask
}

/// A uniformly drawn composition of `items` into `segments` positive parts.
///
/// # Panics
/// Unless `1 <= segments <= items`.
pub fn random_segmentation(items: usize, segments: usize, random: &mut Random) -> Vec<usize> {
    assert!(1 <= segments && segments <= items, "{items} items cannot make {segments} parts");
    let mut starts: Vec<bool> = (1..items).map(|i| i < segments).collect();
    random.shuffle(&mut starts);
    let mut lengths = Vec::with_capacity(segments);
    let mut length = 1;
    for start in starts {
        if start {
            lengths.push(length);
            length = 0;
        }
        length += 1;
    }
    lengths.push(length);
    lengths
}

/// Lengths with which nothing is padded: how many raw tokens make span-corrupted inputs of at most `inputs_length`
/// (end mark included), and how long their targets are. Returns (raw tokens, targets).
///
/// `extra_inputs` and `extra_targets` are the sentinels a span costs on each side. (512, 0.15, 3, 1, 1) gives (568,
/// 114). For some lengths, such as 172, the mask rounds the other way (see [`random_spans_noise_mask`]) and makes
/// targets two tokens longer, which are then cut off, as the reference does.
pub fn random_spans_helper(
    inputs_length: usize,
    density: f64,
    mean_span: f64,
    extra_inputs: usize,
    extra_targets: usize,
) -> (usize, usize) {
    let lengths = |tokens: usize| {
        let (inputs, targets) = span_lengths(tokens, density, mean_span, extra_inputs, extra_targets);
        (inputs + 1, targets + 1)
    };
    let mut tokens = inputs_length.saturating_sub(1);
    // With density 1 inputs need not grow with the tokens; the targets then bound them in the caller's place.
    while lengths(tokens + 1).0 <= inputs_length && tokens < inputs_length.saturating_mul(64) {
        tokens += 1;
    }
    let mut targets = lengths(tokens).1;
    if density == 0.5 && targets > inputs_length {
        tokens -= 1;
        targets -= 1;
    }
    (tokens, targets)
}

/// Inputs and targets of `tokens` raw tokens without end marks, as [`random_spans_helper`] counts them: in double
/// precision.
pub(super) fn span_lengths(
    tokens: usize,
    density: f64,
    mean_span: f64,
    extra_inputs: usize,
    extra_targets: usize,
) -> (usize, usize) {
    let noise = (tokens as f64 * density).round_ties_even();
    let spans = (noise / mean_span).round_ties_even() as usize;
    let noise = (noise as usize).min(tokens);
    (tokens - noise + spans * extra_inputs, noise + spans * extra_targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::replacement::runs;

    #[test]
    fn lengths_helper() {
        let rows = [
            (512, 0.15, 3.0, 568, 114),
            (512, 0.15, 2.0, 552, 126),
            (512, 0.15, 5.0, 581, 105),
            (512, 0.15, 10.0, 591, 99),
            (1024, 0.15, 3.0, 1137, 229),
            (1024, 0.15, 20.0, 1193, 189),
            (256, 0.15, 3.0, 284, 58),
            (128, 0.15, 3.0, 141, 29),
            (64, 0.2, 2.0, 70, 22),
            (64, 0.2, 1.0, 63, 27),
            // Where single precision would round the other way: (190, 40) and (190, 30).
            (172, 0.15, 3.0, 190, 38),
            (162, 0.15, 64.0, 189, 29),
        ];
        for (inputs, density, mean, tokens, targets) in rows {
            assert_eq!(
                random_spans_helper(inputs, density, mean, 1, 1),
                (tokens, targets),
                "{inputs} {density} {mean}"
            );
        }
    }

    #[test]
    fn span_mask_of_the_reference_test() {
        // n = 32, density 0.25, mean 2: 8 noise tokens in 4 spans, whatever the seed.
        for seed in 0..200 {
            let mask = random_spans_noise_mask(32, 0.25, 2.0, 100, false, &mut Random::new(seed));
            assert_eq!(mask.iter().filter(|&&n| n).count(), 8);
            assert_eq!(runs(&mask), 4);
            assert!(!mask[0] && mask[31]);
        }
    }

    #[test]
    fn span_masks_are_uniform_over_compositions() {
        // 5 items in 3 parts: 6 compositions.
        let mut counts = std::collections::HashMap::new();
        let mut random = Random::new(2);
        for _ in 0..6000 {
            *counts.entry(random_segmentation(5, 3, &mut random)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Standard deviation 29.
        assert!(counts.values().all(|&c| c.abs_diff(1000) < 145), "{counts:?}");
        assert!(counts.keys().all(|parts| parts.iter().sum::<usize>() == 5 && parts.iter().all(|&p| p > 0)));
    }

    #[test]
    fn short_sequences_and_zero_density() {
        for len in 0..6 {
            for seed in 0..20 {
                let random = &mut Random::new(seed);
                let mask = random_spans_noise_mask(len, 0.15, 3.0, 100, false, random);
                assert_eq!(mask.len(), len);
                if len >= 2 {
                    assert!(!mask[0] && mask[len - 1]);
                    assert_eq!(mask.iter().filter(|&&n| n).count(), 1);
                }
                assert_eq!(random_spans_noise_mask(len, 0.0, 3.0, 100, false, random), vec![false; len]);
                assert_eq!(random_prefix_noise_mask(len, 0.5, random).len(), len);
                assert_eq!(random_spans_noise_mask(len, 0.5, 3.0, 100, true, random).len(), len);
            }
        }
    }
}
