//! One error type for the trainer: what, where, what was expected, what was found.

use std::path::PathBuf;

/// The trainer's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can stop a run. Each message is one sentence that may be printed as it is; it says its cause itself,
/// and there is no source that would say it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file, its configuration or its vocabulary.
    #[error(transparent)]
    Model(#[from] t5_runtime::Error),

    /// A tensor operation failed: a bug, or memory ran out on the device.
    #[error("tensor operation: {0}")]
    Tensor(candle_core::Error),

    /// The operating system refused to read or write a file.
    #[error("{path}: {error}", path = .path.display())]
    Io { path: PathBuf, error: std::io::Error },

    /// A line of a data file is not what its format asks for. `line` counts from 1.
    #[error("{path}:{line}: {what}", path = .path.display())]
    Data { path: PathBuf, line: usize, what: String },

    /// A file as a whole cannot be used.
    #[error("{path}: {what}", path = .path.display())]
    File { path: PathBuf, what: String },

    /// A key of the run configuration.
    #[error("{file}: {key}: {what}")]
    Config { file: String, key: String, what: String },

    /// A field of an options' structure, which a command may call by another name.
    #[error("{option}: {what}")]
    Option { option: &'static str, what: String },

    /// Nothing of a study can be run, or an arm cannot that is asked for. Each line says why, one of a data set.
    #[error("{what}: {}", .why.join("\n"))]
    LeftOut { what: String, why: Vec<String> },

    /// The loss or a gradient is not a number any more, or too large.
    #[error("{0}")]
    Diverged(String),

    /// The processes of a run do not fit together, one of them failed where all have to succeed, or all failed alike.
    #[error("{0}")]
    Ranks(String),

    /// Anything else that is the user's to mend.
    #[error("{0}")]
    Invalid(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Tensor(error)
    }
}

impl Error {
    /// An [`Error::Io`] for `path`, to be used with `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |error| Error::Io { path, error }
    }

    /// Whether all ranks of a run have this error, so that one has to say it.
    pub fn is_of_all_ranks(&self) -> bool {
        matches!(self, Error::Diverged(_) | Error::Ranks(_))
    }

    /// An [`Error::Data`].
    pub fn data(path: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Error {
        Error::Data { path: path.into(), line, what: what.into() }
    }

    /// An [`Error::File`].
    pub fn file(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::File { path: path.into(), what: what.into() }
    }

    /// An [`Error::Config`].
    pub fn config(file: impl Into<String>, key: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Config { file: file.into(), key: key.into(), what: what.into() }
    }
}
