//! Element types and named tensors as they lie in a file.

use crate::block;
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// How the numbers of a tensor are stored. Block formats run along a row, never across rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
pub enum DType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper 16 bits of single precision.
    BF16,
    /// Blocks of 32 int8 values with a scale.
    Q8_0,
    /// Blocks of 32 values of 4 bits with a scale.
    Q4_0,
    /// Blocks of 32 values of 4 bits with a scale and a minimum.
    Q4_1,
    /// Blocks of 32 values of 5 bits with a scale.
    Q5_0,
    /// Blocks of 32 values of 5 bits with a scale and a minimum.
    Q5_1,
    /// Super-blocks of 256 values of 4 bits, whose eight parts have 6-bit scales and minima.
    Q4_K,
    /// Super-blocks of 256 values of 5 bits, whose eight parts have 6-bit scales and minima.
    Q5_K,
    /// Super-blocks of 256 values of 6 bits, whose sixteen parts have 8-bit scales.
    Q6_K,
    /// Eight bits: four of exponent, three of mantissa, no infinity (the "fn" of `float8_e4m3fn`).
    F8_E4M3,
    /// Eight bits: the first half of an F16.
    F8_E5M2,
}

impl DType {
    /// Every type that can be read.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
        DType::F8_E4M3,
        DType::F8_E5M2,
    ];

    /// Values in one block (1 for plain number types).
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::F8_E4M3 | DType::F8_E5M2 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => 32,
            DType::Q4_K | DType::Q5_K | DType::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q4_K => 144,
            DType::Q5_K => 176,
            DType::Q6_K => 210,
            DType::F8_E4M3 | DType::F8_E5M2 => 1,
        }
    }

    /// Bytes of a row of `columns` values; `None` if blocks do not fill the row or the size overflows.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_len()) {
            return None;
        }
        (columns / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name used in files, reports and on the command line: `f16`, `q8_0`, `q4_k` …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q4_K => "q4_k",
            DType::Q5_K => "q5_k",
            DType::Q6_K => "q6_k",
            DType::F8_E4M3 => "f8_e4m3",
            DType::F8_E5M2 => "f8_e5m2",
        }
    }

    /// The inverse of [`DType::name`], ignoring case.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor as it lies in a file: rows of a matrix one after the other, `shape` in Hugging Face order
/// (`[out, in]` for a linear layer; the last extent is contiguous).
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The canonical (Hugging Face) name, whatever the file calls it.
    pub name: String,
    /// The file it came from, for messages.
    pub file: String,
    /// How the values are stored.
    pub dtype: DType,
    /// Extents, rows first.
    pub shape: Vec<usize>,
    /// The values as they are stored.
    pub data: Bytes,
    /// What every stored value is multiplied with: 1 but for weights of eight bits that came with a scale.
    pub scale: f32,
}

impl Tensor {
    /// Rows of the matrix; 1 for a vector. `usize::MAX` where there would be more.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().copied().fold(1, usize::saturating_mul)
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of values. `usize::MAX` where there would be more.
    pub fn len(&self) -> usize {
        self.rows().saturating_mul(self.columns())
    }

    /// Whether the tensor has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored bytes of row `row`.
    ///
    /// # Panics
    /// If `row` is not below [`Tensor::rows`].
    pub fn row_data(&self, row: usize) -> &[u8] {
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        let bytes = self.data.len() / self.rows();
        &self.data[row * bytes..(row + 1) * bytes]
    }

    /// Decodes whole rows of this tensor, of which `data` are the bytes: `out` `[rows, columns]`.
    ///
    /// # Panics
    /// If `data` is not exactly as long as `out` needs.
    pub fn decode(&self, data: &[u8], out: &mut [f32]) {
        block::decode(self.dtype, data, out);
        if self.scale != 1.0 {
            out.iter_mut().for_each(|value| *value *= self.scale);
        }
    }

    /// An error about this tensor.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::tensor(&self.file, &self.name, what)
    }

    /// Checks that `data` has exactly the bytes that type and shape ask for.
    ///
    /// # Errors
    /// If it has not, if an extent is 0, if blocks do not fill a row, or if the size overflows.
    pub fn check_size(&self) -> Result<()> {
        if self.shape.contains(&0) {
            return Err(self.error(format!("expected extents above 0, found the shape {:?}", self.shape)));
        }
        let expected = self
            .dtype
            .row_bytes(self.columns())
            .ok_or_else(|| {
                self.error(format!(
                    "a row of {} values cannot be stored as {}, whose blocks hold {}",
                    self.columns(),
                    self.dtype,
                    self.dtype.block_len()
                ))
            })?
            .checked_mul(self.rows())
            .ok_or_else(|| self.error("its size overflows"))?;
        if expected != self.data.len() {
            return Err(self.error(format!("expected {expected} bytes, found {}", self.data.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_that_no_file_has_do_not_wrap() {
        let tensor = |shape: &[usize]| Tensor {
            name: "a".to_owned(),
            file: "test".to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            data: Bytes::from_vec(Vec::new()),
            scale: 1.0,
        };
        let huge = tensor(&[usize::MAX / 4, usize::MAX / 4, 2]);
        assert_eq!((huge.rows(), huge.len()), (usize::MAX, usize::MAX));
        assert!(huge.check_size().unwrap_err().to_string().contains("its size overflows"));
        let none = tensor(&[usize::MAX / 4, 0, usize::MAX / 4, usize::MAX / 4]);
        assert_eq!((none.rows(), none.len()), (0, 0));
        assert!(none.check_size().unwrap_err().to_string().contains("expected extents above 0"));
        let vector = tensor(&[3]);
        assert_eq!((vector.rows(), vector.columns(), vector.len()), (1, 3, 3));
    }
}
