//! The largest of many products by upper bounds that cost less: only those whose bound reaches the best so far are
//! computed exactly, so the result is the same as if all had been.

use std::sync::atomic::{AtomicU32, Ordering};

use super::rows::{argmax_in, max_in};
use super::simd::{LANES, Simd};

/// Exact products, in groups of 16.
pub(crate) trait Groups {
    fn products<V: Simd>(&self, v: V, group: usize, out: &mut [f32; LANES]);
}

/// How well the bounds of a matrix have done.
#[derive(Default)]
pub(crate) struct Usefulness {
    /// Times that too little was ruled out, less those that enough was.
    loose: AtomicU32,
}

/// Groups of a hundred that may be multiplied exactly before bounds have cost more than they save.
const LOOSE: usize = 35;

/// So many times more too loose than not, and bounds are not tried again.
const TIMES: u32 = 8;

impl Usefulness {
    /// Whether bounds are worth computing.
    pub(crate) fn expected(&self) -> bool {
        self.loose.load(Ordering::Relaxed) < TIMES
    }

    fn note(&self, met: usize, groups: usize) {
        // Other threads may count at the same time: the result is the same whatever they do.
        let loose = self.loose.load(Ordering::Relaxed);
        let too_loose = 100 * met > LOOSE * groups;
        self.loose.store(if too_loose { loose + 1 } else { loose.saturating_sub(1) }, Ordering::Relaxed);
    }
}

/// The index of the largest product, the lowest one on ties. `bounds` are those of all products; products that must not
/// be chosen have -infinity there.
#[inline(always)]
pub(crate) fn largest_in<V: Simd, G: Groups>(
    v: V,
    groups: &G,
    usefulness: &Usefulness,
    bounds: &[f32],
) -> Option<usize> {
    let mut best = Best { value: f32::NEG_INFINITY, index: None };
    let likely = argmax_in(v, bounds)? / LANES;
    best.meet(v, groups, likely, bounds);
    let mut met = 1;
    // Most stretches of the bounds hold none that reaches the best.
    const STRETCH: usize = 16;
    for (i, stretch) in bounds.chunks(STRETCH * LANES).enumerate() {
        if max_in(v, stretch) < best.value {
            continue;
        }
        for (group, of_group) in (i * STRETCH..).zip(stretch.chunks(LANES)) {
            if group != likely && of_group.iter().any(|&bound| bound >= best.value) {
                best.meet(v, groups, group, bounds);
                met += 1;
            }
        }
    }
    usefulness.note(met, bounds.len().div_ceil(LANES));
    best.index
}

struct Best {
    value: f32,
    index: Option<usize>,
}

impl Best {
    #[inline(always)]
    fn meet<V: Simd, G: Groups>(&mut self, v: V, groups: &G, group: usize, bounds: &[f32]) {
        let mut products = [0.0; LANES];
        groups.products(v, group, &mut products);
        for (index, (&bound, &product)) in (group * LANES..).zip(bounds[group * LANES..].iter().zip(&products)) {
            let first = self.index.is_some_and(|best| index < best);
            if bound > f32::NEG_INFINITY && (product > self.value || (product == self.value && first)) {
                *self = Best { value: product, index: Some(index) };
            }
        }
    }
}
