//! Texts as they come.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use t5_runtime::{Batch, BatchEvent, Generation, Session};

use crate::failure::raised;
use crate::model::Model;
use crate::pieces::work;
use crate::results::outputs;

/// A text as it comes: an iterator of pieces.
#[pyclass(frozen, module = "pocket_t5")]
pub struct Stream {
    model: Py<Model>,
    state: Mutex<StreamState>,
}

enum StreamState {
    UnderWay(Box<Generation<Session>>),
    Done(Option<Py<PyAny>>),
}

impl Stream {
    pub fn new(model: Py<Model>, generation: Generation<Session>) -> Stream {
        Stream { model, state: Mutex::new(StreamState::UnderWay(Box::new(generation))) }
    }
}

#[pymethods]
impl Stream {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        // list(stream) asks for piece after piece without hearing of Ctrl-C in between.
        py.check_signals()?;
        let mut state = lock(py, &self.state);
        let StreamState::UnderWay(generation) = &mut *state else { return Ok(None) };
        let mut piece = None;
        work(py, || {
            piece = generation.ready_piece().map(str::to_owned);
            Ok(piece.is_none() && generation.work())
        })?;
        // The last piece of work may have brought the last of the text.
        if let Some(piece) = piece.or_else(|| generation.ready_piece().map(str::to_owned)) {
            return Ok(Some(piece));
        }
        if let StreamState::UnderWay(generation) = std::mem::replace(&mut *state, StreamState::Done(None)) {
            let (results, session) = generation.finish_with_session();
            self.model.get().put_back(session);
            *state = StreamState::Done(Some(outputs(py, results).into_py_any(py)?));
        }
        Ok(None)
    }

    /// The outputs, best first, once all pieces have come; before, and after close(), None.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*lock(py, &self.state) {
            StreamState::Done(outputs) => outputs.as_ref().map(|outputs| outputs.clone_ref(py)),
            StreamState::UnderWay(_) => None,
        }
    }

    /// Ends it where it is. Nothing else is needed to leave a stream behind.
    fn close(&self, py: Python<'_>) {
        let mut state = lock(py, &self.state);
        if matches!(*state, StreamState::UnderWay(_))
            && let StreamState::UnderWay(generation) = std::mem::replace(&mut *state, StreamState::Done(None))
        {
            self.model.get().put_back(generation.into_session());
        }
    }
}

/// Several texts as they come: an iterator of (index, piece).
#[pyclass(frozen, module = "pocket_t5")]
pub struct BatchStream {
    model: Py<Model>,
    state: Mutex<BatchState>,
}

pub struct BatchState {
    /// None once all are done, or it was closed.
    batch: Option<Batch<Session>>,
    /// The place of each text.
    places: HashMap<u64, usize>,
    pieces: VecDeque<(usize, String)>,
    results: Vec<Vec<t5_runtime::Output>>,
    /// Made of the results once all are done.
    outputs: Option<Py<PyAny>>,
}

impl BatchStream {
    /// `ids` are those of the batch's requests, in the order of the texts.
    pub fn new(model: Py<Model>, batch: Batch<Session>, ids: Vec<u64>) -> BatchStream {
        let results = vec![Vec::new(); ids.len()];
        let places = ids.into_iter().zip(0..).collect();
        let state = BatchState { batch: Some(batch), places, pieces: VecDeque::new(), results, outputs: None };
        BatchStream { model, state: Mutex::new(state) }
    }
}

impl BatchState {
    /// A step of the batch; false when there is a piece, or nothing is left.
    fn step(&mut self) -> t5_runtime::Result<bool> {
        let Some(batch) = &mut self.batch else { return Ok(false) };
        if !self.pieces.is_empty() || batch.is_empty() {
            return Ok(false);
        }
        for event in batch.step() {
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
        py.check_signals()?;
        let mut state = lock(py, &self.state);
        let held = &mut *state;
        work(py, || held.step())?;
        if let Some(piece) = state.pieces.pop_front() {
            return Ok(Some(piece));
        }
        if let Some(batch) = state.batch.take() {
            self.model.get().put_back(batch.into_session());
            let results = std::mem::take(&mut state.results);
            let lists: Vec<_> = results.into_iter().map(|results| outputs(py, results)).collect();
            state.outputs = Some(lists.into_py_any(py)?);
        }
        Ok(None)
    }

    /// For each text its outputs, best first, once all pieces have come; before, and after close(), None.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(py, &self.state).outputs.as_ref().map(|outputs| outputs.clone_ref(py))
    }

    /// Ends it where it is. Nothing else is needed to leave a stream behind.
    fn close(&self, py: Python<'_>) {
        let mut state = lock(py, &self.state);
        state.pieces.clear();
        if let Some(batch) = state.batch.take() {
            self.model.get().put_back(batch.into_session());
        }
    }
}

/// Two threads may ask one stream: one waits for the other, without the GIL.
fn lock<'a, T: Send>(py: Python<'_>, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
    use pyo3::sync::MutexExt;
    mutex.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

/// A batch of texts, none of which has begun.
pub fn batch(
    py: Python<'_>,
    session: Session,
    texts: &[String],
    options: &t5_runtime::GenerateOptions,
) -> PyResult<(Batch<Session>, Vec<u64>)> {
    let sequences = options.sequences_of(texts.len());
    let mut batch = Batch::new(session, sequences).map_err(|error| raised(py, error))?;
    let ids = texts.iter().map(|text| batch.add(text, options)).collect::<t5_runtime::Result<_>>();
    ids.map(|ids| (batch, ids)).map_err(|error| raised(py, error))
}
