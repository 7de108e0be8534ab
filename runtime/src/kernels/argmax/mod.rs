//! The largest of many products. Upper bounds cost less than products, and only products whose bound reaches the best
//! so far are computed; the result is the same as if all were.

pub(crate) mod int8_copy;
pub(crate) mod planes;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernels::activations::Activations;
use crate::kernels::dot::Dot;
use crate::kernels::rows::{argmax_in, max_in};
use crate::kernels::simd::LANES;

/// Exact products, in groups of 16.
pub(crate) trait Groups {
    fn products<V: Dot>(&self, v: V, group: usize, out: &mut [f32; LANES]);
}

/// How well the bounds of a matrix have done.
#[derive(Default)]
pub(crate) struct Usefulness {
    /// How often the bounds were too loose, minus how often they were tight; never below 0.
    loose: AtomicU32,
}

/// Bounds are too loose where more than this many of a hundred groups had to be multiplied exactly: they then cost more
/// than they save.
const TOO_LOOSE: usize = 35;

/// Bounds are given up once they were too loose this many times more often than tight.
const GIVEN_UP: u32 = 8;

impl Usefulness {
    /// Whether bounds are worth computing.
    pub(crate) fn expected(&self) -> bool {
        self.loose.load(Ordering::Relaxed) < GIVEN_UP
    }

    fn note(&self, met: usize, groups: usize) {
        // If another thread counts at the same time, one of the counts is lost: that changes speed, never results.
        let loose = self.loose.load(Ordering::Relaxed);
        let too_loose = 100 * met > TOO_LOOSE * groups;
        self.loose.store(if too_loose { loose + 1 } else { loose.saturating_sub(1) }, Ordering::Relaxed);
    }
}

/// The index of the largest product, the lowest one on ties. `bounds` holds an upper bound of every product, and
/// -infinity for those that must not be chosen.
#[inline(always)]
pub(crate) fn largest_in<V: Dot, G: Groups>(
    v: V,
    groups: &G,
    usefulness: &Usefulness,
    bounds: &[f32],
) -> Option<usize> {
    let mut best = Largest { value: f32::NEG_INFINITY, index: None };
    let likely = argmax_in(v, bounds)? / LANES;
    best.meet(v, groups, likely, bounds);
    let mut met = 1;
    // In most stretches no bound reaches the best product so far.
    const STRETCH: usize = 16;
    for (i, stretch) in bounds.chunks(STRETCH * LANES).enumerate() {
        if max_in(v, stretch) < best.value {
            continue;
        }
        for group in i * STRETCH..(i * STRETCH + stretch.len().div_ceil(LANES)) {
            let of_group = &bounds[group * LANES..bounds.len().min((group + 1) * LANES)];
            let mut reached = false;
            for lane in 0..of_group.len() {
                reached |= of_group[lane] >= best.value;
            }
            if group != likely && reached {
                best.meet(v, groups, group, bounds);
                met += 1;
            }
        }
    }
    usefulness.note(met, bounds.len().div_ceil(LANES));
    best.index
}

struct Largest {
    value: f32,
    index: Option<usize>,
}

impl Largest {
    #[inline(always)]
    fn meet<V: Dot, G: Groups>(&mut self, v: V, groups: &G, group: usize, bounds: &[f32]) {
        let mut products = [0.0; LANES];
        groups.products(v, group, &mut products);
        let bounds = &bounds[group * LANES..];
        for lane in 0..LANES.min(bounds.len()) {
            let (index, bound, product) = (group * LANES + lane, bounds[lane], products[lane]);
            let first = self.index.is_some_and(|best| index < best);
            if bound > f32::NEG_INFINITY && (product > self.value || (product == self.value && first)) {
                *self = Largest { value: product, index: Some(index) };
            }
        }
    }
}

/// |x| of one row of quantised activations, rounded up.
pub(crate) fn length(a: &Activations) -> f32 {
    let mut sum = 0.0;
    for (values, &scale) in a.values.iter().zip(&a.scales) {
        let squares: i32 = values.iter().map(|&value| i32::from(value).pow(2)).sum();
        sum += f64::from(scale).powi(2) * f64::from(squares);
    }
    (sum.sqrt() * 1.000_001) as f32
}
