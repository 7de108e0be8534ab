//! Unsupervised objectives: tokens and a seed in, an (inputs, targets) pair out. No state, no end marks.
//!
//! Every objective of the T5 paper's Table 3 is a noise mask and two functions of (tokens, mask), as in the reference
//! preprocessors; UL2's mixture of denoisers is built of the same parts.

mod noise;
mod replacement;
mod ul2;

use serde::{Deserialize, Serialize};

pub use noise::{
    iid_noise_mask, random_prefix_noise_mask, random_segmentation, random_spans_helper, random_spans_noise_mask,
};
pub use replacement::{Replacement, Sentinels, replace, runs};
pub use ul2::{Corruption, Denoiser, Mode};

use crate::random::Random;
use noise::span_lengths;
use replacement::{inverted, spans_to, starts_run};

/// An objective: how unlabelled tokens become an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Objective {
    /// The model continues a random prefix.
    PrefixLm,
    /// Nothing is given, everything is the target.
    Lm,
    /// 15 % of the tokens are masked or replaced; the target is the whole sequence.
    BertStyle { density: f64 },
    /// The tokens are shuffled; the target is the whole sequence.
    Deshuffling,
    /// Masked tokens, without BERT's replacements; the target is the whole sequence.
    MassStyle { density: f64 },
    /// Independent noise, each run replaced by a sentinel; the paper's baseline.
    IidReplaceSpans { density: f64 },
    /// Independent noise, dropped; the target is the dropped tokens.
    IidDrop { density: f64 },
    /// Span corruption, the objective of the published models. There noise never comes first and always last, so that
    /// a single span is always the tail; `anywhere` rotates the spans to any place.
    RandomSpans {
        density: f64,
        mean_span: f64,
        #[serde(default)]
        anywhere: bool,
    },
    /// UL2's mixture of denoisers. The seven configurations have equal parts, and the example's text is preceded by the
    /// tokens of its mode, where the vocabulary has them.
    Ul2,
}

impl Objective {
    /// The paper's corruption: 15 % in spans of three.
    pub const T5: Objective = Objective::RandomSpans { density: 0.15, mean_span: 3.0, anywhere: false };

    /// Says what is out of range.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (density, mean_span) = match *self {
            Objective::BertStyle { density }
            | Objective::MassStyle { density }
            | Objective::IidReplaceSpans { density }
            | Objective::IidDrop { density } => (density, 1.0),
            Objective::RandomSpans { density, mean_span, .. } => (density, mean_span),
            Objective::PrefixLm | Objective::Lm | Objective::Deshuffling | Objective::Ul2 => return Ok(()),
        };
        if !(density > 0.0 && density < 1.0) {
            return Err(format!("density: expected a share above 0 and below 1, found {density:?}"));
        }
        if !(mean_span.is_finite() && mean_span >= 1.0) {
            return Err(format!("mean_span: expected 1 token or more, found {mean_span:?}"));
        }
        Ok(())
    }

    /// Whether it puts sentinels in the place of tokens.
    pub(crate) fn needs_sentinels(&self) -> bool {
        match self {
            Objective::BertStyle { .. }
            | Objective::MassStyle { .. }
            | Objective::IidReplaceSpans { .. }
            | Objective::RandomSpans { .. }
            | Objective::Ul2 => true,
            Objective::PrefixLm | Objective::Lm | Objective::Deshuffling | Objective::IidDrop { .. } => false,
        }
    }

    /// How many raw tokens an example takes, given the lengths of its inputs and targets (end marks included).
    ///
    /// As in the reference, inputs decide: of objectives whose target is the whole sequence, or a random part of it,
    /// shorter targets cut the target and not the segment (see [`Objective::longest_target`]). Span corruption and
    /// language modelling take what fits both.
    pub fn segment_length(&self, inputs_length: usize, targets_length: usize) -> usize {
        let inputs = inputs_length.saturating_sub(1).max(1);
        let targets = targets_length.saturating_sub(1).max(1);
        match *self {
            Objective::Lm => targets,
            Objective::PrefixLm
            | Objective::BertStyle { .. }
            | Objective::Deshuffling
            | Objective::MassStyle { .. }
            | Objective::IidReplaceSpans { .. }
            | Objective::IidDrop { .. } => inputs,
            Objective::RandomSpans { density, mean_span, anywhere } => {
                // A span that the rotation cuts in two costs one more sentinel on each side, and kept tokens at the
                // end one more in the targets.
                let (inputs_length, targets_length) = if anywhere {
                    (inputs_length - 1, targets_length.saturating_sub(2))
                } else {
                    (inputs_length, targets_length)
                };
                span_segment_length(inputs_length, targets_length, density, mean_span)
            }
            Objective::Ul2 => Denoiser::ALL
                .iter()
                .map(|denoiser| match denoiser.corruption {
                    // One place is the mode token's.
                    Corruption::Spans { density, mean_span } => {
                        span_segment_length(inputs_length.saturating_sub(1), targets_length, density, mean_span)
                    }
                    Corruption::Tail { density } => {
                        let tail = (targets as f64 / density) as usize;
                        let head = ((inputs - 1) as f64 / (1.0 - density)) as usize;
                        tail.min(head)
                    }
                })
                .min()
                .unwrap_or(1)
                .max(2),
        }
    }

    /// The most target tokens that a segment of `len` tokens can have, without the end mark, where the objective
    /// decides it alone; `None` where chance does.
    pub fn longest_target(&self, len: usize) -> Option<usize> {
        match self {
            Objective::Lm | Objective::BertStyle { .. } | Objective::Deshuffling | Objective::MassStyle { .. } => {
                Some(len)
            }
            Objective::PrefixLm => Some(len.saturating_sub(1).max(len.min(1))),
            Objective::IidReplaceSpans { .. }
            | Objective::IidDrop { .. }
            | Objective::RandomSpans { .. }
            | Objective::Ul2 => None,
        }
    }

    /// Corrupts tokens. Pure: the same seed gives the same example.
    ///
    /// `modes` are the token ids that stand for UL2's `[NLU]`, `[S2S]` and `[NLG]`; empty lists leave them out.
    pub fn apply(
        &self,
        tokens: &[u32],
        sentinels: Sentinels,
        vocab_size: u32,
        modes: &[Vec<u32>; 3],
        seed: u64,
    ) -> Denoised {
        let random = &mut Random::new(seed);
        let len = tokens.len();
        let make = |mask: &[bool], inputs: Replacement, targets: Replacement, random: &mut Random| Denoised {
            inputs: replace(tokens, mask, inputs, sentinels, vocab_size, random),
            targets: replace(tokens, mask, targets, sentinels, vocab_size, random),
        };
        match *self {
            Objective::PrefixLm => {
                let mask = random_prefix_noise_mask(len, 0.5, random);
                make(&mask, Replacement::DropNonnoise, Replacement::DropNoise, random)
            }
            Objective::Lm => Denoised { inputs: Vec::new(), targets: tokens.to_vec() },
            Objective::BertStyle { density } => {
                let mask = iid_noise_mask(len, density, random);
                make(&mask, Replacement::RandomTokenOrSentinel, Replacement::Full, random)
            }
            Objective::Deshuffling => make(&vec![true; len], Replacement::PermuteNoise, Replacement::Full, random),
            Objective::MassStyle { density } => {
                let mask = iid_noise_mask(len, density, random);
                make(&mask, Replacement::NoiseToken, Replacement::Full, random)
            }
            Objective::IidReplaceSpans { density } => {
                let mask = iid_noise_mask(len, density, random);
                make(&mask, Replacement::NoiseSpanUnique, Replacement::NonnoiseSpanUnique, random)
            }
            Objective::IidDrop { density } => {
                let mask = iid_noise_mask(len, density, random);
                make(&mask, Replacement::DropNoise, Replacement::DropNonnoise, random)
            }
            Objective::RandomSpans { density, mean_span, anywhere: false } => {
                span_corruption(tokens, density, mean_span, sentinels, random)
            }
            Objective::RandomSpans { density, mean_span, anywhere: true } => {
                let most = (sentinels.count as usize).saturating_sub(2).max(1);
                let mask = random_spans_noise_mask(len, density, mean_span, most, true, random);
                fill_in(tokens, &mask, sentinels)
            }
            Objective::Ul2 => {
                let denoiser = Denoiser::ALL[random.below(Denoiser::ALL.len())];
                let mut denoised = match denoiser.corruption {
                    Corruption::Spans { density, mean_span } => {
                        span_corruption(tokens, density, mean_span, sentinels, random)
                    }
                    Corruption::Tail { density } => {
                        let tail = ((len as f64 * density).round_ties_even() as usize).clamp(len.min(1), len);
                        Denoised { inputs: tokens[..len - tail].to_vec(), targets: tokens[len - tail..].to_vec() }
                    }
                };
                denoised.inputs.splice(..0, modes[denoiser.mode as usize].iter().copied());
                denoised
            }
        }
    }
}

fn span_segment_length(inputs_length: usize, targets_length: usize, density: f64, mean_span: f64) -> usize {
    let (mut tokens, mut targets) = random_spans_helper(inputs_length, density, mean_span, 1, 1);
    while targets > targets_length && tokens > 1 {
        tokens -= 1;
        targets = span_lengths(tokens, density, mean_span, 1, 1).1 + 1;
    }
    tokens.max(1)
}

/// An example made of unlabelled tokens, without end marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denoised {
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
}

/// Span corruption: spans of noise become descending sentinels in the inputs, spans of kept tokens in the targets.
pub fn span_corruption(
    tokens: &[u32],
    density: f64,
    mean_span: f64,
    sentinels: Sentinels,
    random: &mut Random,
) -> Denoised {
    let mask = random_spans_noise_mask(tokens.len(), density, mean_span, sentinels.count as usize, false, random);
    Denoised {
        inputs: spans_to(tokens, &mask, |n| sentinels.id(n)),
        targets: spans_to(tokens, &inverted(&mask), |n| sentinels.id(n)),
    }
}

/// Inputs and targets of which the n-th sentinel always stands for the n-th span of noise, also where the sequence
/// starts with noise. Equal to the reference's pair for every other mask.
fn fill_in(tokens: &[u32], mask: &[bool], sentinels: Sentinels) -> Denoised {
    let mut targets = Vec::new();
    let mut spans = 0;
    for (i, &token) in tokens.iter().enumerate() {
        if starts_run(mask, i) {
            targets.push(sentinels.id(spans));
            spans += 1;
        }
        if mask[i] {
            targets.push(token);
        }
    }
    if mask.last() == Some(&false) {
        targets.push(sentinels.id(spans));
    }
    Denoised { inputs: spans_to(tokens, mask, |n| sentinels.id(n)), targets }
}

/// A random aligned chunk of a document longer than `max_length`: one of `ceil(len / max_length)`, the last one
/// shorter.
pub fn select_random_chunk<'a>(tokens: &'a [u32], max_length: usize, random: &mut Random) -> &'a [u32] {
    &tokens[random_chunk(tokens.len(), max_length, random)]
}

/// As [`select_random_chunk`]: the chunk's place among so many tokens.
pub(crate) fn random_chunk(len: usize, max_length: usize, random: &mut Random) -> std::ops::Range<usize> {
    if len <= max_length || max_length == 0 {
        return 0..len;
    }
    let start = random.below(len.div_ceil(max_length)) * max_length;
    start..len.min(start + max_length)
}

/// Keeps the first `length - 1` tokens and appends the end mark (id 1).
pub fn append_eos_after_trim(tokens: &mut Vec<u32>, length: usize) {
    tokens.truncate(length.saturating_sub(1));
    tokens.push(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: bool = true;
    const F: bool = false;

    #[test]
    fn bert_style_masks_or_replaces_and_deshuffling_permutes() {
        let tokens: Vec<u32> = (3..10_003).collect();
        let none = Default::default();
        let sentinels = Sentinels { first: 32099, count: 100 };
        let bert = Objective::BertStyle { density: 0.15 }.apply(&tokens, sentinels, 32100, &none, 5);
        assert_eq!(bert.targets, tokens);
        let masked = bert.inputs.iter().filter(|&&t| t == 32099).count();
        let changed = bert.inputs.iter().zip(&tokens).filter(|(a, b)| a != b).count();
        // Standard deviations 34 and 36 around 1350 and 1500.
        assert!(masked.abs_diff(1350) < 175, "{masked}");
        assert!(changed.abs_diff(1500) < 180, "{changed}");
        assert!(bert.inputs.iter().all(|&t| (3..32100).contains(&t)));
        let shuffled = Objective::Deshuffling.apply(&tokens, sentinels, 32100, &none, 5);
        assert_ne!(shuffled.inputs, tokens);
        let mut sorted = shuffled.inputs.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, tokens);
        assert_eq!(shuffled.targets, tokens);
    }

    #[test]
    fn joining_inputs_and_targets_at_the_sentinels_restores_the_sequence() {
        let sentinels = Sentinels { first: 32099, count: 100 };
        for seed in 0..300 {
            let random = &mut Random::new(seed);
            let len = random.between(2, 700);
            let tokens: Vec<u32> = (0..len).map(|_| 3 + random.below(31_000) as u32).collect();
            let density = [0.1, 0.15, 0.25, 0.5][random.below(4)];
            let mean = [2.0, 3.0, 5.0, 10.0][random.below(4)];
            let Denoised { inputs, targets } = span_corruption(&tokens, density, mean, sentinels, random);
            let spans = inputs.iter().filter(|&&t| t >= 32000).count();
            assert!(spans <= 100);
            assert_eq!(inputs.len() + targets.len(), len + 2 * spans);
            let mut restored = Vec::new();
            for &token in &inputs {
                match targets.iter().position(|&t| t == token) {
                    Some(at) if token >= 32000 => {
                        restored.extend(targets[at + 1..].iter().take_while(|&&t| t < 32000));
                    }
                    _ => restored.push(token),
                }
            }
            assert_eq!(restored, tokens, "seed {seed}");
        }
    }

    #[test]
    fn spans_anywhere_keep_their_sentinels() {
        let sentinels = Sentinels { first: 999, count: 100 };
        let fill = |mask: &[bool]| {
            let denoised = fill_in(&[10, 11, 12, 13, 14], mask, sentinels);
            (denoised.inputs, denoised.targets)
        };
        assert_eq!(fill(&[T, F, F, T, F]), (vec![999, 11, 12, 998, 14], vec![999, 10, 998, 13, 997]));
        assert_eq!(fill(&[F, T, T, F, T]), (vec![10, 999, 13, 998], vec![999, 11, 12, 998, 14]));
        let objective = Objective::RandomSpans { density: 0.15, mean_span: 3.0, anywhere: true };
        let tokens: Vec<u32> = (10..20).collect();
        let mut starts = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let denoised = objective.apply(&tokens, sentinels, 1000, &Default::default(), seed);
            starts.insert(denoised.inputs.iter().position(|&t| t == 999).unwrap());
        }
        assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn more_spans_than_sentinels() {
        // Independent noise walks down into ordinary ids, as in the reference.
        let mask: Vec<bool> = (0..12).map(|i| i % 2 == 1).collect();
        let sentinels = Sentinels { first: 99, count: 4 };
        let tokens = vec![7; 12];
        let out = replace(&tokens, &mask, Replacement::NoiseSpanUnique, sentinels, 100, &mut Random::new(0));
        assert_eq!(out, [7, 99, 7, 98, 7, 97, 7, 96, 7, 95, 7, 94]);
        // Span corruption keeps to its sentinels by making longer spans.
        let tokens = vec![7; 1000];
        let denoised = span_corruption(&tokens, 0.5, 1.0, sentinels, &mut Random::new(0));
        assert_eq!(denoised.inputs.iter().filter(|&&t| t != 7).count(), 4);
        assert_eq!(denoised.inputs.iter().filter(|&&t| t == 7).count(), 500);
    }

    #[test]
    fn ul2_uses_every_denoiser_and_names_its_mode() {
        let sentinels = Sentinels { first: 999, count: 100 };
        let modes = [vec![900], vec![901], vec![902]];
        let tokens: Vec<u32> = (3..403).collect();
        let mut counts = [0u32; 3];
        for seed in 0..700 {
            let denoised = Objective::Ul2.apply(&tokens, sentinels, 1000, &modes, seed);
            let mode = denoised.inputs[0];
            counts[(mode - 900) as usize] += 1;
            if mode == 901 {
                assert_eq!(denoised.inputs[1..], tokens[..300]);
                assert_eq!(denoised.targets, tokens[300..]);
            }
        }
        // Two, one and four of seven parts of 700; six standard deviations at most.
        assert!(counts[0].abs_diff(200) < 72 && counts[1].abs_diff(100) < 56 && counts[2].abs_diff(400) < 79);
    }

    #[test]
    fn segments_have_the_reference_s_lengths() {
        // `split_tokens_to_inputs_length`, whatever the targets' length: 512 for prefix LM and whole sequences, 192 for
        // BERT-style at 15 %.
        let whole = [
            Objective::PrefixLm,
            Objective::BertStyle { density: 0.15 },
            Objective::Deshuffling,
            Objective::MassStyle { density: 0.15 },
            Objective::IidReplaceSpans { density: 0.15 },
            Objective::IidDrop { density: 0.15 },
        ];
        for objective in whole {
            for targets in [512, 192, 104] {
                assert_eq!(objective.segment_length(512, targets), 511, "{objective:?} {targets}");
            }
        }
        assert_eq!(Objective::Lm.segment_length(512, 114), 113);
        assert_eq!(Objective::T5.segment_length(512, 114), 568);
        assert_eq!(Objective::T5.segment_length(172, 38), 190);
        assert!(Objective::T5.segment_length(512, 60) < 568);
    }

    #[test]
    fn segments_fit_their_lengths() {
        let sentinels = Sentinels { first: 999, count: 100 };
        let modes = [vec![900], vec![901], vec![902]];
        let spans = Objective::RandomSpans { density: 0.15, mean_span: 3.0, anywhere: true };
        let both = [Objective::T5, spans, Objective::Ul2, Objective::Lm];
        let inputs_alone = [Objective::PrefixLm, Objective::Deshuffling, Objective::MassStyle { density: 0.15 }];
        for objective in both.iter().chain(&inputs_alone) {
            for (inputs, targets) in [(512, 114), (128, 32), (64, 64), (40, 200)] {
                let len = objective.segment_length(inputs, targets);
                let tokens = vec![7; len];
                for seed in 0..50 {
                    let denoised = objective.apply(&tokens, sentinels, 1000, &modes, seed);
                    assert!(denoised.inputs.len() < inputs, "{objective:?} {inputs} {targets}");
                    let fits = denoised.targets.len() < targets;
                    assert!(fits || inputs_alone.contains(objective), "{objective:?} {inputs} {targets}");
                    let longest = objective.longest_target(len).unwrap_or(usize::MAX);
                    assert!(denoised.targets.len() <= longest, "{objective:?} {inputs} {targets}");
                }
            }
        }
    }

    #[test]
    fn chunks_are_aligned_and_trimming_ends_with_the_end_mark() {
        let tokens: Vec<u32> = (0..10).collect();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            seen.insert(select_random_chunk(&tokens, 4, &mut Random::new(seed)).to_vec());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        let mut tokens = vec![5, 6, 7];
        append_eos_after_trim(&mut tokens, 3);
        assert_eq!(tokens, [5, 6, 1]);
        append_eos_after_trim(&mut tokens, 9);
        assert_eq!(tokens, [5, 6, 1, 1]);
    }

    #[test]
    fn knobs_have_ranges() {
        let spans = |density, mean_span| Objective::RandomSpans { density, mean_span, anywhere: false };
        for density in [0.0, 1.0, 15.0, -0.15, f64::NAN, f64::INFINITY] {
            let all = [
                Objective::BertStyle { density },
                Objective::MassStyle { density },
                Objective::IidReplaceSpans { density },
                Objective::IidDrop { density },
                spans(density, 3.0),
            ];
            for objective in all {
                let expected = format!("density: expected a share above 0 and below 1, found {density:?}");
                assert_eq!(objective.check(), Err(expected));
            }
        }
        for mean_span in [0.0, 0.5, -3.0, f64::NAN, f64::INFINITY] {
            let expected = format!("mean_span: expected 1 token or more, found {mean_span:?}");
            assert_eq!(spans(0.15, mean_span).check(), Err(expected));
        }
        for objective in [Objective::T5, Objective::Ul2, Objective::Lm, spans(0.99, 1.0)] {
            assert_eq!(objective.check(), Ok(()));
        }
    }

    /// What `needs_sentinels` says of an objective, its examples show.
    #[test]
    fn objectives_without_need_of_sentinels_have_none() {
        let density = 0.3;
        for objective in [
            Objective::PrefixLm,
            Objective::Lm,
            Objective::Deshuffling,
            Objective::IidDrop { density },
            Objective::BertStyle { density },
            Objective::MassStyle { density },
            Objective::IidReplaceSpans { density },
            Objective::T5,
            Objective::Ul2,
        ] {
            let tokens: Vec<u32> = (3..103).collect();
            let has_some = (0..50).any(|seed| {
                let sentinels = Sentinels { first: 999, count: 100 };
                let Denoised { inputs, targets } = objective.apply(&tokens, sentinels, 900, &Default::default(), seed);
                inputs.iter().chain(&targets).any(|&id| id >= 900)
            });
            assert_eq!(objective.needs_sentinels(), has_some, "{objective:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_example() {
        let tokens: Vec<u32> = (3..300).collect();
        let sentinels = Sentinels { first: 999, count: 100 };
        let none = Default::default();
        let a = Objective::T5.apply(&tokens, sentinels, 1000, &none, 11);
        assert_eq!(a, Objective::T5.apply(&tokens, sentinels, 1000, &none, 11));
        assert_ne!(a, Objective::T5.apply(&tokens, sentinels, 1000, &none, 12));
    }
}
