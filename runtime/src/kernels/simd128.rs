//! WebAssembly's 128-bit vectors: four of them for sixteen lanes. They are chosen when the module is compiled, since
//! a module with instructions that an engine does not know is refused whole; so no proof of detection is needed.
//!
//! Two ways of int8 products give the same sums: [`Simd128`] through 16-bit multiplications, and [`Relaxed`] through
//! the relaxed dot product, which is one instruction where the processor has one, and is used there.

use std::arch::wasm32::*;

use super::simd::{BF16, F16, LANES, Pairs, Simd, WeightStep};

/// WebAssembly with simd128.
#[derive(Clone, Copy)]
pub(crate) struct Simd128;

/// WebAssembly with simd128 and relaxed-simd.
#[cfg(target_feature = "relaxed-simd")]
#[derive(Clone, Copy)]
pub(crate) struct Relaxed;

type V = [v128; 4];

/// # Safety
/// `T` must be a plain type of four bytes.
#[inline(always)]
unsafe fn load<T>(x: &[T; LANES]) -> V {
    let x = std::ptr::from_ref(x).cast::<v128>();
    // SAFETY: the array holds four vectors, and loads need no alignment.
    unsafe { [v128_load(x), v128_load(x.add(1)), v128_load(x.add(2)), v128_load(x.add(3))] }
}

/// # Safety
/// `T` must be a plain type of four bytes.
#[inline(always)]
unsafe fn store<T>(x: V, out: &mut [T; LANES]) {
    let out = std::ptr::from_mut(out).cast::<v128>();
    // SAFETY: the array holds four vectors, and stores need no alignment.
    unsafe {
        v128_store(out, x[0]);
        v128_store(out.add(1), x[1]);
        v128_store(out.add(2), x[2]);
        v128_store(out.add(3), x[3]);
    }
}

/// Sixteen 16-bit numbers as two vectors.
///
/// # Safety
/// `T` must be a plain type of two bytes.
#[inline(always)]
unsafe fn load_16<T>(x: &[T; LANES]) -> [v128; 2] {
    let x = std::ptr::from_ref(x).cast::<v128>();
    // SAFETY: the array holds two vectors, and loads need no alignment.
    unsafe { [v128_load(x), v128_load(x.add(1))] }
}

/// One operation of two vectors on all four.
macro_rules! each {
    ($f:ident, $a:ident, $b:ident) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
}

/// Four IEEE half precision numbers, each sign-extended to 32 bits.
#[inline(always)]
fn widen_f16(x: v128) -> v128 {
    // As `f16_to_f32`: the exponent field moves over and a product corrects it. The sign, spread over the upper half
    // by the extension, keeps its one bit.
    let shifted = v128_and(i32x4_shl(x, 13), i32x4_splat(0x8fff_e000_u32 as i32));
    let finite = f32x4_mul(shifted, f32x4_splat(f32::from_bits(0x7780_0000)));
    let exponent = i32x4_splat(0x0f80_0000);
    let infinite = i32x4_eq(v128_and(shifted, exponent), exponent);
    v128_or(finite, v128_and(infinite, i32x4_splat(0x7f80_0000)))
}

/// The operations that both instruction sets share.
macro_rules! shared {
    () => {
        type F = V;
        type I = V;
        type P = V;

        #[inline(always)]
        fn splat(self, x: f32) -> V {
            [f32x4_splat(x); 4]
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> V {
            // SAFETY: f32.
            unsafe { load(x) }
        }

        #[inline(always)]
        fn store(self, x: V, out: &mut [f32; LANES]) {
            // SAFETY: f32.
            unsafe { store(x, out) }
        }

        #[inline(always)]
        fn add(self, a: V, b: V) -> V {
            each!(f32x4_add, a, b)
        }

        #[inline(always)]
        fn sub(self, a: V, b: V) -> V {
            each!(f32x4_sub, a, b)
        }

        #[inline(always)]
        fn mul(self, a: V, b: V) -> V {
            each!(f32x4_mul, a, b)
        }

        #[inline(always)]
        fn div(self, a: V, b: V) -> V {
            each!(f32x4_div, a, b)
        }

        /// The pseudo-maximum of b and a is `b < a ? a : b`.
        #[inline(always)]
        fn max(self, a: V, b: V) -> V {
            each!(f32x4_pmax, b, a)
        }

        #[inline(always)]
        fn select_less(self, a: V, b: V, x: V, y: V) -> V {
            std::array::from_fn(|i| v128_bitselect(x[i], y[i], f32x4_lt(a[i], b[i])))
        }

        #[inline(always)]
        fn load_f16(self, x: &[F16; LANES]) -> V {
            // SAFETY: transparent over u16.
            let [low, high] = unsafe { load_16(x) };
            [
                widen_f16(i32x4_extend_low_i16x8(low)),
                widen_f16(i32x4_extend_high_i16x8(low)),
                widen_f16(i32x4_extend_low_i16x8(high)),
                widen_f16(i32x4_extend_high_i16x8(high)),
            ]
        }

        #[inline(always)]
        fn load_bf16(self, x: &[BF16; LANES]) -> V {
            // SAFETY: transparent over u16.
            let [low, high] = unsafe { load_16(x) };
            [
                i32x4_shl(i32x4_extend_low_i16x8(low), 16),
                i32x4_shl(i32x4_extend_high_i16x8(low), 16),
                i32x4_shl(i32x4_extend_low_i16x8(high), 16),
                i32x4_shl(i32x4_extend_high_i16x8(high), 16),
            ]
        }

        #[inline(always)]
        fn load_u8(self, x: &[u8; LANES]) -> V {
            // SAFETY: the array holds one vector, and loads need no alignment.
            let bytes = unsafe { v128_load(x.as_ptr().cast()) };
            let (low, high) = (u16x8_extend_low_u8x16(bytes), u16x8_extend_high_u8x16(bytes));
            self.to_f32([
                u32x4_extend_low_u16x8(low),
                u32x4_extend_high_u16x8(low),
                u32x4_extend_low_u16x8(high),
                u32x4_extend_high_u16x8(high),
            ])
        }

        #[inline(always)]
        fn sum(self, x: V) -> f32 {
            let x = f32x4_add(f32x4_add(x[0], x[2]), f32x4_add(x[1], x[3]));
            let x = f32x4_add(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
            f32x4_extract_lane::<0>(x) + f32x4_extract_lane::<1>(x)
        }

        #[inline(always)]
        fn splat_i32(self, x: i32) -> V {
            [i32x4_splat(x); 4]
        }

        #[inline(always)]
        fn add_i32(self, a: V, b: V) -> V {
            each!(i32x4_add, a, b)
        }

        #[inline(always)]
        fn max_i32(self, a: V, b: V) -> V {
            each!(i32x4_max, a, b)
        }

        #[inline(always)]
        fn and_i32(self, a: V, b: V) -> V {
            each!(v128_and, a, b)
        }

        #[inline(always)]
        fn shift_left<const BITS: i32>(self, a: V) -> V {
            std::array::from_fn(|i| i32x4_shl(a[i], BITS as u32))
        }

        #[inline(always)]
        fn to_f32(self, a: V) -> V {
            std::array::from_fn(|i| f32x4_convert_i32x4(a[i]))
        }

        #[inline(always)]
        fn bits(self, a: V) -> V {
            a
        }

        #[inline(always)]
        fn of_bits(self, a: V) -> V {
            a
        }

        #[inline(always)]
        fn largest_i32(self, a: V) -> i32 {
            let a = i32x4_max(i32x4_max(a[0], a[2]), i32x4_max(a[1], a[3]));
            let a = i32x4_max(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            i32x4_extract_lane::<0>(a).max(i32x4_extract_lane::<1>(a))
        }

        #[inline(always)]
        fn sum_i32(self, a: V) -> i32 {
            let a = i32x4_add(i32x4_add(a[0], a[2]), i32x4_add(a[1], a[3]));
            let a = i32x4_add(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            i32x4_extract_lane::<0>(a).wrapping_add(i32x4_extract_lane::<1>(a))
        }

        #[inline(always)]
        fn store_i8(self, a: V, out: &mut [i8; LANES]) {
            // Narrowing saturates; bytes without a sign pass through unchanged.
            let byte = self.splat_i32(0xff);
            let a = each!(v128_and, a, byte);
            let bytes = u8x16_narrow_i16x8(i16x8_narrow_i32x4(a[0], a[1]), i16x8_narrow_i32x4(a[2], a[3]));
            // SAFETY: the array holds one vector, and stores need no alignment.
            unsafe { v128_store(out.as_mut_ptr().cast(), bytes) }
        }

        #[inline(always)]
        fn store_i16(self, a: V, out: &mut [i16; LANES]) {
            // Narrowing saturates; halves without a sign pass through unchanged.
            let half = self.splat_i32(0xffff);
            let a = each!(v128_and, a, half);
            let out = out.as_mut_ptr().cast::<v128>();
            // SAFETY: the array holds two vectors, and stores need no alignment.
            unsafe {
                v128_store(out, u16x8_narrow_i32x4(a[0], a[1]));
                v128_store(out.add(1), u16x8_narrow_i32x4(a[2], a[3]));
            }
        }

        #[inline(always)]
        fn load_pairs(self, x: &Pairs) -> V {
            // SAFETY: two times two bytes.
            unsafe { load(&x.0) }
        }

        #[inline(always)]
        fn splat_pair(self, [a, b]: [i16; 2]) -> V {
            [i32x4_splat(i32::from(b) << 16 | i32::from(a as u16)); 4]
        }

        #[inline(always)]
        fn dot_pairs(self, sums: V, a: V, b: V) -> V {
            let products = each!(i32x4_dot_i16x8, a, b);
            each!(i32x4_add, sums, products)
        }
    };
}

/// Sixteen rows of four bytes.
#[inline(always)]
fn load_step(x: &WeightStep) -> V {
    // SAFETY: sixteen times four bytes.
    unsafe { load(x.as_chunks::<4>().0.as_array::<LANES>().expect("64 bytes")) }
}

/// The low nibbles and the high ones of bytes.
#[inline(always)]
fn split(x: V) -> [V; 2] {
    let mask = u8x16_splat(15);
    [std::array::from_fn(|i| v128_and(x[i], mask)), std::array::from_fn(|i| u8x16_shr(x[i], 4))]
}

impl Simd128 {
    /// Weights as [`Simd::dot`] takes them.
    #[inline(always)]
    fn pairs(self, pairs: V) -> (V, V) {
        (pairs, std::array::from_fn(|i| i16x8_shr(pairs[i], 8)))
    }
}

impl Simd for Simd128 {
    shared!();

    /// Sixteen weights of four rows as eight 16-bit numbers, and those shifted right by a byte.
    type W = (V, V);
    /// Four activations (a, b, c, d) as the 16-bit pairs (a, c) and (b - 256 a, d - 256 c).
    type A = (v128, v128);

    /// Weights in even places are stored as unsigned bytes.
    const FLIP: [u8; 4] = [0x80, 0, 0x80, 0];
    const ROWS_Q8: usize = 2;
    const ROWS_F32: usize = 2;

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> (V, V) {
        self.pairs(load_step(x))
    }

    /// Nibbles are not flipped: the even one of a pair is an unsigned byte as it is.
    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [(V, V); 2] {
        split(load_step(x)).map(|nibbles| self.pairs(nibbles))
    }

    #[inline(always)]
    fn activations(self, x: &[i8; 4]) -> (v128, v128) {
        let all = i32x4_splat(i32::from_le_bytes(x.map(|x| x as u8)));
        let even_256 = i16x8_shl(all, 8);
        (i16x8_shr(even_256, 8), i16x8_sub(i16x8_shr(all, 8), even_256))
    }

    /// Two weights side by side are a number p = 256 v + u of 16 bits: the odd one v signed, the even one u = w + 128
    /// unsigned. With activations a and b, u a + v b = p a + v (b - 256 a): two multiplications of 16-bit numbers
    /// that the hardware adds in pairs, and no widening of bytes. |b - 256 a| is at most 257 · 127, which 16 bits
    /// hold.
    #[inline(always)]
    fn dot(self, sums: V, (pairs, odd): (V, V), (a, b): (v128, v128)) -> V {
        std::array::from_fn(|i| i32x4_add(i32x4_add(sums[i], i32x4_dot_i16x8(pairs[i], a)), i32x4_dot_i16x8(odd[i], b)))
    }
}

/// Whether the relaxed dot product is the processor's own instruction (AVX-VNNI, ARMv8.2). Older processors of the x86
/// family multiply bytes to 16 bits, which saturate, and need five instructions: more than [`Simd128`] does. Operands
/// that are out of bounds on purpose tell them apart: four times -128 · 255 there becomes twice -32768.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) fn relaxed_dot_is_fast() -> bool {
    let sums = i32x4_relaxed_dot_i8x16_i7x16_add(i8x16_splat(-128), u8x16_splat(255), i32x4_splat(0));
    i32x4_extract_lane::<0>(sums) != -65536
}

/// Four activations for [`Relaxed`].
#[cfg(target_feature = "relaxed-simd")]
#[derive(Clone, Copy)]
pub(crate) struct Four {
    all: v128,
    magnitudes: v128,
    /// All bits of those below zero.
    negative: v128,
}

#[cfg(target_feature = "relaxed-simd")]
impl Simd for Relaxed {
    shared!();

    type W = V;
    type A = Four;

    const FLIP: [u8; 4] = [0; 4];
    const COMPLEMENTS: bool = true;
    const ROWS_Q8: usize = 2;
    const ROWS_F32: usize = 2;

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> V {
        load_step(x)
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [V; 2] {
        split(load_step(x))
    }

    #[inline(always)]
    fn activations(self, x: &[i8; 4]) -> Four {
        let all = i32x4_splat(i32::from_le_bytes(x.map(|x| x as u8)));
        let magnitudes = i8x16_abs(all);
        Four { all, magnitudes, negative: i8x16_gt(magnitudes, all) }
    }

    /// The relaxed product is the same everywhere while its second operand has 7 bits, as magnitudes do: sums of two
    /// products are at most 2 · 128 · 127 and fit 16 bits. The sign goes to the weight: of a negative activation a,
    /// the complement -w - 1 times |a| is w a - |a|.
    #[inline(always)]
    fn dot(self, sums: V, weights: V, a: Four) -> V {
        std::array::from_fn(|i| {
            i32x4_relaxed_dot_i8x16_i7x16_add(v128_xor(weights[i], a.negative), a.magnitudes, sums[i])
        })
    }

    /// Here the nibbles are those of 7 bits.
    #[inline(always)]
    fn dot_nibbles(self, sums: V, nibbles: V, a: Four) -> V {
        std::array::from_fn(|i| i32x4_relaxed_dot_i8x16_i7x16_add(a.all, nibbles[i], sums[i]))
    }
}
