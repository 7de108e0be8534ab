//! Checkpoints that transformers 4 and 5 have loaded and saved again: the same weights with another config.json, and
//! so the same scores and beams as those published (golden/make_resaved.py).

use std::path::{Path, PathBuf};

use t5_runtime::Model;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::tensor::DType;
use t5_tests::convert::converted;
use t5_tests::{Golden, families, paths};

/// The names of the folders in a folder, sorted.
fn folders(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A saved checkpoint: the family's weights and tokenizer with the configuration that was written.
fn assemble(family: &str, saved: &Path, folder: &Path) {
    for entry in std::fs::read_dir(families::folder(family)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !["config.json", "generation_config.json", "golden.jsonl"].contains(&name.as_str()) {
            std::fs::copy(entry.path(), folder.join(name)).unwrap();
        }
    }
    for name in ["config.json", "generation_config.json"] {
        if saved.join(name).exists() {
            std::fs::copy(saved.join(name), folder.join(name)).unwrap();
        }
    }
}

/// What the checkpoint must answer: what the published one does, but for what the writing library computes otherwise.
fn expected(family: &str, saved: &Path, encoder_only: bool) -> Golden {
    let mut golden = families::golden(family);
    let others = saved.join("golden.jsonl");
    if encoder_only || others.exists() {
        golden.cases.retain(|case| case.kind() == "encode");
    }
    if others.exists() {
        golden.cases.extend(Golden::read(&others).cases);
    }
    golden
}

/// Every family as `version` saves it, as it is and in one file.
fn check(version: &str) {
    let saved: PathBuf = paths::golden("resaved").join(version);
    let names = folders(&saved);
    let families = families::names();
    for family in &families {
        // transformers has no models of one stack, and its version 4 takes what 5 has saved for another model.
        let unknown = ["lm", "prefix-lm"].contains(&family.as_str());
        let left_out = unknown || (version.starts_with('4') && family == "t5-resaved");
        assert_eq!(names.contains(family), !left_out, "{family}");
    }
    for name in names {
        let encoder = name.strip_suffix("-encoder").filter(|_| !families.contains(&name));
        let family = encoder.unwrap_or(&name);
        let saved = saved.join(&name);
        let golden = expected(family, &saved, encoder.is_some());
        let folder = tempfile::tempdir().unwrap();
        assemble(family, &saved, folder.path());

        let label = format!("saved by transformers {version}");
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(
            checkpoint.config.is_encoder_only(),
            encoder.is_some() || family == "encoder-only",
            "{name} {label}"
        );
        // Only where the library forgets what the published file said.
        let warned = checkpoint.notes.iter().any(|note| note.contains("scale_decoder_outputs"));
        assert_eq!(warned, saved.join("golden.jsonl").exists(), "{name} {label}: {:?}", checkpoint.notes);
        families::check_values(&golden, &format!("{name} {label}"), &Model::open(folder.path()).unwrap());
        let converted = Model::from_checkpoint(converted(folder.path(), DType::F32), &Default::default()).unwrap();
        families::check_values(&golden, &format!("{name} {label}, in one file"), &converted);
    }
}

#[test]
fn by_transformers_4() {
    check("4.57");
}

#[test]
fn by_transformers_5() {
    check("5.23");
}
