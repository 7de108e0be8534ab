//! Models split over several files, `NAME-00001-of-00003.gguf` and so on: the first has all metadata.

use std::collections::HashSet;
use std::path::Path;

use super::reader::File;
use crate::error::{Error, Result};
use crate::storage::Bytes;

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

impl File {
    /// Maps a file and, if it is the first of several, the others, too; all tensors are then in the one that is
    /// returned.
    pub fn open(path: &Path) -> Result<File> {
        let mut file = File::parse(&path.display().to_string(), Bytes::map(path)?)?;
        let count = file.split_count()?;
        if count < 2 {
            return Ok(file);
        }
        let (stem, number) = stem(path, count).ok_or_else(|| {
            let what = format!("expected a name that ends in -00001-of-{count:05}.gguf, as one of {count} files has");
            Error::format(file.name(), what)
        })?;
        if number != 1 || file.unsigned(NUMBER)?.unwrap_or(0) != 0 {
            let what = format!("part {number} of {count}: expected the first, {stem}-00001-of-{count:05}.gguf");
            return Err(Error::format(file.name(), what));
        }
        let mut names: HashSet<String> = file.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        for number in 2..=count {
            let path = path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf"));
            let part = File::parse(&path.display().to_string(), Bytes::map(&path)?)?;
            part.check_place(number, count)?;
            for tensor in part.into_tensors() {
                if !names.insert(tensor.name.clone()) {
                    return Err(tensor.error(format!("expected each name once in {count} files, found it twice")));
                }
                file.tensors.push(tensor);
            }
        }
        if let Some(expected) = file.unsigned(TENSORS)?
            && expected != file.tensors.len() as u64
        {
            let what = format!("expected {expected} tensors in {count} files, found {}", file.tensors.len());
            return Err(file.error(TENSORS, what));
        }
        Ok(file)
    }

    /// Over how many files the model is split; 1 if this is all.
    pub fn split_count(&self) -> Result<u64> {
        Ok(self.unsigned(COUNT)?.unwrap_or(1).max(1))
    }

    /// Checks that this is part `number` (from 1) of `count`.
    fn check_place(&self, number: u64, count: u64) -> Result<()> {
        for (key, expected) in [(COUNT, count), (NUMBER, number - 1)] {
            let found = self.unsigned(key)?;
            if found != Some(expected) {
                let found = found.map_or("nothing".to_owned(), |found| found.to_string());
                return Err(self.error(key, format!("expected {expected}, found {found}")));
            }
        }
        Ok(())
    }
}

/// The name without `-NNNNN-of-NNNNN.gguf`, and the number; `None` if it does not end so.
fn stem(path: &Path, count: u64) -> Option<(&str, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (stem, number) = name.rsplit_once('-')?;
    Some((stem, number.parse().ok()?))
}
