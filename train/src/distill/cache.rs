//! What a teacher said, on the disk: one file for each teacher, temperature and number of classes, named by what the
//! model holds.
//!
//! The file is a head (magic, digest, classes) and records, which are only ever added: the key of an example, its
//! number of targets, a checksum, and for each target its classes (u32) and their probabilities (f16). A record that a
//! killed process left half written is cut off when the file is opened; a damaged one is computed again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use t5_runtime::command;

use super::Answer;
use crate::{Error, Result, files};

const MAGIC: &[u8; 8] = b"T5TEACH1";
/// Magic, digest, classes.
const HEAD: u64 = 8 + 32 + 4;
/// Key, targets, checksum.
const RECORD_HEAD: usize = 16 + 4 + 4;
/// Of one class: id and probability.
const CLASS: usize = 4 + 2;

/// CRC-32C.
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// An example by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of an example's ids.
    pub fn new(inputs: &[u32], targets: &[u32]) -> Key {
        let mut digest = Sha256::new();
        digest.update((inputs.len() as u64).to_le_bytes());
        inputs.iter().chain(targets).for_each(|id| digest.update(id.to_le_bytes()));
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        Key(key)
    }
}

/// Where a record is.
#[derive(Clone, Copy)]
struct Place {
    /// Of the record's head.
    start: u64,
    targets: u32,
}

/// An open cache.
pub struct Cache {
    path: PathBuf,
    file: File,
    index: HashMap<Key, Place>,
    classes: usize,
    /// Bytes that are written.
    len: u64,
    /// The most bytes that the file may have.
    limit: u64,
    /// Records that are not written yet.
    pending: Vec<u8>,
    full: bool,
}

impl Cache {
    /// Opens the file of a digest in a folder, or makes it.
    ///
    /// # Errors
    /// Where the file is open in another process, is not such a file, or the operating system refuses.
    pub fn open(folder: &Path, digest: [u8; 32], classes: usize, limit: u64) -> Result<Cache> {
        files::create_folder(folder)?;
        let path = folder.join(format!("{}.probabilities", files::hex(&digest[..8])));
        let taken = "is written by another run; expected a distill.cache that no other run uses at this time";
        let mut file = files::open_alone(&path, taken)?;
        let mut head = [&MAGIC[..], &digest].concat();
        head.extend((classes as u32).to_le_bytes());
        let size = file.metadata().map_err(Error::io(&path))?.len();
        let mut found = vec![0; head.len().min(size as usize)];
        file.read_exact(&mut found).map_err(Error::io(&path))?;
        if !head.starts_with(&found) {
            return Err(Error::file(&path, "expected what this teacher said before, found another file"));
        }
        let mut cache =
            Cache { path, file, index: HashMap::new(), classes, len: HEAD, limit, pending: Vec::new(), full: false };
        if size < HEAD {
            // New, or its head was never finished.
            cache.file.set_len(0).map_err(Error::io(&cache.path))?;
            cache.len = 0;
            cache.write(&head)?;
        } else {
            cache.read_index(size)?;
        }
        Ok(cache)
    }

    fn record_bytes(&self, targets: u32) -> u64 {
        (RECORD_HEAD + targets as usize * self.classes * CLASS) as u64
    }

    /// Finds every whole record and cuts off what is behind the last one.
    fn read_index(&mut self, size: u64) -> Result<()> {
        let io = |error| Error::io(&self.path)(error);
        let mut reader = BufReader::with_capacity(1 << 16, &self.file);
        reader.seek(SeekFrom::Start(HEAD)).map_err(io)?;
        let mut at = HEAD;
        while at + RECORD_HEAD as u64 <= size {
            let mut head = [0; RECORD_HEAD];
            reader.read_exact(&mut head).map_err(io)?;
            let mut key = [0; 16];
            key.copy_from_slice(&head[..16]);
            let targets = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
            let bytes = self.record_bytes(targets);
            if at + bytes > size {
                break;
            }
            self.index.insert(Key(key), Place { start: at, targets });
            reader.seek_relative((bytes - RECORD_HEAD as u64) as i64).map_err(io)?;
            at += bytes;
        }
        self.file.set_len(at).map_err(Error::io(&self.path))?;
        self.len = at;
        Ok(())
    }

    /// What the teacher said of an example, or `None` where that is not known or damaged.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&mut self, key: &Key, targets: usize) -> Result<Option<Answer>> {
        let Some(&place) = self.index.get(key).filter(|place| place.targets as usize == targets) else {
            return Ok(None);
        };
        let mut record = vec![0; self.record_bytes(place.targets) as usize];
        self.file.seek(SeekFrom::Start(place.start)).map_err(Error::io(&self.path))?;
        self.file.read_exact(&mut record).map_err(Error::io(&self.path))?;
        let (head, payload) = record.split_at(RECORD_HEAD);
        let checksum = u32::from_le_bytes([head[20], head[21], head[22], head[23]]);
        if head[..16] != key.0 || checksum != CHECKSUM.checksum(payload) {
            self.index.remove(key);
            return Ok(None);
        }
        let (ids, probabilities) = payload.split_at(4 * targets * self.classes);
        Ok(Some(Answer {
            ids: ids.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            probabilities: probabilities.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]])).collect(),
        }))
    }

    /// Notes an answer for the next [`Cache::flush`]; where there is no more room, says so once and forgets it.
    pub fn add(&mut self, key: &Key, answer: &Answer) {
        let targets = (answer.ids.len() / self.classes) as u32;
        let start = self.len + self.pending.len() as u64;
        if start + self.record_bytes(targets) > self.limit {
            if !self.full {
                let (path, limit) = (self.path.display(), self.limit as f64 / 1e9);
                command::say(format_args!(
                    "{path}: full ({limit} GB, distill.cache_gb); what is not in it is computed each time"
                ));
            }
            self.full = true;
            return;
        }
        let mut payload = Vec::with_capacity(answer.ids.len() * CLASS);
        answer.ids.iter().for_each(|id| payload.extend(id.to_le_bytes()));
        answer.probabilities.iter().for_each(|p| payload.extend(p.to_le_bytes()));
        self.pending.extend(key.0);
        self.pending.extend(targets.to_le_bytes());
        self.pending.extend(CHECKSUM.checksum(&payload).to_le_bytes());
        self.pending.extend(payload);
        self.index.insert(*key, Place { start, targets });
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// Where the disk is full.
    pub fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.write(&pending)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.file.seek(SeekFrom::Start(self.len)).map_err(Error::io(&self.path))?;
            self.file.write_all(bytes).map_err(Error::io(&self.path))?;
            self.len += bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(start: u32) -> Answer {
        let probabilities = (0..6).map(|i| half::f16::from_f32(0.3 / (i + start) as f32)).collect();
        Answer { ids: (start..start + 6).collect(), probabilities }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_torn_or_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(folder.path(), [7; 32], 3, 1 << 20).unwrap();
        let keys: Vec<Key> = (1..4).map(|i| Key::new(&[5, i], &[6, 1])).collect();
        let mut cache = open();
        let path = cache.path.clone();
        for (start, key) in (1..).zip(&keys) {
            assert_eq!(cache.read(key, 2).unwrap(), None);
            cache.add(key, &answer(start));
        }
        cache.flush().unwrap();
        assert_eq!(cache.read(&keys[1], 2).unwrap(), Some(answer(2)));
        let error = Cache::open(folder.path(), [7; 32], 3, 1 << 20).err().unwrap().to_string();
        assert!(error.contains("written by another run"), "{error}");
        drop(cache);

        // A kill in the middle of the last record, and a flipped bit in the first.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        bytes[HEAD as usize + RECORD_HEAD + 2] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut cache = open();
        let found: Vec<_> = keys.iter().map(|key| cache.read(key, 2).unwrap()).collect();
        assert_eq!(found, [None, Some(answer(2)), None]);
        cache.add(&keys[0], &answer(1));
        cache.add(&keys[2], &answer(3));
        cache.flush().unwrap();
        drop(cache);
        let mut cache = open();
        let found: Vec<_> = keys.iter().map(|key| cache.read(key, 2).unwrap()).collect();
        assert_eq!(found, [1, 2, 3].map(|start| Some(answer(start))));
        drop(cache);

        // Another file of that name is left alone; one that is too small for a record keeps none.
        std::fs::write(&path, b"something else").unwrap();
        let error = Cache::open(folder.path(), [7; 32], 3, 1 << 20).err().unwrap().to_string();
        assert!(error.contains("found another file"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        let mut cache = Cache::open(folder.path(), [8; 32], 3, HEAD + 20).unwrap();
        cache.add(&keys[0], &answer(1));
        cache.flush().unwrap();
        assert_eq!(cache.read(&keys[0], 2).unwrap(), None);
    }
}
