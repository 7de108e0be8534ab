//! `t5 embed`: what goes into files, proteins, objects with names, and what is refused.

#[path = "common/command.rs"]
mod command;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use command::t5;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use t5_runtime::{EncodeOptions, Encoded, Model, Pooling};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram")
}

/// `t5 embed` with the model, these arguments and this standard input.
fn embed(arguments: &[&str], input: &[u8]) -> Output {
    let model = fixture().display().to_string();
    t5(&[&["embed", "--model", &model], arguments].concat(), input)
}

#[track_caller]
fn succeed(arguments: &[&str], input: &[u8]) -> String {
    let output = embed(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    // No bar and no note where nobody looks.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line on standard error of a call that must fail.
#[track_caller]
fn fail(code: i32, arguments: &[&str], input: &[u8]) -> String {
    let output = embed(arguments, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

fn encoded(texts: &[&str], options: EncodeOptions) -> Vec<Encoded> {
    Model::open(fixture()).unwrap().encode(texts, &options).unwrap()
}

fn states() -> EncodeOptions {
    EncodeOptions { pooling: Some(Pooling::None), ..EncodeOptions::default() }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The dictionary and the data of a .npy file.
fn npy(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(data.is_multiple_of(64) && bytes[data - 1] == b'\n');
    (String::from_utf8(bytes[10..data].to_vec()).unwrap().trim_end().to_owned(), bytes[data..].to_vec())
}

#[test]
fn arrays_for_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.npy");
    let file = path.to_str().unwrap();
    let texts = ["The house", "He sang a song"];

    succeed(&["--output", file, texts[0], texts[1]], b"");
    let (header, data) = npy(&path);
    assert_eq!(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 32), }");
    let expected: Vec<f32> =
        encoded(&texts, EncodeOptions::default()).into_iter().flat_map(|encoded| encoded.values).collect();
    assert_eq!(floats(&data), expected);

    succeed(&["--output", file, "--pooling", "none", texts[0]], b"");
    let one = encoded(&texts[..1], states()).remove(0);
    let (header, data) = npy(&path);
    assert_eq!(header, format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {}, 32), }}", one.rows));
    assert_eq!(floats(&data), one.values);

    let arguments = ["--output", file, "--pooling", "none", "--pad-to", "7", "--pad-mask", "no", "--dtype", "f16"];
    succeed(&[&arguments[..], &texts[..]].concat(), b"");
    let (header, data) = npy(&path);
    assert_eq!(header, "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 7, 32), }");
    let options = EncodeOptions { pad_to: Some(7), pad_mask: false, ..states() };
    let expected: Vec<u16> = encoded(&texts, options)
        .into_iter()
        .flat_map(|encoded| encoded.values)
        .map(|value| half::f16::from_f32(value).to_bits())
        .collect();
    let found: Vec<u16> = data.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
    assert_eq!(found, expected);

    // What cannot be written leaves what was there.
    let before = std::fs::read(&path).unwrap();
    let error = fail(1, &["--output", file, "--pooling", "none", "a", "The house by the river"], b"");
    assert!(error.contains("expected texts of one length in a .npy file, found"), "{error}");
    assert!(error.contains("--pad-to makes them equal"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn safetensors_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.safetensors");
    let file = path.to_str().unwrap();
    let input =
        b"{\"text\": \"The house\", \"name\": \"a\", \"n\": 3}\n{\"n\": 4, \"text\": \"He\\nsang\", \"name\": 17}\n";
    let objects = ["--input-format", "jsonl", "--id-field", "name"];
    let texts = ["The house", "He\nsang"];

    succeed(&[&["--output", file, "--pooling", "none", "--pad-to", "9"], &objects[..]].concat(), input);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort();
    assert_eq!(names, ["17", "17.mask", "a", "a.mask"]);
    let options = EncodeOptions { pad_to: Some(9), ..states() };
    for (name, encoded) in ["a", "17"].iter().zip(encoded(&texts, options)) {
        let states = tensors.tensor(name).unwrap();
        assert_eq!((states.dtype(), states.shape()), (Dtype::F32, &[9, 32][..]));
        assert_eq!(floats(states.data()), encoded.values);
        let mask = tensors.tensor(&format!("{name}.mask")).unwrap();
        let expected: Vec<u8> = (0..9).map(|row| u8::from(row < encoded.tokens)).collect();
        assert_eq!((mask.dtype(), mask.data()), (Dtype::BOOL, &expected[..]));
    }

    // By number, in bfloat16, pooled: no mask.
    succeed(&["--output", file, "--dtype", "bf16", texts[0], texts[1]], b"");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2);
    for (number, encoded) in encoded(&texts, EncodeOptions::default()).iter().enumerate() {
        let vector = tensors.tensor(&number.to_string()).unwrap();
        assert_eq!((vector.dtype(), vector.shape()), (Dtype::BF16, &[32][..]));
        let expected: Vec<u8> =
            encoded.values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect();
        assert_eq!(vector.data(), expected);
    }

    let twice = b"{\"text\": \"a\", \"name\": \"x\"}\n{\"text\": \"b\", \"name\": \"x\"}\n";
    let error = fail(1, &[&["--output", file], &objects[..]].concat(), twice);
    assert!(error.contains("line 2: expected a name that no other tensor of the file has, found \"x\""), "{error}");
    let error = fail(1, &[&["--output", file], &objects[..]].concat(), b"{\"text\": \"a\"}\n");
    assert!(error.contains("line 1: expected a string or a number \"name\", found none"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn objects_in_objects_out() {
    let input = b"{\"id\": 3, \"body\": \"The house\", \"more\": [1]}\n{\"body\": \"a\"}\n";
    let found = json_lines(&succeed(&["--input-format", "jsonl", "--text-field", "body"], input));
    let expected = encoded(&["The house", "a"], EncodeOptions::default());
    assert_eq!(found[0]["id"], 3);
    assert_eq!(found[0]["more"], json!([1]));
    assert_eq!(found[1]["embedding"], json!(expected[1].values));
    // What an object has is not written over.
    let input = b"{\"text\": \"a\", \"embedding\": \"mine\"}\n{\"text\": \"a\", \"mask\": 1}\n";
    for (pooling, line, key) in [("mean", 1, "embedding"), ("none", 2, "mask")] {
        let output = embed(&["--input-format", "jsonl", "--pooling", pooling], input);
        let found = json_lines(std::str::from_utf8(&output.stdout).unwrap());
        let place = format!("standard input, line {line}");
        let expected = format!("{place}: expected no {key:?}, which part of the result is called");
        assert_eq!(found[line - 1]["error"], expected);
        assert!(found[2 - line].get("error").is_none(), "{found:?}");
    }
    let found = &json_lines(&succeed(&["--json", "--pooling", "none", "--pad-to", "4", "a"], b""))[0];
    let options = EncodeOptions { pad_to: Some(4), ..states() };
    let expected = encoded(&["a"], options).remove(0);
    assert_eq!(found["input_ids"], json!(expected.input_ids));
    assert_eq!(found["states"], json!(expected.values.chunks(32).collect::<Vec<_>>()));
    let mask: Vec<u8> = (0..4).map(|row| u8::from(row < expected.tokens)).collect();
    assert_eq!(found["mask"], json!(mask));
    // A bad line ends the work after those before it.
    let output = embed(&["--json"], b"a\n\xFF\na\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json_lines(std::str::from_utf8(&output.stdout).unwrap()).len(), 1);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("standard input, line 2: expected UTF-8"), "{error}");
}

#[test]
fn lines_of_states() {
    let found = succeed(&["--pooling", "none", "--layer", "0", "The house", "a"], b"");
    let texts: Vec<&str> = found.split_terminator("\n\n").collect();
    let options = EncodeOptions { layer: Some(0), ..states() };
    let expected = encoded(&["The house", "a"], options);
    assert_eq!(texts.len(), 2);
    for (text, encoded) in texts.iter().zip(expected) {
        let rows: Vec<Vec<f32>> =
            text.lines().map(|line| line.split(' ').map(|value| value.parse().unwrap()).collect()).collect();
        assert_eq!(rows.concat(), encoded.values);
        assert_eq!(rows.len(), encoded.rows);
    }
    let other = succeed(&["--pooling", "none", "--layer=-3", "The house", "a"], b"");
    assert_eq!(other, found);
}

/// Answers come as soon as lines do: a program may write a line and wait.
#[test]
fn a_line_is_answered_at_once() {
    use std::io::{BufRead, BufReader, Write};
    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(["embed", "--model"])
        .arg(fixture())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for text in ["The house", "a", "He sang"] {
        writeln!(input, "{text}").unwrap();
        let line = output.next().unwrap().unwrap();
        let values: Vec<f32> = line.split(' ').map(|value| value.parse().unwrap()).collect();
        assert_eq!(values, encoded(&[text], EncodeOptions::default())[0].values);
    }
    drop(input);
    assert!(output.next().is_none() && child.wait().unwrap().success());
}

/// tokenizer.json of a protein model: a piece for each residue, and a prefix.
fn protein_tokenizer(folder: &Path) -> PathBuf {
    let mut json: Value = serde_json::from_slice(&std::fs::read(fixture().join("tokenizer.json")).unwrap()).unwrap();
    let mut pieces = vec![json!(["<pad>", 0.0]), json!(["</s>", 0.0]), json!(["<unk>", 0.0])];
    pieces.extend("ALGVSREDTIPKFQNYMHWCX".chars().map(|residue| json!([format!("▁{residue}"), -3.0])));
    let prefix = pieces.len();
    pieces.push(json!(["<AA2fold>", 0.0]));
    json["model"]["vocab"] = json!(pieces);
    let mut added: Vec<Value> = json["added_tokens"].as_array().unwrap()[..3].to_vec();
    let mut token = added[0].clone();
    (token["id"], token["content"]) = (json!(prefix), json!("<AA2fold>"));
    added.push(token);
    json["added_tokens"] = json!(added);
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

#[test]
fn proteins() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = protein_tokenizer(folder.path());
    let tokenizer = tokenizer.to_str().unwrap();
    let fasta = folder.path().join("proteins.fasta");
    std::fs::write(&fasta, ">sp|P1|NAME the first one\nMKuzo\r\nbLa*\n\n>second\nGG-G\n").unwrap();
    let path = folder.path().join("states.safetensors");
    let from = ["--tokenizer", tokenizer, "--input-format", "fasta", "--input", fasta.to_str().unwrap()];
    let residues = |text: &str, prefix: usize| -> (Vec<u32>, usize) {
        let ids = text.chars().map(|residue| match residue {
            '<' => 24,
            residue => 3 + "ALGVSREDTIPKFQNYMHWCX".find(residue).unwrap() as u32,
        });
        (ids.chain([1]).collect(), prefix)
    };
    let model = Model::open(fixture()).unwrap();
    for (prefix, lead) in [("", ""), ("<AA2fold>", "<")] {
        let prefix_arguments: &[&str] = if lead.is_empty() { &[] } else { &["--prefix", prefix] };
        let out = ["--pooling", "none", "--output", path.to_str().unwrap()];
        succeed(&[&from[..], &out, prefix_arguments].concat(), b"");
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let vectors = json_lines(&succeed(&[&from[..], prefix_arguments, &["--json"]].concat(), b""));
        for (index, (name, sequence)) in [("sp|P1|NAME", "MKXXXXLA"), ("second", "GGG")].into_iter().enumerate() {
            let (ids, first) = residues(&format!("{lead}{sequence}"), lead.len());
            let all = model.session().encode_ids(&ids).unwrap().to_vec();
            let expected = &all[first * 32..(ids.len() - 1) * 32];
            let found = tensors.tensor(name).unwrap();
            assert_eq!(found.shape(), [sequence.len(), 32], "{name}");
            assert_eq!(floats(found.data()), expected, "{name}");
            assert_eq!(tensors.tensor(&format!("{name}.mask")).unwrap().data(), vec![1; sequence.len()]);
            // One vector for a protein: the mean of its residues.
            assert_eq!((&vectors[index]["id"], &vectors[index]["input_ids"]), (&json!(name), &json!(ids)));
            let mean: Vec<f32> = (0..32)
                .map(|i| {
                    let sum: f64 = expected.chunks(32).map(|row| f64::from(row[i])).sum();
                    (sum / sequence.len() as f64) as f32
                })
                .collect();
            assert_eq!(vectors[index]["embedding"], json!(mean));
        }
    }
    for (text, expected) in [
        (">a\nMK1\n", "record \"a\": expected letters of residues, found '1' at place 3"),
        (">a\n*\n", "record \"a\": expected residues, found none"),
        ("> \nMK\n", "expected a name behind >, found none"),
        ("@a\nMK\n+\nII\n", "expected a FASTA file, found FASTQ"),
        ("MKL\n", "standard input: expected a FASTA file"),
        ("", "standard input: expected a FASTA file"),
    ] {
        let arguments = ["--tokenizer", tokenizer, "--input-format", "fasta"];
        let error = fail(1, &arguments, text.as_bytes());
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let error = fail(1, &["--input-format", "fasta", "--input", fasta.to_str().unwrap()], b"");
    assert!(error.contains("is the model one of proteins?"), "{error}");
}

#[test]
fn tokenizers_from_elsewhere() {
    let fixture = fixture();
    let expected = succeed(&["The house"], b"");
    for tokenizer in [fixture.clone(), fixture.join("tokenizer.json"), fixture.join("spiece.model")] {
        assert_eq!(succeed(&["--tokenizer", tokenizer.to_str().unwrap(), "The house"], b""), expected);
    }
    let folder = tempfile::tempdir().unwrap();
    let error = fail(1, &["--tokenizer", folder.path().to_str().unwrap(), "a"], b"");
    assert!(error.contains("not a model: expected tokenizer.json, a SentencePiece model"), "{error}");
    let missing = folder.path().join("none.json");
    assert!(fail(1, &["--tokenizer", missing.to_str().unwrap(), "a"], b"").contains("none.json"));
}

#[test]
fn what_cannot_be_is_named() {
    for (arguments, expected) in [
        (&["--output", "x.bin", "a"][..], "--output: expected a name with .npy or .safetensors, found x.bin"),
        (&["--output", "x.npy", "--dtype", "bf16", "a"], "--dtype: expected f32 or f16 in a .npy file, found bf16"),
        (&["--output", "x.npy", "--json", "a"], "--json: expected no --output, found x.npy"),
        (&["--dtype", "f16", "a"], "--output"),
        (&["--pad-mask", "no", "a"], "--pad-to"),
        (&["--pad-to", "0", "a"], "--pad-to: expected at least 1, found 0"),
        (&["--layer", "3", "a"], "--layer: expected -3 to 2, found 3"),
        (&["--prompt", "query", "a"], "--prompt: expected none, since the model has no prompts, found query"),
        (&["--id-field", "id", "a"], "--id-field: expected --input-format jsonl with it"),
        (&["--strict", "a"], "--strict: expected --input-format jsonl with it"),
        (&["--text-field", "text", "a"], "--text-field: expected --input-format jsonl with it"),
        (&["--input-format", "fasta", "MK"], "--input-format fasta: expected --input FILE"),
    ] {
        let error = fail(2, arguments, b"");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let error = fail(1, &["--pad-to", "9999999999999", "a"], b"");
    assert!(error.starts_with("t5: not enough memory for texts of the length of pad_to: "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let error = fail(1, &["--output", path.to_str().unwrap()], b"");
    assert!(error.contains("expected at least one text, found none") && !path.exists(), "{error}");
}
