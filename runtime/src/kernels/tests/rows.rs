//! Functions of vectors and rows.

use super::*;

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
        for activation in [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::GeluNew] {
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
