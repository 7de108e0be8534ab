//! Greedy search, and sampling of one or several independent draws.

use super::sample::{Random, Sampler};
use super::{Hypothesis, Plan, best_first};
use crate::generate::processors::{Context, SourceTokens};
use crate::kernels::Kernels;

/// One sequence, or several that share nothing but the source.
pub struct SingleSearch {
    sequences: Vec<Sequence>,
    /// Indices of sequences that have not ended; each is a row.
    live: Vec<usize>,
    /// Rows of the former step that the live sequences continue.
    parents: Vec<usize>,
    chooser: Chooser,
    step: usize,
    started: bool,
}

/// What choosing a token needs, kept between tokens.
#[derive(Default)]
struct Chooser {
    history: Vec<u32>,
    sampler: Sampler,
    /// A row as it was before processors changed it.
    unprocessed: Vec<f32>,
    source: SourceTokens,
}

struct Sequence {
    hypothesis: Hypothesis,
    random: Random,
}

impl SingleSearch {
    pub fn new(plan: &Plan, source: &[u32]) -> SingleSearch {
        let count = plan.sequences();
        let sequence = |index: usize| Sequence {
            hypothesis: Hypothesis::with_capacity(plan.reserve()),
            random: Random::new(plan.options.seed, index as u64),
        };
        SingleSearch {
            sequences: (0..count).map(sequence).collect(),
            live: (0..count).collect(),
            parents: Vec::with_capacity(count),
            chooser: Chooser {
                history: Vec::with_capacity(1 + plan.prefix.len() + plan.reserve()),
                source: plan.processors.source(source),
                ..Chooser::default()
            },
            step: 0,
            started: false,
        }
    }

    /// Rows that [`SingleSearch::advance`] expects: at first one, since all sequences begin alike.
    pub fn rows(&self) -> usize {
        if self.started { self.live.len() } else { 1 }
    }

    pub fn is_done(&self) -> bool {
        self.live.is_empty()
    }

    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.live.iter().filter_map(|&index| self.sequences[index].hypothesis.ids.last().copied())
    }

    pub fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// Takes logits `[rows, vocab_size]` and goes on by one token.
    pub fn advance(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) {
        if plan.needs_only_best() {
            return self.advance_best(kernels, plan, logits);
        }
        let rows = self.rows();
        let vocab = logits.len() / rows;
        self.step += 1;
        let mut kept = 0;
        self.parents.clear();
        for place in 0..self.live.len() {
            let index = self.live[place];
            let sequence = &mut self.sequences[index];
            let row = if self.started { place } else { 0 };
            let logits = &mut logits[row * vocab..(row + 1) * vocab];
            let chosen = self.chooser.choose(kernels, plan, &sequence.hypothesis.ids, logits, &mut sequence.random);
            // Where the rules leave no token, what is there is the result.
            let Some((token, logprob)) = chosen else { continue };
            sequence.hypothesis.ids.push(token);
            sequence.hypothesis.logprobs.push(logprob);
            if plan.options.top_logprobs > 0 {
                sequence.hypothesis.alternatives.push(likeliest(kernels, logits, plan.options.top_logprobs));
            }
            sequence.hypothesis.score += logprob;
            if !plan.ends(token) && self.step < plan.max_new {
                self.live[kept] = index;
                self.parents.push(row);
                kept += 1;
            }
        }
        self.live.truncate(kept);
        self.started = true;
    }

    /// Goes on by a token that was found without logits; see [`Plan::needs_only_best`].
    pub fn advance_by(&mut self, plan: &Plan, token: u32) {
        self.step += 1;
        self.started = true;
        self.parents.clear();
        let hypothesis = &mut self.sequences[0].hypothesis;
        hypothesis.ids.push(token);
        hypothesis.score = f32::NAN;
        if plan.ends(token) || self.step >= plan.max_new {
            self.live.clear();
        }
    }

    /// As [`SingleSearch::advance_by`], by the likeliest token of a row of logits.
    fn advance_best(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) {
        self.except(plan).iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
        // All NaN only if the weights are: any token is as wrong as another.
        self.advance_by(plan, kernels.argmax(logits).unwrap_or(0) as u32);
    }

    /// Tokens that may not come next: the end, before as many tokens as were asked for.
    pub fn except<'a>(&self, plan: &'a Plan) -> &'a [u32] {
        if self.step < plan.options.min_new_tokens { &plan.eos } else { &[] }
    }

    /// Ends everything, the first sequence behind so many tokens: the last of them completed a stop string.
    pub fn stop_after(&mut self, tokens: usize) {
        self.live.clear();
        let hypothesis = &mut self.sequences[0].hypothesis;
        if tokens < hypothesis.ids.len() {
            hypothesis.ids.truncate(tokens);
            hypothesis.logprobs.truncate(tokens);
            hypothesis.alternatives.truncate(tokens);
            // Where there are no log-probabilities it is NaN.
            if !hypothesis.score.is_nan() {
                hypothesis.score = hypothesis.logprobs.iter().fold(0.0, |sum, logprob| sum + logprob);
            }
        }
    }

    /// The sequence of the first draw, as far as it has come.
    pub fn first(&self) -> &Hypothesis {
        &self.sequences[0].hypothesis
    }

    /// All sequences, most likely first.
    pub fn results(&self) -> Vec<&Hypothesis> {
        best_first(self.sequences.iter().map(|sequence| &sequence.hypothesis).collect())
    }
}

/// The `count` likeliest tokens of a row of logits with their log-probabilities, the likeliest first; of equal ones the
/// first.
fn likeliest(kernels: Kernels, logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let log_sum = kernels.log_sum_exp(logits);
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, &logit) in (0..).zip(logits) {
        if best.len() < count || best.last().is_some_and(|&(_, last)| logit > last) {
            best.insert(best.partition_point(|&(_, other)| other >= logit), (id, logit));
            best.truncate(count);
        }
    }
    best.iter_mut().for_each(|(_, logit)| *logit -= log_sum);
    best
}

impl Chooser {
    /// Chooses or draws a token; its log-probability is the model's own, before any processor. `None` where the rules
    /// leave none: the transformers library takes token 0 there, greedily, and fails where it draws.
    fn choose(
        &mut self,
        kernels: Kernels,
        plan: &Plan,
        ids: &[u32],
        logits: &mut [f32],
        random: &mut Random,
    ) -> Option<(u32, f32)> {
        let log_sum = kernels.log_sum_exp(logits);
        let processes = !plan.processors.is_empty();
        if processes {
            self.history.clear();
            self.history.push(plan.start);
            self.history.extend(&plan.prefix);
            self.history.extend(ids);
            // The first draws of several sequences share a row, so it must be given back as it was.
            self.unprocessed.clear();
            self.unprocessed.extend_from_slice(logits);
            let context = Context { source: &self.source, history: &self.history, new: ids.len(), chosen: &[] };
            plan.processors.apply(kernels, &context, logits);
        }
        let blocked = processes && logits.iter().all(|&logit| logit == f32::NEG_INFINITY);
        let token = if plan.options.samples() {
            self.sampler.draw(kernels, &plan.options, logits, random)
        } else {
            // All NaN only if the weights are: any token is as wrong as another.
            kernels.argmax(logits).unwrap_or(0) as u32
        };
        if processes {
            logits.copy_from_slice(&self.unprocessed);
        }
        (!blocked).then(|| (token, logits[token as usize] - log_sum))
    }
}
