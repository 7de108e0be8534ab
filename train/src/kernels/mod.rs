//! Arithmetic of training: matrix products and element-wise passes over plain slices. Kernels know nothing of
//! the model, and all `unsafe` code of this crate is here, but for a line about NCCL's handle.
//!
//! Element-wise passes are plain loops that the compiler vectorises; [`vectorised`] compiles them for the vector
//! units found at run time. Sums run over [`LANES`] independent partial sums, so their order does not depend on
//! the machine.

pub mod gemm;
pub mod math;

pub use gemm::{Mat, MatMut, Packed, Precision, Product, multiply};

/// Partial sums of a reduction.
pub const LANES: usize = 16;

/// Runs a loop compiled for the widest vector units of this machine.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// The fixed order in which partial sums are added.
#[inline(always)]
pub fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum(f(x_i, y_i))` over two slices of one length.
#[inline(always)]
pub fn sum2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut xs = x.chunks_exact(LANES);
    let mut ys = y.chunks_exact(LANES);
    for (x, y) in (&mut xs).zip(&mut ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for (i, (&x, &y)) in xs.remainder().iter().zip(ys.remainder()).enumerate() {
        lanes[i] += f(x, y);
    }
    fold(lanes)
}

/// `sum(f(x_i))`.
#[inline(always)]
pub fn sum1(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut xs = x.chunks_exact(LANES);
    for x in &mut xs {
        for i in 0..LANES {
            lanes[i] += f(x[i]);
        }
    }
    for (i, &x) in xs.remainder().iter().enumerate() {
        lanes[i] += f(x);
    }
    fold(lanes)
}

/// The largest value; negative infinity for an empty slice.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut xs = x.chunks_exact(LANES);
    for x in &mut xs {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    for (i, &x) in xs.remainder().iter().enumerate() {
        lanes[i] = if x > lanes[i] { x } else { lanes[i] };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
