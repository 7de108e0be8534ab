//! What the machine allows: read bandwidth and arithmetic peaks, measured with the kernels' own operations, for
//! benches to print beside what the kernels reach.

use super::activations::Activations;
use super::dot::Dot;
use super::isa::dispatch;
use super::layout::{BLOCK, WeightStep};
use super::memory::Table;
use super::simd::{LANES, Simd};
use crate::error::Result;

/// Values in the kind of memory that packed weights lie in.
pub struct Ones(Table<f32>);

impl Ones {
    /// `len` values, each 1.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory) where there is not enough.
    pub fn new(len: usize) -> Result<Ones> {
        let mut table = Table::zeroed(len)?;
        table.fill(1.0);
        Ok(Ones(table))
    }
}

impl std::ops::Deref for Ones {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// Independent accumulators: enough to hide the latency of an operation on every machine.
const CHAINS: usize = 12;

/// Reads every value; the sum keeps the compiler from leaving the reads out.
#[inline(always)]
fn read_in<V: Simd>(v: V, data: &[f32]) -> i32 {
    let mut sums = [v.splat_i32(0); 8];
    for lines in data.as_chunks::<LANES>().0.as_chunks::<8>().0 {
        for (sum, line) in sums.iter_mut().zip(lines) {
            *sum = v.add_i32(*sum, v.bits(v.load(line)));
        }
    }
    total(v, sums)
}

/// Int8 products on registers: returns the number of operations (a multiplication and an addition count as two).
#[inline(always)]
fn dots_in<V: Dot>(v: V, rounds: usize, weights: &[WeightStep; 2], activations: &[i8; 4]) -> (usize, i32) {
    let w = [v.weights(&weights[0]), v.weights(&weights[1])];
    let mut block = [0; BLOCK];
    block[..4].copy_from_slice(activations);
    let mut a = Activations { values: vec![block], ..Activations::default() };
    v.prepare(&mut a, 1);
    let a = v.activations(std::array::from_ref(&V::blocks(&a)[0]), 0, 0);
    let mut sums = [v.splat_i32(0); CHAINS];
    for _ in 0..rounds {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = v.dot(*sum, w[i % 2], a);
        }
    }
    (rounds * CHAINS * 128, total(v, sums))
}

/// Multiplications and additions of f32 on registers: returns the number of both.
#[inline(always)]
fn products_in<V: Simd>(v: V, rounds: usize, x: &[f32; LANES]) -> (usize, i32) {
    let x = v.load(x);
    let mut sums = [v.splat(1.0); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = v.add(v.mul(*sum, x), x);
        }
    }
    let mut bits = [v.splat_i32(0); CHAINS];
    for (bits, sum) in bits.iter_mut().zip(sums) {
        *bits = v.bits(sum);
    }
    (rounds * CHAINS * 2 * LANES, total(v, bits))
}

#[inline(always)]
fn total<V: Simd, const N: usize>(v: V, sums: [V::I; N]) -> i32 {
    let mut all = v.splat_i32(0);
    for sum in sums {
        all = v.add_i32(all, sum);
    }
    v.sum_i32(all)
}

dispatch!(pub fn read(data: &[f32]) -> i32 = read_in);
dispatch!(
    pub fn dots(rounds: usize, weights: &[WeightStep; 2], activations: &[i8; 4]) -> (usize, i32) = dots_in
);
dispatch!(pub fn products(rounds: usize, x: &[f32; LANES]) -> (usize, i32) = products_in);
