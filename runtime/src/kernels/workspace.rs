//! The threads of a session, and what kernels keep between calls.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activations::Activations;
use super::attention::packed::HeadMemory;
use super::pack::q8::WeightBlock;
use super::simd::LANES;
use super::threads::Threads;

/// The threads of a session and their scratch memory, kept between calls so that steady-state work allocates nothing.
#[derive(Default)]
pub struct Workspace {
    pub(super) threads: Threads,
    pub(super) activations: Activations,
    /// Rows of x laid out by tiles.
    pub(super) x: Vec<f32>,
    /// A row as it is decoded, `[k]`.
    pub(super) row: Vec<f32>,
    /// What each thread has for itself.
    pub(super) own: Vec<Mutex<Own>>,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub(crate) struct Own {
    /// 16 rows of weights widened to f32, `[k, 16]`, or two such groups.
    pub(super) wide: Vec<[f32; LANES]>,
    /// 16 rows of int8 weights whose planes were joined.
    pub(super) joined: Vec<WeightBlock>,
    /// The head that is being attended to.
    pub(crate) head: HeadMemory,
}

/// The scratch memory of a thread. Only that thread locks it, so this never waits.
pub(crate) fn own(all: &[Mutex<Own>], thread: usize) -> MutexGuard<'_, Own> {
    // A panic leaves scratch memory that the next use fills anew.
    all[thread].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workspace {
    /// Work is shared by `threads` threads, the caller's included. Results do not depend on it.
    pub fn set_threads(&mut self, threads: usize) {
        self.threads = Threads::new(threads);
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Whether the last product left zeros out.
    #[cfg(test)]
    pub(super) fn leaves_zeros_out(&self) -> bool {
        !self.activations.steps.is_empty()
    }

    /// The threads, and what each has for itself.
    pub(crate) fn shared(&mut self) -> (&mut Threads, &[Mutex<Own>]) {
        let count = self.threads.count();
        if self.own.len() < count {
            self.own.resize_with(count, Mutex::default);
        }
        (&mut self.threads, &self.own)
    }
}
