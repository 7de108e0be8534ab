//! Which files of a repository make a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::name::{HubName, is_file_name};
pub(super) use crate::checkpoint::folder::COMPANIONS;
use crate::checkpoint::folder::{self, PICKLES, WEIGHTS, is_file_of_module};

/// The files of a repository that make a model.
#[derive(Debug, PartialEq)]
pub(super) struct Selection {
    /// What belongs to the weights.
    pub companions: Vec<String>,
    /// A file of weights, or the index of several.
    pub weights: String,
    /// Whether the model is the folder of the weights and not that file alone.
    pub whole_folder: bool,
}

/// What to take from a repository with `files`; `pickles` says whether PyTorch's are of use.
pub(super) fn select(files: &[String], name: &HubName, pickles: bool) -> Result<Selection, String> {
    let has = |file: &str| files.iter().any(|found| found == file);
    let inside = name.folder.as_ref().map_or_else(String::new, |folder| format!("{folder}/"));
    if !inside.is_empty() && !files.iter().any(|file| file.starts_with(&inside)) {
        return Err("has no such folder".to_owned());
    }
    // Without a folder, files of all folders are looked at.
    let gguf: Vec<String> = files.iter().filter(|file| file.starts_with(&inside) && is_first(file)).cloned().collect();
    if let Some(file) = &name.file {
        return if has(file) {
            Ok(selection(files, file, false, pickles))
        } else if gguf.is_empty() {
            Err(format!("has no file {file} and no other GGUF file"))
        } else {
            Err(format!("has no file {file}; its GGUF files are {}", gguf.join(", ")))
        };
    }
    if let Some(variant) = &name.variant {
        let matching: Vec<String> = gguf.iter().filter(|file| is_variant(file, variant)).cloned().collect();
        return match &matching[..] {
            [file] => usable(file).map(|()| selection(files, file, false, pickles)),
            [] if gguf.is_empty() => Err("has no GGUF file".to_owned()),
            [] => Err(format!("has no GGUF file of the type {variant}; its GGUF files are {}", gguf.join(", "))),
            _ => Err(ambiguous(&matching, name)),
        };
    }
    let readable = WEIGHTS.iter().chain(PICKLES.iter().filter(|_| pickles));
    if let Some(file) = readable.map(|file| format!("{inside}{file}")).find(|file| has(file)) {
        return if has(&format!("{inside}config.json")) {
            Ok(selection(files, &file, true, pickles))
        } else {
            Err(format!("has {file} but no config.json"))
        };
    }
    match &gguf[..] {
        [file] => usable(file).map(|()| selection(files, file, false, pickles)),
        [] => Err(nothing(files, &inside)),
        _ => Err(ambiguous(&gguf, name)),
    }
}

fn usable(file: &str) -> Result<(), String> {
    match file.split('/').all(is_file_name) {
        true => Ok(()),
        false => Err(format!("its GGUF file has a name that cannot be used: {file:?}")),
    }
}

/// The sentence for a repository without weights that can be taken unnamed.
fn nothing(files: &[String], inside: &str) -> String {
    let among = || files.iter().filter(|file| file.starts_with(inside));
    let safetensors: Vec<&str> = among().filter(|file| file.ends_with(".safetensors")).map(String::as_str).collect();
    if !safetensors.is_empty() {
        return format!("has no {}, name one of its files: {}", WEIGHTS[0], safetensors.join(", "));
    }
    let is_pickle = |file: &&String| PICKLES.contains(&file.strip_prefix(inside).unwrap_or_default());
    if let Some(pickle) = among().find(is_pickle) {
        return format!(
            "expected safetensors or a .gguf file, found only {pickle}: t5-quantize takes it; a revision like \
             @refs/pr/N may have the safetensors"
        );
    }
    let other = among().find(|file| file.ends_with(".h5") || file.ends_with(".msgpack"));
    let found = other.map_or_else(|| format!("{} other files", among().count()), |file| format!("only {file}"));
    let [weights, index, ..] = WEIGHTS;
    format!("expected {weights}, {index} or a .gguf file, found {found}; a revision like @refs/pr/N may have them")
}

/// A file of weights with what belongs to it: what lies beside it, and the tokenizer of a Diffusers pipeline.
fn selection(files: &[String], weights: &str, whole_folder: bool, pickles: bool) -> Selection {
    let (folder, _) = weights.rsplit_once('/').unwrap_or_default();
    let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let has = |file: &String| files.contains(file);
    let beside = COMPANIONS.iter().map(|file| format!("{inside}{file}")).filter(has);
    // The pipeline may itself be in a folder.
    let (pipeline, encoder) = folder.split_at(folder.rfind('/').map_or(0, |slash| slash + 1));
    let tokenizer = folder::tokenizer_beside(encoder).into_iter().flat_map(|tokenizer| {
        folder::tokenizer_files().iter().map(move |file| format!("{pipeline}{tokenizer}/{file}")).filter(has)
    });
    // A model split over several files is named by its first.
    let parts = (2..).map_while(|number| Some(part(weights, number)?).filter(has));
    let is_module = |file: &&String| {
        let pickled = file.strip_suffix(PICKLES[0]);
        let wanted = pickled.is_none_or(|inside| pickles && !has(&format!("{inside}{}", WEIGHTS[0])));
        is_file_of_module(file) && wanted && file.split('/').all(is_file_name)
    };
    let modules = files.iter().filter(|_| folder.is_empty()).filter(is_module).cloned();
    let companions = beside.chain(modules).chain(tokenizer).chain(parts).collect();
    Selection { companions, weights: weights.to_owned(), whole_folder }
}

/// The folders of a pipeline's encoders, if the repository is one: whose config.json says which is a T5.
pub(super) fn encoders(files: &[String], name: &HubName) -> Vec<String> {
    let chosen = name.file.is_some() || name.folder.is_some() || name.variant.is_some();
    if chosen || files.iter().any(|file| WEIGHTS.contains(&file.as_str()) || file.ends_with(".gguf")) {
        return Vec::new();
    }
    let encoder = |file: &String| {
        let folder = file.strip_suffix("/config.json")?;
        folder::tokenizer_beside(folder).is_some().then(|| folder.to_owned())
    };
    files.iter().filter_map(encoder).collect()
}

/// `NAME-00001-of-00003.gguf` to the file with another number.
fn part(first: &str, number: usize) -> Option<String> {
    let (stem, count) = first.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    Some(format!("{}-{number:05}-of-{count}.gguf", stem.strip_suffix("-00001")?))
}

/// Whether a file is GGUF, and not a later part of a model split over several.
fn is_first(file: &str) -> bool {
    let later = || {
        let (stem, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let number = stem.rsplit('-').next()?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        Some(digits(number) && digits(count) && number != "00001")
    };
    file.ends_with(".gguf") && !later().unwrap_or(false)
}

/// Whether a GGUF file's name ends with a type: `t5-Q8_0.gguf` with `Q8_0` or `q8_0`, not `t5-bf16.gguf` with `f16`.
fn is_variant(file: &str, variant: &str) -> bool {
    let stem = file.strip_suffix(".gguf").unwrap_or(file);
    let stem = stem.split("-00001-of-").next().unwrap_or(stem);
    let Some(start) = stem.len().checked_sub(variant.len()).filter(|&start| stem.is_char_boundary(start)) else {
        return false;
    };
    let (before, end) = stem.split_at(start);
    end.eq_ignore_ascii_case(variant) && !before.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// The sentence for several GGUF files.
pub(super) fn ambiguous(files: &[String], name: &HubName) -> String {
    format!(
        "has {} GGUF files, name one as hf:{}/FILE.gguf or by its type as hf:{1}:Q8_0: {}",
        files.len(),
        name.repository,
        files.join(", ")
    )
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
            Some(shard) if is_file_name(shard) && is_shard(shard) => Ok(shard.to_owned()),
            _ => Err(wrong(format!("expected the names of .safetensors or .bin files, found {shard}"))),
        })
        .collect()
}

fn is_shard(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
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
pub(super) fn cached(snapshot: &Path, name: &HubName, pickles: bool) -> Cached {
    let has = |file: &str| snapshot.join(file).is_file();
    if let Some(file) = &name.file {
        let path = snapshot.join(file);
        return match path.is_file() {
            true if is_self_contained(&path) || (has("config.json") && needs_no_more(snapshot)) => {
                Cached::Complete(path)
            }
            true => Cached::Weights(path),
            false => Cached::Nothing,
        };
    }
    if name.variant.is_none() {
        let folder = match &name.folder {
            Some(folder) => Some(snapshot.join(folder)),
            // A pipeline's, or the snapshot itself.
            None => folder::encoder_in(snapshot).ok().map(|inner| inner.unwrap_or_else(|| snapshot.to_owned())),
        };
        if let Some(folder) = folder.filter(|folder| has_weights(folder, pickles)) {
            return match needs_no_more(&folder) {
                true => Cached::Complete(folder),
                false => Cached::Weights(folder),
            };
        }
    }
    // One GGUF file here may be one of several there, so a list is asked for where the hub can be reached.
    let folder = name.folder.as_ref().map_or_else(|| snapshot.to_owned(), |folder| snapshot.join(folder));
    let mut gguf: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| is_first(file) && folder.join(file).is_file())
        .filter(|file| name.variant.as_ref().is_none_or(|variant| is_variant(file, variant)))
        .collect();
    gguf.sort();
    match &gguf[..] {
        [] => Cached::Nothing,
        [file] if name.variant.is_some() && is_self_contained(&folder.join(file)) && is_whole(&folder, file) => {
            Cached::Complete(folder.join(file))
        }
        [file] => Cached::Weights(folder.join(file)),
        _ => Cached::Ambiguous(gguf),
    }
}

/// Whether all parts of a GGUF file are there.
fn is_whole(folder: &Path, first: &str) -> bool {
    let count = first.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-")?.1.parse().ok()).unwrap_or(1);
    (2..=count).all(|number: usize| part(first, number).is_none_or(|part| folder.join(part).is_file()))
}

/// Whether a folder has a configuration and whole weights.
fn has_weights(folder: &Path, pickles: bool) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    let whole = |file: &str| {
        has(file)
            && (!folder::is_index(file)
                || shards(&folder.join(file)).is_ok_and(|shards| shards.iter().all(|shard| has(shard))))
    };
    has("config.json") && WEIGHTS.iter().chain(PICKLES.iter().filter(|_| pickles)).any(|file| whole(file))
}

/// Whether the snapshot has a vocabulary, or says that its tokens are bytes. One that a killed download left in part is
/// none: what says it comes last.
pub(super) fn has_tokenizer(snapshot: &Path) -> bool {
    let is_whole = |folder: &Path| folder::has_vocabulary(folder) || says_bytes(&folder.join("tokenizer_config.json"));
    is_whole(snapshot) || folder::tokenizer(snapshot).is_some_and(|beside| is_whole(&beside))
}

/// Whether a snapshot whose last file is there has its tokenizer, or a configuration that needs none.
pub(super) fn needs_no_more(snapshot: &Path) -> bool {
    has_tokenizer(snapshot) || says_bytes(&snapshot.join("config.json"))
}

fn says_bytes(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("ByT5"))
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
        select(&files, &HubName::parse(name).unwrap(), false).map(|selection| selection.weights)
    }

    const INDEX: &str = super::WEIGHTS[1];
    const WEIGHTS: &str = super::WEIGHTS[0];

    #[test]
    fn the_file_of_weights() {
        assert_eq!(choose("hf:a/b", &["config.json", "x.gguf", WEIGHTS, INDEX]).unwrap(), WEIGHTS);
        assert_eq!(choose("hf:a/b", &["config.json", "pytorch_model.bin", INDEX]).unwrap(), INDEX);
        assert_eq!(choose("hf:a/b", &["README.md", "x.gguf"]).unwrap(), "x.gguf");
        assert_eq!(choose("hf:a/b/y.gguf", &["config.json", WEIGHTS, "x.gguf", "y.gguf"]).unwrap(), "y.gguf");
        assert_eq!(choose("hf:a/b", &[WEIGHTS]).unwrap_err(), "has model.safetensors but no config.json");
        assert_eq!(
            choose("hf:a/b", &["x.gguf", "y.gguf"]).unwrap_err(),
            "has 2 GGUF files, name one as hf:a/b/FILE.gguf or by its type as hf:a/b:Q8_0: x.gguf, y.gguf"
        );
        assert_eq!(
            choose("hf:a/b/z.gguf", &["x.gguf", "y.gguf"]).unwrap_err(),
            "has no file z.gguf; its GGUF files are x.gguf, y.gguf"
        );
        assert!(choose("hf:a/b/z.gguf", &[]).unwrap_err().contains("no other GGUF file"));
        assert!(choose("hf:a/b", &["pytorch_model.bin"]).unwrap_err().contains("found only pytorch_model.bin"));
        assert!(choose("hf:a/b", &["a", "b"]).unwrap_err().contains("found 2 other files"));
        assert!(choose("hf:a/b", &["../x.gguf"]).unwrap_err().contains("cannot be used"));
        assert_eq!(
            choose("hf:a/b", &["t5xxl_fp16.safetensors", "t5xxl_fp8.safetensors"]).unwrap_err(),
            "has no model.safetensors, name one of its files: t5xxl_fp16.safetensors, t5xxl_fp8.safetensors"
        );
        assert_eq!(choose("hf:a/b/t5.safetensors", &["t5.safetensors"]).unwrap(), "t5.safetensors");
    }

    #[test]
    fn a_type_chooses_among_many_files() {
        let files = [
            "t5-bf16.gguf",
            "t5-f16.gguf",
            "t5-Q4_K_M.gguf",
            "t5-Q8_0-00001-of-00002.gguf",
            "t5-Q8_0-00002-of-00002.gguf",
            "old/t5-Q5_0.gguf",
        ];
        assert_eq!(choose("hf:a/b:f16", &files).unwrap(), "t5-f16.gguf");
        assert_eq!(choose("hf:a/b:BF16", &files).unwrap(), "t5-bf16.gguf");
        assert_eq!(choose("hf:a/b:q8_0", &files).unwrap(), "t5-Q8_0-00001-of-00002.gguf");
        assert_eq!(choose("hf:a/b:q5_0", &files).unwrap(), "old/t5-Q5_0.gguf");
        let error = choose("hf:a/b:Q4_0", &files).unwrap_err();
        assert_eq!(
            error,
            "has no GGUF file of the type Q4_0; its GGUF files are t5-bf16.gguf, t5-f16.gguf, t5-Q4_K_M.gguf, \
             t5-Q8_0-00001-of-00002.gguf, old/t5-Q5_0.gguf"
        );
        // The other parts come with the first.
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let chosen = select(&files, &HubName::parse("hf:a/b:Q8_0").unwrap(), false).unwrap();
        assert_eq!(chosen.companions, ["t5-Q8_0-00002-of-00002.gguf"]);
    }

    #[test]
    fn the_folders_of_a_pipeline() {
        let files: Vec<String> = [
            "model_index.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "text_encoder_2/config.json",
            "text_encoder_2/model.safetensors.index.json",
            "tokenizer/vocab.json",
            "tokenizer_2/spiece.model",
            "tokenizer_2/tokenizer_config.json",
            "vae/config.json",
            "sub/text_encoder/config.json",
            "sub/text_encoder/model.safetensors",
            "sub/tokenizer/spiece.model",
        ]
        .map(str::to_owned)
        .to_vec();
        let parse = |name| HubName::parse(name).unwrap();
        assert_eq!(encoders(&files, &parse("hf:a/b")), ["text_encoder", "text_encoder_2"]);
        assert_eq!(encoders(&files, &parse("hf:a/b/text_encoder_2")), Vec::<String>::new());
        let chosen = select(&files, &parse("hf:a/b/text_encoder_2"), false).unwrap();
        assert_eq!(chosen.weights, "text_encoder_2/model.safetensors.index.json");
        assert!(chosen.whole_folder);
        assert_eq!(
            chosen.companions,
            ["text_encoder_2/config.json", "tokenizer_2/tokenizer_config.json", "tokenizer_2/spiece.model"]
        );
        let nested = select(&files, &parse("hf:a/b/sub/text_encoder"), false).unwrap();
        assert_eq!(nested.companions, ["sub/text_encoder/config.json", "sub/tokenizer/spiece.model"]);
        assert_eq!(select(&files, &parse("hf:a/b/unet"), false).unwrap_err(), "has no such folder");
    }

    #[test]
    fn pickles_are_for_who_reads_them() {
        let files = ["config.json".to_owned(), "pytorch_model.bin".to_owned()];
        let name = HubName::parse("hf:a/b").unwrap();
        assert_eq!(select(&files, &name, true).unwrap().weights, "pytorch_model.bin");
        let error = select(&files, &name, false).unwrap_err();
        assert!(error.contains("found only pytorch_model.bin: t5-quantize takes it"), "{error}");
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
