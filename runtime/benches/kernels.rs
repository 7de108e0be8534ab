//! Kernels against what the machine allows: `cargo bench -p t5-runtime --bench kernels [-- FILTER…] [--isa NAME]`.
//!
//! Each line is the best of many repeats, because other work on the machine only ever adds time. Every product is
//! compared with the scalar kernels before it is timed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use t5_runtime::kernels::{Isa, Kernels, Matrix, Workspace, limits};
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::{DType, Tensor};

fn main() {
    let mut filters = Vec::new();
    let mut isa = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--isa" => isa = arguments.next(),
            _ => filters.push(argument),
        }
    }
    let all = match isa {
        Some(name) => vec![Kernels::with_isa(&name).expect("an instruction set of this machine")],
        None => Kernels::available().filter(|kernels| kernels.isa() != Isa::Scalar).collect(),
    };
    for kernels in all {
        let bench = Bench { kernels, filters: filters.clone(), limits: Limits::measure(kernels) };
        bench.limits.print(kernels);
        bench.matrix_vector();
        bench.matrix_matrix();
    }
}

/// Peaks of this machine on one thread.
struct Limits {
    /// Working set in MiB, GB/s.
    read: Vec<(usize, f64)>,
    int8: f64,
    f32: f64,
}

impl Limits {
    fn measure(kernels: Kernels) -> Limits {
        let data = limits::Ones::new(256 << 18).expect("256 MiB");
        let read = [1, 8, 16, 24, 36, 64, 256].map(|mib| {
            let part = &data[..mib << 18];
            let seconds = best(|| {
                black_box(limits::read(kernels, black_box(part)));
            });
            (mib, (mib << 20) as f64 / seconds / 1e9)
        });
        let rounds = 20_000;
        let operations = limits::dots(kernels, rounds, &[[1; 64]; 2], &[1; 4]).0;
        let int8 = best(|| {
            black_box(limits::dots(kernels, rounds, black_box(&[[1; 64]; 2]), black_box(&[1; 4])));
        });
        let f32 = best(|| {
            black_box(limits::products(kernels, rounds, black_box(&[0.5; 16])));
        });
        let f32_operations = limits::products(kernels, rounds, &[0.5; 16]).0;
        Limits { read: read.to_vec(), int8: operations as f64 / int8 / 1e9, f32: f32_operations as f64 / f32 / 1e9 }
    }

    fn print(&self, kernels: Kernels) {
        println!("\n{}: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s", kernels.isa().name(), self.int8, self.f32);
        let read: Vec<String> = self.read.iter().map(|(mib, rate)| format!("{mib} MiB {rate:.1}")).collect();
        println!("read GB/s by working set: {}", read.join(", "));
    }
}

/// Seconds of the fastest run.
fn best(mut f: impl FnMut()) -> f64 {
    best_of([&mut f])[0]
}

/// Seconds of the fastest run of each, taking turns for half a second and at least 10 times.
fn best_of<const N: usize>(mut all: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut best = [Duration::MAX; N];
    let start = Instant::now();
    let mut runs = 0;
    while runs < 10 || start.elapsed() < Duration::from_millis(500 * N as u64) {
        for (best, f) in best.iter_mut().zip(&mut all) {
            let begin = Instant::now();
            f();
            *best = (*best).min(begin.elapsed());
        }
        runs += 1;
    }
    best.map(|best| best.as_secs_f64())
}

struct Bench {
    kernels: Kernels,
    filters: Vec<String>,
    limits: Limits,
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// All matrices that one decoding step of a model reads, one row or a few through each: the working set of a real
    /// step.
    fn matrix_vector(&self) {
        for (model, shapes) in [
            ("t5-small", step(6, 512, 512, 2048, false)),
            ("flan-t5-small", step(8, 512, 384, 1024, true)),
            ("t5-base", step(12, 768, 768, 3072, false)),
        ] {
            for (dtype, rows) in [
                (DType::Q8_0, 1),
                (DType::Q8_0, 2),
                (DType::Q8_0, 4),
                (DType::Q8_0, 8),
                (DType::Q8_0, 16),
                (DType::F16, 1),
                (DType::F16, 4),
                (DType::Q4_0, 1),
                (DType::Q4_0, 4),
                (DType::F32, 1),
            ] {
                let name = format!("step {model} {dtype} {rows}");
                if !self.wanted(&name) || (model == "t5-base" && dtype != DType::Q8_0) {
                    continue;
                }
                let matrices: Vec<Matrix> = shapes.iter().map(|&(n, k)| self.matrix(dtype, n, k, 1)).collect();
                let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
                let x = values(rows * 4096);
                let mut y = vec![0.0; rows * 32128];
                let mut workspace = Workspace::default();
                // Plain reading of as many bytes takes turns with the products: both meet the same neighbours.
                let buffer = limits::Ones::new(bytes / 4).expect("memory for as many bytes as the matrices have");
                let [seconds, reading] = best_of([
                    &mut || {
                        for matrix in &matrices {
                            let (x, y) = (&x[..rows * matrix.k()], &mut y[..rows * matrix.n()]);
                            matrix.multiply(self.kernels, x, rows, y, &mut workspace);
                        }
                    },
                    &mut || {
                        black_box(limits::read(self.kernels, black_box(&buffer)));
                    },
                ]);
                let rate = bytes as f64 / 1e9;
                println!(
                    "{name:34} {:8.1} us  {:6.1} MB {:6.1} GB/s  reading {:6.1} GB/s",
                    seconds * 1e6,
                    bytes as f64 / 1e6,
                    rate / seconds,
                    rate / reading
                );
            }
        }
    }

    fn matrix_matrix(&self) {
        for (dtype, run) in [(DType::Q8_0, 1), (DType::Q8_0, 4), (DType::Q8_0, 8), (DType::F16, 1), (DType::F32, 1)] {
            for (n, k) in
                [(1152, 512_usize), (512, 384), (2048, 512), (512, 1024), (512, 2048), (3072, 768), (768, 3072)]
            {
                for m in [4, 16, 128, 512] {
                    let runs = if run == 1 { String::new() } else { format!(" in runs of {run}") };
                    let name = format!("{dtype} {m} x {k} x {n}{runs}");
                    if !k.is_multiple_of(32 * run) {
                        continue;
                    }
                    if !self.wanted(&name) || (dtype != DType::Q8_0 && m == 512) {
                        continue;
                    }
                    let matrix = self.matrix(dtype, n, k, run);
                    let x = values(m * k);
                    let mut y = vec![0.0; m * n];
                    let mut workspace = Workspace::default();
                    let seconds = best(|| matrix.multiply(self.kernels, &x, m, &mut y, &mut workspace));
                    let rate = 2.0 * (m * n * k) as f64 / seconds / 1e9;
                    let limit = if dtype == DType::Q8_0 { self.limits.int8 } else { self.limits.f32 };
                    println!(
                        "{name:44} {:8.1} us  {rate:6.0} GOP/s  {:3.0} % of the peak",
                        seconds * 1e6,
                        100.0 * rate / limit
                    );
                }
            }
        }
    }

    /// A seeded matrix, checked against the scalar kernels on two rows; `run` blocks of Q8_0 share a scale.
    fn matrix(&self, dtype: DType, n: usize, k: usize, run: usize) -> Matrix {
        let tensor = tensor(dtype, n, k, run);
        let matrix = Matrix::new(self.kernels, &[&tensor]).expect("a valid matrix");
        let scalar = Kernels::with_isa("scalar").expect("always available");
        let x = values(2 * k);
        let mut results = [(); 2].map(|()| vec![0f32; 2 * n]);
        matrix.multiply(self.kernels, &x, 2, &mut results[0], &mut Workspace::default());
        let check = Matrix::new(scalar, &[&tensor]).expect("a valid matrix");
        check.multiply(scalar, &x, 2, &mut results[1], &mut Workspace::default());
        assert!(results[0] == results[1], "{dtype} {n} x {k} differs from the scalar kernels");
        matrix
    }
}

/// The matrices of a decoding step as `(n, k)`: per block q, k, v stacked, o, cross q, cross o, the feed-forward;
/// then the head.
fn step(blocks: usize, d_model: usize, inner: usize, d_ff: usize, gated: bool) -> Vec<(usize, usize)> {
    let wi = if gated { 2 * d_ff } else { d_ff };
    let block =
        [(3 * inner, d_model), (d_model, inner), (inner, d_model), (d_model, inner), (wi, d_model), (d_model, d_ff)];
    std::iter::repeat_n(block, blocks).flatten().chain([(32128, d_model)]).collect()
}

fn tensor(dtype: DType, n: usize, k: usize, run: usize) -> Tensor {
    let weights = values(n * k);
    let data: Vec<u8> = match dtype {
        DType::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        DType::F16 => weights.iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect(),
        DType::Q8_0 => weights
            .chunks(32)
            .enumerate()
            .flat_map(|(index, block)| {
                // Neighbouring runs differ.
                let scale = half::f16::from_f32(1.0 / (127 + index / run % 2) as f32).to_le_bytes();
                scale.into_iter().chain(block.iter().map(|w| (w * 127.0) as i8 as u8)).collect::<Vec<_>>()
            })
            .collect(),
        DType::Q4_0 => weights
            .chunks(32)
            .flat_map(|block| {
                let scale = half::f16::from_f32(1.0 / 7.0).to_le_bytes();
                scale.into_iter().chain(block[..16].iter().map(|w| (w * 127.0) as i8 as u8)).collect::<Vec<_>>()
            })
            .collect(),
        _ => unreachable!("not benched"),
    };
    Tensor {
        name: format!("{dtype}.{n}x{k}"),
        file: "bench".to_owned(),
        dtype,
        shape: vec![n, k],
        data: Bytes::from_vec(data),
        scale: 1.0,
    }
}

/// Pseudo-random values in [-1, 1), always the same.
fn values(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}
