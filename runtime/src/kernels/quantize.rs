//! Makes int8 of activations, as products read them.

use super::activations::Activations;
use super::dot::{Dot, TILE_ROWS, on_tiles};
use super::isa::dispatch;
use super::layout::{BLOCK, STEPS};
use super::rounding::{ROUNDING, magnitudes, scale_of};
use super::simd::LANES;
use super::tiles::Tiles;

/// What a product wants to know of a run's values.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// What the integer sum of a run of int8 weights starts from: -128 Σ of the values whose weights are stored
    /// flipped (w xor 0x80 = w + 128 as an unsigned byte), else 0.
    Int8,
    /// The same for nibbles n that stand for n - 8: -8 Σ.
    Nibbles,
    /// Σ itself.
    Sum,
}

/// Quantises `x`, rows of `k` values (whole runs of `run` blocks): scale = absmax / 127, value = x · (127 / absmax)
/// rounded to the nearest, half to even. Runs with an absmax under 1e-30 become zero; a NaN or infinity makes the run's
/// scale NaN, so the product shows it.
#[inline(always)]
fn quantize_in<V: Dot>(v: V, x: &[f32], k: usize, run: usize, start: Start, out: &mut Activations) {
    let (m, runs) = (x.len() / k, k / BLOCK / run);
    let on_tiles = on_tiles(v, run, m);
    let padded = if on_tiles { m.next_multiple_of(TILE_ROWS) } else { m };
    let count = padded * (k / BLOCK);
    out.values.resize(count, [0; BLOCK]);
    out.scales.resize(count / run, 0.0);
    out.starts.resize(count / run, 0);
    out.steps.clear();
    let most = match run > 1 && v.pairs_groups() {
        _ if on_tiles => TILE_ROWS,
        true => V::ROWS_OF_PAIRS,
        false => V::ROWS_Q8,
    };
    for (first, rows) in Tiles::new(0..padded, most) {
        for row in 0..rows.min(m - first) {
            let x = x[(first + row) * k..(first + row + 1) * k].as_chunks::<BLOCK>().0;
            for index in 0..runs {
                let x = &x[index * run..(index + 1) * run];
                let at = first * runs + index * rows + row;
                let mut absmax = v.splat_i32(0);
                for x in x.as_flattened().as_chunks::<LANES>().0 {
                    absmax = v.max_i32(absmax, magnitudes(v, v.load(x)));
                }
                let (scale, inverse) = scale_of(v.largest_i32(absmax), 127.0);
                let mut started = 0i32;
                for b in 0..run {
                    let (x, block, tile) = (&x[b], index * run + b, first * (runs * run));
                    let at = match on_tiles {
                        true => tile + block / 2 * 2 * rows + 2 * row + block % 2,
                        false => tile + block * rows + row,
                    };
                    if V::TOGETHER == BLOCK {
                        started = started.wrapping_add(quantize_block(v, x, inverse, start, &mut out.values[at]));
                    } else {
                        let mut values = [0; BLOCK];
                        started = started.wrapping_add(quantize_block(v, x, inverse, start, &mut values));
                        let tile = &mut out.values[at - row..at - row + rows];
                        match V::TOGETHER {
                            4 => deal::<4>(&values, tile, row),
                            _ => deal::<8>(&values, tile, row),
                        }
                    }
                }
                (out.scales[at], out.starts[at]) = (scale, started);
            }
        }
    }
    v.prepare(out, runs * run);
}

/// A row's block, `N` values at a time, to its places among those of a tile: [`Dot::TOGETHER`].
#[inline(always)]
fn deal<const N: usize>(values: &[i8; BLOCK], tile: &mut [[i8; BLOCK]], row: usize) {
    let (values, rows) = (values.as_chunks::<N>().0, tile.len());
    let places = tile.as_flattened_mut().as_chunks_mut::<N>().0;
    for i in 0..values.len() {
        places[row + i * rows] = values[i];
    }
}

/// A row of which fewer than this many of a hundred steps can be left out has all of them taken: looking costs more.
const WORTH_LEAVING_OUT: usize = 30;

/// Finds the steps of a single row whose values are all zero.
#[inline(always)]
fn find_zeros_in<V: Dot>(_v: V, a: &mut Activations) {
    if !V::TAKES_STEPS {
        return;
    }
    let Activations { values, steps, .. } = a;
    let mut taken = 0;
    for block in 0..values.len() {
        let fours = values[block].as_chunks::<4>().0;
        let mut bits = 0u8;
        for step in 0..STEPS {
            let [a, b, c, d] = fours[step];
            bits |= u8::from(a | b | c | d != 0) << step;
        }
        steps.push(bits);
        taken += bits.count_ones() as usize;
    }
    let all = STEPS * values.len();
    if 100 * (all - taken) < WORTH_LEAVING_OUT * all {
        steps.clear();
    }
}

dispatch!(pub(super) fn find_zeros(a: &mut Activations) = find_zeros_in);

/// Returns the start.
#[inline(always)]
fn quantize_block<V: Dot>(v: V, x: &[f32; BLOCK], inverse: f32, start: Start, values: &mut [i8; BLOCK]) -> i32 {
    let x = x.as_chunks::<LANES>().0;
    let (low, high) = (v.load(&x[0]), v.load(&x[1]));
    // The low byte is the value.
    let (inverse, rounding) = (v.splat(inverse), v.splat(ROUNDING));
    let low = v.bits(v.add(v.mul(low, inverse), rounding));
    let high = v.bits(v.add(v.mul(high, inverse), rounding));
    let halves = values.as_chunks_mut::<LANES>().0;
    v.store_i8(low, &mut halves[0]);
    v.store_i8(high, &mut halves[1]);
    match start {
        Start::Int8 if v.flip() == 0 => 0,
        Start::Int8 => sum(v, low, high).wrapping_mul(-128),
        Start::Nibbles => sum(v, low, high).wrapping_mul(-8),
        Start::Sum => sum(v, low, high),
    }
}

/// The sum of rounded values, to each of which [`ROUNDING`] is still added.
#[inline(always)]
fn sum<V: Dot>(v: V, low: V::I, high: V::I) -> i32 {
    v.sum_i32(v.add_i32(low, high)).wrapping_sub((ROUNDING.to_bits() as i32).wrapping_mul(BLOCK as i32))
}

dispatch!(pub(super) fn quantize(x: &[f32], k: usize, run: usize, start: Start, out: &mut Activations) = quantize_in);
