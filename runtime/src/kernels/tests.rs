//! Every kernel on every instruction set of this machine against the scalar one, bit for bit, and the scalar one
//! against f64 arithmetic.

mod misuse;

use super::*;
use crate::block;
use crate::storage::Bytes;
use crate::tensor::{DType, Tensor};

/// Lengths around the vector width, and some that leave remainders of every kind.
const LENGTHS: [usize; 22] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 384, 1003];

fn lengths() -> &'static [usize] {
    cases(&LENGTHS, &[0, 1, 15, 16, 17, 33])
}

/// All cases, or the few that are enough where an interpreter looks for undefined behaviour and not for rounding: the
/// sizes that reach every path.
fn cases<T>(all: &'static [T], few: &'static [T]) -> &'static [T] {
    if cfg!(miri) { few } else { all }
}

/// Reproducible pseudo-random numbers (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(super) fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    // NaNs are one value here: which of them an operation returns is the one thing instruction sets differ in.
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn scalar() -> Kernels {
    Kernels::with_isa("scalar").unwrap()
}

/// Runs `f` with the scalar kernels and with all others, and compares the bits of what it returns.
fn same_everywhere(what: &str, f: impl Fn(Kernels) -> Vec<f32>) {
    let expected = bits(&f(scalar()));
    // The scalar kernels once more show that they do the same every time, which takes an interpreter too long.
    for kernels in Kernels::available().filter(|&kernels| !cfg!(miri) || kernels != scalar()) {
        assert_eq!(bits(&f(kernels)), expected, "{what} on {}", kernels.isa().name());
    }
}

fn assert_close(what: &str, found: &[f32], expected: impl IntoIterator<Item = f64>, bound: f64) {
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= bound,
            "{what}: value {i} is {found}, expected {expected} within {bound}"
        );
    }
}

#[test]
fn names_and_choice() {
    let best = Kernels::detect();
    assert_eq!(Kernels::with_isa(best.isa().name()).unwrap(), best);
    let message = Kernels::with_isa("mmx").unwrap_err().to_string();
    assert!(message.contains("scalar") && message.contains("mmx"), "{message}");
}

/// What the processor has is offered, and nothing else: other tests would end at an instruction that is not there.
#[test]
#[cfg(target_arch = "aarch64")]
fn choice_on_aarch64() {
    use std::arch::is_aarch64_feature_detected;
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    for (name, available) in [("neon", true), ("dotprod", dotprod), ("i8mm", i8mm)] {
        assert_eq!(Kernels::with_isa(name).is_ok(), available, "{name}");
    }
    let best = if i8mm { Isa::I8mm } else { [Isa::Neon, Isa::Dotprod][usize::from(dotprod)] };
    assert_eq!(Kernels::detect().isa(), best);
}

#[test]
fn vectors_and_rows() {
    let mut random = Random(1);
    for &n in lengths() {
        let x: Vec<f32> = random.values(n).iter().map(|x| x * 5.0).collect();
        let y = random.values(n);
        let weight = random.values(n);
        same_everywhere(&format!("dot of {n}"), |kernels| vec![kernels.dot(&x, &y)]);
        let truth = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        // At most n/16 + 5 roundings of a sum whose terms are at most 5.
        assert_close("dot", &[scalar().dot(&x, &y)], [truth], 1e-6 * n as f64);

        let in_place = |kernels: Kernels, f: &dyn Fn(Kernels, &mut [f32])| {
            let mut out = x.clone();
            f(kernels, &mut out);
            out
        };
        same_everywhere(&format!("add of {n}"), |kernels| in_place(kernels, &|k, out| k.add(out, &y)));
        same_everywhere(&format!("scale of {n}"), |kernels| in_place(kernels, &|k, out| k.scale(out, 0.37)));
        same_everywhere(&format!("axpy of {n}"), |kernels| in_place(kernels, &|k, out| k.axpy(0.37, &y, out)));
        same_everywhere(&format!("softmax of {n}"), |kernels| in_place(kernels, &|k, out| k.softmax(out)));
        same_everywhere(&format!("log_sum_exp of {n}"), |kernels| vec![kernels.log_sum_exp(&x)]);
        assert_close("axpy", &in_place(scalar(), &|k, out| k.axpy(0.37, &y, out)), sums(&x, &y, 0.37), 1e-6);
        let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
        let softmax = x.iter().map(|&x| f64::from(x).exp() / sum);
        assert_close("softmax", &in_place(scalar(), &|k, out| k.softmax(out)), softmax, 1e-6);
        if n > 0 {
            assert_close("log_sum_exp", &[scalar().log_sum_exp(&x)], [sum.ln()], 2e-6);
        }
        for rows in [1, 3] {
            if n == 0 {
                continue;
            }
            let x = random.values(rows * n);
            same_everywhere(&format!("rms_norm of {rows} x {n}"), |kernels| {
                let mut out = vec![0.0; rows * n];
                kernels.rms_norm(&x, &weight, 1e-6, &mut out);
                out
            });
            let mut out = vec![0.0; rows * n];
            scalar().rms_norm(&x, &weight, 1e-6, &mut out);
            let truth = x.chunks(n).flat_map(|row| {
                let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
                let scale = 1.0 / (mean + 1e-6).sqrt();
                row.iter().zip(&weight).map(move |(&x, &w)| f64::from(x) * scale * f64::from(w))
            });
            assert_close("rms_norm", &out, truth, 1e-5);
        }
    }
}

/// `x + factor y` in f64.
fn sums(x: &[f32], y: &[f32], factor: f32) -> impl Iterator<Item = f64> {
    x.iter().zip(y).map(move |(&x, &y)| f64::from(x) + f64::from(factor) * f64::from(y))
}

#[test]
fn softmax_of_extreme_rows() {
    let infinity = f32::INFINITY;
    for row in [
        vec![-infinity, 0.0, -infinity],
        vec![1e30, -1e30, 1e30],
        vec![-200.0; 40],
        vec![3.4e38, 0.0],
        vec![f32::NAN, 1.0],
        vec![-infinity; 3],
    ] {
        same_everywhere("softmax", |kernels| {
            let mut out = row.clone();
            kernels.softmax(&mut out);
            out
        });
    }
    let mut row = [-infinity, 0.0, -infinity, 0.0];
    scalar().softmax(&mut row);
    assert_eq!(row, [0.0, 0.5, 0.0, 0.5]);
    assert_eq!(scalar().log_sum_exp(&[1000.0; 8]), 1000.0 + 8f32.ln());
}

#[test]
fn activations() {
    let mut random = Random(2);
    let mut special = vec![0.0, -0.0, 1e-40, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.9, -88.9, 1e30, -1e30];
    for &n in lengths() {
        special.extend(random.values(n).iter().map(|x| x * 20.0));
        for activation in [Activation::Relu, Activation::Silu, Activation::GeluNew] {
            same_everywhere(&format!("{activation:?} of {}", special.len()), |kernels| {
                let mut out = vec![0.0; special.len()];
                kernels.activate(activation, &special, &mut out);
                out
            });
            if n == 0 {
                continue;
            }
            let x = random.values(6 * n);
            let gated = |kernels: Kernels| {
                let mut out = vec![0.0; 3 * n];
                kernels.activate_gated(activation, &x, n, &mut out);
                out
            };
            same_everywhere(&format!("gated {activation:?} of {n}"), gated);
            let mut gate = vec![0.0; n];
            scalar().activate(activation, &x[4 * n..5 * n], &mut gate);
            let expected: Vec<f32> = gate.iter().zip(&x[5 * n..]).map(|(g, x)| g * x).collect();
            assert_eq!(gated(scalar())[2 * n..], expected);
        }
    }
    let mut out = [1.0; 4];
    scalar().activate(Activation::Relu, &[-1.0, 0.0, 2.5, f32::NAN], &mut out);
    assert_eq!(out[..3], [0.0, 0.0, 2.5]);
    assert!(out[3].is_nan());
}

#[test]
fn argmax_finds_the_lowest_index() {
    let mut random = Random(3);
    for kernels in Kernels::available() {
        assert_eq!(kernels.argmax(&[]), None);
        assert_eq!(kernels.argmax(&[f32::NAN; 20]), None);
        assert_eq!(kernels.argmax(&[f32::NEG_INFINITY; 20]), Some(0));
        assert_eq!(kernels.argmax(&[f32::NAN, f32::NEG_INFINITY]), Some(1));
        assert_eq!(kernels.argmax(&[1.0, f32::NAN, 2.0, f32::NAN]), Some(2));
        for &n in cases(&[1, 15, 16, 17, 511, 512, 513, 1024, 32128], &[1, 16, 17, 513]) {
            let mut x = random.values(n);
            let at = random.bits() as usize % n;
            x[at] = 2.0;
            if at + 1 < n {
                x[n - 1] = 2.0;
                x[at + 1] = 2.0;
            }
            assert_eq!(kernels.argmax(&x), Some(at), "{n} values on {}", kernels.isa().name());
        }
    }
}

/// Weights as a file holds them, random in every byte that may be.
fn tensor(random: &mut Random, dtype: DType, n: usize, k: usize) -> Tensor {
    let mut data = Vec::new();
    for _ in 0..n * k / dtype.block_len() {
        match dtype {
            DType::F32 => data.extend(random.value().to_le_bytes()),
            DType::F16 => data.extend(half::f16::from_f32(random.value()).to_le_bytes()),
            DType::BF16 => data.extend(half::bf16::from_f32(random.value()).to_le_bytes()),
            DType::Q8_0 => {
                data.extend(half::f16::from_f32(random.value() * 0.01).to_le_bytes());
                data.extend((0..32).map(|_| match random.bits() % 16 {
                    // Extremes often: they are where 16-bit sums would overflow.
                    0..3 => i8::MIN as u8,
                    3..6 => i8::MAX as u8,
                    _ => random.bits() as u8,
                }));
            }
            DType::Q4_0 | DType::Q4_K => {
                data.extend(half::f16::from_f32(random.value() * 0.1).to_le_bytes());
                if dtype == DType::Q4_K {
                    data.extend(half::f16::from_f32(random.value() * 0.1).to_le_bytes());
                }
                let rest = dtype.block_bytes() - if dtype == DType::Q4_K { 4 } else { 2 };
                data.extend((0..rest).map(|_| match random.bits() % 16 {
                    0..3 => 0x00,
                    3..6 => 0xff,
                    _ => random.bits() as u8,
                }));
            }
            _ => unimplemented!("{dtype}"),
        }
    }
    Tensor {
        name: format!("{dtype}.{n}x{k}"),
        file: "test".to_owned(),
        dtype,
        shape: vec![n, k],
        data: Bytes::from_vec(data),
    }
}

fn product(kernels: Kernels, parts: &[&Tensor], x: &[f32], m: usize) -> Vec<f32> {
    let matrix = Matrix::new(kernels, parts).unwrap();
    let mut y = vec![f32::NAN; m * matrix.n()];
    matrix.multiply(kernels, x, m, &mut y, &mut Workspace::default());
    y
}

/// `k`, or the next width that whole blocks fill.
fn width(dtype: DType, k: usize) -> usize {
    k.next_multiple_of(dtype.block_len())
}

/// Scratch that has grown for a wide matrix serves a narrow one.
#[test]
fn workspaces_are_used_again() {
    let mut random = Random(11);
    for dtype in TYPES {
        for kernels in Kernels::available() {
            let mut workspace = Workspace::default();
            let all = [(40, 256, 33), (40, 64, 33), (33, 96, 50), (16, 32, 1), (64, 32, 40)].as_slice();
            for &(n, k, m) in if cfg!(miri) { &[(5, 64, 3), (16, 32, 1)] } else { all } {
                let k = width(dtype, k);
                let w = tensor(&mut random, dtype, n, k);
                let x: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
                let mut y = vec![f32::NAN; m * n];
                Matrix::new(kernels, &[&w]).unwrap().multiply(kernels, &x, m, &mut y, &mut workspace);
                assert_eq!(y, product(kernels, &[&w], &x, m), "{dtype} {n} x {k}, {m} rows");
            }
        }
    }
}

const TYPES: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_K];

#[test]
fn products() {
    let mut random = Random(4);
    for dtype in TYPES {
        let all = [(1, 32), (5, 64), (15, 32), (16, 96), (17, 64), (33, 160), (64, 512), (100, 384)].as_slice();
        for &(n, k) in if cfg!(miri) { &[(17, 32)] } else { all } {
            let k = width(dtype, k);
            let w = tensor(&mut random, dtype, n, k);
            for &m in cases(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 128], &[0, 3]) {
                let x = random.values(m * k);
                let name = format!("{dtype} {m} x {k} x {n}");
                same_everywhere(&name, |kernels| product(kernels, &[&w], &x, m));

                let y = product(scalar(), &[&w], &x, m);
                let mut row = vec![0.0; k];
                for j in 0..n {
                    crate::block::decode(dtype, w.row_data(j), &mut row);
                    for i in 0..m {
                        let x = &x[i * k..(i + 1) * k];
                        let pairs = x.iter().zip(&row).map(|(&x, &w)| (f64::from(x), f64::from(w)));
                        let truth: f64 = pairs.clone().map(|(x, w)| x * w).sum();
                        let bound: f64 = match dtype {
                            // Each activation is off by at most half a step of 1/127.
                            DType::Q8_0 => pairs.map(|(_, w)| w.abs() * 0.5 / 127.0).sum::<f64>() + 1e-5,
                            // The same; and sums of blocks, of weights under 100, are rounded four times each.
                            DType::Q4_0 | DType::Q4_K => {
                                let roundings = (4 + k / 32) as f64 * 6e-8;
                                pairs.map(|(_, w)| w.abs() * 0.5 / 127.0).sum::<f64>() + roundings * (100 * k) as f64
                            }
                            // k roundings of sums under k.
                            _ => (k * k) as f64 * 6e-8,
                        };
                        assert_close(&name, &y[i * n + j..=i * n + j], [truth], bound);
                    }
                }
            }
        }
    }
}

/// The same weights in the same order of operations as the specification says, written out for one value.
#[test]
fn q8_product_is_as_specified() {
    let mut random = Random(5);
    let (n, k) = (7, 96);
    let w = tensor(&mut random, DType::Q8_0, n, k);
    let x: Vec<f32> = random.values(k).iter().map(|x| x * 3.0).collect();
    let mut expected = Vec::new();
    for row in 0..n {
        let mut y = 0f32;
        for (block, x) in w.row_data(row).chunks(34).zip(x.chunks(32)) {
            let absmax = x.iter().fold(0f32, |max, x| max.max(x.abs()));
            let values = x.iter().map(|x| (x * (127.0 / absmax)).round_ties_even() as i32);
            let sum: i32 = values.zip(&block[2..]).map(|(a, &w)| a * i32::from(w as i8)).sum();
            let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
            y += sum as f32 * (scale * (absmax * (1.0 / 127.0)));
        }
        expected.push(y);
    }
    same_everywhere("specification", |kernels| {
        let y = product(kernels, &[&w], &x, 1);
        assert_eq!(bits(&y), bits(&expected));
        y
    });
}

#[test]
fn four_bit_products_are_as_specified() {
    let mut random = Random(12);
    let (n, k) = (5, 512);
    for dtype in [DType::Q4_0, DType::Q4_K] {
        let w = tensor(&mut random, dtype, n, k);
        let x: Vec<f32> = random.values(k).iter().map(|x| x * 3.0).collect();
        let mut expected = Vec::new();
        for row in 0..n {
            let half = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            let mut y = 0f32;
            for (index, x) in x.chunks(32).enumerate() {
                let absmax = x.iter().fold(0f32, |max, x| max.max(x.abs()));
                let s = absmax * (1.0 / 127.0);
                let values: Vec<i32> = x.iter().map(|x| (x * (127.0 / absmax)).round_ties_even() as i32).collect();
                let dot = |nibble: &dyn Fn(usize) -> u8| {
                    values.iter().enumerate().map(|(i, a)| a * i32::from(nibble(i))).sum::<i32>()
                };
                let total: i32 = values.iter().sum();
                if dtype == DType::Q4_0 {
                    let block = &w.row_data(row)[18 * index..][..18];
                    let sum = dot(&|i| block[2 + i % 16] >> (i / 16 * 4) & 15) - 8 * total;
                    y += sum as f32 * (half(block) * s);
                } else {
                    let block = &w.row_data(row)[144 * (index / 8)..][..144];
                    let sub = index % 8;
                    let (scales, mins) = crate::block::unpack_scales(block[4..16].try_into().unwrap());
                    let sum = dot(&|i| block[16 + sub / 2 * 32 + i] >> (sub % 2 * 4) & 15);
                    let (scale, min) = (half(block) * f32::from(scales[sub]), half(&block[2..]) * f32::from(mins[sub]));
                    y += sum as f32 * (scale * s) - min * (total as f32 * s);
                }
            }
            expected.push(y);
        }
        same_everywhere("specification", |kernels| {
            let y = product(kernels, &[&w], &x, 1);
            assert_eq!(bits(&y), bits(&expected), "{dtype}");
            y
        });
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let mut random = Random(6);
    for dtype in TYPES {
        let (n, k, m) = if cfg!(miri) { (5, width(dtype, 32), 3) } else { (50, width(dtype, 128), 13) };
        let w = tensor(&mut random, dtype, n, k);
        let x = random.values(m * k);
        for kernels in Kernels::available() {
            let all = product(kernels, &[&w], &x, m);
            for i in 0..m {
                let alone = product(kernels, &[&w], &x[i * k..(i + 1) * k], 1);
                assert_eq!(bits(&alone), bits(&all[i * n..(i + 1) * n]), "{dtype} row {i}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_products() {
    let mut random = Random(13);
    for dtype in TYPES {
        // The last part is no whole group.
        let (n, k) = if cfg!(miri) { (35, width(dtype, 32)) } else { (1003, 512) };
        let w = tensor(&mut random, dtype, n, k);
        for &m in cases(&[1, 5, 30], &[2]) {
            let x = random.values(m * k);
            for kernels in Kernels::available() {
                let matrix = Matrix::new(kernels, &[&w]).unwrap();
                let alone = product(kernels, &[&w], &x, m);
                for &threads in cases(&[2, 3, 7], &[3]) {
                    let mut workspace = Workspace::default();
                    workspace.set_threads(threads);
                    let mut y = vec![f32::NAN; m * n];
                    matrix.multiply(kernels, &x, m, &mut y, &mut workspace);
                    assert_eq!(bits(&y), bits(&alone), "{dtype}, {m} rows, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_attention() {
    let mut random = Random(14);
    let heads = Heads { count: 5, width: 20 };
    let (inner, len) = (100, if cfg!(miri) { 5 } else { 90 });
    let qkv = random.values(len * 3 * inner);
    let table = random.values(heads.count * 2 * len);
    let bias = BiasRow { values: &table, head_stride: 2 * len, offset: len };
    for (kernels, numbers) in Kernels::available().flat_map(|kernels| NUMBERS.map(|numbers| (kernels, numbers))) {
        let mut source = PackedKeyValues::default();
        source.begin(numbers, heads, len, 1).unwrap();
        source.pack(kernels, 0, &qkv[..len * inner], &qkv[len * inner..2 * len * inner]);
        let run = |threads: usize| {
            let mut workspace = Workspace::default();
            workspace.set_threads(threads);
            let mut own = vec![f32::NAN; len * inner];
            kernels.attend_all(numbers, heads, &qkv, bias, &mut own, &mut workspace).unwrap();
            let mut cross = vec![f32::NAN; len * inner];
            let q = &qkv[2 * len * inner..];
            kernels.attend_packed(q, &source, 0, &mut cross, None, &mut workspace);
            [own, cross].concat()
        };
        let alone = run(1);
        for &threads in cases(&[2, 3, 7], &[3]) {
            assert_eq!(bits(&run(threads)), bits(&alone), "{threads} threads");
        }
    }
}

#[test]
fn parts_stack_by_rows() {
    let mut random = Random(7);
    let k = if cfg!(miri) { 32 } else { 256 };
    for dtypes in
        [[DType::Q8_0; 3], [DType::Q4_0; 3], [DType::Q4_K; 3], [DType::F16; 3], [DType::F32, DType::F16, DType::F32]]
    {
        if k % dtypes[0].block_len() != 0 {
            continue;
        }
        let parts: Vec<Tensor> =
            [24, 5, 40].iter().zip(dtypes).map(|(&n, dtype)| tensor(&mut random, dtype, n, k)).collect();
        let x = random.values(3 * k);
        for kernels in Kernels::available() {
            let y = product(kernels, &parts.iter().collect::<Vec<_>>(), &x, 3);
            let mut column = 0;
            for part in &parts {
                let alone = product(kernels, &[part], &x, 3);
                for i in 0..3 {
                    let n = part.rows();
                    assert_eq!(bits(&y[i * 69 + column..][..n]), bits(&alone[i * n..][..n]), "{}", part.name);
                }
                column += part.rows();
            }
        }
    }
}

#[test]
fn unusual_activations() {
    let mut random = Random(8);
    let w = tensor(&mut random, DType::Q8_0, 20, 64);
    let nibbles = tensor(&mut random, DType::Q4_0, 20, 64);
    let mut x = random.values(6 * 64);
    x[3] = f32::NAN;
    x[64 + 5] = f32::INFINITY;
    x[128..192].fill(0.0);
    x[192..256].fill(1e-38);
    x[256..320].fill(-127.0);
    x[320] = 3.0e38;
    same_everywhere("unusual activations", |kernels| product(kernels, &[&w], &x, 6));
    same_everywhere("unusual activations", |kernels| product(kernels, &[&nibbles], &x, 6));
    let y = product(scalar(), &[&w], &x, 6);
    assert!(y[..40].iter().all(|y| !y.is_finite()), "NaN and infinity show in the result");
    assert!(y[40..80].iter().all(|&y| y == 0.0), "zero and nearly zero");
}

#[test]
fn bad_weights_are_refused() {
    let mut random = Random(9);
    let kernels = scalar();
    for (dtype, at) in [(DType::Q8_0, 34), (DType::Q4_0, 18), (DType::Q4_K, 0), (DType::Q4_K, 146)] {
        let mut w = tensor(&mut random, dtype, 4, 2 * dtype.block_len());
        let mut data = w.data.to_vec();
        let at = 3 * 2 * dtype.block_bytes() + at;
        data[at..at + 2].copy_from_slice(&[0x00, 0x7c]);
        w.data = Bytes::from_vec(data);
        let message = Matrix::new(kernels, &[&w]).err().unwrap().to_string();
        assert!(message.contains("row 3") && message.contains("inf") && message.contains(&w.name), "{message}");
    }

    let narrow = tensor(&mut random, DType::F32, 4, 32);
    let wide = tensor(&mut random, DType::F32, 4, 33);
    assert!(Matrix::new(kernels, &[&narrow, &wide]).err().unwrap().to_string().contains("rows of 32 values, found 33"));
    let mut short = narrow.clone();
    short.shape = vec![5, 32];
    assert!(Matrix::new(kernels, &[&short]).err().unwrap().to_string().contains("expected 640 bytes, found 512"));
}

/// Attention in f64: the result `[queries, inner]` and the weights `[queries, heads, len]`.
fn attention_in_f64(
    heads: Heads,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    bias: impl Fn(usize, usize, usize) -> f32,
) -> (Vec<f64>, Vec<f64>) {
    let inner = heads.count * heads.width;
    let (count, len) = (q.len() / inner, keys.len() / inner);
    let mut out = vec![0.0; count * inner];
    let mut all_weights = Vec::new();
    for query in 0..count {
        for head in 0..heads.count {
            let at = |row: usize| row * inner + head * heads.width..row * inner + (head + 1) * heads.width;
            let score = |p: usize| {
                let products = q[at(query)].iter().zip(&keys[at(p)]).map(|(&q, &k)| f64::from(q) * f64::from(k));
                products.sum::<f64>() + f64::from(bias(query, head, p))
            };
            let exponentials: Vec<f64> = (0..len).map(|p| score(p).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            for (p, e) in exponentials.iter().enumerate() {
                for (out, &value) in out[at(query)].iter_mut().zip(&values[at(p)]) {
                    *out += e / sum * f64::from(value);
                }
                all_weights.push(e / sum);
            }
        }
    }
    (out, all_weights)
}

const NUMBERS: [Numbers; 2] = [Numbers::Floats, Numbers::Integers];

/// Queries, keys and values of a document, with scores of a few units, as in a model, and biases.
struct Document {
    heads: Heads,
    len: usize,
    /// `[len, 3 * inner]`
    qkv: Vec<f32>,
    table: Vec<f32>,
}

impl Document {
    fn all(seed: u64) -> impl Iterator<Item = Document> {
        let mut random = Random(seed);
        let shapes = cases(&[(1, 64), (2, 64), (3, 16), (2, 20), (4, 5), (1, 128), (1, 130)], &[(1, 20)]);
        let lengths = cases(&[1, 2, 15, 16, 17, 33, 40, 100], &[2, 17]);
        shapes.iter().flat_map(|&shape| lengths.iter().map(move |&len| (shape, len))).map(
            move |((count, width), len)| {
                let heads = Heads { count, width };
                let qkv = random.values(len * 3 * count * width).iter().map(|x| x * 1.5).collect();
                Document { heads, len, qkv, table: random.values(count * (2 * len + 3)) }
            },
        )
    }

    fn inner(&self) -> usize {
        self.heads.count * self.heads.width
    }

    /// Queries, keys or values, `[len, inner]`.
    fn column(&self, i: usize) -> Vec<f32> {
        let inner = self.inner();
        self.qkv.chunks_exact(3 * inner).flat_map(|row| row[i * inner..(i + 1) * inner].to_vec()).collect()
    }

    fn bias(&self) -> BiasRow<'_> {
        BiasRow { values: &self.table, head_stride: 2 * self.len + 3, offset: self.len + 2 }
    }

    fn bias_at(&self, query: usize, head: usize, p: usize) -> f32 {
        self.table[head * (2 * self.len + 3) + self.len + 2 - query + p]
    }

    fn name(&self) -> String {
        format!("attention of {} x {} over {}", self.heads.count, self.heads.width, self.len)
    }
}

#[test]
fn attention_over_documents() {
    for (document, numbers) in Document::all(10).flat_map(|document| {
        let document = std::rc::Rc::new(document);
        NUMBERS.map(|numbers| (document.clone(), numbers))
    }) {
        let (heads, len, inner) = (document.heads, document.len, document.inner());
        let (q, keys, values) = (document.column(0), document.column(1), document.column(2));
        let name = format!("{} in {numbers:?}", document.name());
        // Integers round each factor of a score, of up to 1.5, to a multiple of 1.5 / 4095: at 128 factors the score's error
        // has a standard deviation of 0.29 (1.5 / 4095) 0.87 sqrt(2 · 128) = 1.5e-3. Four of them, relative to values of up to
        // 1.5 and weights of up to 1 (p (1 - p) is at most a quarter).
        let (close, close_weights) = if numbers == Numbers::Floats { (1e-4, 1e-5) } else { (9e-3, 1.5e-3) };

        let all = |kernels: Kernels| {
            let mut out = vec![f32::NAN; len * inner];
            let bias = document.bias();
            kernels.attend_all(numbers, heads, &document.qkv, bias, &mut out, &mut Workspace::default()).unwrap();
            out
        };
        same_everywhere(&name, all);
        let bias_at = |query, head, p| document.bias_at(query, head, p);
        let (truth, _) = attention_in_f64(heads, &q, &keys, &values, bias_at);
        assert_close(&name, &all(scalar()), truth, close);

        let (truth, weights) = attention_in_f64(heads, &q, &keys, &values, |_, _, _| 0.0);
        let across = |kernels: Kernels, queries: std::ops::Range<usize>| {
            let mut source = PackedKeyValues::default();
            // Twice: what was there before must not shine through.
            source.begin(numbers, heads, len + 3, 2).unwrap();
            let longer = [&keys[..], &vec![f32::NAN; 3 * inner]].concat();
            source.pack(kernels, 1, &longer, &longer);
            source.begin(numbers, heads, len, 2).unwrap();
            source.pack(kernels, 0, &values, &keys);
            source.pack(kernels, 1, &keys, &values);
            let mut out = vec![f32::NAN; queries.len() * inner];
            let mut weights = vec![0.0; queries.len() * len];
            let alignment = Alignment { share: 1.0 / heads.count as f32, out: &mut weights };
            let q = &q[queries.start * inner..queries.end * inner];
            kernels.attend_packed(q, &source, 1, &mut out, Some(alignment), &mut Workspace::default());
            (out, weights)
        };
        same_everywhere(&name, |kernels| {
            let (out, weights) = across(kernels, 0..len);
            [out, weights].concat()
        });
        let (out, found) = across(scalar(), 0..len);
        assert_close(&name, &out, truth.iter().copied(), close);
        let mean = (0..len * len).map(|i| {
            let (query, p) = (i / len, i % len);
            (0..heads.count).map(|head| weights[(query * heads.count + head) * len + p]).sum::<f64>()
                / heads.count as f64
        });
        assert_close(&name, &found, mean, close_weights);

        for kernels in Kernels::available() {
            let whole = across(kernels, 0..len);
            for query in [0, len / 2, len - 1] {
                let alone = across(kernels, query..query + 1);
                assert_eq!(bits(&alone.0), bits(&whole.0[query * inner..(query + 1) * inner]), "{name}");
                assert_eq!(bits(&alone.1), bits(&whole.1[query * len..(query + 1) * len]), "{name}");
            }
        }
    }
}

/// The growing cache, of which positions are taken from two slots in turn.
#[test]
fn attention_over_a_growing_cache() {
    for document in Document::all(11) {
        let (heads, len, inner) = (document.heads, document.len, document.inner());
        let Heads { count, width } = heads;
        let (q, keys, values) = (document.column(0), document.column(1), document.column(2));
        let slots: Vec<u32> = (0..len).map(|p| (p % 2) as u32).collect();
        let positions = len + 3;
        let spread = |rows: &[f32]| -> Vec<f32> {
            let mut out = vec![f32::NAN; 2 * positions * inner];
            for (p, row) in rows.chunks_exact(inner).enumerate() {
                for (head, row) in row.chunks_exact(width).enumerate() {
                    let at = ((p % 2 * count + head) * positions + p) * width;
                    out[at..at + width].copy_from_slice(row);
                }
            }
            out
        };
        let (cache_keys, cache_values) = (spread(&keys), spread(&values));
        let query = len - 1;
        let step = |kernels: Kernels| {
            let cache = KeyValues { keys: &cache_keys, values: &cache_values, positions, slots: &slots };
            let bias = document.bias();
            let bias = BiasRow { offset: bias.offset - query, ..bias };
            let mut out = vec![f32::NAN; inner];
            let mut scores = vec![f32::NAN; count * len];
            let q = &q[query * inner..];
            kernels.attend(heads, q, cache, Some(bias), &mut scores, &mut out);
            [out, scores].concat()
        };
        let name = document.name();
        same_everywhere(&name, step);
        let bias_at = |_, head, p| document.bias_at(query, head, p);
        let (truth, weights) = attention_in_f64(heads, &q[query * inner..], &keys, &values, bias_at);
        assert_close(&name, &step(scalar()), truth.into_iter().chain(weights), 1e-4);
    }
}

/// What no product can be computed of shows in the result.
#[test]
fn attention_shows_what_is_not_a_number() {
    let heads = Heads { count: 1, width: 16 };
    let bias = BiasRow { values: &[0.0; 20], head_stride: 20, offset: 10 };
    for (numbers, broken) in NUMBERS.into_iter().flat_map(|numbers| [f32::NAN, f32::INFINITY].map(|x| (numbers, x))) {
        for column in 0..3 {
            let mut qkv = vec![0.5; 5 * 48];
            qkv[2 * 48 + column * 16 + 3] = broken;
            for kernels in Kernels::available() {
                let mut out = vec![0.0; 5 * 16];
                kernels.attend_all(numbers, heads, &qkv, bias, &mut out, &mut Workspace::default()).unwrap();
                // A query spoils its own row, a key or a value all of them.
                let rows = if column == 0 { 2..3 } else { 0..5 };
                let spoilt = |row: usize| out[row * 16..(row + 1) * 16].iter().any(|x| !x.is_finite());
                assert!(rows.clone().all(spoilt), "{numbers:?}, {broken} in column {column}");
                assert!((0..5).filter(|row| !rows.contains(row)).all(|row| !spoilt(row)), "{numbers:?}");
            }
        }
    }
}

/// Two planes of nibbles hold the same weights and find the same largest product, whatever it is.
#[test]
fn planes() {
    let mut random = Random(12);
    for &(n, k) in cases(&[(1, 32), (16, 64), (100, 256), (777, 512)], &[(45, 32)]) {
        let mut weights: Vec<u8> = (0..n * k / 32 * 34).map(|_| random.bits() as u8).collect();
        for (block, bytes) in weights.chunks_exact_mut(34).enumerate() {
            // Scales from 2^-14 to 2^-11; in places rows are equal, so that the first must win.
            bytes[..2].copy_from_slice(&(0x0400 + (block * 37 % 0x0c00) as u16).to_le_bytes());
        }
        if n > 40 {
            weights.copy_within(20 * k / 32 * 34..21 * k / 32 * 34, 33 * k / 32 * 34);
        }
        let tensor = Tensor {
            name: "head".to_owned(),
            file: "test".to_owned(),
            dtype: DType::Q8_0,
            shape: vec![n, k],
            data: Bytes::from_vec(weights.clone()),
        };
        for round in 0..if cfg!(miri) { 3 } else { 20 } {
            let mut x = random.values(k);
            match round {
                // The products of row 20 and its copy are the largest.
                0 if n > 40 => {
                    for (x, block) in x.chunks_exact_mut(32).zip(weights[20 * k / 32 * 34..].chunks_exact(34)) {
                        x.iter_mut().zip(&block[2..]).for_each(|(x, &w)| *x = f32::from(w as i8));
                    }
                }
                1 => x.fill(0.0),
                2 => x[k / 2] = f32::NAN,
                3 => x.iter_mut().for_each(|x| *x *= 1e-33),
                4 => x[0] = 1e30,
                _ => {}
            }
            for kernels in Kernels::available() {
                let name = format!("{n} x {k}, round {round}, {}", kernels.isa().name());
                let whole = Matrix::new(kernels, &[&tensor]).unwrap();
                let planes = Matrix::in_planes(kernels, &tensor).unwrap();
                for i in [0, n / 2, n - 1] {
                    let mut rows = [(); 3].map(|()| vec![f32::NAN; k]);
                    block::decode(DType::Q8_0, tensor.row_data(i), &mut rows[0]);
                    whole.row(kernels, i, &mut rows[1]);
                    planes.row(kernels, i, &mut rows[2]);
                    assert_eq!([bits(&rows[1]), bits(&rows[2])], [(); 2].map(|()| bits(&rows[0])), "{name}");
                }
                let mut workspace = Workspace::default();
                for &rows in cases(&[1, 5], &[3]) {
                    let x = x.repeat(rows);
                    let mut results = [(); 2].map(|()| vec![f32::NAN; rows * n]);
                    whole.multiply(kernels, &x, rows, &mut results[0], &mut workspace);
                    planes.multiply(kernels, &x, rows, &mut results[1], &mut workspace);
                    assert_eq!(bits(&results[0]), bits(&results[1]), "{name}");
                }
                let mut y = vec![0.0; n];
                let best = whole.argmax(kernels, &x, &[], &mut y, &mut workspace);
                if round == 0 && n > 40 {
                    assert_eq!(best, Some(20), "{name}");
                }
                let mut except = Vec::new();
                for _ in 0..3.min(n) {
                    let expected = whole.argmax(kernels, &x, &except, &mut y, &mut workspace);
                    assert_eq!(planes.argmax(kernels, &x, &except, &mut y, &mut workspace), expected, "{name}");
                    except.extend(expected.map(|index| index as u32));
                }
            }
        }
    }
}

/// An int8 copy of floats finds the same largest product, whatever the weights and the inputs are.
#[test]
fn copies_in_int8() {
    let mut random = Random(15);
    let shapes = cases(&[(1, 32), (16, 64), (100, 256), (333, 512)], &[(45, 32)]);
    for (&(n, k), dtype) in shapes.iter().flat_map(|shape| [DType::F32, DType::F16, DType::BF16].map(|d| (shape, d))) {
        // Columns as different as those of a model: inputs are large where weights are small.
        let column = |i: usize| 2f32.powi((i * 7 % 9) as i32 - 4);
        let mut values: Vec<f32> =
            random.values(n * k).iter().enumerate().map(|(i, x)| x * column(i % k) * 0.1).collect();
        if n > 40 {
            // Equal rows, of which the first must win; rows that int8 cannot hold; a row of zeros; a tiny one.
            values.copy_within(20 * k..21 * k, 33 * k);
            values[5 * k] = f32::INFINITY;
            values[6 * k + 1] = f32::NAN;
            values[7 * k..8 * k].fill(0.0);
            values[8 * k..9 * k].iter_mut().for_each(|x| *x *= 1e-7);
            if dtype != DType::F16 {
                values[9 * k + 3] = 1e30;
            }
        }
        let bytes = values.iter().flat_map(|&x| match dtype {
            DType::F32 => x.to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
            _ => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        });
        let data = Bytes::from_vec(bytes.collect());
        let tensor = Tensor { name: "head".to_owned(), file: "test".to_owned(), dtype, shape: vec![n, k], data };
        for round in 0..if cfg!(miri) { 3 } else { 12 } {
            let mut x: Vec<f32> = random.values(k).iter().enumerate().map(|(i, x)| x / column(i)).collect();
            match round {
                0 if n > 40 => x.copy_from_slice(&values[20 * k..21 * k]),
                1 => x.fill(0.0),
                2 => x[k / 2] = f32::NAN,
                3 => x.iter_mut().for_each(|x| *x *= 1e-33),
                4 => x[0] = 1e30,
                // The infinite weight makes its row's product infinite, of either sign, or no number.
                5 => x[0] = 0.0,
                6 => x[0] = x[0].abs(),
                _ => x[0] = -x[0].abs(),
            }
            for kernels in Kernels::available() {
                let name = format!("{n} x {k}, {dtype}, round {round}, {}", kernels.isa().name());
                let whole = Matrix::new(kernels, &[&tensor]).unwrap();
                let mut copied = Matrix::new(kernels, &[&tensor]).unwrap();
                copied.copy(kernels);
                assert!(copied.argmax_bytes() < whole.argmax_bytes(), "{name}: there is a copy");
                let (mut workspace, mut y, mut except) = (Workspace::default(), vec![0.0; n], Vec::new());
                for _ in 0..3.min(n) {
                    let expected = whole.argmax(kernels, &x, &except, &mut y, &mut workspace);
                    assert_eq!(copied.argmax(kernels, &x, &except, &mut y, &mut workspace), expected, "{name}");
                    except.extend(expected.map(|index| index as u32));
                }
            }
        }
    }
}

/// Rows so small that the squares of their values vanish are still told apart.
#[test]
fn copies_of_next_to_nothing() {
    let (n, k) = (48, 32);
    let value = |row: usize| match row {
        3 => 1e-25f32,
        30 => 2e-25,
        _ => -1.0,
    };
    let data = (0..n).flat_map(|row| value(row).to_le_bytes().repeat(k)).collect();
    let (name, file, data) = ("head".to_owned(), "test".to_owned(), Bytes::from_vec(data));
    let tensor = Tensor { name, file, dtype: DType::F32, shape: vec![n, k], data };
    for kernels in Kernels::available() {
        let mut copied = Matrix::new(kernels, &[&tensor]).unwrap();
        copied.copy(kernels);
        let best = copied.argmax(kernels, &vec![1.0; k], &[], &mut vec![0.0; n], &mut Workspace::default());
        assert_eq!(best, Some(30), "{}", kernels.isa().name());
    }
}
