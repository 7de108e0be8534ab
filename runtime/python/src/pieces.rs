//! Work in pieces, between which Ctrl-C is heard.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use t5_runtime::{Error, Result, UnderWay};

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

/// What `one` makes of each text.
///
/// # Errors
/// As [`work`], and what `raise` makes of the error of a text in its place.
pub fn each<T, M>(
    py: Python<'_>,
    texts: &[T],
    mut one: impl FnMut(&T) -> Result<M> + Send,
    raise: impl FnOnce(usize, Error) -> PyErr,
) -> PyResult<Vec<M>>
where
    T: Sync,
    M: Send,
{
    let mut made = Vec::with_capacity(texts.len());
    let mut failed = None;
    work(py, || {
        let Some(text) = texts.get(made.len()) else { return Ok(false) };
        match one(text) {
            Ok(result) => made.push(result),
            Err(error) => failed = Some(error),
        }
        Ok(failed.is_none())
    })?;
    match failed {
        Some(error) => Err(raise(made.len(), error)),
        None => Ok(made),
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
