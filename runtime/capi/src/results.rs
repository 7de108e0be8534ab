//! What came out of a request.

use std::ffi::c_char;
use std::ptr;

use t5_runtime::{Finish, Output, Score};

use crate::border::{call_or, reference, take_back};

/// Why a text ends where it ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pt5_finish {
    /// The model ended it.
    PT5_FINISH_EOS = 0,
    /// The limit of new tokens was reached.
    PT5_FINISH_LENGTH = 1,
    /// A stop string was found.
    PT5_FINISH_STOP = 2,
    /// No token could come next.
    PT5_FINISH_BLOCKED = 3,
    /// It was cancelled, by a pt5_cancel or by a callback.
    PT5_FINISH_CANCELLED = 4,
    /// There was no memory for more.
    PT5_FINISH_MEMORY = 5,
}

impl From<Finish> for pt5_finish {
    fn from(finish: Finish) -> pt5_finish {
        match finish {
            Finish::EndOfSequence => pt5_finish::PT5_FINISH_EOS,
            Finish::Length => pt5_finish::PT5_FINISH_LENGTH,
            Finish::Stop => pt5_finish::PT5_FINISH_STOP,
            Finish::Blocked => pt5_finish::PT5_FINISH_BLOCKED,
            Finish::Cancelled => pt5_finish::PT5_FINISH_CANCELLED,
            Finish::Memory => pt5_finish::PT5_FINISH_MEMORY,
        }
    }
}

/// A token that could have stood in a place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct pt5_token {
    /// Its id.
    pub id: u32,
    /// The log-probability that the model gives it.
    pub logprob: f32,
}

/// One generated text; it lives as long as the results.
#[repr(C)]
pub struct pt5_output {
    /// UTF-8 with a zero behind it.
    pub text: *const c_char,
    /// Bytes of it.
    pub text_len: usize,
    /// The new tokens, the one that ends the text included.
    pub ids: *const u32,
    /// The log-probability of each. NULL where {"logprobs": false} was asked for.
    pub logprobs: *const f32,
    /// How many tokens.
    pub count: usize,
    /// The sum of the log-probabilities; of a beam, divided by the length penalty, which is ((5 + count) / 6)^0.6
    /// unless options say otherwise; where no beam has ended, as with that penalty at the limit of new tokens, the sum
    /// itself. NaN where {"logprobs": false} leaves out what it is of.
    pub score: f32,
    /// Why it ends.
    pub finish: pt5_finish,
    /// For each token the `alternatives_each` likeliest in its place, the likeliest first. NULL unless
    /// {"top_logprobs": N} was asked for.
    pub alternatives: *const pt5_token,
    /// How many there are for each token.
    pub alternatives_each: usize,
}

/// What came out of a request: for each text one or more outputs, best first.
pub struct pt5_results {
    /// By text and rank; they point into `owned`.
    outputs: Vec<Vec<pt5_output>>,
    /// Never changed: the vectors stay where they are.
    _owned: Vec<Owned>,
}

struct Owned {
    text: Vec<u8>,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    alternatives: Vec<pt5_token>,
}

impl pt5_results {
    pub(crate) fn new(results: Vec<Vec<Output>>) -> pt5_results {
        let mut owned = Vec::new();
        let mut keep = |output: Output| {
            let Output { text, ids, logprobs, alternatives, score, finish } = output;
            let token = |&(id, logprob): &(u32, f32)| pt5_token { id, logprob };
            // As many for each token: what was asked for, or the vocabulary.
            let alternatives_each = alternatives.first().map_or(0, Vec::len);
            let alternatives: Vec<pt5_token> = alternatives.iter().flatten().map(token).collect();
            let text_len = text.len();
            let mut text = text.into_bytes();
            text.push(0);
            let kept = Owned { text, ids, logprobs, alternatives };
            let output = pt5_output {
                text: kept.text.as_ptr().cast(),
                text_len,
                ids: kept.ids.as_ptr(),
                logprobs: if kept.logprobs.is_empty() { ptr::null() } else { kept.logprobs.as_ptr() },
                count: kept.ids.len(),
                score,
                finish: finish.into(),
                alternatives: if kept.alternatives.is_empty() { ptr::null() } else { kept.alternatives.as_ptr() },
                alternatives_each,
            };
            owned.push(kept);
            output
        };
        let mut of_text = |outputs: Vec<Output>| outputs.into_iter().map(&mut keep).collect();
        let outputs = results.into_iter().map(&mut of_text).collect();
        pt5_results { outputs, _owned: owned }
    }

    /// A given target, as if it had been generated.
    pub(crate) fn of_score(target: &str, score: Score) -> pt5_results {
        let Score { ids, logprobs, sum } = score;
        let finish = Finish::EndOfSequence;
        pt5_results::new(vec![vec![Output {
            text: target.to_owned(),
            ids,
            logprobs,
            alternatives: Vec::new(),
            score: sum,
            finish,
        }]])
    }
}

/// How many texts there are results of; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_results_texts(results: *const pt5_results) -> usize {
    // SAFETY: as the header says.
    call_or(0, || unsafe { reference("results", results) }.map_or(0, |results| results.outputs.len()))
}

/// How many outputs a text has, counted from 0; 0 where there is no such text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_results_outputs(results: *const pt5_results, text: usize) -> usize {
    call_or(0, || {
        // SAFETY: as the header says.
        let results = unsafe { reference("results", results) }.ok();
        results.and_then(|results| results.outputs.get(text)).map_or(0, Vec::len)
    })
}

/// An output of a text, both counted from 0; the best is the first. NULL where there is none. It lives as long as the
/// results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_results_get(results: *const pt5_results, text: usize, rank: usize) -> *const pt5_output {
    call_or(ptr::null(), || {
        // SAFETY: as the header says.
        let results = unsafe { reference("results", results) }.ok();
        results.and_then(|results| results.outputs.get(text)?.get(rank)).map_or(ptr::null(), ptr::from_ref)
    })
}

/// Frees results and what they point to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_results_free(results: *mut pt5_results) {
    // SAFETY: as the header says.
    unsafe { take_back(results) }
}
