//! T5s in the forms in which people hold them (golden/make_files.py): each is opened with the right configuration, its
//! encoder answers as the transformers library's does, as it is and as one GGUF file, and what must not be read is
//! refused in one sentence.

use std::path::{Path, PathBuf};

use serde_json::Value;
use t5_quantize::{Policy, pytorch, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::{Model, ModelOptions};
use t5_tests::golden::{floats, ids};
use t5_tests::paths;

/// As for the tiny families: the library's float32 is itself off by a third of it.
const TOLERANCE: f32 = 1e-4;

fn place(file: &str) -> PathBuf {
    paths::golden("files").join(file)
}

fn golden() -> Vec<Value> {
    let text = std::fs::read_to_string(place("golden.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn entries() -> Vec<Value> {
    golden().into_iter().filter(|line| line.get("cases").is_some()).collect()
}

fn name(entry: &Value) -> &str {
    entry["file"].as_str().unwrap()
}

fn is_pickle(file: &str) -> bool {
    file.starts_with("pickle") || t5_runtime::checkpoint::is_pickle(Path::new(file))
}

fn model(checkpoint: Checkpoint) -> Model {
    Model::from_checkpoint(checkpoint, &ModelOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn open(file: &str) -> Checkpoint {
    open_path(&place(file))
}

fn open_path(path: &Path) -> Checkpoint {
    pytorch::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The checkpoint as one GGUF file.
fn gguf(checkpoint: &Checkpoint, dtype: DType) -> Checkpoint {
    let mut bytes = Vec::new();
    quantize(checkpoint, &Policy::new(dtype), "x.gguf", &mut bytes, &mut ()).unwrap_or_else(|error| panic!("{error}"));
    Checkpoint::from_gguf("x.gguf", Bytes::from_vec(bytes)).unwrap_or_else(|error| panic!("{error}"))
}

/// The farthest that a state is from the library's.
fn off(model: &Model, entry: &Value) -> f32 {
    let mut session = model.session();
    let cases = entry["cases"].as_array().unwrap().iter();
    let of_case = |case: &Value| {
        let states = session.encode_ids(&ids(&case["input_ids"])).unwrap().to_vec();
        let expected = floats(&case["states"]);
        assert_eq!(states.len(), expected.len(), "{}", name(entry));
        states.iter().zip(&expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()))
    };
    cases.map(of_case).fold(0.0, f32::max)
}

#[test]
fn every_form_gives_the_library_s_states() {
    let entries = entries();
    assert!(entries.len() >= 20, "{} forms", entries.len());
    for entry in &entries {
        let file = name(entry);
        let checkpoint = open(file);
        assert_eq!(checkpoint.config.model_type, entry["model_type"].as_str().unwrap(), "{file}");
        assert!(checkpoint.config.is_encoder_only(), "{file}");
        assert_eq!(checkpoint.vocabulary.is_some(), entry.get("tokenizer").is_some(), "{file}");
        let stored = gguf(&checkpoint, DType::F32);
        assert_eq!(stored.config, checkpoint.config, "{file}");
        assert_eq!(stored.vocabulary, checkpoint.vocabulary, "{file}");
        let (as_it_is, as_gguf) = (off(&model(checkpoint), entry), off(&model(stored), entry));
        assert!(as_it_is < TOLERANCE && as_gguf < TOLERANCE, "{file}: off by {as_it_is}, as GGUF by {as_gguf}");
    }
}

#[test]
fn without_pickles_the_runtime_reads_the_same() {
    for entry in entries().iter().filter(|entry| !is_pickle(name(entry))) {
        let file = name(entry);
        assert_eq!(Checkpoint::open(&place(file)).unwrap().config, open(file).config, "{file}");
    }
    for (file, converted) in [("pickle", "pickle"), ("nested.pt", "nested.pt")] {
        let error = Checkpoint::open(&place(file)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("expected safetensors or GGUF; `t5-quantize ") && error.contains(converted), "{error}");
    }
}

#[test]
fn what_was_deduced_is_said() {
    let notes = |file: &str| open(file).notes.join("\n");
    let note = notes("t5xxl_fp16.safetensors");
    assert!(note.contains("no config.json, so the tensors say what it is: t5, an encoder of 2 blocks"), "{note}");
    assert!(note.contains("vocab_size 64, d_model 16, 3 heads of 6, d_ff 24, gated-gelu, 32 buckets"), "{note}");
    let note = notes("all-in-one.safetensors");
    assert!(note.contains("the T5 is text_encoders.t5xxl.transformer.*; "), "{note}");
    assert!(note.contains("d_ff 24, relu"), "{note}");
    assert!(notes("umt5-wan.pth").contains("umt5, an encoder of 2 blocks"));
    // A configuration of its own is no deduction.
    assert!(!notes("pipeline").contains("no config.json"));
}

#[test]
fn what_must_not_be_read_is_refused_in_one_sentence() {
    let lines = golden();
    let refused = lines.iter().find_map(|line| line.get("refused")).unwrap().as_array().unwrap();
    assert_eq!(refused.len(), 5);
    for case in refused {
        let (file, expected) = (name(case), case["expected"].as_str().unwrap());
        let error = pytorch::open(&place(file)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{file}: {error}");
    }
    assert!(!Path::new("/tmp/pocket-t5-was-here").exists(), "code of a pickle was run");
}

#[test]
fn pipelines_are_named_by_the_folder_above() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(place(from)).unwrap().map(|entry| entry.unwrap()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let refused = || Checkpoint::open(folder.path()).map(|_| ()).unwrap_err().to_string();
    copy("pipeline/text_encoder", "text_encoder");
    assert!(refused().contains("expected a T5 in one of its folders, found text_encoder (clip_text_model)"));
    copy("act-relu", "text_encoder_3");
    assert_eq!(Checkpoint::open(folder.path()).unwrap().config.d_ff, 24);
    copy("act-silu", "text_encoder_2");
    let error = refused();
    assert!(
        error.contains("expected one T5, found 2: name the folder of one: text_encoder_2, text_encoder_3"),
        "{error}"
    );
    let chosen = Checkpoint::open(&folder.path().join("text_encoder_2")).unwrap();
    assert_eq!(chosen.config.feed_forward.name(), "silu");
}

#[test]
fn an_encoder_can_be_kept_alone() {
    for family in ["t5-1.0", "umt5", "madlad"] {
        let folder = t5_tests::families::folder(family);
        let mut whole = Checkpoint::open(&folder).unwrap();
        let whole_model = model(Checkpoint::open(&folder).unwrap());
        whole.keep_encoder_only();
        let alone = gguf(&whole, DType::F32);
        assert!(alone.config.is_encoder_only(), "{family}");
        assert!(alone.tensors().all(|(spec, _)| !spec.hf_name.starts_with("decoder.")), "{family}");
        let alone = model(alone);
        let ids = [3, 17, 40, 5, 1];
        let states = |model: &Model| model.session().encode_ids(&ids).unwrap().to_vec();
        assert_eq!(states(&alone), states(&whole_model), "{family}");
    }
}

#[test]
fn what_is_behind_a_pickled_encoder_is_read_too() {
    let folder = t5_tests::beside::sentence_model("st5");
    let whole = open_path(folder.path()).sentence.unwrap();
    let dense = folder.path().join("2_Dense");
    std::fs::remove_file(dense.join("model.safetensors")).unwrap();
    std::fs::copy(place("dense/pytorch_model.bin"), dense.join("pytorch_model.bin")).unwrap();
    assert_eq!(open_path(folder.path()).sentence.unwrap(), whole);

    for file in ["config.json", "pytorch_model.bin"] {
        std::fs::copy(place("pickle").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let modules = r#"[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]"#;
    std::fs::write(folder.path().join("modules.json"), modules).unwrap();
    assert_eq!(open_path(folder.path()).sentence.unwrap().modules.len(), 1);
}

/// A file cut off or changed anywhere is refused, or read; it is never a panic.
#[test]
fn pickles_that_are_damaged_are_refused() {
    let whole = std::fs::read(place("umt5-wan.pth")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    let mut refused = 0;
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = pytorch::open(&path).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("x.pth") && !error.contains('\n'), "{length}: {error}");
    }
    // Every byte of the pickle, each made another.
    let start = whole.windows(2).position(|window| window == [0x80, 2]).unwrap();
    for at in start..start + 2600 {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(17);
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = pytorch::open(&path) {
            assert!(!error.to_string().contains('\n'), "{at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
}
