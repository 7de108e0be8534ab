//! What changes a row of logits (greedy, sampling) or of log-probabilities (beams) before a token is chosen. The rules
//! and their order are those of the transformers library.

use std::collections::HashMap;

use super::custom::LogitsProcessor;
use super::options::GenerateOptions;
use crate::error::{Error, Result};
use crate::kernels::Kernels;

/// One rule.
#[derive(Clone, Debug)]
pub(crate) enum Processor {
    /// `sequence_bias` and `bad_words`: sequences, and what their last token gets where the others stand before it.
    Bias(Vec<(Vec<u32>, f32)>),
    /// What a token loses for each beam of the groups before that chose it.
    Diversity(f32),
    EncoderRepetition(f32),
    Repetition(f32),
    NoRepeat(usize),
    EncoderNoRepeat(usize),
    /// No end before so many new tokens.
    HoldBackEnd(usize),
    /// For each token whether it is left out.
    Only(Vec<bool>),
    /// The token behind a lone start token.
    First(u32),
    /// The tokens of which one is the last, at this many new tokens.
    Last(usize, Vec<u32>),
    RemoveInvalid,
    /// From this many new tokens on, the end becomes likelier by a factor with each.
    Decay(usize, f32),
    Suppress(Vec<u32>),
    /// At this many new tokens these are left out.
    SuppressAt(usize, Vec<u32>),
    /// Not one of the library's.
    Custom(LogitsProcessor),
    Renormalize,
}

/// The rules of a request, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    rules: Vec<Processor>,
    eos: Vec<u32>,
}

/// What the rules need to know of a sequence.
pub(crate) struct Context<'a> {
    pub source: &'a SourceTokens,
    /// The decoder's input so far: the start token, the forced prefix, and `new` generated tokens.
    pub history: &'a [u32],
    pub new: usize,
    /// Tokens that the groups of beams before have chosen in this step.
    pub chosen: &'a [u32],
}

/// A source as the rules see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceTokens {
    ids: Vec<u32>,
    distinct: Vec<u32>,
}

impl Processors {
    /// The rules that `options` ask for. `eos` are all end tokens; `alone` is whether the start token has nothing
    /// behind it.
    pub fn new(options: &GenerateOptions, eos: &[u32], alone: bool, vocab_size: usize) -> Result<Processors> {
        let mut rules = Vec::new();
        let mut add = |wanted: bool, rule: Processor| {
            if wanted {
                rules.push(rule);
            }
        };
        // Of a sequence that is given twice the last bias counts, as in a Python dictionary.
        let mut bias: Vec<(Vec<u32>, f32)> = Vec::new();
        let mut places: HashMap<&[u32], usize> = HashMap::new();
        for (ids, value) in &options.sequence_bias {
            let place = *places.entry(ids.as_slice()).or_insert(bias.len());
            match bias.get_mut(place) {
                Some((_, known)) => *known = *value,
                None => bias.push((ids.clone(), *value)),
            }
        }
        add(!bias.is_empty(), Processor::Bias(bias));
        add(options.diversity_penalty > 0.0, Processor::Diversity(options.diversity_penalty));
        let penalty = options.encoder_repetition_penalty;
        add(penalty != 1.0, Processor::EncoderRepetition(penalty));
        add(options.repetition_penalty != 1.0, Processor::Repetition(options.repetition_penalty));
        add(options.no_repeat_ngram > 0, Processor::NoRepeat(options.no_repeat_ngram));
        add(options.encoder_no_repeat_ngram > 0, Processor::EncoderNoRepeat(options.encoder_no_repeat_ngram));
        let is_end = |ids: &[u32]| matches!(ids, [id] if eos.contains(id));
        let bad = options.bad_words.iter().filter(|ids| !is_end(ids)).map(|ids| (ids.clone(), f32::NEG_INFINITY));
        let bad: Vec<_> = bad.collect();
        add(!bad.is_empty(), Processor::Bias(bad));
        add(options.min_new_tokens > 0, Processor::HoldBackEnd(options.min_new_tokens));
        let mut left_out = vec![options.allowed.is_some(); vocab_size];
        if let Some(allowed) = &options.allowed {
            allowed.iter().chain(eos).for_each(|&id| left_out[id as usize] = false);
            add(true, Processor::Only(left_out.clone()));
        }
        if let Some(id) = options.forced_bos.filter(|_| alone) {
            add(true, Processor::First(id));
        }
        let last = options.max_new_tokens - 1;
        add(!options.forced_eos.is_empty(), Processor::Last(last, options.forced_eos.clone()));
        add(options.remove_invalid, Processor::RemoveInvalid);
        if let Some((start, factor)) = options.exponential_decay {
            add(true, Processor::Decay(start, factor));
        }
        options.suppress.iter().for_each(|&id| left_out[id as usize] = true);
        if left_out.iter().all(|&left_out| left_out) {
            return Err(Error::Option { option: "suppress", what: "no token is left to generate".to_owned() });
        }
        let is_suppressed = |id: &u32| options.suppress.contains(id);
        if let Some(id) = options.forced_bos.filter(|id| alone && is_suppressed(id)) {
            let what = format!("expected a token that is not suppressed, found {id}");
            return Err(Error::Option { option: "forced_bos", what });
        }
        if !options.forced_eos.is_empty() && options.forced_eos.iter().all(is_suppressed) {
            let what = format!("expected a token that is not suppressed, found {:?}", options.forced_eos);
            return Err(Error::Option { option: "forced_eos", what });
        }
        add(!options.suppress.is_empty(), Processor::Suppress(options.suppress.clone()));
        let first = usize::from(options.forced_bos.is_some() && alone);
        add(!options.begin_suppress.is_empty(), Processor::SuppressAt(first, options.begin_suppress.clone()));
        // Which token is chosen or how often it is drawn does not depend on it elsewhere.
        add(options.renormalize && options.beams > 1, Processor::Renormalize);
        Ok(Processors { rules, eos: eos.to_vec() })
    }

    /// Adds rules that are not the library's, behind all of its own but the last normalisation, as there.
    pub fn add_custom(&mut self, custom: Vec<LogitsProcessor>) {
        let last = matches!(self.rules.last(), Some(Processor::Renormalize));
        let at = self.rules.len() - usize::from(last);
        self.rules.splice(at..at, custom.into_iter().map(Processor::Custom));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Processor> {
        self.rules.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules need of a source; nothing where none of them looks at it.
    pub fn source(&self, ids: &[u32]) -> SourceTokens {
        let looks = |rule: &Processor| matches!(rule, Processor::EncoderRepetition(_) | Processor::EncoderNoRepeat(_));
        if !self.rules.iter().any(looks) {
            return SourceTokens::default();
        }
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        SourceTokens { ids: ids.to_vec(), distinct }
    }

    /// Applies all rules to `row` `[vocab_size]`.
    pub fn apply(&self, kernels: Kernels, context: &Context, row: &mut [f32]) {
        let Context { source, history, new, chosen } = *context;
        let leave_out = |ids: &[u32], row: &mut [f32]| {
            ids.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
        };
        let force = |ids: &[u32], row: &mut [f32]| {
            row.fill(f32::NEG_INFINITY);
            ids.iter().for_each(|&id| row[id as usize] = 0.0);
        };
        for rule in &self.rules {
            match rule {
                Processor::Bias(bias) => add_bias(bias, history, row),
                Processor::Diversity(penalty) => chosen.iter().for_each(|&id| row[id as usize] -= penalty),
                Processor::EncoderRepetition(penalty) => {
                    source.distinct.iter().for_each(|&id| penalise(1.0 / penalty, &mut row[id as usize]));
                }
                Processor::Repetition(penalty) => repetition_penalty(*penalty, history, row),
                Processor::NoRepeat(n) => forbid_ngrams(*n, history, history, row),
                Processor::EncoderNoRepeat(n) => forbid_ngrams(*n, &source.ids, history, row),
                Processor::HoldBackEnd(least) if new < *least => leave_out(&self.eos, row),
                Processor::Only(left_out) => {
                    for (value, _) in row.iter_mut().zip(left_out).filter(|(_, left_out)| **left_out) {
                        *value = f32::NEG_INFINITY;
                    }
                }
                Processor::First(id) if history.len() == 1 => force(&[*id], row),
                Processor::Last(at, ids) if new == *at => force(ids, row),
                Processor::RemoveInvalid => row.iter_mut().for_each(remove_invalid),
                Processor::Decay(start, factor) if new > *start => {
                    let growth = (f64::from(*factor).powi((new - start) as i32) - 1.0) as f32;
                    self.eos.iter().for_each(|&id| grow(growth, &mut row[id as usize]));
                }
                Processor::Suppress(ids) => leave_out(ids, row),
                Processor::SuppressAt(at, ids) if new == *at => leave_out(ids, row),
                Processor::Custom(rule) => rule.apply(history, row),
                Processor::Renormalize => {
                    let log_sum = kernels.log_sum_exp(row);
                    row.iter_mut().for_each(|value| *value -= log_sum);
                }
                Processor::HoldBackEnd(_)
                | Processor::First(_)
                | Processor::Last(..)
                | Processor::Decay(..)
                | Processor::SuppressAt(..) => {}
            }
        }
    }
}

/// Divides a positive value by `penalty` and multiplies a negative one.
fn penalise(penalty: f32, value: &mut f32) {
    *value = if *value < 0.0 { *value * penalty } else { *value / penalty };
}

/// Penalises each token seen, once.
fn repetition_penalty(penalty: f32, history: &[u32], row: &mut [f32]) {
    for (i, &id) in history.iter().enumerate() {
        if !history[..i].contains(&id) {
            penalise(penalty, &mut row[id as usize]);
        }
    }
}

/// Forbids every token that would complete an n-gram of `text`.
fn forbid_ngrams(n: usize, text: &[u32], history: &[u32], row: &mut [f32]) {
    if history.len() + 1 < n {
        return;
    }
    let tail = &history[history.len() + 1 - n..];
    for ngram in text.windows(n) {
        if ngram[..n - 1] == *tail {
            row[ngram[n - 1] as usize] = f32::NEG_INFINITY;
        }
    }
}

fn add_bias(bias: &[(Vec<u32>, f32)], history: &[u32], row: &mut [f32]) {
    for (ids, value) in bias {
        let Some((&last, before)) = ids.split_last() else { continue };
        // The library passes over sequences longer than what there is, though one token more would fit.
        if before.is_empty() || (ids.len() <= history.len() && history.ends_with(before)) {
            row[last as usize] += value;
        }
    }
}

fn remove_invalid(value: &mut f32) {
    *value = if value.is_nan() { 0.0 } else { value.clamp(f32::MIN, f32::MAX) };
}

/// An end that is held back stays so.
fn grow(growth: f32, value: &mut f32) {
    if *value > f32::NEG_INFINITY {
        *value = (*value + value.abs() * growth).min(f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f32 = f32::NEG_INFINITY;

    #[test]
    fn repetition_penalty_counts_each_token_once() {
        let mut row = [2.0, -2.0, 1.0];
        repetition_penalty(2.0, &[0, 1, 0, 1], &mut row);
        assert_eq!(row, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn ngrams_seen_are_forbidden() {
        let mut row = [0.0; 5];
        forbid_ngrams(2, &[0, 1, 2, 1], &[0, 1, 2, 1], &mut row);
        assert_eq!(row, [0.0, 0.0, NEVER, 0.0, 0.0]);
        let mut row = [0.0; 5];
        forbid_ngrams(1, &[3], &[0], &mut row);
        assert_eq!(row[3], NEVER);
        let mut row = [0.0; 5];
        forbid_ngrams(3, &[3, 1], &[3, 1], &mut row);
        assert_eq!(row, [0.0; 5]);
        forbid_ngrams(3, &[3, 1, 4], &[3, 1], &mut row);
        assert_eq!(row[4], NEVER);
    }

    /// In the place of the first.
    #[test]
    fn the_last_bias_of_a_sequence_counts() {
        let bias: Vec<(Vec<u32>, f32)> = vec![(vec![3], 1.0), (vec![2, 3], 2.0), (vec![3], 4.0), (vec![2], 8.0)];
        let options = GenerateOptions::default().sequence_bias(bias);
        let processors = Processors::new(&options, &[1], true, 5).unwrap();
        let Some(Processor::Bias(found)) = processors.iter().next() else { panic!("{processors:?}") };
        assert_eq!(*found, [(vec![3], 4.0), (vec![2, 3], 2.0), (vec![2], 8.0)]);
    }

    #[test]
    fn biases_need_the_tokens_before_the_last() {
        let bias = [(vec![1], 0.5), (vec![2, 3], 1.0), (vec![4, 3], 2.0), (vec![0, 2, 4], -1.0)];
        let mut row = [0.0; 5];
        add_bias(&bias, &[0, 2], &mut row);
        // Three tokens are more than the two that there are.
        assert_eq!(row, [0.0, 0.5, 0.0, 1.0, 0.0]);
        add_bias(&bias, &[7, 0, 2], &mut row);
        assert_eq!(row, [0.0, 1.0, 0.0, 2.0, -1.0]);
    }

    #[test]
    fn an_end_that_is_held_back_does_not_grow() {
        let far = 2f32.powi(100);
        let mut values = [NEVER, -2.0, 1.0, far];
        values.iter_mut().for_each(|value| grow(0.5, value));
        assert_eq!(values, [NEVER, -1.0, 1.5, 1.5 * far]);
        grow(f32::INFINITY, &mut values[2]);
        assert_eq!(values[2], f32::MAX);
    }

    #[test]
    fn what_is_no_number_is_removed() {
        let mut values = [f32::NAN, f32::INFINITY, NEVER, -1.5];
        values.iter_mut().for_each(remove_invalid);
        assert_eq!(values, [0.0, f32::MAX, f32::MIN, -1.5]);
    }
}
