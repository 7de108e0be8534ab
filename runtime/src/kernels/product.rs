//! Products `y[m, n] = x[m, k] W^T`, generic over the instruction set. This is where the time goes.
//!
//! Each value of y is the sum over k in order: block after block for Q8_0 (the block's exact integer sum, as f32,
//! times the product of both scales), value after value for plain types. A register tile of several rows of x and
//! groups of 16 rows of W only re-uses what is loaded; it never changes that order, so a row's result does not
//! depend on the rows beside it.
//!
//! Hot loops here and in the other generic kernels call no closures: a closure that the compiler does not inline is
//! compiled without the instruction set, and every operation in it becomes a function call.

#![allow(clippy::needless_range_loop)] // tiles index several arrays by one row and one group

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
        let row = &mut self.y[row * self.n..(row + 1) * self.n][group * LANES..];
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

/// Covers `m` rows and `groups` groups with tiles of at most `V::TILE`: `$f::<…, M, G>(…, row, group)`. A panel of
/// weights meets all rows before the next one is touched.
macro_rules! for_tiles {
    ($m:expr, $groups:expr, $f:ident[$($infer:tt)*]($($arg:expr),*)) => {
        let (rows_at_once, groups_at_once) = V::TILE;
        let mut group = 0;
        while group < $groups {
            let groups = groups_at_once.min($groups - group);
            let mut row = 0;
            while row < $m {
                let rows = rows_at_once.min($m - row);
                match (rows, groups) {
                    (1, 1) => $f::<$($infer,)* 1, 1>($($arg,)* row, group),
                    (2, 1) => $f::<$($infer,)* 2, 1>($($arg,)* row, group),
                    (3, 1) => $f::<$($infer,)* 3, 1>($($arg,)* row, group),
                    (4, 1) => $f::<$($infer,)* 4, 1>($($arg,)* row, group),
                    (5, 1) => $f::<$($infer,)* 5, 1>($($arg,)* row, group),
                    (6, 1) => $f::<$($infer,)* 6, 1>($($arg,)* row, group),
                    (1, 2) => $f::<$($infer,)* 1, 2>($($arg,)* row, group),
                    (2, 2) => $f::<$($infer,)* 2, 2>($($arg,)* row, group),
                    (3, 2) => $f::<$($infer,)* 3, 2>($($arg,)* row, group),
                    (4, 2) => $f::<$($infer,)* 4, 2>($($arg,)* row, group),
                    (5, 2) => $f::<$($infer,)* 5, 2>($($arg,)* row, group),
                    (6, 2) => $f::<$($infer,)* 6, 2>($($arg,)* row, group),
                    _ => unreachable!("tiles are at most 6 x 2"),
                }
                row += rows;
            }
            group += groups;
        }
    };
}

#[inline(always)]
fn q8_in<V: Simd>(v: V, w: &Q8, a: &Activations, blocks: usize, y: &mut [f32], n: usize) {
    let m = a.scales.len() / blocks;
    let mut out = Output { y, n };
    for_tiles!(m, n.div_ceil(LANES), q8_tile[_](v, w, a, blocks, &mut out));
}

#[inline(always)]
fn q8_tile<V: Simd, const M: usize, const G: usize>(
    v: V,
    w: &Q8,
    a: &Activations,
    blocks: usize,
    out: &mut Output,
    row: usize,
    group: usize,
) {
    let mut weights = [&w.weights[..0]; G];
    let mut weight_scales = [&w.scales[..0]; G];
    for g in 0..G {
        let range = (group + g) * blocks..(group + g + 1) * blocks;
        weights[g] = &w.weights[range.clone()];
        weight_scales[g] = &w.scales[range];
    }
    let mut values = [&a.values[..0]; M];
    let mut scales = [&a.scales[..0]; M];
    let mut starts = [&a.starts[..0]; M];
    for i in 0..M {
        let range = (row + i) * blocks..(row + i + 1) * blocks;
        values[i] = &a.values[range.clone()];
        scales[i] = &a.scales[range.clone()];
        starts[i] = &a.starts[range];
    }

    let mut y = [[v.splat(0.0); G]; M];
    for b in 0..blocks {
        let mut sums = [[v.splat_i32(0); G]; M];
        if V::FLIP != 0 {
            for i in 0..M {
                sums[i] = [v.splat_i32(starts[i][b]); G];
            }
        }
        for step in 0..STEPS {
            let mut w = [v.weights(&weights[0][b].0[step]); G];
            for g in 1..G {
                w[g] = v.weights(&weights[g][b].0[step]);
            }
            for i in 0..M {
                let a = v.activations(&values[i][b].as_chunks().0[step]);
                for g in 0..G {
                    sums[i][g] = v.dot(sums[i][g], w[g], a);
                }
            }
        }
        for g in 0..G {
            let d = v.load_f16(&weight_scales[g][b]);
            for i in 0..M {
                let scale = v.mul(d, v.splat(scales[i][b]));
                y[i][g] = v.add(y[i][g], v.mul(v.to_f32(sums[i][g]), scale));
            }
        }
    }
    for i in 0..M {
        for g in 0..G {
            out.store(v, row + i, group + g, y[i][g]);
        }
    }
}

#[inline(always)]
fn plain_in<V: Simd, E: Element>(v: V, w: &[[E; LANES]], x: &[f32], k: usize, y: &mut [f32], n: usize) {
    let m = x.len() / k;
    let mut out = Output { y, n };
    for_tiles!(m, n.div_ceil(LANES), plain_tile[_ _](v, w, x, k, &mut out));
}

#[inline(always)]
fn plain_tile<V: Simd, E: Element, const M: usize, const G: usize>(
    v: V,
    w: &[[E; LANES]],
    x: &[f32],
    k: usize,
    out: &mut Output,
    row: usize,
    group: usize,
) {
    let mut weights = [&w[..0]; G];
    for g in 0..G {
        weights[g] = &w[(group + g) * k..(group + g + 1) * k];
    }
    let mut rows = [&x[..0]; M];
    for i in 0..M {
        rows[i] = &x[(row + i) * k..(row + i + 1) * k];
    }
    let mut y = [[v.splat(0.0); G]; M];
    for j in 0..k {
        let mut w = [E::load(v, &weights[0][j]); G];
        for g in 1..G {
            w[g] = E::load(v, &weights[g][j]);
        }
        for i in 0..M {
            let x = v.splat(rows[i][j]);
            for g in 0..G {
                y[i][g] = v.add(y[i][g], v.mul(x, w[g]));
            }
        }
    }
    for i in 0..M {
        for g in 0..G {
            out.store(v, row + i, group + g, y[i][g]);
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
