//! Keyword arguments as the library's options.

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use serde_json::{Map, Value};
use t5_runtime::{GenerateOptions, Model, Overrides, Pooling};

use crate::failure::{option, raised};

/// What a call asks for; None is as if it had not been given.
pub fn generate(py: Python<'_>, model: &Model, given: Option<&Bound<'_, PyDict>>) -> PyResult<GenerateOptions> {
    let mut request = Map::new();
    for (name, value) in given.into_iter().flatten() {
        if !value.is_none() {
            let name: String = name.extract()?;
            request.insert(name.clone(), json(&name, &value)?);
        }
    }
    let overrides = Overrides::from_json(&request).map_err(|error| raised(py, error))?;
    model.options(&overrides).map_err(|error| raised(py, error))
}

/// A value with the types of JSON. NumPy's numbers and arrays are numbers and lists, too.
fn json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let wrong = || option(value.py(), format!("{name}: expected another value, found {value}"));
    if value.is_instance_of::<PyBool>() {
        return Ok(value.extract::<bool>()?.into());
    }
    if value.is_instance_of::<PyString>() {
        return Ok(value.extract::<String>()?.into());
    }
    if !value.is_instance_of::<PyFloat>() {
        if let Ok(number) = value.extract::<u64>() {
            return Ok(number.into());
        }
        if let Ok(number) = value.extract::<i64>() {
            return Ok(number.into());
        }
    }
    if value.is_instance_of::<PyInt>() {
        return Err(wrong());
    }
    if let Ok(items) = value.try_iter() {
        return items.map(|item| json(name, &item?)).collect();
    }
    let number: f64 = value.extract().map_err(|_| wrong())?;
    serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(wrong)
}

/// An argument that counts something.
pub fn count(name: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let Some(given) = given else { return Ok(None) };
    let count = integer(name, given)?;
    count.map(Some).ok_or_else(|| option(given.py(), format!("{name}: expected 1 to {}, found {given}", usize::MAX)))
}

/// A whole number of an argument; `None` for one that its type does not have, a negative one for instance.
pub fn integer<'py, T: FromPyObjectOwned<'py, Error = PyErr>>(
    name: &str,
    given: &Bound<'py, PyAny>,
) -> PyResult<Option<T>> {
    match given.extract() {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.is_instance_of::<PyOverflowError>(given.py()) => Ok(None),
        // pyo3 names arguments that it takes itself.
        Err(error) => Err(PyTypeError::new_err(format!("argument '{name}': {}", error.value(given.py())))),
    }
}

/// What is made of the states of tokens, by name.
pub fn pooling(py: Python<'_>, name: &str) -> PyResult<Pooling> {
    let known = Pooling::asked(name);
    known.ok_or_else(|| {
        let all = std::iter::once(Pooling::None).chain(Pooling::VECTORS);
        let names = all.map(Pooling::name).collect::<Vec<_>>().join(", ");
        option(py, format!("pooling: expected one of {names}, found {name}"))
    })
}
