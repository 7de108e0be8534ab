//! Beam search over one document, as T5 used it (Mesh and T5X; docs/t5.md 7.2) and as the transformers library
//! computes it (7.3). They differ in the length penalty, in which candidates may finish, and in when to stop.
//!
//! Beams may be divided into groups that search side by side, each held off from what those before it choose in the
//! same step (diverse beam search). With the library's penalty a group follows its older beam search, which it kept for
//! groups: at the limit of length all live beams finish, not the best candidates.

use super::{Hypothesis, Plan, best_first};
use crate::generate::options::{EarlyStopping, LengthPenalty};
use crate::generate::processors::{Context, SourceTokens};
use crate::kernels::Kernels;

impl Hypothesis {
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
pub struct BeamSearch {
    groups: Vec<Group>,
    /// For each row of the next step, the row of this one that it continues.
    parents: Vec<usize>,
    /// Tokens that the groups so far have chosen in this step.
    chosen: Vec<u32>,
    /// The one row of the first step, for every group.
    first_row: Vec<f32>,
    scratch: Collecting,
    started: bool,
}

/// What collecting candidates needs, whichever group does it.
struct Collecting {
    candidates: Vec<Candidate>,
    history: Vec<u32>,
    source: SourceTokens,
}

/// Beams that compete with each other.
struct Group {
    beams: usize,
    /// Whether there are others.
    one_of_several: bool,
    /// Live beams, best first; the first `live_len` are in use.
    live: Vec<Hypothesis>,
    next: Vec<Hypothesis>,
    live_len: usize,
    /// Best first; the first `finished_len` are in use.
    finished: Vec<Hypothesis>,
    finished_len: usize,
    /// For each live beam, the beam of the step before that it continues.
    parents: Vec<usize>,
    /// New tokens so far.
    step: usize,
    done: bool,
}

impl BeamSearch {
    pub fn new(plan: &Plan, source: &[u32]) -> BeamSearch {
        let (beams, count) = (plan.options.beams, plan.options.beam_groups);
        BeamSearch {
            groups: (0..count).map(|_| Group::new(plan, beams / count, count > 1)).collect(),
            parents: Vec::with_capacity(beams),
            chosen: Vec::with_capacity(beams),
            first_row: Vec::new(),
            scratch: Collecting {
                candidates: Vec::with_capacity(candidates(plan, beams / count) + 1),
                history: Vec::with_capacity(1 + plan.prefix.len() + plan.reserve()),
                source: plan.processors.source(source),
            },
            started: false,
        }
    }

    /// Live beams: the rows that [`BeamSearch::advance`] expects. At first all groups begin with the same.
    pub fn rows(&self) -> usize {
        if self.started { self.live().map(|group| group.live_len).sum() } else { 1 }
    }

    pub fn is_done(&self) -> bool {
        self.live().next().is_none()
    }

    fn live(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.done)
    }

    /// Last token of each live beam.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.live().flat_map(Group::tokens)
    }

    /// Which of the former rows each live beam continues.
    pub fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// Takes the logits of every live beam, `[rows, vocab_size]`, and goes on by one token.
    pub fn advance(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) {
        let vocab = logits.len() / self.rows();
        self.parents.clear();
        self.chosen.clear();
        let shared = !self.started && self.groups.len() > 1;
        if shared {
            self.first_row.extend_from_slice(logits);
        }
        let mut row = 0;
        for group in &mut self.groups {
            if group.done {
                // The library goes on with padding there, from which later groups are held off.
                self.chosen.extend(std::iter::repeat_n(plan.pad, group.beams));
                continue;
            }
            if shared {
                // Choosing changes it.
                logits.copy_from_slice(&self.first_row);
            }
            let rows = group.live_len;
            group.advance(
                kernels,
                plan,
                &mut logits[row * vocab..(row + rows) * vocab],
                &self.chosen,
                &mut self.scratch,
            );
            self.chosen.extend(group.tokens());
            if !group.done {
                self.parents.extend(group.parents.iter().map(|parent| row + parent));
            }
            if !shared {
                row += rows;
            }
        }
        self.started = true;
    }

    /// The results, best first: finished hypotheses, or the live ones if none has finished.
    pub fn results(&self) -> Vec<&Hypothesis> {
        let mut results: Vec<&Hypothesis> =
            self.groups.iter().flat_map(|group| &group.finished[..group.finished_len]).collect();
        if results.is_empty() {
            results.extend(self.groups.iter().flat_map(|group| &group.live[..group.live_len]));
        }
        best_first(results)
    }
}

/// How many candidates `beams` beams need: twice as many (more with several end tokens), so that enough stay alive if
/// the best all end.
fn candidates(plan: &Plan, beams: usize) -> usize {
    beams * (1 + plan.eos.len()).max(2)
}

impl Group {
    fn new(plan: &Plan, beams: usize, one_of_several: bool) -> Group {
        let pool = |count| (0..count).map(|_| Hypothesis::with_capacity(plan.reserve())).collect::<Vec<_>>();
        Group {
            beams,
            one_of_several,
            live: pool(beams),
            next: pool(beams),
            live_len: 1,
            finished: pool(beams + 1),
            finished_len: 0,
            parents: Vec::with_capacity(beams),
            step: 0,
            done: false,
        }
    }

    fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.live[..self.live_len].iter().filter_map(|beam| beam.ids.last().copied())
    }

    /// Takes the logits of its live beams and goes on by one token.
    fn advance(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32], chosen: &[u32], scratch: &mut Collecting) {
        self.collect(kernels, plan, logits, chosen, scratch);
        let candidates = &scratch.candidates;
        if candidates.is_empty() {
            // The rules leave no token: what is there is the result.
            self.parents.clear();
            self.done = true;
            return;
        }
        self.step += 1;
        let last = self.step == plan.max_new;
        let hugging_face = matches!(plan.options.length_penalty, LengthPenalty::HuggingFace { .. });
        let all_finish = hugging_face && last && !self.one_of_several;

        // Candidates that end a sequence. The transformers library lets only those finish that rank among the
        // first `beams`, and at the length limit everything finishes; T5 lets all of the 2 * beams finish.
        for (rank, candidate) in candidates.iter().enumerate() {
            let ends = plan.ends(candidate.token) || all_finish;
            if ends && (!hugging_face || rank < self.beams) {
                self.finish(plan, candidate);
            }
        }

        // Live beams go on.
        self.parents.clear();
        for candidate in candidates {
            if self.parents.len() == self.beams {
                break;
            }
            if plan.ends(candidate.token) {
                continue;
            }
            let next = &mut self.next[self.parents.len()];
            next.copy_from(&self.live[candidate.parent]);
            next.push(candidate);
            self.parents.push(candidate.parent);
        }
        std::mem::swap(&mut self.live, &mut self.next);
        self.live_len = self.parents.len();
        let best = match (hugging_face && self.one_of_several, candidates.first()) {
            (true, Some(candidate)) => candidate.score,
            _ => self.live[0].score,
        };
        let ended = self.live_len == 0 || self.cannot_improve(plan, best);
        if last && !ended && hugging_face && self.one_of_several {
            self.finish_live(plan);
        }
        self.done = last || ended;
    }

    /// The best candidates over all beams, into `scratch`. Equal scores: the better beam, then the lower id.
    fn collect(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32], chosen: &[u32], scratch: &mut Collecting) {
        let keep = candidates(plan, self.beams);
        let vocab = logits.len() / self.live_len;
        let Collecting { candidates, history, source } = scratch;
        candidates.clear();
        for (parent, row) in logits.chunks_exact_mut(vocab).enumerate() {
            let log_sum = kernels.log_sum_exp(row);
            let base = self.live[parent].score;
            if plan.processors.is_empty() {
                push_best(candidates, keep, parent, base, log_sum, row);
                continue;
            }
            // Processors see log-probabilities, as in the transformers library.
            row.iter_mut().for_each(|value| *value -= log_sum);
            history.clear();
            history.push(plan.start);
            history.extend(&plan.prefix);
            history.extend(&self.live[parent].ids);
            plan.processors.apply(kernels, &Context { source, history, new: self.step, chosen }, row);
            push_best(candidates, keep, parent, base, 0.0, row);
        }
    }

    /// A place among the finished hypotheses for one with this score; `None` where it is not good enough.
    fn place(&mut self, score: f32) -> Option<usize> {
        let place = self.finished[..self.finished_len].iter().position(|other| score > other.score);
        let place = place.unwrap_or(self.finished_len);
        if place >= self.beams {
            return None;
        }
        // The pool has one hypothesis more than beams: the spare one, or the one that drops out, is re-used.
        self.finished_len = (self.finished_len + 1).min(self.beams);
        self.finished[place..].rotate_right(1);
        Some(place)
    }

    fn finish(&mut self, plan: &Plan, candidate: &Candidate) {
        let score = candidate.score / plan.options.length_penalty.divisor(self.step);
        if let Some(place) = self.place(score) {
            let hypothesis = &mut self.finished[place];
            hypothesis.copy_from(&self.live[candidate.parent]);
            hypothesis.push(candidate);
            hypothesis.score = score;
        }
    }

    fn finish_live(&mut self, plan: &Plan) {
        for index in 0..self.live_len {
            let score = self.live[index].score / plan.options.length_penalty.divisor(self.step);
            if let Some(place) = self.place(score) {
                let hypothesis = &mut self.finished[place];
                hypothesis.copy_from(&self.live[index]);
                hypothesis.score = score;
            }
        }
    }

    /// Whether no live beam can enter the finished ones any more. `best` is the score of the best one.
    fn cannot_improve(&self, plan: &Plan, best: f32) -> bool {
        if self.finished_len < self.beams {
            return false;
        }
        let worst = self.finished[self.finished_len - 1].score;
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
