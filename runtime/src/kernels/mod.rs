//! The arithmetic of the model: a choice of instruction set, weight matrices ready for products, and the
//! element-wise functions. Kernels know nothing of the model.
//!
//! Every kernel defines the order of its floating-point operations (16 virtual lanes, a fixed reduction tree,
//! no fused multiply-add) and is written once, over the vocabulary of [`simd`]; so every instruction set gives
//! bit-identical results, and [`scalar`] is the specification.

mod activations;
mod argmax;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod coarse;
mod integer_attention;
mod key_values;
pub mod limits;
mod math;
mod matrix;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod nibbles;
mod packed;
mod planes;
mod product;
mod rounding;
mod rows;
mod scalar;
mod simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod sizes;
#[cfg(test)]
mod tests;
mod threads;
mod tiles;

pub use attention::{Alignment, Heads, KeyValues};
pub use key_values::{Numbers, PackedKeyValues};
pub use matrix::{Matrix, Purpose, Workspace};
pub(crate) use memory::Buffer;
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use threads::workers;

use crate::config::Activation;
use crate::error::{Error, Result};
use crate::position::BiasRow;
use product::Columns;
use sizes::{product, share};

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, compiled for the target's baseline.
    Scalar,
    /// x86-64 with AVX2 and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI. AVX-512 without VNNI uses [`Isa::Avx2`].
    Avx512,
    /// AArch64 with NEON, which all have.
    Neon,
    /// The same with the dot product instruction of ARMv8.2.
    Dotprod,
    /// The same with the matrix product instruction of ARMv8.6 for int8 products of two or more rows.
    I8mm,
    /// WebAssembly with 128-bit vectors, where the module is compiled for them.
    Simd128,
    /// The same with relaxed vectors, of which only integer products that are exact everywhere are used. It is the better
    /// one on processors that have these products.
    Relaxed,
}

impl Isa {
    /// All of them, the best last.
    pub const ALL: [Isa; 8] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::Dotprod, Isa::I8mm, Isa::Simd128, Isa::Relaxed];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
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
            Isa::Avx2 => avx2::detected(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::detected(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => neon::detected(),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => neon::detected_i8mm(),
            // A WebAssembly module with instructions that the engine lacks does not load at all.
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => true,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
            Isa::Relaxed => true,
            #[allow(unreachable_patterns)] // each target has its own
            _ => false,
        }
    }
}

/// The kernels of one instruction set. Holding a value proves that the machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
}

/// Defines a function that runs a generic kernel, compiled once for each instruction set, on the one that `kernels`
/// stands for: `dispatch!(pub(super) fn name(x: &[f32]) -> f32 = generic)`, where `generic` takes the vocabulary
/// first.
macro_rules! dispatch {
    ($vis:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $generic:path) => {
        $vis fn $name(kernels: Kernels, $($arg: $type),*) $(-> $result)? {
            use $crate::kernels::{Isa, scalar};
            #[cfg(target_arch = "x86_64")]
            use $crate::kernels::{avx2, avx512};
            #[cfg(target_arch = "aarch64")]
            use $crate::kernels::neon;
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            use $crate::kernels::simd128;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c")]
            fn run_avx512($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { avx512::Avx512::assume() }, $($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c")]
            fn run_avx2($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is only called where the features were detected.
                $generic(unsafe { avx2::Avx2::assume() }, $($arg),*)
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
                $generic(unsafe { neon::I8mm::assume() }, $($arg),*)
            }

            match kernels.isa() {
                Isa::Scalar => $generic(scalar::Scalar, $($arg),*),
                // SAFETY: a `Kernels` of this instruction set is only made after its features were detected.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { run_avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { run_avx512($($arg),*) },
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
                Isa::Relaxed => $generic(simd128::Relaxed, $($arg),*),
                #[allow(unreachable_patterns)] // each target has its own
                _ => unreachable!("no value of Kernels stands for an instruction set that is not there"),
            }
        }
    };
}
use dispatch;

impl Kernels {
    /// The best instruction set of this machine.
    pub fn detect() -> Kernels {
        let wanted = |kernels: &Kernels| match kernels.isa {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128", target_feature = "relaxed-simd"))]
            Isa::Relaxed => simd128::relaxed_dot_is_fast(),
            _ => true,
        };
        Kernels::available().filter(wanted).last().expect("the scalar kernels are always available")
    }

    /// The kernels of every instruction set of this machine, the best last.
    pub fn available() -> impl Iterator<Item = Kernels> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| Kernels { isa })
    }

    /// A forced choice, for tests and benches.
    ///
    /// # Errors
    /// If the machine does not have it, or there is none of this name.
    pub fn with_isa(name: &str) -> Result<Kernels> {
        Kernels::available().find(|kernels| kernels.isa.name() == name).ok_or_else(|| {
            let available: Vec<&str> = Kernels::available().map(|kernels| kernels.isa.name()).collect();
            Error::Option {
                option: "--isa",
                what: format!("expected one that this machine has ({}), found {name}", available.join(", ")),
            }
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// RMS norm without mean subtraction or bias: `out[i, :] = x[i, :] / sqrt(mean(x[i, :]²) + eps) * weight`.
    /// `x` and `out` are `[rows, d]`, `weight` is `[d]`.
    ///
    /// # Panics
    /// If `weight` is empty, or `x` and `out` are not as many rows of its length.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        rows::rms_norm(*self, x, weight, eps, out);
    }

    /// `x += y`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        rows::add(*self, x, y);
    }

    /// `x *= factor`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        rows::scale(*self, x, factor);
    }

    /// `out[i] = act(x[i])`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn activate(&self, activation: Activation, x: &[f32], out: &mut [f32]) {
        rows::activate(*self, activation, x, out);
    }

    /// `out[i, :] = act(x[i, ..f]) * x[i, f..]` for `x` `[rows, 2f]`, `out` `[rows, f]`.
    ///
    /// # Panics
    /// If `f` is 0, or `x` and `out` are not as many rows.
    pub fn activate_gated(&self, activation: Activation, x: &[f32], f: usize, out: &mut [f32]) {
        rows::activate_gated(*self, activation, x, f, out);
    }

    /// In place softmax over one row. A row whose values are all -infinity becomes NaN.
    pub fn softmax(&self, scores: &mut [f32]) {
        rows::softmax(*self, scores);
    }

    /// `ln(sum(exp(x)))` over one row.
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        rows::log_sum_exp(*self, x)
    }

    /// Dot product of two vectors.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn dot(&self, x: &[f32], y: &[f32]) -> f32 {
        rows::dot(*self, x, y)
    }

    /// `out += factor * x`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn axpy(&self, factor: f32, x: &[f32], out: &mut [f32]) {
        rows::axpy(*self, factor, x, out);
    }

    /// Attention of one query `[inner]` over the visible positions of a cache; `out` is `[inner]`, and `scores`
    /// `[heads, positions]` becomes the attention weights.
    ///
    /// # Panics
    /// If there are no heads, or they have no values; if a slice has another length; if no position is visible, more than
    /// the cache has, or one in a slot that it does not have; or if there are no biases for a head and its positions.
    pub fn attend(
        &self,
        heads: Heads,
        q: &[f32],
        cache: KeyValues<'_>,
        bias: Option<BiasRow<'_>>,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let (inner, len) = (heads.inner(), cache.slots.len());
        assert!(q.len() == inner && out.len() == inner, "q and out are [inner]");
        assert!(len > 0 && scores.len() == product([heads.count, len]), "scores are [heads, positions], at least one");
        let slots = sizes::rows(cache.keys, product([inner, cache.positions]), "keys are [slots, inner, positions]");
        assert!(
            cache.keys.len() == cache.values.len()
                && len <= cache.positions
                && cache.slots.iter().all(|&slot| (slot as usize) < slots),
            "visible positions are in {slots} slots of {}, of keys as of values",
            cache.positions
        );
        attention::attend(*self, heads, q, cache, bias, scores, out);
    }

    /// Self-attention of a whole document: `qkv` is `[len, 3 * inner]` (query, key, value side by side), `out`
    /// `[len, inner]`. `bias` is the first query's; each following query's begins one value earlier. `numbers` are those
    /// that the products are computed in.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not enough to lay out a head in.
    ///
    /// # Panics
    /// If there are no heads, or they have no values; if `qkv` or `out` has another length; or if there are no biases for a
    /// head and its positions.
    pub fn attend_all(
        &self,
        numbers: Numbers,
        heads: Heads,
        qkv: &[f32],
        bias: BiasRow<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let inner = heads.inner();
        let len = sizes::rows(qkv, product([3, inner]), "qkv is [len, 3 * inner]");
        assert_eq!(out.len(), len * inner, "qkv is [len, 3 * inner] and out is [len, inner]");
        if len == 0 {
            return Ok(());
        }
        // Query `len - 1` begins `len - 1` values before the first one's.
        assert!(
            len - 1 <= bias.offset && bias.offset.saturating_add(len) <= bias.head_stride,
            "expected biases of {len} positions on both sides, found {} from {} on",
            bias.head_stride,
            bias.offset
        );
        let (threads, scratch) = workspace.shared();
        let parts = threads.parts(heads.count, product([2, len, len, inner]));
        let used = if parts == 1 { 1 } else { threads.count() };
        for thread in 0..used {
            matrix::own(scratch, thread).head.reserve(numbers, len, heads.width)?;
        }
        let columns = Columns::new(out, inner);
        threads.run(parts, &|thread, part| {
            let own = &mut *matrix::own(scratch, thread);
            for head in share(heads.count, part, parts) {
                let first = head * heads.width;
                let key_values = attention::HeadKeyValues {
                    keys: &qkv[inner + first..],
                    values: &qkv[2 * inner + first..],
                    stride: 3 * inner,
                    len,
                    width: heads.width,
                };
                let (packed, scratch) = own.head.pack(*self, numbers, key_values);
                let mut rows = attention::HeadRows {
                    q: &qkv[first..],
                    q_stride: 3 * inner,
                    count: len,
                    width: heads.width,
                    // SAFETY: each head is in one share, and heads have no column in common.
                    out: unsafe { columns.part(first..first + heads.width) },
                };
                let bias = (bias.head(head), bias.offset);
                packed.attend(*self, &mut rows, Some(bias), None, scratch);
            }
        });
        Ok(())
    }

    /// Cross-attention of queries `[queries, inner]` over one source in one block; `out` is `[queries, inner]`. A query's
    /// result does not depend on the queries beside it.
    ///
    /// # Panics
    /// If the block was not packed; or if `q`, `out` or an alignment has another length.
    pub fn attend_packed(
        &self,
        q: &[f32],
        source: &PackedKeyValues,
        block: usize,
        out: &mut [f32],
        mut alignment: Option<Alignment<'_>>,
        workspace: &mut Workspace,
    ) {
        let heads = source.heads();
        let inner = heads.inner();
        let count = sizes::rows(q, inner, "q is [queries, inner]");
        assert_eq!(q.len(), out.len(), "q and out are [queries, inner]");
        if count == 0 {
            return;
        }
        if let Some(alignment) = &alignment {
            assert_eq!(alignment.out.len(), product([count, source.len()]), "an alignment is [queries, source]");
        }
        let (threads, scratch) = workspace.shared();
        let parts = match alignment {
            // Heads add to one result in order.
            Some(_) => 1,
            None => threads.parts(heads.count, product([2, count, source.len(), inner])),
        };
        let columns = Columns::new(out, inner);
        let head = |head: usize, own: &mut matrix::Own, alignment: Option<&mut Alignment<'_>>| {
            let first = head * heads.width;
            let mut rows = attention::HeadRows {
                q: &q[first..],
                q_stride: inner,
                count,
                width: heads.width,
                // SAFETY: each head is in one share, and heads have no column in common.
                out: unsafe { columns.part(first..first + heads.width) },
            };
            source.head(block, head).attend(*self, &mut rows, None, alignment, &mut own.head.scratch);
        };
        if parts == 1 {
            let own = &mut *matrix::own(scratch, 0);
            return (0..heads.count).for_each(|index| head(index, own, alignment.as_mut()));
        }
        threads.run(parts, &|thread, part| {
            let own = &mut *matrix::own(scratch, thread);
            share(heads.count, part, parts).for_each(|index| head(index, own, None));
        });
    }

    /// Index of the largest value, the lowest one on ties; `None` where all are NaN or there are none.
    pub fn argmax(&self, x: &[f32]) -> Option<usize> {
        rows::argmax(*self, x)
    }

    /// How blocks of weights are packed for this instruction set.
    fn layout(self) -> packed::Layout {
        packed::layout(self)
    }
}
