//! A file of a checkpoint on its way into the module's memory.

use t5_runtime::storage::Bytes;
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::given;

/// Memory for a file of known size, which is needed whole. JavaScript fills it front to back; no second copy exists.
#[wasm_bindgen]
pub struct Buffer {
    bytes: Vec<u8>,
    size: usize,
}

#[wasm_bindgen]
impl Buffer {
    /// Memory for `size` bytes; throws `out-of-memory` where there is not that much.
    #[wasm_bindgen(constructor)]
    pub fn new(#[wasm_bindgen(unchecked_param_type = "number")] size: JsValue) -> Result<Buffer, JsValue> {
        Ok(Buffer::with_size(given::size("size", &size)?)?)
    }

    /// Copies the next bytes in; throws if they are more than announced.
    pub fn append(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] chunk: &JsValue,
    ) -> Result<(), JsValue> {
        let chunk = given::bytes("chunk", chunk)?;
        let (filled, length) = (self.bytes.len(), chunk.length() as usize);
        self.check(length)?;
        self.bytes.resize(filled + length, 0);
        chunk.copy_to(&mut self.bytes[filled..]);
        Ok(())
    }

    /// How many bytes have arrived.
    #[wasm_bindgen(getter)]
    pub fn filled(&self) -> f64 {
        self.bytes.len() as f64
    }
}

impl Buffer {
    fn with_size(size: f64) -> Result<Buffer, Failure> {
        let mut bytes = Vec::new();
        // A size of 2^32 or more saturates, and the allocator refuses it.
        bytes.try_reserve_exact(size as usize).map_err(|_| {
            let expected = format!("expected {:.0} MB of memory for the file", size / 1e6);
            Failure::new("out-of-memory", format!("{expected}, found less: at most 4295 MB can be used in a tab"))
        })?;
        let size = size as usize;
        Ok(Buffer { bytes, size })
    }

    fn check(&self, more: usize) -> Result<(), Failure> {
        if more > self.size - self.bytes.len() {
            let found = self.bytes.len() + more;
            return Err(Failure::new("bad-model", format!("expected {} bytes, found at least {found}", self.size)));
        }
        Ok(())
    }

    /// The whole file.
    pub(crate) fn into_bytes(self) -> Result<Bytes, Failure> {
        if self.bytes.len() != self.size {
            let what = format!("expected {} bytes, found {}", self.size, self.bytes.len());
            return Err(Failure::new("bad-model", what));
        }
        Ok(Bytes::from_vec(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_sizes_are_refused() {
        let mut buffer = Buffer::with_size(4.0).unwrap();
        buffer.check(4).unwrap();
        assert_eq!(buffer.check(5).unwrap_err().message, "expected 4 bytes, found at least 5");
        buffer.bytes.extend([1, 2, 3]);
        assert_eq!(buffer.into_bytes().unwrap_err().message, "expected 4 bytes, found 3");
        assert_eq!(Buffer::with_size(1e300).err().unwrap().code, "out-of-memory");
    }

    #[test]
    fn a_full_buffer_is_the_file() {
        let mut buffer = Buffer::with_size(3.0).unwrap();
        buffer.bytes.extend(*b"abc");
        assert_eq!(*buffer.into_bytes().unwrap(), *b"abc");
    }
}
