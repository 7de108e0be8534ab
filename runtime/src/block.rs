//! Block codecs: how each [`DType`] turns values into bytes and back (gguf block layouts).

use crate::tensor::DType;

/// Decodes whole rows: `data` holds `out.len()` values of type `dtype`.
///
/// # Panics
/// If `data` is not exactly as long as `out` needs.
pub fn decode(dtype: DType, data: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            for (out, bytes) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        DType::F16 => {
            for (out, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                *out = half::f16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => unimplemented!("{dtype}"),
    }
}
