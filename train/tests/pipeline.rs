//! From text to a model that answers: vocabulary, training, export, and the runtime.

mod common;

use std::fs;
use std::path::Path;

use common::{command, fail, one_example, prepare, run, succeed, write_config};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema;
use t5_train::model::Model;
use t5_train::ops::Sequences;
use t5_train::vocabulary::Vocabulary;

#[test]
fn fifty_steps_and_an_export_that_the_runtime_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let output = succeed(&["inspect-data", &config, "-n", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("number: ") && text.contains("64 batches"), "{text}");

    succeed(&["run", &config, "--set", "run.steps=50", "--set", "schedule.peak_rate=0.02"]);
    let (run_folder, exported) = (folder.path().join("run"), folder.path().join("exported"));
    succeed(&["export", &run_folder.display().to_string(), &exported.display().to_string(), "--step", "50"]);

    // What reads no tokenizer.json finds a SentencePiece model of the same ids.
    let vocabularies = ["tokenizer.json", "spiece.model"].map(|name| Vocabulary::read(&exported.join(name)).unwrap());
    let [pieces, model] = vocabularies.map(|vocabulary| vocabulary.encode("number: one hundred and 7, </s>?"));
    assert_eq!(pieces, model);

    // The trainer's variables are the schema's table, and its logits the runtime's.
    let checkpoint = Checkpoint::open(&exported).unwrap();
    let model = Model::from_checkpoint(&checkpoint).unwrap();
    let expected: Vec<_> = schema::tensors(&checkpoint.config).into_iter().map(|spec| spec.shape).collect();
    let found: Vec<_> = model.vars().iter().map(|var| var.as_tensor().dims().to_vec()).collect();
    assert_eq!(found, expected);
    assert_logits_agree(&exported, &model);

    let path = exported.display().to_string();
    let beams = "evaluation.beam_size=2";
    let report = succeed(&["eval", &config, "--model", &path, "-n", "3", "--json", "--set", beams]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["metrics"].as_object().unwrap().contains_key("numbers/exact-match"), "{report}");
    assert_eq!(report["samples"].as_array().unwrap().len(), 3);

    // What a run evaluates is left alone: it may go on.
    fs::remove_dir_all(run_folder.join("evaluated")).unwrap();
    let names = || -> Vec<_> { fs::read_dir(&run_folder).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    let before = names();
    succeed(&["eval", &config, "-n", "3"]);
    assert_eq!(names().len(), before.len(), "{before:?}");
    assert!(!run_folder.join("evaluated").exists());

    assert_storing_is_told(&config, &exported);

    succeed(&["report", &run_folder.display().to_string()]);
    let page = fs::read_to_string(run_folder.join("report.html")).unwrap();
    assert!(page.contains("exact-match") && page.contains("<svg"));
    let events: Vec<_> = fs::read_dir(run_folder.join("events")).unwrap().collect();
    assert_eq!(events.len(), 1);

    // Averages of checkpoints have the mean of their values.
    let averaged = folder.path().join("averaged");
    succeed(&["export", &run_folder.display().to_string(), &averaged.display().to_string(), "--mean-of-last", "2"]);
    let value = |folder: &Path| {
        let model = Model::from_checkpoint(&Checkpoint::open(folder).unwrap()).unwrap();
        model.values(0).unwrap()
    };
    let steps = [48, 50].map(|step| value(&run_folder.join(format!("checkpoints/step-{step:08}"))));
    for ((mean, one), two) in value(&averaged).iter().zip(&steps[0]).zip(&steps[1]) {
        assert!((mean - 0.5 * (one + two)).abs() <= 1e-6 * one.abs().max(1e-3));
    }

    // Fine-tuning starts from the export, with its vocabulary and sizes, in another precision of the products.
    let from = format!("model.from={}", exported.display());
    let output = format!("run.output={}", folder.path().join("finetuned").display());
    let arguments = [
        "run",
        &config,
        "--set",
        &from,
        "--set",
        "model.vocabulary=",
        "--set",
        &output,
        "--set",
        "run.steps=5",
        "--set",
        "optimizer.kind=adamw",
        "--set",
        "schedule.peak_rate=1e-4",
    ];
    succeed(&arguments);

    // The mean of two runs of one model, and none of two models.
    let tuned = folder.path().join("finetuned");
    let [first, second, both] =
        [&run_folder, &tuned, &folder.path().join("both")].map(|path| path.display().to_string());
    let options = ["--current", "--mean-with", &second];
    succeed(&[&["export", &first, &both, "--step", "50"][..], &options[..1]].concat());
    let one = value(Path::new(&both));
    fs::rename(tuned.join("checkpoints/step-00000005"), tuned.join("checkpoints/step-00000050")).unwrap();
    succeed(&[&["export", &first, &both, "--step", "50"][..], &options].concat());
    let two = value(&tuned.join("checkpoints/step-00000050"));
    for ((mean, one), two) in value(Path::new(&both)).iter().zip(&one).zip(&two) {
        assert!((mean - 0.5 * (one + two)).abs() <= 1e-6 * one.abs().max(1e-3));
    }
    assert!(one != two);
    // Another dropout is no other shape.
    let path = tuned.join("checkpoints/step-00000050/config.json");
    let mut sizes: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    sizes["dropout_rate"] = 0.25.into();
    fs::write(&path, sizes.to_string()).unwrap();
    succeed(&[&["export", &first, &both, "--step", "50"][..], &options].concat());
    let path = tuned.join("checkpoints/step-00000050/tokenizer.json");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "\n").unwrap();
    let message = fail(&[&["export", &first, &both, "--step", "50"][..], &options].concat());
    assert!(message.contains("expected a run of the same shape and vocabulary as"), "{message}");
}

/// `storing` evaluates a model in each type: a row for each metric, the sizes falling.
fn assert_storing_is_told(config: &str, model: &Path) {
    let types = ["--type", "f32", "--type", "q8_0", "--type", "q4_0,decoder.*=q8_0"];
    let model = model.display().to_string();
    let table = succeed(&[&["storing", config, "--model", &model, "-n", "3"][..], &types].concat());
    let table = String::from_utf8(table.stdout).unwrap();
    let cells = |row: &str| -> Vec<String> {
        let row =
            table.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap_or_else(|| panic!("{table}"));
        row.split('|').skip(2).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    assert!(table.starts_with("| | f32 | q8_0 | q4_0,decoder.*=q8_0 |\n"), "{table}");
    assert_eq!((cells("numbers/exact-match").len(), cells("words a second").len()), (3, 3));
    let sizes: Vec<f64> = cells("MB").iter().map(|cell| cell.parse().unwrap()).collect();
    assert!(sizes[0] > sizes[1] && sizes[1] >= sizes[2] && sizes[2] > 0.0, "{sizes:?}");
    let message = fail(&["storing", config, "--model", &model, "--type", "q9"]);
    assert!(message.contains("type: expected one of q8_0"), "{message}");
}

fn assert_logits_agree(folder: &Path, model: &Model) {
    let source = [5, 9, 20, 33, 7, 1];
    let target = [11, 4, 8, 60, 1];
    let runtime = t5_runtime::model::Model::open(folder).unwrap();
    let expected = runtime.session().logits_ids(&source, &target).unwrap();
    let batch = one_example(&source, &target);
    let found = model.logits(Sequences::new(&batch, model.config().vocab_size).unwrap()).unwrap();
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(worst < 1e-4, "logits differ by {worst}");
}

#[test]
fn twenty_pairs_are_learnt_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let colours = ["red", "green", "blue", "black", "white"];
    let things = ["house", "tree", "stone", "river"];
    let pairs: String = (0..20)
        .map(|i| {
            format!("{} {}\t{} {}\n", colours[i % 5], things[i / 5], things[(i * 3 + 1) % 4], colours[(i * 2 + 3) % 5])
        })
        .collect();
    fs::write(folder.path().join("pairs.tsv"), pairs).unwrap();
    let config = write_config(folder.path(), "");
    let text = fs::read_to_string(&config).unwrap();
    // The same pairs are trained on and asked for.
    let text = text
        .replace("hold_out = { field = \"digits\", share = 0.05 }\n", "dev = [\"pairs.tsv\"]\n")
        .replace("numbers.tsv", "pairs.tsv")
        .replace("pieces = 150", "pieces = 40\nrequired_characters = \"\"");
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    succeed(&["vocab", &config, "-o", &folder.path().join("tokenizer.json").display().to_string()]);
    let settings = [
        "run.steps=400",
        "model.dropout=0",
        "evaluation.every_steps=400",
        "checkpoint.every_steps=400",
        "model.d_model=64",
        "model.d_ff=128",
        "schedule.peak_rate=0.03",
    ];
    let sets: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    succeed(&[&["run", config.as_str()][..], &sets].concat());
    let model = folder.path().join("run/checkpoints/step-00000400").display().to_string();
    let report = succeed(&["eval", &config, "--model", &model, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["metrics"]["numbers/exact-match"], 100.0, "{report:#}");
}

#[test]
fn precision_is_measured_when_a_run_begins_and_then_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let auto = ["run", &config, "--set", "run.precision=auto", "--set", "evaluation.every_steps=0"];
    let output = succeed(&[&auto[..], &["--set", "run.steps=3"]].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    let line = message.lines().find(|line| line.starts_with("precision: ")).expect("a line about the precision");
    let chosen = if line.starts_with("precision: bf16 (") { "bf16" } else { "f32" };
    assert!(line.starts_with(&format!("precision: {chosen} (")), "{line}");
    let kept = fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    assert!(kept.contains(&format!("precision = \"{chosen}\"")), "{kept}");
    let output = succeed(&[&auto[..], &["--set", "run.steps=6"]].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&format!("precision: {chosen}, as this run began")), "{message}");
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let set = |set: &str| fail(&["run", &config, "--set", set]);
    assert!(set("schedule.peek_rate=1").contains("unknown key; did you mean schedule.peak_rate?"));
    // In one line, which says it once.
    let none = folder.path().join("none").display().to_string();
    let missing = |file: &str| format!("t5-train: {none}/{file}: No such file or directory (os error 2)\n");
    assert_eq!(set(&format!("model.vocabulary={none}/tokenizer.json")), missing("tokenizer.json"));
    assert_eq!(fail(&["run", &format!("{none}/c.toml")]), missing("c.toml"));
    assert!(set(&format!("model.from={none}")).contains(&none));
    let expected = format!("t5-train: {none}/run: expected a run with checkpoints, found none\n");
    assert_eq!(fail(&["eval", &config, "--set", &format!("run.output={none}/run")]), expected);
    let alone = fail(&["eval", &config, "--average", "logits"]);
    assert!(alone.contains("--average: expected two --model or more with it, found 0"), "{alone}");
    assert_eq!(fail(&["export", &format!("{none}/run"), &format!("{none}/out")]), expected);
    assert!(!Path::new(&none).exists(), "looking for it made no folder");
    assert!(set("model.num_decoder_layers=0").contains("num_decoder_layers"));
    assert!(set("model.feed_forward=tanh").contains("model.feed_forward: expected relu"));
    let best_by = "evaluation.best_by: expected one of loss, numbers/exact-match, found numbers/exact_match";
    assert!(set("evaluation.best_by=loss, numbers/exact_match").contains(best_by));
    assert!(!folder.path().join("run").exists(), "nothing was begun");

    let corpus = folder.path().join("numbers.tsv");
    let good = fs::read(&corpus).unwrap();
    for (contents, expected) in [
        (&b""[..], "numbers.tsv: "),
        (&b"one\t1\ntwo 2\n"[..], "numbers.tsv:2: "),
        (&b"one\t1\ntwo\t\xff\n"[..], "numbers.tsv:2: "),
    ] {
        fs::write(&corpus, contents).unwrap();
        let message = fail(&["run", &config]);
        assert!(message.contains(expected), "{message}");
    }
    fs::remove_file(&corpus).unwrap();
    assert!(fail(&["run", &config]).contains("numbers.tsv"));

    // A vocabulary that is not the checkpoint's.
    fs::write(&corpus, good).unwrap();
    succeed(&["run", &config, "--set", "run.steps=3", "--set", "evaluation.every_steps=0"]);
    let other = folder.path().join("other.json").display().to_string();
    succeed(&["vocab", &config, "-o", &other, "--set", "vocabulary.pieces=140"]);
    let from = format!("model.from={}", folder.path().join("run/checkpoints/step-00000003").display());
    let (vocabulary, output) =
        (format!("model.vocabulary={other}"), format!("run.output={}/b", folder.path().display()));
    let message = fail(&["run", &config, "--set", &from, "--set", &vocabulary, "--set", &output]);
    assert!(message.contains("is not the vocabulary that"), "{message}");

    // Outputs that would destroy what is read.
    let file = |name: &str| folder.path().join(name).display().to_string();
    let run_folder = file("run");
    for output in [&config, &file("numbers.tsv")] {
        let before = fs::read(output).unwrap();
        let message = fail(&["vocab", &config, "-o", output]);
        assert_eq!(message, format!("t5-train: --output: expected another file than {output}, which is read\n"));
        assert_eq!(fs::read(output).unwrap(), before);
    }
    // Or that would be read as what they are not; before anything is trained.
    for name in ["vocab.model", "vocab.gguf"] {
        let message = fail(&["vocab", &config, "-o", &file(name), "--set", "vocabulary.pieces=0"]);
        let expected = "--output: expected a name such as tokenizer.json, as what is written is JSON, found ";
        assert!(message.contains(expected) && message.trim_end().ends_with(name), "{message}");
        assert!(!folder.path().join(name).exists());
    }
    let log = file("run/log.jsonl");
    let before = fs::read(&log).unwrap();
    let message = fail(&["report", &run_folder, "-o", &file("run/../run/log.jsonl")]);
    assert!(message.contains("expected another file than"), "{message}");
    assert_eq!(fs::read(&log).unwrap(), before);
    // Nobody reads any more.
    for arguments in [&["inspect-data", &config, "-n", "0"][..], &["plan", &config]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panicked"), "{said}");
    }
    let help = run(&["--help"]);
    assert!(help.status.success());
}
