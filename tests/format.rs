//! candle-core as a second opinion on block formats: it reads the same bytes to the same values, whoever wrote them.

use candle_core::quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml};
use candle_core::{Device, Tensor};
use proptest::prelude::*;
use t5_runtime::block;
use t5_runtime::gguf;
use t5_runtime::tensor::DType;

fn candle_type(dtype: DType) -> GgmlDType {
    match dtype {
        DType::F32 => GgmlDType::F32,
        DType::F16 => GgmlDType::F16,
        DType::BF16 => GgmlDType::BF16,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q4_K => GgmlDType::Q4K,
        DType::Q5_K => GgmlDType::Q5K,
        DType::Q6_K => GgmlDType::Q6K,
        DType::F8_E4M3 | DType::F8_E5M2 => unreachable!("no GGUF file has {dtype}"),
    }
}

/// What candle reads from the bytes of a row.
fn candle_decode(dtype: DType, bytes: &[u8], len: usize) -> Vec<f32> {
    let tensor = qtensor_from_ggml(candle_type(dtype), bytes, vec![len], &Device::Cpu).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

fn candle_encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, candle_type(dtype)).unwrap().data().unwrap().into_owned()
}

fn decode(dtype: DType, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    block::decode(dtype, bytes, &mut values);
    values
}

#[track_caller]
fn assert_same(dtype: DType, ours: &[f32], candle: &[f32]) {
    let differs = ours.iter().zip(candle).position(|(a, b)| a.to_bits() != b.to_bits() && *a != *b);
    assert!(differs.is_none() && ours.len() == candle.len(), "{dtype} differs at {differs:?}");
}

/// Two large blocks of values of some size that weights have; below a thousandth the scales of Q4_K are subnormal
/// halves. Made from a seed, which is all that a failure prints.
fn row(seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let size = 10f32.powf(5.0 * uniform() - 3.0);
    (0..512).map(|_| size * (2.0 * uniform() - 1.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_candle_writes_we_read_as_it_does(seed: u64) {
        let values = row(seed);
        for dtype in gguf::types() {
            let bytes = candle_encode(dtype, &values);
            prop_assert_eq!(Some(bytes.len()), dtype.row_bytes(values.len()), "{}", dtype);
            assert_same(dtype, &decode(dtype, &bytes, values.len()), &candle_decode(dtype, &bytes, values.len()));
        }
    }

    #[test]
    fn what_we_write_candle_reads_as_we_do(seed: u64) {
        let values = row(seed);
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for dtype in block::WRITABLE {
            let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
            block::encode(dtype, &values, &mut bytes).unwrap();
            let ours = decode(dtype, &bytes, values.len());
            assert_same(dtype, &ours, &candle_decode(dtype, &bytes, values.len()));
            // And they are the values. The coarsest type, Q4_0, counts from -8 to 7 eighths of the value largest in
            // size, so the other end falls short by an eighth, plus the rounding of the scale to half precision.
            for (value, read) in values.iter().zip(&ours) {
                prop_assert!((value - read).abs() <= largest * (0.125 + 0.001), "{}: {} became {}", dtype, value, read);
            }
        }
    }
}
