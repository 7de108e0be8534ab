//! Weights that PyTorch saved: `pytorch_model.bin`, its shards under an index, and files like `model.pth`.
//!
//! Such a file is a zip archive of a pickle and of the tensors' bytes. A pickle is a program; candle's reader makes
//! objects of it and calls nothing, and whatever names something else than tensors is refused here, so that nobody
//! takes a file for safe that is not. Bytes are mapped: nothing is read until it is used.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use candle_core::pickle::{Object, Stack};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::{DType, Tensor};
use t5_runtime::{Error, Result};
use zip::{CompressionMethod, ZipArchive};

/// What an archive's pickle is called; a folder, named as the file was, stands before it.
const PICKLE: &str = "data.pkl";

/// The largest pickle: ten times that of a T5-XXL, whose weights are not in it.
const LARGEST: u64 = 1 << 20;

/// How many objects copies of earlier ones may add up to. A pickle of some hundred bytes can ask for any number.
const MOST_COPIES: usize = 4 << 20;

/// Objects may lie inside one another as deep as a pickle is long, and go one inside the other when they are dropped.
const STACK: usize = 512 << 20;

/// What a pickle of tensors names. Nothing of it is called here.
const HARMLESS: [(&str, &str); 6] = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
];

/// Opens a checkpoint of any kind: those of [`Checkpoint::open`], and PyTorch's where there is nothing better.
///
/// # Errors
/// As [`Checkpoint::open`], and one sentence for whatever is wrong with a pickle.
pub fn open(path: &Path) -> Result<Checkpoint> {
    Checkpoint::open_with_pickles(path, &read)
}

/// The tensors of one file.
fn read(path: &Path) -> Result<Vec<Tensor>> {
    let bytes = Bytes::map(path)?;
    let wrong = |what: String| Error::format(path.display().to_string(), what);
    if bytes.starts_with(&[0x80]) {
        let what = "expected PyTorch's zip form, found a bare pickle: torch before 1.6 wrote it; load it there and \
                    save it anew with torch.save";
        return Err(wrong(what.to_owned()));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| wrong(format!("expected PyTorch's zip form, found none or a damaged one: {error}")))?;
    let is_pickle =
        |name: &String| name.strip_suffix(PICKLE).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'));
    let names = (0..archive.len()).filter_map(|index| archive.name_for_index(index)?.ok().map(String::from));
    let pickles: Vec<String> = names.filter(is_pickle).collect();
    let [pickle] = &pickles[..] else {
        return Err(wrong(format!("expected one {PICKLE} inside, found {}", pickles.len())));
    };
    let folder = pickle.strip_suffix(PICKLE).unwrap_or_default();
    if entry(&mut archive, &format!("{folder}byteorder"))
        .is_ok_and(|range| bytes.get(range).is_some_and(|order| order == b"big"))
    {
        return Err(wrong("expected little-endian numbers, found big-endian ones".to_owned()));
    }
    let range = entry(&mut archive, pickle).map_err(&wrong)?;
    let program = bytes.get(range).ok_or_else(|| wrong(format!("cut off inside {pickle}")))?;
    if program.len() as u64 > LARGEST {
        return Err(wrong(format!("expected a {PICKLE} of at most {LARGEST} bytes, found {}", program.len())));
    }
    let stored = with_deep_stack(|| tensors_of(program)).map_err(|what| wrong(format!("{pickle}: {what}")))?;
    let mut tensors = Vec::with_capacity(stored.len());
    for Stored { name, dtype, shape, first, storage } in stored {
        let wrong = |what: String| Error::tensor(path.display().to_string(), &name, what);
        let range = entry(&mut archive, &format!("{folder}data/{storage}")).map_err(&wrong)?;
        let size = shape.iter().try_fold(dtype.block_bytes(), |size, extent| size.checked_mul(*extent));
        let start = first.checked_mul(dtype.block_bytes()).and_then(|first| first.checked_add(range.start));
        let end = start.zip(size).and_then(|(start, size)| start.checked_add(size)).filter(|end| *end <= range.end);
        let data = start.zip(end).and_then(|(start, end)| bytes.slice(start..end));
        let data = data.ok_or_else(|| wrong(format!("expected its values inside data/{storage}, found its end")))?;
        let file = path.display().to_string();
        tensors.push(Tensor { name, file, dtype, shape, data, scale: 1.0 });
    }
    Ok(tensors)
}

/// Where the bytes of an archive's file lie.
fn entry<R: Read + std::io::Seek>(archive: &mut ZipArchive<R>, name: &str) -> Result<std::ops::Range<usize>, String> {
    let file = archive.by_name(name).map_err(|error| format!("{name}: {error}"))?;
    if file.compression() != CompressionMethod::Stored {
        return Err(format!("{name}: expected stored bytes, found compressed ones ({})", file.compression()));
    }
    let start = file.data_start().and_then(|start| usize::try_from(start).ok());
    let end = start.zip(usize::try_from(file.size()).ok()).and_then(|(start, size)| start.checked_add(size));
    start.zip(end).map(|(start, end)| start..end).ok_or_else(|| format!("{name}: it has no place in the file"))
}

/// Runs `work` where deeply nested objects can be dropped.
fn with_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("no thread to read it in: {error}"))?;
        thread.join().unwrap_or_else(|_| Err("it cannot be read".to_owned()))
    })
}

/// A tensor as a pickle describes it.
struct Stored {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Its place in the storage, in values.
    first: usize,
    /// The name of the storage's file.
    storage: String,
}

/// The tensors that a pickle describes: those of a dictionary, or of the dictionary `state_dict` in it.
fn tensors_of(program: &[u8]) -> Result<Vec<Stored>, String> {
    let entries = dictionary(objects(program)?).ok_or("expected a dictionary of tensors, found something else")?;
    let mut tensors = Vec::new();
    let mut inner = None;
    for (key, value) in entries {
        let Ok(name) = key.unicode() else { continue };
        match value {
            Object::Dict(entries) if name == "state_dict" || name == "model" => inner = Some(entries),
            value => tensors.extend(tensor(name, value)?),
        }
    }
    for (key, value) in inner.filter(|_| tensors.is_empty()).into_iter().flatten() {
        let Ok(name) = key.unicode() else { continue };
        tensors.extend(tensor(name, value)?);
    }
    if tensors.is_empty() { Err("expected tensors, found none".to_owned()) } else { Ok(tensors) }
}

fn dictionary(object: Object) -> Option<Vec<(Object, Object)>> {
    match object {
        Object::Dict(entries) => Some(entries),
        // A state dictionary with attributes.
        Object::Build { callable, .. } => dictionary(*callable),
        _ => None,
    }
}

/// Makes objects of a pickle, one instruction at a time.
fn objects(program: &[u8]) -> Result<Object, String> {
    let mut reader = program;
    let mut stack = Stack::empty();
    let mut sizes: HashMap<u32, usize> = HashMap::new();
    let mut copies = 0;
    loop {
        let rest = reader.fill_buf().map_err(|error| error.to_string())?;
        let code = *rest.first().ok_or("cut off")?;
        // Where an object is remembered or comes back it is copied, with all that is in it.
        let id = || match code {
            b'q' | b'h' => rest.get(1).map(|id| u32::from(*id)),
            _ => rest.get(1..5).and_then(|id| id.try_into().ok()).map(u32::from_le_bytes),
        };
        match code {
            b'q' | b'r' => {
                let size = stack.stack().last().map_or(0, |object| size(object, MOST_COPIES - copies));
                copies += size;
                sizes.extend(id().map(|id| (id, size)));
            }
            b'h' | b'j' => copies += id().and_then(|id| sizes.get(&id).copied()).unwrap_or(0),
            _ => {}
        }
        if copies >= MOST_COPIES {
            return Err(format!("expected fewer than {MOST_COPIES} objects, found more"));
        }
        let read = stack.read(&mut reader);
        let done = read.map_err(|error| error.to_string().lines().next().unwrap_or("unreadable").to_owned())?;
        if code == b'c'
            && let Some(Object::Class { module_name, class_name }) = stack.stack().last()
        {
            let known = HARMLESS.iter().any(|(module, class)| module == module_name && class == class_name)
                || (module_name == "torch" && class_name.ends_with("Storage"));
            if !known {
                return Err(format!(
                    "expected tensors alone, found {module_name}.{class_name}: to load such a file is to run a \
                     program; nothing was run"
                ));
            }
        }
        if done {
            return stack.finalize().map_err(|error| error.to_string());
        }
    }
}

/// How many objects an object is made of, counted up to `most`.
fn size(object: &Object, most: usize) -> usize {
    let mut left = vec![object];
    let mut count = 0;
    while let Some(object) = left.pop() {
        count += 1;
        if count >= most {
            break;
        }
        match object {
            Object::Tuple(list) | Object::List(list) => left.extend(list),
            Object::Dict(entries) => left.extend(entries.iter().flat_map(|(key, value)| [key, value])),
            Object::Reduce { callable, args } | Object::Build { callable, args } => left.extend([&**callable, &**args]),
            Object::PersistentLoad(inner) => left.push(inner),
            _ => {}
        }
    }
    count
}

/// The tensor that `value` describes; `None` for other values (numbers, texts), which models do not need.
fn tensor(name: String, value: Object) -> Result<Option<Stored>, String> {
    let Ok((callable, args)) = value.reduce() else { return Ok(None) };
    let wrong = |what: &str| format!("tensor {name}: {what}");
    let not_tensor = || wrong("expected a tensor, found another object");
    let mut args = args.tuple().map_err(|_| not_tensor())?.into_iter();
    match callable.class().map_err(|_| not_tensor())?.1.as_str() {
        "_rebuild_parameter" => return tensor(name.clone(), args.next().ok_or_else(not_tensor)?),
        "_rebuild_tensor_v2" => {}
        _ => return Err(not_tensor()),
    }
    let (Some(storage), Some(offset), Some(shape), Some(strides)) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        return Err(not_tensor());
    };
    let number = |object: Object| object.int_or_long().ok().and_then(|number| usize::try_from(number).ok());
    let numbers = |object: Object| object.tuple().ok()?.into_iter().map(number).collect::<Option<Vec<usize>>>();
    let shape = numbers(shape).ok_or_else(|| wrong("expected a shape, found something else"))?;
    let strides = numbers(strides).ok_or_else(|| wrong("expected strides, found something else"))?;
    let mut step = 1usize;
    let mut usual: Vec<usize> = Vec::with_capacity(shape.len());
    for extent in shape.iter().rev() {
        usual.insert(0, step);
        step = step.saturating_mul(*extent);
    }
    let differs = |((stride, usual), extent): ((&usize, &usize), &usize)| stride != usual && *extent != 1;
    if strides.len() != usual.len() || strides.iter().zip(&usual).zip(&shape).any(differs) {
        return Err(wrong(&format!("expected values row by row (strides {usual:?}), found strides {strides:?}")));
    }
    let storage = storage.persistent_load().ok().and_then(|inner| inner.tuple().ok()).unwrap_or_default();
    let mut storage = storage.into_iter().skip(1);
    let (Some(Ok((_, class))), Some(Ok(key))) =
        (storage.next().map(Object::class), storage.next().map(Object::unicode))
    else {
        return Err(wrong("expected a storage, found something else"));
    };
    let dtype = match class.as_str() {
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        // Counters and masks, which a T5 has none of.
        "LongStorage" | "IntStorage" | "ByteStorage" | "BoolStorage" => return Ok(None),
        other => return Err(wrong(&format!("expected numbers of type F32, F16 or BF16, found a {other}"))),
    };
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(wrong(&format!("expected the name of a storage, found {key:?}")));
    }
    let first = number(offset).ok_or_else(|| wrong("expected an offset, found something else"))?;
    Ok(Some(Stored { name, dtype, shape, first, storage: key }))
}
