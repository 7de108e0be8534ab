//! Work in pieces, between which Ctrl-C is heard.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use t5_runtime::{Result, UnderWay};

use crate::failure::raised;

/// How long Python's other threads, and Ctrl-C, wait for a piece at most, unless a single one takes longer.
const TURN: Duration = Duration::from_millis(50);

/// Calls `piece` without the GIL until it says that it is done.
///
/// # Errors
/// That of a piece, and what a signal's handler raises: for Ctrl-C a `KeyboardInterrupt`.
pub fn work(py: Python<'_>, mut piece: impl FnMut() -> Result<bool> + Send) -> PyResult<()> {
    loop {
        let turn = py.detach(|| {
            let begin = Instant::now();
            while piece()? {
                if begin.elapsed() >= TURN {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        if !turn.map_err(|error| raised(py, error))? {
            return Ok(());
        }
        py.check_signals()?;
    }
}

/// Does all of a request; `put_back` gets the session.
pub fn finish<T: Send>(
    py: Python<'_>,
    mut request: UnderWay<T>,
    put_back: impl FnOnce(t5_runtime::Session),
) -> PyResult<T> {
    match work(py, || request.work()) {
        Ok(()) => {
            let (results, session) = request.finish().map_err(|error| raised(py, error))?;
            put_back(session);
            Ok(results)
        }
        Err(error) => {
            put_back(request.into_session());
            Err(error)
        }
    }
}
