//! Unsupervised objectives: tokens and a seed in, an (inputs, targets) pair out. No state, no end marks.
//!
//! Every objective of the T5 paper's Table 3 is a noise mask and two functions of (tokens, mask), as in the reference
//! preprocessors; UL2's mixture of denoisers is built of the same parts. Masks are `true` where a token is noise.
//! Rounding is half to even throughout, and the noise count is computed in `f32`, because the reference does both.

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
    /// does; [`Sentinels::overflow`] tells. [`span_corruption`] never makes more spans than sentinels.
    pub count: u32,
}

impl Sentinels {
    /// The sentinel of the n-th span, counted from 0.
    pub fn id(&self, n: usize) -> u32 {
        self.first.saturating_sub(n as u32)
    }

    /// How many runs of noise have no sentinel of their own.
    pub fn overflow(&self, mask: &[bool]) -> usize {
        runs(mask).saturating_sub(self.count as usize)
    }
}

/// The number of runs of `true`.
pub fn runs(mask: &[bool]) -> usize {
    (0..mask.len()).filter(|&i| starts_run(mask, i)).count()
}

fn starts_run(mask: &[bool], i: usize) -> bool {
    mask[i] && (i == 0 || !mask[i - 1])
}

fn inverted(mask: &[bool]) -> Vec<bool> {
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

fn spans_to(tokens: &[u32], mask: &[bool], sentinel: impl Fn(usize) -> u32) -> Vec<u32> {
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

/// Independent noise: each position with probability `density`.
pub fn iid_noise_mask(len: usize, density: f64, random: &mut Random) -> Vec<bool> {
    (0..len).map(|_| random.chance(density)).collect()
}

/// Regular noise: spans of one length, uniform in `min_span..=max_span`, at one distance, with a random offset.
pub fn regular_noise_mask(
    len: usize,
    density: f64,
    min_span: usize,
    max_span: usize,
    random: &mut Random,
) -> Vec<bool> {
    let span = random.between(min_span.max(1), max_span);
    let period = ((span as f64 / density).round_ties_even() as usize).max(1);
    let offset = random.below(period);
    (0..len).map(|i| (i + offset) % period < span).collect()
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

/// The number of noise tokens and noise spans of a sequence of `len` tokens, before any clamp: (tokens, spans).
fn noise_counts(len: usize, density: f64, mean_span: f64) -> (usize, usize) {
    // The reference multiplies in single precision: 0.15 * 568 must round as it does there.
    let noise = (len as f32 * density as f32).round_ties_even() as usize;
    (noise, spans_of(noise, mean_span))
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
    let noise = noise_counts(padded, density, mean_span).0.clamp(1, padded - 1);
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
/// `extra_inputs` and `extra_targets` are the sentinels a span costs on each side. (512, 0.15, 3, 1, 1) gives (568, 114).
pub fn random_spans_helper(
    inputs_length: usize,
    density: f64,
    mean_span: f64,
    extra_inputs: usize,
    extra_targets: usize,
) -> (usize, usize) {
    let lengths = |tokens: usize| {
        let (noise, spans) = noise_counts(tokens, density, mean_span);
        let noise = noise.min(tokens);
        (tokens - noise + spans * extra_inputs + 1, noise + spans * extra_targets + 1)
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

    /// How many raw tokens an example takes so that neither inputs nor targets outgrow their lengths (end marks
    /// included).
    pub fn segment_length(&self, inputs_length: usize, targets_length: usize) -> usize {
        let inputs = inputs_length.saturating_sub(1).max(1);
        let targets = targets_length.saturating_sub(1).max(1);
        match *self {
            Objective::PrefixLm => inputs.min(targets) + 1,
            Objective::Lm => targets,
            Objective::BertStyle { .. } | Objective::Deshuffling | Objective::MassStyle { .. } => inputs.min(targets),
            Objective::IidReplaceSpans { .. } | Objective::IidDrop { .. } => inputs,
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
        let (noise, spans) = noise_counts(tokens, density, mean_span);
        targets = noise + spans + 1;
    }
    tokens
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

/// UL2's mode tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `[NLU]`: short spans, little noise.
    Nlu = 0,
    /// `[S2S]`: prefix language model.
    S2s = 1,
    /// `[NLG]`: long spans or much noise.
    Nlg = 2,
}

impl Mode {
    /// The token's text.
    pub const TEXTS: [&str; 3] = ["[NLU]", "[S2S]", "[NLG]"];
}

/// What a denoiser removes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Corruption {
    Spans {
        density: f64,
        mean_span: f64,
    },
    /// The last part of the sequence is the target.
    Tail {
        density: f64,
    },
}

/// One configuration of UL2's mixture (Tay et al., "UL2: Unifying language learning paradigms", 2022, table 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denoiser {
    pub mode: Mode,
    pub corruption: Corruption,
}

impl Denoiser {
    const fn spans(mode: Mode, mean_span: f64, density: f64) -> Denoiser {
        Denoiser { mode, corruption: Corruption::Spans { density, mean_span } }
    }

    /// R (two), S (one), X (four), mixed uniformly.
    pub const ALL: [Denoiser; 7] = [
        Denoiser::spans(Mode::Nlu, 3.0, 0.15),
        Denoiser::spans(Mode::Nlu, 8.0, 0.15),
        Denoiser { mode: Mode::S2s, corruption: Corruption::Tail { density: 0.25 } },
        Denoiser::spans(Mode::Nlg, 3.0, 0.5),
        Denoiser::spans(Mode::Nlg, 8.0, 0.5),
        Denoiser::spans(Mode::Nlg, 64.0, 0.15),
        Denoiser::spans(Mode::Nlg, 64.0, 0.5),
    ];
}

/// A random aligned chunk of a document longer than `max_length`: one of `ceil(len / max_length)`, the last one shorter.
pub fn select_random_chunk<'a>(tokens: &'a [u32], max_length: usize, random: &mut Random) -> &'a [u32] {
    if tokens.len() <= max_length || max_length == 0 {
        return tokens;
    }
    let start = random.below(tokens.len().div_ceil(max_length)) * max_length;
    &tokens[start..tokens.len().min(start + max_length)]
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
        ];
        for (inputs, density, mean, tokens, targets) in rows {
            assert_eq!(
                random_spans_helper(inputs, density, mean, 1, 1),
                (tokens, targets),
                "{inputs} {density} {mean}"
            );
        }
        assert_eq!(Objective::T5.segment_length(512, 114), 568);
        assert!(Objective::T5.segment_length(512, 60) < 568);
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
        // Independent noise walks down into ordinary ids, as in the reference; the count is there to be reported.
        let mask: Vec<bool> = (0..12).map(|i| i % 2 == 1).collect();
        let sentinels = Sentinels { first: 99, count: 4 };
        assert_eq!(sentinels.overflow(&mask), 2);
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
    fn segments_fit_their_lengths() {
        let sentinels = Sentinels { first: 999, count: 100 };
        let modes = [vec![900], vec![901], vec![902]];
        let objectives = [
            Objective::T5,
            Objective::RandomSpans { density: 0.15, mean_span: 3.0, anywhere: true },
            Objective::Ul2,
            Objective::PrefixLm,
            Objective::Lm,
            Objective::Deshuffling,
            Objective::MassStyle { density: 0.15 },
        ];
        for objective in objectives {
            for (inputs, targets) in [(512, 114), (128, 32), (64, 64), (40, 200)] {
                let tokens = vec![7; objective.segment_length(inputs, targets)];
                for seed in 0..50 {
                    let denoised = objective.apply(&tokens, sentinels, 1000, &modes, seed);
                    assert!(denoised.inputs.len() < inputs, "{objective:?} {inputs} {targets}");
                    assert!(denoised.targets.len() < targets, "{objective:?} {inputs} {targets}");
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
    fn the_same_seed_gives_the_same_example() {
        let tokens: Vec<u32> = (3..300).collect();
        let sentinels = Sentinels { first: 999, count: 100 };
        let none = Default::default();
        let a = Objective::T5.apply(&tokens, sentinels, 1000, &none, 11);
        assert_eq!(a, Objective::T5.apply(&tokens, sentinels, 1000, &none, 11));
        assert_ne!(a, Objective::T5.apply(&tokens, sentinels, 1000, &none, 12));
    }
}
