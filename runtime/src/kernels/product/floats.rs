//! Products of weights of floats.

use std::ops::Range;

use crate::kernels::columns::Columns;
use crate::kernels::isa::dispatch;
use crate::kernels::pack::floats::{Element, Pair};
use crate::kernels::simd::{BF16, F16, LANES, Simd};
use crate::kernels::tiles::{Tiles, rows_in_cache, with_rows};

/// `x` is laid out by tiles, `[tiles][k][rows of the tile]`; `wide` is scratch. The columns begin with a pair of
/// groups.
#[inline(always)]
fn plain_in<V: Simd, E: Element>(
    v: V,
    w: &[Pair<E>],
    x: &[f32],
    k: usize,
    y: &mut Columns<'_>,
    wide: &mut Vec<[f32; LANES]>,
) {
    let m = x.len() / k;
    let groups = y.groups();
    let pairs = groups.start / 2..groups.end.div_ceil(2);
    if m <= V::ROWS_F32 {
        // Weights are met once: as they are, in the order in which they lie.
        for pair in pairs {
            let panel = &w[pair * k..(pair + 1) * k];
            match m {
                0 => {}
                1 => pair_tile::<_, _, 1>(v, panel, x, y, pair),
                2 => pair_tile::<_, _, 2>(v, panel, x, y, pair),
                _ => {
                    for half in 0..2.min(groups.end - 2 * pair) {
                        for (row, rows) in Tiles::new(0..m, V::ROWS_F32) {
                            let x = &x[row * k..(row + rows) * k];
                            let column = (2 * pair + half) * LANES;
                            with_rows!(rows, V::ROWS_F32, half_tile[_ _](v, panel, half, x, row, y, column));
                        }
                    }
                }
            }
        }
        return;
    }
    // Weights are read for several tiles: widened once, each group by itself.
    if wide.len() < 2 * k {
        wide.resize(2 * k, [0.0; LANES]);
    }
    // The scratch may have grown for wider matrices.
    let (first, second) = wide[..2 * k].split_at_mut(k);
    let at_once = rows_in_cache(k * size_of::<f32>(), V::ROWS_F32);
    let mut row = 0;
    while row < m {
        let end = m.min(row + at_once);
        for pair in pairs.clone() {
            let panel = &w[pair * k..(pair + 1) * k];
            for j in 0..k {
                v.store(E::load(v, &panel[j].0[0]), &mut first[j]);
                v.store(E::load(v, &panel[j].0[1]), &mut second[j]);
            }
            panel_rows(v, first, x, row..end, y, 2 * pair * LANES);
            if 2 * pair + 1 < groups.end {
                panel_rows(v, second, x, row..end, y, (2 * pair + 1) * LANES);
            }
        }
        row = end;
    }
}

/// A pair of groups at once: two chains of additions for each row, which is what one row needs to keep up with
/// memory.
#[inline(always)]
fn pair_tile<V: Simd, E: Element, const M: usize>(v: V, w: &[Pair<E>], x: &[f32], y: &mut Columns<'_>, pair: usize) {
    let mut out = [[v.splat(0.0); 2]; M];
    let x = &x.as_chunks::<M>().0[..w.len()];
    for j in 0..w.len() {
        let w = [E::load(v, &w[j].0[0]), E::load(v, &w[j].0[1])];
        for i in 0..M {
            let x = v.splat(x[j][i]);
            out[i][0] = v.add(out[i][0], v.mul(x, w[0]));
            out[i][1] = v.add(out[i][1], v.mul(x, w[1]));
        }
    }
    let both = 2 * pair + 1 < y.groups().end;
    for i in 0..M {
        y.store(v, out[i][0], i, 2 * pair * LANES);
        if both {
            y.store(v, out[i][1], i, (2 * pair + 1) * LANES);
        }
    }
}

/// One group of a pair.
#[inline(always)]
fn half_tile<V: Simd, E: Element, const M: usize>(
    v: V,
    w: &[Pair<E>],
    half: usize,
    x: &[f32],
    row: usize,
    y: &mut Columns<'_>,
    column: usize,
) {
    let mut out = [v.splat(0.0); M];
    let x = &x.as_chunks::<M>().0[..w.len()];
    for j in 0..w.len() {
        let w = E::load(v, &w[j].0[half]);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.splat(x[j][i]), w));
        }
    }
    for i in 0..M {
        y.store(v, out[i], row + i, column);
    }
}

/// One group of 16 rows of weights, `[k]`, for the columns of y from `column` on.
#[inline(always)]
fn panel_in<V: Simd>(v: V, panel: &[[f32; LANES]], x: &[f32], y: &mut Columns<'_>, column: usize) {
    panel_rows(v, panel, x, 0..x.len() / panel.len(), y, column);
}

/// The same for some of the rows, whole tiles.
#[inline(always)]
fn panel_rows<V: Simd>(
    v: V,
    panel: &[[f32; LANES]],
    x: &[f32],
    rows: Range<usize>,
    y: &mut Columns<'_>,
    column: usize,
) {
    let k = panel.len();
    for (row, rows) in Tiles::new(rows, V::ROWS_F32) {
        let x = &x[row * k..(row + rows) * k];
        with_rows!(rows, V::ROWS_F32, plain_tile[_](v, panel, x, row, y, column));
    }
}

#[inline(always)]
fn plain_tile<V: Simd, const M: usize>(
    v: V,
    w: &[[f32; LANES]],
    x: &[f32],
    row: usize,
    y: &mut Columns<'_>,
    column: usize,
) {
    let mut out = [v.splat(0.0); M];
    let x = &x.as_chunks::<M>().0[..w.len()];
    for j in 0..w.len() {
        let w = v.load(&w[j]);
        for i in 0..M {
            out[i] = v.add(out[i], v.mul(v.splat(x[j][i]), w));
        }
    }
    for i in 0..M {
        y.store(v, out[i], row + i, column);
    }
}

/// Lays rows out by tiles: `[tiles][k][rows of the tile]`.
#[inline(always)]
fn tile_rows_in<V: Simd>(_: V, x: &[f32], k: usize, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    for (row, rows) in Tiles::new(0..x.len() / k, V::ROWS_F32) {
        let range = row * k..(row + rows) * k;
        let (x, out) = (&x[range.clone()], &mut out[range]);
        for i in 0..rows {
            let x = &x[i * k..(i + 1) * k];
            for j in 0..k {
                out[i + j * rows] = x[j];
            }
        }
    }
}

dispatch!(pub(crate) fn tile_rows(x: &[f32], k: usize, out: &mut Vec<f32>) = tile_rows_in);
dispatch!(
    pub(crate) fn panel(panel: &[[f32; LANES]], x: &[f32], y: &mut Columns<'_>, column: usize) = panel_in
);
dispatch!(
    pub(crate) fn plain_f32(
        w: &[Pair<f32>],
        x: &[f32],
        k: usize,
        y: &mut Columns<'_>,
        wide: &mut Vec<[f32; LANES]>
    ) = plain_in
);
dispatch!(
    pub(crate) fn plain_f16(
        w: &[Pair<F16>],
        x: &[f32],
        k: usize,
        y: &mut Columns<'_>,
        wide: &mut Vec<[f32; LANES]>
    ) = plain_in
);
dispatch!(
    pub(crate) fn plain_bf16(
        w: &[Pair<BF16>],
        x: &[f32],
        k: usize,
        y: &mut Columns<'_>,
        wide: &mut Vec<[f32; LANES]>
    ) = plain_in
);
