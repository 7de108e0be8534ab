//! Which files of a repository make a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::name::{HubName, is_file_name};
use crate::checkpoint::folder::is_file_of_module;
pub(super) use crate::checkpoint::folder::{COMPANIONS, INDEX, WEIGHTS};

/// The file of weights to take from a repository with `files`: [`WEIGHTS`], [`INDEX`] (and its shards) or a GGUF file.
pub(super) fn weights(files: &[String], name: &HubName) -> Result<String, String> {
    let has = |file: &str| files.iter().any(|found| found == file);
    let gguf: Vec<String> = files.iter().filter(|file| file.ends_with(".gguf")).cloned().collect();
    if let Some(file) = &name.file {
        return if has(file) {
            Ok(file.clone())
        } else if gguf.is_empty() {
            Err(format!("has no file {file} and no other GGUF file"))
        } else {
            Err(format!("has no file {file}; its GGUF files are {}", gguf.join(", ")))
        };
    }
    for file in [WEIGHTS, INDEX] {
        if has(file) {
            return if has("config.json") {
                Ok(file.to_owned())
            } else {
                Err(format!("has {file} but no config.json"))
            };
        }
    }
    match &gguf[..] {
        [file] if file.split('/').all(is_file_name) => Ok(file.clone()),
        [file] => Err(format!("its GGUF file has a name that cannot be used: {file:?}")),
        [] => {
            let other = files.iter().find(|file| file.starts_with("pytorch_model") || file.ends_with(".h5"));
            let found = other.map_or_else(|| format!("{} other files", files.len()), |file| format!("only {file}"));
            Err(format!(
                "expected {WEIGHTS}, {INDEX} or a .gguf file, found {found}; \
                 a revision like @refs/pr/N may have the safetensors"
            ))
        }
        _ => Err(ambiguous(&gguf, name)),
    }
}

/// Whether a file belongs to a model beside its weights: configuration, tokenizer, modules of sentence-transformers.
pub(super) fn belongs(file: &str) -> bool {
    COMPANIONS.contains(&file) || (is_file_of_module(file) && file.split('/').all(is_file_name))
}

/// The sentence for several GGUF files.
pub(super) fn ambiguous(files: &[String], name: &HubName) -> String {
    format!("has {} GGUF files, name one as hf:{}/FILE.gguf: {}", files.len(), name.repository, files.join(", "))
}

/// The shards that an index file lists.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    let wrong = |what: String| format!("{}: {what}", index.display());
    let text = std::fs::read(index).map_err(|error| wrong(error.to_string()))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let map = json.get("weight_map").and_then(|map| map.as_object());
    let map = map.filter(|map| !map.is_empty()).ok_or_else(|| wrong("expected a weight_map with shards".to_owned()))?;
    map.values()
        .map(|shard| match shard.as_str() {
            Some(shard) if is_file_name(shard) && shard.ends_with(".safetensors") => Ok(shard.to_owned()),
            _ => Err(wrong(format!("expected the names of .safetensors files, found {shard}"))),
        })
        .collect()
}

/// What a folder of the cache holds of a model.
#[derive(Debug, PartialEq)]
pub(super) enum Cached {
    /// Everything that is needed.
    Complete(PathBuf),
    /// Weights; the repository may have more that belongs to them.
    Weights(PathBuf),
    /// Several GGUF files, none of them named.
    Ambiguous(Vec<String>),
    Nothing,
}

/// What a snapshot folder holds that we, or another tool, left in the cache.
pub(super) fn cached(snapshot: &Path, name: &HubName) -> Cached {
    let has = |file: &str| snapshot.join(file).is_file();
    if let Some(file) = &name.file {
        let path = snapshot.join(file);
        return match path.is_file() {
            true if is_self_contained(&path) || (has("config.json") && has_tokenizer(snapshot)) => {
                Cached::Complete(path)
            }
            true => Cached::Weights(path),
            false => Cached::Nothing,
        };
    }
    let weights = has(WEIGHTS)
        || (has(INDEX) && shards(&snapshot.join(INDEX)).is_ok_and(|shards| shards.iter().all(|shard| has(shard))));
    if weights && has("config.json") {
        return match has_tokenizer(snapshot) {
            true => Cached::Complete(snapshot.to_owned()),
            false => Cached::Weights(snapshot.to_owned()),
        };
    }
    // One GGUF file here may be one of several there, so a list is asked for where the hub can be reached.
    let mut gguf: Vec<String> = std::fs::read_dir(snapshot)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.ends_with(".gguf") && has(file))
        .collect();
    gguf.sort();
    match &gguf[..] {
        [] => Cached::Nothing,
        [file] => Cached::Weights(snapshot.join(file)),
        _ => Cached::Ambiguous(gguf),
    }
}

/// Whether the snapshot has a vocabulary, or a model that needs none because its tokens are bytes.
pub(super) fn has_tokenizer(snapshot: &Path) -> bool {
    let says_bytes = |file| std::fs::read_to_string(snapshot.join(file)).is_ok_and(|text| text.contains("ByT5"));
    ["tokenizer.json", "spiece.model"].iter().any(|file| snapshot.join(file).is_file())
        || says_bytes("tokenizer_config.json")
        || says_bytes("config.json")
}

/// Whether a GGUF file brings configuration and vocabulary. llama.cpp's dialect does, and names its architecture
/// near the start; candle's does not.
fn is_self_contained(path: &Path) -> bool {
    use std::io::Read;
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
    let key = b"general.architecture";
    read.is_ok() && start.windows(key.len()).any(|window| window == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(name: &str, files: &[&str]) -> Result<String, String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        weights(&files, &HubName::parse(name).unwrap())
    }

    #[test]
    fn the_file_of_weights() {
        assert_eq!(choose("hf:a/b", &["config.json", "x.gguf", WEIGHTS, INDEX]).unwrap(), WEIGHTS);
        assert_eq!(choose("hf:a/b", &["config.json", "pytorch_model.bin", INDEX]).unwrap(), INDEX);
        assert_eq!(choose("hf:a/b", &["README.md", "x.gguf"]).unwrap(), "x.gguf");
        assert_eq!(choose("hf:a/b/y.gguf", &["config.json", WEIGHTS, "x.gguf", "y.gguf"]).unwrap(), "y.gguf");
        assert_eq!(choose("hf:a/b", &[WEIGHTS]).unwrap_err(), "has model.safetensors but no config.json");
        assert_eq!(
            choose("hf:a/b", &["x.gguf", "y.gguf"]).unwrap_err(),
            "has 2 GGUF files, name one as hf:a/b/FILE.gguf: x.gguf, y.gguf"
        );
        assert_eq!(
            choose("hf:a/b/z.gguf", &["x.gguf", "y.gguf"]).unwrap_err(),
            "has no file z.gguf; its GGUF files are x.gguf, y.gguf"
        );
        assert!(choose("hf:a/b/z.gguf", &[]).unwrap_err().contains("no other GGUF file"));
        assert!(choose("hf:a/b", &["pytorch_model.bin"]).unwrap_err().contains("found only pytorch_model.bin"));
        assert!(choose("hf:a/b", &["a", "b"]).unwrap_err().contains("found 2 other files"));
        assert!(choose("hf:a/b", &["../x.gguf"]).unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn an_index_cannot_name_files_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        std::fs::write(
            &index,
            r#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#,
        )
        .unwrap();
        let names: Vec<String> = shards(&index).unwrap().into_iter().collect();
        assert_eq!(names, ["m-1.safetensors", "m-2.safetensors"]);
        for text in [
            "[",
            "{}",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "../m.safetensors"}}"#,
            r#"{"weight_map": {"a": "/m.safetensors"}}"#,
        ] {
            std::fs::write(&index, text).unwrap();
            assert!(shards(&index).unwrap_err().contains(INDEX), "{text}");
        }
    }
}
