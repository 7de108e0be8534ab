//! Packed weights in a file of their own, beside the model's or anywhere else, for those who ask for it: made once, it
//! is mapped from then on, so that a model of gigabytes starts in the time that looking at it takes, and processes
//! share its memory.
//!
//! ```text
//! magic | tables, each from a multiple of 64 on | index, JSON | bytes and CRC-32 of the index | magic
//! ```
//!
//! The index says what the tables were made of and for, and has a CRC-32 of each, all of which are compared before
//! anything is used: a file that was cut off, changed, or made of another model or for other kernels is made anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::cores::physical_cores;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, Matrix, Purpose};
use crate::loader::{Loader, WeightSource};
use crate::model::Stacks;
use crate::output::OutputFile;
use crate::storage::Bytes;
use crate::tensor::Tensor;

/// The first bytes of such a file, and its last.
const MAGIC: &[u8; 16] = b"pocket-t5 packed";
/// The form of tables and index: another number for every change of the packing.
const FORMAT: u32 = 1;
/// Where tables may begin.
const ALIGNMENT: usize = 64;
/// Behind the index: its size (u64), its CRC-32 (u32), and the magic bytes.
const TRAILER: usize = 8 + 4 + MAGIC.len();
/// How many places of a tensor are looked at to know it again, and how many bytes at each.
const SAMPLES: usize = 8;
const SAMPLE: usize = 256;

/// What the file says of itself.
#[derive(Serialize, Deserialize)]
struct Index {
    made: Made,
    matrices: Vec<Entry>,
}

/// What tables were made of, and for.
#[derive(Serialize, Deserialize, PartialEq)]
struct Made {
    format: u32,
    version: String,
    processor: String,
    isa: String,
    /// Bytes and time of change, in nanoseconds, of the files of weights.
    files: Vec<(u64, u64)>,
    /// A CRC-32 of what the tensors are and of some of their bytes; of all where they are in no file.
    tensors: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    run: usize,
    tables: Vec<Place>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Place {
    start: usize,
    bytes: usize,
    crc: u32,
}

/// The tensors of a matrix, and what it is for.
type Parts<'a> = (Vec<&'a Tensor>, Purpose);

/// The matrices of a model by the name of their first tensor, and the file that they are in.
pub(crate) type Packed = (HashMap<String, Matrix>, Bytes);

/// The matrices of a model out of the file `path`, and the file; those whose form has no place in such a file are left
/// out. Where there is no file, or one of no use, it is made, and `notes` say so.
///
/// # Errors
/// Where `path` is another kind of file, or cannot be written.
pub(crate) fn matrices(
    checkpoint: &Checkpoint,
    kernels: Kernels,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<Packed> {
    let loader = Loader { checkpoint, kernels, source: WeightSource::Expected(RefCell::new(Vec::new())) };
    Stacks::load(&loader)?;
    let WeightSource::Expected(expected) = loader.source else { unreachable!("set above") };
    let expected = expected.into_inner();
    let tensors: HashMap<&str, &Tensor> =
        checkpoint.tensors().map(|(_, tensor)| (tensor.name.as_str(), tensor)).collect();
    let parts = |names: &[String]| names.iter().filter_map(|name| tensors.get(name.as_str()).copied()).collect();
    let all: Vec<Parts> = expected.iter().map(|(names, purpose)| (parts(names), *purpose)).collect();
    let made = Made::of(checkpoint, kernels);
    let place = path.display().to_string();
    let why = if path.exists() {
        match read(path, &made, &all, kernels)? {
            Ok(packed) => return Ok(packed),
            Err(why) => format!("made anew: {why}"),
        }
    } else {
        "made".to_owned()
    };
    let bytes = write(path, made, &all, kernels)?;
    notes.push(format!("{place}: {why}; {bytes} bytes"));
    // Whoever shares the folder may have put another in its place since.
    read(path, &Made::of(checkpoint, kernels), &all, kernels)?.map_err(|why| Error::format(place, why))
}

impl Made {
    fn of(checkpoint: &Checkpoint, kernels: Kernels) -> Made {
        let mut all: Vec<&Tensor> = checkpoint.tensors().map(|(_, tensor)| tensor).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut names: Vec<&str> = all.iter().map(|tensor| tensor.file.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let time = |file: &std::fs::Metadata| file.modified().ok()?.duration_since(UNIX_EPOCH).ok();
        let of_file = |name: &&str| {
            let file = std::fs::metadata(name).ok().filter(std::fs::Metadata::is_file)?;
            Some((file.len(), time(&file).map_or(0, |time| time.as_nanos() as u64)))
        };
        let files: Option<Vec<(u64, u64)>> = names.iter().map(of_file).collect();
        let mut crc = crc32fast::Hasher::new();
        for tensor in all {
            let Tensor { name, dtype, shape, scale, data, .. } = tensor;
            crc.update(format!("{name} {dtype} {shape:?} {scale} {}\n", data.len()).as_bytes());
            match files {
                Some(_) if data.len() > SAMPLES * SAMPLE => {
                    let step = (data.len() - SAMPLE) / (SAMPLES - 1);
                    (0..SAMPLES).for_each(|index| crc.update(&data[index * step..][..SAMPLE]));
                }
                _ => crc.update(data),
            }
        }
        Made {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processor: format!(
                "{} {}",
                std::env::consts::ARCH,
                if cfg!(target_endian = "big") { "big" } else { "little" }
            ),
            isa: kernels.isa().name().to_owned(),
            files: files.unwrap_or_default(),
            tensors: crc.finalize(),
        }
    }
}

/// Packs one matrix after the other into the file: one alone is in memory. Returns how many bytes were written.
fn write(path: &Path, made: Made, all: &[Parts], kernels: Kernels) -> Result<usize> {
    let io = Error::io(path);
    let mut file = OutputFile::create(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut file);
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        at += bytes.len();
        out.write_all(bytes).map(|()| at)
    };
    let index = (|| {
        let mut end = put(MAGIC).map_err(Error::io(path))?;
        let mut matrices = Vec::new();
        for (parts, purpose) in all {
            let matrix = Matrix::made_for(*purpose, kernels, parts)?;
            let Some((run, tables)) = matrix.packed() else { continue };
            let mut places = Vec::new();
            for table in tables {
                let start = end.next_multiple_of(ALIGNMENT);
                put(&[0; ALIGNMENT][..start - end]).map_err(Error::io(path))?;
                end = put(table).map_err(Error::io(path))?;
                places.push(Place { start, bytes: table.len(), crc: crc32fast::hash(table) });
            }
            matrices.push(Entry { name: parts[0].name.clone(), run, tables: places });
        }
        Ok(Index { made, matrices })
    })()?;
    let index =
        serde_json::to_vec(&index).map_err(|error| Error::format(path.display().to_string(), error.to_string()))?;
    let end = (|| {
        put(&index)?;
        put(&(index.len() as u64).to_le_bytes())?;
        put(&crc32fast::hash(&index).to_le_bytes())?;
        put(MAGIC)
    })()
    .map_err(Error::io(path))?;
    out.flush().map_err(io)?;
    drop(out);
    file.commit()?;
    Ok(end)
}

/// The matrices of a file; inside, why it is of no use.
///
/// # Errors
/// Where it cannot be read, or is another kind of file.
fn read(path: &Path, made: &Made, all: &[Parts], kernels: Kernels) -> Result<Result<Packed, String>> {
    let bytes = Bytes::map(path)?;
    if !bytes.starts_with(MAGIC) {
        let what = "expected a file of packed weights or none, found another kind of file: name another place";
        return Err(Error::format(path.display().to_string(), what));
    }
    let Some(index) = index(&bytes) else { return Ok(Err("it was damaged".to_owned())) };
    if index.made != *made {
        return Ok(Err("it was made of another model or for other kernels".to_owned()));
    }
    let damaged = || Ok(Err("it was damaged".to_owned()));
    let places: Vec<Place> = index.matrices.iter().flat_map(|entry| entry.tables.iter().copied()).collect();
    if !all_whole(&bytes, &places) {
        return damaged();
    }
    let mut matrices = HashMap::new();
    for Entry { name, run, tables } in index.matrices {
        let Some((parts, purpose)) = all.iter().find(|(parts, _)| parts[0].name == name) else { return damaged() };
        let tables = tables.iter().map(|place| bytes.slice(place.start..place.start + place.bytes)).collect();
        let Some(tables) = tables else { return damaged() };
        let Some(matrix) = Matrix::from_packed(kernels, parts, *purpose, run, tables)? else { return damaged() };
        matrices.insert(name, matrix);
    }
    Ok(Ok((matrices, bytes)))
}

/// The index, if it is whole.
fn index(bytes: &[u8]) -> Option<Index> {
    let (rest, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
    let (size, trailer) = trailer.split_first_chunk::<8>()?;
    let (crc, magic) = trailer.split_first_chunk::<4>()?;
    let start = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*size)).ok()?)?;
    let index = &rest[start..];
    if magic != MAGIC || crc32fast::hash(index) != u32::from_le_bytes(*crc) {
        return None;
    }
    serde_json::from_slice(index).ok()
}

/// Whether all tables are what was written, looked at by all cores.
fn all_whole(bytes: &[u8], places: &[Place]) -> bool {
    let (next, whole) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        while let Some(Place { start, bytes: size, crc }) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let table = start.checked_add(*size).and_then(|end| bytes.get(*start..end));
            if table.is_none_or(|table| crc32fast::hash(table) != *crc) {
                whole.store(false, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..physical_cores().min(places.len()) {
            // Where there is no thread to be had, this one does all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    whole.into_inner()
}
