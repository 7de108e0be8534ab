//! Block codecs: how each [`DType`] turns values into bytes and back (docs/gguf.md 6).
//!
//! Decoding accepts any bits: a damaged scale gives NaN or infinity, never a panic. [`check`] says whether stored
//! data are fit for kernels.

mod eight_bits;
mod k_quants;
mod q4_k;
mod small;

use half::slice::HalfFloatSliceExt;

pub(crate) use k_quants::unpack_scales;

use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The types that [`encode`] writes.
pub const WRITABLE: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_K];

/// Why values cannot be stored as a type. The caller knows the tensor and adds its name.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// NaN or infinity.
    #[error("value {index}: expected a finite number, found {value}")]
    NotFinite {
        /// Counted from the start of the values given.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The number, or the scale of the block whose largest it is, would become infinite.
    #[error("value {index}: expected a number that {dtype} can hold, found {value}")]
    Overflow {
        /// Counted from the start of the values given.
        index: usize,
        /// What it is.
        value: f32,
        /// What it was to be stored as.
        dtype: DType,
    },
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
        DType::F16 => decode_f16(data, out),
        DType::BF16 => each(data, out, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        DType::Q8_0 => blocks(data, out, small::decode_q8_0),
        DType::Q4_0 => blocks(data, out, small::decode_q4_0),
        DType::Q4_1 => blocks(data, out, small::decode_q4_1),
        DType::Q5_0 => blocks(data, out, small::decode_q5_0),
        DType::Q5_1 => blocks(data, out, small::decode_q5_1),
        DType::Q4_K => blocks(data, out, k_quants::decode_q4_k),
        DType::Q5_K => blocks(data, out, k_quants::decode_q5_k),
        DType::Q6_K => blocks(data, out, k_quants::decode_q6_k),
        DType::F8_E4M3 => each(data, out, |[byte]| eight_bits::e4m3(byte)),
        DType::F8_E5M2 => each(data, out, |[byte]| eight_bits::e5m2(byte)),
    }
}

/// Encodes whole rows: the inverse of [`decode`], rounding as docs/gguf.md 6 says (F16 and BF16 to nearest even).
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
    encode_in_runs(dtype, 1, values, out)
}

/// As [`encode`], where each `run` neighbouring blocks of Q8_0 get one scale, that of their largest value: products
/// with such weights are faster. Other types are as they are.
///
/// # Errors
/// As [`encode`].
///
/// # Panics
/// As [`encode`], and if blocks of Q8_0 do not fill runs.
pub fn encode_in_runs(dtype: DType, run: usize, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
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
        DType::Q8_0 => return encode_q8_0(run, values, out),
        DType::Q4_0 => encode_blocks(values, out, small::encode_q4_0),
        DType::Q4_K => encode_blocks(values, out, q4_k::encode),
        DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q5_K | DType::Q6_K | DType::F8_E4M3 | DType::F8_E5M2 => {
            return Err(EncodeError::NotWritable(dtype));
        }
    };
    match fault {
        None => Ok(()),
        Some(block) => {
            let start = block * dtype.block_len();
            Err(overflow(dtype, start, &values[start..start + dtype.block_len()]))
        }
    }
}

/// What is said of values from index `start` on, with whose largest the scale would become infinite.
fn overflow(dtype: DType, start: usize, values: &[f32]) -> EncodeError {
    let largest = (0..values.len()).max_by(|&i, &j| values[i].abs().total_cmp(&values[j].abs())).unwrap_or(0);
    EncodeError::Overflow { index: start + largest, value: values[largest], dtype }
}

/// The longest run of Q8_0 blocks with one scale that products make use of, where a row of `columns` values consists of
/// such: 1, 2, 4 or 8 blocks. The integer sums of 8 blocks are at most 8 · 32 · 128 · 127, which f32 holds exactly.
pub fn longest_run(columns: usize) -> usize {
    1 << (columns / DType::Q8_0.block_len()).trailing_zeros().min(3)
}

/// `run`, or the longest half, quarter or eighth of it, such that each run of the blocks of these whole rows has one
/// scale.
pub fn run_of(mut run: usize, rows: &[u8]) -> usize {
    let blocks = rows.as_chunks::<{ DType::Q8_0.block_bytes() }>().0;
    while run > 1 && !blocks.chunks(run).all(|run| run.iter().all(|block| block[..2] == run[0][..2])) {
        run /= 2;
    }
    run
}

fn encode_q8_0(run: usize, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    let (values, out) = (values.as_chunks::<32>().0, out.as_chunks_mut::<34>().0);
    assert!(run > 0 && values.len().is_multiple_of(run), "whole runs of {run} blocks");
    for (index, (values, out)) in values.chunks_exact(run).zip(out.chunks_exact_mut(run)).enumerate() {
        if !small::encode_q8_0(values, out) {
            return Err(overflow(DType::Q8_0, index * run * 32, values.as_flattened()));
        }
    }
    Ok(())
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
    tensor.decode(&tensor.data, &mut values);
    Ok(values)
}

/// Refuses stored data that kernels must not meet: block scales that are NaN or infinite, and the Q8_0 quant -128,
/// which no encoder writes (kernels rely on [-127, 127], so that pair sums fit 16 bits).
///
/// Numbers of plain types (F32, F16, BF16, F8) may be anything. Reads all data of block types, which is why opening a
/// checkpoint does not do it.
///
/// # Errors
/// [`crate::Error::Tensor`] with the row and block of the first fault.
pub fn check(tensor: &Tensor) -> Result<()> {
    tensor.check_size()?;
    let data: &[u8] = &tensor.data;
    // Where each type keeps its half-precision scales.
    let fault = match tensor.dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8_E4M3 | DType::F8_E5M2 => None,
        DType::Q8_0 => first_fault(data, |block: &[u8; 34]| infinite(block, 0) | has_minus_128(block)),
        DType::Q4_0 => first_fault(data, |block: &[u8; 18]| infinite(block, 0)),
        DType::Q4_1 => first_fault(data, |block: &[u8; 20]| infinite(block, 0) | infinite(block, 2)),
        DType::Q5_0 => first_fault(data, |block: &[u8; 22]| infinite(block, 0)),
        DType::Q5_1 => first_fault(data, |block: &[u8; 24]| infinite(block, 0) | infinite(block, 2)),
        DType::Q4_K => first_fault(data, |block: &[u8; 144]| infinite(block, 0) | infinite(block, 2)),
        DType::Q5_K => first_fault(data, |block: &[u8; 176]| infinite(block, 0) | infinite(block, 2)),
        DType::Q6_K => first_fault(data, |block: &[u8; 210]| infinite(block, 208)),
    };
    let Some(index) = fault else { return Ok(()) };
    let per_row = tensor.columns() / tensor.dtype.block_len();
    let block = &data[index * tensor.dtype.block_bytes()..];
    let at = match tensor.dtype {
        DType::Q6_K => 208,
        _ if infinite(block, 0) => 0,
        _ => 2,
    };
    let what = if tensor.dtype == DType::Q8_0 && at == 2 {
        "expected values in [-127, 127], found -128".to_owned()
    } else {
        format!("expected a finite scale, found {}", half_at(block, at))
    };
    Err(tensor.error(format!("row {}, block {}: {what}", index / per_row, index % per_row)))
}

fn first_fault<const BYTES: usize>(data: &[u8], fault: impl Fn(&[u8; BYTES]) -> bool) -> Option<usize> {
    data.as_chunks::<BYTES>().0.iter().position(fault)
}

/// Whether the half at byte `at` is infinite or NaN: all bits of its exponent are set.
fn infinite(block: &[u8], at: usize) -> bool {
    block[at + 1] & 0x7C == 0x7C
}

/// Whether a Q8_0 block has the value -128: eight values at a time, since every weight of a model goes through here.
fn has_minus_128(block: &[u8; 34]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut found = 0;
    for word in block[2..].as_chunks::<8>().0 {
        // A byte is zero where the value is -128; the subtraction borrows into the top bit of the first such byte.
        let zero = u64::from_ne_bytes(*word) ^ TOPS;
        found |= zero.wrapping_sub(ONES) & !zero & TOPS;
    }
    found != 0
}

/// A run at a time, since conversions of a slice use the processor's instruction for it without asking every time.
fn decode_f16(data: &[u8], out: &mut [f32]) {
    const RUN: usize = 64;
    let mut run = [half::f16::ZERO; RUN];
    for (data, out) in data.chunks(2 * RUN).zip(out.chunks_mut(RUN)) {
        for (half, bytes) in run.iter_mut().zip(data.as_chunks::<2>().0) {
            *half = half::f16::from_le_bytes(*bytes);
        }
        run[..out.len()].convert_to_f32_slice(out);
    }
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
