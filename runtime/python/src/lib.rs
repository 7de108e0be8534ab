//! Pocket T5 for Python: the module `pocket_t5._native`, which the package `pocket_t5` takes its classes from. Glue and
//! nothing else; `python/pocket_t5/_native.pyi` has the types.
//!
//! The GIL is released while a model works, and taken some twenty times a second to see whether Ctrl-C was pressed: all
//! work is done in pieces of bounded size.

mod download;
mod failure;
mod model;
mod options;
mod pieces;
mod results;
mod stream;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<results::Output>()?;
    module.add_class::<results::Score>()?;
    module.add_class::<results::Choice>()?;
    module.add_class::<results::Alignment>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::BatchStream>()
}
