//! A Hugging Face folder, dropped on a page, becomes one GGUF file.

use std::collections::HashMap;
use std::io::{self, Write};

use js_sys::{Function, Uint8Array};
use t5_quantize::policy::FILE_TYPES;
use t5_quantize::{Policy, Progress};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use wasm_bindgen::prelude::*;

use crate::buffer::Buffer;
use crate::error::Failure;
use crate::given;

/// The files of a checkpoint in the module's memory.
#[wasm_bindgen]
#[derive(Default)]
pub struct Folder {
    files: HashMap<String, Bytes>,
}

#[wasm_bindgen]
impl Folder {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Folder {
        Folder::default()
    }

    /// Takes a file over.
    pub fn add(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] name: JsValue,
        file: Buffer,
    ) -> Result<(), JsValue> {
        let name = given::text("name", &name)?;
        self.files.insert(name, file.into_bytes()?);
        Ok(())
    }

    /// Writes the checkpoint as one file, matrices stored as `dtype`: `write` gets its bytes front to back, `progress`
    /// the part that is done, from 0 to 1. Returns remarks and sizes. JSON.
    pub fn quantize(
        self,
        #[wasm_bindgen(unchecked_param_type = "string")] name: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] dtype: JsValue,
        write: &Function,
        progress: &Function,
    ) -> Result<String, JsValue> {
        let (name, dtype) = (&*given::text("name", &name)?, &*given::text("type", &dtype)?);
        let checkpoint = Checkpoint::from_files(name, &self.files).map_err(Failure::from)?;
        let policy = Policy::new(file_type(dtype)?);
        let mut out = io::BufWriter::with_capacity(1 << 20, Sink(write));
        let mut progress = Callback { function: progress, values: 0, done: 0, told: 0 };
        let report = t5_quantize::quantize(&checkpoint, &policy, name, &mut out, &mut progress)
            .and_then(|report| out.flush().map(|()| report).map_err(t5_runtime::Error::io(name)))
            .map_err(Failure::from)?;
        let mut json = report.to_json();
        json["notes"] = checkpoint.notes.clone().into();
        Ok(json.to_string())
    }
}

fn file_type(name: &str) -> Result<DType, Failure> {
    DType::from_name(name).filter(|dtype| FILE_TYPES.contains(dtype)).ok_or_else(|| {
        let names: Vec<_> = FILE_TYPES.iter().map(|dtype| dtype.name()).collect();
        Failure::new("bad-option", format!("type: expected one of {}, found {name}", names.join(", ")))
    })
}

/// JavaScript's function as something to write to.
struct Sink<'a>(&'a Function);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A copy: the module's memory moves when it grows.
        let copy = Uint8Array::from(bytes);
        match self.0.call1(&JsValue::UNDEFINED, &copy) {
            Ok(_) => Ok(bytes.len()),
            Err(_) => Err(io::Error::other("the new file could not be written")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells JavaScript of every hundredth.
struct Callback<'a> {
    function: &'a Function,
    values: u64,
    done: u64,
    told: u64,
}

impl Progress for Callback<'_> {
    fn start(&mut self, values: u64) {
        self.values = values.max(1);
    }

    fn tensor(&mut self, _name: &str) {}

    fn advance(&mut self, values: u64) {
        self.done += values;
        let hundredths = self.done * 100 / self.values;
        if hundredths > self.told {
            self.told = hundredths;
            // Who listens and fails only misses the news.
            let _ = self.function.call1(&JsValue::UNDEFINED, &(self.done as f64 / self.values as f64).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_of_the_command() {
        assert_eq!(file_type("q8_0").unwrap(), DType::Q8_0);
        assert_eq!(file_type("f16").unwrap(), DType::F16);
        let failure = file_type("q2_k").unwrap_err();
        assert!(failure.message.starts_with("type: expected one of "), "{}", failure.message);
        assert!(failure.message.ends_with(", found q2_k"), "{}", failure.message);
    }
}
