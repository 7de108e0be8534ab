//! `t5 classify` and `t5 answer`: what they print. What models say is held against the reference by the workspace's
//! tests.

#[path = "common/documented.rs"]
mod documented;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;
use t5_runtime::Model;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// A folder with the head of this name over the family's weights.
fn folder(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (family, head) = (golden().join("families/unigram"), golden().join("heads").join(name));
    std::fs::copy(head.join("config.json"), folder.path().join("config.json")).unwrap();
    std::fs::copy(family.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let base = std::fs::read(family.join("model.safetensors")).unwrap();
    let head = std::fs::read(head.join("head.safetensors")).unwrap();
    let (base, head) = (SafeTensors::deserialize(&base).unwrap(), SafeTensors::deserialize(&head).unwrap());
    let tensors = base.tensors().into_iter().chain(head.tensors());
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn t5(command: &str, folder: &Path, arguments: &[&str]) -> Output {
    let mut t5 = Command::new(env!("CARGO_BIN_EXE_t5"));
    t5.args([command, "--model"]).arg(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn succeed(command: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = t5(command, folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fail(command: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = t5(command, folder, arguments);
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

#[test]
fn classes_of_texts() {
    let folder = folder("sequence");
    let scores = Model::open(folder.path()).unwrap().session().classify("The house").unwrap().scores;
    // Negative, by the golden values.
    let found = succeed("classify", folder.path(), &["The house", "A small red building stands beside the old river."]);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[0], format!("negative\t{:.6}", scores[0]));
    assert!(lines[1].starts_with("neutral\t"), "{found}");
    let object: Value = serde_json::from_str(&succeed("classify", folder.path(), &["--json", "The house"])).unwrap();
    assert_eq!((&object["label"], &object["score"]), (&"negative".into(), &scores[0].into()));
    documented::check("t5 classify --json", &object);
    assert_eq!(object["scores"]["positive"], Value::from(scores[2]));

    let error = fail("generate", folder.path(), &["a"]);
    assert!(error.contains("expected a model that generates, found one for sequence-classification"), "{error}");
    let error = fail("classify", &golden().join("families/unigram"), &["a"]);
    assert!(error.contains("expected a model for sequence-classification or token-classification"), "{error}");
    let output = Command::new(env!("CARGO_BIN_EXE_t5")).arg("inspect").arg(folder.path()).output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("head: sequence-classification: negative, neutral, positive"), "{found}");
}

#[test]
fn several_classes_and_values() {
    let folder = folder("several");
    let scores = Model::open(folder.path()).unwrap().session().classify("The house").unwrap().scores;
    let likely = ["sport", "music"].iter().zip(&scores).filter(|(_, score)| **score > 0.5);
    let expected: Vec<String> = likely.map(|(label, score)| format!("{label}\t{score:.6}")).collect();
    assert_eq!(succeed("classify", folder.path(), &["The house"]), expected.join("\t") + "\n");
    let folder = self::folder("regression");
    let value = Model::open(folder.path()).unwrap().session().classify("The house").unwrap().scores[0];
    assert_eq!(succeed("classify", folder.path(), &["The house"]), format!("LABEL_0\t{value:.6}\n"));
}

#[test]
fn classes_of_tokens() {
    let folder = folder("tokens");
    let found = succeed("classify", folder.path(), &["The house", "a"]);
    let texts: Vec<&str> = found.split_terminator("\n\n").collect();
    assert_eq!(texts.len(), 2);
    let rows: Vec<Vec<&str>> = texts[0].lines().map(|line| line.split('\t').collect()).collect();
    let pieces: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(pieces.concat(), "▁The▁house</s>");
    assert!(rows.iter().all(|row| row.len() == 3 && ["O", "B-PER", "I-PER", "B-LOC"].contains(&row[1])), "{found}");
    let object: Value = serde_json::from_str(&succeed("classify", folder.path(), &["--json", "The house"])).unwrap();
    documented::check("t5 classify --json, of tokens", &object);
}

#[test]
fn answers() {
    let folder = folder("question");
    let (question, context) = ("Who sang?", "He sang in the house while the others were away.");
    let line = format!("{question}\t{context}");
    let expected = Model::open(folder.path()).unwrap().session().answer(question, context, 15).unwrap();
    assert!(!expected.text.is_empty() && context.contains(&expected.text), "{expected:?}");
    assert_eq!(succeed("answer", folder.path(), &[&line]), expected.text + "\n");
    let object: Value =
        serde_json::from_str(&succeed("answer", folder.path(), &["--json", "--max-answer-tokens", "1", &line]))
            .unwrap();
    documented::check("t5 answer --json", &object);
    let span = object["span"].as_array().unwrap();
    assert_eq!(span[0].as_u64().unwrap() + 1, span[1].as_u64().unwrap());
    let error = fail("answer", folder.path(), &["no tab"]);
    assert!(error.contains("expected QUESTION<TAB>CONTEXT, found no tab"), "{error}");
    let error = fail("answer", folder.path(), &["--max-answer-tokens", "0", &line]);
    assert!(error.contains("--max-answer-tokens: expected at least 1, found 0"), "{error}");
}
