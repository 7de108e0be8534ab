//! A few threads that share the work of one pass, for steps of tens of microseconds.
//!
//! A piece of work is cut into parts that all threads, the caller's among them, claim one by one; so a helper that
//! sleeps or has lost its processor costs nothing unless it holds a part. Helpers wait for the next piece by spinning
//! for a bounded time and then sleep.
//!
//! Where another process wants the same processor, a helper may be stopped while it holds a part, and the caller waits
//! for it. After such a wait the caller works alone for forty times as long, so waiting costs 2.5 % at most.
//!
//! Parts do not influence each other and each value is computed by one of them in the one order that a kernel defines:
//! results do not depend on the number of threads.

#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
mod pool;

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub mod workers;

/// The threads of one session. One thread is the caller's alone.
#[derive(Default)]
pub(crate) struct Threads {
    #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
    pool: Option<pool::Pool>,
}

impl Threads {
    /// `count` threads, the caller's included, at most [`MAX_THREADS`](crate::MAX_THREADS); fewer where the system has
    /// none left.
    pub(crate) fn new(count: usize) -> Threads {
        #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
        {
            Threads { pool: (count > 1).then(|| pool::Pool::new(count.min(crate::cores::MAX_THREADS))) }
        }
        #[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
        {
            let _ = count;
            Threads {}
        }
    }

    pub(crate) fn count(&self) -> usize {
        #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
        {
            self.pool.as_ref().map_or(1, |pool| pool.count())
        }
        #[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
        {
            1
        }
    }

    /// Into how many parts to cut `pieces` pieces of `work` multiplications all together.
    pub(crate) fn parts(&self, pieces: usize, work: usize) -> usize {
        // A hand-over takes about a microsecond, which is 2^15 multiplications at the speed of memory.
        // An interpreter that looks for data races is shown some at sizes that it gets through.
        const WORTH: u32 = if cfg!(miri) { 8 } else { 16 };
        match self.count() {
            1 => 1,
            count => (work >> WORTH).min(2 * count).min(pieces).max(1),
        }
    }

    /// Calls `work(thread, part)` for each part; `thread` is below [`Threads::count`], and no two calls with the same
    /// one run at once.
    pub(crate) fn run(&mut self, parts: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
        if parts > 1
            && let Some(pool) = &mut self.pool
        {
            return pool.run(parts, work);
        }
        for part in 0..parts {
            work(0, part);
        }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for count in [1, 2, 3, 8] {
            let mut threads = Threads::new(count);
            assert_eq!(threads.count(), count);
            for parts in [0, 1, 2, 3, 7, 16, if cfg!(miri) { 20 } else { 100 }] {
                for _ in 0..if cfg!(miri) { 2 } else { 20 } {
                    let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    let busy: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    threads.run(parts, &|thread, part| {
                        assert_eq!(busy[thread].fetch_add(1, Ordering::SeqCst), 0, "one part of a thread at a time");
                        done[part].fetch_add(1, Ordering::Relaxed);
                        busy[thread].fetch_sub(1, Ordering::SeqCst);
                    });
                    assert!(
                        done.iter().all(|done| done.load(Ordering::Relaxed) == 1),
                        "{count} threads, {parts} parts"
                    );
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let mut threads = Threads::new(3);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            threads.run(8, &|_, part| assert_ne!(part, 5));
        }));
        assert!(result.is_err());
        let done = AtomicUsize::new(0);
        threads.run(8, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
    }
}
