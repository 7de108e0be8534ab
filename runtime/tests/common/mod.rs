//! What several tests share.
#![allow(dead_code, unused_imports)] // Each test crate uses a part.

#[path = "../../../tests/src/checkpoint.rs"]
pub mod checkpoint;
#[path = "../../../tests/src/shared.rs"]
mod shared_folder;
pub mod tiny;

pub use shared_folder::shared;

/// Raw GGUF fields, written without the crate's own writer, so that anything can be wrong.
#[derive(Clone, Default)]
pub struct Raw {
    pub values: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A key-value: key, type number, bytes of the value.
pub fn key_value(key: impl AsRef<[u8]>, code: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &code.to_le_bytes(), value].concat()
}

/// An array value: element type, count, bytes of the elements.
pub fn array(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// A tensor info; extents in file order (contiguous first).
pub fn tensor(name: impl AsRef<[u8]>, extents: &[u64], code: u32, offset: u64) -> Vec<u8> {
    let mut info = string(name);
    info.extend((extents.len() as u32).to_le_bytes());
    info.extend(extents.iter().flat_map(|extent| extent.to_le_bytes()));
    info.extend(code.to_le_bytes());
    info.extend(offset.to_le_bytes());
    info
}

impl Raw {
    /// The file, with version 3, true counts and alignment 32.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_aligned(32)
    }

    pub fn bytes_aligned(&self, alignment: usize) -> Vec<u8> {
        let mut bytes = header(3, self.tensors.len() as u64, self.values.len() as u64);
        bytes.extend(self.values.concat());
        bytes.extend(self.tensors.concat());
        if !self.tensors.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        }
        bytes.extend(&self.data);
        bytes
    }
}

pub fn header(version: u32, tensors: u64, values: u64) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &values.to_le_bytes()].concat()
}
