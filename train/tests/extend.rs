//! Models to train on from: the built-in model's GGUF file with more tokens and other blocks, and means of models.

mod common;

use std::path::{Path, PathBuf};

use common::{balanced, fail, succeed};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema::{self, Role, Stack};
use t5_runtime::tokenizer::Tokenizer;
use t5_runtime::{Model, block};

const PREFIX: &str = "translate English to Dutch:";

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf")
}

fn extended(folder: &Path, arguments: &[&str]) -> Checkpoint {
    let (model, output) = (pocket().display().to_string(), folder.join("extended").display().to_string());
    succeed(&[&["extend", &model, &output], arguments].concat());
    Checkpoint::open(Path::new(&output)).unwrap()
}

/// Values in the units that they had before a file was balanced (docs/gguf.md, `encoder_scale`).
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let mut values = block::decode_tensor(checkpoint.tensor(name).unwrap()).unwrap();
    let is_norm = name == "encoder.final_layer_norm.weight";
    let traded = is_norm || name.contains("EncDecAttention.k.") || name.contains("EncDecAttention.v.");
    if let Some(scale) = checkpoint.encoder_scale.as_ref().filter(|_| traded) {
        for (value, s) in values.iter_mut().zip(scale.iter().cycle()) {
            *value = if is_norm { *value * s } else { *value / s };
        }
    }
    values
}

fn answer(model: &Model, text: &str) -> (Vec<u32>, f32) {
    let mut session = model.session();
    let output = session.generate(text, &Default::default()).unwrap().finish().remove(0);
    (output.ids, output.score)
}

#[test]
fn a_gguf_file_becomes_a_folder_of_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    // Of another model, which some readers would take.
    let left = folder.path().join("extended/spiece.model");
    std::fs::create_dir(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "pieces of another model").unwrap();
    let checkpoint = extended(folder.path(), &[]);
    assert!(!left.exists());
    let before = Checkpoint::open(&pocket()).unwrap();
    assert_eq!(checkpoint.config, before.config);
    assert_eq!(checkpoint.vocabulary, before.vocabulary);
    for spec in schema::tensors(&before.config) {
        assert_eq!(values(&checkpoint, &spec.hf_name), values(&before, &spec.hf_name), "{}", spec.hf_name);
    }
}

/// A folder has no place for what the encoder of a balanced file has traded with the decoder.
#[test]
fn a_balanced_file_becomes_a_model_with_the_original_s_states() {
    let folder = tempfile::tempdir().unwrap();
    let (original, stored) = balanced(folder.path());
    let expanded = t5_train::model::Model::from_checkpoint(&stored).unwrap();
    let mut seen = 0;
    for (index, spec) in original.specs().iter().enumerate() {
        // Norms stay in f32; matrices are rounded to eight bits.
        let bound = match (spec.id.role, spec.id.stack) {
            (Role::FinalNorm, Some(Stack::Encoder)) => 1e-12,
            (Role::CrossK | Role::CrossV, _) => 1e-3,
            _ => continue,
        };
        let (was, is) = (original.values(index).unwrap(), expanded.values(index).unwrap());
        let square = |x: f32| f64::from(x) * f64::from(x);
        let (whole, off) = (was.iter().map(|&x| square(x)), was.iter().zip(&is).map(|(a, b)| square(a - b)));
        let off = off.sum::<f64>() / whole.sum::<f64>();
        assert!(off < bound, "{}: {off}", spec.hf_name);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn a_token_s_row_is_the_mean_of_its_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let list = format!("{PREFIX},ж");
    let checkpoint = extended(folder.path(), &["--add-tokens", &list]);
    let before = Checkpoint::open(&pocket()).unwrap();
    let tokenizer =
        |checkpoint: &Checkpoint| Tokenizer::new(&checkpoint.file, checkpoint.vocabulary.as_ref().unwrap()).unwrap();
    let (old, new) = (tokenizer(&before), tokenizer(&checkpoint));
    let first = old.vocab_size() as u32;
    assert_eq!((new.id_of(PREFIX), new.id_of("ж")), (Some(first), Some(first + 1)));
    // What is typed stays the same; what stands behind it is spelt as before.
    let text = format!("{PREFIX} Where is he?");
    let rest = old.encode("Where is he?");
    assert_eq!(new.encode(&text), [&[first], rest.as_slice()].concat());
    let pieces = old.encode_prefix(PREFIX);
    assert!(pieces.len() > 3);
    assert_eq!(old.encode(&text).len(), rest.len() + pieces.len());
    let letter = new.encode("Yes.жNo.");
    assert_eq!(letter, [old.encode_prefix("Yes."), vec![first + 1], old.encode("No.")].concat());

    let (was, is) = (values(&before, "shared.weight"), values(&checkpoint, "shared.weight"));
    let d_model = before.config.d_model;
    assert_eq!(is.len(), was.len(), "the rows that fill the embedding up are used first");
    assert_eq!(is[..first as usize * d_model], was[..first as usize * d_model]);
    for at in 0..d_model {
        let mean =
            pieces.iter().map(|&id| f64::from(was[id as usize * d_model + at])).sum::<f64>() / pieces.len() as f64;
        assert_eq!(is[first as usize * d_model + at], mean as f32);
    }
    // A folder that no SentencePiece model can describe has none, and the trainer starts from it.
    let vocabulary = t5_train::vocabulary::Vocabulary::read(&folder.path().join("extended")).unwrap();
    assert_eq!(vocabulary.encode(&text), new.encode_prefix(&text));
    assert_eq!(vocabulary.decode(&vocabulary.encode(&text)), text);
    // What stands behind a token begins as a text does. Lines come back as they were: the built-in model has the token.
    assert_eq!(new.decode(&letter, true), "Yes.ж No.");
    assert_eq!(old.decode(&old.encode("Yes.\nNo."), true), "Yes.\nNo.");
}

#[test]
fn a_deeper_model_begins_as_the_shallower_one() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = ["--encoder-blocks", "0,1,1,2,3,3", "--decoder-blocks", "0,1,2,3,3"];
    let checkpoint = extended(folder.path(), &blocks);
    assert_eq!((checkpoint.config.num_layers, checkpoint.config.num_decoder_layers), (6, 5));
    let shallow = folder.path().join("shallow").display().to_string();
    succeed(&["extend", &pocket().display().to_string(), &shallow]);
    let (deep, shallow) = (folder.path().join("extended"), Path::new(&shallow));
    let [deep, shallow] = [&deep, shallow].map(|path| Model::open(path).unwrap());
    for text in ["translate English to German: Where is the station?", "fix: He go to teh station."] {
        assert_eq!(answer(&deep, text), answer(&shallow, text));
    }
}

#[test]
fn blocks_that_are_left_out_leave_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = extended(folder.path(), &["--decoder-blocks", "1,3"]);
    let before = Checkpoint::open(&pocket()).unwrap();
    let same = |new: &str, old: &str| assert_eq!(values(&checkpoint, new), values(&before, old), "{new}");
    same("decoder.block.0.layer.1.EncDecAttention.k.weight", "decoder.block.1.layer.1.EncDecAttention.k.weight");
    same("decoder.block.1.layer.2.DenseReluDense.wo.weight", "decoder.block.3.layer.2.DenseReluDense.wo.weight");
    // The stack's one table of distances stays with its first block.
    let table = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    same(table, table);
    same("decoder.final_layer_norm.weight", "decoder.final_layer_norm.weight");
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("extended").display().to_string();
    let model = pocket().display().to_string();
    let message = |arguments: &[&str]| fail(&[&["extend", &model, &output], arguments].concat());
    let error = message(&["--decoder-blocks", "0,4"]);
    assert!(error.contains("--decoder-blocks: expected one or more blocks of 0 to 3, found [0, 4]"), "{error}");
    let error = message(&["--add-tokens", "a b,a b"]);
    assert!(error.contains("\"a b\" is in the vocabulary already"), "{error}");
    let error = message(&["--add-tokens", "</s>"]);
    assert!(error.contains("\"</s>\" is in the vocabulary already"), "{error}");
    assert!(message(&["--add-tokens", "a b,,c d"]).contains("expected texts, found \"\""));
    assert!(!Path::new(&output).exists(), "nothing was written");
}

#[test]
fn a_folder_of_shards_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    extended(folder.path(), &[]);
    let folder = folder.path().join("extended");
    let (file, shard) = (folder.join("model.safetensors"), "model-00001-of-00001.safetensors");
    let names = Checkpoint::open(&folder).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        names.tensors().map(|(spec, _)| (spec.hf_name.clone(), shard.into())).collect();
    drop(names);
    std::fs::rename(&file, folder.join(shard)).unwrap();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    let (path, other) = (folder.display().to_string(), pocket().display().to_string());
    for arguments in [&["extend", &path, &path][..], &["mean", &other, &path, "--output", &path]] {
        let message = fail(arguments);
        assert!(message.contains(&format!("{path}: expected another folder than that of {path}, which is read")));
        assert!(!file.exists(), "nothing was written");
    }
}

/// A task on which the built-in model is a beginner, so that a step changes something.
fn configuration(folder: &Path) -> String {
    std::fs::write(folder.join("pairs.tsv"), "one two\ttwo one\nthree\tthree\n").unwrap();
    let text = r#"
[data]
inputs_length = 32
targets_length = 32
[[data.tasks]]
name = "swap"
source = { format = "tsv", columns = ["a", "b"] }
train = ["pairs.tsv"]
dev = ["pairs.tsv"]
examples = { kind = "template", input = "swap: {a}", target = "{b}" }
metrics = ["exact-match"]
"#;
    let path = folder.join("run.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The built-in model after a step of the configuration.
fn trained(folder: &Path) -> String {
    let config = configuration(folder);
    let run = folder.join("run");
    let (from, output) = (format!("model.from={}", pocket().display()), format!("run.output={}", run.display()));
    let data = format!("data.dir={}", folder.display());
    let sets = ["--set", &from, "--set", &output, "--set", &data, "--set", "run.precision=f32"];
    succeed(&[&["run", &config, "--set", "run.steps=1", "--set", "evaluation.every_steps=0"], &sets[..]].concat());
    let exported = folder.join("exported").display().to_string();
    succeed(&["export", &run.display().to_string(), &exported]);
    exported
}

#[test]
fn a_run_starts_from_a_gguf_file_and_its_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let exported = trained(folder.path());
    let (before, after) = (Checkpoint::open(&pocket()).unwrap(), Checkpoint::open(Path::new(&exported)).unwrap());
    assert_eq!(after.vocabulary, before.vocabulary);
    assert_eq!(after.config, before.config);
    assert_ne!(values(&after, "shared.weight"), values(&before, "shared.weight"));

    // A model that is named brings its vocabulary; of weights alone, one sentence says what is missing.
    let (model, config) = (pocket().display().to_string(), folder.path().join("run.toml").display().to_string());
    let data = format!("data.dir={}", folder.path().display());
    let report = succeed(&["eval", &config, "--model", &model, "--set", &data, "--json"]);
    assert!(String::from_utf8(report.stdout).unwrap().contains("swap/exact-match"));
    let message = fail(&["eval", &config, "--set", &data]);
    assert!(message.contains("model.vocabulary: expected a tokenizer.json"), "{message}");
}

#[test]
fn a_mean_has_a_share_of_each_model() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (pocket().display().to_string(), trained(folder.path()));
    let output = folder.path().join("mean").display().to_string();
    let refused = |others: &[&str]| fail(&[&["mean", &before, "--output", &output], others].concat());
    let message = refused(&[]);
    assert!(message.contains("expected two models or more, found 1"), "{message}");
    let message = refused(&[&after, "--shares", "0.75,0.5"]);
    assert!(message.contains("--shares: expected 2 numbers with the sum 1, found [0.75, 0.5]"), "{message}");
    let message = refused(&[&after, "--shares", "1"]);
    assert!(message.contains("--shares: expected 2 numbers with the sum 1, found [1.0]"), "{message}");
    extended(folder.path(), &["--decoder-blocks", "1,3"]);
    let message = refused(&[&folder.path().join("extended").display().to_string()]);
    assert!(message.contains("expected a model of the same shape and vocabulary as"), "{message}");
    extended(folder.path(), &["--add-tokens", "a b"]);
    let message = refused(&[&folder.path().join("extended").display().to_string()]);
    assert!(message.contains("expected a model of the same shape and vocabulary as"), "{message}");
    assert!(!Path::new(&output).exists(), "nothing was written");
    let message = fail(&["mean", &before, &after, "--output", &after]);
    assert!(message.contains("expected another folder than that of "), "{message}");

    // Dropout is of training.
    let path = Path::new(&after).join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["dropout_rate"] = 0.25.into();
    std::fs::write(&path, json.to_string()).unwrap();
    let open = |path: &str| Checkpoint::open(Path::new(path)).unwrap();
    for (shares, [first, second]) in [(None, [0.5, 0.5]), (Some("1.25,-0.25"), [1.25, -0.25])] {
        let shares = shares.map_or(Vec::new(), |shares| vec!["--shares", shares]);
        let told = succeed(&[&["mean", &before, &after, "--output", &output], shares.as_slice()].concat());
        let told = String::from_utf8(told.stderr).unwrap();
        assert!(told.starts_with(&format!("note: quantised before: {before}; ")), "{told}");
        let [one, two, mean] = [&before, &after, &output].map(|path| open(path));
        assert_ne!(one.config, two.config);
        assert_eq!((&mean.config, &mean.vocabulary), (&one.config, &one.vocabulary));
        for spec in schema::tensors(&one.config) {
            let [one, two, mean] = [&one, &two, &mean].map(|checkpoint| values(checkpoint, &spec.hf_name));
            for ((one, two), mean) in one.iter().zip(two).zip(mean) {
                assert_eq!(mean, (first * f64::from(*one) + second * f64::from(two)) as f32, "{}", spec.hf_name);
            }
        }
    }
    // Folders of values in full have nothing to be told about.
    let told = succeed(&["mean", &after, &after, "--output", &output]);
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.starts_with(&output) && !told.contains("note:"), "{told}");
}
