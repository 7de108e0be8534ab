//! The command as its users see it.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{FAMILIES, Part, Parts, checkpoint, config, names, safetensors, values, write_checkpoint};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema;
use t5_runtime::tensor::DType;

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t5-quantize"));
    command.current_dir(folder).args(arguments);
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Runs it, expects success and gives what it printed.
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it, expects one line on stderr, nothing on stdout and the exit code, and gives the line.
fn fails(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let mut lines = message.lines().filter(|line| !line.starts_with("note: "));
    let line = lines.next().unwrap_or_default().to_owned();
    assert_eq!(lines.next(), None, "{arguments:?}");
    line.strip_prefix("t5-quantize: ").unwrap().to_owned()
}

/// What a person adds to a model's file, and what then comes of the words of its tasks.
#[test]
fn a_file_says_what_it_is_told_to_say() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[1].1);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "settings.json",
        r#"{"num_beams": 3, "task_specific_params": {"sum": {"prefix": "sum: ", "min_length": 2}}}"#,
    );
    let about = ["--about", "license=CC BY 4.0", "--about", "general.url=https://example.org/=1"];
    succeeds(folder.path(), &[&["model", "a.gguf", "--settings", "settings.json"][..], &about].concat());
    // What a file says of itself stays when it is written again.
    succeeds(folder.path(), &["a.gguf", "b.gguf", "--about", "name=B"]);
    let model = Checkpoint::open(&folder.path().join("b.gguf")).unwrap();
    let about = |key: &str| model.about.get(key).map(String::as_str);
    assert_eq!(about("general.license"), Some("CC BY 4.0"));
    assert_eq!(about("general.url"), Some("https://example.org/=1"));
    assert_eq!(about("general.name"), Some("B"));
    assert_eq!(model.generation.settings.num_beams, Some(3));
    let task = model.generation.task_of("sum: one").unwrap();
    assert_eq!((task.name.as_str(), task.settings.min_length), ("sum", Some(2)));
    assert_eq!(model.generation.task_of("sum one"), None);

    let usage = |option: &str, value: &str| fails(folder.path(), &["model", "c.gguf", option, value], 2);
    assert!(usage("--about", "license").contains("expected KEY=TEXT"));
    assert!(usage("--about", "architecture=t5").contains("not up to you"));
    write("settings.json", r#"{"num_beam": 3}"#);
    let message = fails(folder.path(), &["model", "c.gguf", "--settings", "settings.json"], 1);
    assert!(message.contains("settings.json") && message.contains("found num_beam 3"), "{message}");
    write("pairs.tsv", "one\teins\ntwo\n");
    let message = fails(folder.path(), &["model", "c.gguf", "--align", "pairs.tsv"], 1);
    assert!(message.contains("line 2: expected SOURCE<TAB>TARGET"), "{message}");
    write("pairs.tsv", "one two\teins zwei\n");
    let message = fails(folder.path(), &["model", "c.gguf", "--align", "pairs.tsv"], 1);
    assert!(message.contains("expected tokenizer.json or spiece.model"), "{message}");
    let message = fails(folder.path(), &["model", "c.gguf", "--compare", "pairs.tsv"], 2);
    assert!(message.contains("--compare: expected a checkpoint with a tokenizer"), "{message}");
    assert!(!folder.path().join("c.gguf").exists());
}

/// A task takes the place of one of its name, and leaves the others.
#[test]
fn settings_are_added_to_those_of_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[1].1);
    let tasks = |input: &str, output: &str, settings: &str| {
        std::fs::write(folder.path().join("settings.json"), settings).unwrap();
        succeeds(folder.path(), &[input, output, "--settings", "settings.json"]);
        let defaults = Checkpoint::open(&folder.path().join(output)).unwrap().generation;
        assert_eq!(defaults.settings.num_beams, Some(3));
        defaults.tasks.into_iter().map(|task| (task.name, task.prefix, task.settings.min_length)).collect::<Vec<_>>()
    };
    let task = |name: &str, prefix: &str, min_length| (name.to_owned(), prefix.to_owned(), min_length);
    let first = r#"{"num_beams": 3, "task_specific_params": {"sum": {"prefix": "sum: ", "min_length": 2},
        "fix": {"prefix": "fix: "}}}"#;
    assert_eq!(tasks("model", "a.gguf", first), [task("fix", "fix: ", None), task("sum", "sum: ", Some(2))]);
    assert_eq!(tasks("a.gguf", "b.gguf", "{}"), [task("fix", "fix: ", None), task("sum", "sum: ", Some(2))]);
    let more = r#"{"task_specific_params": {"sum": {"prefix": "summarize: "}, "name": {"prefix": "name: "}}}"#;
    let expected = [task("fix", "fix: ", None), task("name", "name: ", None), task("sum", "summarize: ", None)];
    assert_eq!(tasks("a.gguf", "c.gguf", more), expected);
}

/// Such a file would answer no request.
#[test]
fn settings_with_ids_that_the_model_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[1].1);
    for (key, value) in [
        ("decoder_start_token_id", "64"),
        ("eos_token_id", "[1, 64]"),
        ("forced_bos_token_id", "64"),
        ("forced_eos_token_id", "[64]"),
        ("suppress_tokens", "[3, 64]"),
        ("begin_suppress_tokens", "[64]"),
        ("bad_words_ids", "[[3], [4, 64]]"),
        ("sequence_bias", "[[[3, 64], 0.5]]"),
    ] {
        let own = (format!(r#"{{"{key}": {value}}}"#), key.to_owned());
        let task = format!("task_specific_params.sum.{key}");
        let of_task = (format!(r#"{{"task_specific_params": {{"sum": {{"{key}": {value}}}}}}}"#), task);
        for (settings, place) in [own, of_task] {
            std::fs::write(folder.path().join("settings.json"), settings).unwrap();
            let message = fails(folder.path(), &["model", "m.gguf", "--settings", "settings.json"], 1);
            assert_eq!(message, format!("settings.json: {place}: expected ids below 64, found 64"));
            assert!(!folder.path().join("m.gguf").exists());
        }
    }
}

/// Nor would one with these: what the file says is judged together with what the checkpoint says.
#[test]
fn settings_that_every_request_would_be_refused_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[1].1);
    std::fs::write(path.join("model/generation_config.json"), r#"{"num_beams": 4}"#).unwrap();
    let with = |settings: &str| {
        std::fs::write(path.join("settings.json"), settings).unwrap();
        ["model", "m.gguf", "--settings", "settings.json"]
    };
    for (settings, key, expected) in [
        (r#""num_beams": 0"#, "num_beams", "expected 1 to 1024, found 0"),
        (r#""num_beam_groups": 3"#, "num_beam_groups", "expected a divisor of the number of beams (4), found 3"),
        (r#""num_return_sequences": 0"#, "num_return_sequences", "expected at least 1, found 0"),
        (r#""repetition_penalty": 0"#, "repetition_penalty", "expected above 0, found 0"),
        (
            r#""alignment_heads": [[2, 5], [3, 0]]"#,
            "alignment_heads",
            "expected pairs of a block below 3 and a head below 6, found [3, 0]",
        ),
        (
            r#""alignment_heads": [[0]]"#,
            "alignment_heads",
            "expected pairs of a block below 3 and a head below 6, found [0]",
        ),
    ] {
        let message = fails(path, &with(&format!("{{{settings}}}")), 1);
        assert_eq!(message, format!("settings.json: {key}: {expected}"));
        let task = format!(r#"{{"task_specific_params": {{"sum": {{{settings}}}}}}}"#);
        let message = fails(path, &with(&task), 1);
        assert_eq!(message, format!("settings.json: task_specific_params.sum.{key}: {expected}"));
        assert_eq!(names(path), ["model", "settings.json"]);
    }
    let groups = r#""num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 1"#;
    succeeds(path, &with(&format!(r#"{{{groups}, "alignment_heads": [[2, 5]]}}"#)));
    // An encoder is asked for neither.
    let heads = with(r#"{"alignment_heads": [[9, 9]]}"#);
    succeeds(path, &[&heads[..], &["--encoder-only"]].concat());
}

/// Aligning takes minutes, so that what else is wrong is found before it. (Here it fails itself, for the tokenizer.)
#[test]
fn what_is_wrong_is_found_before_words_are_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[1].1);
    std::fs::write(path.join("pairs.tsv"), "one\teins\n").unwrap();
    std::fs::write(path.join("empty.tsv"), "").unwrap();
    let before = names(path);
    for (output, more, code, expected) in [
        ("m.gguf", ["--keep", "wx=f16"], 2, "--keep: expected a pattern that matches a tensor or a role, found none"),
        ("m.gguf", ["--scale-run", "33"], 2, "--scale-run: expected 32, 128 or 256, found 33"),
        ("m.gguf", ["--compare", "empty.tsv"], 1, "empty.tsv: expected lines SOURCE<TAB>TARGET, found none"),
        ("m.gguf", ["--report", "none/r.json"], 1, "none/r.json: "),
        ("none/m.gguf", ["--type", "f16"], 1, "none/m.gguf: "),
        ("pairs.tsv", ["--type", "f16"], 2, "OUT: expected another file than the pairs to align, found pairs.tsv"),
        ("m.gguf", ["--type", "f16"], 1, "model: tokenizer: expected tokenizer.json or spiece.model"),
    ] {
        let message = fails(path, &[&["model", output, "--align", "pairs.tsv"][..], &more].concat(), code);
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(names(path), before, "{message}");
    }
}

/// Heads are judged by what requests give the model: here single letters, of which each pair has two that are linked.
#[test]
fn words_that_are_spelled_out_are_aligned_by_their_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram").display().to_string();
    let task = r#"{"task_specific_params": {"letters": {"prefix": "hill ", "spell_words": true}}}"#;
    std::fs::write(path.join("settings.json"), task).unwrap();
    std::fs::write(path.join("pairs.tsv"), "hill at\tay tee\nhill it\teye tee\nhill as\tay es\n").unwrap();
    let output = run(path, &[&model, "m.gguf", "--settings", "settings.json", "--align", "pairs.tsv"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(" of 6 words; "), "{said}");
}

/// Every program judges these by their names, and would look for something else in them.
#[test]
fn outputs_with_names_of_other_kinds_of_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[0].1);
    let weights = "model/model.safetensors";
    let mut cases = vec![(weights, weights), ("model", "m.safetensors"), ("model", "m.BIN"), ("model", "m.ckpt")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("m.gguf", path.join("link.pt")).unwrap();
        cases.push(("model", "link.pt"));
    }
    let (before, contents) = (names(path), std::fs::read(path.join(weights)).unwrap());
    for (input, output) in cases {
        let message = fails(path, &[input, output], 2);
        let expected = "OUT: expected a name such as model.gguf, found";
        assert_eq!(message, format!("{expected} {output}, the name of another kind of file"));
        assert_eq!(names(path), before, "{output}");
        assert!(std::fs::read(path.join(weights)).unwrap() == contents, "{output}");
    }
}

/// What cannot be compared is found before OUT is replaced.
#[test]
fn a_comparison_that_cannot_be_made_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram").display().to_string();
    succeeds(path, &[&model, "encoder.gguf", "--encoder-only"]);
    std::fs::write(path.join("old.gguf"), "old").unwrap();
    std::fs::write(path.join("pairs.tsv"), "one\teins\n").unwrap();
    std::fs::write(path.join("empty.tsv"), "").unwrap();
    let before = names(path);
    for (input, pairs, code, expected) in [
        (model.as_str(), "empty.tsv", 1, "empty.tsv: expected lines SOURCE<TAB>TARGET, found none"),
        ("encoder.gguf", "pairs.tsv", 2, "--compare: expected a checkpoint with a decoder, found none in encoder.gguf"),
    ] {
        let arguments = [input, "old.gguf", "--compare", pairs, "--report", "report.json"];
        assert_eq!(fails(path, &arguments, code), expected);
        assert_eq!(names(path), before, "{input}");
        assert_eq!(std::fs::read(path.join("old.gguf")).unwrap(), b"old", "{input}");
    }
}

#[test]
fn a_folder_becomes_one_file() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[1].1);
    let table = succeeds(folder.path(), &["model", "model.gguf", "--report", "report.json"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("role                  tensors  type"), "{table}");
    assert!(lines.iter().any(|line| line.starts_with("feed-forward wo             5  q8_0 ")), "{table}");
    assert!(lines.iter().any(|line| line.starts_with("relative bias               2  f32 ")), "{table}");
    assert!(lines.last().unwrap().starts_with("all "), "{table}");

    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["input"], "model");
    assert_eq!(report["output"], "model.gguf");
    assert_eq!((&report["type"], &report["keep"]), (&"q8_0".into(), &serde_json::json!([])));
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 2 * 9 + 3 * 14 + 4 + 2);
    let wo =
        tensors.iter().find(|tensor| tensor["name"] == "encoder.block.0.layer.1.DenseReluDense.wo.weight").unwrap();
    assert_eq!(wo["gguf_name"], "enc.blk.0.ffn_down.weight");
    assert_eq!((&wo["from"], &wo["to"], &wo["role"]), (&"f32".into(), &"q8_0".into(), &"wo".into()));
    assert_eq!(wo["shape"], serde_json::json!([64, 96]));
    assert_eq!((&wo["bytes_before"], &wo["bytes_after"]), (&(64 * 96 * 4).into(), &(64 * 3 * 34).into()));
    // Values from -1 to 1: steps of 1/127, so errors of half a step and the rounding of the scale to half precision.
    let (max, rms) = (wo["max_error"].as_f64().unwrap(), wo["rms_error"].as_f64().unwrap());
    assert!(max > 0.003 && max < 0.5 / 127.0 + 127.0 / 127.0 / 2048.0, "{max}");
    assert!(rms > 0.0015 && rms < max, "{rms}");
    let roles = report["roles"].as_array().unwrap();
    let sum: u64 = roles.iter().map(|role| role["bytes_after"].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), report["bytes_after"].as_u64());
    assert_eq!(names(folder.path()), ["model", "model.gguf", "report.json"]);

    // The same input, the same bytes; and a file may replace its own source.
    let first = std::fs::read(folder.path().join("model.gguf")).unwrap();
    succeeds(folder.path(), &["model", "again.gguf", "--type", "q8_0"]);
    assert!(std::fs::read(folder.path().join("again.gguf")).unwrap() == first);
    succeeds(folder.path(), &["again.gguf", "again.gguf", "--type", "Q8_0"]);
    assert!(std::fs::read(folder.path().join("again.gguf")).unwrap() == first);
}

#[test]
fn types_and_exceptions() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[1].1);
    succeeds(
        folder.path(),
        &["model", "m.gguf", "--type", "f16", "--keep", "wo=f32", "--keep", "dec.*.ffn_down.weight=q8_0"],
    );
    let checkpoint = Checkpoint::open(&folder.path().join("m.gguf")).unwrap();
    for (spec, tensor) in checkpoint.tensors() {
        let expected = match spec.gguf_name.as_str() {
            name if name.starts_with("dec.") && name.ends_with("ffn_down.weight") => DType::Q8_0,
            name if name.ends_with("ffn_down.weight") || name.contains("norm") || name.contains("rel_b") => DType::F32,
            _ => DType::F16,
        };
        assert_eq!(tensor.dtype, expected, "{}", spec.gguf_name);
    }
}

#[test]
fn usage_errors_are_one_line_and_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), FAMILIES[0].1);
    for (arguments, expected) in [
        (&[][..], "the following required arguments were not provided: <IN> <OUT>; see --help"),
        (&["model"], "the following required arguments were not provided: <OUT>; see --help"),
        (
            &["model", "m.gguf", "--type", "q6_k"],
            "invalid value 'q6_k' for '--type <TYPE>': expected one of q8_0, f16, f32, q4_0, q4_k; see --help",
        ),
        (
            &["model", "m.gguf", "--keep", "wo"],
            "invalid value 'wo' for '--keep <PATTERN=TYPE>': expected PATTERN=TYPE, found wo; see --help",
        ),
        (
            &["model", "m.gguf", "--keep", "wx=f16"],
            "--keep: expected a pattern that matches a tensor or a role, found none for wx",
        ),
        (&["model", "m.gguf", "--fast"], "unexpected argument '--fast' found; see --help"),
        (&["model", "m.gguf", "x"], "unexpected argument 'x' found; see --help"),
        (&["model", "m.gguf", "--report", "m.gguf"], "--report: expected another file than OUT, found m.gguf"),
    ] {
        assert_eq!(fails(folder.path(), arguments, 2), expected, "{arguments:?}");
        assert_eq!(names(folder.path()), ["model"], "{arguments:?}");
    }
    assert!(succeeds(folder.path(), &["--help"]).contains("--keep <PATTERN=TYPE>"));
}

/// What a path is decides, not how it is spelled: through other spellings and links, too.
#[test]
fn a_report_takes_the_place_of_neither_input_nor_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[0].1);
    succeeds(path, &["model", "in.gguf"]);
    std::fs::write(path.join("old.gguf"), "old").unwrap();
    std::fs::create_dir(path.join("sub")).unwrap();
    let mut cases = vec![
        ("in.gguf", "old.gguf", "./old.gguf", "OUT"),
        ("in.gguf", "sub/../old.gguf", "old.gguf", "OUT"),
        ("in.gguf", "new.gguf", "sub/../new.gguf", "OUT"),
        ("in.gguf", "old.gguf", "in.gguf", "a file of IN"),
        ("in.gguf", "old.gguf", "./sub/../in.gguf", "a file of IN"),
        ("model", "old.gguf", "model/config.json", "a file of IN"),
        ("model", "old.gguf", "model/model.safetensors", "a file of IN"),
        ("model/model.safetensors", "old.gguf", "model/config.json", "a file of IN"),
    ];
    #[cfg(unix)]
    for (link, target, taken) in [
        ("to-old", "old.gguf", "OUT"),
        ("to-in", "in.gguf", "a file of IN"),
        ("to-config", "model/config.json", "a file of IN"),
    ] {
        std::os::unix::fs::symlink(target, path.join(link)).unwrap();
        cases.push((if link == "to-in" { "in.gguf" } else { "model" }, "old.gguf", link, taken));
    }
    let before = (names(path), names(&path.join("model")));
    let contents = |file: &str| std::fs::read(path.join(file)).unwrap();
    let files = ["in.gguf", "old.gguf", "model/config.json", "model/model.safetensors"].map(contents);
    for (input, output, report, taken) in cases {
        let message = fails(path, &[input, output, "--report", report], 2);
        assert_eq!(message, format!("--report: expected another file than {taken}, found {report}"));
        assert_eq!((names(path), names(&path.join("model"))), before, "{report}");
        assert_eq!(["in.gguf", "old.gguf", "model/config.json", "model/model.safetensors"].map(contents), files);
    }
    succeeds(path, &["model", "old.gguf", "--report", "model/report.json"]);

    // Whatever else is read, and as the file itself.
    std::fs::write(path.join("settings.json"), "{}").unwrap();
    std::fs::write(path.join("pairs.tsv"), "a\tb\n").unwrap();
    let settings = ["--settings", "settings.json"];
    for (arguments, message) in [
        (
            ["model", "old.gguf", "--report", "settings.json"],
            "--report: expected another file than the settings, found settings.json",
        ),
        (
            ["model", "old.gguf", "--report", "sub/../settings.json"],
            "--report: expected another file than the settings, found sub/../settings.json",
        ),
        (
            ["model", "settings.json", "--type", "f16"],
            "OUT: expected another file than the settings, found settings.json",
        ),
        (
            ["model", "model/config.json", "--type", "f16"],
            "OUT: expected another file than a file of IN, found model/config.json",
        ),
        (
            ["model", "model/model.safetensors", "--type", "f16"],
            "OUT: expected another file than a file of IN, found model/model.safetensors",
        ),
    ] {
        assert_eq!(fails(path, &[&arguments[..], &settings[..]].concat(), 2), message);
        assert_eq!(std::fs::read_to_string(path.join("settings.json")).unwrap(), "{}");
        assert_eq!(["model/config.json", "model/model.safetensors"].map(contents), files[2..]);
    }
    succeeds(path, &["in.gguf", "in.gguf", "--type", "f16"]);
}

/// What config.json asks for and does not get is said by the new file as well, without the old one's folder.
#[test]
fn what_is_not_obeyed_goes_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[0].1);
    let config = path.join("model/config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["tie_encoder_decoder"] = true.into();
    std::fs::write(&config, json.to_string()).unwrap();
    succeeds(path, &["model", "one.gguf"]);
    succeeds(path, &["one.gguf", "two.gguf", "--type", "f16"]);
    let expected = "config.json: tie_encoder_decoder is not obeyed: the decoder's weights are read as they are stored";
    for file in ["one.gguf", "two.gguf"] {
        let opened = t5_runtime::checkpoint::Checkpoint::open(&path.join(file)).unwrap();
        assert_eq!(opened.not_obeyed, [expected]);
        assert!(opened.notes.contains(&expected.to_owned()), "{:?}", opened.notes);
    }
}

/// An encoder's file has no head that reads the decoder's states, and whoever makes it hears of that.
#[test]
fn a_head_is_left_out_with_the_decoder_that_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint(folder.path(), FAMILIES[0].1);
    let tensor = |shape: &[usize]| Part::f32(shape, values(1, shape.iter().product()));
    let tensors = schema::tensors(&config(FAMILIES[0].1)).into_iter();
    let mut parts: Parts = tensors.map(|spec| (spec.hf_name, tensor(&spec.shape))).collect();
    parts.insert("qa_outputs.weight".to_owned(), tensor(&[2, 32]));
    parts.insert("qa_outputs.bias".to_owned(), tensor(&[2]));
    std::fs::write(model.join("model.safetensors"), safetensors(&parts)).unwrap();
    let json = FAMILIES[0].1.replace("T5ForConditionalGeneration", "T5ForQuestionAnswering");
    std::fs::write(model.join("config.json"), json).unwrap();
    for (option, left_out) in [(None, false), (Some("--encoder-only"), true)] {
        let arguments: Vec<&str> = ["model", "a.gguf"].into_iter().chain(option).collect();
        let output = run(folder.path(), &arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        let note = "note: the head for question-answering reads the decoder's states and is left out with it";
        assert_eq!(errors.lines().any(|line| line == note), left_out, "{errors}");
        let head = Checkpoint::open(&folder.path().join("a.gguf")).unwrap().head;
        assert_eq!(head.is_none(), left_out);
    }
}

#[test]
fn failures_name_the_file_and_leave_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[0].1);
    write_checkpoint(&path.join("nan"), FAMILIES[0].1, DType::F32, |name, values| {
        if name == "decoder.block.1.layer.1.EncDecAttention.v.weight" {
            values[32 * 5 + 7] = f32::NAN;
        }
    });
    write_checkpoint(&path.join("large"), FAMILIES[0].1, DType::F32, |name, values| {
        if name == "shared.weight" {
            values[32 * 63 + 31] = 1e9;
        }
    });
    std::fs::write(path.join("text.txt"), "hello").unwrap();
    std::fs::write(path.join("old.gguf"), "old").unwrap();
    std::fs::create_dir(path.join("folder.gguf")).unwrap();
    let before = names(path);
    for (arguments, expected) in [
        (&["none", "old.gguf"][..], "none: No such file or directory (os error 2)"),
        (&["text.txt", "old.gguf"], "text.txt: not a model: expected "),
        (&["folder.gguf", "old.gguf"], "folder.gguf: not a model: expected config.json"),
        (
            &["nan", "old.gguf"],
            "nan/model.safetensors: tensor decoder.block.1.layer.1.EncDecAttention.v.weight: row 5, column 7: \
             expected a finite number, found NaN",
        ),
        (
            &["large", "old.gguf"],
            "large/model.safetensors: tensor shared.weight: row 63, column 31: \
             expected a number that q8_0 can hold, found 1000000000",
        ),
        (
            &["large", "old.gguf", "--type", "f16"],
            "large/model.safetensors: tensor shared.weight: row 63, column 31: \
             expected a number that f16 can hold, found 1000000000",
        ),
        (&["model", "folder.gguf"], "folder.gguf: expected a file to write, found something else"),
        (&["model", "none/m.gguf"], "none/m.gguf: "),
        (&["model", "old.gguf", "--report", "none/r.json"], "none/r.json: "),
    ] {
        let message = fails(path, arguments, 1);
        assert!(message.starts_with(expected), "{arguments:?}: {message}");
        assert!(message.matches("No such file").count() <= 1, "{arguments:?}: {message}");
        assert_eq!(names(path), before, "{arguments:?}");
        assert_eq!(std::fs::read(path.join("old.gguf")).unwrap(), b"old", "{arguments:?}");
    }
    // What F16 and Q8_0 cannot hold, F32 can.
    succeeds(path, &["large", "old.gguf", "--keep", "token_embedding=f32"]);
}

#[test]
fn a_name_on_the_hub_is_a_checkpoint_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let commit = "1111111111111111111111111111111111111111";
    let repository = path.join("home/hub/models--ann--tiny");
    write_checkpoint(&repository.join("snapshots").join(commit), FAMILIES[0].1, DType::F16, |_, _| {});
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), commit).unwrap();
    let output = command(path, &["hf:ann/tiny", "m.gguf", "--type", "f16"])
        .env("HF_HOME", path.join("home"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Checkpoint::open(&path.join("m.gguf")).unwrap().config.d_model, 32);

    let output = command(path, &["hf:ann/other", "n.gguf"])
        .env("HF_HOME", path.join("home"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("t5-quantize: hf:ann/other: not in the cache "), "{message}");
}

#[test]
fn a_lora_adapter_is_merged_before_it_is_stored() {
    let peft = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/tests/data/peft");
    let folder = tempfile::tempdir().unwrap();
    let (base, adapter) = (peft.join("base").display().to_string(), peft.join("plain").display().to_string());
    let stored = |output: &str, more: &[&str]| {
        succeeds(folder.path(), &[&[base.as_str(), output, "--type", "f32", "--no-balance"][..], more].concat());
        Checkpoint::open(&folder.path().join(output)).unwrap()
    };
    let (plain, merged) = (stored("plain.gguf", &[]), stored("merged.gguf", &["--adapter", &adapter]));
    let mut expected = Checkpoint::open(Path::new(&base)).unwrap();
    t5_quantize::adapter::Adapter::open(Path::new(&adapter)).unwrap().merge(&mut expected).unwrap();
    for (spec, tensor) in merged.tensors() {
        let values = |checkpoint: &Checkpoint| {
            t5_runtime::block::decode_tensor(checkpoint.tensor(&spec.hf_name).unwrap()).unwrap()
        };
        assert_eq!(t5_runtime::block::decode_tensor(tensor).unwrap(), values(&expected), "{}", spec.hf_name);
        let changed = spec.hf_name.ends_with(".q.weight") || spec.hf_name.ends_with(".v.weight");
        assert_eq!(values(&plain) != values(&expected), changed, "{}", spec.hf_name);
    }
    let message = fails(folder.path(), &[&base, "none.gguf", "--adapter", &base], 1);
    assert!(message.contains("adapter_config.json"), "{message}");
    assert!(!folder.path().join("none.gguf").exists());

    // An adapter of the whole model does for its encoder.
    let encoder = stored("encoder.gguf", &["--adapter", &adapter, "--encoder-only"]);
    assert!(encoder.config.is_encoder_only());
    for (spec, tensor) in encoder.tensors() {
        assert_eq!(tensor.data[..], merged.tensor(&spec.hf_name).unwrap().data[..], "{}", spec.hf_name);
    }
}

/// Behind norms that were balanced the product of an adapter's matrices is another one, which no file tells.
#[test]
fn an_adapter_for_a_quantised_file_is_doubted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    checkpoint(path, FAMILIES[0].1);
    std::fs::create_dir(path.join("lora")).unwrap();
    std::fs::write(path.join("lora/adapter_config.json"), r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1}"#).unwrap();
    let module = "base_model.model.encoder.block.0.layer.0.SelfAttention.q";
    let side = |name: &str, shape: [usize; 2]| (format!("{module}.{name}.weight"), Part::f32(&shape, values(1, 32)));
    let parts = Parts::from([side("lora_A", [1, 32]), side("lora_B", [32, 1])]);
    std::fs::write(path.join("lora/adapter_model.safetensors"), safetensors(&parts)).unwrap();
    succeeds(path, &["model", "q8_0.gguf"]);
    succeeds(path, &["model", "f16.gguf", "--type", "f16"]);
    succeeds(path, &["model", "plain.gguf", "--no-balance"]);
    // Balanced, though no matrix is in blocks any more.
    succeeds(path, &["q8_0.gguf", "again.gguf", "--type", "f16"]);
    for (input, doubted) in
        [("model", false), ("f16.gguf", false), ("q8_0.gguf", true), ("again.gguf", true), ("plain.gguf", true)]
    {
        let output = run(path, &[input, "out.gguf", "--adapter", "lora"]);
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{input}: {notes}");
        let note = format!("note: {input} was quantised before: an adapter that t5-train trained on this very file");
        assert_eq!(notes.contains(&note), doubted, "{input}: {notes}");
    }
}
