//! Weights as the products read them: groups of 16 rows interleaved, so that a vector's lanes are output rows and
//! the order of float additions does not depend on the vector's width.

pub(crate) mod floats;
pub(crate) mod nibbles;
pub(crate) mod planes;
pub(crate) mod q8;

use crate::error::Result;
use crate::kernels::dot::Dot;
use crate::kernels::isa::dispatch;
use crate::kernels::layout::Layout;
use crate::kernels::simd::{F16, f16_to_f32};
use crate::tensor::Tensor;

/// A row of a tensor, as it lies in the file.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) index: usize,
    pub(crate) bytes: &'a [u8],
}

impl F16 {
    /// The scale of a block, in its first two bytes.
    ///
    /// # Errors
    /// If it is infinite or NaN.
    #[inline(always)]
    pub(crate) fn read_finite(row: Row<'_>, bytes: &[u8]) -> Result<F16> {
        let scale = F16(u16::from_le_bytes([bytes[0], bytes[1]]));
        if scale.0 & 0x7c00 == 0x7c00 {
            let found = f16_to_f32(scale.0);
            return Err(row.tensor.error(format!("expected a finite scale in row {}, found {found}", row.index)));
        }
        Ok(scale)
    }
}

/// How blocks of weights are packed for an instruction set.
#[inline(always)]
pub(crate) fn layout_of<V: Dot>(v: V) -> Layout {
    Layout { flip: v.flip(), ..V::LAYOUT }
}

dispatch!(pub(crate) fn layout() -> Layout = layout_of);
