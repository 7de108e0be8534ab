//! Pages between the steps of a job: a file of JSON lines for each part.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::clean::LineCounts;
use super::report::Removed;
use crate::{Error, Result};

/// Pages that are worked on together, or as many as have so many bytes.
pub const BATCH: (usize, usize) = (512, 4 << 20);

/// A page between reading and writing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timestamp: String,
    /// Bytes of the text as it was read.
    pub bytes: u64,
    /// The rule that removed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    #[serde(default, skip_serializing_if = "LineCounts::is_zero")]
    pub lines: LineCounts,
    #[serde(default)]
    pub text: String,
}

/// Calls `f` with the rows of a part, some at a time, and the first one's number.
///
/// # Errors
/// Where the file cannot be read or has something else, or `f` says so.
pub fn for_each_rows(path: &Path, mut f: impl FnMut(u32, &[Row]) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path))?;
    let (mut batch, mut first, mut bytes) = (Vec::new(), 0u32, 0);
    for (line, number) in BufReader::with_capacity(1 << 20, file).lines().zip(1..) {
        let line = line.map_err(Error::io(path))?;
        bytes += line.len();
        let row = serde_json::from_str(&line)
            .map_err(|error| Error::data(path, number, format!("expected a page of this job: {error}")))?;
        batch.push(row);
        if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
            f(first, &batch)?;
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            let few = || Error::file(path, "expected fewer than 4,294,967,295 pages in a file");
            first = first.checked_add(count).ok_or_else(few)?;
            batch.clear();
            bytes = 0;
        }
    }
    f(first, &batch)
}

/// Writes a value as a line of JSON; `path` names the file in messages.
///
/// # Errors
/// Where the operating system refuses.
pub fn write_line(out: &mut impl Write, value: &impl Serialize, path: &Path) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|error| Error::file(path, error.to_string()))?;
    line.push(b'\n');
    out.write_all(&line).map_err(Error::io(path))
}
