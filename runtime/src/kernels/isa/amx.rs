//! AMX: int8 products of many rows on tiles, 16 x 16 sums over 64 values in one instruction. Everything else is as with
//! AVX-512.
//!
//! The instructions are written as assembly, since stable Rust has no intrinsics for them. Weights are read as AVX-512
//! packs them: two blocks of a group, 16 steps of 64 bytes, are a right operand as they lie.

use std::arch::asm;
use std::sync::OnceLock;

use crate::kernels::dot::{TILE_ROWS, TileSums, TileValues};
use crate::kernels::layout::{STEPS, WeightStep};

/// Bits of the processor's features (leaf 7, register edx): tiles, and their products of int8 and of bfloat16.
const TILE: u32 = 1 << 24;
const INT8: u32 = 1 << 25;
/// Needed by the trainer's products.
pub const BF16: u32 = 1 << 22;

/// Whether the processor has tiles and these products of them, and the operating system lets this process use them.
#[cfg(all(target_os = "linux", not(miri)))]
pub fn permitted(products: u32) -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let needed = TILE | products;
    if std::arch::x86_64::__cpuid_count(7, 0).edx & needed != needed {
        return false;
    }
    let result: i64;
    // SAFETY: the call asks for a permission and touches no memory of ours; `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems hand out tiles in other ways, or not at all; Miri reads no assembly.
#[cfg(any(not(target_os = "linux"), miri))]
pub fn permitted(_products: u32) -> bool {
    false
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
pub struct Configuration([u8; 64]);

impl Configuration {
    /// Palette 1, eight tiles of 16 rows of 64 bytes.
    pub const FULL: Configuration = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            // Bytes of a row, 16 bits each from byte 16 on; rows, 8 bits each from byte 48 on.
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        Configuration(bytes)
    };
}

/// Whether int8 products on tiles can be used: where they are there and compute what plain loops do. Decided once. In
/// this crate's own tests plain loops stand for the instructions where there are none, so that all around them is
/// tested on any processor with AVX-512.
pub(super) fn detected() -> bool {
    cfg!(test) || has_instructions()
}

fn has_instructions() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| permitted(INT8) && check())
}

/// Makes this thread ready for [`multiply`].
#[inline(always)]
pub(super) fn begin() {
    if cfg!(test) && !has_instructions() {
        return;
    }
    // SAFETY: a caller has found that there are tiles. The operand is what the instruction wants.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &Configuration::FULL, options(nostack, preserves_flags)) }
}

/// Gives the tiles back, so that switching threads stays cheap.
#[inline(always)]
pub(super) fn end() {
    if cfg!(test) && !has_instructions() {
        return;
    }
    // SAFETY: a caller has found that there are tiles.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
}

/// As [`crate::kernels::dot::Dot::multiply_tiles`], between [`begin`] and [`end`].
#[inline(always)]
pub(super) fn multiply(weights: [&[[WeightStep; STEPS]]; 2], values: &[TileValues], sums: &mut [TileSums; 2]) {
    let [one, other] = weights;
    let blocks = 2 * values.len();
    assert!(blocks > 0 && one.len() == blocks && other.len() == blocks, "two blocks of weights for each pair");
    if cfg!(test) && !has_instructions() {
        return plain(weights, values, sums);
    }
    // SAFETY: a caller has found that there are tiles, and they are ready. Each operand has as many tiles of 1,024
    // bytes as there are values, each sum is one.
    unsafe { instructions([one.as_ptr(), other.as_ptr()], values.as_ptr(), values.len(), sums) }
}

/// # Safety
/// There are tiles, made ready by [`begin`], and `pairs` pairs of blocks behind each pointer, at least one.
#[inline(always)]
unsafe fn instructions(
    weights: [*const [WeightStep; STEPS]; 2],
    values: *const TileValues,
    pairs: usize,
    sums: &mut [TileSums; 2],
) {
    let [one, other] = sums;
    // SAFETY: the caller vouches for the operands. `tdpbsud` takes its first factor, the activations, as signed bytes
    // and the second, weights + 128, as unsigned ones.
    unsafe {
        asm!(
            "tileloadd tmm0, [{one} + {row}]",
            "tileloadd tmm1, [{other} + {row}]",
            "2:",
            "tileloadd tmm2, [{values} + {row}]",
            "tileloadd tmm3, [{left} + {row}]",
            "tileloadd tmm4, [{right} + {row}]",
            "tdpbsud tmm0, tmm2, tmm3",
            "tdpbsud tmm1, tmm2, tmm4",
            "add {values}, 1024",
            "add {left}, 1024",
            "add {right}, 1024",
            "dec {pairs}",
            "jnz 2b",
            "tilestored [{one} + {row}], tmm0",
            "tilestored [{other} + {row}], tmm1",
            one = in(reg) one,
            other = in(reg) other,
            row = in(reg) 64usize,
            values = inout(reg) values => _,
            left = inout(reg) weights[0] => _,
            right = inout(reg) weights[1] => _,
            pairs = inout(reg) pairs => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack),
        );
    }
}

/// What [`multiply`] computes, in plain loops: its specification, and what it is held against.
fn plain(weights: [&[[WeightStep; STEPS]]; 2], values: &[TileValues], sums: &mut [TileSums; 2]) {
    for (weights, sums) in weights.into_iter().zip(sums) {
        for (weights, values) in weights.as_chunks::<2>().0.iter().zip(values) {
            for (row, sums) in values.iter().zip(&mut sums.0) {
                for (steps, values) in weights.iter().zip(row) {
                    for (step, values) in steps.iter().zip(values.as_chunks::<4>().0) {
                        for (sum, weights) in sums.iter_mut().zip(step.as_chunks::<4>().0) {
                            let products = weights.iter().zip(values).map(|(&w, &x)| i32::from(w) * i32::from(x));
                            *sum = sum.wrapping_add(products.sum());
                        }
                    }
                }
            }
        }
    }
}

/// The instructions against [`plain`], over more than one pair of blocks.
fn check() -> bool {
    let byte = |i: usize| (i.wrapping_mul(7919).wrapping_add(13) >> 3) as u8;
    let mut weights = [[[[0; 64]; STEPS]; 6]; 2];
    for (i, weight) in weights.as_flattened_mut().as_flattened_mut().as_flattened_mut().iter_mut().enumerate() {
        *weight = byte(i);
    }
    let mut values: [TileValues; 3] = [[[[0; 32]; 2]; TILE_ROWS]; 3];
    for (i, value) in values.as_flattened_mut().as_flattened_mut().as_flattened_mut().iter_mut().enumerate() {
        *value = (byte(i + 5000) as i8).max(-127);
    }
    let mut found = [TileSums::default(); 2];
    for (i, sum) in found.iter_mut().flat_map(|sums| sums.0.as_flattened_mut()).enumerate() {
        *sum = i as i32 * 1000 - 200_000;
    }
    let mut expected = found;
    let weights = [&weights[0][..], &weights[1][..]];
    plain(weights, &values, &mut expected);
    begin();
    // SAFETY: called where tiles are permitted, and they are ready; there are three pairs of blocks.
    unsafe { instructions(weights.map(<[_]>::as_ptr), values.as_ptr(), values.len(), &mut found) };
    end();
    found == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_compute_what_plain_loops_do() {
        if !permitted(INT8) {
            eprintln!("skipped: this processor has no AMX, or the system does not let us use it");
            return;
        }
        assert!(check());
    }

    #[test]
    fn the_configuration_is_the_manual_s() {
        let Configuration(bytes) = Configuration::FULL;
        assert_eq!((bytes[0], bytes[1]), (1, 0));
        for tile in 0..8 {
            assert_eq!((bytes[16 + 2 * tile], bytes[17 + 2 * tile], bytes[48 + tile]), (64, 0, 16));
        }
        assert!(bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|&byte| byte == 0));
    }
}
