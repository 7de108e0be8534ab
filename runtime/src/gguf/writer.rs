//! The writer: a header with everything known in advance, then tensor data as they come.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::value::{Value, append_string};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_NAME, type_code};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// As it stands in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Hugging Face order: the last extent is contiguous.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Bytes of data; `None` where blocks do not fill a row or the size overflows.
    pub fn size(&self) -> Option<usize> {
        let (columns, rows) = self.shape.split_last()?;
        rows.iter().try_fold(self.dtype.row_bytes(*columns)?, |size, &extent| size.checked_mul(extent))
    }
}

/// Writes a GGUF file of version 3 front to back, so that any [`Write`] will do and no more than one piece of one
/// tensor has to be in memory. The same input gives the same bytes.
///
/// ```
/// use t5_runtime::gguf::{File, TensorInfo, Value, Writer};
/// use t5_runtime::{storage::Bytes, tensor::DType};
///
/// let metadata = [("general.architecture".to_owned(), Value::String("t5".to_owned()))];
/// let norm = TensorInfo { name: "enc.output_norm.weight".to_owned(), dtype: DType::F32, shape: vec![2] };
/// let mut writer = Writer::new("example.gguf".as_ref(), Vec::new(), &metadata, &[norm])?;
/// writer.append("enc.output_norm.weight", &1f32.to_le_bytes())?;
/// writer.append("enc.output_norm.weight", &2f32.to_le_bytes())?;
/// let file = File::parse("example.gguf", Bytes::from_vec(writer.finish()?))?;
/// assert_eq!(file.tensors()[0].shape, [2]);
/// # Ok::<(), t5_runtime::Error>(())
/// ```
pub struct Writer<W> {
    out: W,
    /// For messages.
    path: PathBuf,
    tensors: Vec<(TensorInfo, usize)>,
    /// The tensor that is being written.
    current: usize,
    /// Bytes of it that were written.
    written: usize,
}

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Writes the header. `path` names the file in messages; tensors must then be appended in the order given here.
    ///
    /// # Errors
    /// Where names or keys are empty, too long or not unique, a shape does not suit its type, or `out` fails.
    pub fn new(path: &Path, out: W, metadata: &[(String, Value)], tensors: &[TensorInfo]) -> Result<Writer<W>> {
        let file = path.display().to_string();
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        let mut keys = HashSet::new();
        for (key, value) in metadata {
            if key.is_empty() || key.len() > 65535 || !keys.insert(key) {
                return Err(Error::config(&file, key, "expected a key of 1 to 65535 bytes that comes once"));
            }
            if key == "general.alignment" && value.integer() != Some(DEFAULT_ALIGNMENT as i128) {
                return Err(Error::config(&file, key, format!("expected {DEFAULT_ALIGNMENT}, found {value}")));
            }
            append_string(key, &mut header);
            header.extend(value.value_type().code().to_le_bytes());
            value.append_to(&mut header);
        }
        let mut names = HashSet::new();
        let mut sized = Vec::new();
        let mut offset = 0u64;
        for tensor in tensors {
            let wrong = |what: String| Error::tensor(&file, &tensor.name, what);
            if tensor.name.is_empty() || tensor.name.len() > MAX_NAME || !names.insert(&tensor.name) {
                return Err(wrong(format!("expected a name of 1 to {MAX_NAME} bytes that comes once")));
            }
            let size = tensor.size().filter(|&size| size > 0 && tensor.shape.len() <= 4).ok_or_else(|| {
                wrong(format!("expected 1 to 4 extents that suit {}, found {:?}", tensor.dtype, tensor.shape))
            })?;
            let code = type_code(tensor.dtype)
                .ok_or_else(|| wrong(format!("expected a type that GGUF has, found {}", tensor.dtype)))?;
            append_string(&tensor.name, &mut header);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for &extent in tensor.shape.iter().rev() {
                header.extend((extent as u64).to_le_bytes());
            }
            header.extend(code.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += size.next_multiple_of(DEFAULT_ALIGNMENT) as u64;
            sized.push((tensor.clone(), size));
        }
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
        let mut writer = Writer { out, path: path.to_owned(), tensors: sized, current: 0, written: 0 };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Writes the next bytes of `tensor`: all of them or a part; the tensor after it is due when it is complete.
    ///
    /// # Errors
    /// Where another tensor is due, there are too many bytes, or the writer fails.
    pub fn append(&mut self, tensor: &str, data: &[u8]) -> Result<()> {
        let Some((due, size)) = self.tensors.get(self.current) else {
            return Err(self.wrong(tensor, "expected no more tensors, found one".to_owned()));
        };
        if due.name != tensor {
            return Err(self.wrong(tensor, format!("expected data of {}, which is due", due.name)));
        }
        let (size, left) = (*size, *size - self.written);
        if data.len() > left {
            return Err(self.wrong(tensor, format!("expected at most {left} more bytes, found {}", data.len())));
        }
        self.write(data)?;
        self.written += data.len();
        if self.written == size {
            let padding = size.next_multiple_of(DEFAULT_ALIGNMENT) - size;
            self.write(&[0; DEFAULT_ALIGNMENT][..padding])?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// Where a tensor is not complete, or flushing fails.
    pub fn finish(mut self) -> Result<W> {
        if let Some((due, size)) = self.tensors.get(self.current) {
            return Err(self.wrong(&due.name, format!("expected {size} bytes, found {}", self.written)));
        }
        self.out.flush().map_err(Error::io(&self.path))?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io(&self.path))
    }

    fn wrong(&self, tensor: &str, what: String) -> Error {
        Error::tensor(self.path.display().to_string(), tensor, what)
    }
}
