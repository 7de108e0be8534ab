//! Metadata values. Arrays stay the bytes of the file, checked, so that reading 250,000 pieces copies nothing.

use super::cursor::Cursor;
use crate::storage::Bytes;

/// The type of a metadata value or of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// 8 bits without a sign.
    U8,
    /// 8 bits with a sign.
    I8,
    /// 16 bits without a sign.
    U16,
    /// 16 bits with a sign.
    I16,
    /// 32 bits without a sign.
    U32,
    /// 32 bits with a sign.
    I32,
    /// A single-precision number.
    F32,
    /// True or false.
    Bool,
    /// UTF-8 text.
    String,
    /// Values of one type.
    Array,
    /// 64 bits without a sign.
    U64,
    /// 64 bits with a sign.
    I64,
    /// A double-precision number.
    F64,
}

impl ValueType {
    /// Every type; its place is its number in files.
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The number in files.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The type with a number.
    pub fn from_code(code: u32) -> Option<ValueType> {
        ValueType::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// Bytes of one value; `None` where they vary.
    pub(super) fn size(self) -> Option<usize> {
        Some(match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String | ValueType::Array => return None,
        })
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 8 bits without a sign.
    U8(u8),
    /// 8 bits with a sign.
    I8(i8),
    /// 16 bits without a sign.
    U16(u16),
    /// 16 bits with a sign.
    I16(i16),
    /// 32 bits without a sign.
    U32(u32),
    /// 32 bits with a sign.
    I32(i32),
    /// A single-precision number.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Array),
    /// 64 bits without a sign.
    U64(u64),
    /// 64 bits with a sign.
    I64(i64),
    /// A double-precision number.
    F64(f64),
}

impl Value {
    /// A count or size: u32, as llama.cpp writes them, where it fits.
    pub fn count(count: usize) -> Value {
        u32::try_from(count).map_or(Value::U64(count as u64), Value::U32)
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// A whole number of any width and sign, if it is one.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// The value as it is written after its type number.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(value) => out.extend(value.to_le_bytes()),
            Value::I8(value) => out.extend(value.to_le_bytes()),
            Value::U16(value) => out.extend(value.to_le_bytes()),
            Value::I16(value) => out.extend(value.to_le_bytes()),
            Value::U32(value) => out.extend(value.to_le_bytes()),
            Value::I32(value) => out.extend(value.to_le_bytes()),
            Value::F32(value) => out.extend(value.to_le_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::String(value) => append_string(value, out),
            Value::Array(array) => {
                out.extend(array.element.code().to_le_bytes());
                out.extend((array.len as u64).to_le_bytes());
                out.extend_from_slice(&array.data);
            }
            Value::U64(value) => out.extend(value.to_le_bytes()),
            Value::I64(value) => out.extend(value.to_le_bytes()),
            Value::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

impl std::fmt::Display for Value {
    /// Short enough for a message: arrays say only what they are, long strings are cut.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::U8(value) => write!(f, "{value}"),
            Value::I8(value) => write!(f, "{value}"),
            Value::U16(value) => write!(f, "{value}"),
            Value::I16(value) => write!(f, "{value}"),
            Value::U32(value) => write!(f, "{value}"),
            Value::I32(value) => write!(f, "{value}"),
            Value::F32(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::String(value) if value.chars().count() > 60 => {
                write!(f, "\"{}…\"", value.chars().take(60).collect::<String>().escape_debug())
            }
            Value::String(value) => write!(f, "\"{}\"", value.escape_debug()),
            Value::Array(array) => f.write_str(&array.describe()),
            Value::U64(value) => write!(f, "{value}"),
            Value::I64(value) => write!(f, "{value}"),
            Value::F64(value) => write!(f, "{value}"),
        }
    }
}

/// An array of one type of value, as its bytes in the file.
#[derive(Clone, Debug)]
pub struct Array {
    element: ValueType,
    len: usize,
    data: Bytes,
}

impl PartialEq for Array {
    fn eq(&self, other: &Array) -> bool {
        self.element == other.element && self.len == other.len && *self.data == *other.data
    }
}

impl Array {
    /// `data` must have been walked: `len` values of `element`, strings with valid lengths and UTF-8.
    pub(super) fn from_checked(element: ValueType, len: usize, data: Bytes) -> Array {
        Array { element, len, data }
    }

    /// An array of strings.
    pub fn of_strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Array {
        let (mut len, mut data) = (0, Vec::new());
        for string in strings {
            append_string(string.as_ref(), &mut data);
            len += 1;
        }
        Array { element: ValueType::String, len, data: Bytes::from_vec(data) }
    }

    /// An array of f32.
    pub fn of_floats(floats: impl IntoIterator<Item = f32>) -> Array {
        Array::of(ValueType::F32, floats, f32::to_le_bytes)
    }

    /// An array of i32.
    pub fn of_i32(integers: impl IntoIterator<Item = i32>) -> Array {
        Array::of(ValueType::I32, integers, i32::to_le_bytes)
    }

    /// An array of u32.
    pub fn of_u32(integers: impl IntoIterator<Item = u32>) -> Array {
        Array::of(ValueType::U32, integers, u32::to_le_bytes)
    }

    /// An array of u8.
    pub fn of_bytes(bytes: Vec<u8>) -> Array {
        Array { element: ValueType::U8, len: bytes.len(), data: Bytes::from_vec(bytes) }
    }

    fn of<T, const N: usize>(
        element: ValueType,
        values: impl IntoIterator<Item = T>,
        bytes: impl Fn(T) -> [u8; N],
    ) -> Array {
        let data: Vec<u8> = values.into_iter().flat_map(bytes).collect();
        Array { element, len: data.len() / N, data: Bytes::from_vec(data) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of the elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        format!("an array of {} {} values", self.len, self.element.name())
    }

    /// The elements, if they are strings.
    pub fn strings(&self) -> Option<impl Iterator<Item = &str>> {
        if self.element != ValueType::String {
            return None;
        }
        let mut cursor = Cursor::new(&self.data);
        Some((0..self.len).map(move |_| cursor.string().expect("strings were checked when the array was made")))
    }

    /// The elements, if they are f32.
    pub fn floats(&self) -> Option<impl Iterator<Item = f32>> {
        let floats = self.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        (self.element == ValueType::F32).then_some(floats)
    }

    /// The elements, if they are whole numbers of any width that fit u32.
    pub fn integers(&self) -> Option<Vec<u32>> {
        fn all<const N: usize, T: TryInto<u32>>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Option<Vec<u32>> {
            data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes).try_into().ok()).collect()
        }
        match self.element {
            ValueType::U8 => all(&self.data, u8::from_le_bytes),
            ValueType::I8 => all(&self.data, i8::from_le_bytes),
            ValueType::U16 => all(&self.data, u16::from_le_bytes),
            ValueType::I16 => all(&self.data, i16::from_le_bytes),
            ValueType::U32 => all(&self.data, u32::from_le_bytes),
            ValueType::I32 => all(&self.data, i32::from_le_bytes),
            ValueType::U64 => all(&self.data, u64::from_le_bytes),
            ValueType::I64 => all(&self.data, i64::from_le_bytes),
            _ => None,
        }
    }

    /// The elements as bytes, if they are u8 or i8 (files with i8 for bytes exist).
    pub fn bytes(&self) -> Option<&[u8]> {
        matches!(self.element, ValueType::U8 | ValueType::I8).then_some(&*self.data)
    }
}

/// A string as files hold it: its length in bytes, then the bytes.
pub(super) fn append_string(string: &str, out: &mut Vec<u8>) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}
