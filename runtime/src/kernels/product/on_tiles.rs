//! Products of 16 rows at a time on tiles ([`Dot::multiply_tiles`]), for weights in runs of two blocks and more.
//! Integer sums are exact and everything else happens in the order of [`super`], so the results are the same.

use super::{Place, fetch, scales_ahead_of, share_of};
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::{Dot, Steps, TILE_ROWS, TileSums};
use crate::kernels::layout::{BLOCK, STEPS, WeightStep};
use crate::kernels::pack::q8::{Q8, WeightBlock};
use crate::kernels::simd::LANES;
use crate::kernels::tiles::rows_in_cache;

#[inline(always)]
pub(super) fn q8_in<V: Dot>(v: V, w: &Q8, a: &Activations, blocks: usize, y: &mut Columns<'_>) {
    let groups = y.groups();
    let tiles = y.rows().div_ceil(TILE_ROWS);
    let at_once = rows_in_cache(blocks * BLOCK, TILE_ROWS) / TILE_ROWS;
    v.begin_tiles();
    let mut first = 0;
    while first < tiles {
        let end = tiles.min(first + at_once);
        for group in groups.clone().step_by(2) {
            for tile in first..end {
                let place = Place {
                    row: tile * TILE_ROWS,
                    begin: first * TILE_ROWS,
                    end: end * TILE_ROWS,
                    near: v.reads_near_weights(),
                };
                tile_in(v, w, (group, groups.end), a, blocks, place, y);
            }
        }
        first = end;
    }
    v.end_tiles();
}

/// Two groups with 16 rows. The last of an odd number of groups, of which `groups` are the first and the end, meets
/// them twice.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows and groups by number, as in the other products
fn tile_in<V: Dot>(
    v: V,
    w: &Q8,
    groups: (usize, usize),
    a: &Activations,
    blocks: usize,
    place: Place,
    y: &mut Columns<'_>,
) {
    let (group, end) = groups;
    let tile = place.row / TILE_ROWS;
    let [one, other] = [w.group(group, blocks), w.group((group + 1).min(end - 1), blocks)];
    let (run, runs) = (w.run, blocks / w.run);
    let blocks_of_rows = &a.values[tile * TILE_ROWS * blocks..(tile + 1) * TILE_ROWS * blocks];
    let values = blocks_of_rows.as_chunks::<2>().0.as_chunks::<TILE_ROWS>().0;
    let range = tile * TILE_ROWS * runs..(tile + 1) * TILE_ROWS * runs;
    let scales = a.scales[range.clone()].as_chunks::<TILE_ROWS>().0;
    let starts = a.starts[range].as_chunks::<TILE_ROWS>().0;
    let ahead = share_of::<V, TILE_ROWS, _>(&w.weights, (group + 2) * blocks, 2 * blocks, place);
    let scales_ahead = scales_ahead_of::<V, TILE_ROWS, _>(&w.scales, group * blocks, 2 * blocks, place);
    let mut out = [[v.splat(0.0); TILE_ROWS]; 2];
    let mut sums = [TileSums::default(); 2];
    for index in 0..runs {
        let (first, last) = (index * run, (index + 1) * run);
        fetch(v, (ahead, scales_ahead), 2 * first..2 * last);
        for i in 0..TILE_ROWS {
            let start = [starts[index][i]; LANES];
            (sums[0].0[i], sums[1].0[i]) = (start, start);
        }
        v.multiply_tiles(
            [steps(&one.0[first..last]), steps(&other.0[first..last])],
            &values[first / 2..last / 2],
            &mut sums,
        );
        for g in 0..2 {
            let d = v.load_finite(if g == 0 { &one.1[first] } else { &other.1[first] });
            for i in 0..TILE_ROWS {
                let sum = v.to_f32(v.bits(v.load(as_floats(&sums[g].0[i]))));
                out[g][i] = v.add(out[g][i], v.mul(sum, v.mul(d, v.splat(scales[index][i]))));
            }
        }
    }
    for i in 0..TILE_ROWS.min(y.rows() - tile * TILE_ROWS) {
        for g in 0..2.min(end - group) {
            y.store(v, out[g][i], tile * TILE_ROWS + i, (group + g) * LANES);
        }
    }
}

/// What blocks are.
#[inline(always)]
fn steps(blocks: &[WeightBlock]) -> &[[WeightStep; STEPS]] {
    WeightBlock::bytes(blocks).expect("blocks of bytes")
}

/// The same bits.
#[inline(always)]
fn as_floats(x: &[i32; LANES]) -> &[f32; LANES] {
    // SAFETY: both have four bytes an element, and any bits are a float.
    unsafe { &*std::ptr::from_ref(x).cast() }
}
