//! The road from one's own table to one file: what is found in it, what is refused, and a small run to its end.

mod common;

use std::fs;
use std::path::Path;

use common::{command, fail, prepare, succeed, write_config, write_corpus};
use t5_runtime::Model;
use t5_runtime::checkpoint::Checkpoint;

/// A model that knows the numbers' letters, in `base`.
fn base(folder: &Path) {
    let config = prepare(folder, "");
    let path = |name: &str| folder.join(name).display().to_string();
    succeed(&["run", &config, "--set", "run.steps=3", "--set", "evaluation.every_steps=0"]);
    succeed(&["export", &path("run"), &path("base")]);
}

/// Two classes of texts, which a brace tells apart.
fn table() -> String {
    let words = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
    let rows = (0..240).map(|i: usize| {
        let (first, second) = (words[i % 8], words[i / 8 % 8]);
        let (mark, class) = if i.is_multiple_of(3) { ("{", "seven") } else { ("", "one") };
        format!("{i},\"{first}, {mark}{second} {i}\",{class}\n")
    });
    "id,text,class\n".to_owned() + &rows.collect::<String>()
}

fn arguments<'a>(from: &'a str, data: &'a str, output: &'a str) -> Vec<&'a str> {
    vec!["finetune", "--from", from, "--data", data, "--output", output, "--input", "text", "--target", "class"]
}

#[test]
fn a_table_becomes_a_file_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    base(folder);
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(folder.join("own.csv"), table()).unwrap();
    let (from, data, output) = (path("base"), path("own.csv"), path("out"));
    let more = [
        "--prefix",
        "class: ",
        "--epochs",
        "2",
        "--hold-out",
        "0.2",
        "--set",
        "run.threads=1",
        "--set",
        "run.precision=f32",
    ];
    let output_text = succeed(&[&arguments(&from, &data, &output)[..], &more].concat());
    let told = String::from_utf8(output_text.stderr).unwrap();
    for expected in ["records to train on", "is the best", "MB of memory at most", "finetune/exact-match", "loss"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let commands = String::from_utf8(output_text.stdout).unwrap();
    let commands: Vec<&str> = commands.lines().collect();
    let file = path("out/model.gguf");
    assert_eq!(commands[0], format!("t5 generate --model {file} 'class: …'"));

    // The second command is run as it was printed.
    let words: Vec<&str> = commands[1].split(' ').skip(1).collect();
    let report = String::from_utf8(succeed(&words).stdout).unwrap();
    assert!(report.contains("finetune/exact-match"), "{report}");
    let model = Model::open(folder.join("out/model.gguf")).unwrap();
    assert_eq!(model.session().generate_batch(&["class: one, {two 3"], &Default::default()).unwrap().len(), 1);
    let config = fs::read_to_string(folder.join("out/run/config.toml")).unwrap();
    assert!(config.contains("kind = \"adafactor\"") && config.contains("peak_rate = 0.001"), "{config}");

    // Called again it finds that it is done.
    succeed(&[&arguments(&from, &data, &output)[..], &more].concat());
}

/// Bytes have no file: what a folder says of its tokenizer is kept, and read again.
#[test]
fn a_model_of_bytes_is_trained_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let vocabulary = |path: &str| Checkpoint::open(Path::new(path)).unwrap().vocabulary.unwrap();
    fs::write(folder.join("own.csv"), table()).unwrap();
    let golden = format!("{}/../tests/golden/families/byt5", env!("CARGO_MANIFEST_DIR"));
    let short = ["--set", "run.threads=1", "--set", "run.precision=f32", "--set", "run.steps=2"];
    // From the folder, and then from both of what became of it.
    for (from, output) in [(golden.clone(), "one"), (path("one/model"), "two"), (path("one/model.gguf"), "three")] {
        succeed(&[&arguments(&from, &path("own.csv"), &path(output))[..], &short].concat());
        for name in ["tokenizer.json", "spiece.model"] {
            assert!(!folder.join(output).join("model").join(name).exists(), "{name}");
        }
        for made in ["model", "model.gguf"] {
            assert_eq!(vocabulary(&path(&format!("{output}/{made}"))), vocabulary(&golden), "{output}/{made}");
        }
    }
    // A new model, whose sentinels are those of pre-training.
    write_corpus(folder);
    let config = write_config(folder, "").display().to_string();
    let bytes = ["--set", "model.vocabulary=bytes", "--set", "evaluation.every_steps=0", "--set", "run.steps=2"];
    succeed(&[&["run", &config][..], &bytes].concat());
    succeed(&["export", &path("run"), &path("new")]);
    assert_eq!(vocabulary(&path("new")), t5_runtime::tokenizer::Vocabulary::bytes(384));
}

#[test]
fn characters_that_the_vocabulary_loses_are_told_and_taught() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    base(folder);
    let path = |name: &str| folder.join(name).display().to_string();
    let strange = table().replace("{", "\u{2603}").replace("four", "four\n");
    fs::write(folder.join("own.csv"), strange).unwrap();
    let (from, data, output) = (path("base"), path("own.csv"), path("out"));
    let short = ["--epochs", "1", "--set", "run.threads=1", "--set", "run.precision=f32", "--set", "run.steps=2"];
    let run = |more: &[&str]| {
        let output = succeed(&[&arguments(&from, &data, &output)[..], &short, more].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(&[]);
    assert!(told.contains("are unknown to the vocabulary: '\u{2603}' "), "{told}");
    assert!(told.contains("become spaces: '\\n' ") && told.contains(" lines"), "{told}");
    assert!(told.contains("--add-tokens '\u{2603},\\n' teaches them"), "{told}");
    fs::remove_dir_all(folder.join("out")).unwrap();
    // With the run in another folder, and patience as long as can be typed.
    let elsewhere = format!("run.output={}", path("elsewhere"));
    let patience = u64::MAX.to_string();
    let told = run(&["--add-tokens", "\u{2603},\\n", "--set", &elsewhere, "--patience", &patience]);
    assert!(folder.join("elsewhere/checkpoints").exists() && !folder.join("out/run").exists());
    assert!(!told.contains("teaches them"), "{told}");
    let model = Model::open(folder.join("out/model.gguf")).unwrap();
    // As in the reference, a word after an added token begins with a space.
    let text = "one, \u{2603} two\nthree";
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(text), true), text);
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    base(folder);
    let path = |name: &str| folder.join(name).display().to_string();
    let (from, output) = (path("base"), path("out"));
    let message = |name: &str, contents: &str, more: &[&str]| {
        fs::write(folder.join(name), contents).unwrap();
        let data = path(name);
        let message = fail(&[&arguments(&from, &data, &output)[..], more].concat());
        let last = message.lines().last().unwrap().to_owned();
        (last, data)
    };
    let (told, data) = message("a.csv", "text,label\na,b\n", &[]);
    assert!(told.ends_with(&format!("{data}: expected a column class, found text, label")), "{told}");
    let (told, _) = message("b.csv", "", &[]);
    assert!(told.contains("b.csv: expected a first line with the columns' names, found an empty file"), "{told}");
    let (told, _) = message("c.csv", "text,class\n", &[]);
    assert!(told.contains("c.csv: expected records below the columns' names, found none"), "{told}");
    let (told, _) = message("d.csv", "text\na\n", &[]);
    assert!(told.contains("d.csv: expected two columns or more, found one (text)"), "{told}");
    let (told, _) = message("e.xlsx", "x", &[]);
    assert!(told.contains("e.xlsx: expected a name that ends in .csv, .tsv, .jsonl or .parquet"), "{told}");
    fs::write(folder.join("braces.csv"), "text {raw},class\na,b\n").unwrap();
    let data = path("braces.csv");
    let columns = ["--input", "text {raw}", "--target", "class"];
    let told = fail(&[&["finetune", "--from", &from, "--data", &data, "--output", &output][..], &columns].concat());
    assert!(told.contains("braces.csv: expected a column with a name without braces, found text {raw}"), "{told}");
    let (told, _) = message("f.csv", "text,class\na,b\nc,d\n", &["--hold-out", "0"]);
    assert!(told.contains("f.csv: expected records to evaluate on"), "{told}");
    let (told, _) = message("g.csv", &table(), &["--metric", "bleurt"]);
    assert!(told.contains("metric: expected loss, exact-match"), "{told}");
    // What was begun with other tokens or from another model; the first attempt fails after its model was made.
    let (told, _) = message("g.csv", &table(), &["--add-tokens", "\u{2603}", "--metric", "bleurt"]);
    assert!(told.contains("metric: expected loss, exact-match"), "{told}");
    let (told, _) = message("g.csv", &table(), &["--add-tokens", "\u{2603},\u{2604}"]);
    let expected = "--add-tokens: expected [\"\u{2603}\"], of which ";
    assert!(told.contains(expected) && told.ends_with("base was made, found [\"\u{2603}\", \"\u{2604}\"]"), "{told}");
    let other = path("other");
    let told = fail(&[&arguments(&other, &path("g.csv"), &output)[..], &["--add-tokens", "\u{2603}"]].concat());
    assert!(told.contains(&format!("--from: expected {from}, of which ")) && told.contains(&other), "{told}");
    // Of an older version there is no record.
    fs::remove_file(folder.join("out/base.json")).unwrap();
    let (told, _) = message("g.csv", &table(), &["--add-tokens", "\u{2603},\u{2604}", "--metric", "bleurt"]);
    assert!(told.contains("metric: expected loss, exact-match"), "{told}");
    fs::remove_dir_all(folder.join("out")).unwrap();
    let (told, _) = message("g.csv", &table(), &["--add-tokens", "\\x"]);
    assert!(told.contains("--add-tokens: expected n, t, a comma or a backslash"), "{told}");
    // A rate at which numbers overflow.
    let explode = ["--set", "schedule.peak_rate=1e6", "--set", "optimizer.clip_update=1e30"];
    let (told, _) = message("h.csv", &table(), &explode);
    assert!(told.contains("step ") && told.contains("the loss is"), "{told}");
    // One at which their squares do, and norms make zeros of them.
    fs::remove_dir_all(folder.join("out")).unwrap();
    let vanish = ["--set", "schedule.peak_rate=1e5", "--set", "optimizer.clip_update=1e30"];
    let (told, _) = message("i.csv", &table(), &vanish);
    assert!(told.contains("step ") && told.contains("and all gradients are zero"), "{told}");
    assert!(!folder.join("out/model.gguf").exists());
}

#[test]
#[cfg(feature = "parquet")]
fn a_share_is_held_out_or_a_split_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let data = format!("{}/tests/data/dataset", env!("CARGO_MANIFEST_DIR"));
    let start = ["finetune", "--from", "none", "--data", &data, "--output", &output];
    let columns = ["--input", "sentence", "--target", "label"];
    let told = fail(&[&start[..], &columns, &["--hold-out", "0.5"]].concat());
    let expected = format!("--hold-out: expected none, as {data}/validation is there to evaluate on, found 0.5");
    assert!(told.contains(&expected), "{told}");
    // Without it the split is taken, and what is missing is the model.
    let told = fail(&[&start[..], &columns].concat());
    assert!(told.starts_with("t5-train: none: "), "{told}");
}

#[test]
fn tables_of_every_kind_give_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    base(folder);
    let path = |name: &str| folder.join(name).display().to_string();
    let rows: Vec<[String; 2]> = (0..40).map(|i| [format!("one {i}"), format!("two {}", i % 2)]).collect();
    let join = |line: &dyn Fn(&[String; 2]) -> String| rows.iter().map(line).collect::<String>();
    fs::write(folder.join("a.csv"), "text,class\n".to_owned() + &join(&|[a, b]| format!("{a},{b}\n"))).unwrap();
    fs::write(folder.join("a.tsv"), "text\tclass\n".to_owned() + &join(&|[a, b]| format!("{a}\t{b}\n"))).unwrap();
    let json = join(&|[a, b]| format!("{}\n", serde_json::json!({ "text": a, "class": b })));
    fs::write(folder.join("a.jsonl"), json).unwrap();
    let weights = ["a.csv", "a.tsv", "a.jsonl"].map(|name| {
        let (from, data, output) = (path("base"), path(name), path(&format!("out-{name}")));
        let short =
            ["--set", "run.steps=2", "--set", "run.threads=1", "--set", "run.precision=f32", "--hold-out", "0.3"];
        let output_of = command(&[&arguments(&from, &data, &output)[..], &short].concat()).output().unwrap();
        assert!(output_of.status.success(), "{name}: {}", String::from_utf8_lossy(&output_of.stderr));
        let checkpoint = Checkpoint::open(&folder.join(format!("out-{name}/model"))).unwrap();
        checkpoint.tensors().map(|(_, tensor)| tensor.data.to_vec()).collect::<Vec<_>>()
    });
    assert!(weights[0] == weights[1] && weights[1] == weights[2]);
}
