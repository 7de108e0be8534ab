//! Runs that go on: from another run's checkpoint with its optimiser's state and its count of steps, and through scores
//! that are no numbers.

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::golden_config;
use t5_runtime::checkpoint::Checkpoint;
use t5_train::Error;
use t5_train::batches::{Batch, BatchSource};
use t5_train::checkpoint::Saved;
use t5_train::config::Config;
use t5_train::files::{TensorFile, write_tensors};
use t5_train::init::Scheme;
use t5_train::model::Model;
use t5_train::ranks::Ranks;
use t5_train::record::EvaluationReport;
use t5_train::report;
use t5_train::trainer::{Evaluator, Parts, Trainer};

/// The same batch for ever, so that two runs over other numbers of steps see the same data. Counts them.
struct Same(u64);

impl BatchSource for Same {
    fn next_batch(&mut self) -> t5_train::Result<Batch> {
        self.0 += 1;
        Ok(Batch {
            encoder_ids: vec![7, 8, 5, 1],
            encoder_segments: vec![1; 4],
            decoder_input_ids: vec![0, 3, 9],
            decoder_target_ids: vec![3, 9, 1],
            decoder_segments: vec![1; 3],
            loss_weights: vec![1.0; 3],
            rows: 1,
            enc_len: 4,
            dec_len: 3,
        })
    }

    fn state(&self) -> serde_json::Value {
        self.0.into()
    }

    fn restore(&mut self, state: &serde_json::Value) -> t5_train::Result<()> {
        self.0 = state.as_u64().expect("a count");
        Ok(())
    }
}

/// Gives one score after another.
struct Scripted(std::vec::IntoIter<f64>);

impl Evaluator for Scripted {
    fn evaluate(&mut self, _: &Path) -> t5_train::Result<EvaluationReport> {
        let score = self.0.next().expect("as many scores as evaluations");
        Ok(EvaluationReport { metrics: BTreeMap::from([("sts/pearson".to_owned(), score)]), ..Default::default() })
    }
}

fn config(output: &Path, sets: &[&str]) -> Config {
    let output = format!("run.output={}", output.display());
    let fixed = [output.as_str(), "model.dropout=0", "log.tensorboard=false", "checkpoint.every_steps=1"];
    let sets: Vec<String> = fixed.iter().chain(sets).map(|&set| set.to_owned()).collect();
    // A rate that falls from the second step on: the count of steps matters to it.
    Config::parse("run.toml", "[schedule]\nwarmup_steps = 2\n[optimizer]\nfactored_min_side = 1", &sets).unwrap()
}

fn trainer(config: &Config, scores: &[f64]) -> t5_train::Result<Trainer> {
    trainer_of(config, scores, "dev files")
}

fn trainer_of(config: &Config, scores: &[f64], dev_name: &str) -> t5_train::Result<Trainer> {
    let sizes = golden_config("relu", true, "t5");
    let model = match config.model.from.as_str() {
        "" => Model::new(&sizes, Scheme::T5x, 5)?,
        from => Model::from_checkpoint(&Checkpoint::open(Path::new(from))?)?,
    };
    let model = if config.model.share_stacks { model.with_shared_stacks()? } else { model };
    let mut extra = vec![("config.json".to_owned(), sizes.to_json().to_string().into_bytes())];
    if !config.model.vocabulary.is_empty() {
        extra.push(("spiece.model".to_owned(), config.model.vocabulary.clone().into_bytes()));
    }
    let evaluator = Some(Box::new(Scripted(Vec::from(scores).into_iter())) as Box<dyn Evaluator>);
    let (source, dev, ranks) = (Box::new(Same(0)), Vec::new(), Ranks::ALONE);
    let dev_name = dev_name.to_owned();
    Trainer::open(config, Parts { model, source, dev, dev_name, evaluator, teacher: None, extra, ranks })
}

fn values(trainer: &Trainer) -> Vec<Vec<f32>> {
    (0..trainer.model().vars().len()).map(|index| trainer.model().values(index).unwrap()).collect()
}

/// Writes other slots into a checkpoint's folder; those that are `None` are left out.
fn change_slots(checkpoint: &Path, change: impl Fn(&str, Vec<f32>) -> Option<Vec<f32>>) {
    let path = checkpoint.join("optimizer.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let names = file.lengths().unwrap().into_keys();
    let slots = names.filter_map(|name| change(&name, file.read(&name).unwrap()).map(|values| (name, values)));
    let slots: Vec<_> = slots.map(|(name, values)| (name, [values.len()], values)).collect();
    let slots = slots.iter().map(|(name, shape, values)| (name.clone(), &shape[..], Cow::Borrowed(&values[..])));
    write_tensors(&path, slots).unwrap();
}

#[test]
fn a_run_goes_on_from_the_steps_and_slots_of_another() {
    for (method, shares) in [("adafactor", false), ("adamw", false), ("adafactor", true)] {
        let folder = tempfile::tempdir().unwrap();
        let (method, shares) = (format!("optimizer.kind={method}"), format!("model.share_stacks={shares}"));
        let run = |name: &str, sets: &[&str]| {
            let sets = [&[method.as_str(), &shares, "evaluation.every_steps=0"][..], sets].concat();
            let config = config(&folder.path().join(name), &sets);
            let mut trainer = trainer(&config, &[]).unwrap();
            trainer.run().unwrap();
            values(&trainer)
        };
        let whole = run("whole", &["run.steps=6"]);
        run("first", &["run.steps=3"]);
        let from = format!("model.from={}", folder.path().join("first/checkpoints/step-00000003").display());
        let on = [from.as_str(), "run.steps=3", "run.start_step=3"];
        let second = run("second", &[&on[..], &["optimizer.keep_slots=true"]].concat());
        assert!(whole == second, "{method}: the two halves are the whole, bit by bit");
        assert!(whole != run("no-slots", &on), "{method}: without the slots it is another run");
        assert!(whole != run("from-zero", &on[..2]), "{method}: and from step 0 yet another");
        assert!(whole == run("first", &["run.steps=6"]), "{method}: what is continued is the whole, too");
    }
}

#[test]
fn slots_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = |name: &str| folder.path().join(name).join("checkpoints/step-00000001");
    for method in ["adafactor", "adamw"] {
        let kind = format!("optimizer.kind={method}");
        let sets = [kind.as_str(), "run.steps=1", "evaluation.every_steps=0"];
        trainer(&config(&folder.path().join(method), &sets), &[]).unwrap().run().unwrap();
    }
    let error = |of: &str, sets: &[&str]| {
        let from = format!("model.from={}", checkpoint(of).display());
        let keep = [from.as_str(), "run.start_step=1", "optimizer.keep_slots=true"];
        let config = config(&folder.path().join("second"), &[&keep, sets].concat());
        trainer(&config, &[]).err().map(|error| error.to_string()).unwrap_or_default()
    };
    // The state of another optimiser, also where first moments are as many as second ones that are not factored.
    let unfactored = "optimizer.factored_min_side=128";
    for kind in ["optimizer.kind=adamw", "optimizer.kind=adamw-rms"] {
        let message = error("adafactor", &[kind]);
        assert!(message.ends_with("optimizer.safetensors: expected the state of adamw, found that of adafactor"));
    }
    for sets in [vec![], vec![unfactored]] {
        let message = error("adamw", &sets);
        assert!(message.ends_with("optimizer.safetensors: expected the state of adafactor, found that of adamw"));
    }
    assert_eq!(error("adamw", &["optimizer.kind=adamw-rms"]), "", "the same moments");
    let message = error("adafactor", &[unfactored]);
    assert!(message.contains("shared.weight/first: expected 44 values, found 4"), "{message}");
    fs::remove_file(checkpoint("adafactor").join("optimizer.safetensors")).unwrap();
    let message = error("adafactor", &[]);
    assert!(message.contains("optimizer.safetensors: No such file"), "{message}");
}

/// As in PyTorch, the first update of a tensor moves its values by the rate, whenever that is.
#[test]
fn moments_are_as_old_as_their_tensor_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, sets: &[&str]| {
        let always = ["evaluation.every_steps=0", "optimizer.kind=adamw", "optimizer.epsilon=1e-30"];
        let rate = ["schedule.kind=constant", "schedule.warmup_steps=0", "schedule.peak_rate=0.001"];
        let config = config(&folder.path().join(name), &[&always[..], &rate, sets].concat());
        let mut trainer = trainer(&config, &[]).unwrap();
        trainer.run().unwrap();
        let names = trainer.model().specs().iter().map(|spec| spec.hf_name.clone());
        names.zip(values(&trainer)).collect::<BTreeMap<_, _>>()
    };
    let later = ["run.steps=3", "run.start_step=10000"];
    let checkpoint = |name: &str, step: u64| folder.path().join(format!("{name}/checkpoints/step-{step:08}"));
    // One more step with the slots of another run's checkpoint.
    let kept = |name: &str, from: &Path, start: u64| {
        let (from, start) = (format!("model.from={}", from.display()), format!("run.start_step={start}"));
        run(name, &["run.steps=1", "optimizer.keep_slots=true", &from, &start])
    };
    // Steps before the run whose slots are not kept, and the slots of such a run.
    let zero = run("zero", &["run.steps=3"]);
    assert!(zero == run("later", &later));
    assert!(zero == kept("kept", &checkpoint("later", 2), 10002));
    // Files of earlier versions have no ages.
    change_slots(&checkpoint("zero", 2), |name, values| (!name.ends_with("/age")).then_some(values));
    assert!(zero == kept("older", &checkpoint("zero", 2), 2));

    // The lower blocks join at the third step, in a run that was interrupted there.
    let gradual = |steps| run("gradual", &["tuning.method=gradual", "tuning.episode_steps=2", steps]);
    let (before, after) = (gradual("run.steps=2"), gradual("run.steps=3"));
    for stack in ["encoder", "decoder"] {
        let name = format!("{stack}.block.0.layer.0.SelfAttention.v.weight");
        let moved = before[&name].iter().zip(&after[&name]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!((moved - 1e-3).abs() < 1e-6, "{name}: {moved}");
    }
    let kept = kept("thawed", &checkpoint("gradual", 3), 3);
    assert!(gradual("run.steps=4") == kept, "blocks that joined late are as old in the run that goes on");
}

#[test]
fn values_that_are_no_numbers_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = |name: &str, sets: &[&str]| {
        trainer(&config(&folder.path().join(name), &[&["schedule.kind=constant"][..], sets].concat()), &[]).unwrap()
    };
    trainer("first", &["run.steps=1", "evaluation.every_steps=0"]).run().unwrap();
    let checkpoint = folder.path().join("first/checkpoints/step-00000001");
    // Second moments below zero, whose roots are no numbers.
    change_slots(&checkpoint, |_, values| Some(vec![-1.0; values.len()]));

    let from = format!("model.from={}", checkpoint.display());
    let sets = [from.as_str(), "run.steps=3", "run.start_step=1", "optimizer.keep_slots=true"];
    // Saved, evaluated and saved, evaluated alone.
    for (name, evaluates, saves) in [("saves", 0, 1), ("does-both", 1, 1), ("evaluates", 1, 2)] {
        let evaluates = format!("evaluation.every_steps={evaluates}");
        let saves = format!("checkpoint.every_steps={saves}");
        let mut run = trainer(name, &[&sets[..], &[evaluates.as_str(), saves.as_str()]].concat());
        let error = run.run().unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Diverged(_)), "{message}");
        assert!(message.starts_with("step 0: ") && message.ends_with("; there is no checkpoint yet"), "{message}");
        assert!(message.contains(".weight: expected finite values after the update, found others; "), "{message}");
        assert!(run.checkpoints().steps().unwrap().is_empty());
        let told = fs::read_to_string(folder.path().join(name).join("diverged.json")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((told["step"].as_u64(), told["data"].as_u64()), (Some(0), Some(0)), "where its batch is read again");
    }
}

#[test]
fn a_score_that_is_no_number_is_never_the_best_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["evaluation.every_steps=1", "evaluation.best_by=sts/pearson", "schedule.kind=constant"];
    let run = |steps: &str, scores: &[f64]| {
        let config = config(folder.path(), &[&sets[..], &[steps]].concat());
        let mut trainer = trainer(&config, scores).unwrap();
        trainer.run().unwrap();
        let step = trainer.step();
        Saved::open(&trainer.checkpoints().path(step)).unwrap().state.best
    };
    assert_eq!(run("run.steps=1", &[f64::NAN]), None);
    // Each run continues the one before.
    let best = run("run.steps=4", &[f64::NAN, 30.0, f64::NAN]).unwrap();
    assert_eq!((best.step, best.score), (3, 30.0));
    assert_eq!(run("run.steps=5", &[20.0]).unwrap().step, 3);
    assert_eq!(run("run.steps=7", &[31.0, f64::NAN]).unwrap().step, 6);
    let page = report::html(folder.path()).unwrap();
    assert!(page.contains(r#"<td class="number">NaN</td>"#), "{page}");

    // A state that an earlier version wrote: the best score was no number.
    let state = folder.path().join("checkpoints/step-00000007/state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    json["best"]["score"] = serde_json::Value::Null;
    fs::write(&state, json.to_string()).unwrap();
    assert_eq!(run("run.steps=8", &[-5.0]).unwrap().step, 8);
}

#[test]
fn a_best_score_of_another_measure_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let run = |steps: u64, sets: &[&str], score: f64| {
        let steps = format!("run.steps={steps}");
        let always = ["evaluation.every_steps=1", "schedule.kind=constant", &steps];
        let mut trainer = trainer(&config(folder.path(), &[&always, sets].concat()), &[score]).unwrap();
        trainer.run().unwrap();
        Saved::open(&trainer.checkpoints().path(trainer.step())).unwrap().state.best.unwrap().step
    };
    let by = "evaluation.best_by=sts/pearson";
    assert_eq!(run(1, &[by], 90.0), 1);
    assert_eq!(run(2, &[by], 80.0), 1);
    // How often it is evaluated changes nothing in what scores mean; a number past all steps waits for ever.
    let patience = ["evaluation.every_steps=3", "evaluation.patience=9000000000000000000"];
    assert_eq!(run(3, &[&[by][..], &patience].concat(), 80.0), 1);
    assert_eq!(run(4, &[by, "evaluation.examples=7"], 70.0), 4);
    assert_eq!(run(5, &[by, "evaluation.examples=7", "evaluation.beam_size=2"], 60.0), 5);
    assert_eq!(run(6, &["evaluation.examples=7", "evaluation.beam_size=2"], 50.0), 6, "by the loss");
    assert_eq!(run(7, &["evaluation.examples=7"], 50.0), 6, "which no beams change");

    // An earlier version did not say what a score was by.
    let state = folder.path().join("checkpoints/step-00000007/state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    json["best"].as_object_mut().unwrap().remove("by").unwrap();
    json["best"]["score"] = 95.0.into();
    fs::write(&state, json.to_string()).unwrap();
    assert_eq!(run(8, &[by], 90.0), 6);

    assert_eq!(run(9, &[by], 96.0), 9);

    // A dev file was changed under the run.
    let sets = [by, "evaluation.every_steps=1", "schedule.kind=constant", "run.steps=10"];
    let mut trainer = trainer_of(&config(folder.path(), &sets), &[10.0], "others").unwrap();
    trainer.run().unwrap();
    assert_eq!(Saved::open(&trainer.checkpoints().path(10)).unwrap().state.best.unwrap().step, 10);
}

#[test]
fn what_would_break_a_run_is_refused_and_a_torn_log_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = |sets: &[&str]| {
        let always = ["run.steps=2", "evaluation.every_steps=0", "log.every_steps=1", "schedule.kind=constant"];
        config(folder.path(), &[&always[..], &["model.vocabulary=pieces"], sets].concat())
    };
    let error = |config: &Config| trainer(config, &[]).err().map(|error| error.to_string()).unwrap_or_default();
    let mut first = trainer(&config(&[]), &[]).unwrap();
    // What a run at work has not finished.
    let partial = folder.path().join("checkpoints/.partial-00000001");
    fs::create_dir(&partial).unwrap();
    let message = error(&config(&[]));
    assert!(message.ends_with("run.lock: expected a run's folder that no other process trains in, found one at work"));
    assert!(partial.exists());
    first.run().unwrap();
    drop(first);

    let log = folder.path().join("log.jsonl");
    let whole = fs::read(&log).unwrap();
    let torn = [&whole[..], b"{\"step\": 2, \"evaluation\": {\"samples\": [\"\xe2\x82"].concat();
    fs::write(&log, torn).unwrap();
    drop(trainer(&config(&[]), &[]).unwrap());
    assert_eq!(fs::read(&log).unwrap(), whole);

    // The vocabulary's file was changed in its place.
    let vocabulary = folder.path().join("checkpoints/step-00000002/spiece.model");
    let before = fs::read(&vocabulary).unwrap();
    fs::write(&vocabulary, "other pieces").unwrap();
    let message = error(&config(&[]));
    let expected = "spiece.model: expected the vocabulary that is trained with, found another";
    assert!(message.contains(expected), "{message}");
    fs::write(&vocabulary, before).unwrap();
    trainer(&config(&["run.steps=3"]), &[]).unwrap().run().unwrap();
}
