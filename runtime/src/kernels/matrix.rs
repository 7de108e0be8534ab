//! A weight matrix in the form its products read, whatever type it has in the file.

use super::activations::{self, Activations, BLOCK};
use super::packed::{BF16, F16, F32, Plain, Q8};
use super::simd::LANES;
use super::{Isa, Kernels, product};
use crate::block;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Scratch memory of products, kept between calls so that steady-state work allocates nothing.
#[derive(Default)]
pub struct Workspace {
    activations: Activations,
    /// 16 rows as they are decoded, and interleaved.
    rows: Vec<f32>,
    group: Plain<F32>,
    /// Results of one group, `[m, 16]`.
    columns: Vec<f32>,
}

/// A weight matrix `[n, k]`, possibly several stacked by rows, made ready for `y = x W^T`.
pub struct Matrix {
    storage: Storage,
    n: usize,
    k: usize,
    /// What the weights are packed for.
    isa: Isa,
}

enum Storage {
    Q8(Q8),
    F32(Plain<F32>),
    F16(Plain<F16>),
    BF16(Plain<BF16>),
    /// Decoded anew for every product, 16 rows at a time.
    Encoded(Vec<Tensor>),
}

impl Matrix {
    /// Prepares one matrix, or several of equal width stacked by rows (`q`, `k`, `v` in one product).
    ///
    /// Weights of type Q8_0, F32, F16 and BF16 are copied into the layout that products read, and the file's pages
    /// released; other types, and parts of different types, stay as they are.
    ///
    /// # Errors
    /// Where widths differ, a tensor's size does not match its shape, or a Q8_0 scale is not finite.
    pub fn new(kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        let k = parts[0].columns();
        for part in parts {
            if part.columns() != k {
                return Err(part.error(format!("expected rows of {k} values, found {}", part.columns())));
            }
            part.check_size()?;
        }
        let n = parts.iter().map(|part| part.rows()).sum();
        let dtype = parts[0].dtype;
        let storage = match dtype {
            _ if parts.iter().any(|part| part.dtype != dtype) => None,
            DType::Q8_0 => Some(Storage::Q8(Q8::pack(parts, n, k, kernels.flip())?)),
            DType::F32 => Some(Storage::F32(F32::pack(parts, n, k))),
            DType::F16 => Some(Storage::F16(F16::pack(parts, n, k))),
            DType::BF16 => Some(Storage::BF16(BF16::pack(parts, n, k))),
            _ => None,
        };
        let storage = match storage {
            Some(storage) => {
                for part in parts {
                    part.data.release();
                }
                storage
            }
            None => Storage::Encoded(parts.iter().map(|&part| part.clone()).collect()),
        };
        Ok(Matrix { storage, n, k, isa: kernels.isa() })
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
    ///
    /// Q8_0 weights meet activations quantised to int8 in blocks of 32, with exact integer sums; other types are
    /// widened to f32. A row's result depends neither on the other rows nor on the instruction set.
    ///
    /// # Panics
    /// If `x` or `y` has another length, or `kernels` is not what the matrix was prepared for.
    pub fn multiply(&self, kernels: Kernels, x: &[f32], m: usize, y: &mut [f32], workspace: &mut Workspace) {
        let (n, k) = (self.n, self.k);
        assert!(x.len() == m * k && y.len() == m * n, "x is [m, k] and y is [m, n]");
        assert_eq!(kernels.isa(), self.isa, "a matrix is used with the kernels it was prepared for");
        if k == 0 {
            return y.fill(0.0);
        }
        match &self.storage {
            Storage::Q8(w) => {
                activations::quantize(kernels, x, &mut workspace.activations);
                product::q8(kernels, w, &workspace.activations, k / BLOCK, y, n);
            }
            Storage::F32(w) => product::plain_f32(kernels, w, x, k, y, n),
            Storage::F16(w) => product::plain_f16(kernels, w, x, k, y, n),
            Storage::BF16(w) => product::plain_bf16(kernels, w, x, k, y, n),
            Storage::Encoded(parts) => multiply_encoded(kernels, parts, x, m, y, workspace),
        }
    }

    /// Bytes that one product of a single row reads.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Q8(w) => size_of_val(&w.weights[..]) + size_of_val(&w.scales[..]),
            Storage::F32(w) => size_of_val(&w[..]),
            Storage::F16(w) => size_of_val(&w[..]),
            Storage::BF16(w) => size_of_val(&w[..]),
            Storage::Encoded(parts) => parts.iter().map(|part| part.data.len()).sum(),
        }
    }
}

/// Decodes 16 rows at a time into the layout of packed f32 weights and multiplies with those.
fn multiply_encoded(kernels: Kernels, parts: &[Tensor], x: &[f32], m: usize, y: &mut [f32], workspace: &mut Workspace) {
    let k = x.len() / m.max(1);
    let n = y.len() / m.max(1);
    workspace.rows.resize(k, 0.0);
    workspace.group.resize(k, Default::default());
    workspace.columns.resize(m * LANES, 0.0);
    let mut rows = parts.iter().flat_map(|part| (0..part.rows()).map(move |row| (part, row)));
    for column in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - column);
        for (lane, (part, row)) in rows.by_ref().take(lanes).enumerate() {
            block::decode(part.dtype, part.row_data(row), &mut workspace.rows);
            for (group, &value) in workspace.group.iter_mut().zip(&workspace.rows) {
                group[lane] = F32::from(value);
            }
        }
        product::plain_f32(kernels, &workspace.group, x, k, &mut workspace.columns, LANES);
        for (y, columns) in y.chunks_exact_mut(n).zip(workspace.columns.chunks_exact(LANES)) {
            y[column..column + lanes].copy_from_slice(&columns[..lanes]);
        }
    }
}
