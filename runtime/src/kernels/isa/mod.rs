//! The instruction sets: which there are, which this machine has, and how a kernel is compiled once for each.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod i8mm;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
pub(crate) mod relaxed;
pub(crate) mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod simd128;
#[cfg(target_arch = "x86_64")]
pub(crate) mod sse41;

use crate::error::{Error, Result};

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, compiled for the target's baseline.
    Scalar,
    /// x86-64 with SSE4.1 and SSSE3.
    Sse41,
    /// x86-64 with AVX2 and F16C.
    Avx2,
    /// The same with AVX-VNNI: the dot product instruction without AVX-512.
    AvxVnni,
    /// x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI. AVX-512 without VNNI uses the ones before.
    Avx512,
    /// The same with AMX: tiles for int8 products of many rows, where blocks share scales.
    Amx,
    /// AArch64 with NEON, which all have.
    Neon,
    /// The same with the dot product instruction of ARMv8.2.
    Dotprod,
    /// The same with the matrix product instruction of ARMv8.6 for int8 products of two or more rows.
    I8mm,
    /// WebAssembly with 128-bit vectors, where the module is compiled for them.
    Simd128,
    /// The same with relaxed vectors, in engines whose relaxed dot product is one exact instruction. Others have only
    /// the one before.
    Relaxed,
}

impl Isa {
    /// All of them, the best last.
    pub const ALL: [Isa; 11] = [
        Isa::Scalar,
        Isa::Sse41,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Amx,
        Isa::Neon,
        Isa::Dotprod,
        Isa::I8mm,
        Isa::Simd128,
        Isa::Relaxed,
    ];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Sse41 => "sse41",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::I8mm => "i8mm",
            Isa::Simd128 => "simd128",
            Isa::Relaxed => "relaxed",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41 => sse41::detected(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::detected(),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::detected(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::detected(),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => avx512::detected() && amx::detected(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => neon::detected(),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => i8mm::detected(),
            // A WebAssembly module with instructions that the engine lacks does not load at all; what relaxed ones do,
            // differs.
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => true,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
            Isa::Relaxed => relaxed::detected(),
            #[allow(unreachable_patterns)] // each target has its own
            _ => false,
        }
    }
}

impl std::str::FromStr for Isa {
    type Err = Error;

    /// # Errors
    /// If there is none of this name, or the machine does not have it.
    fn from_str(name: &str) -> Result<Isa> {
        Kernels::with_isa(name).map(|kernels| kernels.isa)
    }
}

/// The kernels of one instruction set. Holding a value proves that the machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
    /// Whether a processor's caches hold the weights: see [`Kernels::for_weights`].
    near: bool,
}

/// Weights of at most so many bytes stay in the last cache while a model runs: processors with AVX-512 have 16 MB and
/// more of it.
const NEAR: usize = 16 << 20;

/// Defines a function that runs a generic kernel, compiled once for each instruction set, on the one that `kernels`
/// stands for: `dispatch!(pub(super) fn name(x: &[f32]) -> f32 = generic)`, where `generic` takes the vocabulary
/// first.
macro_rules! dispatch {
    ($vis:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $generic:path) => {
        $vis fn $name(kernels: $crate::kernels::isa::Kernels, $($arg: $type),*) $(-> $result)? {
            use $crate::kernels::isa::{Isa, scalar};
            #[cfg(target_arch = "x86_64")]
            use $crate::kernels::isa::{avx2, avx512, avxvnni, sse41};
            #[cfg(target_arch = "aarch64")]
            use $crate::kernels::isa::{i8mm, neon};
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
            use $crate::kernels::isa::relaxed;
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            use $crate::kernels::isa::simd128;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c")]
            fn run_avx512((tiles, near): (bool, bool), $($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { avx512::Avx512::assume(tiles, near) }, $($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avxvnni,avx2,f16c")]
            fn run_avxvnni($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { avxvnni::AvxVnni::assume() }, $($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c")]
            fn run_avx2($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { avx2::Avx2::assume() }, $($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "sse4.1,ssse3")]
            fn run_sse41($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { sse41::Sse41::assume() }, $($arg),*)
            }

            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            fn run_dotprod($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the feature was detected.
                $generic(unsafe { neon::Dotprod::assume() }, $($arg),*)
            }

            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod,i8mm")]
            fn run_i8mm($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { i8mm::I8mm::assume() }, $($arg),*)
            }

            match kernels.isa() {
                Isa::Scalar => $generic(scalar::Scalar, $($arg),*),
                // SAFETY: a `Kernels` of this instruction set is only made after its features were detected.
                #[cfg(target_arch = "x86_64")]
                Isa::Sse41 => unsafe { run_sse41($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { run_avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => unsafe { run_avxvnni($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { run_avx512((false, kernels.near()), $($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Amx => unsafe { run_avx512((true, kernels.near()), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => $generic(neon::Neon, $($arg),*),
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Isa::Dotprod => unsafe { run_dotprod($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Isa::I8mm => unsafe { run_i8mm($($arg),*) },
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Isa::Simd128 => $generic(simd128::Simd128, $($arg),*),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
                Isa::Relaxed => $generic(relaxed::Relaxed::new(), $($arg),*),
                #[allow(unreachable_patterns)] // each target has its own
                _ => unreachable!("no value of Kernels stands for an instruction set that is not there"),
            }
        }
    };
}
pub(crate) use dispatch;

impl Kernels {
    /// The best instruction set of this machine.
    pub fn detect() -> Kernels {
        Kernels::available().last().expect("the scalar kernels are always available")
    }

    /// The kernels of every instruction set of this machine, the best last.
    pub fn available() -> impl Iterator<Item = Kernels> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| Kernels { isa, near: false })
    }

    /// A forced choice, for tests and benches.
    ///
    /// # Errors
    /// If the machine does not have it.
    pub fn of(isa: Isa) -> Result<Kernels> {
        Kernels::with_isa(isa.name())
    }

    /// As [`Kernels::of`], by name.
    ///
    /// # Errors
    /// If the machine does not have it, or there is none of this name.
    pub fn with_isa(name: &str) -> Result<Kernels> {
        Kernels::available().find(|kernels| kernels.isa.name() == name).ok_or_else(|| {
            let available: Vec<&str> = Kernels::available().map(|kernels| kernels.isa.name()).collect();
            Error::Option {
                option: "isa",
                what: format!("expected one that this machine has ({}), found {name}", available.join(", ")),
            }
        })
    }

    /// The same for a model with weights of so many bytes. Where they are few, products of a few rows fetch none ahead:
    /// beams of four are 5 to 10 % faster with the built-in model for it, and 7 to 20 % slower with models of 60 MB and
    /// more (Zen 5). Results are the same.
    #[must_use]
    pub fn for_weights(self, bytes: usize) -> Kernels {
        Kernels { near: bytes <= NEAR, ..self }
    }

    /// Whether [`Kernels::for_weights`] found them few.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // only AVX-512 asks
    pub(crate) fn near(self) -> bool {
        self.near
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}
