//! Encoding of Q4_K: a search for the scales and minima that lose least.
//!
//! A sub-block of 32 values is stored as x ≈ s q - m with q in 0..=15, s ≥ 0 and m ≥ 0, and s and m as six-bit
//! multiples of the super-block's d and dmin. The squared error of a value weighs as much as the sub-block's root mean
//! square plus the value's magnitude: large weights matter more for products than their number says.
//!
//! 1. For each sub-block, each of a grid of spans around its range gives quants, and weighted least squares the s and m
//!    that suit those quants best; from the best of them, quants and scales are improved in turn.
//! 2. d and dmin are chosen so that the largest s and m become 63; s and m are rounded as a pair, trying neighbours.
//! 3. d and dmin are fitted to the rounded scales and quants by least squares over the super-block, and step 2's
//!    rounding is done again, as long as the error falls.

use super::k_quants::pack_scales;
use super::put_half;

/// Quants of a sub-block, as numbers.
type Quants = [f32; 32];

const MAX_QUANT: f32 = 15.0;
const MAX_SCALE: f32 = 63.0;

/// How many spans are tried.
const GRID: usize = 11;

/// Refinements at most; most stop after one or two.
const ROUNDS: usize = 4;

/// No d or dmin can hold more (65504 × 63 × 15); sums of smaller ones stay finite.
const LARGEST: f32 = 1e9;

/// Encodes a super-block; false where d or dmin is no half-precision number.
pub(super) fn encode(values: &[f32; 256], block: &mut [u8; 144]) -> bool {
    if values.iter().any(|x| x.abs() > LARGEST) {
        return false;
    }
    let subs = values.as_chunks::<32>().0;
    let mut weights = [[0f32; 32]; 8];
    let (mut scales, mut mins) = ([0f32; 8], [0f32; 8]);
    for (j, x) in subs.iter().enumerate() {
        let root = (x.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
        weights[j] = x.map(|x| root + x.abs());
        (scales[j], mins[j]) = search(x, &weights[j]);
    }
    let d = largest(&scales) / MAX_SCALE;
    let dmin = largest(&mins) / MAX_SCALE;
    let Some(mut best) = SuperBlock::new(subs, &weights, &scales, &mins, d, dmin) else { return false };
    for _ in 0..ROUNDS {
        let (d, dmin) = best.fit(subs, &weights);
        let Some(next) = SuperBlock::new(subs, &weights, &scales, &mins, d, dmin) else { break };
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best.store(block);
    true
}

/// The largest of numbers that are not negative. Zeros of either sign give 0.0: which of them `f32::max` returns
/// depends on the compiler, and d and dmin are stored with their sign.
fn largest(numbers: &[f32; 8]) -> f32 {
    numbers.iter().fold(0.0, |max, &x| if x > max { x } else { max })
}

/// The s and m for 32 values with the least weighted squared error that the grid finds.
fn search(x: &[f32; 32], weights: &[f32; 32]) -> (f32, f32) {
    let min = x.iter().copied().fold(0f32, f32::min);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = max - min;
    if range <= 0.0 {
        // All equal and not positive: the minimum alone stores them.
        return (0.0, 0.0 - min);
    }
    let mut best = (f32::INFINITY, 0.0, 0.0);
    // How many quants the range spans: fewer than 15 waste resolution, more clip the ends; either can pay.
    for step in 0..GRID {
        let span = MAX_QUANT - 1.0 + 0.2 * step as f32;
        let q = quants(x, range / span, -min);
        let (scale, minimum) = least_squares(x, weights, &q);
        let error = error(x, weights, &q, scale, minimum);
        if error < best.0 {
            best = (error, scale, minimum);
        }
    }
    // Quants and scale in turn from the best of the grid, as long as it helps.
    let (mut scale, mut minimum) = (best.1, best.2);
    for _ in 0..ROUNDS {
        let q = quants(x, scale, minimum);
        (scale, minimum) = least_squares(x, weights, &q);
        let error = error(x, weights, &q, scale, minimum);
        if error >= best.0 {
            break;
        }
        best = (error, scale, minimum);
    }
    (best.1, best.2)
}

/// The quants nearest to `x` for a scale and minimum.
fn quants(x: &[f32; 32], scale: f32, minimum: f32) -> Quants {
    let inverse = 1.0 / scale;
    if !inverse.is_finite() {
        return [0.0; 32];
    }
    // Adding and taking away 1.5 × 2^23 leaves a small number rounded: no call of a function for each.
    x.map(|x| ((x + minimum) * inverse).clamp(0.0, MAX_QUANT) + 12_582_912.0 - 12_582_912.0)
}

/// The scale and minimum, none negative, with the least weighted squared error for given quants.
fn least_squares(x: &[f32; 32], weights: &[f32; 32], q: &Quants) -> (f32, f32) {
    let wq = product(weights, q);
    let (sum_w, sum_wq, sum_wqq) = (sum(weights), sum(&wq), sum(&product(&wq, q)));
    let (sum_wx, sum_wqx) = (sum(&product(weights, x)), sum(&product(&wq, x)));
    let determinant = sum_w * sum_wqq - sum_wq * sum_wq;
    if determinant > 0.0 {
        let scale = (sum_w * sum_wqx - sum_wq * sum_wx) / determinant;
        let minimum = (sum_wq * sum_wqx - sum_wqq * sum_wx) / determinant;
        if scale >= 0.0 && minimum >= 0.0 {
            return (scale, minimum);
        }
    }
    // On the border: no minimum.
    (if sum_wqq > 0.0 { (sum_wqx / sum_wqq).max(0.0) } else { 0.0 }, 0.0)
}

/// The weighted squared error of a sub-block.
fn error(x: &[f32; 32], weights: &[f32; 32], q: &Quants, scale: f32, minimum: f32) -> f32 {
    let mut errors = [0f32; 32];
    for (i, error) in errors.iter_mut().enumerate() {
        let difference = scale * q[i] - minimum - x[i];
        *error = weights[i] * difference * difference;
    }
    sum(&errors)
}

fn product(x: &[f32; 32], y: &[f32; 32]) -> [f32; 32] {
    std::array::from_fn(|i| x[i] * y[i])
}

/// The sum in a fixed order that suits vectors of any width.
fn sum(x: &[f32; 32]) -> f32 {
    let mut x = *x;
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            x[i] += x[i + width];
        }
        width /= 2;
    }
    x[0]
}

/// A pair of six-bit numbers and the pairs around it.
fn neighbours(scale: f32, min: f32) -> impl Iterator<Item = (f32, f32)> {
    const STEPS: [f32; 3] = [0.0, -1.0, 1.0];
    let bounded = |value: f32| value.clamp(0.0, MAX_SCALE);
    STEPS.into_iter().flat_map(move |i| STEPS.into_iter().map(move |j| (bounded(scale + i), bounded(min + j))))
}

/// A super-block as it would be stored.
struct SuperBlock {
    d: f32,
    dmin: f32,
    scales: [u8; 8],
    mins: [u8; 8],
    quants: [Quants; 8],
    error: f32,
}

impl SuperBlock {
    /// Rounds d and dmin to half precision, scales and minima to multiples of them, and chooses quants.
    /// `None` where d or dmin becomes infinite.
    fn new(
        subs: &[[f32; 32]],
        weights: &[[f32; 32]; 8],
        scales: &[f32; 8],
        mins: &[f32; 8],
        d: f32,
        dmin: f32,
    ) -> Option<SuperBlock> {
        let half = |value: f32| put_half(&mut [0; 2], 0, value);
        let (d, dmin) = (half(d)?, half(dmin)?);
        let multiple = |value: f32, of: f32| if of > 0.0 { (value / of).round().min(MAX_SCALE) } else { 0.0 };
        let mut candidate = SuperBlock { d, dmin, scales: [0; 8], mins: [0; 8], quants: [[0.0; 32]; 8], error: 0.0 };
        for (j, x) in subs.iter().enumerate() {
            let (scale, min) = (multiple(scales[j], d), multiple(mins[j], dmin));
            // Rounding one up may go best with rounding the other down.
            let mut best = f32::INFINITY;
            for (scale, min) in neighbours(scale, min) {
                let q = quants(x, d * scale, dmin * min);
                let error = error(x, &weights[j], &q, d * scale, dmin * min);
                if error < best {
                    best = error;
                    candidate.quants[j] = q;
                    (candidate.scales[j], candidate.mins[j]) = (scale as u8, min as u8);
                }
            }
            candidate.error += best;
        }
        Some(candidate)
    }

    /// The d and dmin with the least weighted squared error for these scales, minima and quants.
    fn fit(&self, subs: &[[f32; 32]], weights: &[[f32; 32]; 8]) -> (f32, f32) {
        // x ≈ d a - dmin b with a = scale q and b = minimum.
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0f32, 0f32, 0f32, 0f32, 0f32);
        for (j, x) in subs.iter().enumerate() {
            let (scale, b) = (f32::from(self.scales[j]), f32::from(self.mins[j]));
            let wq = product(&weights[j], &self.quants[j]);
            aa += scale * scale * sum(&product(&wq, &self.quants[j]));
            ab += scale * b * sum(&wq);
            bb += b * b * sum(&weights[j]);
            ax += scale * sum(&product(&wq, x));
            bx += b * sum(&product(&weights[j], x));
        }
        let determinant = aa * bb - ab * ab;
        if determinant > 0.0 {
            let d = (ax * bb - ab * bx) / determinant;
            let dmin = (ab * ax - aa * bx) / determinant;
            if d > 0.0 && dmin >= 0.0 {
                return (d, dmin);
            }
        }
        (self.d, self.dmin)
    }

    fn store(&self, block: &mut [u8; 144]) {
        put_half(block, 0, self.d);
        put_half(block, 2, self.dmin);
        block[4..16].copy_from_slice(&pack_scales(&self.scales, &self.mins));
        for (bytes, pair) in block[16..].as_chunks_mut::<32>().0.iter_mut().zip(self.quants.as_chunks::<2>().0) {
            for ((byte, &low), &high) in bytes.iter_mut().zip(&pair[0]).zip(&pair[1]) {
                *byte = low as u8 | (high as u8) << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same values give the same bytes whatever compiler made the program, so no sign is left to chance.
    #[test]
    fn zeros_have_no_sign() {
        for signs in 0..256u32 {
            let zeros = std::array::from_fn(|i| if signs >> i & 1 == 1 { -0.0 } else { 0.0 });
            assert!(largest(&std::hint::black_box(zeros)).is_sign_positive(), "{zeros:?}");
            let values: [f32; 256] = std::array::from_fn(|i| zeros[i % 8]);
            let (scale, minimum) = search(&std::array::from_fn(|i| values[i]), &[1.0; 32]);
            assert!(scale.is_sign_positive() && minimum.is_sign_positive(), "{scale} {minimum}");
            let mut block = [0xff; 144];
            assert!(encode(&std::hint::black_box(values), &mut block));
            assert_eq!(block, [0; 144]);
        }
    }
}
