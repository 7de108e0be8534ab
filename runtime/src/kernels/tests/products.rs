//! Products of every type of weights.

use super::*;

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

/// Makes every `run` blocks of a row have the scale of the first.
fn in_runs(mut w: Tensor, run: usize) -> Tensor {
    let mut bytes = w.data.to_vec();
    for run in bytes.as_chunks_mut::<34>().0.chunks_mut(run) {
        let scale = [run[0][0], run[0][1]];
        run.iter_mut().for_each(|block| block[..2].copy_from_slice(&scale));
    }
    w.data = Bytes::from_vec(bytes);
    w
}

/// Where neighbouring blocks have one scale in all rows, so have the activations, and one sum spans them.
#[test]
fn runs_are_as_specified() {
    let mut random = Random(15);
    // Also what two runs of scales in one product, an odd number of groups and rows of no whole run come to.
    let all = [(2, 2, 2), (4, 4, 4), (8, 8, 8), (4, 12, 4), (8, 12, 4), (4, 16, 4), (8, 64, 8), (3, 12, 1)].as_slice();
    for &(given, blocks, run) in if cfg!(miri) { &all[..1] } else { all } {
        let k = 32 * blocks;
        for &n in cases(&[7, 16, 32, 40, 100], &[17]) {
            let w = in_runs(tensor(&mut random, DType::Q8_0, n, k), given);
            // The last are more than are kept in the second-level cache at once.
            let rows: &[usize] = cases(&[1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 24, 33, 208], &[3]);
            for &m in if (blocks, n) == (64, 40) { rows } else { &rows[..rows.len().min(12)] } {
                let x: Vec<f32> = random.values(m * k).iter().map(|x| x * 3.0).collect();
                let mut expected = Vec::new();
                for x in x.chunks(k) {
                    for row in 0..n {
                        let mut y = 0f32;
                        for (blocks, x) in w.row_data(row).chunks(34 * run).zip(x.chunks(32 * run)) {
                            let absmax = x.iter().fold(0f32, |max, x| max.max(x.abs()));
                            let values = x.iter().map(|x| (x * (127.0 / absmax)).round_ties_even() as i32);
                            let weights = blocks.chunks(34).flat_map(|block| &block[2..]);
                            let sum: i32 = values.zip(weights).map(|(a, &w)| a * i32::from(w as i8)).sum();
                            let scale = half::f16::from_le_bytes([blocks[0], blocks[1]]).to_f32();
                            y += sum as f32 * (scale * (absmax * (1.0 / 127.0)));
                        }
                        expected.push(y);
                    }
                }
                same_everywhere(&format!("{m} x {k} x {n} in runs of {run}"), |kernels| {
                    let y = product(kernels, &[&w], &x, m);
                    assert_eq!(bits(&y), bits(&expected), "{m} x {k} x {n} in runs of {run}");
                    y
                });
            }
        }
    }
}

/// Zeros that are left out change no bit, also where a whole run is zero, or a value is NaN.
#[test]
fn zeros_are_left_out() {
    let mut random = Random(17);
    let all = [(1, 4), (1, 32), (2, 8), (4, 8), (8, 16)].as_slice();
    for &(run, blocks) in if cfg!(miri) { &all[..1] } else { all } {
        let k = 32 * blocks;
        for &n in cases(&[7, 32, 40], &[17]) {
            let w = in_runs(tensor(&mut random, DType::Q8_0, n, k), run);
            for &m in cases(&[1, 2, 13], &[1]) {
                let mut x = random.values(m * k);
                for (place, four) in x.chunks_mut(4).enumerate() {
                    // Three of four steps, and all of every third block.
                    if !random.bits().is_multiple_of(4) || (place / 8).is_multiple_of(3) {
                        four.fill(0.0);
                    }
                }
                if (m, n) == (1, 7) || m == 13 {
                    x[k / 2 + 40] = f32::NAN;
                }
                same_everywhere(&format!("{m} x {k} x {n} in runs of {run}"), |kernels| {
                    let matrix = Matrix::new(kernels, &[&w]).unwrap();
                    let (mut dense, mut sparse) = (vec![f32::NAN; m * n], vec![f32::INFINITY; m * n]);
                    let mut workspace = Workspace::default();
                    matrix.multiply(kernels, &x, m, &mut dense, &mut workspace);
                    matrix.for_zeros().multiply(kernels, &x, m, &mut sparse, &mut workspace);
                    assert_eq!(bits(&sparse), bits(&dense));
                    let steps = ["i8mm", "simd128", "relaxed"].iter().all(|&name| kernels.isa().name() != name);
                    assert_eq!(workspace.leaves_zeros_out(), m == 1 && steps, "{}", kernels.isa().name());
                    sparse
                });
            }
        }
    }
}

/// Stacked parts are one product, which takes the shortest of their runs; rows of activations of a run of which one is
/// NaN show it.
#[test]
fn runs_of_parts_are_the_shortest() {
    let mut random = Random(16);
    let (n, k) = (19, 256);
    let long = in_runs(tensor(&mut random, DType::Q8_0, n, k), 8);
    let short = in_runs(tensor(&mut random, DType::Q8_0, n, k), 4);
    let mut both = short.clone();
    both.shape[0] = 2 * n;
    both.data = Bytes::from_vec([&short.data[..], &long.data[..]].concat());
    let mut x = random.values(7 * k);
    x[k + 3] = f32::NAN;
    for kernels in Kernels::available() {
        let y = product(kernels, &[&short, &long], &x, 7);
        assert_eq!(bits(&y), bits(&product(kernels, &[&both], &x, 7)));
        for (row, y) in y.chunks(2 * n).enumerate() {
            assert!(y.iter().all(|y| y.is_nan() == (row == 1)), "row {row} on {}", kernels.isa().name());
        }
        // The order of rows does not count, nor do threads.
        let swapped = product(kernels, &[&long, &short], &x, 7);
        for (y, swapped) in y.chunks(2 * n).zip(swapped.chunks(2 * n)) {
            assert_eq!(bits(&y[n..]), bits(&swapped[..n]));
        }
        let matrix = Matrix::new(kernels, &[&short, &long]).unwrap();
        let mut workspace = Workspace::default();
        workspace.set_threads(3);
        let mut threaded = vec![0.0; y.len()];
        matrix.multiply(kernels, &x, 7, &mut threaded, &mut workspace);
        assert_eq!(bits(&threaded), bits(&y));
    }
}

/// What argmax reads has no runs, so that its two layouts agree.
#[test]
fn heads_have_no_runs() {
    let mut random = Random(17);
    let (n, k) = (40, 256);
    let w = in_runs(tensor(&mut random, DType::Q8_0, n, k), 8);
    let x = random.values(k);
    for kernels in Kernels::available() {
        let head = Matrix::made_for(Purpose::Argmax, kernels, &[&w]).unwrap();
        let planes = Matrix::in_planes(kernels, &w).unwrap();
        let [mut first, mut second] = [vec![0.0; n], vec![0.0; n]];
        head.multiply(kernels, &x, 1, &mut first, &mut Workspace::default());
        planes.multiply(kernels, &x, 1, &mut second, &mut Workspace::default());
        assert_eq!(bits(&first), bits(&second), "{}", kernels.isa().name());
    }
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
