//! Writing files so that a crash, a full disk or a kill leaves either the old state or the new one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use t5_runtime::output::OutputFile;
use t5_runtime::storage::Bytes;

use crate::{Error, Result};

/// Creates a folder with its parents.
///
/// # Errors
/// Where the operating system refuses.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(path))
}

/// A folder for this process alone, which goes when this value does. What a killed process left goes with the next one.
pub struct TemporaryFolder {
    path: PathBuf,
    /// Held for as long as the folder is in use.
    _lock: File,
}

/// The file in a temporary folder that tells one in use from one that was left.
const IN_USE: &str = "in-use";

impl TemporaryFolder {
    /// Makes one in `parent`.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn new(parent: &Path, name: &str) -> Result<TemporaryFolder> {
        let prefix = format!(".{name}-");
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_one = entry.file_name().to_string_lossy().starts_with(&prefix);
            if let Some(lock) = is_one.then(|| File::open(entry.path().join(IN_USE)).ok()).flatten()
                && lock.try_lock().is_ok()
            {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // Processes of other machines and containers may have the same number.
        for number in std::process::id().. {
            let path = parent.join(format!("{prefix}{number}"));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io(&path)(error)),
            }
            let lock = File::create(path.join(IN_USE)).map_err(Error::io(&path))?;
            // Where there are no locks, nobody finds it free, either.
            let _ = lock.lock();
            // Another process may have taken it for one that was left before it was locked.
            if path.exists() {
                return Ok(TemporaryFolder { path, _lock: lock });
            }
        }
        Err(Error::file(parent, "expected room for a temporary folder"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes a file and waits until it is on the disk.
///
/// # Errors
/// Where the operating system refuses, for instance because the disk is full.
pub fn write_synced(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io(path))?;
    file.write_all(contents).map_err(Error::io(path))?;
    file.sync_all().map_err(Error::io(path))
}

/// Opens a file to read and to add to, or makes it, for this process alone. `taken` says what is wrong where another
/// has it.
///
/// # Errors
/// Where another process has it open this way, or it cannot be opened.
pub fn open_alone(path: &Path, taken: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::file(path, taken)),
        // Some network file systems have no locks, and say so by different errors.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Replaces a file's contents in one step.
///
/// # Errors
/// Where the operating system refuses; the old file is then still there.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    Ok(OutputFile::replace(path, contents)?)
}

/// Puts a file in its place whose last bytes may not have been written yet; `path` names it in messages.
///
/// # Errors
/// Where the operating system refuses; the old file, if there was one, is then still there.
pub fn commit(file: BufWriter<OutputFile>, path: &Path) -> Result<()> {
    let file = file.into_inner().map_err(|error| Error::io(path)(error.into_error()))?;
    Ok(file.commit()?)
}

/// Writes a value as JSON, in one step.
///
/// # Errors
/// Where the operating system refuses; the old file is then still there.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    replace(path, &text)
}

/// The value in a file that [`write_json`] wrote; `None` where there is no file.
///
/// # Errors
/// Where it cannot be read, or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| Error::file(path, format!("expected what t5-train wrote: {error}")))
}

/// A hash as it stands in files and in their names.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes renames in the file's folder durable.
///
/// # Errors
/// Where the operating system refuses.
pub fn sync_parent(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(Error::io(parent))?;
    }
    Ok(())
}

/// Writes named f32 tensors as one safetensors file, in one step, and waits until it is on the disk. Somebody may have
/// the old file mapped.
///
/// # Errors
/// Where the operating system refuses.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a [usize], Cow<'a, [f32]>)>,
) -> Result<()> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|(first, ..), (second, ..)| first.cmp(second));
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, shape, values)| {
        let start = offset;
        offset += 4 * values.len();
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), data_offsets: (start, offset) })
    });
    // transformers refuses a file without this entry.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, error.to_string());
    let header = Metadata::new(Some(format), infos.collect()).map_err(|error| wrong(&error))?;
    let mut header = serde_json::to_vec(&header).map_err(|error| wrong(&error))?;
    // So that values are aligned where the file is mapped.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::with_capacity(1 << 20, OutputFile::create(path)?);
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for (.., values) in &tensors {
        values.iter().try_for_each(|value| write(&value.to_le_bytes()))?;
    }
    commit(file, path)
}

/// A safetensors file of f32 tensors.
pub struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
}

impl TensorFile {
    /// Opens it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(path: &Path) -> Result<TensorFile> {
        Ok(TensorFile { path: path.to_owned(), bytes: Bytes::map(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many values each tensor has, by name.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn lengths(&self) -> Result<HashMap<String, usize>> {
        let tensors = self.tensors()?;
        Ok(tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().iter().product::<usize>())).collect())
    }

    /// The values of one tensor.
    ///
    /// # Errors
    /// Where the file is damaged, or the tensor is not there or not f32.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let damaged = |what: String| Error::file(&self.path, what);
        let file = self.tensors()?;
        let view = file.tensor(name).map_err(|error| damaged(error.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(damaged(format!("{name}: expected f32 values, found {:?}", view.dtype())));
        }
        Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| Error::file(&self.path, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    #[test]
    fn temporary_folders_go_also_those_that_were_left() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".eval-1");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(IN_USE), "").unwrap();
        fs::write(left.join("model"), "large").unwrap();
        let first = TemporaryFolder::new(folder.path(), "eval").unwrap();
        assert!(!left.exists());
        let second = TemporaryFolder::new(folder.path(), "eval").unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().is_dir() && second.path().is_dir());
        drop((first, second));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn values_are_read_back_and_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2]));
        let message = read_json::<String>(&path).unwrap_err().to_string();
        assert!(message.contains("value.json: expected what t5-train wrote: "), "{message}");
    }

    #[test]
    fn tensors_are_read_back_and_the_file_is_as_readable_as_any_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("model.safetensors"), folder.path().join("other"));
        for values in [[1.5f32, -2.0], [0.25, 8.0]] {
            let shape: &[usize] = &[2];
            let tensor = |name: &str| (name.to_owned(), shape, Cow::Owned(values.to_vec()));
            write_tensors(&path, [tensor("x"), tensor("a")]).unwrap();
            let file = TensorFile::open(&path).unwrap();
            assert_eq!(file.read("x").unwrap(), values);
            assert_eq!(file.lengths().unwrap(), HashMap::from([("x".to_owned(), 2), ("a".to_owned(), 2)]));
            // To the last byte what the library makes of them.
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
            let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            let expected = safetensors::serialize([("x", &view), ("a", &view)], Some(format)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), expected);
        }
        File::create(&other).unwrap();
        let permissions = |path: &Path| fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions(&path), permissions(&other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }
}
