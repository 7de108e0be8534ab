//! Threads and time of the operating system.

use std::thread::{Builder, JoinHandle};

pub(super) use std::thread::yield_now;
pub(super) use std::time::Instant;

/// A thread at work.
pub(super) struct Running(JoinHandle<()>);

/// Starts a thread; `None` where the system has none left.
pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Option<Running> {
    Builder::new().name(name).spawn(work).ok().map(Running)
}

impl Running {
    /// Waits until the thread has ended.
    pub(super) fn join(self) {
        // Helpers catch panics, so there is nothing to pass on.
        let _ = self.0.join();
    }
}

/// Whether a thread ended in the middle of its work: a panic is caught here.
pub(super) fn lost() -> bool {
    false
}
