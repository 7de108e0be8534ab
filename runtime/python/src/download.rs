//! Models by path or name, and who is told of a download.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use t5_runtime::hub::{self, Progress};

use crate::failure::raised;

/// Tells a Python function of a download, or a terminal, or nobody; and hears Ctrl-C.
struct Listener {
    function: Option<Py<PyAny>>,
    terminal: Option<hub::TerminalProgress>,
    file: String,
    done: u64,
    size: u64,
}

/// What a download ends with that is not to go on.
struct Ended(PyErr);

impl Listener {
    /// A signal, or an exception of the function, ends the download: what there is of the file stays for the next one.
    fn tell(&self) {
        let told = Python::attach(|py| {
            py.check_signals()?;
            match &self.function {
                Some(function) => function.call1(py, (&self.file, self.done, self.size)).map(drop),
                None => Ok(()),
            }
        });
        if let Err(error) = told {
            // The hub's listeners cannot refuse. This unwinds through it, up to `fetch`, without being told as a panic.
            resume_unwind(Box::new(Ended(error)));
        }
    }
}

impl Progress for Listener {
    fn start(&mut self, file: &str, size: u64, done: u64) {
        (self.file, self.size, self.done) = (file.to_owned(), size, done);
        if let Some(terminal) = &mut self.terminal {
            terminal.start(file, size, done);
        }
        self.tell();
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(terminal) = &mut self.terminal {
            terminal.advance(bytes);
        }
        self.tell();
    }

    fn finish(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.finish();
        }
    }
}

/// Where a model, or only its tokenizer, lies: the path itself, or where the hub's cache keeps it. `progress` is True
/// for a bar on a terminal, False, or a function of a file's name, of the bytes of it that are there, and of all.
pub fn local(path: &Path, tokenizer_only: bool, progress: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let py = progress.py();
    let Some(name) = path.to_str().filter(|name| hub::is_hub_name(name)) else { return Ok(path.to_owned()) };
    let bar = progress.extract::<bool>();
    let function = if bar.is_err() && !progress.is_none() { Some(progress.clone().unbind()) } else { None };
    let terminal = matches!(bar, Ok(true)).then(hub::TerminalProgress::default);
    let mut listener = Listener { function, terminal, file: String::new(), done: 0, size: 0 };
    let fetched = py.detach(|| {
        let fetch = || match tokenizer_only {
            true => hub::fetch_tokenizer(name, &mut listener),
            false => hub::fetch(name, &mut listener),
        };
        catch_unwind(AssertUnwindSafe(fetch))
    });
    match fetched {
        Ok(path) => path.map_err(|error| raised(py, error)),
        Err(panic) => match panic.downcast::<Ended>() {
            Ok(ended) => Err(ended.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}
