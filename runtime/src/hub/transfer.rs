//! One file of one commit into the cache, however often the connection breaks.
//!
//! `hf-hub` transfers and appends to `blobs/ETAG.part`. What it does not handle, and we do: a part file that is already
//! complete (it would ask for an empty range), a server that answers a range with the whole file, a blob that another
//! revision brought already, a link to a blob that is gone, the length of the result, and repetition. What it does not
//! let us change: it has no time limit for a silent connection, and to learn a file's size it asks the content network
//! for one byte with the token in the header (the transfer itself goes without).

use std::path::{Path, PathBuf};

use hf_hub::api::sync::Api;

use super::name::{HubName, is_plain_name};
use super::{Failure, Hub, Progress, repo};

pub(super) struct Transfer<'a> {
    pub hub: &'a Hub,
    pub api: &'a Api,
    pub name: &'a HubName,
    pub commit: &'a str,
}

impl Transfer<'_> {
    /// The path of `file` in the snapshot folder, transferred if it is not there.
    pub fn file(&self, file: &str, progress: &mut dyn Progress) -> Result<PathBuf, Failure> {
        let store = self.hub.store().repo(repo(self.name, self.commit));
        let pointer = store.pointer_path(self.commit).join(file);
        if pointer.is_file() {
            return Ok(pointer);
        }
        let mut failures = 0;
        loop {
            let mut part = None;
            match self.attempt(file, &pointer, progress, &mut part) {
                Ok(()) => return Ok(pointer),
                // Progress, ours or of another process that downloads the same file, earns a new set of attempts.
                Err(Failure::Broken(_)) if part.is_some_and(|part| length(&part.path) > part.start) => {
                    failures = 0;
                    self.hub.wait(&mut failures);
                }
                Err(Failure::Broken(_) | Failure::Unreachable(_)) if failures < self.hub.attempts => {
                    self.hub.wait(&mut failures);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One connection. Leaves in `part` which file grows.
    fn attempt(
        &self,
        file: &str,
        pointer: &Path,
        progress: &mut dyn Progress,
        part: &mut Option<Unfinished>,
    ) -> Result<(), Failure> {
        // By commit, not by branch: all files of a model come from the same one.
        let remote = self.api.repo(repo(self.name, self.commit));
        let failure = |error| Failure::new(error, self.hub, self.name, Some(file));
        let metadata = self.api.metadata(&remote.url(file)).map_err(failure)?;
        // These become file names.
        for (header, value) in [("ETag", metadata.etag()), ("X-Repo-Commit", metadata.commit_hash())] {
            if !is_plain_name(value) {
                return Err(Failure::Final(format!(
                    "{file}: expected a usable {header} from the hub, found {value:?}"
                )));
            }
        }
        if metadata.commit_hash() != self.commit {
            return Err(Failure::Final(format!(
                "{file}: expected commit {} from the hub, found {}",
                self.commit,
                metadata.commit_hash()
            )));
        }
        let size = metadata.size() as u64;
        let blob = self.hub.store().repo(repo(self.name, self.commit)).blob_path(metadata.etag());
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |error| Failure::Final(format!("{}: {error}", path.display()))
        };
        // A link whose blob is gone stands in the way of a new one.
        if pointer.symlink_metadata().is_ok() {
            std::fs::remove_file(pointer).map_err(disk(pointer))?;
        }
        if blob.is_file() && length(&blob) == size {
            return link(&blob, pointer, file).map_err(disk(pointer));
        }
        let partial = blob.with_extension("part");
        match length(&partial) {
            length if length > size => std::fs::remove_file(&partial).map_err(disk(&partial))?,
            // Complete, but its process ended before it could say so. One byte less makes a range that can be asked
            // for.
            length if length == size && size > 0 => {
                let part = std::fs::OpenOptions::new().write(true).open(&partial).map_err(disk(&partial))?;
                part.set_len(size - 1).map_err(disk(&partial))?;
            }
            _ => {}
        }
        *part = Some(Unfinished { start: length(&partial), path: partial });
        let adapter = Adapter { progress, file, size, running: false };
        remote.download_with_progress(file, adapter).map_err(failure)?;
        let found = length(&blob);
        if found != size {
            // Not what the hub announced, for example appended by a server that ignores ranges: begin anew.
            std::fs::remove_file(pointer).map_err(disk(pointer))?;
            std::fs::remove_file(&blob).map_err(disk(&blob))?;
            return Err(Failure::Broken(format!("{file}: expected {size} bytes, found {found}")));
        }
        Ok(())
    }
}

/// A file that a transfer appends to, and its length before.
struct Unfinished {
    path: PathBuf,
    start: u64,
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Puts a blob into a snapshot, as the cache layout wants it: a relative link, or a copy where there are no links.
fn link(blob: &Path, pointer: &Path, file: &str) -> std::io::Result<()> {
    if let Some(folder) = pointer.parent() {
        std::fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        // From snapshots/COMMIT/FILE, FILE perhaps in folders.
        let mut target: PathBuf = std::iter::repeat_n("..", 2 + file.matches('/').count()).collect();
        target.push("blobs");
        target.extend(blob.file_name());
        std::os::unix::fs::symlink(target, pointer)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        std::fs::copy(blob, pointer).map(|_| ())
    }
}

/// From the crate's progress calls to ours: it announces the size twice, then reports what is there already as the
/// first step.
struct Adapter<'a> {
    progress: &'a mut dyn Progress,
    file: &'a str,
    size: u64,
    running: bool,
}

impl hf_hub::api::Progress for Adapter<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.running = false;
    }

    fn update(&mut self, bytes: usize) {
        match self.running {
            true => self.progress.advance(bytes as u64),
            false => self.progress.start(self.file, self.size, bytes as u64),
        }
        self.running = true;
    }

    fn finish(&mut self) {
        self.progress.finish();
    }
}
