//! Where things lie.

use std::path::{Path, PathBuf};

/// The workspace root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// A path under tests/golden.
pub fn golden(path: &str) -> PathBuf {
    workspace().join("tests/golden").join(path)
}

/// A path in the folder of shared data (`../shared`, or the variable `POCKET_T5_SHARED`); `None`, with a printed
/// reason, where it is absent, since the project must test without it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("POCKET_T5_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => workspace().join("../shared"),
    };
    let path = folder.join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}
