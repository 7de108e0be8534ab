//! A head of floats and its int8 copy, by which greedy search rules out nearly all rows: it reads the copy, a half or a
//! quarter of the bytes, and few rows of the floats.
//!
//! ```text
//! x · w = (x f) · (w / f)          f a power of two for each column, so that both are balanced and nothing is rounded
//! x f = x' + r, w / f = w' + e     x' and w' in int8, blocks of 32
//! x · w = x' · w' + x' · e + r · (w / f) <= x' · w' + |x'| |e| + |r| |w / f|
//! ```

use super::{Groups, Usefulness, largest_in, length};
use crate::error::Result;
use crate::kernels::activations::Activations;
use crate::kernels::columns::Columns;
use crate::kernels::dot::Dot;
use crate::kernels::isa::dispatch;
use crate::kernels::layout::BLOCK;
use crate::kernels::memory::Table;
use crate::kernels::pack::floats::{Element, Pair};
use crate::kernels::pack::q8::Q8;
use crate::kernels::product::run_tile;
use crate::kernels::rounding::{ROUNDING, magnitudes};
use crate::kernels::simd::{BF16, F16, LANES};

/// The int8 copy of `[n, k]` weights.
pub(crate) struct Int8Copy {
    weights: Q8,
    /// |e| and |w / f| of each row, larger by what sums are rounded, `[groups, 16]`.
    errors: Table<[f32; LANES]>,
    norms: Table<[f32; LANES]>,
    /// f of each column, `[k]`.
    factors: Vec<f32>,
    usefulness: Usefulness,
}

impl Int8Copy {
    /// Whether bounds are worth computing.
    pub(crate) fn bounded(&self) -> bool {
        self.usefulness.expected()
    }

    /// `out = x f`
    pub(crate) fn balance(&self, x: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.extend(x.iter().zip(&self.factors).map(|(x, factor)| x * factor));
    }

    /// Bytes that the bounds of a single row read.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + size_of_val(&self.errors[..]) + size_of_val(&self.norms[..])
    }
}

/// A group of weights as f32, `[k]`, written into what is given.
pub(crate) type Widened<'a> = dyn Fn(usize, &mut [[f32; LANES]]) + 'a;

/// Copies `n` rows of `k` values, whole blocks. Whatever the weights' type, this is compiled once: it is long, and each
/// browser downloads it.
///
/// # Errors
/// [`crate::Error::Memory`] where there is not enough.
#[inline(always)]
fn copy_in<V: Dot>(v: V, widened: &Widened<'_>, n: usize, k: usize) -> Result<Int8Copy> {
    let groups = n.div_ceil(LANES);
    let mut wide = vec![[0.0; LANES]; k];
    let mut copy = Int8Copy {
        weights: Q8::zeroed(n, k)?,
        errors: Table::zeroed(groups)?,
        norms: Table::zeroed(groups)?,
        factors: factors(v, widened, n, &mut wide),
        usefulness: Usefulness::default(),
    };
    let blocks = k / BLOCK;
    let mut values = [v.splat(0.0); BLOCK];
    let inverse_factors: Vec<f32> = copy.factors.iter().map(|factor| 1.0 / factor).collect();
    for group in 0..groups {
        widened(group, &mut wide);
        let (mut error, mut norm) = (v.splat(0.0), v.splat(0.0));
        // Rows that int8 cannot hold.
        let mut unbounded = [false; LANES];
        for block in 0..blocks {
            let columns = block * BLOCK..(block + 1) * BLOCK;
            let mut largest = v.splat_i32(0);
            let (wide, inverse_factors) = (&wide[columns.clone()], &inverse_factors[columns]);
            for j in 0..BLOCK {
                values[j] = v.mul(v.load(&wide[j]), v.splat(inverse_factors[j]));
                largest = v.max_i32(largest, magnitudes(v, values[j]));
            }
            let at = group * blocks + block;
            let (mut exact, mut inverses) = ([0.0; LANES], [0.0; LANES]);
            v.store(v.mul(v.of_bits(largest), v.splat(1.0 / 127.0)), &mut exact);
            for lane in 0..LANES {
                let scale = half::f16::from_f32(exact[lane]);
                if scale.is_finite() {
                    copy.weights.scales[at][lane] = F16(scale.to_bits());
                } else {
                    unbounded[lane] = true;
                }
                // Blocks of next to nothing become zeros.
                if scale.is_normal() {
                    inverses[lane] = 1.0 / scale.to_f32();
                }
            }
            let (scale, inverse) = (v.load_f16(&copy.weights.scales[at]), v.load(&inverses));
            let rounding = v.splat(ROUNDING);
            let mut bytes = [[0; LANES]; BLOCK];
            for j in 0..BLOCK {
                let value = values[j];
                let shifted = v.add(v.mul(value, inverse), rounding);
                // Half a step of the scale's own rounding may lead beyond 127.
                let rounded = v.max(v.splat(-127.0), v.sub(shifted, rounding));
                let rounded = v.select_less(v.splat(127.0), rounded, v.splat(127.0), rounded);
                let left = v.sub(value, v.mul(rounded, scale));
                error = v.add(error, v.mul(left, left));
                norm = v.add(norm, v.mul(value, value));
                v.store_i8(v.bits(v.add(rounded, rounding)), &mut bytes[j]);
            }
            copy.weights.set_block(v, at, &bytes);
        }
        let (mut errors, mut norms) = ([0.0; LANES], [0.0; LANES]);
        v.store(error, &mut errors);
        v.store(norm, &mut norms);
        for lane in 0..LANES {
            let (error, norm) = (f64::from(errors[lane]).sqrt(), f64::from(norms[lane]).sqrt());
            // The exact product is rounded at each of its k products and sums, the coarse one three times in each
            // block, and so are these sums of squares: relative to sums of at most |x| |w| and |x'| |w'|. Squares of
            // values under 2e-19 may have vanished.
            let rounding = 2.0 * (4 * k + 3 * blocks + 8) as f64 * f64::from(f32::EPSILON) * (norm + error);
            let rounding = rounding + k as f64 * 2e-19;
            (copy.errors[group][lane], copy.norms[group][lane]) = match unbounded[lane] {
                true => (f32::INFINITY, 0.0),
                false => [error, norm].map(|length| ((length + rounding) * 1.000_01) as f32).into(),
            };
        }
    }
    Ok(copy)
}

/// The power of two next to the root of each column's mean square, of `n` rows.
#[inline(always)]
fn factors<V: Dot>(v: V, widened: &Widened<'_>, n: usize, wide: &mut [[f32; LANES]]) -> Vec<f32> {
    let k = wide.len();
    let mut sums = vec![[0.0; LANES]; k];
    for group in 0..n.div_ceil(LANES) {
        widened(group, wide);
        for j in 0..k {
            let value = v.load(&wide[j]);
            v.store(v.add(v.load(&sums[j]), v.mul(value, value)), &mut sums[j]);
        }
    }
    let mut factors = Vec::with_capacity(k);
    for sum in &sums {
        let mean = v.sum(v.load(sum)) / n as f32;
        // Only the exponent is kept.
        let power = f32::from_bits(mean.sqrt().to_bits() & 0x7f80_0000);
        factors.push(if (1e-18..1e18).contains(&power) { power } else { 1.0 });
    }
    factors
}

/// A [`Widened`] of weights of any type.
#[inline(always)]
fn widen_in<V: Dot, E: Element>(v: V, w: &[Pair<E>], group: usize, out: &mut [[f32; LANES]]) {
    let panel = &w[group / 2 * out.len()..(group / 2 + 1) * out.len()];
    for j in 0..out.len() {
        v.store(E::load(v, &panel[j].0[group % 2]), &mut out[j]);
    }
}

/// The lengths of one row's int8 form and of what that leaves of it, rounded up; none where they make no bounds.
pub(crate) fn lengths(x: &[f32], a: &Activations) -> Option<[f32; 2]> {
    let mut rest = 0.0;
    for ((x, values), &scale) in x.chunks(BLOCK).zip(&a.values).zip(&a.scales) {
        for (&x, &value) in x.iter().zip(values) {
            rest += (f64::from(x) - f64::from(scale) * f64::from(value)).powi(2);
        }
    }
    let lengths = [length(a), (rest.sqrt() * 1.000_001) as f32];
    // Products of next to nothing are rounded to multiples of the least number, which no bound accounts for.
    (lengths[0] > 1e-10 && lengths.iter().all(|length| length.is_finite())).then_some(lengths)
}

/// Upper bounds of the products of one row of these [`lengths`], whose activations start as int8 weights want.
#[inline(always)]
fn bounds_in<V: Dot>(v: V, w: &Int8Copy, a: &Activations, lengths: [f32; 2], y: &mut Columns<'_>) {
    let blocks = a.scales.len();
    for group in y.groups() {
        let range = group * blocks..(group + 1) * blocks;
        let (weights, scales) = (&w.weights.weights[range.clone()], &w.weights.scales[range]);
        let mut coarse = [0.0; LANES];
        let mut columns = Columns::new(&mut coarse, LANES);
        run_tile::<V, 1, 1, false>(v, [(weights, scales)], 1, (&[], &[]), a, (0, 0), &mut columns);
        let error = v.mul(v.load(&w.errors[group]), v.splat(lengths[0]));
        let rest = v.mul(v.load(&w.norms[group]), v.splat(lengths[1]));
        y.store(v, v.add(v.load(&coarse), v.add(error, rest)), 0, group * LANES);
    }
}

/// Weights and a row of `k` values that they meet.
struct ExactFloats<'a, E>(&'a [Pair<E>], &'a [f32]);

impl<E: Element> Groups for ExactFloats<'_, E> {
    /// The operations of the full product.
    #[inline(always)]
    fn products<V: Dot>(&self, v: V, group: usize, out: &mut [f32; LANES]) {
        let &ExactFloats(w, x) = self;
        let panel = &w[group / 2 * x.len()..(group / 2 + 1) * x.len()];
        let mut sums = v.splat(0.0);
        for j in 0..x.len() {
            sums = v.add(sums, v.mul(v.splat(x[j]), E::load(v, &panel[j].0[group % 2])));
        }
        v.store(sums, out);
    }
}

/// The index of the largest product of `x`, the lowest one on ties.
#[inline(always)]
fn largest_of<V: Dot, E: Element>(v: V, copy: &Int8Copy, w: &[Pair<E>], x: &[f32], bounds: &[f32]) -> Option<usize> {
    largest_in(v, &ExactFloats(w, x), &copy.usefulness, bounds)
}

dispatch!(
    pub(crate) fn bounds(w: &Int8Copy, a: &Activations, lengths: [f32; 2], y: &mut Columns<'_>) = bounds_in
);
dispatch!(
    pub(crate) fn largest_f32(
        copy: &Int8Copy,
        w: &[Pair<f32>],
        x: &[f32],
        bounds: &[f32]
    ) -> Option<usize> = largest_of
);
dispatch!(
    pub(crate) fn largest_f16(
        copy: &Int8Copy,
        w: &[Pair<F16>],
        x: &[f32],
        bounds: &[f32]
    ) -> Option<usize> = largest_of
);
dispatch!(
    pub(crate) fn largest_bf16(
        copy: &Int8Copy,
        w: &[Pair<BF16>],
        x: &[f32],
        bounds: &[f32]
    ) -> Option<usize> = largest_of
);
dispatch!(pub(crate) fn copy(widened: &Widened<'_>, n: usize, k: usize) -> Result<Int8Copy> = copy_in);
dispatch!(pub(crate) fn widen_f32(w: &[Pair<f32>], group: usize, out: &mut [[f32; LANES]]) = widen_in);
dispatch!(pub(crate) fn widen_f16(w: &[Pair<F16>], group: usize, out: &mut [[f32; LANES]]) = widen_in);
dispatch!(pub(crate) fn widen_bf16(w: &[Pair<BF16>], group: usize, out: &mut [[f32; LANES]]) = widen_in);
