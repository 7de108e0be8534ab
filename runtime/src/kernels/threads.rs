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

/// The threads of one session. One thread is the caller's alone.
#[derive(Default)]
pub(crate) struct Threads {
    #[cfg(not(target_family = "wasm"))]
    pool: Option<pool::Pool>,
}

impl Threads {
    /// `count` threads, the caller's included; where a thread cannot be had, fewer.
    pub(crate) fn new(count: usize) -> Threads {
        #[cfg(not(target_family = "wasm"))]
        {
            Threads { pool: (count > 1).then(|| pool::Pool::new(count.min(MOST))) }
        }
        #[cfg(target_family = "wasm")]
        {
            let _ = count;
            Threads {}
        }
    }

    pub(crate) fn count(&self) -> usize {
        #[cfg(not(target_family = "wasm"))]
        {
            self.pool.as_ref().map_or(1, |pool| pool.count())
        }
        #[cfg(target_family = "wasm")]
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
        #[cfg(not(target_family = "wasm"))]
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

/// More threads do not help at steps this short.
#[cfg(not(target_family = "wasm"))]
const MOST: usize = 64;

/// The part of `pieces` that part `part` of `parts` covers.
pub(crate) fn share(pieces: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    pieces * part / parts..pieces * (part + 1) / parts
}

#[cfg(not(target_family = "wasm"))]
mod pool {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    type Work<'a> = &'a (dyn Fn(usize, usize) + Sync);

    /// How long a helper spins before it sleeps.
    const SPIN: Duration = Duration::from_micros(100);

    /// Waits up to this long are part of the work.
    const PATIENCE: Duration = Duration::from_micros(50);

    /// For how many times the length of a longer wait the caller then works alone.
    const ALONE: u32 = 40;

    /// What all threads see. The piece of work that is under way is one number: its serial number in the upper 32 bits,
    /// how many parts it has in the next 16, and the next unclaimed part in the lowest 16. A part is claimed by adding
    /// one, if nothing has changed; so a claim always belongs to the piece that the claimer read.
    #[derive(Default)]
    struct Board {
        piece: AtomicU64,
        /// A [`Work`] on the caller's stack. It is there as long as the piece has unfinished parts.
        work: AtomicPtr<()>,
        done: AtomicUsize,
        panicked: AtomicBool,
        stop: AtomicBool,
    }

    fn serial(piece: u64) -> u64 {
        piece >> 32
    }

    impl Board {
        /// Claims and does parts of the piece with this serial number until none is left.
        fn work_on(&self, thread: usize, number: u64) {
            loop {
                let piece = self.piece.load(Ordering::Acquire);
                let (parts, part) = (piece >> 16 & 0xffff, piece & 0xffff);
                if serial(piece) != number || part >= parts {
                    return;
                }
                let work = self.work.load(Ordering::Relaxed).cast::<Work<'_>>();
                if self.piece.compare_exchange(piece, piece + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                    continue;
                }
                // SAFETY: the claim succeeded, so this part of the piece was unfinished and still is: `run` does not
                // return, nor set up another piece, before it is counted below. `work` was set before the piece became
                // visible and is what was read.
                let work = unsafe { *work };
                if catch_unwind(AssertUnwindSafe(|| work(thread, part as usize))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.done.fetch_add(1, Ordering::Release);
            }
        }
    }

    struct Helper {
        handle: Option<JoinHandle<()>>,
        asleep: Arc<AtomicBool>,
    }

    pub(super) struct Pool {
        board: Arc<Board>,
        helpers: Vec<Helper>,
        number: u64,
        /// Until when the caller works alone.
        alone: Option<Instant>,
    }

    impl Pool {
        pub(super) fn new(count: usize) -> Pool {
            let board = Arc::new(Board::default());
            let helper = |thread: usize| {
                let asleep = Arc::new(AtomicBool::new(false));
                let (board, flag) = (board.clone(), asleep.clone());
                let builder = std::thread::Builder::new().name(format!("t5-{thread}"));
                let handle = builder.spawn(move || help(&board, &flag, thread)).ok()?;
                Some(Helper { handle: Some(handle), asleep })
            };
            let helpers = (1..count).map_while(helper).collect();
            Pool { board, helpers, number: 0, alone: None }
        }

        pub(super) fn count(&self) -> usize {
            1 + self.helpers.len()
        }

        pub(super) fn run(&mut self, parts: usize, work: Work<'_>) {
            if let Some(end) = self.alone {
                if Instant::now() < end {
                    return (0..parts).for_each(|part| work(0, part));
                }
                self.alone = None;
            }
            assert!(parts < 1 << 16, "parts are counted in 16 bits");
            let board = &*self.board;
            // 32 bits of serial number: a thread would have to sleep through four thousand million pieces to mistake one.
            self.number = (self.number + 1) & 0xffff_ffff;
            board.work.store(std::ptr::from_ref(&work).cast_mut().cast(), Ordering::Relaxed);
            board.done.store(0, Ordering::Relaxed);
            board.piece.store(self.number << 32 | (parts as u64) << 16, Ordering::SeqCst);
            for helper in &self.helpers {
                if helper.asleep.load(Ordering::SeqCst)
                    && let Some(handle) = &helper.handle
                {
                    handle.thread().unpark();
                }
            }
            board.work_on(0, self.number);
            let finished = || board.done.load(Ordering::Acquire) == parts;
            if !finished() {
                let begin = Instant::now();
                let mut rounds = 0u32;
                while !finished() {
                    rounds += 1;
                    std::hint::spin_loop();
                    // The helper may be waiting for this very processor.
                    if rounds.is_multiple_of(64) && begin.elapsed() > PATIENCE {
                        std::thread::yield_now();
                    }
                }
                let waited = begin.elapsed();
                if waited > PATIENCE {
                    self.alone = Some(begin + waited * ALONE);
                }
            }
            if board.panicked.swap(false, Ordering::Relaxed) {
                resume_unwind(Box::new("a part of a kernel's work panicked"));
            }
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            self.board.stop.store(true, Ordering::SeqCst);
            for helper in &mut self.helpers {
                if let Some(handle) = helper.handle.take() {
                    handle.thread().unpark();
                    // It catches panics, so there is nothing to pass on.
                    let _ = handle.join();
                }
            }
        }
    }

    fn help(board: &Board, asleep: &AtomicBool, thread: usize) {
        let mut known = 0;
        loop {
            let mut begin = None;
            let mut rounds = 0u32;
            while serial(board.piece.load(Ordering::Acquire)) == known && !board.stop.load(Ordering::Relaxed) {
                rounds += 1;
                std::hint::spin_loop();
                if !rounds.is_multiple_of(64) || begin.get_or_insert_with(Instant::now).elapsed() < SPIN {
                    continue;
                }
                // The caller publishes and then looks at the flag; this sets the flag and then looks at what is
                // published: one of the two sees the other.
                asleep.store(true, Ordering::SeqCst);
                if serial(board.piece.load(Ordering::SeqCst)) == known && !board.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                asleep.store(false, Ordering::SeqCst);
            }
            if board.stop.load(Ordering::Relaxed) {
                return;
            }
            known = serial(board.piece.load(Ordering::Acquire));
            board.work_on(thread, known);
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

    #[test]
    fn shares_cover_all() {
        for (pieces, parts) in [(0, 1), (5, 3), (7, 7), (100, 8)] {
            let mut next = 0;
            for part in 0..parts {
                let range = share(pieces, part, parts);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, pieces);
        }
    }
}
