//! Files that appear whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Error as IoError, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const SUFFIX: &str = ".partial";

/// How long names of partial files are at most before the process's number is added: file systems allow 255 bytes.
const LONGEST: usize = 200;

const NO_FILE: &str = "expected a file to write, found something else";

/// How many links are followed one after the other, as on Linux.
const MOST_LINKS: usize = 40;

/// A file that is written beside its target, as `TARGET.PID.partial`, and takes the target's place when it is
/// complete and on the disk. Whatever happens before (an error, a kill, a full disk) leaves the target as it was.
///
/// Dropping it removes what was written. What a killed process could not remove is removed by the next one that
/// writes the same target; a lock tells files of the living from those of the dead.
#[derive(Debug)]
pub struct OutputFile {
    /// The target as the caller named it, for messages.
    shown: PathBuf,
    target: PathBuf,
    partial: PathBuf,
    file: File,
    committed: bool,
}

impl OutputFile {
    /// Starts a file that is to replace `target`, or to become it. A link stays a link: what it points to is replaced,
    /// or made.
    ///
    /// # Errors
    /// Where `target` is something other than a file, links lead in a circle, or its folder cannot be written.
    pub fn create(target: &Path) -> Result<OutputFile> {
        let shown = target.to_owned();
        let target = target_of(target)?;
        let folder = folder_of(&target);
        let stem = stem(target.file_name().unwrap_or_default());
        remove_stale(folder, &stem);
        let mut attempt = 0;
        let (partial, file) = loop {
            // A process may well write the same target twice at once.
            let number = if attempt == 0 { String::new() } else { format!("-{attempt}") };
            attempt += 1;
            let mut partial_name = stem.clone();
            partial_name.push(format!(".{}{number}{SUFFIX}", std::process::id()));
            let partial = folder.join(partial_name);
            let file = match OpenOptions::new().write(true).create_new(true).open(&partial) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 100 => continue,
                Err(error) => return Err(Error::io(&shown)(error)),
            };
            // Some network file systems have no locks; then nobody finds ours free, either.
            let _ = file.lock();
            // Another process may have taken it for a stale one between its creation and its lock.
            if partial.exists() {
                break (partial, file);
            }
        };
        Ok(OutputFile { shown, target, partial, file, committed: false })
    }

    /// The file that is replaced or made: no link, and in one spelling whatever the caller's was.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Replaces the contents of `path` by `contents`, or makes the file.
    ///
    /// # Errors
    /// Where the system refuses; then the file is as it was.
    pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
        let mut file = OutputFile::create(path)?;
        file.write_all(contents).map_err(Error::io(path))?;
        file.commit()
    }

    /// Puts the file in the target's place, after its bytes are on the disk.
    ///
    /// # Errors
    /// Where the system refuses; then the target is as it was.
    pub fn commit(mut self) -> Result<()> {
        put_in_place(&self.file, &self.partial, &self.target).map_err(Error::io(&self.shown))?;
        self.committed = true;
        Ok(())
    }
}

/// The file that a path names, whether or not it is there: links are followed, also one that leads nowhere yet.
///
/// # Errors
/// Where it is something other than a file, links lead in a circle, or its folder is not there.
pub fn target_of(path: &Path) -> Result<PathBuf> {
    let target = resolve(path).map_err(Error::io(path))?;
    let wrong = |what: &str| Err(Error::io(path)(IoError::new(ErrorKind::InvalidInput, what)));
    match target.exists() && !target.is_file() {
        true => wrong(NO_FILE),
        false if target.file_name().is_none() => wrong("expected the name of a file to write"),
        false => Ok(target),
    }
}

/// Gives a file that was written under another name in the same folder the name `target`, in the place of what is
/// there, after its bytes are on the disk.
///
/// # Errors
/// Where the system refuses; then what is there is as it was.
pub fn put_in_place(file: &File, partial: &Path, target: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    std::fs::rename(partial, target)?;
    // The new name is on the disk once the folder is. Only Unix can ask for that, and has to.
    #[cfg(unix)]
    File::open(folder_of(target))?.sync_all()?;
    Ok(())
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing can be done about a failure here; the next writer of the target tries again.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Where the bytes of `path` lie, or would lie: links are followed, also one that leads nowhere yet.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(name) = target.file_name() else { return std::fs::canonicalize(&target) };
        let folder = std::fs::canonicalize(folder_of(&target))?;
        // /dev/stdout and the like stand for what is open: the file behind it is being written, and is not replaced.
        if folder.starts_with("/proc") {
            return Err(IoError::new(ErrorKind::InvalidInput, NO_FILE));
        }
        match std::fs::read_link(&target) {
            Ok(next) => target = folder.join(next),
            Err(_) => return Ok(folder.join(name)),
        }
    }
    Err(IoError::new(ErrorKind::InvalidInput, format!("expected at most {MOST_LINKS} links one after the other")))
}

/// How the names of a file's partial files start: its own name, or its beginning and a number where it is long.
fn stem(name: &OsStr) -> OsString {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let start: String = name.to_string_lossy().chars().take(LONGEST / 8).collect();
    format!("{start}~{:016x}", hasher.finish()).into()
}

/// Removes the partial files with this [`stem`] whose writers are gone.
fn remove_stale(folder: &Path, stem: &OsStr) {
    let prefix = format!("{}.", stem.to_string_lossy());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let pid = found.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
        if !pid.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')) {
            continue;
        }
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        match file.try_lock() {
            // The lock is ours until `file` is closed, after the removal.
            Ok(()) => drop(std::fs::remove_file(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_target_changes_only_on_commit() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let mut file = OutputFile::create(&target).unwrap();
        file.write_all(b"first").unwrap();
        assert_eq!(names(folder.path()), [format!("model.gguf.{}.partial", std::process::id())]);
        let other = OutputFile::create(&target).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(other);
        file.commit().unwrap();
        assert_eq!(names(folder.path()), ["model.gguf"]);

        let mut file = OutputFile::create(&target).unwrap();
        file.write_all(b"second").unwrap();
        drop(file);
        assert_eq!(names(folder.path()), ["model.gguf"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"first");
    }

    #[test]
    fn files_of_dead_writers_are_removed_and_those_of_living_ones_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        for name in ["model.gguf.1.partial", "model.gguf.x.partial", "other.gguf.1.partial", "model.gguf.2.partial"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let living = File::open(folder.path().join("model.gguf.2.partial")).unwrap();
        living.lock().unwrap();
        OutputFile::create(&target).unwrap().commit().unwrap();
        assert_eq!(
            names(folder.path()),
            ["model.gguf", "model.gguf.2.partial", "model.gguf.x.partial", "other.gguf.1.partial"]
        );
    }

    #[test]
    fn only_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let error = OutputFile::create(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("expected a file to write, found something else"), "{error}");
        let error = OutputFile::create(&folder.path().join("no/model.gguf")).unwrap_err().to_string();
        assert!(error.contains("no/model.gguf: "), "{error}");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        let (real, link) = (folder.path().join("real/model.gguf"), folder.path().join("link.gguf"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = OutputFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        assert!(link.is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_yet_leads_to_the_new_file() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("real")).unwrap();
        symlink("second.gguf", path("first.gguf")).unwrap();
        symlink("real/model.gguf", path("second.gguf")).unwrap();
        let mut file = OutputFile::create(&path("first.gguf")).unwrap();
        assert_eq!(file.target(), std::fs::canonicalize(folder.path()).unwrap().join("real/model.gguf"));
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(path("real/model.gguf")).unwrap(), b"new");
        assert!(path("first.gguf").is_symlink() && path("second.gguf").is_symlink());

        symlink("circle.gguf", path("circle.gguf")).unwrap();
        assert!(OutputFile::create(&path("circle.gguf")).is_err());
        assert!(path("circle.gguf").is_symlink());
    }

    #[test]
    fn names_may_be_as_long_as_the_file_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a".repeat(LONGEST + 1), "a".repeat(255), "é".repeat(127)] {
            let target = folder.path().join(&name);
            let partial = format!("{}.1{SUFFIX}", stem(OsStr::new(&name)).to_string_lossy());
            std::fs::write(folder.path().join(partial), "of a dead writer").unwrap();
            OutputFile::replace(&target, b"new").unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"new");
            assert_eq!(names(folder.path()), [name]);
            std::fs::remove_file(target).unwrap();
        }
    }
}
