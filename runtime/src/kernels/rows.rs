//! Functions of vectors and rows: norms, activations, softmax, and the sums and products between them.
//!
//! Sums run in sixteen lanes (value i goes to lane i mod 16, in order) that [`Simd::sum`] adds as a tree; a last
//! partial vector is filled up with the value that changes nothing.

use super::isa::dispatch;
use super::math;
use super::simd::{LANES, Simd};

/// The non-linearity of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Relu,
    /// GELU itself, x Φ(x) with the normal distribution Φ (the erf form).
    Gelu,
    /// The tanh form of GELU (`gelu_new`), which is what "gated-gelu" means in T5 1.1; not the erf form.
    GeluNew,
    Silu,
}

/// The first `LANES` or fewer values of `x`, filled up with `fill`.
#[inline(always)]
fn filled(x: &[f32], fill: f32) -> [f32; LANES] {
    let mut lanes = [fill; LANES];
    lanes[..x.len()].copy_from_slice(x);
    lanes
}

// The three loops over vectors are macros, not functions that take a closure: see the note in product/mod.rs.

/// Folds `x` into sixteen lanes: `$lanes = $f` for each vector `$value` of `x`, the last one filled up.
macro_rules! fold {
    ($v:ident, $x:expr, $fill:expr, |$lanes:ident, $value:ident| $f:expr) => {{
        let (body, tail) = $x.as_chunks::<LANES>();
        for x in body {
            let $value = $v.load(x);
            $lanes = $f;
        }
        if !tail.is_empty() {
            let $value = $v.load(&filled(tail, $fill));
            $lanes = $f;
        }
    }};
}

/// `x[i] = f(x[i])`.
macro_rules! update {
    ($v:ident, $x:expr, $fill:expr, |$value:ident| $f:expr) => {{
        let (body, tail) = $x.as_chunks_mut::<LANES>();
        for x in body {
            let $value = $v.load(x);
            $v.store($f, x);
        }
        if !tail.is_empty() {
            let mut lanes = filled(tail, $fill);
            let $value = $v.load(&lanes);
            $v.store($f, &mut lanes);
            tail.copy_from_slice(&lanes[..tail.len()]);
        }
    }};
}

/// `out[i] = f(out[i], x[i])`.
macro_rules! combine {
    ($v:ident, $out:expr, $x:expr, |$a:pat_param, $b:ident| $f:expr) => {{
        assert_eq!($out.len(), $x.len(), "two vectors of one length");
        let (out_body, out_tail) = $out.as_chunks_mut::<LANES>();
        let (x_body, x_tail) = $x.as_chunks::<LANES>();
        let x_body = &x_body[..out_body.len()];
        for i in 0..out_body.len() {
            let ($a, $b) = ($v.load(&out_body[i]), $v.load(&x_body[i]));
            $v.store($f, &mut out_body[i]);
        }
        if !out_tail.is_empty() {
            let mut lanes = filled(out_tail, 0.0);
            let ($a, $b) = ($v.load(&lanes), $v.load(&filled(x_tail, 0.0)));
            $v.store($f, &mut lanes);
            out_tail.copy_from_slice(&lanes[..out_tail.len()]);
        }
    }};
}

#[inline(always)]
pub(crate) fn dot_in<V: Simd>(v: V, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "two vectors of one length");
    let (x_body, x_tail) = x.as_chunks::<LANES>();
    let (y_body, y_tail) = y.as_chunks::<LANES>();
    let y_body = &y_body[..x_body.len()];
    let mut lanes = v.splat(0.0);
    for i in 0..x_body.len() {
        lanes = v.add(lanes, v.mul(v.load(&x_body[i]), v.load(&y_body[i])));
    }
    if !x_tail.is_empty() {
        lanes = v.add(lanes, v.mul(v.load(&filled(x_tail, 0.0)), v.load(&filled(y_tail, 0.0))));
    }
    v.sum(lanes)
}

#[inline(always)]
fn rms_norm_in<V: Simd>(v: V, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let d = weight.len();
    assert!(d > 0 && x.len() == out.len() && x.len().is_multiple_of(d), "x and out are [rows, d]");
    for row in 0..x.len() / d {
        let (x, out) = (&x[row * d..(row + 1) * d], &mut out[row * d..(row + 1) * d]);
        let scale = v.splat(1.0 / (dot_in(v, x, x) / d as f32 + eps).sqrt());
        out.copy_from_slice(weight);
        combine!(v, out, x, |w, x| v.mul(v.mul(x, scale), w));
    }
}

#[inline(always)]
fn add_in<V: Simd>(v: V, x: &mut [f32], y: &[f32]) {
    combine!(v, x, y, |x, y| v.add(x, y));
}

#[inline(always)]
fn scale_in<V: Simd>(v: V, x: &mut [f32], factor: f32) {
    let factor = v.splat(factor);
    update!(v, x, 0.0, |x| v.mul(x, factor));
}

#[inline(always)]
pub(crate) fn axpy_in<V: Simd>(v: V, factor: f32, x: &[f32], out: &mut [f32]) {
    let factor = v.splat(factor);
    combine!(v, out, x, |out, x| v.add(out, v.mul(factor, x)));
}

#[inline(always)]
fn act<V: Simd>(v: V, activation: Activation, x: V::F) -> V::F {
    match activation {
        // The second operand is the result where x is NaN, which must not become 0.
        Activation::Relu => v.max(v.splat(0.0), x),
        Activation::Silu => math::silu(v, x),
        Activation::Gelu => math::gelu(v, x),
        Activation::GeluNew => math::gelu_new(v, x),
    }
}

#[inline(always)]
fn activate_in<V: Simd>(v: V, activation: Activation, x: &[f32], out: &mut [f32]) {
    match activation {
        Activation::Relu => combine!(v, out, x, |_, x| act(v, Activation::Relu, x)),
        Activation::Silu => combine!(v, out, x, |_, x| act(v, Activation::Silu, x)),
        Activation::Gelu => combine!(v, out, x, |_, x| act(v, Activation::Gelu, x)),
        Activation::GeluNew => combine!(v, out, x, |_, x| act(v, Activation::GeluNew, x)),
    }
}

#[inline(always)]
fn activate_gated_in<V: Simd>(v: V, activation: Activation, x: &[f32], f: usize, out: &mut [f32]) {
    assert!(f > 0 && x.len() == 2 * out.len() && out.len().is_multiple_of(f), "x is [rows, 2f], out is [rows, f]");
    for row in 0..out.len() / f {
        let (gate, linear) = x[2 * row * f..2 * (row + 1) * f].split_at(f);
        let out = &mut out[row * f..(row + 1) * f];
        activate_in(v, activation, gate, out);
        combine!(v, out, linear, |out, x| v.mul(out, x));
    }
}

/// The largest value, -infinity where there is none; NaN is passed over.
#[inline(always)]
pub(crate) fn max_in<V: Simd>(v: V, x: &[f32]) -> f32 {
    let mut max = v.splat(f32::NEG_INFINITY);
    fold!(v, x, f32::NEG_INFINITY, |max, x| v.max(x, max));
    let mut all = [0.0; LANES];
    v.store(max, &mut all);
    let mut largest = f32::NEG_INFINITY;
    for x in all {
        largest = if x > largest { x } else { largest };
    }
    largest
}

/// `x = e^(x - max)`; returns the sum.
#[inline(always)]
fn exponentials_in<V: Simd>(v: V, x: &mut [f32], max: f32) -> f32 {
    let max = v.splat(max);
    let mut sum = v.splat(0.0);
    update!(v, x, f32::NEG_INFINITY, |x| {
        let e = math::exp(v, v.sub(x, max));
        sum = v.add(sum, e);
        e
    });
    v.sum(sum)
}

#[inline(always)]
pub(crate) fn softmax_in<V: Simd>(v: V, scores: &mut [f32]) {
    let max = max_in(v, scores);
    let sum = exponentials_in(v, scores, max);
    scale_in(v, scores, 1.0 / sum);
}

#[inline(always)]
fn log_sum_exp_in<V: Simd>(v: V, x: &[f32]) -> f32 {
    let max = max_in(v, x);
    let shift = v.splat(max);
    let mut sum = v.splat(0.0);
    fold!(v, x, f32::NEG_INFINITY, |sum, x| v.add(sum, math::exp(v, v.sub(x, shift))));
    max + math::ln(v.sum(sum))
}

#[inline(always)]
pub(crate) fn argmax_in<V: Simd>(v: V, x: &[f32]) -> Option<usize> {
    // The first block that holds the maximum is found by vectors; only that block is searched value by value.
    const BLOCK: usize = 512;
    let mut max = f32::NEG_INFINITY;
    let mut start = 0;
    for (i, block) in x.chunks(BLOCK).enumerate() {
        let block_max = max_in(v, block);
        if block_max > max {
            max = block_max;
            start = i * BLOCK;
        }
    }
    x[start..].iter().position(|&x| x == max).map(|i| start + i)
}

dispatch!(pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_in);
dispatch!(pub(super) fn add(x: &mut [f32], y: &[f32]) = add_in);
dispatch!(pub(super) fn scale(x: &mut [f32], factor: f32) = scale_in);
dispatch!(pub(super) fn axpy(factor: f32, x: &[f32], out: &mut [f32]) = axpy_in);
dispatch!(pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 = dot_in);
dispatch!(pub(super) fn activate(activation: Activation, x: &[f32], out: &mut [f32]) = activate_in);
dispatch!(
    pub(super) fn activate_gated(activation: Activation, x: &[f32], f: usize, out: &mut [f32]) = activate_gated_in
);
dispatch!(pub(super) fn softmax(scores: &mut [f32]) = softmax_in);
dispatch!(pub(super) fn log_sum_exp(x: &[f32]) -> f32 = log_sum_exp_in);
dispatch!(pub(super) fn argmax(x: &[f32]) -> Option<usize> = argmax_in);
