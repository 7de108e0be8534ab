//! Folders of models with something behind them: the weights of families/unigram, and what a golden folder adds.

use std::path::Path;

use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::{families, paths};

/// The folders under golden/sentence and golden/heads.
pub const SENTENCE_MODELS: [&str; 2] = ["st5", "kinds"];
/// See [`SENTENCE_MODELS`].
pub const HEADS: [&str; 5] = ["sequence", "several", "regression", "tokens", "question"];

/// A folder of sentence-transformers.
pub fn sentence_model(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    take(folder.path(), &["config.json", "model.safetensors", "tokenizer.json"]);
    copy(&paths::golden("sentence").join(name), folder.path());
    std::fs::remove_file(folder.path().join("golden.jsonl")).expect("the values are no part of the model");
    folder
}

/// A classifier or an answerer as the transformers library saves it: its own names of the family's tensors, and those
/// of the head.
pub fn head(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    take(folder.path(), &["tokenizer.json"]);
    let golden = paths::golden("heads").join(name);
    std::fs::copy(golden.join("config.json"), folder.path().join("config.json")).expect("config.json");
    let base = std::fs::read(families::folder("unigram").join("model.safetensors")).expect("the family's weights");
    let head = std::fs::read(golden.join("head.safetensors")).expect("the head's weights");
    let open = |bytes| SafeTensors::deserialize(bytes).expect("a safetensors file");
    let (base, head) = (open(&base), open(&head));
    // The answerer keeps the names; the classifier of tokens has no decoder.
    let own = if name == "question" { "" } else { "transformer." };
    let kept = |tensor: &str| name != "tokens" || !tensor.starts_with("decoder.");
    let tensors = base.tensors().into_iter().filter(|(tensor, _)| kept(tensor));
    let tensors = tensors.map(|(name, view)| (format!("{own}{name}"), view)).chain(head.tensors());
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).expect("weights");
    folder
}

fn take(folder: &Path, files: &[&str]) {
    for file in files {
        std::fs::copy(families::folder("unigram").join(file), folder.join(file)).expect("a file of the family");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a golden folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file");
        }
    }
}
