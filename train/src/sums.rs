//! How the gradients of an update's batches are added up.
//!
//! A sum of floats depends on the order of its additions, and with it on how many processes share the work. A sum of
//! integers does not: each value becomes a multiple of 2^-44 in 64 bits, so that an update is the same, to the last
//! bit, for any number of ranks. That step is the last bit of a float of 2^-21; smaller ones lose bits of their own,
//! as they would beside larger ones.

use std::ops::Range;
use std::sync::MutexGuard;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::kernels::vectorised;
use crate::model::Model;
use crate::ranks::Ranks;

/// The arithmetic of the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sum {
    /// Fixed point in 64 bits: the same for any number of ranks.
    #[default]
    Exact,
    /// f32, in the order of the batches of a rank and then in the order of MPI: half the bytes.
    Float,
}

/// Bits behind the point.
const FRACTION: u32 = 44;

/// What a sum of exact gradients has to be smaller than.
pub const LIMIT: f64 = (1u64 << (63 - FRACTION)) as f64;

/// Values that ranks exchange at a time, which bounds the copies beside the gradients: 8 MB and 8 MB.
const BUCKET: usize = 1 << 20;

/// Values of a piece that one thread converts.
const PIECE: usize = 1 << 16;

/// A float, of a size below [`LIMIT`], in units of 2^-44; halves are rounded away from zero. Of larger floats, and of
/// those that are no numbers, nothing is promised: [`GradientSum::add`] finds them.
#[inline(always)]
fn fixed(value: f32) -> i64 {
    let bits = value.to_bits();
    // value = mantissa * 2^(exponent - 150). A subnormal's first bit is not there, but it is far below 2^-44 anyway.
    let mantissa = u64::from(bits & 0x7f_ffff | 0x80_0000);
    let shift = (bits >> 23 & 0xff) as i32 - (150 - FRACTION as i32);
    let (left, right) = (shift.clamp(0, 39) as u64, (-shift).clamp(0, 40) as u64);
    let size = ((mantissa << left) + ((1 << right) >> 1)) >> right;
    let sign = i64::from(bits as i32 >> 31);
    (size as i64 ^ sign) - sign
}

/// The float nearest to a sum, but for a second rounding of those over 2^53 units.
#[inline(always)]
fn float(sum: i64) -> f32 {
    (sum as f64 * (1.0 / (1u64 << FRACTION) as f64)) as f32
}

/// The bits of the largest size among values, which have the order of the sizes; those of NaN are the largest.
fn largest(values: &[f32]) -> u32 {
    vectorised(|| values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)))
}

/// The sum of an update's gradients.
pub struct GradientSum {
    sum: Sum,
    /// Of each trained tensor, in units of 2^-44, where this process adds more than one batch.
    sums: Vec<Vec<i64>>,
}

impl GradientSum {
    /// No sum yet.
    pub fn new(sum: Sum) -> GradientSum {
        GradientSum { sum, sums: Vec::new() }
    }

    /// Takes in the gradients of one batch, which come from [`Model::backward`]; `only` says that this process has no
    /// other batch in the update. Gives the largest size among them (NaN if one is none), whose sum over all batches
    /// bounds every partial sum, whoever adds what; 0 where sums are floats.
    pub fn add(&mut self, model: &Model, only: bool) -> f32 {
        if self.sum == Sum::Float {
            return 0.0;
        }
        let trained = model.trained();
        let mut gradients: Vec<MutexGuard<Vec<f32>>> = trained.iter().map(|trained| trained.gradient()).collect();
        let size = if only {
            let of = |gradient: &MutexGuard<Vec<f32>>| gradient.par_chunks(PIECE).map(largest).max();
            gradients.iter().filter_map(of).max()
        } else {
            self.sums.resize_with(gradients.len(), Vec::new);
            let pairs = self.sums.iter_mut().zip(&mut gradients);
            pairs
                .filter_map(|(sums, gradient)| {
                    sums.resize(gradient.len(), 0);
                    let pieces = sums.par_chunks_mut(PIECE).zip(gradient.par_chunks_mut(PIECE));
                    pieces.map(|(sums, gradient)| take(sums, gradient)).max()
                })
                .max()
        };
        f32::from_bits(size.unwrap_or(0))
    }

    /// Puts the sum over all batches of all ranks where the optimiser looks for gradients. Gives the bytes that this
    /// rank handed in.
    ///
    /// The largest sizes that [`GradientSum::add`] gave must add up to less than [`LIMIT`].
    pub fn finish(&mut self, model: &Model, ranks: Ranks) -> u64 {
        let trained = model.trained();
        let mut gradients: Vec<MutexGuard<Vec<f32>>> = trained.iter().map(|trained| trained.gradient()).collect();
        let mut gradients: Vec<&mut [f32]> = gradients.iter_mut().map(|gradient| gradient.as_mut_slice()).collect();
        let values: usize = gradients.iter().map(|gradient| gradient.len()).sum();
        match (self.sum, ranks.size()) {
            (Sum::Float, 1) => 0,
            (Sum::Float, _) => {
                exchange(&mut gradients, |_, _, gradient, own| own.copy_from_slice(gradient), |sum| sum, ranks);
                4 * values as u64
            }
            (Sum::Exact, 1) => {
                for (index, gradient) in gradients.iter_mut().enumerate() {
                    match self.sums.get_mut(index) {
                        Some(sums) => {
                            let pieces = sums.par_chunks_mut(PIECE).zip(gradient.par_chunks_mut(PIECE));
                            pieces.for_each(|(sums, gradient)| give(sums, gradient));
                        }
                        None => gradient.par_chunks_mut(PIECE).for_each(round),
                    }
                }
                0
            }
            (Sum::Exact, _) => {
                let sums = &self.sums;
                let fill = |index: usize, range: Range<usize>, gradient: &[f32], own: &mut [i64]| match sums.get(index)
                {
                    Some(sums) => own.copy_from_slice(&sums[range]),
                    None => vectorised(|| own.iter_mut().zip(gradient).for_each(|(own, value)| *own = fixed(*value))),
                };
                exchange(&mut gradients, fill, float, ranks);
                self.sums.iter_mut().for_each(|sums| sums.fill(0));
                8 * values as u64
            }
        }
    }

    /// Bytes of the sums of a model with so many trained values, where a process adds `batches` in an update.
    pub fn bytes(sum: Sum, values: usize, batches: usize) -> usize {
        if sum == Sum::Exact && batches > 1 { 8 * values } else { 0 }
    }
}

/// Adds gradients, which are zero afterwards, and gives [`largest`].
fn take(sums: &mut [i64], gradient: &mut [f32]) -> u32 {
    let size = largest(gradient);
    vectorised(|| {
        for (sum, value) in sums.iter_mut().zip(gradient) {
            // What is out of range wraps, and the update is refused.
            *sum = sum.wrapping_add(fixed(*value));
            *value = 0.0;
        }
    });
    size
}

/// Gives sums, which are zero afterwards.
fn give(sums: &mut [i64], gradient: &mut [f32]) {
    vectorised(|| {
        for (sum, value) in sums.iter_mut().zip(gradient) {
            *value = float(*sum);
            *sum = 0;
        }
    });
}

/// The sum of one batch.
fn round(gradient: &mut [f32]) {
    vectorised(|| gradient.iter_mut().for_each(|value| *value = float(fixed(*value))));
}

/// Adds the gradients of all ranks, a bucket at a time: `fill` gives what this rank hands in for a range of a tensor
/// with these gradients, `result` what a sum is as a gradient.
fn exchange<T: crate::ranks::Number>(
    gradients: &mut [&mut [f32]],
    fill: impl Fn(usize, Range<usize>, &[f32], &mut [T]) + Sync,
    result: impl Fn(T) -> f32 + Sync,
    ranks: Ranks,
) {
    let lengths: Vec<usize> = gradients.iter().map(|gradient| gradient.len()).collect();
    let size = lengths.iter().sum::<usize>().min(BUCKET);
    let (mut own, mut sum) = (vec![T::default(); size], vec![T::default(); size]);
    for pieces in buckets(&lengths, BUCKET, PIECE) {
        let size = pieces.iter().map(|(_, range)| range.len()).sum();
        let filled: Vec<_> = divided(&mut own[..size], &pieces).into_iter().zip(&pieces).collect();
        filled.into_par_iter().for_each(|(own, (index, range))| {
            fill(*index, range.clone(), &gradients[*index][range.clone()], own);
        });
        ranks.sum(&own[..size], &mut sum[..size]);
        let mut at = 0;
        for (index, range) in pieces {
            let sum = &sum[at..at + range.len()];
            at += range.len();
            let gradient = &mut gradients[index][range];
            vectorised(|| gradient.iter_mut().zip(sum).for_each(|(value, sum)| *value = result(*sum)));
        }
    }
}

/// A buffer as the pieces' own parts of it.
fn divided<'a, T>(mut buffer: &'a mut [T], pieces: &[(usize, Range<usize>)]) -> Vec<&'a mut [T]> {
    let part = |(_, range): &(usize, Range<usize>)| buffer.split_off_mut(..range.len()).unwrap_or_default();
    pieces.iter().map(part).collect()
}

/// Tensors of these lengths, laid end to end and cut into buckets of at most `bucket` values: of each bucket the ranges
/// of tensors in it, none longer than `piece`.
fn buckets(lengths: &[usize], bucket: usize, piece: usize) -> Vec<Vec<(usize, Range<usize>)>> {
    let mut buckets: Vec<Vec<(usize, Range<usize>)>> = Vec::new();
    let mut room = 0;
    for (index, &length) in lengths.iter().enumerate() {
        let mut start = 0;
        while start < length {
            if room == 0 {
                buckets.push(Vec::new());
                room = bucket;
            }
            let end = length.min(start + room.min(piece));
            if let Some(pieces) = buckets.last_mut() {
                pieces.push((index, start..end));
            }
            (room, start) = (room - (end - start), end);
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// What `fixed` is to be, by floats that are wide enough.
    fn reference(value: f32) -> i64 {
        (f64::from(value) * (1u64 << FRACTION) as f64).round() as i64
    }

    #[test]
    fn floats_become_the_nearest_multiples_and_come_back() {
        let step = 0.5f32.powi(FRACTION as i32);
        let edges = [0.0, -0.0, 1.0, -1.0, step, -step, 0.5 * step, 0.49 * step, 1.5 * step, -2.5 * step, 1e-45, 1e-38];
        let largest = f32::from_bits((LIMIT as f32).to_bits() - 1);
        let random = &mut Random::new(7);
        let any = (0..200_000).map(|_| f32::from_bits(random.between(0, u32::MAX as usize) as u32));
        let in_range: Vec<f32> = any.filter(|value| f64::from(value.abs()) < LIMIT).collect();
        assert!(in_range.len() > 100_000);
        for value in edges.into_iter().chain([largest, -largest]).chain(in_range) {
            assert_eq!(fixed(value), reference(value), "{value:e}");
            // From 2^-21 on nothing is lost.
            if value.abs() >= 0.5f32.powi(21) {
                assert_eq!(float(fixed(value)).to_bits(), value.to_bits());
            }
        }
        assert_eq!(fixed(largest), i64::MAX - ((1 << 39) - 1));
    }

    #[test]
    fn the_passes_give_what_the_functions_give() {
        let random = &mut Random::new(3);
        let values: Vec<f32> = (0..1003).map(|_| ((random.uniform() - 0.5) * 1e-9) as f32).collect();
        let (mut sums, mut taken, mut rounded) = (vec![5i64; 1003], values.clone(), values.clone());
        let size = take(&mut sums, &mut taken);
        let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert_eq!(f32::from_bits(size), most);
        round(&mut rounded);
        for (at, value) in values.iter().enumerate() {
            assert_eq!((sums[at], taken[at]), (5 + fixed(*value), 0.0));
            assert_eq!(rounded[at], float(fixed(*value)));
        }
        give(&mut sums, &mut taken);
        assert!(taken.iter().zip(&values).all(|(sum, value)| *sum == float(5 + fixed(*value))));
        assert!(sums.iter().all(|sum| *sum == 0));
    }

    #[test]
    fn numbers_that_are_none_are_the_largest() {
        let size = |values: &[f32]| f32::from_bits(largest(values));
        assert_eq!(size(&[1.0, -3.0, 2.0]), 3.0);
        assert_eq!(size(&[1.0, f32::NEG_INFINITY]), f32::INFINITY);
        assert!(size(&[1.0, -f32::NAN, f32::INFINITY]).is_nan());
        assert_eq!(size(&[]), 0.0);
    }

    #[test]
    fn buckets_hold_every_value_once() {
        for (lengths, bucket, piece) in [
            (vec![3, 0, 5, 1, 17], 4, 3),
            (vec![8, 8], 8, 8),
            (vec![8, 8], 16, 5),
            (vec![], 4, 2),
            (vec![0, 0], 4, 2),
            (vec![100], 7, 100),
        ] {
            let mut seen: Vec<Vec<usize>> = lengths.iter().map(|_| Vec::new()).collect();
            for pieces in buckets(&lengths, bucket, piece) {
                let size: usize = pieces.iter().map(|(_, range)| range.len()).sum();
                assert!((1..=bucket).contains(&size));
                for (index, range) in pieces {
                    assert!((1..=piece).contains(&range.len()));
                    seen[index].extend(range);
                }
            }
            let all: Vec<Vec<usize>> = lengths.iter().map(|&length| (0..length).collect()).collect();
            assert_eq!(seen, all);
        }
    }
}
