//! Tokenised corpora on disk: a folder whose `index.json` names files of ids, which are mapped and never read whole.
//!
//! Beside the index, whose fields are those of [`Index`], each shard has two files. `NAME.ids`: the ids of its
//! documents end to end, each of two bytes, or of four where the vocabulary has more than 65,536, low byte first.
//! `NAME.ends`: for each document the number of ids in the shard up to its end, eight bytes, low byte first. The index
//! has the sha256 of both and says by which vocabulary the ids were made.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use t5_runtime::output::OutputFile;
use t5_runtime::storage::Bytes;

use crate::files::{self, hex};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// The index's file in a folder of shards.
pub const INDEX: &str = "index.json";

const FORMAT: &str = "pocket-t5-shards";
const VERSION: u32 = 1;

/// What a folder of shards holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// `pocket-t5-shards`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// [`Vocabulary::fingerprint`] of the vocabulary that made the ids.
    pub vocabulary: String,
    /// Bytes of an id: 2 or 4.
    pub width: usize,
    pub documents: u64,
    pub tokens: u64,
    pub shards: Vec<ShardInfo>,
}

/// One shard of an [`Index`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// Its files are `NAME.ids` and `NAME.ends`.
    pub name: String,
    pub documents: u64,
    pub tokens: u64,
    pub ids_sha256: String,
    pub ends_sha256: String,
}

impl Index {
    /// The index of shards that lie in one folder.
    pub fn new(vocabulary: &Vocabulary, shards: Vec<ShardInfo>) -> Index {
        Index {
            format: FORMAT.into(),
            version: VERSION,
            vocabulary: vocabulary.fingerprint(),
            width: width(vocabulary),
            documents: shards.iter().map(|shard| shard.documents).sum(),
            tokens: shards.iter().map(|shard| shard.tokens).sum(),
            shards,
        }
    }

    /// Writes it, in one step, when all of its shards are there.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn write(&self, folder: &Path) -> Result<()> {
        files::write_json(&folder.join(INDEX), self)
    }
}

/// Bytes of an id.
fn width(vocabulary: &Vocabulary) -> usize {
    if vocabulary.size() <= 1 << 16 { 2 } else { 4 }
}

/// A shard that is being written. It appears when it is finished.
pub struct ShardWriter {
    name: String,
    width: usize,
    ids: HashedFile,
    ends: HashedFile,
    documents: u64,
    tokens: u64,
}

/// A file with the hash of what was written.
struct HashedFile {
    path: PathBuf,
    file: BufWriter<OutputFile>,
    hash: Sha256,
}

impl HashedFile {
    fn create(path: PathBuf) -> Result<HashedFile> {
        let file = BufWriter::with_capacity(1 << 20, OutputFile::create(&path)?);
        Ok(HashedFile { path, file, hash: Sha256::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }

    fn finish(self) -> Result<String> {
        files::commit(self.file, &self.path)?;
        Ok(hex(&self.hash.finalize()))
    }
}

impl ShardWriter {
    /// Begins a shard in a folder.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn create(folder: &Path, name: &str, vocabulary: &Vocabulary) -> Result<ShardWriter> {
        ShardWriter::of_width(folder, name, width(vocabulary))
    }

    fn of_width(folder: &Path, name: &str, width: usize) -> Result<ShardWriter> {
        let file = |suffix: &str| HashedFile::create(folder.join(format!("{name}.{suffix}")));
        let (ids, ends) = (file("ids")?, file("ends")?);
        Ok(ShardWriter { name: name.to_owned(), width, ids, ends, documents: 0, tokens: 0 })
    }

    /// Adds a document's ids.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes().into_iter().take(self.width)).collect();
        self.ids.write(&bytes)?;
        self.documents += 1;
        self.tokens += ids.len() as u64;
        self.ends.write(&self.tokens.to_le_bytes())
    }

    /// Puts both files in place.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn finish(self) -> Result<ShardInfo> {
        let (ids_sha256, ends_sha256) = (self.ids.finish()?, self.ends.finish()?);
        Ok(ShardInfo { name: self.name, documents: self.documents, tokens: self.tokens, ids_sha256, ends_sha256 })
    }
}

/// The documents of one or more folders of shards, one after the other.
pub struct Shards {
    shards: Vec<Shard>,
    documents: u64,
    tokens: u64,
    fingerprint: String,
}

struct Shard {
    /// Documents of the shards before it.
    first: u64,
    documents: u64,
    width: usize,
    ids: Bytes,
    ends: Bytes,
}

impl Shards {
    /// Opens folders of shards and compares every file with its hash.
    ///
    /// # Errors
    /// Where a file is missing, is not what the index says, or was made with another vocabulary.
    pub fn open(folders: &[PathBuf], vocabulary: &Vocabulary) -> Result<Shards> {
        let mut opened = Shards { shards: Vec::new(), documents: 0, tokens: 0, fingerprint: String::new() };
        let mut fingerprint = Sha256::new();
        for folder in folders {
            let index = read_index(folder, vocabulary)?;
            let parts: Result<Vec<[Bytes; 2]>> = index
                .shards
                .par_iter()
                .map(|info| {
                    let file = |suffix: &str| folder.join(format!("{}.{suffix}", info.name));
                    let ids = checked(&file("ids"), info.tokens, index.width, &info.ids_sha256)?;
                    let ends = checked(&file("ends"), info.documents, 8, &info.ends_sha256)?;
                    check_values(&file("ids"), &file("ends"), &ids, &ends, index.width, vocabulary.size())?;
                    Ok([ids, ends])
                })
                .collect();
            for (info, [ids, ends]) in index.shards.iter().zip(parts?) {
                fingerprint.update(info.ids_sha256.as_bytes());
                fingerprint.update(info.ends_sha256.as_bytes());
                let (first, documents, width) = (opened.documents, info.documents, index.width);
                opened.shards.push(Shard { first, documents, width, ids, ends });
                opened.documents += documents;
                opened.tokens += info.tokens;
            }
        }
        opened.fingerprint = hex(&fingerprint.finalize());
        Ok(opened)
    }

    /// Documents of all folders.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Ids of all documents.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// A hash of all ids and where documents end.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Lets memory forget what was read; it is read again where it is needed.
    pub fn release(&self) {
        for shard in &self.shards {
            shard.ids.release();
            shard.ends.release();
        }
    }

    fn shard(&self, document: u64) -> &Shard {
        &self.shards[self.shards.partition_point(|shard| shard.first <= document) - 1]
    }

    /// The number of ids of a document.
    ///
    /// # Panics
    /// Where there is no such document.
    pub fn len_of(&self, document: u64) -> usize {
        self.shard(document).place(document).len()
    }

    /// Appends some ids of a document.
    ///
    /// # Panics
    /// Where there is no such document, or the range goes beyond its end.
    pub fn append(&self, document: u64, range: Range<usize>, ids: &mut Vec<u32>) {
        let shard = self.shard(document);
        let place = shard.place(document);
        assert!(range.end <= place.len(), "a document of {} ids has no {range:?}", place.len());
        let bytes = &shard.ids[(place.start + range.start) * shard.width..(place.start + range.end) * shard.width];
        ids.extend(values(bytes, shard.width));
    }
}

impl Shard {
    /// Where the ids of a document are, in ids.
    fn place(&self, document: u64) -> Range<usize> {
        let number = (document - self.first) as usize;
        assert!((number as u64) < self.documents, "there is no document {document}");
        let end = |number: usize| read_end(&self.ends[8 * number..8 * number + 8]) as usize;
        let start = if number == 0 { 0 } else { end(number - 1) };
        start..end(number)
    }
}

fn read_end(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn values(bytes: &[u8], width: usize) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(width).map(|id| id.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
}

fn read_index(folder: &Path, vocabulary: &Vocabulary) -> Result<Index> {
    let path = folder.join(INDEX);
    let wrong = |what: String| Err(Error::file(&path, what));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "expected the index of a folder of shards, found nothing there; paths are relative to data.dir";
            return wrong(what.into());
        }
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let index: Index = match serde_json::from_str(&text) {
        Ok(index) => index,
        Err(error) => return wrong(format!("expected the index of a folder of shards: {error}")),
    };
    if index.format != FORMAT || index.version != VERSION || ![2, 4].contains(&index.width) {
        let found = format!("{} {} of {} bytes", index.format, index.version, index.width);
        return wrong(format!("expected {FORMAT} {VERSION} of 2 or 4 bytes an id, found {found}"));
    }
    if index.vocabulary != vocabulary.fingerprint() {
        let named = vocabulary.path().display();
        return wrong(format!("expected ids of the vocabulary {named}, found those of another; make the shards again"));
    }
    if let Some(info) = index.shards.iter().find(|info| Path::new(&info.name).components().count() != 1) {
        return wrong(format!("expected names of files in this folder, found {:?}", info.name));
    }
    let sum =
        |count: fn(&ShardInfo) -> u64| index.shards.iter().try_fold(0u64, |sum, info| sum.checked_add(count(info)));
    if sum(|info| info.documents) != Some(index.documents) || sum(|info| info.tokens) != Some(index.tokens) {
        return wrong("expected the shards' documents and tokens to add up to the index's, found other sums".into());
    }
    Ok(index)
}

/// Maps a file of so many values, if it has the right hash. It is read for that and not through the mapping, so that
/// memory holds none of it.
fn checked(path: &Path, count: u64, width: usize, sha256: &str) -> Result<Bytes> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let found = file.metadata().map_err(Error::io(path))?.len();
    let expected = count.checked_mul(width as u64);
    if expected != Some(found) {
        let expected = expected.map_or("fewer".to_owned(), |bytes| bytes.to_string());
        return Err(Error::file(path, format!("expected {expected} bytes, as the index says, found {found}")));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    if hex(&hash.finalize()) != sha256 {
        return Err(Error::file(path, "was changed or damaged: expected the sha256 that the index has, found another"));
    }
    // Some systems map no empty file.
    Ok(if found == 0 { Bytes::from_vec(Vec::new()) } else { Bytes::map(path)? })
}

/// Refuses what an index with right hashes may still have wrong.
fn check_values(ids_path: &Path, path: &Path, ids: &Bytes, ends: &Bytes, width: usize, size: u32) -> Result<()> {
    let mut last = 0;
    for (end, document) in ends.chunks_exact(8).map(read_end).zip(1..) {
        if end < last {
            return Err(Error::file(path, format!("expected ends in order, found document {document} to end before")));
        }
        last = end;
    }
    if last != (ids.len() / width) as u64 {
        let what = format!("expected the last document to end at {}, found {last}", ids.len() / width);
        return Err(Error::file(path, what));
    }
    if let Some(id) = values(ids, width).find(|&id| id >= size) {
        return Err(Error::file(ids_path, format!("expected ids below the vocabulary's {size}, found {id}")));
    }
    ids.release();
    ends.release();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, vocabulary: &Vocabulary, width: usize) -> Index {
        let mut infos = Vec::new();
        for (name, documents) in [("00000", &[&[5, 6, 7][..], &[], &[8]][..]), ("00001", &[]), ("00002", &[&[9, 10]])] {
            let mut writer = ShardWriter::of_width(folder, name, width).unwrap();
            documents.iter().for_each(|document| writer.push(document).unwrap());
            infos.push(writer.finish().unwrap());
        }
        let index = Index { width, ..Index::new(vocabulary, infos) };
        index.write(folder).unwrap();
        index
    }

    #[test]
    fn documents_are_read_back_of_both_widths_and_several_folders() {
        let dir = tempfile::tempdir().unwrap();
        let vocabulary = Vocabulary::bytes(384).unwrap();
        assert_eq!(super::width(&vocabulary), 2);
        for width in [2, 4] {
            let folders = ["a", "b"].map(|name| dir.path().join(format!("{name}{width}")));
            for folder in &folders {
                std::fs::create_dir(folder).unwrap();
                write(folder, &vocabulary, width);
                assert_eq!(std::fs::metadata(folder.join("00000.ids")).unwrap().len(), 4 * width as u64);
            }
            let shards = Shards::open(&folders, &vocabulary).unwrap();
            assert_eq!((shards.documents(), shards.tokens()), (8, 12));
            let document = |number: u64| {
                let mut ids = Vec::new();
                shards.append(number, 0..shards.len_of(number), &mut ids);
                ids
            };
            let found: Vec<Vec<u32>> = (0..8).map(document).collect();
            let one = [vec![5, 6, 7], vec![], vec![8], vec![9, 10]];
            assert_eq!(found, [&one[..], &one].concat());
            let mut ids = vec![1];
            shards.append(4, 1..3, &mut ids);
            assert_eq!(ids, [1, 6, 7]);
            assert_ne!(shards.fingerprint(), Shards::open(&folders[..1], &vocabulary).unwrap().fingerprint());
        }
    }

    #[test]
    fn what_was_changed_is_said_in_a_sentence() {
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let message = |change: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &vocabulary, 2);
            change(dir.path());
            let error = Shards::open(&[dir.path().to_owned()], &vocabulary).err().expect("an error").to_string();
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let edit = |folder: &Path, name: &str, edit: &dyn Fn(&mut Vec<u8>)| {
            let path = folder.join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            edit(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        };
        let error = message(&|folder| edit(folder, "00000.ids", &|bytes| bytes[3] ^= 1));
        assert!(error.contains("00000.ids: was changed or damaged: expected the sha256"), "{error}");
        let error = message(&|folder| edit(folder, "00002.ends", &|bytes| bytes[0] += 1));
        assert!(error.contains("00002.ends: was changed or damaged"), "{error}");
        let error = message(&|folder| edit(folder, "00000.ids", &|bytes| bytes.truncate(7)));
        assert!(error.contains("00000.ids: expected 8 bytes, as the index says, found 7"), "{error}");
        let error = message(&|folder| std::fs::remove_file(folder.join("00002.ids")).unwrap());
        assert!(error.contains("00002.ids: No such file"), "{error}");
        let error = message(&|folder| edit(folder, INDEX, &|bytes| bytes.truncate(40)));
        assert!(error.contains("index.json: expected the index of a folder of shards"), "{error}");
        let replaced = |folder: &Path, from: &str, to: &str| {
            edit(folder, INDEX, &|bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                assert!(text.contains(from), "{from} in {text}");
                *bytes = text.replace(from, to).into_bytes();
            });
        };
        let error = message(&|folder| replaced(folder, "\"version\": 1", "\"version\": 2"));
        assert!(
            error.contains("expected pocket-t5-shards 1 of 2 or 4 bytes an id, found pocket-t5-shards 2"),
            "{error}"
        );
        let error = message(&|folder| replaced(folder, "\"tokens\": 6", "\"tokens\": 7"));
        assert!(error.contains("to add up to the index's"), "{error}");
        let error = message(&|folder| replaced(folder, "\"00002\"", "\"../00002\""));
        assert!(error.contains("expected names of files in this folder"), "{error}");
        let error = message(&|folder| std::fs::remove_file(folder.join(INDEX)).unwrap());
        let expected = "index.json: expected the index of a folder of shards, found nothing there; paths are relative";
        assert!(error.contains(expected), "{error}");
        let fingerprint = vocabulary.fingerprint();
        let error = message(&|folder| replaced(folder, &fingerprint, "0"));
        assert!(error.contains("found those of another; make the shards again"), "{error}");
        // Right hashes and wrong contents.
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::create(dir.path(), "a", &vocabulary).unwrap();
        writer.push(&[3, vocabulary.size()]).unwrap();
        Index::new(&vocabulary, vec![writer.finish().unwrap()]).write(dir.path()).unwrap();
        let error = Shards::open(&[dir.path().to_owned()], &vocabulary).err().unwrap().to_string();
        assert!(error.contains("a.ids: expected ids below the vocabulary's 259, found 259"), "{error}");
    }
}
