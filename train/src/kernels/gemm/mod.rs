//! Matrix products over strided views, for the forward pass and both backward products without transposing anything
//! in memory. On AVX-512 by kernels of our own, elsewhere by the `gemm` crate.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod view;

pub use view::{Mat, MatMut, Precision, Product};

impl Precision {
    /// Whether this machine multiplies so.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if avx512::available(self) {
            return true;
        }
        self == Precision::F32
    }

    /// What computes such products on this machine, for people.
    pub fn unit(self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        if avx512::available(self) {
            return match self {
                Precision::F32 => "AVX-512",
                Precision::Bf16 if amx::available() => "AMX",
                Precision::Bf16 => "AVX-512 BF16",
            };
        }
        "the gemm crate"
    }
}

/// `out = a b` or `out += a b`, where `a` is `[m, k]` and `b` is `[k, n]`.
///
/// # Panics
/// If the shapes do not agree, or the precision is not available.
pub fn multiply(out: MatMut, product: Product, a: Mat, b: Mat, precision: Precision) {
    Packed::new(b, precision).multiply(out, product, a);
}

/// The right operand of products, laid out once for several of them.
pub enum Packed<'a> {
    #[cfg(target_arch = "x86_64")]
    Panels(avx512::Panels),
    Plain(Mat<'a>),
}

impl<'a> Packed<'a> {
    /// Packs `b` `[k, n]`.
    ///
    /// # Panics
    /// If the precision is not available.
    pub fn new(b: Mat<'a>, precision: Precision) -> Packed<'a> {
        #[cfg(target_arch = "x86_64")]
        if avx512::available(precision) {
            return Packed::Panels(avx512::Panels::new(b, precision));
        }
        assert!(precision == Precision::F32, "this machine has no bfloat16 products");
        Packed::Plain(b)
    }

    /// `out = a b` or `out += a b`.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn multiply(&self, out: MatMut, product: Product, a: Mat) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Packed::Panels(panels) => panels.multiply(out, product, a),
            Packed::Plain(b) => plain(out, product, a, *b),
        }
    }
}

fn plain(out: MatMut, product: Product, a: Mat, b: Mat) {
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

    /// `value` after rounding to the precision.
    fn rounded(value: f32, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => value as f64,
            Precision::Bf16 => {
                let bits = value.to_bits();
                let up = 0x7fff + ((bits >> 16) & 1);
                f32::from_bits((bits + up) & 0xffff_0000) as f64
            }
        }
    }

    #[test]
    fn products_equal_plain_loops() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0;
        let shapes =
            [(1, 1, 1), (3, 5, 7), (17, 64, 33), (40, 129, 16), (7, 0, 3), (6, 16, 64), (13, 33, 80), (200, 600, 130)];
        for precision in [Precision::F32, Precision::Bf16] {
            if !precision.is_available() {
                eprintln!("skipped: {precision:?} products, which this machine has not");
                continue;
            }
            for (m, k, n) in shapes {
                for transposed in 0..4 {
                    let (a_t, b_t) = (transposed & 1 == 1, transposed & 2 == 2);
                    // Rows in memory are three values longer than the matrix.
                    let store = |rows: usize, columns: usize, shift: usize| -> (Vec<f32>, usize) {
                        ((0..rows * (columns + 3)).map(|i| value(i + shift)).collect(), columns + 3)
                    };
                    let (a, a_stride) = if a_t { store(k, m, 0) } else { store(m, k, 0) };
                    let (b, b_stride) = if b_t { store(n, k, 5) } else { store(k, n, 5) };
                    let a = if a_t { Mat::new(&a, k, m, a_stride).t() } else { Mat::new(&a, m, k, a_stride) };
                    let b = if b_t { Mat::new(&b, n, k, b_stride).t() } else { Mat::new(&b, k, n, b_stride) };
                    let before: Vec<f32> = (0..m * (n + 1)).map(|i| value(i + 9)).collect();
                    for product in [Product::Set, Product::Add] {
                        let mut out = before.clone();
                        multiply(MatMut::new(&mut out, m, n, n + 1), product, a, b, precision);
                        for i in 0..m {
                            for j in 0..n {
                                let exact: f64 = (0..k)
                                    .map(|p| rounded(a.at(i, p), precision) * rounded(b.at(p, j), precision))
                                    .sum();
                                let old = if product == Product::Add { before[i * (n + 1) + j] as f64 } else { 0.0 };
                                let found = out[i * (n + 1) + j] as f64;
                                // k products below 1, each with a rounding error of 2^-24 of a sum below k.
                                let bound = 1e-7 * (k as f64 + 1.0) * (k as f64).sqrt().max(1.0);
                                assert!(
                                    (found - exact - old).abs() < bound,
                                    "{precision:?} {m} {k} {n} {transposed} {product:?} at {i} {j}: {found} {}",
                                    exact + old
                                );
                            }
                            assert_eq!(out[i * (n + 1) + n], before[i * (n + 1) + n], "gaps are not written");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0;
        let (m, k, n) = (500, 300, 100);
        let a: Vec<f32> = (0..m * k).map(value).collect();
        let b: Vec<f32> = (0..k * n).map(value).collect();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; m * n];
            pool.install(|| {
                let out = MatMut::new(&mut out, m, n, n);
                multiply(out, Product::Set, Mat::new(&a, m, k, k), Mat::new(&b, k, n, n), Precision::F32);
            });
            out
        };
        assert!(run(1) == run(3));
    }
}
