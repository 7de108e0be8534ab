//! Block codecs: how each [`DType`] turns values into bytes and back (gguf-t5 section 6).
//!
//! Decoding accepts any bits: a damaged scale gives NaN or infinity, never a panic. [`check`] says whether stored
//! data are fit for kernels.

mod k_quants;
mod q4_k;
mod small;

use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The types that [`encode`] writes.
pub const WRITABLE: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_K];

/// Why values cannot be stored as a type. The caller knows the tensor and adds its name.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// NaN or infinity. `index` counts from the start of the values given.
    #[error("value {index}: expected a finite number, found {value}")]
    NotFinite { index: usize, value: f32 },
    /// The number, or the scale of the block whose largest it is, would become infinite.
    #[error("value {index}: expected a number that {dtype} can hold, found {value}")]
    Overflow { index: usize, value: f32, dtype: DType },
    /// The type is not among [`WRITABLE`].
    #[error("{0} can be read but not written")]
    NotWritable(DType),
}

/// Decodes whole rows: `data` holds `out.len()` values of type `dtype`.
///
/// # Panics
/// If `data` is not exactly as long as `out` needs.
pub fn decode(dtype: DType, data: &[u8], out: &mut [f32]) {
    assert_eq!(Some(data.len()), dtype.row_bytes(out.len()), "{} values as {dtype}", out.len());
    match dtype {
        DType::F32 => each(data, out, f32::from_le_bytes),
        DType::F16 => each(data, out, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => each(data, out, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        DType::Q8_0 => blocks(data, out, small::decode_q8_0),
        DType::Q4_0 => blocks(data, out, small::decode_q4_0),
        DType::Q4_1 => blocks(data, out, small::decode_q4_1),
        DType::Q5_0 => blocks(data, out, small::decode_q5_0),
        DType::Q5_1 => blocks(data, out, small::decode_q5_1),
        DType::Q4_K => blocks(data, out, k_quants::decode_q4_k),
        DType::Q5_K => blocks(data, out, k_quants::decode_q5_k),
        DType::Q6_K => blocks(data, out, k_quants::decode_q6_k),
    }
}

/// Encodes whole rows: the inverse of [`decode`], rounding as gguf-t5 section 6 says (F16 and BF16 to nearest even).
///
/// Q8_0 values stay within [-127, 127]. The same values give the same bytes on every machine.
///
/// # Errors
/// Where a value is NaN or infinite, where a number or a block's scale would become infinite, and for types that are
/// not [`WRITABLE`]; `out` is then unspecified.
///
/// # Panics
/// If `out` is not exactly as long as `values` need.
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    assert_eq!(Some(out.len()), dtype.row_bytes(values.len()), "{} values as {dtype}", values.len());
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(EncodeError::NotFinite { index, value: values[index] });
    }
    let fault = match dtype {
        DType::F32 => encode_blocks(values, out, |[value]: &[f32; 1], out: &mut [u8; 4]| {
            *out = value.to_le_bytes();
            true
        }),
        DType::F16 => encode_blocks(values, out, |[value]: &[f32; 1], out: &mut [u8; 2]| {
            let half = half::f16::from_f32(*value);
            *out = half.to_le_bytes();
            half.is_finite()
        }),
        DType::BF16 => encode_blocks(values, out, |[value]: &[f32; 1], out: &mut [u8; 2]| {
            let half = half::bf16::from_f32(*value);
            *out = half.to_le_bytes();
            half.is_finite()
        }),
        DType::Q8_0 => encode_blocks(values, out, small::encode_q8_0),
        DType::Q4_0 => encode_blocks(values, out, small::encode_q4_0),
        DType::Q4_K => encode_blocks(values, out, q4_k::encode),
        DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q5_K | DType::Q6_K => {
            return Err(EncodeError::NotWritable(dtype));
        }
    };
    match fault {
        None => Ok(()),
        Some(block) => {
            let start = block * dtype.block_len();
            let largest =
                (start..start + dtype.block_len()).max_by(|&i, &j| values[i].abs().total_cmp(&values[j].abs()));
            let index = largest.unwrap_or(start);
            Err(EncodeError::Overflow { index, value: values[index], dtype })
        }
    }
}

/// Applies `encode` to every block; the number of the first block for which it says false.
fn encode_blocks<const BYTES: usize, const VALUES: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; VALUES], &mut [u8; BYTES]) -> bool,
) -> Option<usize> {
    let blocks = values.as_chunks::<VALUES>().0.iter().zip(out.as_chunks_mut::<BYTES>().0);
    blocks.map(|(values, out)| encode(values, out)).position(|fits| !fits)
}

/// All values of a tensor, row by row.
///
/// # Errors
/// Where the data are not as long as type and shape ask for.
pub fn decode_tensor(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.check_size()?;
    let mut values = vec![0.0; tensor.len()];
    decode(tensor.dtype, &tensor.data, &mut values);
    Ok(values)
}

/// Refuses stored data that kernels must not meet: block scales that are NaN or infinite, and the Q8_0 quant -128,
/// which no encoder writes (kernels rely on [-127, 127], so that pair sums fit 16 bits).
///
/// Numbers of plain types (F32, F16, BF16) may be anything. Reads all data of block types, which is why opening a
/// checkpoint does not do it.
///
/// # Errors
/// [`crate::Error::Tensor`] with the row and block of the first fault.
pub fn check(tensor: &Tensor) -> Result<()> {
    tensor.check_size()?;
    let per_row = tensor.columns() / tensor.dtype.block_len();
    let place = |block: usize| format!("row {}, block {}", block / per_row, block % per_row);
    // Where each type keeps its half-precision scales.
    let halves: &[usize] = match tensor.dtype {
        DType::F32 | DType::F16 | DType::BF16 => return Ok(()),
        DType::Q8_0 | DType::Q4_0 | DType::Q5_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q6_K => &[208],
    };
    for (i, block) in tensor.data.chunks_exact(tensor.dtype.block_bytes()).enumerate() {
        if let Some(scale) = halves.iter().map(|&at| half_at(block, at)).find(|scale| !scale.is_finite()) {
            return Err(tensor.error(format!("{}: expected a finite scale, found {scale}", place(i))));
        }
        if tensor.dtype == DType::Q8_0 && block[2..].contains(&0x80) {
            return Err(tensor.error(format!("{}: expected values in [-127, 127], found -128", place(i))));
        }
    }
    Ok(())
}

/// Applies `decode` to every number of `N` bytes.
fn each<const N: usize>(data: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(data.as_chunks::<N>().0) {
        *out = decode(*bytes);
    }
}

/// Applies `decode` to every block of `BYTES` bytes and `VALUES` values.
fn blocks<const BYTES: usize, const VALUES: usize>(
    data: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    for (bytes, out) in data.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<VALUES>().0) {
        decode(bytes, out);
    }
}

/// A half-precision number at byte `at`: block scales and minima.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Stores `value` as a half-precision number at byte `at`; what it is then, or `None` where that is infinite.
fn put_half(bytes: &mut [u8], at: usize, value: f32) -> Option<f32> {
    let half = half::f16::from_f32(value);
    bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.is_finite().then(|| half.to_f32())
}
