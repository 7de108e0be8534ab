//! The helpers, and how a piece of work is handed to them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

#[cfg(not(target_family = "wasm"))]
use super::native as system;
#[cfg(target_family = "wasm")]
use super::workers as system;
use system::{Instant, Running};

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

/// How a helper sleeps.
#[derive(Default)]
struct Bed {
    asleep: AtomicBool,
    /// Known before it sleeps for the first time.
    thread: OnceLock<Thread>,
}

impl Bed {
    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

struct Helper {
    running: Option<Running>,
    bed: Arc<Bed>,
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
            let bed = Arc::new(Bed::default());
            let (board, own) = (board.clone(), bed.clone());
            let running = system::spawn(format!("t5-{thread}"), move || help(&board, &own, thread))?;
            Some(Helper { running: Some(running), bed })
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
        // More helpers than parts have nothing to do, and to wake one takes longer than many a part.
        for helper in self.helpers.iter().take(parts.saturating_sub(1)) {
            helper.bed.wake();
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
                    assert!(!system::lost(), "a thread ended in the middle of its work");
                    system::yield_now();
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
            helper.bed.wake();
        }
        for helper in &mut self.helpers {
            if let Some(running) = helper.running.take() {
                running.join();
            }
        }
    }
}

fn help(board: &Board, bed: &Bed, thread: usize) {
    bed.thread.get_or_init(std::thread::current);
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
            bed.asleep.store(true, Ordering::SeqCst);
            if serial(board.piece.load(Ordering::SeqCst)) == known && !board.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            bed.asleep.store(false, Ordering::SeqCst);
        }
        if board.stop.load(Ordering::Relaxed) {
            return;
        }
        known = serial(board.piece.load(Ordering::Acquire));
        board.work_on(thread, known);
    }
}
