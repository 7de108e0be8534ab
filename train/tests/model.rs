//! The trainable model against the specification's golden values and against numerical derivatives.

mod common;

use common::golden_config;
use t5_runtime::config::T5Config;
use t5_runtime::schema::{self, Role, TensorId};
use t5_train::batches::Batch;
use t5_train::checkpoint;
use t5_train::files::TensorFile;
use t5_train::init::Scheme;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::dropout::Plan;
use t5_train::ops::{Sequences, SoftTargets};

/// The values of docs/t5.md 8.2: a formula of the tensor's place in its order of generation, which differs from
/// the schema's (norms after the matrices of their layer).
fn golden_model(config: &T5Config) -> Model {
    let layer = |role: Role| match role {
        Role::TokenEmbedding => 0,
        Role::AttentionNorm => 6,
        Role::SelfQ => 1,
        Role::SelfK => 2,
        Role::SelfV => 3,
        Role::SelfO => 4,
        Role::RelativeBias => 5,
        Role::CrossQ => 7,
        Role::CrossK => 8,
        Role::CrossV => 9,
        Role::CrossO => 10,
        Role::CrossAttentionNorm => 11,
        Role::Wi | Role::Wi0 => 12,
        Role::Wi1 => 13,
        Role::Wo => 14,
        Role::FeedForwardNorm => 15,
        Role::FinalNorm => 16,
        Role::OutputHead => 17,
        Role::AdapterNorm | Role::AdapterDown | Role::AdapterUp => unreachable!("these models have no adapters"),
    };
    let mut order: Vec<_> = schema::tensors(config).iter().map(|spec| spec.id).collect();
    order.sort_by_key(|id| {
        let stack = match id.stack {
            None if id.role == Role::TokenEmbedding => 0,
            Some(schema::Stack::Encoder) => 1,
            Some(schema::Stack::Decoder) => 2,
            None => 3,
        };
        (stack, id.block.unwrap_or(usize::MAX), layer(id.role))
    });
    Model::from_values(config, |spec| {
        let s = order.iter().position(|id| *id == spec.id).unwrap() + 1;
        let count: usize = spec.shape.iter().product();
        let value = |i: usize| ((7919 * s + 104_729 * i + 31 * i * i) % 1009) as f64 / 1009.0 - 0.5;
        Ok((0..count)
            .map(|i| match spec.id.role {
                Role::TokenEmbedding | Role::RelativeBias => 2.0 * value(i),
                role if role.is_norm() => 1.0 + 0.2 * value(i),
                _ => value(i),
            })
            .map(|value| value as f32)
            .collect())
    })
    .unwrap()
}

fn golden_batch() -> Batch {
    Batch {
        encoder_ids: vec![3, 7, 5, 9, 10, 2, 1, 0],
        encoder_segments: vec![1, 1, 1, 1, 1, 1, 1, 0],
        decoder_input_ids: vec![0, 4, 8, 6],
        decoder_target_ids: vec![4, 8, 6, 1],
        decoder_segments: vec![1; 4],
        loss_weights: vec![1.0; 4],
        rows: 1,
        enc_len: 8,
        dec_len: 4,
    }
}

const VARIANTS: [(&str, bool, &str); 3] =
    [("relu", true, "t5"), ("gated-gelu", false, "t5"), ("gated-gelu", false, "umt5")];

#[test]
fn logits_and_losses_are_the_specification_s() {
    #[allow(clippy::type_complexity)] // a row of the specification's table
    let expected: [(usize, [f32; 11], [f32; 11], [f32; 4]); 3] = [
        (
            47,
            [
                0.757994, 0.425273, -0.322584, 0.542997, -0.846824, -1.428956, 0.757348, -0.302274, 0.251542,
                -0.580002, -0.150892,
            ],
            [
                0.67175, 0.377845, -0.465864, 0.182372, -0.739684, -1.25296, 0.970372, -0.14755, 0.226473, -0.506174,
                -0.241836,
            ],
            [3.360914, 2.173198, 1.772724, 2.119588],
        ),
        (
            52,
            [
                -0.104983, -0.016625, -0.031402, 0.03739, -0.023818, -0.054737, 1.258606, -0.346287, -0.569501,
                0.594276, -1.160184,
            ],
            [
                -0.043624, -0.742031, 0.939314, 0.804702, 0.124935, 0.00275, -0.116938, -0.774347, 0.031549, -0.069498,
                -0.708266,
            ],
            [2.568016, 2.775521, 2.437665, 3.241137],
        ),
        (
            54,
            [
                0.261443, -0.435215, -0.358474, 0.384981, 0.747815, 1.524876, -0.482501, -1.078341, 0.505725,
                -0.056509, 0.804568,
            ],
            [
                0.281696, -0.552882, -0.754426, -0.259938, 0.975139, 1.518375, 0.075234, -0.613102, 0.611915,
                -0.027674, 0.63743,
            ],
            [2.062646, 2.425993, 3.32681, 3.36748],
        ),
    ];
    for ((feed_forward, tied, model_type), (tensors, first, last, losses)) in VARIANTS.into_iter().zip(expected) {
        let config = golden_config(feed_forward, tied, model_type);
        let model = golden_model(&config);
        assert_eq!(model.vars().len(), tensors);
        let sequences = Sequences::new(&golden_batch(), 11).unwrap();
        let logits = model.logits(sequences.clone()).unwrap();
        // The golden values have six digits; f32 adds a few units in the seventh.
        for (found, expected) in logits.iter().take(11).chain(&logits[33..]).zip(first.iter().chain(&last)) {
            assert!((found - expected).abs() < 5e-6, "{model_type} {feed_forward}: {found} {expected}");
        }
        let sum: f32 = losses.iter().sum();
        let options = LossOptions { label_smoothing: 0.0, z_loss: 0.0, denominator: 4.0 };
        let (loss, statistics) = model.evaluate(sequences, &options).unwrap();
        assert!((loss - sum / 4.0).abs() < 5e-6);
        assert!((statistics.negative_log_likelihood - sum as f64).abs() < 2e-5);
        assert_eq!(statistics.weight, 4.0);
    }
}

/// Packed rows of several lengths, some padding.
fn packed_batch() -> Batch {
    let id = |i: usize| (i * 7 % 9 + 2) as u32;
    let segments = |lengths: &[usize], len: usize| -> Vec<u32> {
        let used = lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i as u32 + 1, n));
        let mut segments: Vec<u32> = used.collect();
        segments.resize(len, 0);
        segments
    };
    let encoder_segments = [segments(&[5, 9, 3], 20), segments(&[18], 20)].concat();
    let decoder_segments = [segments(&[4, 1, 6], 12), segments(&[12], 12)].concat();
    let ids = |segments: &[u32], shift: usize| -> Vec<u32> {
        segments.iter().enumerate().map(|(i, &s)| if s == 0 { 0 } else { id(i + shift) }).collect()
    };
    Batch {
        encoder_ids: ids(&encoder_segments, 0),
        decoder_input_ids: ids(&decoder_segments, 3),
        decoder_target_ids: ids(&decoder_segments, 4),
        loss_weights: decoder_segments
            .iter()
            .enumerate()
            .map(|(i, &s)| if s == 0 || i == 2 { 0.0 } else { 1.0 })
            .collect(),
        encoder_segments,
        decoder_segments,
        rows: 2,
        enc_len: 20,
        dec_len: 12,
    }
}

#[test]
fn gradients_are_derivatives_of_the_loss() {
    let variants = [
        ("relu", true, "t5"),
        ("gated-gelu", false, "t5"),
        ("gated-silu", false, "umt5"),
        ("gelu_new", true, "t5"),
        ("gated-relu", true, "t5"),
    ];
    for (shared_over_length, (feed_forward, tied, model_type)) in
        [false, true].into_iter().flat_map(|shared| variants.map(|variant| (shared, variant)))
    {
        let taught = shared_over_length && !tied;
        let config = golden_config(feed_forward, tied, model_type);
        let model = golden_model(&config);
        let mut sequences = Sequences::new(&packed_batch(), 11).unwrap();
        if taught {
            let tokens = sequences.decoder_target_ids.len();
            sequences.soft_targets = Some(SoftTargets {
                weight: 0.6,
                temperature: 2.0,
                classes: 3,
                ids: (0..tokens as u32).flat_map(|token| [0, 3, 7].map(|at| (token + at) % 11)).collect(),
                probabilities: (0..tokens).flat_map(|_| [0.5, 0.25, 0.125]).collect(),
            });
        }
        let options = LossOptions { label_smoothing: 0.1, z_loss: 0.01, denominator: 10.0 };
        let dropout = Plan { rate: 0.2, seed: 3, shared_over_length };
        model.gradients().clear();
        model.backward(sequences.clone(), &options, dropout).unwrap();
        let gradients: Vec<Vec<f32>> = (0..model.vars().len()).map(|i| model.gradients().get(i).clone()).collect();
        // The same masks with moved parameters: a loss difference along each tensor's own gradient.
        for (i, gradient) in gradients.iter().enumerate() {
            let values = model.values(i).unwrap();
            let norm = gradient.iter().map(|&g| (g as f64).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-6, "{}: no gradient", model.specs()[i].hf_name);
            let loss_at = |step: f64| {
                let moved: Vec<f32> =
                    values.iter().zip(gradient).map(|(&v, &g)| (v as f64 + step * g as f64 / norm) as f32).collect();
                let moved = Model::from_values(&config, |spec| {
                    Ok(if *spec == model.specs()[i] {
                        moved.clone()
                    } else {
                        model.values(position(&model, spec)).unwrap()
                    })
                });
                moved.unwrap().backward(sequences.clone(), &options, dropout).unwrap().0 as f64
            };
            let step = 2e-3;
            let slope = (loss_at(step) - loss_at(-step)) / (2.0 * step);
            // f32 losses near 5 are known to 5e-7, so the slope to about 2e-4; ReLU kinks and curvature add to it.
            let name = &model.specs()[i].hf_name;
            assert!((slope - norm).abs() < 1e-3 + 0.01 * norm, "{feed_forward} {name}: slope {slope}, gradient {norm}");
        }
    }
}

fn position(model: &Model, spec: &schema::TensorSpec) -> usize {
    model.specs().iter().position(|other| other == spec).unwrap()
}

#[test]
fn packing_does_not_change_logits() {
    let config = golden_config("gated-gelu", false, "t5");
    let model = golden_model(&config);
    let batch = packed_batch();
    let packed = Sequences::new(&batch, 11).unwrap();
    let together = model.logits(packed.clone()).unwrap();
    for span in &packed.spans {
        let encoder = span.encoder_start..span.encoder_start + span.encoder_len;
        let decoder = span.decoder_start..span.decoder_start + span.decoder_len;
        let alone = Batch {
            encoder_ids: packed.encoder_ids[encoder].to_vec(),
            encoder_segments: vec![1; span.encoder_len],
            decoder_input_ids: packed.decoder_input_ids[decoder.clone()].to_vec(),
            decoder_target_ids: packed.decoder_target_ids[decoder.clone()].to_vec(),
            decoder_segments: vec![1; span.decoder_len],
            loss_weights: vec![1.0; span.decoder_len],
            rows: 1,
            enc_len: span.encoder_len,
            dec_len: span.decoder_len,
        };
        let alone = model.logits(Sequences::new(&alone, 11).unwrap()).unwrap();
        for (alone, together) in alone.iter().zip(&together[decoder.start * 11..decoder.end * 11]) {
            // Products of other sizes may add in another order.
            assert!((alone - together).abs() < 1e-5);
        }
    }
}

/// One set of blocks for both stacks: the results are those of a model whose stacks are equal, the gradients the sums
/// of its two, and files have both.
#[test]
fn shared_blocks_learn_from_both_stacks() {
    for (feed_forward, tied, kind) in VARIANTS {
        let config = golden_config(feed_forward, tied, kind);
        let decoders = |id: TensorId| TensorId { stack: id.stack.and(Some(schema::Stack::Decoder)), ..id };
        let golden = golden_model(&config);
        let place = |id: TensorId| golden.specs().iter().position(|spec| spec.id == id).unwrap();
        let equal = Model::from_values(&config, |spec| {
            golden.values(place(if spec.id.block.is_some() { decoders(spec.id) } else { spec.id }))
        })
        .unwrap();
        let shared = golden_model(&config).with_shared_stacks().unwrap();
        let sequences = || Sequences::new(&packed_batch(), 11).unwrap();
        assert_eq!(shared.logits(sequences()).unwrap(), equal.logits(sequences()).unwrap());

        let options = LossOptions { label_smoothing: 0.1, z_loss: 1e-3, denominator: 23.0 };
        let dropout = || Plan { rate: 0.1, seed: 5, shared_over_length: false };
        let (loss, _) = shared.backward(sequences(), &options, dropout()).unwrap();
        assert_eq!(loss, equal.backward(sequences(), &options, dropout()).unwrap().0);
        let mut both = 0;
        for (index, spec) in shared.specs().iter().enumerate() {
            let mut expected = equal.gradients().get(place(spec.id)).clone();
            if let Some((encoders, _)) = shared.shared().iter().find(|(_, owner)| *owner == index) {
                let more = equal.gradients().get(place(encoders.id)).clone();
                assert!(more.iter().any(|&gradient| gradient != 0.0), "{}", encoders.hf_name);
                expected.iter_mut().zip(more).for_each(|(sum, gradient)| *sum += gradient);
                both += 1;
            }
            for (found, expected) in shared.gradients().get(index).iter().zip(expected) {
                // Added in another order.
                assert!(
                    (found - expected).abs() <= 1e-6 + 1e-5 * expected.abs(),
                    "{}: {found} {expected}",
                    spec.hf_name
                );
            }
        }
        assert_eq!(both, schema::tensors(&config).len() - shared.specs().len());
        assert!(both > 0 && shared.parameters() < equal.parameters());

        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("shared"), folder.path().join("equal"));
        checkpoint::write_model(&one, &shared, None).unwrap();
        checkpoint::write_model(&other, &equal, None).unwrap();
        let [one, other] = [one, other].map(|path| TensorFile::open(&path).unwrap());
        for spec in schema::tensors(&config) {
            assert_eq!(one.read(&spec.hf_name).unwrap(), other.read(&spec.hf_name).unwrap(), "{}", spec.hf_name);
        }
    }
    let uneven = T5Config { num_decoder_layers: 1, ..golden_config("relu", true, "t5") };
    let error = golden_model(&uneven).with_shared_stacks().err().unwrap().to_string();
    assert_eq!(error, "expected as many blocks in the decoder as in the encoder to share, found 1 and 2");
}

#[test]
fn initial_losses_are_near_chance() {
    // A from-scratch model has to start near ln(vocab_size); the T5X head keeps an untied one there, too.
    for (feed_forward, tied) in [("relu", true), ("gated-gelu", false)] {
        let config = T5Config { d_model: 64, d_kv: 16, d_ff: 128, ..golden_config(feed_forward, tied, "t5") };
        let model = Model::new(&config, Scheme::T5x, 1).unwrap();
        let options = LossOptions { label_smoothing: 0.0, z_loss: 0.0, denominator: 23.0 };
        let (loss, _) = model.evaluate(Sequences::new(&packed_batch(), 11).unwrap(), &options).unwrap();
        assert!(loss < 2.0 * 11f32.ln() + 2.0, "{loss}");
    }
}
