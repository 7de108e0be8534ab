//! How tokens are chosen for one document: greedily, by beams, or by drawing.

mod beam;
mod sample;
mod single;

pub(super) use beam::BeamSearch;
pub(super) use single::SingleSearch;

use super::plan::Plan;
use crate::kernels::Kernels;
use crate::order::sorted_by;

/// A sequence with its log-probabilities; the start token and a forced prefix are not part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Hypothesis {
    pub ids: Vec<u32>,
    /// The log-probability of each token: the model's own, or under beam search as processors left it.
    pub logprobs: Vec<f32>,
    /// Where they are wanted, the likeliest tokens in the place of each.
    pub alternatives: Vec<Vec<(u32, f32)>>,
    /// Sum of `logprobs`; for a finished hypothesis of beam search divided by the length penalty.
    pub score: f32,
}

impl Hypothesis {
    fn with_capacity(tokens: usize) -> Hypothesis {
        let (ids, logprobs) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        Hypothesis { ids, logprobs, alternatives: Vec::new(), score: 0.0 }
    }
}

/// Puts the best first; of equal ones, the first.
fn best_first(results: Vec<&Hypothesis>) -> Vec<&Hypothesis> {
    sorted_by(results, |a, b| b.score.total_cmp(&a.score))
}

pub(super) enum Search {
    Single(SingleSearch),
    Beam(BeamSearch),
}

impl Search {
    pub fn new(plan: &Plan, source: &[u32]) -> Search {
        if plan.options.beams > 1 {
            Search::Beam(BeamSearch::new(plan, source))
        } else {
            Search::Single(SingleSearch::new(plan, source))
        }
    }

    /// Rows of logits that [`Search::advance`] expects.
    pub fn rows(&self) -> usize {
        match self {
            Search::Single(search) => search.rows(),
            Search::Beam(search) => search.rows(),
        }
    }

    pub fn is_done(&self) -> bool {
        match self {
            Search::Single(search) => search.is_done(),
            Search::Beam(search) => search.is_done(),
        }
    }

    /// Calls `visit` with the last token of each row.
    pub fn each_token(&self, visit: impl FnMut(u32)) {
        match self {
            Search::Single(search) => search.tokens().for_each(visit),
            Search::Beam(search) => search.tokens().for_each(visit),
        }
    }

    /// Takes the logits of every row, `[rows, vocab_size]`, and goes on by one token. Gives, for each row of the next
    /// step, the row that it continues.
    pub fn advance(&mut self, kernels: Kernels, plan: &Plan, logits: &mut [f32]) -> &[usize] {
        match self {
            Search::Single(search) => {
                search.advance(kernels, plan, logits);
                search.parents()
            }
            Search::Beam(search) => {
                search.advance(kernels, plan, logits);
                search.parents()
            }
        }
    }

    /// All sequences, best first.
    pub fn results(&self) -> Vec<&Hypothesis> {
        match self {
            Search::Single(search) => search.results(),
            Search::Beam(search) => search.results(),
        }
    }
}
