//! Where things lie.

use std::path::{Path, PathBuf};

pub use crate::shared::shared;

/// The workspace root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// A path under tests/golden.
pub fn golden(path: &str) -> PathBuf {
    workspace().join("tests/golden").join(path)
}
