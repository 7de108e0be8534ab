//! The model composed of candle's operations, which runs on a GPU, against the fused operations: on the CPU they
//! give the same losses, gradients and dropout masks.

mod common;

use candle_core::Device;
use common::golden_config;
use t5_runtime::config::T5Config;
use t5_train::batches::Batch;
use t5_train::init::Scheme;
use t5_train::kernels::Precision;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::dropout::Plan;
use t5_train::ops::{Sequences, SoftTargets};

fn config(feed_forward: &str, tied: bool, model_type: &str) -> T5Config {
    let golden = golden_config(feed_forward, tied, model_type);
    T5Config { vocab_size: 50, d_model: 24, d_kv: 8, d_ff: 40, num_heads: 3, ..golden }
}

/// Examples of several lengths: two packed into the first row, one without a source in the second, and one whose
/// target is a single token in the third.
fn batch() -> Batch {
    let (enc_len, dec_len) = (17, 9);
    let examples: [&[(usize, usize)]; 3] = [&[(11, 4), (5, 5)], &[(0, 7)], &[(17, 1)]];
    let mut batch = Batch {
        encoder_ids: vec![0; 3 * enc_len],
        encoder_segments: vec![0; 3 * enc_len],
        decoder_input_ids: vec![0; 3 * dec_len],
        decoder_target_ids: vec![0; 3 * dec_len],
        decoder_segments: vec![0; 3 * dec_len],
        loss_weights: vec![0.0; 3 * dec_len],
        rows: 3,
        enc_len,
        dec_len,
    };
    for (row, examples) in examples.iter().enumerate() {
        let (mut source, mut target) = (row * enc_len, row * dec_len);
        for (segment, &(sources, targets)) in examples.iter().enumerate() {
            for at in source..source + sources {
                batch.encoder_ids[at] = (2 + at * 7 % 48) as u32;
                batch.encoder_segments[at] = segment as u32 + 1;
            }
            for at in target..target + targets {
                batch.decoder_input_ids[at] = if at == target { 0 } else { (at * 11 % 50) as u32 };
                batch.decoder_target_ids[at] = ((at + 1) * 11 % 50) as u32;
                batch.decoder_segments[at] = segment as u32 + 1;
                batch.loss_weights[at] = if at % 5 == 3 { 0.5 } else { 1.0 };
            }
            source += sources;
            target += targets;
        }
    }
    batch
}

const OPTIONS: LossOptions = LossOptions { label_smoothing: 0.1, z_loss: 1e-3, denominator: 13.0 };

/// The largest difference of the gradients, relative to the largest gradient of the tensor.
fn largest_difference(one: &Model, other: &Model) -> (f32, String) {
    let mut worst = (0.0, String::new());
    for (index, spec) in one.specs().iter().enumerate() {
        let (a, b) = (one.gradients().get(index), other.gradients().get(index));
        let size = a.iter().fold(0.0f32, |size, a| size.max(a.abs()));
        assert!(size > 0.0, "{}: no gradient", spec.hf_name);
        let difference = a.iter().zip(b.iter()).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / size;
        if difference > worst.0 {
            worst = (difference, spec.hf_name.clone());
        }
    }
    worst
}

#[test]
fn losses_and_gradients_are_those_of_the_fused_operations() {
    let plans = [
        Plan::OFF,
        Plan { rate: 0.1, seed: 7, shared_over_length: false },
        Plan { rate: 0.1, seed: 8, shared_over_length: true },
    ];
    for (feed_forward, tied, model_type) in [
        ("relu", true, "t5"),
        ("gated-gelu", false, "t5"),
        ("gated-silu", false, "umt5"),
        ("gelu", true, "t5"),
        ("gated-gelu_python", false, "t5"),
    ] {
        for plan in plans {
            let config = config(feed_forward, tied, model_type);
            let make = || Model::new(&config, Scheme::Mesh, 3).unwrap();
            let (fused, composed) = (make(), make().composed_on(Device::Cpu));
            let sequences = || {
                let mut sequences = Sequences::new(&batch(), config.vocab_size).unwrap();
                let tokens = sequences.decoder_target_ids.len() as u32;
                // A teacher of some of the passes.
                sequences.soft_targets = (plan.rate > 0.0).then(|| SoftTargets {
                    weight: 0.6,
                    temperature: 2.0,
                    classes: 2,
                    ids: (0..tokens).flat_map(|token| [token % 50, (token + 9) % 50]).collect(),
                    probabilities: (0..tokens).flat_map(|token| [0.5, 0.4 / (1 + token) as f32]).collect(),
                });
                sequences
            };
            let (loss, statistics) = fused.backward(sequences(), &OPTIONS, plan).unwrap();
            let (found, parts) = composed.backward(sequences(), &OPTIONS, plan).unwrap();
            let what = format!("{feed_forward} {model_type} {plan:?}");
            assert!((found / loss - 1.0).abs() < 1e-5, "{what}: loss {found}, expected {loss}");
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
            assert!(near(parts.negative_log_likelihood, statistics.negative_log_likelihood), "{what}");
            assert!(near(parts.z_loss, statistics.z_loss), "{what}");
            assert!(near(parts.divergence, statistics.divergence), "{what}");
            assert_eq!(statistics.divergence > 0.0, plan.rate > 0.0, "{what}");
            assert_eq!((parts.correct, parts.weight), (statistics.correct, statistics.weight), "{what}");
            let (difference, name) = largest_difference(&fused, &composed);
            assert!(difference < 1e-5, "{what}: {name}: gradients differ by {difference} of the largest");

            let (loss, _) = fused.evaluate(sequences(), &OPTIONS).unwrap();
            let (found, _) = composed.evaluate(sequences(), &OPTIONS).unwrap();
            assert!((found / loss - 1.0).abs() < 1e-5, "{what}: evaluation {found}, expected {loss}");
            let (logits, found) = (fused.logits(sequences()).unwrap(), composed.logits(sequences()).unwrap());
            let size = logits.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            let difference = logits.iter().zip(&found).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(difference < 1e-5 * size, "{what}: logits differ by {difference} of {size}");
        }
    }
}

#[test]
fn changed_parameters_reach_the_device() {
    let config = config("relu", true, "t5");
    let make = |seed| Model::new(&config, Scheme::Mesh, seed).unwrap();
    let (other, composed) = (make(4), make(3).composed_on(Device::Cpu));
    let sequences = || Sequences::new(&batch(), config.vocab_size).unwrap();
    let (before, _) = composed.evaluate(sequences(), &OPTIONS).unwrap();
    let index = |name: &str| other.specs().iter().position(|spec| spec.hf_name == name).unwrap();
    composed.load(|name| other.values(index(name))).unwrap();
    let (after, _) = composed.evaluate(sequences(), &OPTIONS).unwrap();
    let (expected, _) = other.evaluate(sequences(), &OPTIONS).unwrap();
    assert!((before / expected - 1.0).abs() > 1e-3, "{before} {expected}");
    assert!((after / expected - 1.0).abs() < 1e-5, "{after} {expected}");
}

#[test]
fn bf16_products_stay_near_f32() {
    let config = config("gated-gelu", false, "t5");
    let make = || Model::new(&config, Scheme::Mesh, 3).unwrap().composed_on(Device::Cpu);
    let (exact, rounded) = (make(), make().with_precision(Precision::Bf16).unwrap());
    let sequences = || Sequences::new(&batch(), config.vocab_size).unwrap();
    let (loss, _) = exact.backward(sequences(), &OPTIONS, Plan::OFF).unwrap();
    let (found, _) = rounded.backward(sequences(), &OPTIONS, Plan::OFF).unwrap();
    // bfloat16 keeps 8 bits: each rounding is off by 2^-9 = 0.002 at most, and some ten products follow each other.
    assert!(found != loss && (found / loss - 1.0).abs() < 0.02, "{found} {loss}");
    let (difference, name) = largest_difference(&exact, &rounded);
    assert!(difference < 0.1, "{name}: gradients differ by {difference} of the largest");
}
