//! Texts as they come.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use t5_runtime::{Batch, BatchEvent, Generation, Session};

use crate::failure::option;
use crate::model::Model;
use crate::pieces::work;
use crate::results::outputs;

/// What a stream works at. Nobody holds its lock while Python runs: a handler of signals may ask it, and close it.
struct Held<T>(Mutex<State<T>>);

enum State<T> {
    /// Between two pieces.
    Waiting(Box<T>),
    /// Taken by a thread that makes the next piece.
    Taken(ThreadId),
    /// All have come, with what came of it; or it was closed, which a thread that has it then notices.
    Done(Option<Py<PyAny>>),
}

impl<T: Send> Held<T> {
    /// How often a thread looks whether another one has its piece.
    const WAIT: Duration = Duration::from_millis(2);

    fn new(work: T) -> Held<T> {
        Held(Mutex::new(State::Waiting(Box::new(work))))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the work for a piece; `None` if there is no more. A thread waits for another one that has it.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Box<T>>> {
        loop {
            // list(stream) asks for piece after piece without hearing of Ctrl-C in between.
            py.check_signals()?;
            let own = thread::current().id();
            let mut state = self.lock();
            match &*state {
                State::Done(_) => return Ok(None),
                State::Taken(thread) if *thread == own => {
                    // A handler of signals asks what it has interrupted, which would wait for it.
                    drop(state);
                    return Err(option(py, "stream: expected one piece to be asked for at a time, found another call"));
                }
                State::Taken(_) => {
                    drop(state);
                    py.detach(|| thread::sleep(Self::WAIT));
                }
                State::Waiting(_) => {
                    if let State::Waiting(work) = std::mem::replace(&mut *state, State::Taken(own)) {
                        return Ok(Some(work));
                    }
                }
            }
        }
    }

    /// Puts the work back, or gives it where the stream was closed meanwhile.
    fn put(&self, work: Box<T>) -> Option<Box<T>> {
        let mut state = self.lock();
        if matches!(*state, State::Done(_)) {
            return Some(work);
        }
        *state = State::Waiting(work);
        None
    }

    /// Keeps what came of it, unless the stream was closed meanwhile.
    fn finish(&self, outputs: Option<Py<PyAny>>) {
        let mut state = self.lock();
        if matches!(*state, State::Taken(_)) {
            *state = State::Done(outputs);
        }
    }

    /// Closes it; gives the work, unless a thread has it, which will notice. What has come stays.
    fn close(&self) -> Option<Box<T>> {
        let mut state = self.lock();
        if matches!(*state, State::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Done(None)) {
            State::Waiting(work) => Some(work),
            State::Taken(_) | State::Done(_) => None,
        }
    }

    /// Whether it was closed; asked by the thread that has it.
    fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Done(_))
    }

    fn outputs(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*self.lock() {
            State::Done(outputs) => outputs.as_ref().map(|outputs| outputs.clone_ref(py)),
            State::Waiting(_) | State::Taken(_) => None,
        }
    }
}

/// A text as it comes: an iterator of pieces.
#[pyclass(frozen, module = "pocket_t5")]
pub struct Stream {
    model: Py<Model>,
    held: Held<Generation<Session>>,
}

impl Stream {
    pub fn new(model: Py<Model>, generation: Generation<Session>) -> Stream {
        Stream { model, held: Held::new(generation) }
    }
}

#[pymethods]
impl Stream {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(mut generation) = self.held.take(py)? else { return Ok(None) };
        let mut piece = None;
        let worked = work(py, || {
            piece = generation.ready_piece().map(str::to_owned);
            Ok(piece.is_none() && !self.held.is_closed() && generation.work())
        });
        // The last piece of work may have brought the last of the text.
        let piece = piece.or_else(|| worked.is_ok().then(|| generation.ready_piece().map(str::to_owned)).flatten());
        if worked.is_err() || piece.is_some() || self.held.is_closed() {
            if let Some(generation) = self.held.put(generation) {
                self.model.get().put_back(generation.into_session());
                return worked.map(|()| None);
            }
            return worked.map(|()| piece);
        }
        let (results, session) = generation.finish_with_session();
        self.model.get().put_back(session);
        let made = outputs(py, results).into_py_any(py);
        self.held.finish(made.as_ref().ok().map(|outputs| outputs.clone_ref(py)));
        made.map(|_| None)
    }

    /// The outputs, best first, once all pieces have come; before, and after close(), None.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.held.outputs(py)
    }

    /// Ends it where it is. Nothing else is needed to leave a stream behind.
    fn close(&self) {
        if let Some(generation) = self.held.close() {
            self.model.get().put_back(generation.into_session());
        }
    }
}

/// Several texts as they come: an iterator of (index, piece).
#[pyclass(frozen, module = "pocket_t5")]
pub struct BatchStream {
    model: Py<Model>,
    held: Held<Running>,
}

/// The texts of a [`BatchStream`].
pub struct Running {
    batch: Batch<Session>,
    /// The place of each text.
    places: HashMap<u64, usize>,
    pieces: VecDeque<(usize, String)>,
    results: Vec<Vec<t5_runtime::Output>>,
}

impl BatchStream {
    /// `ids` are those of the batch's requests, in the order of the texts.
    pub fn new(model: Py<Model>, batch: Batch<Session>, ids: Vec<u64>) -> BatchStream {
        let results = vec![Vec::new(); ids.len()];
        let places = ids.into_iter().zip(0..).collect();
        BatchStream { model, held: Held::new(Running { batch, places, pieces: VecDeque::new(), results }) }
    }
}

impl Running {
    /// A step of the batch; false when there is a piece, or nothing is left.
    fn step(&mut self) -> t5_runtime::Result<bool> {
        if !self.pieces.is_empty() || self.batch.is_empty() {
            return Ok(false);
        }
        for event in self.batch.step() {
            match event {
                BatchEvent::Piece { id, text, .. } => self.pieces.push_back((self.places[&id], text)),
                BatchEvent::Done { id, outputs } => self.results[self.places[&id]] = outputs,
                BatchEvent::Failed { error, .. } => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }
}

#[pymethods]
impl BatchStream {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<(usize, String)>> {
        let Some(mut running) = self.held.take(py)? else { return Ok(None) };
        let worked = work(py, || Ok(!self.held.is_closed() && running.step()?));
        let piece = worked.is_ok().then(|| running.pieces.pop_front()).flatten();
        if worked.is_err() || piece.is_some() || self.held.is_closed() {
            if let Some(running) = self.held.put(running) {
                self.model.get().put_back(running.batch.into_session());
                return worked.map(|()| None);
            }
            return worked.map(|()| piece);
        }
        let Running { batch, results, .. } = *running;
        self.model.get().put_back(batch.into_session());
        let lists: Vec<_> = results.into_iter().map(|results| outputs(py, results)).collect();
        let made = lists.into_py_any(py);
        self.held.finish(made.as_ref().ok().map(|outputs| outputs.clone_ref(py)));
        made.map(|_| None)
    }

    /// For each text its outputs, best first, once all pieces have come; before, and after close(), None.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.held.outputs(py)
    }

    /// Ends it where it is. Nothing else is needed to leave a stream behind.
    fn close(&self) {
        if let Some(running) = self.held.close() {
            self.model.get().put_back(running.batch.into_session());
        }
    }
}
