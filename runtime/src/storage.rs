//! Immutable bytes that many views share: a mapped file, an owned buffer, or data compiled into the program.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Refuses what is there and not a file, before it is opened: opening a pipe would wait for a writer.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    let kind = std::fs::metadata(path).map_err(Error::io(path))?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(Error::format(path.display().to_string(), format!("expected a file, found {}", describe(kind))))
}

/// Whether both paths lead to one file that is there, however they are spelled and whatever links lie between.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// What something other than a file is.
fn describe(kind: std::fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "something else" }
}

/// A range of immutable bytes that keeps its owner alive. Cloning copies no data.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(Mapped),
    Owned(Vec<u8>),
    Static(&'static [u8]),
    /// The beginning of a file that is still arriving; the range may go beyond it.
    Beginning(Vec<u8>),
}

/// A mapped file.
#[cfg(not(target_arch = "wasm32"))]
struct Mapped {
    map: memmap2::Mmap,
    path: std::path::PathBuf,
    /// The same file, whatever has come to lie at the path since.
    file: std::sync::Mutex<std::fs::File>,
    /// Its time of change when it was mapped, where the system tells it.
    modified: Option<std::time::SystemTime>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Mapped {
    /// Refuses a file that was written since it was mapped.
    fn check_unchanged(&self) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let metadata = file.metadata().map_err(Error::io(&self.path))?;
        if metadata.len() == self.map.len() as u64 && metadata.modified().ok() == self.modified {
            return Ok(());
        }
        Err(Error::Changed { file: self.path.display().to_string() })
    }

    /// Reads a part of it from the file, not through the mapping: what is not there any more is an error.
    fn read(&self, range: &Range<usize>) -> Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut bytes = Vec::new();
        let what = "a copy of weights";
        bytes.try_reserve_exact(range.len()).map_err(|_| Error::Memory { what, bytes: range.len() })?;
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut reader = &*file;
        let read = reader.seek(SeekFrom::Start(range.start as u64)).and_then(|_| {
            // Room for all of it is there: nothing is allocated.
            reader.take(range.len() as u64).read_to_end(&mut bytes)
        });
        read.map_err(Error::io(&self.path))?;
        drop(file);
        self.check_unchanged()?;
        Ok(bytes)
    }
}

impl Bytes {
    /// Maps a file; nothing is read until it is used.
    ///
    /// Nobody may write the file in place while the mapping lives: bytes that were checked would become others under
    /// whoever holds them (a string that is no UTF-8, a count that reaches beyond the end), and a truncated file ends
    /// the process. No kind of mapping keeps a writer out. Writers of this project therefore replace files by
    /// renaming, which leaves the mapped one as it is; [`Bytes::check_unchanged`] tells afterwards, and what
    /// [`Bytes::copied`] gives is nobody else's.
    ///
    /// # Errors
    /// Where `path` is no file (a pipe would be waited for, and no end comes of a device) or cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn map(path: &Path) -> Result<Bytes> {
        check_file(path)?;
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.len() == 0 {
            // An empty file cannot be mapped everywhere.
            return Ok(Bytes::from_vec(Vec::new()));
        }
        // SAFETY: the mapping is read-only, and shared with whoever else has the file open: it is what the bytes are
        // taken for as long as nobody writes the file in place, which is asked for above and cannot be enforced.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        let (range, path, modified) = (0..map.len(), path.to_owned(), metadata.modified().ok());
        let mapped = Mapped { map, path, file: std::sync::Mutex::new(file), modified };
        Ok(Bytes { owner: Arc::new(Owner::Mapped(mapped)), range })
    }

    /// Reads a file whole, where files cannot be mapped.
    ///
    /// # Errors
    /// Where it cannot be read.
    #[cfg(target_arch = "wasm32")]
    pub fn map(path: &Path) -> Result<Bytes> {
        Ok(Bytes::from_vec(std::fs::read(path).map_err(Error::io(path))?))
    }

    /// Refuses bytes of a mapped file that was written in place since, by its size and its time of change. Others
    /// cannot change.
    ///
    /// # Errors
    /// [`Error::Changed`], and where the file's size cannot be asked for.
    pub fn check_unchanged(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Owner::Mapped(mapped) = &*self.owner {
            return mapped.check_unchanged();
        }
        Ok(())
    }

    /// The same bytes in memory that no file is behind: those of a mapped file are read from it, others are what they
    /// are.
    ///
    /// # Errors
    /// As [`Bytes::check_unchanged`], and where the file cannot be read or there is no memory.
    pub fn copied(&self) -> Result<Bytes> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Owner::Mapped(mapped) = &*self.owner {
            return mapped.read(&self.range).map(Bytes::from_vec);
        }
        Ok(self.clone())
    }

    /// Takes over a buffer.
    pub fn from_vec(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { owner: Arc::new(Owner::Owned(bytes)), range }
    }

    /// Refers to data compiled into the program.
    pub fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { owner: Arc::new(Owner::Static(bytes)), range: 0..bytes.len() }
    }

    /// The beginning of `len` bytes of which the rest has not arrived. Only [`Bytes::arrived`] may be read of those
    /// that go beyond it; everything else about them, such as their length, is known.
    pub(crate) fn from_beginning(beginning: Vec<u8>, len: usize) -> Bytes {
        Bytes { owner: Arc::new(Owner::Beginning(beginning)), range: 0..len }
    }

    /// What is here of these bytes: all, unless they are of a file that is still arriving.
    pub(crate) fn arrived(&self) -> &[u8] {
        let whole = self.owner();
        &whole[self.range.start.min(whole.len())..self.range.end.min(whole.len())]
    }

    /// The same place and length, without what has arrived.
    pub(crate) fn emptied(&self) -> Bytes {
        Bytes { owner: Arc::new(Owner::Beginning(Vec::new())), range: self.range.clone() }
    }

    /// Gives back what [`Bytes::from_beginning`] was given; a copy where other views exist.
    pub(crate) fn into_beginning(self) -> Vec<u8> {
        match Arc::try_unwrap(self.owner) {
            Ok(Owner::Beginning(bytes)) => bytes,
            Ok(_) => Vec::new(),
            Err(owner) => Bytes { range: self.range, owner }.arrived().to_vec(),
        }
    }

    /// Whether all of these bytes are here.
    pub(crate) fn is_whole(&self) -> bool {
        self.range.end <= self.owner().len()
    }

    /// Where these bytes lie in what they were cut from.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// How many bytes there are, those that have not arrived included.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn owner(&self) -> &[u8] {
        match &*self.owner {
            #[cfg(not(target_arch = "wasm32"))]
            Owner::Mapped(mapped) => &mapped.map,
            Owner::Owned(bytes) | Owner::Beginning(bytes) => bytes,
            Owner::Static(bytes) => bytes,
        }
    }

    /// A part of these bytes, `range` counted from their start. `None` if it reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Bytes { owner: self.owner.clone(), range: start..self.range.start + range.end })
    }

    /// Tells the operating system that these bytes will not be read soon: a mapped file's pages leave the
    /// process's memory (they stay in the file cache). Does nothing for other kinds of bytes.
    pub fn release(&self) {
        #[cfg(all(unix, not(target_arch = "wasm32")))]
        if let Owner::Mapped(Mapped { map, .. }) = &*self.owner {
            // SAFETY: the mapping is file-backed and read-only, so dropped pages are read again when touched.
            // A failure only costs memory.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.range.start, self.range.len())
            };
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}
