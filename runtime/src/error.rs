//! One error type for the library: what, where, what was expected, what was found.

use std::path::PathBuf;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with a file, a model or a request.
///
/// Each message is one sentence that names the place and the expectation, so that a program may print it as it is. It
/// says its cause itself; there is no [`source`](std::error::Error::source) that would say it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },

    /// The path is neither a Hugging Face folder nor a GGUF file.
    #[error("{path}: not a model: expected {expected}", path = .path.display())]
    NotAModel {
        /// What was to be opened.
        path: PathBuf,
        /// What there should be.
        expected: String,
    },

    /// A file's bytes do not follow its format.
    #[error("{file}: {what}")]
    Format {
        /// The file, as it was named.
        file: String,
        /// What was expected and what was found.
        what: String,
    },

    /// A file was written in place, or cut short, while it was mapped.
    #[error(
        "{file}: expected it as it was when it was opened, found it written since: open it again, and replace files by \
         renaming (or do not map them: --no-mmap)"
    )]
    Changed {
        /// The file, as it was named.
        file: String,
    },

    /// A tensor is missing, or its shape, type or values are not what the configuration asks for.
    #[error("{file}: tensor {tensor}: {what}")]
    Tensor {
        /// The file, as it was named.
        file: String,
        /// Its name there.
        tensor: String,
        /// What was expected and what was found.
        what: String,
    },

    /// A configuration key is missing or has a value that no T5 model can have.
    #[error("{file}: {key}: {what}")]
    Config {
        /// The file, as it was named.
        file: String,
        /// As Hugging Face names it.
        key: String,
        /// What was expected and what was found.
        what: String,
    },

    /// The vocabulary cannot be used.
    #[error("{file}: tokenizer: {what}")]
    Tokenizer {
        /// The file, as it was named.
        file: String,
        /// What was expected and what was found.
        what: String,
    },

    /// An option of a request is out of range or contradicts another one.
    #[error("{option}: {what}")]
    Option {
        /// The field of the options, or the argument.
        option: &'static str,
        /// What was expected and what was found.
        what: String,
    },

    /// There is not enough memory, or an option or a text asks for more than any machine has.
    #[error("not enough memory for {what}: {bytes} bytes more were wanted")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
    },

    /// The model hub could not be reached or does not have the file.
    #[error("hf:{repository}: {what}")]
    Hub {
        /// OWNER/NAME.
        repository: String,
        /// What went wrong.
        what: String,
    },
}

impl Error {
    /// An [`Error::Io`] for `path`, to be used with `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |error| Error::Io { path, error }
    }

    /// An [`Error::Format`].
    pub fn format(file: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Format { file: file.into(), what: what.into() }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(file: impl Into<String>, tensor: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Tensor { file: file.into(), tensor: tensor.into(), what: what.into() }
    }

    /// An [`Error::Config`].
    pub fn config(file: impl Into<String>, key: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Config { file: file.into(), key: key.into(), what: what.into() }
    }
}
