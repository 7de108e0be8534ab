//! The reader: bytes to checked metadata and tensors.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::cursor::{Cursor, Fault};
use super::value::{Array, Value, ValueType};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_NAME, type_from_code, type_name, types};
use crate::error::{Error, Result};
use crate::order::sorted_by;
use crate::storage::Bytes;
use crate::tensor::{DType, Tensor};

/// Longer than GGML's limit: files with Hugging Face names, which GGML does not load, have such names.
const MAX_NAME_WITHOUT_ARCHITECTURE: usize = 255;

/// No file needs more, and a hostile one could ask for more padding than any file has.
const MAX_ALIGNMENT: usize = 1 << 20;

/// A GGUF file whose header was read and checked wholly; tensor data are slices of its bytes.
#[derive(Debug)]
pub struct File {
    name: String,
    version: u32,
    alignment: usize,
    metadata: Vec<(String, Value)>,
    /// Key to place in `metadata`.
    index: HashMap<String, usize>,
    pub(super) tensors: Vec<Tensor>,
}

impl File {
    /// Reads a file that is mapped or in memory, or of which the header is. `name` is the file's name in messages.
    ///
    /// # Errors
    /// Whatever is wrong with the header: [`Error::Format`], [`Error::Config`] for a key's value, [`Error::Tensor`].
    pub fn parse(name: &str, bytes: Bytes) -> Result<File> {
        let wrong = |what: Fault| Error::format(name, what);
        let arrived = bytes.arrived();
        let cursor = &mut Cursor::new(arrived);
        if arrived.len() < 24 || arrived[..4] != MAGIC {
            let what =
                format!("not a GGUF file: expected at least 24 bytes that start with \"GGUF\"; {}", start(arrived));
            return Err(wrong(what));
        }
        cursor.position = MAGIC.len();
        let version = cursor.u32().map_err(wrong)?;
        if version & 0xffff == 0 {
            return Err(wrong("expected a little-endian GGUF file, found a big-endian one".to_owned()));
        }
        if !matches!(version, 2 | 3) {
            return Err(wrong(format!("expected GGUF version 2 or 3, found {version}")));
        }
        // Smallest tensor info: name length, one byte of name, n_dims, one extent, type, offset.
        // Smallest key-value: key length, type, one byte of value.
        let tensor_count = cursor.count("tensors", 32).map_err(wrong)?;
        let value_count = cursor.count("key-values", 13).map_err(wrong)?;

        let mut file = File {
            name: name.to_owned(),
            version,
            alignment: DEFAULT_ALIGNMENT,
            metadata: Vec::new(),
            index: HashMap::new(),
            tensors: Vec::new(),
        };
        for i in 0..value_count {
            let (key, value) = key_value(cursor, &bytes)
                .map_err(|fault| wrong(format!("key-value {} of {value_count}: {fault}", i + 1)))?;
            if file.index.insert(key.to_owned(), i).is_some() {
                return Err(Error::config(name, key, "expected each key once, found it twice"));
            }
            file.metadata.push((key.to_owned(), value));
        }
        file.alignment = file.checked_alignment()?;

        let longest =
            if file.value("general.architecture").is_some() { MAX_NAME } else { MAX_NAME_WITHOUT_ARCHITECTURE };
        let mut infos = Vec::new();
        let mut names = HashSet::new();
        for i in 0..tensor_count {
            let info = tensor_info(cursor, name, longest)
                .map_err(|fault| wrong(format!("tensor info {} of {tensor_count}: {fault}", i + 1)))??;
            if !names.insert(info.name) {
                return Err(Error::tensor(name, info.name, "expected each name once, found it twice"));
            }
            infos.push(info);
        }
        file.take_data(infos, cursor.position, &bytes)?;
        Ok(file)
    }

    fn checked_alignment(&self) -> Result<usize> {
        let Some(alignment) = self.unsigned("general.alignment")? else { return Ok(DEFAULT_ALIGNMENT) };
        usize::try_from(alignment)
            .ok()
            .filter(|alignment| alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(alignment))
            .ok_or_else(|| {
                let what = format!("expected a power of two from 8 to {MAX_ALIGNMENT}, found {alignment}");
                Error::config(&self.name, "general.alignment", what)
            })
    }

    /// Cuts tensor data out of what follows the header. Gaps between tensors are accepted, overlaps are not; padding
    /// after the last tensor may be missing.
    fn take_data(&mut self, infos: Vec<Info>, header: usize, bytes: &Bytes) -> Result<()> {
        if infos.is_empty() {
            return Ok(());
        }
        let start =
            header.checked_next_multiple_of(self.alignment).filter(|&start| start <= bytes.len()).ok_or_else(|| {
                Error::format(&self.name, format!("cut off: expected tensor data after the header of {header} bytes"))
            })?;
        let data = bytes.slice(start..bytes.len()).expect("start lies inside");
        let mut ranges = Vec::new();
        for info in infos {
            let wrong = |what| Error::tensor(&self.name, info.name, what);
            if !info.offset.is_multiple_of(self.alignment as u64) {
                return Err(wrong(format!(
                    "expected an offset that {} divides, found {}",
                    self.alignment, info.offset
                )));
            }
            let range = usize::try_from(info.offset)
                .ok()
                .and_then(|offset| Some(offset..offset.checked_add(info.size)?))
                .filter(|range| range.end <= data.len())
                .ok_or_else(|| {
                    wrong(format!(
                        "cut off: expected {} bytes at offset {} of the tensor data, which are {} bytes",
                        info.size,
                        info.offset,
                        data.len()
                    ))
                })?;
            ranges.push((range.clone(), self.tensors.len()));
            self.tensors.push(Tensor {
                name: info.name.to_owned(),
                file: self.name.clone(),
                dtype: info.dtype,
                shape: info.shape,
                data: data.slice(range).expect("the range was checked"),
                scale: 1.0,
            });
        }
        let ranges = sorted_by(ranges, |(a, _), (b, _)| a.start.cmp(&b.start));
        for pair in ranges.windows(2) {
            let [(first, i), (second, j)] = pair else { unreachable!("windows of two") };
            if second.start < first.end {
                let what = format!("its data overlap those of {}", self.tensors[*i].name);
                return Err(self.tensors[*j].error(what));
            }
        }
        Ok(())
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the container: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensor data start at multiples of this many bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// All key-values, in file order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// All tensors, in file order, by the names the file uses; shapes in Hugging Face order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Gives the tensors away.
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.metadata[i].1)
    }

    /// What the file says of itself for people: its texts under `general.`, by key.
    pub fn about(&self) -> BTreeMap<String, String> {
        let text = |(key, value): &(String, Value)| match value {
            Value::String(text) if key.starts_with("general.") => Some((key.clone(), text.clone())),
            _ => None,
        };
        // One by one: what is collected is sorted first, by code of its own.
        let mut about = BTreeMap::new();
        about.extend(self.metadata.iter().filter_map(text));
        about
    }

    /// An error about a key.
    pub fn error(&self, key: &str, what: impl Into<String>) -> Error {
        Error::config(&self.name, key, what)
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, get: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = || self.error(key, format!("expected {expected}, found {value}"));
        get(value).map(Some).ok_or_else(found)
    }

    /// A whole number that is not negative, of any width.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number", |value| u64::try_from(value.integer()?).ok())
    }

    /// A whole number that fits u32, such as a token id.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number below 2^32", |value| u32::try_from(value.integer()?).ok())
    }

    /// A whole number that fits usize, such as an extent.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number that fits the machine", |value| usize::try_from(value.integer()?).ok())
    }

    /// A finite number.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite number", |value| {
            let number = match value {
                Value::F32(number) => *number,
                Value::F64(number) => *number as f32,
                _ => return None,
            };
            number.is_finite().then_some(number)
        })
    }

    /// True or false.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// An array.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }
}

/// How a file starts, for the message that it is no GGUF file.
fn start(bytes: &[u8]) -> String {
    format!("found {} bytes that start with \"{}\"", bytes.len(), bytes[..bytes.len().min(4)].escape_ascii())
}

fn key_value<'a>(cursor: &mut Cursor<'a>, bytes: &Bytes) -> Result<(&'a str, Value), Fault> {
    let key = cursor.trimmed_string()?;
    if key.is_empty() || key.len() > 65535 {
        return Err(format!("expected a key of 1 to 65535 bytes, found {}", key.len()));
    }
    let code = cursor.u32().map_err(|fault| format!("{key}: {fault}"))?;
    let value = ValueType::from_code(code)
        .ok_or_else(|| format!("expected a value type from 0 to 12, found {code}"))
        .and_then(|value_type| value(cursor, value_type, bytes))
        .map_err(|fault| format!("{key}: {fault}"))?;
    Ok((key, value))
}

fn value(cursor: &mut Cursor, value_type: ValueType, bytes: &Bytes) -> Result<Value, Fault> {
    Ok(match value_type {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array()?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array()?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array()?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array()?)),
        ValueType::U32 => Value::U32(cursor.u32()?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array()?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array()?)),
        ValueType::Bool => Value::Bool(boolean(cursor.array::<1>()?[0])?),
        ValueType::String => Value::String(cursor.trimmed_string()?.to_owned()),
        ValueType::Array => Value::Array(array(cursor, bytes)?),
        ValueType::U64 => Value::U64(cursor.u64()?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array()?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array()?)),
    })
}

fn boolean(byte: u8) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("expected a bool of 0 or 1, found {byte}")),
    }
}

fn array(cursor: &mut Cursor, bytes: &Bytes) -> Result<Array, Fault> {
    let code = cursor.u32()?;
    let element = ValueType::from_code(code)
        .filter(|&element| element != ValueType::Array)
        .ok_or_else(|| format!("expected an element type from 0 to 12 and not 9 (array), found {code}"))?;
    // A string takes at least its length field.
    let len = cursor.count("elements of the array", element.size().unwrap_or(8))?;
    let start = cursor.position;
    match element.size() {
        Some(size) => {
            let values = cursor.take(len * size)?;
            if element == ValueType::Bool {
                values.iter().try_for_each(|&byte| boolean(byte).map(|_| ()))?;
            }
        }
        None => {
            for _ in 0..len {
                cursor.string()?;
            }
        }
    }
    let data = bytes.slice(start..cursor.position).expect("the cursor stays inside");
    Ok(Array::from_checked(element, len, data))
}

struct Info<'a> {
    name: &'a str,
    dtype: DType,
    /// Hugging Face order.
    shape: Vec<usize>,
    /// Bytes.
    size: usize,
    offset: u64,
}

/// One tensor info. The outer error is one of the container, the inner one belongs to the named tensor.
fn tensor_info<'a>(cursor: &mut Cursor<'a>, file: &str, longest: usize) -> Result<Result<Info<'a>>, Fault> {
    let name = cursor.trimmed_string()?;
    if name.is_empty() || name.len() > longest {
        return Err(format!("expected a name of 1 to {longest} bytes, found {}", name.len()));
    }
    let in_tensor = |fault: Fault| format!("{name}: {fault}");
    let dims = cursor.u32().map_err(in_tensor)?;
    if !(1..=4).contains(&dims) {
        return Err(in_tensor(format!("expected 1 to 4 dimensions, found {dims}")));
    }
    let mut shape = Vec::with_capacity(4);
    for _ in 0..dims {
        let extent = cursor.u64().map_err(in_tensor)?;
        shape.push(usize::try_from(extent).map_err(|_| in_tensor(format!("an extent of {extent} does not fit")))?);
    }
    // The file starts with the contiguous extent.
    shape.reverse();
    let code = cursor.u32().map_err(in_tensor)?;
    let offset = cursor.u64().map_err(in_tensor)?;

    let wrong = |what: String| Err(Error::tensor(file, name, what));
    if shape.contains(&0) {
        return Ok(wrong(format!("expected extents above 0, found {shape:?}")));
    }
    let Some(dtype) = type_from_code(code) else {
        let supported: Vec<_> = types().map(|dtype| dtype.name().to_uppercase()).collect();
        let supported = supported.join(", ");
        let found = type_name(code).map_or(format!("the unknown type {code}"), str::to_owned);
        return Ok(wrong(format!("expected one of the types {supported}, found {found}")));
    };
    let columns = shape[shape.len() - 1];
    let Some(row) = dtype.row_bytes(columns) else {
        let block = dtype.block_len();
        return Ok(wrong(format!("expected rows that {dtype} blocks of {block} fill, found {columns} values a row")));
    };
    let size = shape[..shape.len() - 1].iter().try_fold(row, |size, &extent| size.checked_mul(extent));
    let Some(size) = size else {
        return Ok(wrong(format!("its size overflows: shape {shape:?}")));
    };
    Ok(Ok(Info { name, dtype, shape, size, offset }))
}
