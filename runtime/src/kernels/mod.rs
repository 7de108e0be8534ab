//! The arithmetic of the model: a choice of instruction set, weight matrices ready for products, and the
//! element-wise functions. Kernels know nothing of the model.
//!
//! Every kernel defines the order of its floating-point operations (16 virtual lanes, a fixed reduction tree,
//! no fused multiply-add), so every instruction set gives bit-identical results; [`scalar`] is the
//! specification.

pub mod attention;
pub mod scalar;

pub use attention::{Heads, KeyValues};

use crate::block;
use crate::config::Activation;
use crate::error::{Error, Result};
use crate::position::BiasRow;
use crate::tensor::Tensor;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Scalar,
}

impl Isa {
    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
        }
    }
}

/// The kernels of one instruction set. Holding a value proves that the machine has it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The best instruction set of this machine.
    pub fn detect() -> Kernels {
        Kernels { isa: Isa::Scalar }
    }

    /// A forced choice, for tests and benches.
    pub fn with_isa(name: &str) -> Result<Kernels> {
        match name {
            "scalar" => Ok(Kernels { isa: Isa::Scalar }),
            _ => Err(Error::Option { option: "--isa", what: format!("expected scalar, found {name}") }),
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// RMS norm without mean subtraction or bias: `out[i, :] = x[i, :] * rsqrt(mean(x[i, :]^2) + eps) * weight`.
    /// `x` and `out` are `[rows, d]`, `weight` is `[d]`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        scalar::rms_norm(x, weight, eps, out);
    }

    /// `x += y`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        scalar::add(x, y);
    }

    /// `x *= factor`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        scalar::scale(x, factor);
    }

    /// `out[i, :] = act(x[i, :])` for `x` `[rows, f]`.
    pub fn activate(&self, activation: Activation, x: &[f32], out: &mut [f32]) {
        scalar::activate(activation, x, out);
    }

    /// `out[i, :] = act(x[i, ..f]) * x[i, f..]` for `x` `[rows, 2f]`, `out` `[rows, f]`.
    pub fn activate_gated(&self, activation: Activation, x: &[f32], f: usize, out: &mut [f32]) {
        scalar::activate_gated(activation, x, f, out);
    }

    /// In place softmax over one row.
    pub fn softmax(&self, scores: &mut [f32]) {
        scalar::softmax(scores);
    }

    /// `ln(sum(exp(x)))` over one row.
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        scalar::log_sum_exp(x)
    }

    /// Dot product of two vectors of one length.
    pub fn dot(&self, x: &[f32], y: &[f32]) -> f32 {
        scalar::dot(x, y)
    }

    /// `out += factor * x`.
    pub fn axpy(&self, factor: f32, x: &[f32], out: &mut [f32]) {
        scalar::axpy(factor, x, out);
    }

    /// Attention of one query; see [`attention::attend`].
    pub fn attend(
        &self,
        heads: Heads,
        q: &[f32],
        cache: KeyValues<'_>,
        bias: Option<BiasRow<'_>>,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        attention::attend(heads, q, cache, bias, scores, out);
    }

    /// Self-attention of a whole document: `qkv` is `[len, 3 * inner]` (query, key, value side by side), `out`
    /// `[len, inner]`, `scores` scratch that holds at least `[heads, len]`. `bias` gives a query's row.
    pub fn attend_all<'b>(
        &self,
        heads: Heads,
        qkv: &[f32],
        bias: impl Fn(usize) -> BiasRow<'b>,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let inner = heads.count * heads.width;
        let len = qkv.len() / (3 * inner);
        let cache = KeyValues { keys: &qkv[inner..], values: &qkv[2 * inner..], stride: 3 * inner, slots: None, len };
        for (query, out) in out.chunks_exact_mut(inner).enumerate() {
            let q = &qkv[query * 3 * inner..][..inner];
            attention::attend(heads, q, cache, Some(bias(query)), scores, out);
        }
    }

    /// Index of the largest value, the lowest one on ties; `None` where all are NaN or there are none.
    pub fn argmax(&self, x: &[f32]) -> Option<usize> {
        scalar::argmax(x)
    }
}

/// Scratch memory of products, kept between calls so that steady-state work allocates nothing.
#[derive(Default)]
pub struct Workspace {
    row: Vec<f32>,
}

/// A weight matrix `[n, k]`, possibly several stacked by rows, made ready for `y = x W^T`.
pub struct Matrix {
    parts: Vec<Tensor>,
    n: usize,
    k: usize,
}

impl Matrix {
    /// Prepares one matrix, or several of equal width stacked by rows (`q`, `k`, `v` in one product).
    ///
    /// # Errors
    /// Where widths differ or a scale is not finite.
    pub fn new(_kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        let k = parts[0].columns();
        for part in parts {
            if part.columns() != k {
                return Err(part.error(format!("expected rows of {k} values, found {}", part.columns())));
            }
            part.check_size()?;
        }
        let n = parts.iter().map(|part| part.rows()).sum();
        Ok(Matrix { parts: parts.iter().map(|&part| part.clone()).collect(), n, k })
    }

    /// Rows: the width of a product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: the width of the input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// `y[m, n] = x[m, k] W^T`.
    pub fn multiply(&self, _kernels: Kernels, x: &[f32], m: usize, y: &mut [f32], workspace: &mut Workspace) {
        let (n, k) = (self.n, self.k);
        assert!(x.len() == m * k && y.len() == m * n, "x is [m, k] and y is [m, n]");
        workspace.row.resize(k, 0.0);
        let mut column = 0;
        for part in &self.parts {
            for row in 0..part.rows() {
                block::decode(part.dtype, part.row_data(row), &mut workspace.row);
                for i in 0..m {
                    y[i * n + column] = scalar::dot(&x[i * k..(i + 1) * k], &workspace.row);
                }
                column += 1;
            }
        }
    }

    /// Bytes that one product of a single row reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.data.len()).sum()
    }
}
