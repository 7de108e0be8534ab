//! Ending a request from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::border::{Result, call, call_or, hand_over, out, pt5_status, reference, take_back};

/// Ends requests that it was given to, from any thread: before the next block of the encoder, or the next token. It
/// stays set; a request that is given one that is set ends at once.
pub struct pt5_cancel {
    flag: Arc<AtomicBool>,
}

/// A flag that is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_cancel_new(cancel: *mut *mut pt5_cancel) -> pt5_status {
    call(|| {
        // SAFETY: as the header says.
        hand_over(unsafe { out("cancel", cancel) }?, pt5_cancel { flag: Arc::default() });
        Ok(())
    })
}

/// Ends the requests that it was given to. Nothing for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_cancel_set(cancel: *const pt5_cancel) {
    // SAFETY: as the header says.
    if let Ok(cancel) = unsafe { reference("cancel", cancel) } {
        call_or((), || cancel.flag.store(true, Ordering::Relaxed));
    }
}

/// Requests that it was given to go on, and can no longer be cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_cancel_free(cancel: *mut pt5_cancel) {
    // SAFETY: as the header says.
    unsafe { take_back(cancel) }
}

/// The flag of a request, which nobody may ever set.
#[derive(Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// # Safety
    /// As the header says; NULL is a flag that nobody sets.
    pub unsafe fn of(cancel: *const pt5_cancel) -> Result<Cancel> {
        if cancel.is_null() {
            return Ok(Cancel::default());
        }
        // SAFETY: as the caller says.
        Ok(Cancel(unsafe { reference("cancel", cancel) }?.flag.clone()))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
