//! Writing files so that a crash, a full disk or a kill leaves either the old state or the new one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, View};
use t5_runtime::storage::Bytes;

use crate::{Error, Result};

/// Creates a folder with its parents.
///
/// # Errors
/// Where the operating system refuses.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(path))
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

/// Replaces a file's contents in one step.
///
/// # Errors
/// Where the operating system refuses; the old file is then still there.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    write_synced(&partial, contents)?;
    fs::rename(&partial, path).map_err(Error::io(path))?;
    sync_parent(path)
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

/// f32 values of a shape on their way into a safetensors file.
struct Values<'a> {
    shape: &'a [usize],
    values: Cow<'a, [f32]>,
}

impl View for &Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// Writes named f32 tensors as one safetensors file, in one step, and waits until it is on the disk.
///
/// # Errors
/// Where the operating system refuses.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a [usize], Cow<'a, [f32]>)>,
) -> Result<()> {
    let tensors: Vec<(String, Values)> =
        tensors.into_iter().map(|(name, shape, values)| (name, Values { shape, values })).collect();
    // transformers refuses a file without this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|(name, values)| (name.as_str(), values));
    // Under another name first: somebody may have the old file mapped.
    let partial = path.with_extension("partial");
    // The library makes files that nobody else may read; ours are to have the mode that new files have here.
    let created = File::create(&partial).and_then(|file| file.metadata()).map_err(Error::io(path))?;
    let written = safetensors::serialize_to_file(views, Some(metadata), &partial).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::Io { path: path.to_owned(), source },
        error => Error::file(path, error.to_string()),
    });
    let written = written.and_then(|()| fs::set_permissions(&partial, created.permissions()).map_err(Error::io(path)));
    let synced = written.and_then(|()| File::open(&partial).and_then(|file| file.sync_all()).map_err(Error::io(path)));
    let renamed = synced.and_then(|()| fs::rename(&partial, path).map_err(Error::io(path)));
    if renamed.is_err() {
        // Gives the space back; the error that matters is the first one.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

/// A safetensors file of f32 tensors.
pub struct TensorFile {
    path: std::path::PathBuf,
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

    /// The values of one tensor.
    ///
    /// # Errors
    /// Where the file is damaged, or the tensor is not there or not f32.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let damaged = |what: String| Error::file(&self.path, what);
        let file = SafeTensors::deserialize(&self.bytes).map_err(|error| damaged(error.to_string()))?;
        let view = file.tensor(name).map_err(|error| damaged(error.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(damaged(format!("{name}: expected f32 values, found {:?}", view.dtype())));
        }
        Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_read_back_and_the_file_is_as_readable_as_any_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("model.safetensors"), folder.path().join("other"));
        for values in [[1.5f32, -2.0], [0.25, 8.0]] {
            let shape: &[usize] = &[2];
            write_tensors(&path, [("x".to_owned(), shape, Cow::Borrowed(values.as_slice()))]).unwrap();
            assert_eq!(TensorFile::open(&path).unwrap().read("x").unwrap(), values);
        }
        File::create(&other).unwrap();
        let permissions = |path: &Path| fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions(&path), permissions(&other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }
}
