//! A model on its way into the module.

use sha2::{Digest, Sha256};
use t5_runtime::{Incoming, Model, ModelOptions};
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::given;

/// Bytes that cross at once: what lies in JavaScript's memory is copied here first.
const PIECE: u32 = 64 << 10;

/// A model file of known size. JavaScript brings it front to back; weights go where products read them, so that the
/// file is never whole in memory.
#[wasm_bindgen]
pub struct Download {
    incoming: Incoming,
    size: usize,
    piece: Vec<u8>,
    /// Where a checksum is asked for.
    sum: Option<Sha256>,
}

#[wasm_bindgen]
impl Download {
    /// Expects `size` bytes; throws `out-of-memory` where there is not so much memory. `name` is for messages, `isa`
    /// the instruction set to use where it is not to be the best one.
    #[wasm_bindgen(constructor)]
    pub fn new(
        #[wasm_bindgen(unchecked_param_type = "string")] name: JsValue,
        #[wasm_bindgen(unchecked_param_type = "number")] size: JsValue,
        checked: bool,
        #[wasm_bindgen(unchecked_optional_param_type = "string | null")] isa: JsValue,
    ) -> Result<Download, JsValue> {
        let (name, size) = (given::text("name", &name)?, given::size("size", &size)?);
        Ok(Download::with_size(&name, size, checked, given::optional_text("isa", &isa)?)?)
    }

    /// Takes the next bytes; throws if the file can be seen to be wrong.
    pub fn append(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] chunk: &JsValue,
    ) -> Result<(), JsValue> {
        let chunk = given::bytes("chunk", chunk)?;
        let mut start = 0;
        while start < chunk.length() {
            let end = chunk.length().min(start.saturating_add(PIECE));
            self.piece.resize((end - start) as usize, 0);
            chunk.subarray(start, end).copy_to(&mut self.piece);
            self.take().map_err(Failure::from)?;
            start = end;
        }
        Ok(())
    }

    /// The SHA-256 of what has arrived, as 64 hexadecimal digits; undefined if it was not asked for.
    pub fn sha256(&self) -> Option<String> {
        let sum = self.sum.clone()?.finalize();
        Some(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// How many bytes have arrived.
    #[wasm_bindgen(getter)]
    pub fn filled(&self) -> f64 {
        self.incoming.received() as f64
    }
}

impl Download {
    fn with_size(name: &str, size: f64, checked: bool, isa: Option<String>) -> Result<Download, Failure> {
        // What this takes from the browser at once stays with the module: the weights fill it as they come.
        let mut room = Vec::<u8>::new();
        // A size of 2^32 or more saturates, and the allocator refuses it.
        room.try_reserve_exact(size as usize).map_err(|_| {
            let expected = format!("expected {:.0} MB of memory for the model", size / 1e6);
            Failure::new("out-of-memory", format!("{expected}, found less: at most 4295 MB can be used in a tab"))
        })?;
        drop(std::hint::black_box(room));
        let size = size as usize;
        let isa = isa.as_deref().map(str::parse).transpose()?;
        let incoming = Incoming::new(name, size, &ModelOptions { isa, ..ModelOptions::default() })?;
        Ok(Download { incoming, size, piece: Vec::new(), sum: checked.then(Sha256::new) })
    }

    fn take(&mut self) -> t5_runtime::Result<()> {
        if let Some(sum) = &mut self.sum {
            sum.update(&self.piece);
        }
        self.incoming.push(&self.piece)
    }

    /// The model, and the size of its file.
    pub(crate) fn into_model(self) -> Result<(Model, usize), Failure> {
        drop(self.piece);
        Ok((self.incoming.finish()?, self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_of_what_has_arrived() {
        let mut download = Download::with_size("abc", 3.0, true, None).unwrap();
        download.piece.extend(*b"abc");
        // It is no model.
        assert!(download.take().is_err());
        // FIPS 180-2, appendix B.1.
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(download.sha256().as_deref(), Some(sum));
        assert_eq!(Download::with_size("abc", 3.0, false, None).unwrap().sha256(), None);
    }

    #[test]
    fn what_cannot_fit_is_refused() {
        let failure = Download::with_size("huge", 1e300, false, None).err().unwrap();
        assert_eq!(failure.code, "out-of-memory");
    }
}
