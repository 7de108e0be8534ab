//! The folder of shared data, for the tests of every crate: the crates below this one include the file by its path.

use std::path::{Path, PathBuf};

/// A path in the folder of shared data (`../shared` beside the workspace, or the variable `POCKET_T5_SHARED`); `None`,
/// with a printed reason, where it is absent, since the project must test without it.
pub fn shared(path: &str) -> Option<PathBuf> {
    // Each crate lies in a folder of its own in the workspace.
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let path = std::env::var_os("POCKET_T5_SHARED").map_or_else(beside, PathBuf::from).join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}
