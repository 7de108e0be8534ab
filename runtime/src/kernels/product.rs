//! Products `y[m, n] = x[m, k] W^T`, generic over the instruction set. This is where the time goes.
//!
//! Each value of y is the sum over k in order: block after block for Q8_0 (the block's exact integer sum, as f32,
//! times the product of both scales), value after value for plain types. A register tile of several rows of x and
//! groups of 16 rows of W only re-uses what is loaded; it never changes that order, so a row's result does not
//! depend on the rows beside it.

use super::Kernels;
use super::activations::Activations;
use super::packed::{BF16, Element, F16, F32, Q8, STEPS};
use super::simd::{LANES, Simd};

/// Where a tile writes: rows of `n` values, of which the last group may cover fewer than 16.
struct Output<'a> {
    y: &'a mut [f32],
    n: usize,
}

impl Output<'_> {
    #[inline(always)]
    fn store<V: Simd>(&mut self, v: V, row: usize, group: usize, value: V::F) {
        let column = group * LANES;
        let row = &mut self.y[row * self.n..(row + 1) * self.n][column..];
        match row.first_chunk_mut::<LANES>() {
            Some(out) => v.store(value, out),
            None => {
                let mut lanes = [0.0; LANES];
                v.store(value, &mut lanes);
                row.copy_from_slice(&lanes[..row.len()]);
            }
        }
    }
}

/// Splits `0..count` into runs of `size` and a remainder, at most 8.
#[inline(always)]
fn runs(count: usize, size: usize, mut f: impl FnMut(usize, usize)) {
    let mut start = 0;
    while start < count {
        let length = size.min(count - start);
        f(start, length);
        start += length;
    }
}

/// Calls `$f::<…, M, G>` for the run-time tile size.
macro_rules! tile {
    ($rows:expr, $groups:expr, $f:ident [$($infer:tt)*] ($($arg:expr),*)) => {
        match ($rows, $groups) {
            (1, 1) => $f::<$($infer,)* 1, 1>($($arg),*),
            (2, 1) => $f::<$($infer,)* 2, 1>($($arg),*),
            (3, 1) => $f::<$($infer,)* 3, 1>($($arg),*),
            (4, 1) => $f::<$($infer,)* 4, 1>($($arg),*),
            (5, 1) => $f::<$($infer,)* 5, 1>($($arg),*),
            (6, 1) => $f::<$($infer,)* 6, 1>($($arg),*),
            (1, 2) => $f::<$($infer,)* 1, 2>($($arg),*),
            (2, 2) => $f::<$($infer,)* 2, 2>($($arg),*),
            (3, 2) => $f::<$($infer,)* 3, 2>($($arg),*),
            (4, 2) => $f::<$($infer,)* 4, 2>($($arg),*),
            (5, 2) => $f::<$($infer,)* 5, 2>($($arg),*),
            (6, 2) => $f::<$($infer,)* 6, 2>($($arg),*),
            _ => unreachable!("tiles are at most 6 x 2"),
        }
    };
}

#[inline(always)]
fn q8_in<V: Simd>(v: V, w: &Q8, a: &Activations, blocks: usize, y: &mut [f32], n: usize) {
    let m = a.scales.len() / blocks.max(1);
    let (rows, groups) = V::TILE;
    let mut out = Output { y, n };
    runs(n.div_ceil(LANES), groups, |group, groups| {
        runs(m, rows, |row, rows| {
            tile!(rows, groups, q8_tile[_](v, w, a, blocks, row, group, &mut out));
        });
    });
}

#[inline(always)]
fn q8_tile<V: Simd, const M: usize, const G: usize>(
    v: V,
    w: &Q8,
    a: &Activations,
    blocks: usize,
    row: usize,
    group: usize,
    out: &mut Output,
) {
    let weights: [_; G] = std::array::from_fn(|g| &w.weights[(group + g) * blocks..(group + g + 1) * blocks]);
    let weight_scales: [_; G] = std::array::from_fn(|g| &w.scales[(group + g) * blocks..(group + g + 1) * blocks]);
    let values: [_; M] = std::array::from_fn(|i| &a.values[(row + i) * blocks..(row + i + 1) * blocks]);
    let scales: [_; M] = std::array::from_fn(|i| &a.scales[(row + i) * blocks..(row + i + 1) * blocks]);
    let starts: [_; M] = std::array::from_fn(|i| &a.starts[(row + i) * blocks..(row + i + 1) * blocks]);

    let mut y = [[v.splat(0.0); G]; M];
    for b in 0..blocks {
        let mut sums: [[V::I; G]; M] = std::array::from_fn(|i| [v.splat_i32(starts[i][b]); G]);
        for step in 0..STEPS {
            let w: [_; G] = std::array::from_fn(|g| v.weights(&weights[g][b].0[step]));
            for i in 0..M {
                let a = v.activations(values[i][b][4 * step..].first_chunk().expect("4 of 32 values"));
                for g in 0..G {
                    sums[i][g] = v.dot(sums[i][g], w[g], a);
                }
            }
        }
        let d: [_; G] = std::array::from_fn(|g| v.load_f16(&weight_scales[g][b]));
        for i in 0..M {
            let scale = v.splat(scales[i][b]);
            for g in 0..G {
                y[i][g] = v.add(y[i][g], v.mul(v.to_f32(sums[i][g]), v.mul(d[g], scale)));
            }
        }
    }
    for (i, y) in y.into_iter().enumerate() {
        for (g, y) in y.into_iter().enumerate() {
            out.store(v, row + i, group + g, y);
        }
    }
}

#[inline(always)]
fn plain_in<V: Simd, E: Element>(v: V, w: &[[E; LANES]], x: &[f32], k: usize, y: &mut [f32], n: usize) {
    let m = y.len() / n.max(1);
    let (rows, groups) = V::TILE;
    let mut out = Output { y, n };
    runs(n.div_ceil(LANES), groups, |group, groups| {
        runs(m, rows, |row, rows| {
            tile!(rows, groups, plain_tile[_ _] (v, w, x, k, row, group, &mut out));
        });
    });
}

#[inline(always)]
fn plain_tile<V: Simd, E: Element, const M: usize, const G: usize>(
    v: V,
    w: &[[E; LANES]],
    x: &[f32],
    k: usize,
    row: usize,
    group: usize,
    out: &mut Output,
) {
    let w: [_; G] = std::array::from_fn(|g| &w[(group + g) * k..(group + g + 1) * k]);
    let x: [_; M] = std::array::from_fn(|i| &x[(row + i) * k..(row + i + 1) * k]);
    let mut y = [[v.splat(0.0); G]; M];
    for j in 0..k {
        let w: [_; G] = std::array::from_fn(|g| E::load(v, &w[g][j]));
        for i in 0..M {
            let x = v.splat(x[i][j]);
            for g in 0..G {
                y[i][g] = v.add(y[i][g], v.mul(x, w[g]));
            }
        }
    }
    for (i, y) in y.into_iter().enumerate() {
        for (g, y) in y.into_iter().enumerate() {
            out.store(v, row + i, group + g, y);
        }
    }
}

super::dispatch!(pub(super) fn q8(w: &Q8, a: &Activations, blocks: usize, y: &mut [f32], n: usize) = q8_in);
super::dispatch!(
    pub(super) fn plain_f32(w: &[[F32; LANES]], x: &[f32], k: usize, y: &mut [f32], n: usize) = plain_in
);
super::dispatch!(
    pub(super) fn plain_f16(w: &[[F16; LANES]], x: &[f32], k: usize, y: &mut [f32], n: usize) = plain_in
);
super::dispatch!(
    pub(super) fn plain_bf16(w: &[[BF16; LANES]], x: &[f32], k: usize, y: &mut [f32], n: usize) = plain_in
);
