//! Parts of a model that are trained while others stay as they are: LoRA, to and from PEFT, and gradual unfreezing.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Var;
use common::{balanced, bits, fail, golden_config, one_example, prepare, succeed};
use t5_quantize::adapter::Adapter;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::{block, schema};
use t5_train::config::Config;
use t5_train::files::TensorFile;
use t5_train::init::Scheme;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::dropout::Plan;
use t5_train::ops::{Sequences, update_in_place};
use t5_train::optimizer::Optimizer;
use t5_train::tuning::{Method, Options};

fn options(targets: &[&str]) -> Options {
    Options {
        method: Method::Lora,
        episode_steps: 0,
        rank: 3,
        alpha: 6.0,
        rank_stabilised: false,
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
        adapter: String::new(),
        adapter_size: 64,
        adapter_inside: false,
        adapter_norms: false,
    }
}

fn sequences() -> Sequences {
    Sequences::new(&one_example(&[3, 7, 5, 9, 10, 2, 1], &[4, 8, 6, 1]), 11).unwrap()
}

#[test]
fn new_factors_change_no_bit_and_their_gradients_are_derivatives() {
    for (feed_forward, tied, targets) in [
        ("relu", true, &["q", "v"][..]),
        ("gated-gelu", false, &["all-linear"][..]),
        ("relu", true, &["EncDecAttention.k"][..]),
    ] {
        let config = golden_config(feed_forward, tied, "t5");
        let base = Model::new(&config, Scheme::T5x, 3).unwrap();
        let model = Model::new(&config, Scheme::T5x, 3).unwrap().with_lora(&options(targets), "base", 9).unwrap();
        assert_eq!(bits(&base.logits(sequences()).unwrap()), bits(&model.logits(sequences()).unwrap()));
        let trained = model.trained();
        assert!(trained.iter().all(|tensor| tensor.name.contains(".lora_")));

        // Factors that are not zero, so that both sides have gradients.
        for (index, tensor) in trained.iter().enumerate() {
            let value = |i: usize| ((index * 31 + i * 17) % 23) as f32 / 46.0 - 0.25;
            update_in_place(tensor.var, |x| x.iter_mut().enumerate().for_each(|(i, x)| *x = value(i))).unwrap();
        }
        model.updated().unwrap();
        let loss_options = LossOptions { label_smoothing: 0.1, z_loss: 0.01, denominator: 4.0 };
        let loss = || f64::from(model.evaluate(sequences(), &loss_options).unwrap().0);
        model.backward(sequences(), &loss_options, Plan::OFF).unwrap();
        model.collect_gradients().unwrap();
        for tensor in &trained {
            let gradient = tensor.gradient().clone();
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-6, "{}: no gradient", tensor.name);
            let shift = |step: f64| {
                update_in_place(tensor.var, |x| {
                    x.iter_mut().zip(&gradient).for_each(|(x, &g)| *x += (step * f64::from(g) / norm) as f32);
                })
                .unwrap();
                model.updated().unwrap();
            };
            let step = 2e-3;
            shift(step);
            let above = loss();
            shift(-2.0 * step);
            let below = loss();
            shift(step);
            let slope = (above - below) / (2.0 * step);
            // As for all parameters (tests/model.rs).
            assert!((slope - norm).abs() < 1e-3 + 0.01 * norm, "{}: slope {slope}, gradient {norm}", tensor.name);
        }
        // What is not trained has no gradient, and no memory for one.
        let frozen = (0..model.vars().len()).filter(|&index| model.gradients().get(index).is_empty()).count();
        assert_eq!(frozen, model.vars().len() - trained.len() / 2);
    }
}

/// AdamW's first step moves each value by the rate, whatever its gradient is.
#[test]
fn rates_decay_from_layer_to_layer() {
    let config = T5Config { num_decoder_layers: 3, ..golden_config("gated-gelu", false, "t5") };
    let sets = ["optimizer.kind=adamw", "optimizer.layer_decay=0.5", "optimizer.epsilon=1e-30"].map(str::to_owned);
    let options = Config::parse("run.toml", "", &sets).unwrap().optimizer;
    let full = Model::new(&config, Scheme::T5x, 3).unwrap();
    let lora = Model::new(&config, Scheme::T5x, 3).unwrap().with_lora(&self::options(&["v"]), "base", 9).unwrap();
    for model in [full, lora] {
        let loss_options = LossOptions { label_smoothing: 0.1, z_loss: 0.01, denominator: 4.0 };
        model.backward(sequences(), &loss_options, Plan::OFF).unwrap();
        model.collect_gradients().unwrap();
        let values = |model: &Model| {
            let trained = model.trained();
            let read = |var: &Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            trained.iter().map(|tensor| (tensor.name.clone(), read(tensor.var))).collect::<Vec<_>>()
        };
        let before = values(&model);
        let mut optimizer = Optimizer::new(&options, &model.trained());
        optimizer.step(&model, 0, 0.25, 1.0).unwrap();
        let mut seen = 0;
        for ((name, before), (_, after)) in before.iter().zip(values(&model)) {
            let moved = before.iter().zip(&after).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            let block = |stack: &str| {
                let rest = name.split_once(stack)?.1.split_once(".block.")?.1;
                rest.split('.').next()?.parse::<i32>().ok()
            };
            let depth = match (block("encoder"), block("decoder")) {
                (Some(block), _) => 1 - block,
                (_, Some(block)) => 2 - block,
                _ if name == "shared.weight" => 3,
                _ => 0,
            };
            if moved > 0.0 {
                assert!((moved - 0.25 * 0.5f32.powi(depth)).abs() < 1e-6, "{name}: {moved}");
                seen |= 1 << depth;
            }
        }
        assert!(seen == 0b1111 || (seen == 0b111 && model.lora().is_some()), "{seen:b}");
    }
    let message = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::parse("run.toml", "", &sets).unwrap_err().to_string()
    };
    assert!(message(&["optimizer.layer_decay=1.5"]).contains("optimizer.layer_decay: expected 0 to 1"));
    let found = message(&["schedule.kind=constant", "schedule.cycles=2"]);
    assert!(found.contains("schedule.cycles: expected 1, since only linear and cosine fall, found 2"), "{found}");
}

#[test]
fn targets_that_are_not_there_are_named() {
    let config = golden_config("relu", true, "t5");
    let error = |targets: &[&str]| {
        let model = Model::new(&config, Scheme::T5x, 3).unwrap();
        model.with_lora(&options(targets), "base", 9).err().unwrap().to_string()
    };
    assert!(
        error(&["q", "wi_0"]).contains("expected names of matrices (k, o, q, v, wi, wo) or all-linear, found wi_0")
    );
    assert!(error(&["shared"]).contains("found shared"));
    assert!(error(&[]).contains("tuning.targets: expected one or more"));
}

#[test]
fn an_adapter_is_used_whole_or_refused() {
    let base = Checkpoint::open(&peft().join("base")).unwrap();
    let adapter = peft().join("plain").display().to_string();
    let options = Options { alpha: 12.0, adapter: adapter.clone(), ..options(&["q"]) };
    let error = Model::from_checkpoint(&base).unwrap().with_lora(&options, "base", 1).err().unwrap().to_string();
    let expected = ".v.weight: expected a matrix that tuning.targets names, found factors of another";
    assert!(error.contains("tuning.adapter: ") && error.ends_with(expected), "{error}");
    let sets = [format!("tuning.adapter={adapter}")];
    for method in ["all", "gradual", "adapters"] {
        let sets = [&sets[..], &["model.from=base".to_owned(), format!("tuning.method={method}")]].concat();
        let error = Config::parse("run.toml", "", &sets).unwrap_err().to_string();
        assert!(error.contains("tuning.adapter: expected none unless tuning.method is lora, found "), "{error}");
    }
}

#[derive(serde::Deserialize)]
struct Golden {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    base: Vec<f32>,
    plain: Vec<f32>,
    stabilised: Vec<f32>,
}

fn peft() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peft")
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    let worst = found.iter().zip(expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(found.len() == expected.len() && worst < 1e-5, "{what}: logits differ by {worst}");
}

#[test]
fn adapters_that_peft_wrote_give_its_logits() {
    let golden: Golden = serde_json::from_str(&fs::read_to_string(peft().join("logits.json")).unwrap()).unwrap();
    let logits = |model: &Model| {
        // The golden decoder inputs begin with the start token, as ours do by themselves.
        let targets = [&golden.targets[1..], &[1]].concat();
        model.logits(Sequences::new(&one_example(&golden.inputs, &targets), 48).unwrap()).unwrap()
    };
    let open = || Checkpoint::open(&peft().join("base")).unwrap();
    assert_near(&logits(&Model::from_checkpoint(&open()).unwrap()), &golden.base, "base");
    let targets = ["q", "k", "v", "o", "wi", "wo"];
    for (name, expected, targets, rank_stabilised) in
        [("plain", &golden.plain, &["q", "v"][..], false), ("stabilised", &golden.stabilised, &targets[..], true)]
    {
        let adapter = Adapter::open(&peft().join(name)).unwrap();
        let mut merged = open();
        adapter.merge(&mut merged).unwrap();
        let merged = logits(&Model::from_checkpoint(&merged).unwrap());
        assert_near(&merged, expected, name);
        let changed = merged.iter().zip(&golden.base).any(|(a, b)| (a - b).abs() > 0.01);
        assert!(changed, "{name}: the adapter changes nothing");

        // Training goes on from it, and writes it as it was read.
        let folder = peft().join(name).display().to_string();
        let options = Options { alpha: 12.0, adapter: folder, rank_stabilised, ..options(targets) };
        let model = Model::from_checkpoint(&open()).unwrap().with_lora(&options, "base", 1).unwrap();
        assert_eq!(logits(&model), merged, "{name}: merged and unmerged");
        let written = tempfile::tempdir().unwrap();
        model.write_adapter(written.path()).unwrap();
        let again = Adapter::open(written.path()).unwrap();
        assert_eq!((again.scale, &again.factors), (adapter.scale, &adapter.factors));
    }
}

#[test]
fn an_adapter_of_a_balanced_file_is_merged_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut stored) = balanced(folder.path());
    let base = Model::from_checkpoint(&stored).unwrap();
    let model = base.with_lora(&options(&["EncDecAttention.k", "EncDecAttention.v"]), "base", 9).unwrap();
    for (index, tensor) in model.trained().iter().enumerate() {
        let value = |i: usize| ((index * 31 + i * 17) % 23) as f32 / 46.0 - 0.25;
        update_in_place(tensor.var, |x| x.iter_mut().enumerate().for_each(|(i, x)| *x = value(i))).unwrap();
    }
    model.updated().unwrap();
    model.write_adapter(folder.path()).unwrap();
    Adapter::open(folder.path()).unwrap().merge(&mut stored).unwrap();
    let merged = Model::from_checkpoint(&stored).unwrap();
    for (index, spec) in model.specs().iter().enumerate() {
        assert_near(&merged.values(index).unwrap(), &model.values(index).unwrap(), &spec.hf_name);
    }
}

#[test]
fn adapters_that_cannot_be_merged_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = fs::read(peft().join("plain/adapter_model.safetensors")).unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), weights).unwrap();
    let config = fs::read_to_string(peft().join("plain/adapter_config.json")).unwrap();
    let error = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        fs::write(folder.path().join("adapter_config.json"), config.replace(from, to)).unwrap();
        Adapter::open(folder.path()).unwrap_err().to_string()
    };
    let dora = error("\"use_dora\": false", "\"use_dora\": true");
    assert!(dora.contains("use_dora: expected false, the only value that can be merged, found true"), "{dora}");
    assert!(error("\"LORA\"", "\"IA3\"").contains("peft_type: expected LORA, found \"IA3\""));
    assert!(error("\"bias\": \"none\"", "\"bias\": \"all\"").contains("bias: expected \"none\""));
    assert!(error("\"rank_pattern\": {}", "\"rank_pattern\": {\"q\": 4}").contains("rank_pattern"));
    assert!(error("\"r\": 3", "\"r\": 4").contains("expected [4, …] and […, 4], found [3, 16] and [16, 3]"));
    assert!(error("\"r\": 3", "\"r\": 0").contains("r and lora_alpha"));

    // Of another model: nothing is merged.
    let pocket = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf");
    let message = Adapter::open(&peft().join("plain")).unwrap().merge(&mut Checkpoint::open(&pocket).unwrap());
    let message = message.unwrap_err().to_string();
    assert!(message.contains("as in") && message.contains("found [16, 16]"), "{message}");
}

fn values(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let values = checkpoint.tensors().map(|(spec, tensor)| (spec.hf_name, block::decode_tensor(tensor).unwrap()));
    values.collect()
}

#[test]
fn a_run_trains_its_factors_alone_and_its_adapter_is_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = prepare(folder, "");
    let path = |name: &str| folder.join(name).display().to_string();
    succeed(&["run", &config, "--set", "run.steps=20", "--set", "evaluation.every_steps=0"]);
    succeed(&["export", &path("run"), &path("base"), "--step", "20"]);
    let run = |name: &str, steps: u64, more: &[&str]| {
        let (from, output) = (format!("model.from={}", path("base")), format!("run.output={}", path(name)));
        let steps = format!("run.steps={steps}");
        let fixed = [&from, &output, &steps, "tuning.method=lora", "tuning.rank=2", "evaluation.every_steps=9"];
        let sets: Vec<&str> = fixed.iter().chain(more).flat_map(|&set| ["--set", set]).collect();
        succeed(&[&["run", &config][..], &sets].concat())
    };
    let output = String::from_utf8(run("lora", 18, &[]).stderr).unwrap();
    assert!(output.contains("of factors are trained"), "{output}");
    succeed(&["export", &path("lora"), &path("merged"), "--step", "18"]);
    succeed(&["export", &path("lora"), &path("adapter"), "--adapter", "--step", "18"]);

    let (base, merged) = (values(&folder.join("base")), values(&folder.join("merged")));
    for (name, values) in &base {
        let targeted = name.ends_with(".q.weight") || name.ends_with(".v.weight");
        assert_eq!(*values != merged[name], targeted, "{name}");
    }
    let mut checkpoint = Checkpoint::open(&folder.join("base")).unwrap();
    Adapter::open(&folder.join("adapter")).unwrap().merge(&mut checkpoint).unwrap();
    for (spec, tensor) in checkpoint.tensors() {
        assert_eq!(block::decode_tensor(tensor).unwrap(), merged[&spec.hf_name], "{}", spec.hf_name);
    }

    // The optimiser's state is that of the factors; an interrupted run is the whole one.
    let step = folder.join("lora/checkpoints/step-00000018");
    let state = fs::read(step.join("optimizer.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&state[8..]).into_owned();
    assert!(header.contains("q.lora_A.weight/first") && !header.contains("q.weight/first"));
    run("resumed", 9, &[]);
    run("resumed", 18, &[]);
    for name in ["adapter_model.safetensors", "optimizer.safetensors", "model.safetensors"] {
        let resumed = folder.join("resumed/checkpoints/step-00000018").join(name);
        assert!(fs::read(resumed).unwrap() == fs::read(step.join(name)).unwrap(), "{name}");
    }

    let message = fail(&["export", &path("run"), &path("none"), "--adapter"]);
    assert!(message.contains("expected a run with tuning.method = \"lora\""), "{message}");
    let message = fail(&["run", &config, "--set", "tuning.method=lora"]);
    assert!(message.contains("tuning.method: expected model.from"), "{message}");
}

#[test]
fn unfreezing_goes_from_the_top_down() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = prepare(folder, "");
    let output = format!("run.output={}", folder.join("gradual").display());
    let sets = [
        &output,
        "model.num_layers=3",
        "model.num_decoder_layers=2",
        "tuning.method=gradual",
        "run.steps=9",
        "checkpoint.every_steps=3",
        "evaluation.every_steps=0",
    ];
    let arguments: Vec<&str> = sets.iter().flat_map(|&set| ["--set", set]).collect();
    succeed(&[&["run", &config][..], &arguments].concat());
    let at = |step: u64| folder.join(format!("gradual/checkpoints/step-{step:08}"));
    let checkpoint = Checkpoint::open(&at(3)).unwrap();
    let read = |step| TensorFile::open(&at(step).join("model.safetensors")).unwrap();
    let (first, second, third) = (read(3), read(6), read(9));
    for spec in schema::tensors(&checkpoint.config) {
        let name = &spec.hf_name;
        let (first, second, third) = (first.read(name).unwrap(), second.read(name).unwrap(), third.read(name).unwrap());
        let from_top = spec.id.block.map_or(0, |block| match spec.id.stack {
            Some(schema::Stack::Encoder) => 2 - block,
            _ => 1 - block,
        });
        // In the second episode two blocks of each stack are trained, in the third all.
        assert_eq!(first != second, from_top <= 1, "{name} in the second episode");
        assert!(second != third, "{name} in the third episode");
    }
}
