//! Sessions: each works for one call at a time.

use std::sync::{Mutex, TryLockError};

use t5_runtime::{MAX_THREADS, Model, Session, default_threads};

use crate::border::{Failure, Result, call, hand_over, out, pt5_status, reference, take_back};
use crate::model::pt5_model;

/// The memory in which a model works. One call at a time; each thread of a program may have its own.
pub struct pt5_session {
    working: Mutex<Working>,
}

/// What a call works with.
pub struct Working {
    pub model: Model,
    threads: usize,
    /// None after a call in whose midst it was lost.
    session: Option<Session>,
}

impl Working {
    pub fn session(&mut self) -> &mut Session {
        self.session.get_or_insert_with(|| new(&self.model, self.threads))
    }

    /// The session, to be given back with [`Working::put_back`] unless it is lost.
    pub fn take(&mut self) -> Session {
        self.session.take().unwrap_or_else(|| new(&self.model, self.threads))
    }

    pub fn put_back(&mut self, session: Session) {
        self.session = Some(session);
    }
}

fn new(model: &Model, threads: usize) -> Session {
    let mut session = model.session();
    session.set_threads(threads);
    session
}

/// A session over a model, in which each pass is shared by `threads` threads, the caller's included, at most 64. 0: as
/// many as a NUMA node has cores for this process, at most 16; 1 is best where many sessions run side by side. Results
/// do not depend on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_session_new(
    model: *const pt5_model,
    threads: u32,
    session: *mut *mut pt5_session,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("session", session)?;
        let model = reference("model", model)?.model.clone();
        let threads = match threads as usize {
            0 => default_threads(),
            threads @ 1..=MAX_THREADS => threads,
            _ => {
                let what = format_args!("expected at most {MAX_THREADS}, found {threads}");
                return Err(Failure::argument("threads", what));
            }
        };
        let session = Some(new(&model, threads));
        hand_over(out, pt5_session { working: Mutex::new(Working { model, threads, session }) });
        Ok(())
    })
}

/// Frees a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_session_free(session: *mut pt5_session) {
    // SAFETY: as the header says.
    unsafe { take_back(session) }
}

impl pt5_session {
    /// Works in this session, unless another call does.
    pub fn work<T>(&self, work: impl FnOnce(&mut Working) -> Result<T>) -> Result<T> {
        let mut working = match self.working.try_lock() {
            Ok(working) => working,
            Err(TryLockError::WouldBlock) => {
                let what = "session: expected one that is free, found one that works on another call";
                return Err(Failure::new(pt5_status::PT5_BUSY, what));
            }
            Err(TryLockError::Poisoned(poisoned)) => {
                // A call panicked: its buffers are not to be trusted.
                self.working.clear_poison();
                let mut working = poisoned.into_inner();
                working.session = None;
                working
            }
        };
        work(&mut working)
    }
}
