//! Weights of floats: pairs of groups of 16 rows, interleaved.

use crate::error::Result;
use crate::kernels::memory::{Table, Zeroable};
use crate::kernels::simd::{BF16, F16, LANES, Simd};
use crate::kernels::sizes::product;

/// A plain number type.
pub(crate) trait Element: Zeroable {
    fn load<V: Simd>(v: V, x: &[Self; LANES]) -> V::F;
    /// The value that a file holds in this many bytes, little endian.
    fn read(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[f32; LANES]) -> V::F {
        v.load(x)
    }

    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Element for F16 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[F16; LANES]) -> V::F {
        v.load_f16(x)
    }

    fn read(bytes: &[u8]) -> F16 {
        F16(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

impl Element for BF16 {
    #[inline(always)]
    fn load<V: Simd>(v: V, x: &[BF16; LANES]) -> V::F {
        v.load_bf16(x)
    }

    fn read(bytes: &[u8]) -> BF16 {
        BF16(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

/// One value of each of two groups of rows. A matrix is `[pairs of groups][k]`; the last pair is filled up with
/// zeros. Two groups lie side by side because a single row of activations needs two independent chains of additions
/// to keep up with memory, and memory is fastest read in order.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub(crate) struct Pair<E>(pub(crate) [[E; LANES]; 2]);

// SAFETY: numbers without padding: 64 bytes or more.
unsafe impl<E: Zeroable> Zeroable for Pair<E> {}

/// `n` rows of `k` values, all zero.
///
/// # Errors
/// [`crate::Error::Memory`] where there is not enough.
pub(crate) fn zeroed_pairs<E: Element>(n: usize, k: usize) -> Result<Table<Pair<E>>> {
    Table::zeroed(product([n.div_ceil(2 * LANES), k]))
}

/// Interleaves row `i` of `k` values.
pub(crate) fn set_pairs<E: Element>(packed: &mut [Pair<E>], i: usize, k: usize, bytes: &[u8]) {
    let (pair, half, lane) = (i / (2 * LANES), i / LANES % 2, i % LANES);
    for (target, bytes) in packed[pair * k..(pair + 1) * k].iter_mut().zip(bytes.chunks_exact(size_of::<E>())) {
        target.0[half][lane] = E::read(bytes);
    }
}
