//! The `t5` command as the worker of a job of many inputs: objects in and out, bad ones among them, files that are
//! whole or go on, and pipes that wait for an answer.

#[path = "common/command.rs"]
mod command;
#[cfg(target_os = "linux")]
#[path = "../../tests/src/small_disk.rs"]
mod small_disk;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use command::t5;
use serde_json::{Value, json};

fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram").display().to_string()
}

/// Exit code, standard output and standard error of `t5 generate` with the tiny model.
fn generate(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let model = model();
    let all = [&["generate", "--model", &model, "--max-new-tokens", "8"], arguments].concat();
    let output = t5(&all, input);
    let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), out, errors)
}

fn start(arguments: &[&str]) -> (Child, ChildStdin) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(["generate", "--model", &model(), "--max-new-tokens", "8"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    (child, input)
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn objects(count: usize) -> String {
    (0..count).map(|i| json!({"id": i, "text": format!("a text, number {i}")}).to_string() + "\n").collect()
}

#[test]
fn objects_come_back_with_their_results() {
    let (_, alone, _) = generate(&["one\ntwo"], b"");
    let expected = alone.strip_suffix('\n').unwrap();
    let input = [
        json!({"id": "a", "text": "one\ntwo", "more": {"kept": [1, null]}}).to_string(),
        "no object".to_owned(),
        json!({"id": 7, "content": "x"}).to_string(),
        json!({"id": 8, "text": 5}).to_string(),
        json!({"id": 9, "text": "x", "output": "taken"}).to_string(),
        json!({"id": 10, "text": "a long one, ".repeat(9)}).to_string(),
        json!({"text": "one\ntwo"}).to_string(),
    ]
    .join("\n");
    let input = [input.as_bytes(), b"\n{\"id\": 11, \"text\": \"\xFF\"}\n"].concat();
    for batch in [&[][..], &["--batch", "1"], &["--batch", "3", "--jobs", "2"]] {
        let arguments = [&["--input-format", "jsonl", "--max-input-tokens", "20"], batch].concat();
        let (code, out, errors) = generate(&arguments, &input);
        assert_eq!((code, errors.lines().last()), (0, Some("t5: note: 6 of 8 records failed: see their \"error\"")));
        let found = json_lines(&out);
        assert_eq!(found[0], json!({"id": "a", "text": "one\ntwo", "more": {"kept": [1, null]}, "output": expected}));
        assert_eq!(found[6], json!({"text": "one\ntwo", "output": expected}));
        for (line, id, error) in [
            (2, json!(null), "line 2: expected a JSON object: "),
            (3, json!(7), "line 3: expected a string \"text\", found none"),
            (4, json!(8), "line 4: expected a string \"text\", found a number"),
            (5, json!(9), "line 5: expected no \"output\", which the result is called: see --output-field"),
            (6, json!(10), "expected at most 20 tokens"),
            (8, json!(null), "line 8: expected UTF-8: "),
        ] {
            let Value::Object(object) = &found[line - 1] else { panic!("{out}") };
            assert_eq!((object.len(), &object["id"], &object["line"]), (3, &id, &json!(line)));
            assert!(object["error"].as_str().unwrap().contains(error), "{object:?}");
        }
        assert_eq!(generate(&[&arguments[..], &["--strict"]].concat(), &input), {
            (3, out, "t5: 6 of 8 records failed: see their \"error\"\n".to_owned())
        });
    }
    // Names of the caller's, all that is known of a result, and a text that is cut off.
    let text = "a long one, ".repeat(9);
    let input = json!({"doc": "d", "body": text}).to_string();
    let arguments = [
        "--input-format",
        "jsonl",
        "--text-field",
        "body",
        "--id-field",
        "doc",
        "--output-field",
        "summary",
        "--json",
        "--max-input-tokens",
        "20",
        "--too-long",
        "truncate",
    ];
    let found = json_lines(&generate(&arguments, input.as_bytes()).1);
    assert_eq!(found[0]["summary"]["input_ids"].as_array().unwrap().len(), 20);
    assert_eq!(found[0]["body"], text);
    let two =
        json_lines(&generate(&["--input-format", "jsonl", "--beams", "2", "--n-best", "2"], objects(1).as_bytes()).1);
    assert_eq!(two[0]["output"].as_array().unwrap().len(), 2);
    let (code, _, errors) = generate(&["--too-long", "truncate", "x"], b"");
    assert_eq!((code, &*errors), (2, "t5: --too-long truncate: expected --max-input-tokens with it\n"));
}

#[test]
fn scores_and_choices_are_of_objects_too() {
    let model = model();
    let input = json!({"id": 1, "text": "a text", "target": "another"}).to_string() + "\n{\"text\": \"a text\"}\n";
    let scored = t5(&["score", "--model", &model, "--input", "-", "--input-format", "jsonl"], input.as_bytes());
    let found = json_lines(&String::from_utf8(scored.stdout).unwrap());
    let line = t5(&["score", "--model", &model, "--input", "-"], b"a text\tanother\n");
    let expected: f64 = String::from_utf8(line.stdout).unwrap().trim().parse().unwrap();
    assert!((found[0]["output"].as_f64().unwrap() - expected).abs() < 1e-5, "{found:?}");
    assert_eq!(found[1]["error"], "standard input, line 2: expected a string \"target\", found none");

    let expected = t5(&["generate", "--model", &model, "--choices", "one,two", "a text"], b"");
    let expected = String::from_utf8(expected.stdout).unwrap();
    let chosen = t5(
        &["generate", "--model", &model, "--choices", "one,two", "--input-format", "jsonl"],
        b"{\"text\": \"a text\"}\n[]\n",
    );
    let found = json_lines(&String::from_utf8(chosen.stdout).unwrap());
    assert_eq!(found[0]["output"], expected.trim_end());
    assert!(found[1]["error"].as_str().unwrap().starts_with("standard input, line 2: expected a JSON object"));
}

#[test]
fn states_of_good_objects_come_among_faulty_ones() {
    let model = model();
    let embed = |more: &[&str], input: &[u8]| {
        let output = t5(&[&["embed", "--model", &model, "--input-format", "jsonl"], more].concat(), input);
        (output.status.code(), json_lines(&String::from_utf8(output.stdout).unwrap()))
    };
    let good = objects(2);
    let (_, expected) = embed(&[], good.as_bytes());
    let (first, second) = good.split_once('\n').unwrap();
    let input = format!("{first}\n{{\"doc\": 5}}\n{second}");
    let (code, found) = embed(&["--id-field", "doc"], input.as_bytes());
    // Objects without a name are faulty where names are asked for.
    assert_eq!((code, found.iter().filter(|object| object.get("error").is_some()).count()), (Some(0), 3));
    assert_eq!(found[1]["doc"], 5);
    let (code, found) = embed(&["--strict"], input.as_bytes());
    assert_eq!((code, &found[0], &found[2]), (Some(3), &expected[0], &expected[1]));
    assert_eq!(found[1]["error"], "standard input, line 2: expected a string \"text\", found none");
}

/// Whoever asks for eight at a time gets an answer though there are fewer.
#[test]
fn a_pipe_that_stays_open_is_answered() {
    for arguments in [&["--batch", "8"][..], &["--batch", "8", "--flush-ms", "0"], &[]] {
        let (mut child, mut input) = start(&[&["--input-format", "jsonl"], arguments].concat());
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        for line in objects(3).lines() {
            writeln!(input, "{line}").unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert!(answer["output"].is_string());
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_killed_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let input = objects(40);
    fs::write(path("input"), &input).unwrap();
    let job = |output: &str, more: &[&str]| {
        let (input, output) = (path("input"), path(output));
        generate(&[&["--input-format", "jsonl", "--input", &input, "--output", &output], more].concat(), b"")
    };
    assert_eq!(job("whole", &[]), (0, String::new(), String::new()));
    let whole = fs::read_to_string(path("whole")).unwrap();
    assert_eq!(whole, generate(&["--input-format", "jsonl"], input.as_bytes()).1);
    assert!(!Path::new(&path("whole.partial")).exists());

    // Killed when the last line that it was given is answered.
    let (mut child, mut pipe) = start(&["--input-format", "jsonl", "--output", &path("out")]);
    let given: String = input.lines().take(17).map(|line| format!("{line}\n")).collect();
    pipe.write_all(given.as_bytes()).unwrap();
    let partial = path("out.partial");
    while fs::read_to_string(&partial).unwrap_or_default().lines().count() < 17 {
        std::thread::yield_now();
    }
    // Nobody else writes it meanwhile.
    let (code, _, errors) = job("out", &["--resume"]);
    assert_eq!((code, errors), (1, format!("t5: {partial}: expected a file that no other job writes\n")));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(pipe);
    assert!(!Path::new(&path("out")).exists());
    let (code, _, errors) = job("out", &[]);
    assert!(code == 2 && errors.contains(&format!("expected no {partial}, which another job has left")), "{errors}");
    let left = fs::read_to_string(&partial).unwrap();
    for torn in ["", "{\"id\": 17, \"te", "\u{1F600}"] {
        fs::write(&partial, format!("{left}{torn}")).unwrap();
        assert_eq!(job("out", &["--resume"]), (0, String::new(), String::new()));
        assert_eq!(fs::read_to_string(path("out")).unwrap(), whole);
        assert!(!Path::new(&partial).exists());
    }
    // Done already.
    let note = format!("t5: note: {}: is there already\n", path("out"));
    assert_eq!(job("out", &["--resume"]), (0, String::new(), note));

    // The results of other inputs.
    fs::write(path("other.partial"), left.replace("\"id\":16,", "\"id\":61,")).unwrap();
    let (code, _, errors) = job("other", &["--resume"]);
    assert!(code == 1 && errors.contains("line 17: expected the result of 16, found that of 61"), "{errors}");
    fs::write(path("other.partial"), whole.repeat(2)).unwrap();
    let (code, _, errors) = job("other", &["--resume"]);
    assert!(code == 1 && errors.contains("expected at most 40 results, one for each input, found 80"), "{errors}");
    let (code, _, errors) = generate(&["--output", &path("x"), "--resume", "--n-best", "2", "--beams", "2", "a"], b"");
    assert!(code == 2 && errors.starts_with("t5: --resume: expected a result of one line"), "{errors}");
}

/// A copy of the model whose settings ask for so many results of each text.
fn model_of_several(folder: &Path, count: usize) -> String {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(&model()).join(file), folder.join(file)).unwrap();
    }
    let settings = json!({"num_beams": count, "num_return_sequences": count});
    fs::write(folder.join("generation_config.json"), settings.to_string()).unwrap();
    folder.display().to_string()
}

#[test]
fn only_lines_for_inputs_are_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let several = model_of_several(folder.path(), 2);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let input = "one\ntwo\nthree\n";
    fs::write(path("input"), input).unwrap();
    fs::write(path("x.partial"), "first\nsecond\n").unwrap();
    let (x, input) = (path("x"), path("input"));
    let (base, model) = (["--output", &x, "--resume"], model());
    for more in [
        &["--model", &several, "--input", &input][..],
        &["--n-best", "2", "--beams", "2", "--input", &input],
        &["--stream", "--json", "--input", &input],
        &["a\nb", "c"],
        &["--choices", "a\nb,c", "--input", &input],
    ] {
        let own: &[&str] = if more[0] == "--model" { &[] } else { &["--model", &model] };
        let output = t5(&[&["generate"], own, &base, more].concat(), b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {errors}");
        assert!(errors.starts_with("t5: --resume: expected a result of one line"), "{more:?}: {errors}");
    }
    assert_eq!(fs::read_to_string(path("x.partial")).unwrap(), "first\nsecond\n");
    for more in [&["--model", &several, "--n-best", "1"][..], &["--stream"]] {
        fs::write(path("x.partial"), "first\nsecond\n").unwrap();
        let own: &[&str] = if more[0] == "--model" { &[] } else { &["--model", &model] };
        let arguments = [&["generate", "--max-new-tokens", "8", "--input", &input], own, &base, more].concat();
        let output = t5(&arguments, b"");
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        let lines = fs::read_to_string(&x).unwrap();
        assert!(lines.starts_with("first\nsecond\n") && lines.lines().count() == 3, "{more:?}: {lines}");
        fs::remove_file(&x).unwrap();
    }
}

/// The next job finds nothing in its way.
#[test]
fn what_fails_before_its_first_result_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (name, model) = (folder.path().join("out").display().to_string(), model());
    for (arguments, code) in [
        (&["generate", "--model", "missing.gguf", "a"][..], 1),
        (&["generate", "--model", &model, "--regex", "(a", "a"], 2),
        (&["generate", "--model", &model, "--stream", "--beams", "2", "--n-best", "2", "a"], 2),
        (&["generate", "--model", &model, "--top-p", "7", "a"], 2),
        (&["generate", "--model", &model, "--max-input-tokens", "1", "a long text"], 2),
        (&["generate", "--model", &model, "--choices", "a,a", "a"], 2),
        (&["score", "--model", "missing.gguf", "--input", "-"], 1),
        (&["score", "--model", &model, "--input", "-"], 1),
    ] {
        let output = t5(&[arguments, &["--output", &name]].concat(), b"no tab\n");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn only_files_are_written_and_links_are_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Before the model is looked for.
    fs::create_dir(path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.gz")).unwrap();
    symlink("socket.gz", path("device")).unwrap();
    for name in ["folder", "socket.gz", "device"] {
        let output = t5(&["generate", "--model", "missing.gguf", "--output", &path(name), "a"], b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        let expected = format!("t5: {}: expected a file to write, found something else\n", path(name));
        assert_eq!((output.status.code(), errors), (Some(1), expected));
    }
    // What is open under a name of its own is not replaced.
    if Path::new("/proc/self/fd").exists() {
        fs::write(path("log"), "before\n").unwrap();
        symlink("/proc/self/fd/1", path("stdout")).unwrap();
        let log = fs::OpenOptions::new().append(true).open(path("log")).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_t5"))
            .args(["generate", "--model", "missing.gguf", "--output", &path("stdout"), "a"])
            .stdout(log)
            .output()
            .unwrap();
        let errors = String::from_utf8(command.stderr).unwrap();
        assert!(errors.ends_with("stdout: expected a file to write, found something else\n"), "{errors}");
        assert_eq!(fs::read_to_string(path("log")).unwrap(), "before\n");
    }
    fs::create_dir(path("real")).unwrap();
    for name in ["old", "new", "old.gz"] {
        let (target, link) = (path(&format!("real/{name}")), path(name));
        if name != "new" {
            fs::write(&target, "old").unwrap();
        }
        symlink(&target, &link).unwrap();
        assert_eq!(generate(&["--output", &link, "a"], b""), (0, String::new(), String::new()));
        assert!(Path::new(&link).is_symlink(), "{name}");
        assert_ne!(fs::read(&target).unwrap(), b"old", "{name}");
    }
    assert_eq!(fs::read_dir(path("real")).unwrap().count(), 3);
}

#[test]
fn what_is_of_objects_is_refused_without_them() {
    let model = model();
    for (command, flags) in [
        ("generate", &["--strict"][..]),
        ("generate", &["--text-field", "text"]),
        ("generate", &["--id-field", "id"]),
        ("generate", &["--output-field", "output"]),
        ("score", &["--strict"]),
        ("score", &["--target-field", "target"]),
    ] {
        let output = t5(&[&[command, "--model", &model, "--input", "-"], flags].concat(), b"a\tb\n");
        let expected = format!("t5: {}: expected --input-format jsonl with it\n", flags[0]);
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(2), expected));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let disk_folder = folder.path().join("disk");
    let Some(disk) = small_disk::SmallDisk::mount(&disk_folder, 256) else { return };
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("input"), objects(1500)).unwrap();
    let job = |output: &str, more: &[&str]| {
        let (input, output) = (path("input"), path(output));
        generate(&[&["--input-format", "jsonl", "--input", &input, "--output", &output], more].concat(), b"")
    };
    assert_eq!(job("whole", &[]).0, 0);
    let whole = fs::read(path("whole")).unwrap();
    // A line is longer than 60 bytes.
    assert!(whole.len() > 1500 * 60);
    for name in ["disk/out", "disk/out.gz"] {
        let mut failures = 0;
        for kib in (8..).step_by(4) {
            disk.leave(kib);
            let more: &[&str] = if failures == 0 { &[] } else { &["--resume"] };
            let (code, out, errors) = job(name, more);
            if code == 0 {
                break;
            }
            failures += 1;
            assert_eq!((code, out.as_str(), errors.lines().count()), (1, "", 1), "{errors}");
            assert!(errors.starts_with("t5: ") && errors.contains(name), "{errors}");
            assert!(errors.ends_with("No space left on device (os error 28)\n"), "{errors}");
            assert!(!Path::new(&path(name)).exists());
            // Whole lines, and at most the beginning of one.
            let partial = fs::read(path(&format!("{name}.partial"))).unwrap();
            assert!(whole.starts_with(&partial), "{failures}");
        }
        assert!(failures > 2, "{failures}");
        let mut found = fs::read(path(name)).unwrap();
        if name.ends_with("gz") {
            let compressed = std::mem::take(&mut found);
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut found).unwrap();
        }
        assert!(found == whole, "{name}");
        fs::remove_file(path(name)).unwrap();
    }
}

#[test]
fn results_are_compressed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines: String = (0..30).map(|i| format!("a text, number {i}\n")).collect();
    let (_, expected, _) = generate(&[], lines.as_bytes());
    for name in ["plain.txt", "small.gz", "small.zst"] {
        assert_eq!(generate(&["--output", &path(name)], lines.as_bytes()), (0, String::new(), String::new()));
        let bytes = fs::read(path(name)).unwrap();
        let mut text = String::new();
        match name {
            "small.gz" => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
            "small.zst" => {
                ruzstd::decoding::StreamingDecoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap()
            }
            _ => (&bytes[..]).read_to_string(&mut text).unwrap(),
        };
        assert_eq!(text, expected);
        assert!(!Path::new(&path(&format!("{name}.partial"))).exists());
    }
    let (code, _, errors) = generate(&["--output", &path("no/folder.gz"), "a"], b"");
    assert!(code == 1 && errors.contains("folder.gz: No such file"), "{errors}");
}
