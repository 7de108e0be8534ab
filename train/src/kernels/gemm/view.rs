//! The operands of products: strided views of matrices, and how their values are rounded.

use serde::{Deserialize, Serialize};

/// How the operands of a product are rounded. Sums are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    /// To bfloat16, twice as fast where the processor multiplies it (AVX512_BF16).
    Bf16,
}

/// A read-only matrix: element `(i, j)` lies at `i * row_stride + j * column_stride`, one of which is 1.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix `[rows, columns]` whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// If the data is too short.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Mat<'a> {
        assert!(fits(data.len(), rows, columns, stride), "[{rows}, {columns}] / {stride} in {}", data.len());
        Mat { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transpose; no data moves.
    pub fn t(self) -> Mat<'a> {
        Mat {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    pub(super) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.column_stride]
    }
}

/// A row-major matrix to write to.
pub struct MatMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix `[rows, columns]` whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// If the data is too short.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> MatMut<'a> {
        assert!(fits(data.len(), rows, columns, stride), "[{rows}, {columns}] / {stride} in {}", data.len());
        MatMut { data, rows, columns, stride }
    }
}

fn fits(len: usize, rows: usize, columns: usize, stride: usize) -> bool {
    stride >= columns.max(1) && (rows == 0 || columns == 0 || (rows - 1) * stride + columns <= len)
}

/// What a product does with what the output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `out = a b`
    Set,
    /// `out += a b`
    Add,
}
