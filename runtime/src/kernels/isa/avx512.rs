//! AVX-512 with VNNI: one register holds all sixteen lanes, and one instruction multiplies 64 weights.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::LazyLock;

use crate::kernels::activations::Activations;
use crate::kernels::dot::{Dot, Pairs, TileSums, TileValues, four};
use crate::kernels::layout::{BLOCK, Layout, Order, STEPS, WeightStep};
use crate::kernels::simd::{BF16, F16, LANES, Simd};

/// `_mm512_dpwssd_epi32` as one instruction. The intrinsic becomes a multiplication and an addition where LLVM takes
/// their shorter path for a gain: twice as many instructions for the same ports.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vpdpwssd(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: it reads and writes registers alone.
    unsafe {
        asm!("vpdpwssd {}, {}, {}", inout(zmm_reg) sums, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Proof that the processor has the features of [`detected`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512 {
    /// Whether there are also the tiles of [`super::amx`].
    tiles: bool,
    /// Whether the caches hold the weights.
    near: bool,
}

impl Avx512 {
    /// # Safety
    /// [`detected`] must have returned true, and [`super::amx::detected`] too where `tiles` are wanted.
    #[inline(always)]
    pub(crate) unsafe fn assume(tiles: bool, near: bool) -> Avx512 {
        Avx512 { tiles, near }
    }
}

/// Whether the processor and the operating system have every feature that is used here.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && super::avx2::detected()
}

/// Whether this is a Zen 4, the one of family 19h with AVX-512. Asked once: a virtual machine takes microseconds to
/// answer.
static IS_ZEN_4: LazyLock<bool> = LazyLock::new(|| {
    let vendor = __cpuid(0);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD";
    // The family is in two parts, of which the second counts where the first is full.
    let signature = __cpuid(1).eax;
    is_amd && (signature >> 8 & 0xf) + (signature >> 20 & 0xff) == 0x19
});

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;

    const ROWS_F32: usize = 12;
    const PREFETCHES: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[F16; LANES]) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[BF16; LANES]) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            super::avx2::sum_8(x)
        }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn max_i32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_max_epi32(a, b) }
    }

    #[inline(always)]
    fn and_i32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_sllv_epi32(a, _mm512_set1_epi32(BITS)) }
    }

    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn bits(self, a: __m512) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_castps_si512(a) }
    }

    #[inline(always)]
    fn of_bits(self, a: __m512i) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_castsi512_ps(a) }
    }

    #[inline(always)]
    fn largest_i32(self, a: __m512i) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            super::avx2::largest_8(_mm256_max_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a)))
        }
    }

    #[inline(always)]
    fn sum_i32(self, a: __m512i) -> i32 {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            super::avx2::sum_8_i32(_mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a)))
        }
    }
}

impl Dot for Avx512 {
    type W = __m512i;
    type A = __m512i;
    type P = __m512i;
    type Block = [i8; BLOCK];

    const LAYOUT: Layout = Layout { order: Order::Fours, flip: 0x80 };
    const ROWS_Q8: usize = 8;
    /// Twelve sums of integers and twelve of floats, two weights and an activation: of 32 registers, some remain.
    const ROWS_OF_PAIRS: usize = 6;

    /// Where loads are the limit otherwise: 1.2 to 1.4 times as fast on Intel's, 1.1 on Zen 5. Zen 4 broadcasts into a
    /// register in place of a multiplication, and only one from memory costs nothing there.
    #[inline(always)]
    fn pairs_groups(self) -> bool {
        !*IS_ZEN_4
    }

    #[inline(always)]
    fn reads_near_weights(self) -> bool {
        self.near
    }

    #[inline(always)]
    fn has_tiles(self) -> bool {
        self.tiles
    }

    #[inline(always)]
    fn begin_tiles(self) {
        assert!(self.tiles, "tiles that were detected");
        super::amx::begin();
    }

    #[inline(always)]
    fn end_tiles(self) {
        super::amx::end();
    }

    #[inline(always)]
    fn multiply_tiles(self, weights: [&[[WeightStep; STEPS]]; 2], values: &[TileValues], sums: &mut [TileSums; 2]) {
        assert!(self.tiles, "tiles that were detected");
        super::amx::multiply(weights, values, sums);
    }

    #[inline(always)]
    fn store_i8(self, a: __m512i, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a)) }
    }

    #[inline(always)]
    fn store_i16(self, a: __m512i, out: &mut [i16; LANES]) {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are written.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(a)) }
    }

    #[inline(always)]
    fn load_pairs(self, x: &Pairs) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { _mm512_loadu_si512(x.0.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_set1_epi32(i32::from(b) << 16 | i32::from(a as u16)) }
    }

    #[inline(always)]
    fn dot_pairs(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { vpdpwssd(sums, a, b) }
    }

    #[inline(always)]
    fn weights(self, x: &WeightStep) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions, and as many bytes are there as are read.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn blocks(a: &Activations) -> &[[i8; BLOCK]] {
        &a.values
    }

    #[inline(always)]
    fn activations<const M: usize>(self, tile: &[[i8; BLOCK]; M], row: usize, step: usize) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_set1_epi32(four(&tile[row], step)) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe { _mm512_dpbusd_epi32(sums, weights, activations) }
    }

    #[inline(always)]
    fn nibbles(self, x: &WeightStep) -> [__m512i; 2] {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let w = self.weights(x);
            [_mm512_and_si512(w, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask)]
        }
    }

    #[inline(always)]
    fn join(self, upper: &WeightStep, lower: &WeightStep) -> [__m512i; 2] {
        // SAFETY: `self` proves that the processor has the instructions; no memory is touched.
        unsafe {
            let (upper, lower) = (self.weights(upper), self.weights(lower));
            let mask = _mm512_set1_epi8(15);
            // Bits of the third where the first has ones, else of the second.
            const CHOOSE: i32 = 0xac;
            let first = _mm512_ternarylogic_epi32::<CHOOSE>(mask, _mm512_slli_epi16::<4>(upper), lower);
            let second = _mm512_ternarylogic_epi32::<CHOOSE>(mask, upper, _mm512_srli_epi16::<4>(lower));
            [first, second]
        }
    }
}
