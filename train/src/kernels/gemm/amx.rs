//! bfloat16 products on AMX tiles (`TDPBF16PS`): 16 x 16 sums over 32 values of k in one instruction, about seven times
//! the rate of float32 on the processors that have it.
//!
//! The instructions are written as assembly, since stable Rust has no intrinsics for them. Both operands lie as the
//! AVX-512 kernel packs them: pairs of successive k in 32 bits, so that 16 rows of `[rows, depth]` are a left tile and
//! 16 rows of a panel `[depth, 64]` are a right one.

use std::arch::asm;
use std::sync::OnceLock;

use t5_runtime::amx::{BF16, Configuration, permitted};

/// Rows and columns of one [`tiles`]: two tiles each way.
pub const SIDE: usize = 32;

/// Pairs of k that one instruction sums over: the depth of packed operands is a multiple of it.
pub const STEP: usize = 16;

/// Whether this process may use tiles, and they compute what plain loops do. Decided once.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        if !permitted(BF16) {
            return false;
        }
        let right = check();
        if !right {
            t5_runtime::command::say("AMX products differ from plain ones on this machine: they are not used");
        }
        right
    })
}

/// Sums of 32 x 32 outputs over `depth` pairs of k, row-major.
///
/// `left` are 32 rows of pairs, `left_stride` elements apart; `right` are `depth` rows of at least 32 pairs,
/// `right_stride` apart.
///
/// # Safety
/// [`available`] is true, both pointers may be read as far as that, and `depth` is a multiple of [`STEP`] and not 0.
pub unsafe fn tiles(
    left: *const u32,
    left_stride: usize,
    right: *const u32,
    right_stride: usize,
    depth: usize,
    out: &mut [f32; SIDE * SIDE],
) {
    debug_assert!(depth > 0 && depth.is_multiple_of(STEP));
    let out = out.as_mut_ptr();
    // SAFETY: the caller vouches for the operands, each tile of which is 16 rows of 64 bytes; the four results cover
    // `out` exactly. The tiles are given back at the end, so that switching threads stays cheap.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{left} + {left_stride}]",
            "tileloadd tmm5, [{below} + {left_stride}]",
            "tileloadd tmm6, [{right} + {right_stride}]",
            "tileloadd tmm7, [{right} + {right_stride} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 64",
            "add {below}, 64",
            "add {right}, {right_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {out_stride}], tmm0",
            "tilestored [{out} + {out_stride} + 64], tmm1",
            "tilestored [{out_below} + {out_stride}], tmm2",
            "tilestored [{out_below} + {out_stride} + 64], tmm3",
            "tilerelease",
            configuration = in(reg) &Configuration::FULL,
            left = inout(reg) left => _,
            below = inout(reg) left.add(16 * left_stride) => _,
            left_stride = in(reg) 4 * left_stride,
            right = inout(reg) right => _,
            right_stride = in(reg) 4 * right_stride,
            right_step = in(reg) 4 * right_stride * STEP,
            steps = inout(reg) depth / STEP => _,
            out = in(reg) out,
            out_below = in(reg) out.add(16 * SIDE),
            out_stride = in(reg) 4 * SIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// What [`tiles`] computes, in plain loops: its specification, and what it is held against.
///
/// # Safety
/// As [`tiles`], without need of AMX.
pub unsafe fn plain(
    left: *const u32,
    left_stride: usize,
    right: *const u32,
    right_stride: usize,
    depth: usize,
    out: &mut [f32; SIDE * SIDE],
) {
    let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
    for (place, out) in out.iter_mut().enumerate() {
        let (i, j) = (place / SIDE, place % SIDE);
        *out = (0..depth)
            .map(|p| {
                // SAFETY: the caller vouches for 32 rows of `left` and `depth` rows of `right`.
                let (a, b) = unsafe { (*left.add(i * left_stride + p), *right.add(p * right_stride + j)) };
                let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
                a0 * b0 + a1 * b1
            })
            .sum();
    }
}

/// One block of products against [`plain`]. Small whole numbers: products and sums are exact in either.
fn check() -> bool {
    const DEPTH: usize = 3 * STEP;
    const RIGHT_STRIDE: usize = SIDE + 5;
    let value = |i: usize| ((i * 7919 + 13) % 31) as f32 - 15.0;
    let pair = |i: usize| (value(2 * i).to_bits() >> 16) | (value(2 * i + 1).to_bits() & 0xffff_0000);
    let left: Vec<u32> = (0..SIDE * DEPTH).map(pair).collect();
    let right: Vec<u32> = (0..DEPTH * RIGHT_STRIDE).map(|i| pair(i + 5000)).collect();
    let [mut found, mut expected] = [[f32::NAN; SIDE * SIDE]; 2];
    // SAFETY: called where tiles are permitted; the operands have 32 rows of DEPTH and DEPTH rows of RIGHT_STRIDE.
    unsafe {
        tiles(left.as_ptr(), DEPTH, right.as_ptr(), RIGHT_STRIDE, DEPTH, &mut found);
        plain(left.as_ptr(), DEPTH, right.as_ptr(), RIGHT_STRIDE, DEPTH, &mut expected);
    }
    found == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_compute_what_plain_loops_do() {
        if !permitted(BF16) {
            eprintln!("skipped: this processor has no AMX, or the kernel does not let us use it");
            return;
        }
        assert!(check());
    }
}
