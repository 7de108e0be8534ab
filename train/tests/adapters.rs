//! Adapters behind feed-forward layers: values of a reference in float64, no change at first, gradients, what is
//! trained, and the runtime's logits.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::Device;
use common::{bits, fail, golden_config, named, one_example, prepare, succeed};
use t5_quantize::{Policy, quantize};
use t5_runtime::Model as Runner;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::{Adapters, T5Config};
use t5_runtime::tensor::DType;
use t5_train::checkpoint::write_model;
use t5_train::files::TensorFile;
use t5_train::init::Scheme;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::Sequences;
use t5_train::ops::dropout::Plan;

#[derive(serde::Deserialize)]
struct Golden {
    size: usize,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    own: Vec<f64>,
    inside: Vec<f64>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/adapters.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn sequences(inputs: &[u32], targets: &[u32]) -> Sequences {
    Sequences::new(&one_example(inputs, targets), 11).unwrap()
}

fn kinds() -> [(bool, Adapters); 2] {
    [false, true].map(|inside| (inside, Adapters { size: golden().size, inside }))
}

#[test]
fn logits_are_the_reference_s_in_trainer_and_runtime() {
    let golden = golden();
    for (inside, adapters) in kinds() {
        let config = T5Config { adapters: Some(adapters), ..golden_config("relu", true, "t5") };
        let model = named(&config);
        let sequences = sequences(&golden.inputs, &golden.targets);
        let logits = model.logits(sequences.clone()).unwrap();
        let expected = if inside { &golden.inside } else { &golden.own };
        assert_eq!(logits.len(), expected.len());
        for (found, expected) in logits.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "inside {inside}: {found} {expected}");
        }
        let composed = named(&config).composed_on(Device::Cpu).logits(sequences).unwrap();
        for (found, expected) in composed.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "composed, inside {inside}: {found} {expected}");
        }

        // The runtime reads the folder, and one file of it, and computes the same.
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write_model(&folder.join("model.safetensors"), &model, None).unwrap();
        fs::write(folder.join("config.json"), config.to_json().to_string()).unwrap();
        let logits = |path: &Path| {
            let runner = Runner::open(path).unwrap();
            assert_eq!(runner.config().adapters, Some(adapters));
            runner.session().logits_ids(&golden.inputs, &golden.targets).unwrap()
        };
        let run = logits(folder);
        for (found, expected) in run.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "runtime, inside {inside}: {found} {expected}");
        }
        let file = folder.join("model.gguf");
        let mut bytes = Vec::new();
        quantize(&Checkpoint::open(folder).unwrap(), &Policy::new(DType::F32), "model.gguf", &mut bytes, &mut ())
            .unwrap();
        fs::write(&file, bytes).unwrap();
        assert_eq!(bits(&logits(&file)), bits(&run), "inside {inside}");
    }
}

#[test]
fn new_adapters_change_no_bit_and_are_trained_alone() {
    for ((inside, adapters), norms) in kinds().into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        for feed_forward in ["relu", "gated-gelu"] {
            let config = golden_config(feed_forward, true, "t5");
            let model = || Model::new(&config, Scheme::T5x, 3).unwrap();
            let text = || sequences(&[3, 7, 5, 1], &[4, 8, 6, 1]);
            let adapted = model().with_adapters(adapters, norms, 9).unwrap();
            assert_eq!(bits(&adapted.logits(text()).unwrap()), bits(&model().logits(text()).unwrap()));
            let names: Vec<String> = adapted.trained().into_iter().map(|trained| trained.name).collect();
            // Two matrices (and a norm) in each of four blocks; 2 + 3 norms in two blocks each, and two final ones.
            let of_adapters = 4 * if inside { 2 } else { 3 };
            assert_eq!(names.len(), of_adapters + if norms { 12 } else { 0 }, "{names:?}");

            // Gradients are derivatives, and there are none of what stays as it is.
            let mut at = 0;
            adapted
                .load(|name| {
                    at += 1;
                    let index = adapted.specs().iter().position(|spec| spec.hf_name == name).unwrap();
                    let values = adapted.values(index)?;
                    let moved = values.iter().enumerate().map(|(i, v)| v + 0.1 * ((i * 7 + at) % 11) as f32 / 11.0);
                    Ok(if name.contains("Adapter") { moved.collect() } else { values })
                })
                .unwrap();
            let options = LossOptions { label_smoothing: 0.1, z_loss: 0.01, denominator: 4.0 };
            let dropout = Plan { rate: 0.2, seed: 3, shared_over_length: false };
            adapted.backward(text(), &options, dropout).unwrap();
            let gradients: Vec<Vec<f32>> = adapted.trained().iter().map(|trained| trained.gradient().clone()).collect();
            let kept = (0..adapted.vars().len()).filter(|&index| !adapted.gradients().get(index).is_empty()).count();
            assert_eq!(kept, names.len());
            for (tensor, gradient) in names.iter().zip(&gradients) {
                let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
                assert!(norm > 0.0, "{tensor}: no gradient");
                let place = adapted.specs().iter().position(|spec| spec.hf_name == *tensor).unwrap();
                let base = adapted.values(place).unwrap();
                let loss = |step: f32| {
                    let moved: Vec<f32> = base.iter().zip(gradient).map(|(v, g)| v + step * g / norm).collect();
                    adapted
                        .load(|name| {
                            let index = adapted.specs().iter().position(|spec| spec.hf_name == name).unwrap();
                            if index == place { Ok(moved.clone()) } else { adapted.values(index) }
                        })
                        .unwrap();
                    adapted.backward(text(), &options, dropout).unwrap().0
                };
                let step = 1e-2;
                let slope = (loss(step) - loss(-step)) / (2.0 * step);
                loss(0.0);
                // As for all parameters (tests/model.rs).
                assert!((slope - norm).abs() < 1e-3 + 0.01 * norm, "{tensor}: slope {slope}, gradient {norm}");
            }
        }
    }
}

fn tensors(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let names: Vec<String> = {
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect()
    };
    let file = TensorFile::open(&folder.join("model.safetensors")).unwrap();
    names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap())).collect()
}

#[test]
fn a_run_trains_its_adapters_and_leaves_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = prepare(folder, "");
    let path = |name: &str| folder.join(name).display().to_string();
    let short = ["--set", "run.steps=4", "--set", "evaluation.every_steps=0"];
    succeed(&[&["run", &config][..], &short].concat());
    succeed(&["export", &path("run"), &path("base")]);
    let (from, output) = (format!("model.from={}", path("base")), format!("run.output={}", path("adapted")));
    let more = ["--set", &from, "--set", &output, "--set", "tuning.method=adapters", "--set", "tuning.adapter_size=8"];
    let told = succeed(&[&["run", &config][..], &short, &more].concat());
    let told = String::from_utf8(told.stderr).unwrap();
    // Two blocks: a norm of 32 and two matrices of 8 x 32 each.
    assert!(told.contains(&format!("{} of adapters are trained", 2 * (32 + 2 * 8 * 32))), "{told}");
    succeed(&["export", &path("adapted"), &path("exported")]);
    let (before, after) = (tensors(&folder.join("base")), tensors(&folder.join("exported")));
    assert_eq!(after.len(), before.len() + 2 * 3);
    for (name, values) in &after {
        match before.get(name) {
            Some(before) => assert_eq!(bits(values), bits(before), "{name}"),
            None => assert!(name.contains(".Adapter.") || name.ends_with("layer_norm.weight"), "{name}"),
        }
    }
    let up = &after["decoder.block.0.layer.3.Adapter.up.weight"];
    assert!(up.iter().any(|value| *value != 0.0), "adapters have learnt");
    // The optimiser's state is of what is trained.
    let slots = |run: &str| {
        let state = folder.join(run).join("checkpoints/step-00000004/optimizer.safetensors");
        fs::metadata(state).unwrap().len()
    };
    assert!(4 * slots("adapted") < slots("run"), "{} and {}", slots("adapted"), slots("run"));
    // The model goes on from there, and decodes through the runtime.
    let (from, output) = (format!("model.from={}", path("exported")), format!("run.output={}", path("further")));
    let more = ["--set", &from, "--set", &output, "--set", "tuning.method=adapters"];
    succeed(&[&["run", &config][..], &short, &more, &["--set", "tuning.adapter_size=8"]].concat());
    let nowhere = format!("run.output={}", path("none"));
    let told = fail(&[&["run", &config][..], &short, &more, &["--set", &nowhere]].concat());
    assert!(told.contains("tuning.adapter_size: expected a model without adapters or with"), "{told}");
    let report = succeed(&["eval", &config, "--model", &path("exported"), "-n", "3"]);
    assert!(String::from_utf8(report.stdout).unwrap().contains("numbers/exact-match"));
    let told = fail(&["run", &config, "--set", "tuning.method=adapters"]);
    assert!(told.contains("tuning.method: expected model.from"), "{told}");
}
