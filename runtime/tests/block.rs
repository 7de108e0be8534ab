//! Block codecs against the `gguf` Python package (golden/blocks.py) and against their own rules.

use proptest::prelude::*;
use t5_runtime::block::{self, EncodeError, WRITABLE};
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::{DType, Tensor};

fn bytes(hex: &serde_json::Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn floats(hex: &serde_json::Value) -> Vec<f32> {
    bytes(hex).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden/blocks.json")).unwrap()
}

fn encode(dtype: DType, values: &[f32]) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0; dtype.row_bytes(values.len()).unwrap()];
    block::encode(dtype, values, &mut out).map(|()| out)
}

fn decode(dtype: DType, data: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; data.len() / dtype.block_bytes() * dtype.block_len()];
    block::decode(dtype, data, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    // One NaN is as good as another.
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

#[test]
fn every_type_decodes_to_the_reference_values() {
    let golden = golden();
    for dtype in DType::ALL {
        if dtype == DType::F32 {
            assert_eq!(decode(dtype, &1.5f32.to_le_bytes()), [1.5]);
            continue;
        }
        let case = &golden["decode"][dtype.name()];
        assert_eq!(bits(&decode(dtype, &bytes(&case["data"]))), bits(&floats(&case["values"])), "{dtype}");
    }
}

#[test]
fn simple_types_encode_to_the_reference_bytes() {
    let golden = golden();
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0] {
        let case = &golden["encode"][dtype.name()];
        assert_eq!(encode(dtype, &floats(&case["values"])).unwrap(), bytes(&case["data"]), "{dtype}");
    }
}

#[test]
fn q8_0_of_zeros_and_of_a_full_range() {
    assert_eq!(encode(DType::Q8_0, &[0.0; 32]).unwrap(), [0; 34]);
    let mut values = [0f32; 32];
    (values[0], values[1], values[2], values[3], values[4]) = (127.0, -127.0, 0.5, -0.5, 2.5);
    let data = encode(DType::Q8_0, &values).unwrap();
    assert_eq!(data[..2], [0x00, 0x3C], "d = 1 as a half");
    assert_eq!(data[2..7], [127, 129, 1, 255, 3], "ties round away from zero");
    assert_eq!(data[7..], [0; 27]);
}

#[test]
fn q4_0_of_minus_eight_to_seven_is_exact() {
    let values: Vec<f32> = (0..32).map(|i| (i % 16 - 8) as f32).collect();
    let data = encode(DType::Q4_0, &values).unwrap();
    assert_eq!(data[..2], [0x00, 0x3C], "d = -8 / -8");
    for j in 0..16 {
        assert_eq!(data[2 + j], j as u8 | (j as u8) << 4, "nibble = value + 8");
    }
    assert_eq!(decode(DType::Q4_0, &data), values);
}

#[test]
fn q4_k_keeps_what_it_can_hold_exactly() {
    // Every sub-block uses all of 0..=15 times a scale of its own, less a minimum of its own.
    let values: Vec<f32> = (0..256)
        .map(|i| {
            let (sub, q) = (i / 32, (i * 7) % 16);
            let (scale, min) =
                ([63.0, 1.0, 2.0, 30.0, 17.0, 62.0, 5.0, 8.0], [0.0, 63.0, 1.0, 2.0, 31.0, 3.0, 15.0, 16.0]);
            scale[sub] * q as f32 * 0.5 - min[sub] * 0.25
        })
        .collect();
    let decoded = decode(DType::Q4_K, &encode(DType::Q4_K, &values).unwrap());
    for (i, (value, decoded)) in values.iter().zip(&decoded).enumerate() {
        // d and dmin are halves found by least squares: a relative error of 2^-11 of the sub-block's largest.
        let largest = values[i / 32 * 32..][..32].iter().fold(0f32, |max, value| max.max(value.abs()));
        assert!((value - decoded).abs() <= largest * 0.001, "value {i}: {value} became {decoded}");
    }
    assert_eq!(encode(DType::Q4_K, &[0.0; 256]).unwrap()[..4], [0; 4]);
    assert_eq!(decode(DType::Q4_K, &encode(DType::Q4_K, &[0.0; 256]).unwrap()), [0.0; 256]);
    for constant in [3.0, -3.0] {
        let decoded = decode(DType::Q4_K, &encode(DType::Q4_K, &[constant; 256]).unwrap());
        assert!(decoded.iter().all(|decoded| (decoded - constant).abs() < 0.003), "{constant}: {decoded:?}");
    }
}

/// Pseudo-random values with about a normal distribution.
fn normal(count: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * scale).collect()
}

#[test]
fn q4_k_loses_less_than_the_usual_search() {
    // Relative RMS error of these values on 2026-11-23: 0.06946; with the search that llama.cpp describes, 0.07030.
    let values = normal(256 * 200, 0.05);
    let decoded = decode(DType::Q4_K, &encode(DType::Q4_K, &values).unwrap());
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value * value)).sum::<f64>();
    let error = square(&mut values.iter().zip(&decoded).map(|(a, b)| a - b)) / square(&mut values.iter().copied());
    assert!(error.sqrt() < 0.0700, "{}", error.sqrt());
}

#[test]
fn values_that_cannot_be_stored_are_refused_with_their_place() {
    for dtype in WRITABLE {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.25; 512];
            values[300] = bad;
            let error = encode(dtype, &values).unwrap_err();
            assert!(matches!(error, EncodeError::NotFinite { index: 300, .. }), "{dtype}: {error}");
            assert_eq!(error.to_string(), format!("value 300: expected a finite number, found {bad}"));
        }
    }
    // The largest half is 65504; half of the step to the next rounds down to it.
    for (dtype, fits, too_large) in [
        (DType::F16, 65519.0f32, 65520.0f32),
        (DType::BF16, 3.389e38, 3.4e38),
        (DType::Q8_0, 65519.0 * 127.0, 65520.0 * 127.0),
        (DType::Q4_0, -65519.0 * 8.0, -65520.0 * 8.0),
        (DType::Q4_K, 5.5e7, 6.5e7),
        (DType::Q4_K, -4.0e6, -4.5e6),
        (DType::Q4_K, 5.5e7, 3e38),
        (DType::Q4_K, 5.5e7, -3e38),
    ] {
        let mut values = vec![0.25; 512];
        values[300] = fits;
        let decoded = decode(dtype, &encode(dtype, &values).unwrap());
        assert!(
            (decoded[300] / fits - 1.0).abs() < 0.04 && decoded.iter().all(|x| x.is_finite()),
            "{dtype} {fits}: {}",
            decoded[300]
        );
        values[300] = too_large;
        let error = encode(dtype, &values).unwrap_err();
        assert_eq!(error, EncodeError::Overflow { index: 300, value: too_large, dtype });
        assert!(error.to_string().starts_with(&format!("value 300: expected a number that {dtype} can hold, found")));
    }
    let all = encode(DType::F32, &[f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45]).unwrap();
    assert_eq!(decode(DType::F32, &all), [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45]);
}

#[test]
fn types_without_an_encoder_say_so() {
    for dtype in DType::ALL {
        let result = encode(dtype, &[0.0; 256]);
        if WRITABLE.contains(&dtype) {
            assert!(result.is_ok(), "{dtype}");
        } else {
            assert_eq!(result, Err(EncodeError::NotWritable(dtype)));
        }
    }
    assert_eq!(EncodeError::NotWritable(DType::Q6_K).to_string(), "q6_k can be read but not written");
}

fn tensor(dtype: DType, shape: &[usize], data: Vec<u8>) -> Tensor {
    Tensor {
        name: "a.weight".to_owned(),
        file: "x.gguf".to_owned(),
        dtype,
        shape: shape.to_vec(),
        data: Bytes::from_vec(data),
        scale: 1.0,
    }
}

#[test]
fn stored_scales_that_are_not_finite_are_found() {
    let halves = [
        (DType::Q8_0, &[0usize][..]),
        (DType::Q4_0, &[0]),
        (DType::Q4_1, &[0, 2]),
        (DType::Q5_0, &[0]),
        (DType::Q5_1, &[0, 2]),
        (DType::Q4_K, &[0, 2]),
        (DType::Q5_K, &[0, 2]),
        (DType::Q6_K, &[208]),
    ];
    for (dtype, places) in halves {
        let columns = 2 * dtype.block_len();
        let size = dtype.row_bytes(columns).unwrap() * 3;
        block::check(&tensor(dtype, &[3, columns], vec![0; size])).unwrap();
        for &place in places {
            for (bits, name) in [(0x7C00u16, "inf"), (0xFC00, "-inf"), (0x7E01, "NaN")] {
                let mut data = vec![0; size];
                // Row 2, block 1.
                data[size - dtype.block_bytes() + place..][..2].copy_from_slice(&bits.to_le_bytes());
                let error = block::check(&tensor(dtype, &[3, columns], data)).unwrap_err().to_string();
                assert_eq!(
                    error,
                    format!("x.gguf: tensor a.weight: row 2, block 1: expected a finite scale, found {name}")
                );
            }
        }
    }
}

#[test]
fn the_stored_q8_0_value_minus_128_is_found() {
    let mut data = vec![0x81; 34 * 4];
    data.chunks_mut(34).for_each(|block| block[1] = 0x3C);
    block::check(&tensor(DType::Q8_0, &[4, 32], data.clone())).unwrap();
    for value in 0..32 {
        let mut data = data.clone();
        data[34 + 2 + value] = 0x80;
        let error = block::check(&tensor(DType::Q8_0, &[4, 32], data)).unwrap_err().to_string();
        assert!(error.contains("row 1, block 0: expected values in [-127, 127], found -128"), "{error}");
    }
}

#[test]
fn a_tensor_of_the_wrong_size_is_an_error() {
    let short = tensor(DType::Q8_0, &[2, 32], vec![0; 67]);
    for error in [block::check(&short).unwrap_err(), block::decode_tensor(&short).unwrap_err()] {
        assert!(error.to_string().contains("expected 68 bytes, found 67"), "{error}");
    }
    // Longer than the runs in which halves are converted.
    let halves: Vec<u8> = (0..201u16).flat_map(|i| half::f16::from_f32(f32::from(i)).to_le_bytes()).collect();
    let expected: Vec<f32> = (0..201).map(|i| i as f32).collect();
    assert_eq!(decode(DType::F16, &halves), expected);
    assert_eq!(block::decode_tensor(&tensor(DType::BF16, &[2, 1], vec![0x80, 0x3F, 0, 0xC0])).unwrap(), [1.0, -2.0]);
}

proptest! {
    /// Any bits decode without a panic, and whatever decodes to finite numbers passes the check.
    #[test]
    fn any_bits_decode(data in proptest::collection::vec(any::<u8>(), 256)) {
        for dtype in DType::ALL {
            let data = &data[..256 / dtype.block_bytes() * dtype.block_bytes()];
            let values = decode(dtype, data);
            let checked = block::check(&tensor(dtype, &[values.len()], data.to_vec()));
            let minus_128 = dtype == DType::Q8_0 && data.chunks(34).any(|block| block[2..].contains(&0x80));
            if values.iter().all(|value| value.is_finite()) && !minus_128 && dtype.block_len() > 1 {
                // 0 × infinity is NaN, so a scale that is not finite shows in every block.
                prop_assert!(checked.is_ok(), "{dtype}");
            }
        }
    }

    /// Q8_0 loses at most half a step, plus the rounding of the step to half precision.
    #[test]
    fn q8_0_is_near(values in proptest::collection::vec(-3.0f32..3.0, 32), exponent in -6i32..6) {
        let values: Vec<f32> = values.iter().map(|value| value * 10f32.powi(exponent)).collect();
        let data = encode(DType::Q8_0, &values).unwrap();
        prop_assert!(!data[2..].contains(&0x80));
        let step = values.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
        // Below 2^-14 halves have steps of 2^-24.
        let half = (step / 2048.0).max(2f32.powi(-25));
        for (value, decoded) in values.iter().zip(decode(DType::Q8_0, &data)) {
            prop_assert!((value - decoded).abs() <= step * 0.5001 + 127.0 * half, "{value} became {decoded}");
        }
    }

    /// What was decoded from F16 or BF16 is stored as the same bits again.
    #[test]
    fn halves_survive(bits in any::<u16>()) {
        for dtype in [DType::F16, DType::BF16] {
            let value = decode(dtype, &bits.to_le_bytes())[0];
            if value.is_finite() {
                prop_assert_eq!(encode(dtype, &[value]).unwrap(), bits.to_le_bytes());
            }
        }
    }
}
