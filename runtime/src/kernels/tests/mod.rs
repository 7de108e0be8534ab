//! Every kernel on every instruction set of this machine against the scalar one, bit for bit, and the scalar one
//! against f64 arithmetic.

mod argmax;
mod attention;
#[cfg(panic = "unwind")] // panics are caught there
mod misuse;
mod products;
mod rows;

use super::*;
use crate::block;
use crate::storage::Bytes;
use crate::tensor::{DType, Tensor};

/// Lengths around the vector width, and some that leave remainders of every kind.
const LENGTHS: [usize; 22] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 384, 1003];

fn lengths() -> &'static [usize] {
    cases(&LENGTHS, &[0, 1, 15, 16, 17, 33])
}

/// All cases, or the few that are enough where an interpreter looks for undefined behaviour and not for rounding: the
/// sizes that reach every path.
fn cases<T>(all: &'static [T], few: &'static [T]) -> &'static [T] {
    if cfg!(miri) { few } else { all }
}

/// Reproducible pseudo-random numbers (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(super) fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    // NaNs are one value here: which of them an operation returns is the one thing instruction sets differ in.
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn scalar() -> Kernels {
    Kernels::with_isa("scalar").unwrap()
}

/// Runs `f` with the scalar kernels and with all others, and compares the bits of what it returns.
fn same_everywhere(what: &str, f: impl Fn(Kernels) -> Vec<f32>) {
    let expected = bits(&f(scalar()));
    // The scalar kernels once more show that they do the same every time, which takes an interpreter too long.
    for kernels in Kernels::available().filter(|&kernels| !cfg!(miri) || kernels != scalar()) {
        assert_eq!(bits(&f(kernels)), expected, "{what} on {}", kernels.isa().name());
    }
}

fn assert_close(what: &str, found: &[f32], expected: impl IntoIterator<Item = f64>, bound: f64) {
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= bound,
            "{what}: value {i} is {found}, expected {expected} within {bound}"
        );
    }
}

#[test]
fn names_and_choice() {
    let best = Kernels::detect();
    assert_eq!(Kernels::with_isa(best.isa().name()).unwrap(), best);
    let message = Kernels::with_isa("mmx").unwrap_err().to_string();
    assert!(message.contains("scalar") && message.contains("mmx"), "{message}");
}

/// What the processor has is offered, and nothing else: other tests would end at an instruction that is not there.
#[test]
#[cfg(target_arch = "aarch64")]
fn choice_on_aarch64() {
    use std::arch::is_aarch64_feature_detected;
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    for (name, available) in [("neon", true), ("dotprod", dotprod), ("i8mm", i8mm)] {
        assert_eq!(Kernels::with_isa(name).is_ok(), available, "{name}");
    }
    let best = if i8mm { Isa::I8mm } else { [Isa::Neon, Isa::Dotprod][usize::from(dotprod)] };
    assert_eq!(Kernels::detect().isa(), best);
}

/// Weights as a file holds them, random in every byte that may be.
fn tensor(random: &mut Random, dtype: DType, n: usize, k: usize) -> Tensor {
    let mut data = Vec::new();
    for _ in 0..n * k / dtype.block_len() {
        match dtype {
            DType::F32 => data.extend(random.value().to_le_bytes()),
            DType::F16 => data.extend(half::f16::from_f32(random.value()).to_le_bytes()),
            DType::BF16 => data.extend(half::bf16::from_f32(random.value()).to_le_bytes()),
            DType::Q8_0 => {
                data.extend(half::f16::from_f32(random.value() * 0.01).to_le_bytes());
                data.extend((0..32).map(|_| match random.bits() % 16 {
                    // Extremes often: they are where 16-bit sums would overflow.
                    0..3 => i8::MIN as u8,
                    3..6 => i8::MAX as u8,
                    _ => random.bits() as u8,
                }));
            }
            DType::Q4_0 | DType::Q4_K => {
                data.extend(half::f16::from_f32(random.value() * 0.1).to_le_bytes());
                if dtype == DType::Q4_K {
                    data.extend(half::f16::from_f32(random.value() * 0.1).to_le_bytes());
                }
                let rest = dtype.block_bytes() - if dtype == DType::Q4_K { 4 } else { 2 };
                data.extend((0..rest).map(|_| match random.bits() % 16 {
                    0..3 => 0x00,
                    3..6 => 0xff,
                    _ => random.bits() as u8,
                }));
            }
            _ => unimplemented!("{dtype}"),
        }
    }
    Tensor {
        name: format!("{dtype}.{n}x{k}"),
        file: "test".to_owned(),
        dtype,
        shape: vec![n, k],
        data: Bytes::from_vec(data),
        scale: 1.0,
    }
}

fn product(kernels: Kernels, parts: &[&Tensor], x: &[f32], m: usize) -> Vec<f32> {
    let matrix = Matrix::new(kernels, parts).unwrap();
    let mut y = vec![f32::NAN; m * matrix.n()];
    matrix.multiply(kernels, x, m, &mut y, &mut Workspace::default());
    y
}

const NUMBERS: [Numbers; 2] = [Numbers::Floats, Numbers::Integers];
