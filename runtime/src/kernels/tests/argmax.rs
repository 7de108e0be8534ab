//! The largest product by bounds: of weights in two planes, and of an int8 copy of floats.

use super::*;

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
            scale: 1.0,
        };
        for round in 0..if cfg!(miri) { 1 } else { 20 } {
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
        let tensor =
            Tensor { name: "head".to_owned(), file: "test".to_owned(), dtype, shape: vec![n, k], data, scale: 1.0 };
        for round in 0..if cfg!(miri) { 1 } else { 12 } {
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
    let tensor = Tensor { name, file, dtype: DType::F32, shape: vec![n, k], data, scale: 1.0 };
    for kernels in Kernels::available() {
        let mut copied = Matrix::new(kernels, &[&tensor]).unwrap();
        copied.copy(kernels);
        let best = copied.argmax(kernels, &vec![1.0; k], &[], &mut vec![0.0; n], &mut Workspace::default());
        assert_eq!(best, Some(30), "{}", kernels.isa().name());
    }
}
