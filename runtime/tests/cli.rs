//! The `t5` command as other programs see it: what it prints, where, and with which exit code.

#[path = "common/command.rs"]
mod command;
#[path = "common/documented.rs"]
mod documented;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command::t5;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families").join(name)
}

fn model() -> String {
    fixture("unigram").display().to_string()
}

/// Standard output of a call that must succeed.
#[track_caller]
fn succeed(arguments: &[&str], input: &[u8]) -> String {
    let output = t5(arguments, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line on standard error of a call that must fail with an exit code and print nothing else.
#[track_caller]
fn fail(code: i32, arguments: &[&str], input: &[u8]) -> String {
    let output = t5(arguments, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(output.stdout.is_empty());
    errors
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Texts with the reference's answers.
fn golden_texts() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("unigram").join("golden.jsonl")).unwrap();
    json_lines(&text).into_iter().filter(|value| value["kind"] == "text").collect()
}

#[test]
fn one_line_in_one_line_out() {
    let model = model();
    let goldens = golden_texts();
    assert!(goldens.len() >= 3);
    let input: String = goldens.iter().map(|golden| format!("{}\n", golden["text"].as_str().unwrap())).collect();
    for (batch, jobs, threads) in
        [("1", "1", "1"), ("2", "1", "2"), ("16", "1", "1"), ("1", "3", "1"), ("2", "2", "3"), ("1", "16", "1")]
    {
        let output = succeed(
            &[
                "generate",
                "--model",
                &model,
                "--input",
                "-",
                "--max-new-tokens",
                "24",
                "--batch",
                batch,
                "--jobs",
                jobs,
                "--threads",
                threads,
            ],
            input.as_bytes(),
        );
        let lines: Vec<&str> = output.lines().collect();
        let expected: Vec<&str> = goldens.iter().map(|golden| golden["output"].as_str().unwrap()).collect();
        assert_eq!(lines, expected);
    }
}

/// Without a number, lines that are there are answered together, and in order; whoever waits for an answer gets it
/// before the next line is asked for.
#[test]
fn answers_wait_for_no_line_that_is_not_there() {
    let model = model();
    let goldens = golden_texts();
    let input: String = goldens.iter().map(|golden| format!("{}\n", golden["text"].as_str().unwrap())).collect();
    let many = input.repeat(20);
    for jobs in ["1", "3"] {
        let arguments = ["generate", "--model", &model, "--max-new-tokens", "24", "--jobs", jobs];
        let expected = succeed(&[&arguments[..], &["--batch", "1"]].concat(), input.as_bytes());
        assert_eq!(succeed(&arguments, many.as_bytes()), expected.repeat(20), "{jobs} jobs");
    }

    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(["generate", "--model", &model, "--max-new-tokens", "24"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    for golden in &goldens {
        writeln!(questions, "{}", golden["text"].as_str().unwrap()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end_matches('\n'), golden["output"].as_str().unwrap());
    }
    drop(questions);
    assert!(child.wait().unwrap().success());
}

/// Each answer is the one that its line has alone, to the last bit, in the order of the lines; and the decoder takes as
/// many passes as if whoever is next took the place of the one that is done first.
#[test]
fn lines_take_the_place_of_those_that_are_done() {
    let model = model();
    let goldens = golden_texts();
    let text = |line: usize| goldens[line * line % goldens.len()]["text"].as_str().unwrap();
    let words = |line: usize| text(line).split(' ').take(1 + line % 5).collect::<Vec<_>>().join(" ");
    let input: String = (0..60).map(|line| words(line) + "\n").collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines.txt");
    std::fs::write(&file, &input).unwrap();
    let file = file.display().to_string();
    let from_file = |more: &[&str]| {
        let arguments = ["generate", "--model", &model, "--json", "--stats", "--input", &file];
        let output = t5(&[&arguments[..], more].concat(), b"");
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (alone, _) = from_file(&["--max-new-tokens", "90", "--batch", "1"]);
    let lengths: Vec<usize> = json_lines(&alone).iter().map(|answer| answer["ids"].as_array().unwrap().len()).collect();
    assert_eq!(lengths.len(), 60);
    for (rows, arguments) in [(3, &["--max-new-tokens", "90", "--batch", "3"][..]), (16, &["--max-new-tokens", "90"])] {
        let (together, stats) = from_file(arguments);
        assert_eq!(together, alone);
        let mut busy = vec![0; rows];
        for &tokens in &lengths {
            *busy.iter_mut().min().unwrap() += tokens;
        }
        let passes = busy.into_iter().max().unwrap();
        assert!(stats.contains(&format!(" tokens in {passes} passes and ")), "expected {passes} passes: {stats}");
        let in_groups: usize = lengths.chunks(rows).map(|group| group.iter().max().unwrap()).sum();
        assert!(passes < in_groups, "{passes} against {in_groups}: {lengths:?}");
    }
    assert_eq!(from_file(&["--max-new-tokens", "90", "--jobs", "3"]).0, alone);
    assert_eq!(from_file(&["--max-new-tokens", "90", "--jobs", "2", "--batch", "5"]).0, alone);
    // Beams take several rows, and more of them than go side by side are one line after the other.
    for beams in ["3", "300"] {
        let alone = from_file(&["--beams", beams, "--max-new-tokens", "5", "--batch", "1"]).0;
        assert_eq!(from_file(&["--beams", beams, "--max-new-tokens", "5"]).0, alone);
        assert_eq!(from_file(&["--beams", beams, "--max-new-tokens", "5", "--batch", "9"]).0, alone);
    }
}

/// A line that cannot be answered ends the work behind those before it, whoever answers them.
#[test]
fn lines_before_a_faulty_one_are_answered() {
    let model = model();
    let lines = |count: usize| "The house on the hill\n".repeat(count);
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "9", "--max-input-tokens", "12"];
    let one = succeed(&arguments, lines(1).as_bytes());
    for (more, before) in [(&["--batch", "1"][..], 3), (&[], 40), (&["--batch", "7"], 9), (&["--jobs", "3"], 50)] {
        let input = format!("{}{}\n{}", lines(before), "a hill ".repeat(20), lines(30));
        let output = t5(&[&arguments[..], more].concat(), input.as_bytes());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.lines().count() == 1 && errors.contains("expected at most 12 tokens"), "{errors}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), one.repeat(before), "{more:?}");
    }
}

#[test]
fn weights_can_be_read_in_place_of_mapped() {
    let (model, golden) = (model(), &golden_texts()[0]);
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "24", golden["text"].as_str().unwrap()];
    let output = succeed(&[&arguments[..], &["--no-mmap"]].concat(), b"");
    assert_eq!(output.trim_end_matches('\n'), golden["output"].as_str().unwrap());
    let output = t5(&[&arguments[..], &["--no-mmap", "--packed", "x"]].concat(), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--packed"));
}

#[test]
fn text_alone_is_short_for_generate() {
    let model = model();
    let golden = &golden_texts()[0];
    let text = golden["text"].as_str().unwrap();
    let short = succeed(&[text, "--model", &model, "--max-new-tokens", "24"], b"");
    assert_eq!(short.trim_end_matches('\n'), golden["output"].as_str().unwrap());
    assert_eq!(succeed(&["--model", &model, "--max-new-tokens", "24", text], b""), short);
}

#[test]
fn json_says_everything() {
    let model = model();
    let golden = &golden_texts()[0];
    let text = golden["text"].as_str().unwrap();
    let output = succeed(&["generate", "-m", &model, "--json", "--max-new-tokens", "24", text], b"");
    let object = &json_lines(&output)[0];
    assert_eq!(object["text"], golden["output"]);
    assert_eq!(object["ids"], golden["ids"]);
    assert_eq!(object["finish"], "eos");
    assert_eq!(object["logprobs"].as_array().unwrap().len(), golden["ids"].as_array().unwrap().len());
    assert!(object["score"].as_f64().unwrap() < 0.0);
    assert_eq!(object["input_ids"].as_array().unwrap().last().unwrap(), 1);
    assert_eq!(object["n_best"].as_array().unwrap().len(), 1);

    let output = succeed(
        &[
            "generate",
            "-m",
            &model,
            "--json",
            "--beams",
            "4",
            "--n-best",
            "3",
            "--penalty",
            "hf",
            "--length-penalty",
            "1.0",
            "--max-new-tokens",
            "24",
            text,
        ],
        b"",
    );
    let object = &json_lines(&output)[0];
    let scores: Vec<f64> =
        object["n_best"].as_array().unwrap().iter().map(|result| result["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(object["score"].as_f64(), Some(scores[0]));
}

#[test]
fn sampling_repeats_with_its_seed() {
    let model = model();
    let draw = |seed: &str| {
        succeed(&["generate", "-m", &model, "--temperature", "1.5", "--seed", seed, "The house on the hill"], b"")
    };
    assert_eq!(draw("3"), draw("3"));
    assert!((4..20).any(|seed| draw(&seed.to_string()) != draw("3")));
}

#[test]
fn score_matches_generation() {
    let model = model();
    let golden = &golden_texts()[0];
    let text = golden["text"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pairs = folder.path().join("pairs.tsv");
    std::fs::write(&pairs, format!("{text}\tleave\n{text}\tput\n")).unwrap();
    let pairs = pairs.display().to_string();
    let objects = json_lines(&succeed(&["score", "--model", &model, "--input", &pairs, "--json"], b""));
    assert_eq!(objects.len(), 2);
    for object in &objects {
        let logprobs: Vec<f64> =
            object["logprobs"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert_eq!(logprobs.len(), object["ids"].as_array().unwrap().len());
        // Both are printed as f32.
        assert!((logprobs.iter().sum::<f64>() - object["sum"].as_f64().unwrap()).abs() < 1e-4);
        assert_eq!(object["ids"].as_array().unwrap().last().unwrap(), 1);
    }
    std::fs::write(folder.path().join("bad.tsv"), "a\tb\nno tab\n").unwrap();
    let bad = folder.path().join("bad.tsv").display().to_string();
    let output = t5(&["score", "--model", &model, "--input", &bad], b"");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("bad.tsv, line 2") && errors.contains("no tab"), "{errors}");
}

#[test]
fn tokenize_and_back() {
    let model = model();
    let ids = succeed(&["tokenize", "--model", &model, "The house on the hill"], b"");
    assert_eq!(ids, "3 148 8 63 23 3 4 129 36 1\n");
    assert_eq!(succeed(&["tokenize", "--model", &model, "--decode"], ids.as_bytes()), "The house on the hill\n");
    assert_eq!(succeed(&["tokenize", "--model", &model, "--decode", "[3, 148, 8]"], b"").lines().count(), 1);
    let object = &json_lines(&succeed(&["tokenize", "--model", &model, "--json", "The"], b""))[0];
    assert_eq!(object["ids"].as_array().unwrap().len(), object["pieces"].as_array().unwrap().len());
    assert!(fail(1, &["tokenize", "--model", &model, "--decode", "3 x"], b"").contains("\"x\""));
}

#[test]
fn embed_gives_one_vector_a_line() {
    let model = model();
    let objects = json_lines(&succeed(&["embed", "--model", &model, "--json", "A", "The house"], b""));
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["embedding"].as_array().unwrap().len(), 32);
    let plain = succeed(&["embed", "--model", &model, "A"], b"");
    assert_eq!(plain.split_whitespace().count(), 32);
    // Works without a decoder, by ids; this fixture has no vocabulary, and says so.
    let encoder = fixture("encoder-only").display().to_string();
    assert!(fail(1, &["embed", "--model", &encoder, "A"], b"").contains("tokenizer"));
}

#[test]
fn inspect_describes_a_model() {
    let model = model();
    let object = &json_lines(&succeed(&["inspect", &model, "--json"], b""))[0];
    assert_eq!(object["config"]["d_model"], 32);
    assert!(object["tensors"].as_array().unwrap().len() > 20);
    let text = succeed(&["inspect", &model], b"");
    assert!(text.contains("d_model: 32") && text.contains("unigram"), "{text}");
}

/// Without being asked, and once.
#[test]
fn what_config_json_asks_for_and_does_not_get_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(fixture("unigram").join(file), folder.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(fixture("unigram").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let path = folder.path().to_str().unwrap();
    for (set, count) in [(false, 0), (true, 1)] {
        config["tie_encoder_decoder"] = set.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        for arguments in [&["embed", "--model", path][..], &["embed", "--verbose", "--model", path]] {
            let output = t5(arguments, b"a test\n");
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{errors}");
            let said = errors.matches("config.json: tie_encoder_decoder is not obeyed").count();
            assert_eq!(said, count, "{arguments:?}: {errors}");
        }
    }
}

#[test]
fn bench_prints_its_keys() {
    let model = model();
    let arguments =
        ["bench", "--model", &model, "--input-tokens", "9", "--new-tokens", "5", "--repeats", "2", "--json"];
    let object = &json_lines(&succeed(&arguments, b""))[0];
    for key in ["ms_per_token", "encoder_ms", "tokens_per_s", "load_ms"] {
        for value in ["median", "min", "max"] {
            assert!(object[key][value].is_number(), "{key}.{value}: {object}");
        }
    }
    for key in ["peak_rss_mb", "weights_gb_per_s", "threads", "jobs"] {
        assert!(object[key].is_number(), "{key}: {object}");
    }
    assert!(object["isa"].is_string());
    for (beams, jobs) in [("1", "1"), ("3", "2")] {
        succeed(
            &[
                "bench",
                "--model",
                &model,
                "--batch",
                "3",
                "--beams",
                beams,
                "--new-tokens",
                "1",
                "--repeats",
                "1",
                "--jobs",
                jobs,
            ],
            b"",
        );
    }
    // Of steps that take next to nothing, too, none takes less.
    for _ in 0..20 {
        let arguments =
            ["bench", "-m", &model, "--input-tokens", "60", "--new-tokens", "2", "--repeats", "3", "--json"];
        let object = &json_lines(&succeed(&arguments, b""))[0];
        assert!(object["ms_per_token"]["min"].as_f64().unwrap() > 0.0, "{object}");
        assert!(object["tokens_per_s"]["min"].as_f64().unwrap() > 0.0, "{object}");
    }
    let error = fail(2, &["bench", "-m", &model, "--batch", "100", "--beams", "4"], b"");
    assert!(error.contains("--batch: expected at most 256 sequences (inputs times beams), found 400"), "{error}");
    // An encoder alone has no tokens to count.
    let encoder = fixture("encoder-only").display().to_string();
    let object = &json_lines(&succeed(&["bench", "--model", &encoder, "--json", "--repeats", "1"], b""))[0];
    assert!(object["encoder_ms"]["median"].is_number() && object["ms_per_token"].is_null());
}

#[test]
fn json_is_as_it_is_documented() {
    let model = model();
    let model = model.as_str();
    let first = |arguments: &[&str], input: &[u8]| json_lines(&succeed(arguments, input)).remove(0);
    let short = ["generate", "-m", model, "--max-new-tokens", "5", "--json"];
    documented::check("t5 generate --json", &first(&[&short[..], &["The house"]].concat(), b""));
    documented::check("t5 generate --json --stream", &first(&[&short[..], &["--stream", "The house"]].concat(), b""));
    let choices = ["generate", "-m", model, "--json", "--choices", "leave,put", "The house"];
    documented::check("t5 generate --json --choices", &first(&choices, b""));
    for command in ["score", "align"] {
        let section = format!("t5 {command} --json");
        documented::check(&section, &first(&[command, "-m", model, "-i", "-", "--json"], b"The house\tleave\n"));
    }
    // A row for each word of the target, also where there is nothing that it could come from.
    let empty = first(&["align", "-m", model, "-i", "-", "--json"], b"\tc\n");
    assert_eq!(empty, json!({"source": [], "target": ["c"], "weights": [[]]}));
    let embed = ["embed", "-m", model, "--json", "The house"];
    documented::check("t5 embed --json", &first(&embed, b""));
    documented::check("t5 embed --json --pooling none", &first(&[&embed[..], &["--pooling", "none"]].concat(), b""));
    documented::check("t5 tokenize --json", &first(&["tokenize", "-m", model, "--json", "The"], b""));
    let decode = ["tokenize", "-m", model, "--json", "--decode", "3 148"];
    documented::check("t5 tokenize --json --decode", &first(&decode, b""));
    documented::check("t5 inspect --json", &first(&["inspect", model, "--json"], b""));
    let bench = ["bench", "-m", model, "--input-tokens", "4", "--new-tokens", "2", "--repeats", "1", "--json"];
    documented::check("t5 bench --json", &first(&bench, b""));
    let faulty = ["generate", "-m", model, "--input-format", "jsonl"];
    documented::check("--input-format jsonl", &first(&faulty, b"{}\n"));
}

#[test]
fn pieces_come_through_pipes() {
    let model = model();
    let texts = "The house on the hill\nA small red building\n";
    let flags = ["generate", "-m", &model, "--max-new-tokens", "24"];
    let plain = succeed(&flags, texts.as_bytes());
    assert_eq!(succeed(&[&flags[..], &["--stream"]].concat(), texts.as_bytes()), plain);
    let whole = json_lines(&succeed(&[&flags[..], &["--json"]].concat(), texts.as_bytes()));
    let events = json_lines(&succeed(&[&flags[..], &["--json", "--stream"]].concat(), texts.as_bytes()));
    for (line, expected) in (1..).zip(&whole) {
        let of_line: Vec<&Value> = events.iter().filter(|event| event["line"] == line).collect();
        let (last, pieces) = of_line.split_last().unwrap();
        let mut expected = expected.clone();
        expected["line"] = json!(line);
        assert_eq!(**last, expected);
        assert!(pieces.len() > 1, "{events:?}");
        let text: String = pieces.iter().map(|piece| piece["piece"].as_str().unwrap()).collect();
        assert_eq!(text, expected["text"].as_str().unwrap());
    }
    assert!(events.iter().map(|event| event["line"].as_u64().unwrap()).is_sorted());

    // A piece is there before the text is done: whoever reads it can end the rest.
    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(["generate", "-m", &model, "--stream", "--json", "--max-new-tokens", "4096", "--min-new-tokens", "4096"])
        .args(["--isa", "scalar", "The house on the hill"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(json_lines(&line)[0]["piece"].is_string(), "{line}");
    assert!(child.wait().unwrap().success());

    for (flags, message) in [
        (
            &["--n-best", "2", "--beams", "2"][..],
            "--stream: expected one result of each text, or --json, found 2 results",
        ),
        (&["--input-format", "jsonl"], "--stream: expected texts, found --input-format jsonl"),
    ] {
        let error = fail(2, &[&["generate", "-m", &model, "--stream", "A"], flags].concat(), b"");
        assert_eq!(error, format!("t5: {message}\n"));
    }
}

/// On a terminal, which `script` (of util-linux) makes; a pipe is told nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_long_file_shows_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.txt"), folder.path().join("out.txt"));
    std::fs::write(&input, "The house on the hill\n".repeat(60)).unwrap();
    let (input, out) = (input.display().to_string(), out.display().to_string());
    let program = env!("CARGO_BIN_EXE_t5");
    let model = model();
    for (command, lines) in [("generate", input.as_str()), ("score", "pairs"), ("embed", input.as_str())] {
        let pairs = folder.path().join("pairs");
        std::fs::write(&pairs, "The house\tleave\n".repeat(60)).unwrap();
        let lines = if lines == "pairs" { pairs.display().to_string() } else { lines.to_owned() };
        let line = format!("{program} {command} -m {model} -i {lines} > {out}");
        let Ok(output) = Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]).output()
        else {
            println!("skipped: there is no script of util-linux");
            return;
        };
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}");
        assert!(shown.contains("records") || shown.contains("texts"), "{command}: {shown:?}");
        assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 60);
    }
    assert!(t5(&["generate", "-m", &model, "-i", &input], b"").stderr.is_empty());
}

/// The same numbers as one after the other, whatever stands beside a pair.
#[test]
fn pairs_are_scored_side_by_side() {
    let model = model();
    let pairs: Vec<String> = (0..40)
        .map(|i| format!("{}\t{}\n", "The house on the hill ".repeat(1 + i % 5), "leave it ".repeat(1 + i % 7)))
        .collect();
    let score = |input: &str| succeed(&["score", "-m", &model, "-i", "-", "--json"], input.as_bytes());
    let alone: String = pairs.iter().map(|pair| score(pair)).collect();
    assert_eq!(score(&pairs.concat()), alone);
    // A bad line ends the work behind those before it.
    let output = t5(&["score", "-m", &model, "-i", "-", "--json"], (pairs.concat() + "no tab\n").as_bytes());
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(1), alone));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "t5: standard input, line 41: expected SOURCE<TAB>TARGET, found no tab\n"
    );
}

#[test]
fn instruction_sets_agree() {
    let model = model();
    let run = |isa: &str| {
        let output = t5(&["generate", "-m", &model, "--isa", isa, "--json", "The house on the hill"], b"");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let scalar = run("scalar").unwrap();
    for isa in ["sse41", "avx2", "avxvnni", "avx512", "amx", "neon", "dotprod", "i8mm"] {
        // Where the machine has it: equal to the last bit of every log-probability.
        if let Some(output) = run(isa) {
            assert_eq!(output, scalar, "{isa}");
        }
    }
}

/// A copy of the model with other settings in its files.
fn model_with(config: Value, generation: Option<Value>) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(fixture("unigram").join(file), folder.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    std::fs::write(folder.path().join("config.json"), all.to_string()).unwrap();
    if let Some(generation) = generation {
        std::fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
    }
    let path = folder.path().display().to_string();
    (folder, path)
}

/// Requests with the text that every face must give: tests/requests.jsonl, which the browser's face reads, too.
#[test]
fn flags_give_the_texts_of_the_table() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/requests.jsonl");
    let table = json_lines(&std::fs::read_to_string(table).unwrap());
    assert!(table.len() > 20);
    for request in table {
        let (_folder, model) = model_with(request["config"].clone(), request.get("generation").cloned());
        let flags = request["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap());
        let arguments: Vec<&str> = ["generate", "--model", &model].into_iter().chain(flags).collect();
        let text = request["text"].as_str().unwrap();
        let found = succeed(&[&arguments[..], &["--", text]].concat(), b"");
        assert_eq!(found.trim_end_matches('\n'), request["output"].as_str().unwrap(), "{request}");
    }
}

#[test]
fn a_forced_first_token_of_the_checkpoint_comes_first() {
    let (_folder, model) = model_with(json!({}), Some(json!({"forced_bos_token_id": 27, "max_new_tokens": 12})));
    let first = |flags: &[&str]| {
        let arguments = [&["generate", "--json", "--model", &model][..], flags, &["Hello world, this is a test."]];
        json_lines(&succeed(&arguments.concat(), b""))[0]["ids"][0].clone()
    };
    assert_eq!(first(&[]), 27);
    assert_eq!(first(&["--beams", "3"]), 27);
    assert_eq!(first(&["--forced-bos", "31"]), 31);
    let plain = succeed(&["generate", "--json", "-m", &self::model(), "Hello world, this is a test."], b"");
    assert_ne!(json_lines(&plain)[0]["ids"][0], 27);
}

#[test]
fn what_is_not_obeyed_is_said_once() {
    let generation = json!({"penalty_alpha": 0.6, "guidance_scale": 1.5, "max_new_tokens": 3});
    let (_folder, model) = model_with(json!({}), Some(generation));
    let note = "t5: note: settings of the checkpoint's generation that are not obeyed: guidance_scale 1.5, \
                penalty_alpha 0.6\n";
    for verbose in [&["--verbose"][..], &[]] {
        let arguments = [&["generate", "--model", &model, "A", "B"][..], verbose].concat();
        let errors = String::from_utf8(t5(&arguments, b"").stderr).unwrap();
        assert_eq!(errors.matches(note).count(), 1, "{errors}");
    }
}

/// Models of bytes can generate line breaks.
#[test]
fn a_line_gives_one_line_and_an_argument_keeps_its_own() {
    let model = fixture("byt5").display().to_string();
    let base = ["generate", "--model", &model, "--max-new-tokens", "2", "--prefix", "a\r\nb"];
    for more in [&[][..], &["--stream"]] {
        for line in ["one\n", "one\rtwo\n"] {
            let text = succeed(&[&base[..], more].concat(), line.as_bytes());
            assert!(text.starts_with("a  b") && text.lines().count() == 1, "{more:?}: {text:?}");
        }
        let text = succeed(&[&base[..], more, &["one\ntwo"]].concat(), b"");
        assert!(text.starts_with("a\r\nb"), "{more:?}: {text:?}");
        let text = succeed(&[&base[..], more, &["one"]].concat(), b"");
        assert!(text.starts_with("a  b"), "{more:?}: {text:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let (text, object) = (folder.path().join("text"), folder.path().join("object"));
    std::fs::write(&text, "\u{feff}The house\n\u{feff}").unwrap();
    std::fs::write(&object, "\u{feff}{\"text\": \"The house\"}\n").unwrap();
    let tokenize = ["tokenize", "--model", &model, "--input"];
    let expected = succeed(&[&tokenize[..], &["-"]].concat(), b"The house\n");
    for (input, pipe) in [(text.to_str().unwrap(), &b""[..]), ("-", "\u{feff}The house\n\u{feff}".as_bytes())] {
        let found = succeed(&[&tokenize[..], &[input]].concat(), pipe);
        assert_eq!(found.lines().next().unwrap(), expected.trim_end());
        // Behind the first line it is a character like others.
        assert_eq!(found.lines().count(), 2);
    }
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "2", "--input-format", "jsonl", "--input"];
    let found = json_lines(&succeed(&[&arguments[..], &[object.to_str().unwrap()]].concat(), b""));
    assert!(found[0]["output"].is_string(), "{found:?}");
}

#[test]
fn a_prefix_says_what_the_vocabulary_does_not_have() {
    let model = model();
    let run = |prefix: &str| {
        let arguments =
            ["generate", "-m", &model, "--max-new-tokens", "3", "--prefix", prefix, "The house", "The hill"];
        let output = t5(&arguments, b"");
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(run("The boat"), "");
    for (prefix, places) in [("The <unk> boat", "one place"), ("東京 The 😀 boat", "2 places")] {
        let expected = format!(
            "t5: note: prefix: the vocabulary does not have what stands in {places}: the model sees <unk> there, and \
             results are without it\n"
        );
        assert_eq!(run(prefix), expected, "{prefix}");
    }
}

#[test]
fn tasks_are_listed_and_refused_by_name() {
    let tasks = json!({"task_specific_params": {
        "summarization": {"prefix": "summarize: ", "num_beams": 4},
        "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 300},
    }});
    let (_folder, model) = model_with(tasks, None);
    let text = succeed(&["inspect", &model], b"");
    assert!(text.contains("task: summarization: num_beams 4, prefix \"summarize: \"\n"), "{text}");
    assert!(text.contains("task: translation_en_to_de: max_length 300, prefix "), "{text}");
    let error = fail(2, &["generate", "-m", &model, "--task", "summary", "A"], b"");
    assert_eq!(error, "t5: --task: expected one of summarization, translation_en_to_de, found summary\n");
    let error = fail(2, &["generate", "-m", &self::model(), "--task", "summary", "A"], b"");
    assert_eq!(error, "t5: --task: expected none, since the model names no tasks, found summary\n");
}

#[test]
fn decoding_goes_on_behind_the_end() {
    let ids = "[3, 148, 8, 1, 63, 23, 1]";
    assert_eq!(succeed(&["tokenize", "-m", &model(), "--decode", ids], b""), "The house on\n");
}

#[test]
fn ids_that_mean_nothing_are_refused() {
    let error = fail(1, &["tokenize", "-m", &model(), "--decode", "3 256"], b"");
    assert_eq!(error, "t5: argument, line 1: expected ids below 256, found 256\n");
}

#[test]
fn words_that_are_hardly_texts_are_refused() {
    for (word, meant) in [("generat", "generate"), ("scor", "score"), ("tokenise", "tokenize")] {
        let message = format!(
            "t5: expected a text or a subcommand, found {word}: a similar subcommand exists: {meant}; for it as a \
             text: t5 generate {word}\n"
        );
        assert_eq!(fail(2, &[word, "-m", &model()], b""), message);
    }
    let error = fail(2, &["google/flan-t5-small", "A"], b"");
    let message = "expected a text or a subcommand, found google/flan-t5-small: a model is named by --model \
                   hf:google/flan-t5-small, a text like it by t5 generate google/flan-t5-small";
    assert_eq!(error, format!("t5: {message}\n"));
    let error = fail(1, &["generate", "-m", "google/flan-t5-small", "A"], b"");
    assert!(error.ends_with("; for the one of the hub: --model hf:google/flan-t5-small\n"), "{error}");
    // Asked for by name, they are texts; other words and paths are, anyway.
    for text in ["generat", "google/flan-t5-small"] {
        assert_eq!(succeed(&["generate", "-m", &model(), text], b"").lines().count(), 1);
    }
    for text in ["house", "1/2/3", "a generat", "km/h?"] {
        let short = succeed(&[text, "-m", &model(), "--max-new-tokens", "4"], b"");
        assert_eq!(short, succeed(&["generate", text, "-m", &model(), "--max-new-tokens", "4"], b""));
    }
}

#[test]
fn what_may_have_been_meant_is_said() {
    let error = fail(2, &["generate", "--beam", "2", "A"], b"");
    let message = "unexpected argument '--beam' found: a similar argument exists: '--beams'; see --help";
    assert_eq!(error, format!("t5: {message}\n"));
}

#[test]
fn what_cannot_be_understood_exits_with_2() {
    let model = model();
    let cases: &[(&[&str], &str)] = &[
        (&["generate", "--model", &model, "--no-such-flag", "A"], "--no-such-flag"),
        (&["generate", "--model", "", "A"], "--model: expected a file or a folder, found an empty name"),
        (&["generate", "--model", &model, "--beams", "many", "A"], "many"),
        (&["generate", "--model", &model, "--beams", "0", "A"], "beams"),
        (&["generate", "--model", &model, "--beams", "2", "--n-best", "3", "A"], "--n-best: "),
        (
            &["generate", "--model", &model, "--min-new-tokens", "50", "--max-new-tokens", "10", "A"],
            "--min-new-tokens: expected at most the limit of new tokens (10), found 50",
        ),
        (&["generate", "--model", &model, "--suppress", "1,x", "A"], "expected token ids with commas between them"),
        (&["generate", "--model", &model, "--suppress", "999", "A"], "--suppress: expected ids below 256, found 999"),
        (&["generate", "--model", &model, "--beams", "4", "--beam-groups", "3", "A"], "--beam-groups: "),
        (&["generate", "--model", &model, "--beams", "4", "--beam-groups", "2", "A"], "--diversity-penalty: "),
        (&["generate", "--model", &model, "--isa", "abacus", "A"], "--isa: expected one that this machine has ("),
        (&["generate", "--model", &model, "--temperature", "-1", "A"], "temperature"),
        (&["generate", "--model", &model, "--batch", "0", "A"], "--batch"),
        (&["generate", "--model", &model, "--threads", "0", "A"], "--threads"),
        (&["generate", "--model", &model, "--threads", "65", "A"], "--threads: expected 1 to 64, found 65"),
        (&["generate", "--model", &model, "--jobs", "0", "A"], "--jobs"),
        (&["score", "--model", &model], "--input"),
        (&["bench", "--model", &model, "--repeats", "0"], "--repeats"),
        (
            &["bench", "--model", &model, "--input-tokens", "9223372036854775807"],
            "--input-tokens: expected at most 1048576, found 9223372036854775807",
        ),
    ];
    for (arguments, word) in cases {
        let error = fail(2, arguments, b"");
        assert!(error.contains(word), "{arguments:?}: {error}");
    }
}

/// What people name in the place of a model, and what is to be done with it.
#[test]
fn folders_without_a_model_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    std::fs::write(folder.path().join("pytorch_model.bin"), b"PK").unwrap();
    let expected = format!(
        "t5: {path}/pytorch_model.bin: not a model: expected safetensors or GGUF; `t5-quantize {path} OUT.gguf` makes \
         a GGUF file of a PyTorch pickle\n"
    );
    assert_eq!(fail(1, &["inspect", &path], b""), expected);
    std::fs::remove_file(folder.path().join("pytorch_model.bin")).unwrap();
    let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"});
    std::fs::write(folder.path().join("adapter_config.json"), adapter.to_string()).unwrap();
    let expected = format!(
        "t5: {path}: not a model: expected a whole model, found a LoRA adapter of google/flan-t5-small; \
         `t5-quantize google/flan-t5-small OUT.gguf --adapter {path}` merges the two\n"
    );
    assert_eq!(fail(1, &["inspect", &path], b""), expected);
}

#[test]
fn what_cannot_be_read_exits_with_1() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("noise.gguf"), b"this is no model").unwrap();
    std::fs::write(path("empty.gguf"), b"").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    for name in ["missing.gguf", "noise.gguf", "empty.gguf", "folder"] {
        let error = fail(1, &["generate", "--model", &path(name), "A"], b"");
        assert!(error.contains(name), "{error}");
    }
    let missing = fail(1, &["generate", "--model", &path("missing.gguf"), "A"], b"");
    assert_eq!(missing.matches("No such file or directory").count(), 1, "{missing}");
    assert!(fail(1, &["generate", "--model", &model, "--input", &path("no.txt")], b"").contains("no.txt"));
    assert!(fail(1, &["generate", "--model", &model, "--input", &path("folder")], b"").contains("folder"));
    let output = t5(&["generate", "--model", &model, "--input", "-"], b"fine\n\xff\xfe\n");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("standard input, line 2") && errors.contains("UTF-8"), "{errors}");
    // What came before the bad line is not lost.
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(["generate", "--model", &model(), "--input", "-", "--max-new-tokens", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let _ = child.stdin.take().unwrap().write_all(&b"The house\n".repeat(50));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As where a log's disk is full: a note changes no answer, a failure has its exit code.
#[cfg(target_os = "linux")]
#[test]
fn what_nobody_can_be_told_changes_nothing() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full here");
        return;
    };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_t5"));
        command.args(arguments).stdin(Stdio::null()).stderr(full.try_clone().unwrap()).output().unwrap()
    };
    let arguments = ["generate", "--verbose", "--model", &model(), "--max-new-tokens", "4", "The house"];
    let output = run(&arguments);
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(output.stdout, succeed(&arguments, b"").into_bytes());
    assert_eq!(run(&["generate", "--beams", "0", "The house"]).status.code(), Some(2));
    assert_eq!(run(&["generate", "--model", "no-such-file.gguf", "The house"]).status.code(), Some(1));
}

#[test]
fn help_and_version_go_to_stdout() {
    for command in [&["--help"][..], &["--version"], &["generate", "--help"], &["help"]] {
        assert!(!succeed(command, b"").is_empty());
    }
    let help = succeed(&["--help"], b"");
    // All that the built-in model knows.
    let about: Value = serde_json::from_str(&succeed(&["inspect", "--json"], b"")).unwrap();
    let tasks = about["generation"]["task_specific_params"].as_object().unwrap();
    assert!(tasks.len() > 5);
    for task in tasks.values() {
        let prefix = task["prefix"].as_str().unwrap();
        assert!(help.contains(prefix), "{prefix}");
    }
    let version = succeed(&["--version"], b"");
    let build =
        version.strip_prefix(concat!("t5 ", env!("CARGO_PKG_VERSION"), " (")).unwrap_or_else(|| panic!("{version}"));
    assert!(build.contains(std::env::consts::ARCH) && build.ends_with(")\n"), "{version}");
    for said in ["t5 TEXT is short for t5 generate TEXT", "Exit codes: 0, 1 "] {
        assert!(help.contains(said), "{help}");
    }
    // What a packager asks for is there, and in nobody's way.
    assert!(!help.contains("completions"), "{help}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = succeed(&["completions", shell], b"");
        assert!(script.contains("tokenize") && script.contains("no-repeat-ngram"), "{shell}: {script}");
    }
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man1");
    succeed(&["man", man.to_str().unwrap()], b"");
    let page = std::fs::read_to_string(man.join("t5-generate.1")).unwrap();
    assert!(page.contains("no\\-repeat\\-ngram"), "{page}");
    assert!(std::fs::read_to_string(man.join("t5.1")).unwrap().contains("Exit codes"));
    assert!(man.join("t5-bench.1").exists() && !man.join("t5-man.1").exists());
}

#[cfg(feature = "default-model")]
#[test]
fn lines_that_are_piped_in_are_answered() {
    let text = succeed(&[], b"translate English to German: Where is the station?\n");
    assert_eq!(text, "Wo ist der Bahnhof?\n");
}

/// On a terminal, which `script` (of util-linux) makes.
#[cfg(all(feature = "default-model", target_os = "linux"))]
#[test]
fn a_terminal_is_asked_for_texts() {
    let program = env!("CARGO_BIN_EXE_t5");
    let child = Command::new("script")
        .args(["--quiet", "--return", "--command", program, "/dev/null"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: there is no script of util-linux");
        return;
    };
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"translate English to German: Where is the station?\n\nfix: He go home.\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Pocket T5, the built-in model.") && text.contains("pronounce: ..."), "{text}");
    assert!(text.contains("Wo ist der Bahnhof?"), "{text}");
    assert!(text.matches("t5> ").count() >= 4, "{text}");
}

/// README's first command: no path, no download.
#[cfg(feature = "default-model")]
#[test]
fn the_built_in_model_answers() {
    let text = succeed(&["translate English to German: Where is the station?"], b"");
    assert!(text.starts_with("Wo ist "), "{text}");
    let about = succeed(&["inspect", "--json"], b"");
    let about: Value = serde_json::from_str(&about).unwrap();
    assert!(about.to_string().contains("the built-in model"), "{about}");
}

#[test]
fn results_follow_a_grammar() {
    let (model, bytes) = (model(), fixture("byt5").display().to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.json");
    std::fs::write(&file, r#"{"type": "array", "items": {"enum": [12, "hill"]}, "minItems": 1, "maxItems": 2}"#)
        .unwrap();
    let file = file.display().to_string();
    let base = |model| ["generate", "--model", model, "--max-new-tokens", "40", "--input", "-"];
    let text = succeed(&[&base(&model)[..], &["--regex", "(the|a) (house|hill)"]].concat(), b"The house\n");
    assert!(["the house\n", "the hill\n", "a house\n", "a hill\n"].contains(&text.as_str()), "{text}");
    for (schema, expected) in [(r#"{"enum": [true]}"#, Some("true\n")), (&file, None)] {
        let text = succeed(&[&base(&bytes)[..], &["--json-schema", schema]].concat(), b"The house\n");
        let values: Value = serde_json::from_str(&text).expect(&text);
        assert!(expected.is_none_or(|expected| text == expected), "{text}");
        assert!(expected.is_some() || (1..=2).contains(&values.as_array().unwrap().len()), "{text}");
    }
    for (arguments, expected) in [
        (["--regex", "(a"], "--regex: "),
        (["--json-schema", "{"], "--json-schema: expected a JSON schema"),
        (["--json-schema", r#"{"type": "object"}"#], "the model's vocabulary has no tokens for \"{"),
    ] {
        let error = fail(2, &[&base(&model)[..], &arguments].concat(), b"The house\n");
        assert!(error.contains(expected), "{error}");
    }
    let given = ["--regex", "(the|a) (house|hill)", "--prefix"];
    let text = succeed(&[&base(&model)[..], &given, &["the h"]].concat(), b"The house\n");
    assert!(["the house\n", "the hill\n"].contains(&text.as_str()), "{text}");
    for prefix in ["The", "the house the", "the house."] {
        let error = fail(2, &[&base(&model)[..], &given, &[prefix]].concat(), b"The house\n");
        let expected = format!("expected tokens that a text by the grammar can begin with, found {prefix:?}\n");
        assert_eq!(error, format!("t5: --prefix: {expected}"));
    }
    let error = fail(1, &[&base(&model)[..], &["--json-schema", "/nowhere.json"]].concat(), b"The house\n");
    assert!(error.contains("/nowhere.json"), "{error}");
}

/// Half a text by a grammar is a result, but not without a word.
#[test]
fn a_result_that_a_grammar_does_not_end_is_told() {
    let bytes = fixture("byt5").display().to_string();
    let ask = |length: &str, more: &[&str], input: &str| {
        let start = ["generate", "--model", &bytes, "--regex", "[a-z]{3}", "--max-new-tokens", length, "--input", "-"];
        let output = t5(&[&start, more].concat(), input.as_bytes());
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{notes}");
        let notes = notes.lines().filter(|note| note.contains("cut short")).map(str::to_owned).collect::<Vec<_>>();
        (String::from_utf8(output.stdout).unwrap(), notes)
    };
    let expected = [1, 2].map(|line| {
        format!("t5: note: line {line}: the result is cut short (length): it may not be what --regex asks for")
    });
    let lines = "The house\nA hill\n";
    for more in [&[][..], &["--stream"]] {
        let (text, notes) = ask("2", more, lines);
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.len() == 2), "{text}");
        assert_eq!(notes, expected, "{more:?}");
        let (text, notes) = ask("9", more, lines);
        assert!(text.lines().all(|line| line.len() == 3) && notes.is_empty(), "{text}{notes:?}");
    }
    // Objects keep their shape.
    let objects = "{\"text\": \"The house\"}\n{\"text\": \"A hill\"}\n";
    let (text, notes) = ask("2", &["--input-format", "jsonl"], objects);
    assert_eq!(notes, expected);
    assert!(json_lines(&text).iter().all(|object| object["output"].as_str().unwrap().len() == 2), "{text}");
}

#[test]
fn choices_are_ranked() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels.txt");
    std::fs::write(&file, "house\nthe hill\nhouse on the hill\n").unwrap();
    let file = file.display().to_string();
    let ask = |more: &[&str]| {
        let arguments = [&["generate", "--model", &model, "--input", "-"], more].concat();
        succeed(&arguments, b"The house on the hill\na hill\n")
    };
    let ranked = json_lines(&ask(&["--choices", &file, "--json"]));
    assert_eq!(ranked.len(), 2);
    for (line, first) in ranked.iter().zip(ask(&["--choices", "house,the hill, house on the hill"]).lines()) {
        let choices = line["choices"].as_array().unwrap();
        assert_eq!((choices.len(), line["text"].as_str().unwrap()), (3, first));
        for choice in choices {
            let pair = format!("{}\t{}\n", line_text(&ranked, line), choice["text"].as_str().unwrap());
            let score = json_lines(&succeed(&["score", "--model", &model, "-i", "-", "--json"], pair.as_bytes()));
            assert_eq!(choice["logprob"], score[0]["sum"]);
        }
    }
    assert_eq!(ask(&["--choices", &file, "--n-best", "3"]).lines().count(), 6);
    let arguments = ["generate", "--model", &model, "--choices"];
    let error = fail(2, &[&arguments[..], &["a,b", "--beams", "2", "x"]].concat(), b"");
    assert!(error.contains("--choices") && error.contains("--beams"), "{error}");
    let error = fail(2, &[&arguments[..], &["house,the", "--n-best", "3", "x"]].concat(), b"");
    assert!(error.contains("--n-best: expected at most the number of choices (2)"), "{error}");
    let error = fail(2, &[&arguments[..], &["house,", "x"]].concat(), b"");
    assert!(error.contains("--choices: expected texts, found \"\""), "{error}");
    let error = fail(2, &[&arguments[..], &["house,\u{416}", "x"]].concat(), b"");
    assert!(error.contains("--choices: expected texts of the model's vocabulary, found \"\u{416}\""), "{error}");
}

/// The text that a line of the answers is for.
fn line_text(all: &[Value], line: &Value) -> &'static str {
    if line == &all[0] { "The house on the hill" } else { "a hill" }
}

#[cfg(not(feature = "serve"))]
#[test]
fn a_build_without_the_server_says_so() {
    let error = fail(2, &["serve", "--port", "8080"], b"");
    assert_eq!(error, "t5: serve: expected a build with --features serve, which is off by default, found another\n");
}
