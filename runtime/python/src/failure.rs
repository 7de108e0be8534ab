//! The library's errors as Python's exceptions, which `pocket_t5/_errors.py` declares.

use std::io::ErrorKind;

use pyo3::prelude::*;
use t5_runtime::Error;

/// An exception with the library's sentence.
pub fn raised(py: Python<'_>, error: Error) -> PyErr {
    exception(py, class_of(&error), error.to_string())
}

/// As [`raised`], for one of several texts.
pub fn of_text(py: Python<'_>, place: usize, error: Error) -> PyErr {
    exception(py, class_of(&error), format!("text[{place}]: {error}"))
}

fn class_of(error: &Error) -> &'static str {
    match error {
        Error::NotAModel { .. }
        | Error::Format { .. }
        | Error::Tensor { .. }
        | Error::Config { .. }
        | Error::Tokenizer { .. } => "ModelError",
        Error::Io { error, .. } if error.kind() == ErrorKind::NotFound => "MissingFileError",
        Error::Io { .. } | Error::Changed { .. } => "FileError",
        Error::Option { .. } => "OptionError",
        Error::Memory { .. } => "NoMemoryError",
        Error::Hub { .. } => "HubError",
        _ => "Error",
    }
}

/// An `OptionError`.
pub fn option(py: Python<'_>, what: impl Into<String>) -> PyErr {
    exception(py, "OptionError", what.into())
}

fn exception(py: Python<'_>, class: &str, message: String) -> PyErr {
    let made = py.import("pocket_t5._errors").and_then(|errors| errors.getattr(class)?.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}
