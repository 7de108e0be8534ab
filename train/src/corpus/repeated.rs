//! Which pages and lines are elsewhere, too: found by sorting on disk.
//!
//! Every occurrence is an entry of a hash and a place; of equal hashes the smallest place stays. Entries go into 256
//! files by their hash's first byte, and one file after the other is sorted: memory holds, at 64 bytes each, a 256th of
//! the entries, or all that have the commonest hash.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::repeats::Hash;
use crate::{Error, Result};

/// Bytes of a place.
pub const PLACE: usize = 36;
/// Bytes of an entry: hash, place, part, row and number in the page.
const ENTRY: usize = 16 + PLACE + 4 + 4 + 4;
const BUCKETS: usize = 256;

/// One occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub hash: Hash,
    pub place: [u8; PLACE],
    /// The part and the page's row in it.
    pub part: u32,
    pub row: u32,
    /// Of what is compared, the number in the page; [`WHOLE`] for the page itself.
    pub at: u32,
}

/// The number that stands for a whole page.
pub const WHOLE: u32 = u32::MAX;

impl Entry {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let numbers = [self.part, self.row, self.at].map(u32::to_be_bytes).concat();
        out.write_all(&[&self.hash[..], &self.place, &numbers].concat())
    }

    fn read(bytes: &[u8]) -> Entry {
        let array = |from: usize| -> [u8; 4] { std::array::from_fn(|i| bytes[from + i]) };
        let number = |n: usize| u32::from_be_bytes(array(16 + PLACE + 4 * n));
        Entry {
            hash: std::array::from_fn(|i| bytes[i]),
            place: std::array::from_fn(|i| bytes[16 + i]),
            part: number(0),
            row: number(1),
            at: number(2),
        }
    }
}

/// Entries on disk.
pub struct Buckets {
    folder: PathBuf,
    files: Vec<Mutex<BufWriter<File>>>,
}

impl Buckets {
    /// Empty ones in a new folder.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn create(folder: PathBuf) -> Result<Buckets> {
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let file = |i: usize| {
            let path = folder.join(format!("{i:02x}"));
            let file = File::create(&path).map_err(Error::io(&path))?;
            Ok(Mutex::new(BufWriter::with_capacity(1 << 14, file)))
        };
        let files: Result<Vec<_>> = (0..BUCKETS).map(file).collect();
        Ok(Buckets { files: files?, folder })
    }

    /// Adds an occurrence; any thread may.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn push(&self, entry: &Entry) -> Result<()> {
        let mut file = lock(&self.files[usize::from(entry.hash[0])]);
        entry.write(&mut *file).map_err(Error::io(&self.folder))
    }

    /// Writes, for each part, what is elsewhere, too, and has no smallest place: its rows and numbers, to be read by
    /// [`removed`]. The entries are used up.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn remove_all_but_one(self, output: &Path) -> Result<()> {
        let Buckets { folder, files } = self;
        for file in files {
            let mut file = file.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            file.flush().map_err(Error::io(&folder))?;
        }
        for i in 0..BUCKETS {
            let path = folder.join(format!("{i:02x}"));
            let mut entries = read_entries(&path).map_err(Error::io(&path))?;
            // The threads share one bucket: one for each would be so many times the memory.
            entries.par_sort_unstable();
            let mut gone: Vec<(u32, u32, u32)> =
                entries.windows(2).filter(|two| two[0].hash == two[1].hash).map(|two| two[1].id()).collect();
            drop(entries);
            gone.sort_unstable();
            for part in gone.chunk_by(|one, other| one.0 == other.0) {
                let bytes: Vec<u8> = part.iter().flat_map(|&(_, row, at)| pair(row, at)).collect();
                let path = part_file(output, part[0].0);
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).open(&path);
                file.and_then(|mut file| file.write_all(&bytes)).map_err(Error::io(&path))?;
            }
        }
        std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))
    }
}

impl Entry {
    fn id(&self) -> (u32, u32, u32) {
        (self.part, self.row, self.at)
    }
}

fn read_entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    let file = File::open(path)?;
    let count = file.metadata()?.len() as usize / ENTRY;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let (mut entries, mut bytes) = (Vec::with_capacity(count), [0; ENTRY]);
    for _ in 0..count {
        file.read_exact(&mut bytes)?;
        entries.push(Entry::read(&bytes));
    }
    Ok(entries)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A page and the number of what goes from it, as [`removed`] reads them.
pub(super) fn pair(row: u32, at: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&row.to_be_bytes());
    bytes[4..].copy_from_slice(&at.to_be_bytes());
    bytes
}

/// The file of a part in a folder of what was found.
pub(super) fn part_file(folder: &Path, part: u32) -> PathBuf {
    folder.join(format!("{part:05}"))
}

/// Makes the files of parts of which nothing is elsewhere: that one is missing is then an error, where machines share a
/// folder and see each other's files late.
///
/// # Errors
/// Where the operating system refuses.
pub fn complete(output: &Path, parts: u32) -> Result<()> {
    (0..parts).map(|part| part_file(output, part)).try_for_each(|path| {
        let mut options = OpenOptions::new();
        options.create(true).append(true).open(&path).map(drop).map_err(Error::io(&path))
    })
}

/// The (row, number) pairs that [`Buckets::remove_all_but_one`] wrote for a part, in order.
///
/// # Errors
/// Where they cannot be read.
pub fn removed(folder: &Path, part: u32) -> Result<Vec<(u32, u32)>> {
    let path = part_file(folder, part);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte));
    let mut gone: Vec<(u32, u32)> =
        bytes.chunks_exact(8).map(|pair| (number(&pair[..4]), number(&pair[4..]))).collect();
    gone.sort_unstable();
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::random::Random;

    #[test]
    fn of_equal_hashes_the_smallest_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(3);
        let entries: Vec<Entry> = (0..20_000u32)
            .map(|i| {
                let mut hash = [0; 16];
                hash[0] = random.below(256) as u8;
                hash[15] = random.below(30) as u8;
                let mut place = [0; PLACE];
                place[..8].copy_from_slice(&random.next_u64().to_be_bytes());
                Entry { hash, place, part: i % 7, row: i / 7, at: if i % 3 == 0 { WHOLE } else { i } }
            })
            .collect();
        let buckets = Buckets::create(dir.path().join("buckets")).unwrap();
        entries.par_iter().try_for_each(|entry| buckets.push(entry)).unwrap();
        let output = dir.path().join("gone");
        std::fs::create_dir(&output).unwrap();
        buckets.remove_all_but_one(&output).unwrap();
        // The same by a table.
        let mut first: HashMap<Hash, [u8; PLACE]> = HashMap::new();
        for entry in &entries {
            let place = first.entry(entry.hash).or_insert(entry.place);
            *place = entry.place.min(*place);
        }
        let gone = entries.iter().filter(|entry| first[&entry.hash] != entry.place);
        let expected: HashSet<_> = gone.map(Entry::id).collect();
        let mut found = HashSet::new();
        assert!(removed(&output, 7).is_err());
        complete(&output, 8).unwrap();
        for part in 0..8 {
            for (row, at) in removed(&output, part).unwrap() {
                assert!(found.insert((part, row, at)));
            }
        }
        assert_eq!(found, expected);
        assert!(expected.len() > 5000 && !dir.path().join("buckets").exists());
    }
}
