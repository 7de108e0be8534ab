//! What comes out.

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

/// One generated text.
#[pyclass(frozen, module = "pocket_t5")]
pub struct Output {
    /// The text. A forced prefix is part of it.
    #[pyo3(get)]
    text: String,
    /// New tokens, the one that ends the text included.
    #[pyo3(get)]
    ids: Vec<u32>,
    /// The log-probability of each, [len(ids)], float32. Empty with logprobs=False.
    #[pyo3(get)]
    logprobs: Py<PyArray1<f32>>,
    /// With top_logprobs=N, for each token the N likeliest in its place as (id, log-probability), the likeliest first.
    #[pyo3(get)]
    alternatives: Vec<Vec<(u32, f32)>>,
    /// The sum of the log-probabilities; of a beam, that sum over the length penalty, but with T5's where none has
    /// ended. nan with logprobs=False.
    #[pyo3(get)]
    score: f32,
    /// Why the text ends: "eos", "length", "stop", "blocked", "cancelled" or "memory".
    #[pyo3(get)]
    finish: &'static str,
}

#[pymethods]
impl Output {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("Output(text={:?}, score={}, finish={:?})", self.text, self.score, self.finish)
    }
}

/// Outputs of a text, best first.
pub fn outputs(py: Python<'_>, outputs: Vec<t5_runtime::Output>) -> Vec<Output> {
    let output = |output: t5_runtime::Output| {
        let t5_runtime::Output { text, ids, logprobs, alternatives, score, finish } = output;
        let logprobs = PyArray1::from_vec(py, logprobs).unbind();
        Output { text, ids, logprobs, alternatives, score, finish: finish.name() }
    };
    outputs.into_iter().map(output).collect()
}

/// How likely a target is as the answer to a source.
#[pyclass(frozen, module = "pocket_t5")]
pub struct Score {
    /// The target's tokens, the one that ends it included.
    #[pyo3(get)]
    ids: Vec<u32>,
    /// The log-probability of each, [len(ids)], float32.
    #[pyo3(get)]
    logprobs: Py<PyArray1<f32>>,
    /// Of all: the log-probability of the target.
    #[pyo3(get)]
    sum: f32,
}

#[pymethods]
impl Score {
    fn __repr__(&self) -> String {
        format!("Score(sum={}, tokens={})", self.sum, self.ids.len())
    }
}

impl Score {
    pub fn new(py: Python<'_>, score: t5_runtime::Score) -> Score {
        let t5_runtime::Score { ids, logprobs, sum } = score;
        Score { ids, logprobs: PyArray1::from_vec(py, logprobs).unbind(), sum }
    }
}

/// One of several texts, and how likely it is.
#[pyclass(frozen, get_all, module = "pocket_t5")]
pub struct Choice {
    /// Its place among the choices.
    index: usize,
    /// The text.
    text: String,
    /// Its log-probability.
    logprob: f32,
    /// Its share: all of them together have 1.
    probability: f32,
}

#[pymethods]
impl Choice {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("Choice(text={:?}, probability={})", self.text, self.probability)
    }
}

impl From<t5_runtime::Choice> for Choice {
    fn from(choice: t5_runtime::Choice) -> Choice {
        let t5_runtime::Choice { index, text, logprob, probability } = choice;
        Choice { index, text, logprob, probability }
    }
}

/// Which word of a source each word of a target comes from.
#[pyclass(frozen, module = "pocket_t5")]
pub struct Alignment {
    /// Words of the source.
    #[pyo3(get)]
    source: Vec<String>,
    /// Words of the target.
    #[pyo3(get)]
    target: Vec<String>,
    /// How much of each target word comes from each source word, [len(target), len(source)], float32.
    #[pyo3(get)]
    weights: Py<PyArray2<f32>>,
}

impl Alignment {
    pub fn new(py: Python<'_>, words: t5_runtime::WordAlignment) -> PyResult<Alignment> {
        let shape = [words.target.len(), words.source.len()];
        let weights = PyArray1::from_vec(py, words.weights).reshape(shape)?.unbind();
        Ok(Alignment { source: words.source, target: words.target, weights })
    }
}
