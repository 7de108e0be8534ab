//! f32 matrix products over strided views, for the forward pass and both backward products without transposing
//! anything in memory.

/// A read-only matrix: element `(i, j)` lies at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
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
}

/// A row-major matrix to write to.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
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
    stride >= columns && (rows == 0 || columns == 0 || (rows - 1) * stride + columns <= len)
}

/// What a product does with what the output holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// `out = a b`
    Set,
    /// `out += a b`
    Add,
}

/// `out = a b` or `out += a b`, where `a` is `[m, k]` and `b` is `[k, n]`.
///
/// # Panics
/// If the shapes do not agree.
pub fn multiply(out: MatMut, product: Product, a: Mat, b: Mat) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(b.rows == k && out.rows == m && out.columns == n, "[{m}, {k}] x [{}, {n}]", b.rows);
    if m == 0 || n == 0 {
        return;
    }
    let add = product == Product::Add;
    // SAFETY: the constructors checked that every element of the three views lies in its slice, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            ::gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_plain_loops() {
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (17, 64, 33), (40, 129, 16)] {
            let a: Vec<f32> = (0..m * (k + 3)).map(value).collect();
            let b: Vec<f32> = (0..n * (k + 2)).map(|i| value(i + 5)).collect();
            let mut out: Vec<f32> = (0..m * (n + 1)).map(|i| value(i + 9)).collect();
            let before = out.clone();
            // b is stored [n, k], as a weight is.
            let (a_view, b_view) = (Mat::new(&a, m, k, k + 3), Mat::new(&b, n, k, k + 2).t());
            multiply(MatMut::new(&mut out, m, n, n + 1), Product::Add, a_view, b_view);
            for i in 0..m {
                for j in 0..n {
                    let exact: f64 = (0..k).map(|l| a[i * (k + 3) + l] as f64 * b[j * (k + 2) + l] as f64).sum();
                    let expected = before[i * (n + 1) + j] as f64 + exact;
                    // k products below 1 with a rounding error of 2^-24 each.
                    assert!((out[i * (n + 1) + j] as f64 - expected).abs() < 1e-6 * (k as f64 + 1.0));
                }
                if i + 1 < m {
                    assert_eq!(out[i * (n + 1) + n], before[i * (n + 1) + n], "between rows nothing is written");
                }
            }
            multiply(MatMut::new(&mut out, m, n, n + 1), Product::Set, a_view, b_view);
            let exact: f64 = (0..k).map(|l| a[l] as f64 * b[l] as f64).sum();
            assert!((out[0] as f64 - exact).abs() < 1e-6 * (k as f64 + 1.0));
        }
    }
}
