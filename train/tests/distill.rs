//! Distillation: the loss against a reference in float64, and runs with a teacher, whose values do not depend on what
//! was kept of them.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor, Var};
use common::{fail, prepare, succeed};
use t5_train::config::Config;
use t5_train::distill::Teacher;
use t5_train::distill::answers::{self, Search};
use t5_train::kernels::Precision;
use t5_train::ops::cross_entropy::{CrossEntropy, Statistics};
use t5_train::ops::dropout::Plan;
use t5_train::ops::{ForBackward, Gradients, Pass, Sequences, SoftTargets};
use t5_train::pipeline::Pipeline;

#[derive(serde::Deserialize)]
struct Case {
    weight: f32,
    temperature: f32,
    label_smoothing: f32,
    z_loss: f32,
    denominator: f64,
    targets: Vec<u32>,
    weights: Vec<f32>,
    ids: Vec<Vec<u32>>,
    probabilities: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
    loss: f64,
    divergence: f64,
    gradient: Vec<Vec<f64>>,
}

#[test]
fn loss_and_gradient_are_the_reference_s() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/distillation.json")).unwrap();
    for (number, case) in cases.into_iter().enumerate() {
        let (tokens, classes) = (case.logits.len(), case.logits[0].len());
        // With the identity as the head the outputs are the logits.
        let identity: Vec<f32> = (0..classes * classes).map(|i| f32::from(i / classes == i % classes)).collect();
        let head = Var::from_vec(identity, (classes, classes), &Device::Cpu).unwrap();
        let sequences = Sequences {
            decoder_target_ids: case.targets.clone(),
            loss_weights: case.weights.clone(),
            soft_targets: Some(SoftTargets {
                weight: case.weight,
                temperature: case.temperature,
                classes: case.ids[0].len(),
                ids: case.ids.concat(),
                probabilities: case.probabilities.concat(),
            }),
            ..Sequences::default()
        };
        let pass = Arc::new(Pass {
            sequences,
            vars: Arc::new(vec![head]),
            gradients: Arc::new(Gradients::new([classes * classes])),
            dropout: Plan::OFF,
            training: true,
            precision: Precision::F32,
        });
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let logits = Var::from_vec(case.logits.concat(), (tokens, classes), &Device::Cpu).unwrap();
        let loss: Tensor = logits
            .apply_op1(CrossEntropy {
                pass,
                head: 0,
                d_model: classes,
                logits_scale: 1.0,
                label_smoothing: case.label_smoothing,
                z_loss: case.z_loss,
                denominator: case.denominator,
                statistics: statistics.clone(),
                saved: ForBackward::default(),
            })
            .unwrap();
        let gradients = loss.backward().unwrap();
        let found = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((found - case.loss).abs() < 2e-6 * case.loss.abs().max(1.0), "{number}: {found} {}", case.loss);
        let divergence = statistics.lock().unwrap().divergence;
        assert!((divergence - case.divergence).abs() < 4e-6, "{number}: {divergence} {}", case.divergence);
        let found: Vec<f32> = gradients.get(logits.as_tensor()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (found, expected) in found.iter().zip(case.gradient.concat()) {
            assert!((f64::from(*found) - expected).abs() < 2e-6, "{number}: {found} {expected}");
        }
    }
}

/// A teacher of sixty steps in `teacher`, and the configuration of a student.
fn teacher(folder: &Path) -> String {
    let config = prepare(folder, "");
    succeed(&["run", &config]);
    let path = |name: &str| folder.join(name).display().to_string();
    succeed(&["export", &path("run"), &path("teacher")]);
    config
}

/// Trains a student and gives the bytes of its weights.
fn student(folder: &Path, config: &str, name: &str, sets: &[&str]) -> Vec<u8> {
    told_student(folder, config, name, sets).0
}

/// The same, with what the run says.
fn told_student(folder: &Path, config: &str, name: &str, sets: &[&str]) -> (Vec<u8>, String) {
    let output = format!("run.output={}", folder.join(name).display());
    let teacher = format!("distill.teacher={}", folder.join("teacher").display());
    let fixed = [&output, &teacher, "run.steps=24", "run.seed=7", "evaluation.every_steps=0", "data.batches.window=2"];
    let arguments: Vec<&str> = fixed.iter().chain(sets).flat_map(|&set| ["--set", set]).collect();
    let told = succeed(&[&["run", config][..], &arguments].concat()).stderr;
    let weights = fs::read(folder.join(name).join("checkpoints/step-00000024/model.safetensors")).unwrap();
    (weights, String::from_utf8(told).unwrap())
}

#[test]
fn a_student_s_weights_do_not_depend_on_the_cache_or_on_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = teacher(folder);
    let cache = format!("distill.cache={}", folder.join("cache").display());
    let first = student(folder, &config, "first", &[&cache]);
    let kept: Vec<_> = fs::read_dir(folder.join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let size = fs::metadata(&kept[0]).unwrap().len();
    assert!(kept.len() == 1 && size > 10_000, "{kept:?} {size}");

    assert!(student(folder, &config, "again", &[&cache]) == first, "from the cache");
    assert_eq!(fs::metadata(&kept[0]).unwrap().len(), size, "nothing was asked again");
    assert!(student(folder, &config, "without", &["distill.cache_gb=0"]) == first, "without a cache");
    assert!(!folder.join("without/teacher").exists());

    let half = ["run.steps=12", &cache];
    let output = format!("run.output={}", folder.join("resumed").display());
    let teacher = format!("distill.teacher={}", folder.join("teacher").display());
    let fixed = [&output, &teacher, "run.seed=7", "evaluation.every_steps=0", "data.batches.window=2"];
    let arguments: Vec<&str> = fixed.iter().chain(&half).flat_map(|&set| ["--set", set]).collect();
    succeed(&[&["run", &config][..], &arguments].concat());
    assert!(student(folder, &config, "resumed", &[]) == first, "after an interruption, with a cache of its own");

    // The teacher matters, and so do its knobs.
    let (hotter, told) = told_student(folder, &config, "hotter", &["distill.temperature=30", "distill.top_k=8"]);
    assert!(hotter != first);
    assert_eq!(told.matches("% is in the 8 classes that are kept").count(), 1, "{told}");
    assert!(student(folder, &config, "alone", &["distill.teacher="]) != first);
    let log = fs::read_to_string(folder.join("first/log.jsonl")).unwrap();
    let divergences: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["train"]["divergence"].as_f64())
        .collect();
    assert!(divergences.len() > 2 && divergences.last().unwrap() < &divergences[0], "{divergences:?}");
}

#[test]
fn what_is_kept_is_what_was_computed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = teacher(folder);
    let sets = [format!("distill.teacher={}", folder.join("teacher").display()), "distill.top_k=5".to_owned()];
    let config = Config::load(Path::new(&config), &sets).unwrap();
    let pipeline = Pipeline::load(&config).unwrap();
    let batches = pipeline.dev_batches(0).unwrap();
    let rows = pipeline.vocabulary.size() as usize;
    let taught = |teacher: &mut Teacher| -> Vec<Sequences> {
        let mut all: Vec<Sequences> = batches.iter().map(|batch| Sequences::new(batch, rows).unwrap()).collect();
        all.iter_mut().for_each(|sequences| teacher.teach(sequences).unwrap());
        all
    };
    let open = || Teacher::open(&config.distill, &config.run.output, &pipeline.vocabulary, rows).unwrap();
    let mut teacher = open();
    let computed = taught(&mut teacher);
    assert!(teacher.counts().computed > 10 && teacher.counts().cached == 0, "{:?}", teacher.counts());
    let examples = teacher.counts().computed;
    drop(teacher);
    let mut teacher = open();
    let kept = taught(&mut teacher);
    assert_eq!((teacher.counts().cached, teacher.counts().computed), (examples, 0));
    for (computed, kept) in computed.iter().zip(&kept) {
        let (computed, kept) = (computed.soft_targets.as_ref().unwrap(), kept.soft_targets.as_ref().unwrap());
        assert_eq!(computed, kept);
        assert_eq!(kept.ids.len(), kept.probabilities.len());
        for row in kept.probabilities.chunks(5) {
            assert!(row.is_sorted_by(|a, b| a >= b) && row.iter().sum::<f32>() < 1.01, "{row:?}");
        }
    }
}

#[test]
fn a_teacher_with_another_vocabulary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let pocket = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf");
    let teacher = format!("distill.teacher={}", pocket.display());
    let message = fail(&["run", &config, "--set", &teacher]);
    let expected = "distill.teacher: expected a model with the run's vocabulary";
    assert!(message.contains(expected) && message.contains("pocket-t5.gguf, whose id"), "{message}");
    let message = fail(&["answers", &config, &folder.path().join("answers.jsonl").display().to_string()]);
    assert!(message.contains("distill.teacher: expected a model folder or a GGUF file, found none"), "{message}");
}

#[test]
fn answers_are_records_to_train_on_and_a_killed_process_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config_path = teacher(folder);
    let teacher = format!("distill.teacher={}", folder.join("teacher").display());
    let path = |name: &str| folder.join(name).display().to_string();
    succeed(&["answers", &config_path, &path("whole.jsonl"), "--beams", "2", "--set", &teacher]);
    let whole = fs::read_to_string(folder.join("whole.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(whole.lines().next().unwrap()).unwrap();
    let text = |field: &str| first[field].as_str().unwrap().to_owned();
    assert!(text("input").starts_with("number: ") && text("task") == "numbers" && !text("reference").is_empty());
    assert!(first["score"].as_f64().unwrap() < 0.0 && whole.lines().count() > 50);
    let inputs: std::collections::HashSet<String> = whole
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["input"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(inputs.len(), whole.lines().count(), "each input once");

    let config = Config::load(Path::new(&config_path), std::slice::from_ref(&teacher)).unwrap();
    let search = Search { beams: 2, length_penalty: config.evaluation.length_penalty };
    let output = folder.join("killed.jsonl");
    let killed = catch_unwind(AssertUnwindSafe(|| answers::write(&config, search, &output, |_, _| panic!("killed"))));
    assert!(killed.is_err() && !output.exists());
    let written = answers::write(&config, search, &output, |_, _| {}).unwrap();
    assert_eq!((written.continued, written.answers), (256, whole.lines().count()));
    assert_eq!(fs::read_to_string(&output).unwrap(), whole);
    assert!(!folder.join("killed.jsonl.unfinished").exists());

    // What another search began is not mixed in.
    let killed = catch_unwind(AssertUnwindSafe(|| answers::write(&config, search, &output, |_, _| panic!("killed"))));
    assert!(killed.is_err());
    let other = Search { beams: 1, ..search };
    let message = answers::write(&config, other, &output, |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("found others; remove it to begin anew"), "{message}");
    // Nor what has other references.
    let text = fs::read_to_string(&config_path).unwrap().replace("target = \"{digits}\"", "target = \"{digits}!\"");
    fs::write(folder.join("others.toml"), text).unwrap();
    let others = Config::load(&folder.join("others.toml"), std::slice::from_ref(&teacher)).unwrap();
    let message = answers::write(&others, search, &output, |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("found others; remove it to begin anew"), "{message}");
    // What cannot be written is said before the teacher works.
    let taken = folder.join("taken.jsonl");
    fs::create_dir(&taken).unwrap();
    let message = answers::write(&config, search, &taken, |_, _| panic!("an answer")).unwrap_err().to_string();
    assert!(message.contains("taken.jsonl: expected a file to write, found something else"), "{message}");
    assert!(!folder.join("taken.jsonl.unfinished").exists());

    // A student trains on them.
    let student = fs::read_to_string(&config_path)
        .unwrap()
        .replace("numbers.tsv", "whole.jsonl")
        .replace("columns = [\"words\", \"digits\"]", "")
        .replace("format = \"tsv\", ", "format = \"jsonl\"")
        .replace("field = \"digits\"", "field = \"input\"")
        .replace("number: {words}", "{input}")
        .replace("target = \"{digits}\"", "target = \"{target}\"");
    fs::write(folder.join("student.toml"), student).unwrap();
    succeed(&["run", &path("student.toml"), "--set", &format!("run.output={}", path("on-answers"))]);
}
