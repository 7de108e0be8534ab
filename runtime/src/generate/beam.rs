//! Beam search over one document, as T5 used it (Mesh and T5X; docs/t5.md 7.2) and as the transformers library
//! computes it (7.3). They differ in the length penalty, in which candidates may finish, and in when to stop.

use super::options::{EarlyStopping, LengthPenalty, Plan};
use super::processors;
use crate::kernels::Kernels;

/// A sequence with its log-probabilities; the start token and a forced prefix are not part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hypothesis {
    pub ids: Vec<u32>,
    /// The model's own log-probability of each token.
    pub logprobs: Vec<f32>,
    /// Sum of processed log-probabilities; for a finished hypothesis divided by the length penalty.
    pub score: f32,
}

impl Hypothesis {
    fn with_capacity(tokens: usize) -> Hypothesis {
        Hypothesis { ids: Vec::with_capacity(tokens), logprobs: Vec::with_capacity(tokens), score: 0.0 }
    }

    fn copy_from(&mut self, other: &Hypothesis) {
        self.ids.clone_from(&other.ids);
        self.logprobs.clone_from(&other.logprobs);
        self.score = other.score;
    }

    fn push(&mut self, candidate: &Candidate) {
        self.ids.push(candidate.token);
        self.logprobs.push(candidate.logprob);
        self.score = candidate.score;
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    parent: usize,
    token: u32,
    logprob: f32,
}

/// Beam search of one document.
pub(crate) struct BeamSearch {
    beams: usize,
    /// Live beams, best first; the first `live_len` are in use.
    live: Vec<Hypothesis>,
    next: Vec<Hypothesis>,
    live_len: usize,
    /// Best first; the first `finished_len` are in use.
    finished: Vec<Hypothesis>,
    finished_len: usize,
    candidates: Vec<Candidate>,
    parents: Vec<usize>,
    history: Vec<u32>,
    /// New tokens so far.
    step: usize,
    done: bool,
}

impl BeamSearch {
    pub fn new(plan: &Plan) -> BeamSearch {
        let beams = plan.options.beams;
        let pool = |count| (0..count).map(|_| Hypothesis::with_capacity(plan.reserve())).collect::<Vec<_>>();
        let keep = beams * (1 + plan.eos.len()).max(2);
        BeamSearch {
            beams,
            live: pool(beams),
            next: pool(beams),
            live_len: 1,
            finished: pool(beams + 1),
            finished_len: 0,
            candidates: Vec::with_capacity(keep + 1),
            parents: Vec::with_capacity(beams),
            history: Vec::with_capacity(1 + plan.prefix.len() + plan.reserve()),
            step: 0,
            done: false,
        }
    }

    /// Live beams: the rows that [`BeamSearch::advance`] expects.
    pub fn rows(&self) -> usize {
        self.live_len
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Last token of each live beam.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.live[..self.live_len].iter().filter_map(|beam| beam.ids.last().copied())
    }

    /// Which of the former beams each live one continues.
    pub fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// Takes the logits of every live beam, `[rows, vocab_size]`, and goes on by one token.
    pub fn advance(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) {
        let vocab = logits.len() / self.live_len;
        self.collect(kernels, plan, logits);
        self.step += 1;
        let last = self.step == plan.max_new;
        let hugging_face = matches!(plan.options.length_penalty, LengthPenalty::HuggingFace { .. });
        debug_assert!(self.candidates.len() <= vocab * self.live_len);

        // Candidates that end a sequence. The transformers library lets only those finish that rank among the
        // first `beams`, and at the length limit everything finishes; T5 lets all of the 2 * beams finish.
        for index in 0..self.candidates.len() {
            let candidate = self.candidates[index];
            let ends = plan.ends(candidate.token) || (hugging_face && last);
            if ends && (!hugging_face || index < self.beams) {
                self.finish(plan, &candidate);
            }
        }

        // Live beams go on.
        self.parents.clear();
        for index in 0..self.candidates.len() {
            let candidate = self.candidates[index];
            if self.parents.len() == self.beams {
                break;
            }
            if plan.ends(candidate.token) {
                continue;
            }
            let next = &mut self.next[self.parents.len()];
            next.copy_from(&self.live[candidate.parent]);
            next.push(&candidate);
            self.parents.push(candidate.parent);
        }
        std::mem::swap(&mut self.live, &mut self.next);
        self.live_len = self.parents.len();
        self.done = last || self.live_len == 0 || self.cannot_improve(plan);
    }

    /// The best candidates over all beams: twice as many as beams (more with several end tokens), so that enough
    /// stay alive if the best all end. Equal scores: the better beam, then the lower id.
    fn collect(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) {
        let keep = self.beams * (1 + plan.eos.len()).max(2);
        let vocab = logits.len() / self.live_len;
        self.candidates.clear();
        for (parent, row) in logits.chunks_exact_mut(vocab).enumerate() {
            let log_sum = kernels.log_sum_exp(row);
            let base = self.live[parent].score;
            if plan.has_processors() {
                // Processors see log-probabilities, as in the transformers library. The model's own
                // log-probability is recorded where a processor has not changed it beyond recognition.
                row.iter_mut().for_each(|value| *value -= log_sum);
                self.history.clear();
                self.history.push(plan.start);
                self.history.extend(&plan.prefix);
                self.history.extend(&self.live[parent].ids);
                processors::process(plan, &self.history, self.step, row);
                push_best(&mut self.candidates, keep, parent, base, 0.0, row);
            } else {
                push_best(&mut self.candidates, keep, parent, base, log_sum, row);
            }
        }
    }

    fn finish(&mut self, plan: &Plan, candidate: &Candidate) {
        let score = candidate.score / plan.options.length_penalty.divisor(self.step);
        let place = self.finished[..self.finished_len].iter().position(|other| score > other.score);
        let place = place.unwrap_or(self.finished_len);
        if place >= self.beams {
            return;
        }
        // The pool has one hypothesis more than beams: the spare one, or the one that drops out, is re-used.
        self.finished_len = (self.finished_len + 1).min(self.beams);
        self.finished[place..].rotate_right(1);
        let hypothesis = &mut self.finished[place];
        hypothesis.copy_from(&self.live[candidate.parent]);
        hypothesis.push(candidate);
        hypothesis.score = score;
    }

    /// Whether no live beam can enter the finished ones any more.
    fn cannot_improve(&self, plan: &Plan) -> bool {
        if self.finished_len < self.beams {
            return false;
        }
        let worst = self.finished[self.finished_len - 1].score;
        let best = self.live[0].score;
        let penalty = plan.options.length_penalty;
        match penalty {
            LengthPenalty::T5 { .. } => worst > best / penalty.divisor(plan.max_new),
            LengthPenalty::HuggingFace { exponent } => match plan.options.early_stopping {
                EarlyStopping::Yes => true,
                EarlyStopping::Never if exponent > 0.0 => best / penalty.divisor(plan.max_new) <= worst,
                EarlyStopping::No | EarlyStopping::Never => best / penalty.divisor(self.step) <= worst,
            },
        }
    }

    /// The results, best first: finished hypotheses, or the live ones if none has finished.
    pub fn results(&self) -> &[Hypothesis] {
        if self.finished_len > 0 { &self.finished[..self.finished_len] } else { &self.live[..self.live_len] }
    }
}

/// Adds the best tokens of a row to `candidates`, which stays sorted, best first, and at most `keep` long.
fn push_best(candidates: &mut Vec<Candidate>, keep: usize, parent: usize, base: f32, log_sum: f32, row: &[f32]) {
    const CHUNK: usize = 64;
    for (chunk_index, chunk) in row.chunks(CHUNK).enumerate() {
        if candidates.len() == keep {
            // Most chunks hold nothing that can still enter; one comparison of their maximum shows it.
            let max = chunk.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if max - log_sum + base <= candidates[keep - 1].score {
                continue;
            }
        }
        for (i, &value) in chunk.iter().enumerate() {
            let logprob = value - log_sum;
            let score = logprob + base;
            if score == f32::NEG_INFINITY || score.is_nan() {
                continue;
            }
            if candidates.len() == keep {
                if score <= candidates[keep - 1].score {
                    continue;
                }
                candidates.pop();
            }
            let place = candidates.partition_point(|other| other.score >= score);
            let token = (chunk_index * CHUNK + i) as u32;
            candidates.insert(place, Candidate { score, parent, token, logprob });
        }
    }
}
