//! Threads and time where only the host can start threads: in WebAssembly.
//!
//! The host starts workers over the same memory. Each registers with [`enter`] and then waits in [`serve`] for work,
//! for as long as the program runs. A thread begins by handing its work to one that waits, and ends by returning there.

use std::ops::Add;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What a thread does, and where it says that it has ended.
struct ThreadWork {
    run: Box<dyn FnOnce() + Send>,
    ended: Arc<AtomicBool>,
}

struct Room {
    /// Workers that registered and have no work, those that `works` is for included.
    idle: usize,
    works: Vec<ThreadWork>,
}

static ROOM: Mutex<Room> = Mutex::new(Room { idle: 0, works: Vec::new() });
static CALL: Condvar = Condvar::new();
static CLOCK: OnceLock<fn() -> f64> = OnceLock::new();
static LOST: AtomicBool = AtomicBool::new(false);

fn room() -> MutexGuard<'static, Room> {
    // Nothing here panics while it holds the lock.
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers the calling worker, which must then call [`serve`]. Until then it may not be needed, but it may be counted
/// on. `clock` gives milliseconds since any moment, each worker's own; the first one given is used.
pub fn enter(clock: fn() -> f64) {
    CLOCK.get_or_init(|| clock);
    room().idle += 1;
}

/// Does the work of threads until the program ends.
pub fn serve() -> ! {
    let mut room = room();
    loop {
        if let Some(work) = room.works.pop() {
            room.idle -= 1;
            drop(room);
            (work.run)();
            room = self::room();
            room.idle += 1;
            work.ended.store(true, Ordering::Release);
        } else {
            room = CALL.wait(room).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How many threads could begin now.
pub fn idle() -> usize {
    let room = room();
    room.idle - room.works.len()
}

/// Says that a worker ended without returning from [`serve`]: WebAssembly's traps end one without a word. What waits
/// for it then panics instead of waiting for ever.
pub fn lose() {
    LOST.store(true, Ordering::Relaxed);
}

/// Whether a thread ended in the middle of its work.
pub(super) fn lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// A thread at work.
pub(super) struct Running {
    ended: Arc<AtomicBool>,
}

/// Hands work to a worker that waits; `None` where none does.
pub(super) fn spawn(_name: String, work: impl FnOnce() + Send + 'static) -> Option<Running> {
    let mut room = room();
    if room.idle == room.works.len() {
        return None;
    }
    let ended = Arc::new(AtomicBool::new(false));
    room.works.push(ThreadWork { run: Box::new(work), ended: ended.clone() });
    drop(room);
    CALL.notify_one();
    Some(Running { ended })
}

impl Running {
    /// Waits until the thread has ended and its worker is free again.
    pub(super) fn join(self) {
        while !self.ended.load(Ordering::Acquire) && !lost() {
            yield_now();
        }
    }
}

/// Gives the processor to others for a moment. Only sleeping does.
pub(super) fn yield_now() {
    std::thread::sleep(Duration::from_micros(50));
}

/// The standard library has no clock here.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Instant {
    ms: f64,
}

impl Instant {
    pub(super) fn now() -> Instant {
        Instant { ms: CLOCK.get().map_or(0.0, |clock| clock()) }
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_secs_f64((Instant::now().ms - self.ms).max(0.0) / 1e3)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant { ms: self.ms + duration.as_secs_f64() * 1e3 }
    }
}
