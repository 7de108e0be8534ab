//! Hugging Face folders and safetensors files: what is accepted, and every way they can be wrong.

mod common;

use common::tiny::{Part, Parts, config, config_with, part, parts, safetensors, write_folder};
use serde_json::{Value, json};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::generation::GenerationDefaults;
use t5_runtime::schema;
use t5_runtime::tensor::DType;

fn open(config: &Value, parts: &Parts) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), config, parts);
    Checkpoint::open(folder.path()).map_err(|error| error.to_string())
}

/// Asserts that a model is refused with a message that contains all of `expected`.
#[track_caller]
fn refused(config: &Value, tensors: &Parts, expected: &[&str]) {
    let error = open(config, tensors).map(|_| ()).expect_err("the model should be refused");
    for part in expected {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(!error.contains('\n'), "one sentence: {error}");
}

const NO_TOKENIZER: &str = "no tokenizer.json or spiece.model: only token ids can be used";

#[test]
fn a_folder_is_opened_with_every_tensor() {
    let parts = parts(&config());
    let checkpoint = open(&config(), &parts).unwrap();
    assert_eq!(checkpoint.tensors().count(), parts.len());
    for (spec, tensor) in checkpoint.tensors() {
        assert_eq!((&tensor.name, &tensor.shape), (&spec.hf_name, &spec.shape));
        assert_eq!(&*tensor.data, parts[&spec.hf_name].data);
        assert!(tensor.file.ends_with("model.safetensors"));
    }
    assert_eq!(checkpoint.notes, [NO_TOKENIZER]);
    assert!(checkpoint.vocabulary.is_none());
}

#[test]
fn a_single_file_with_its_configuration_beside_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, safetensors(&parts(&config()))).unwrap();
    let error = Checkpoint::open(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("weights.safetensors: not a model: expected config.json beside it"), "{error}");
    std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
}

#[test]
fn half_precision_tensors_are_accepted() {
    for (name, dtype) in [("F16", DType::F16), ("BF16", DType::BF16)] {
        let mut parts = parts(&config());
        for part in parts.values_mut() {
            part.dtype = name;
            part.data.truncate(part.data.len() / 2);
        }
        let checkpoint = open(&config(), &parts).unwrap();
        assert!(checkpoint.tensors().all(|(_, tensor)| tensor.dtype == dtype));
    }
}

// Configuration and companions.

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &str| Checkpoint::open(&folder.path().join(path)).map(|_| ()).unwrap_err().to_string();
    assert!(error("absent").contains("absent: No such file"));
    assert!(error("").contains("not a model: expected config.json in this folder"));
    std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    assert!(error("").contains("expected model.safetensors or model.safetensors.index.json in this folder"));
    assert!(error("config.json").contains("config.json: not a model: expected a Hugging Face folder"));
    std::fs::write(folder.path().join("empty.gguf"), "").unwrap();
    assert!(error("empty.gguf").contains("empty.gguf: not a GGUF file: expected at least 24 bytes"));
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(error("").contains("model.safetensors: not a safetensors file: expected at least 8 bytes, found 0"));
}

#[test]
fn faults_of_the_configuration_are_refused() {
    let parts = parts(&config());
    refused(
        &config_with(json!({"d_model": null})),
        &parts,
        &["config.json: d_model: expected a whole number, found nothing"],
    );
    refused(&config_with(json!({"model_type": "bart"})), &parts, &["config.json: model_type", "found bart"]);
    refused(&config_with(json!({"num_layers": 5000})), &parts, &["num_layers: expected 1 to 1024, found 5000"]);
    refused(&config_with(json!({"d_kv": -1})), &parts, &["d_kv: expected a whole number, found -1"]);
    refused(&config_with(json!({"eos_token_id": 128})), &parts, &["eos_token_id: expected an id below 128, found 128"]);
    refused(&json!([1]), &parts, &["config.json"]);
}

#[test]
fn the_byte_vocabulary_is_known_by_its_class() {
    let big = |changes: Value| {
        let mut config = config_with(json!({"vocab_size": 384}));
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    };
    let check = |config: &Value, tokenizer_config: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), config, &parts(config));
        if let Some(text) = tokenizer_config {
            std::fs::write(folder.path().join("tokenizer_config.json"), text).unwrap();
        }
        let vocabulary = Checkpoint::open(folder.path()).unwrap().vocabulary;
        vocabulary.map(|vocabulary| vocabulary.len())
    };
    assert_eq!(check(&big(json!({"tokenizer_class": "ByT5Tokenizer"})), None), Some(259));
    assert_eq!(check(&big(json!({})), Some(r#"{"tokenizer_class": "ByT5Tokenizer"}"#)), Some(259));
    assert_eq!(check(&big(json!({"model_type": "byt5"})), None), Some(259));
    assert_eq!(check(&big(json!({})), Some(r#"{"tokenizer_class": "T5Tokenizer"}"#)), None);
}

#[test]
fn a_vocabulary_with_more_pieces_than_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), &config(), &parts(&config()));
    let Some(spiece) = common::shared("models/t5-tokenizer/spiece.model") else { return };
    std::fs::copy(spiece, folder.path().join("spiece.model")).unwrap();
    let error = Checkpoint::open(folder.path()).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer: expected at most 128 pieces, one for each row of the embedding, found 32000"),
        "{error}"
    );
}

#[test]
fn sentencepiece_models_get_the_sentinels_for_which_there_is_room() {
    let Some(spiece) = common::shared("models/t5-tokenizer/spiece.model") else { return };
    let count = |rows: usize, model_type: &str, tokenizer_config: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = config_with(json!({"vocab_size": rows, "model_type": model_type}));
        let mut config_of_tensors = config.clone();
        config_of_tensors["model_type"] = json!("t5");
        write_folder(folder.path(), &config, &parts(&config_of_tensors));
        std::fs::copy(&spiece, folder.path().join("spiece.model")).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), tokenizer_config).unwrap();
        Checkpoint::open(folder.path()).unwrap().vocabulary.unwrap().len()
    };
    assert_eq!(count(32128, "t5", "{}"), 32100);
    assert_eq!(count(32384, "umt5", "{}"), 32300);
    assert_eq!(count(32128, "t5", r#"{"extra_ids": 50}"#), 32050);
    assert_eq!(count(32000, "t5", "{}"), 32000);
}

#[test]
fn generation_defaults_come_from_generation_config() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(json!({"max_length": 77, "task_specific_params": {
        "summarization": {"prefix": "summarize: ", "num_beams": 4},
        "translation": {"prefix": "translate English to German: "},
        "nothing": {"max_length": 3}
    }}));
    write_folder(folder.path(), &config, &parts(&config));
    let generation = || Checkpoint::open(folder.path()).map(|c| (c.generation, c.notes)).map_err(|e| e.to_string());
    let prefixes = vec!["summarize: ".to_owned(), "translate English to German: ".to_owned()];
    let (defaults, _) = generation().unwrap();
    let old = GenerationDefaults { max_length: Some(77), task_prefixes: prefixes.clone(), ..Default::default() };
    assert_eq!(defaults, old, "old checkpoints keep them in config.json");

    let path = folder.path().join("generation_config.json");
    let all = json!({
        "max_new_tokens": 50, "min_length": 2, "num_beams": 4, "length_penalty": 0.6, "early_stopping": "never",
        "no_repeat_ngram_size": 3, "repetition_penalty": 1.5, "eos_token_id": [1, 5], "suppress_tokens": [7],
        "max_length": null, "transformers_version": "5"
    });
    std::fs::write(&path, all.to_string()).unwrap();
    let (defaults, notes) = generation().unwrap();
    let expected = GenerationDefaults {
        max_new_tokens: Some(50),
        max_length: None,
        min_length: Some(2),
        num_beams: Some(4),
        length_penalty: Some(0.6),
        early_stopping: Some(false),
        no_repeat_ngram_size: Some(3),
        repetition_penalty: Some(1.5),
        eos_token_ids: vec![1, 5],
        suppress_tokens: vec![7],
        task_prefixes: prefixes,
    };
    assert_eq!(defaults, expected);
    assert!(notes.iter().any(|note| note.contains("early_stopping \"never\"")), "{notes:?}");

    for (text, expected) in [
        (r#"{"num_beams": "four"}"#, "generation_config.json: num_beams: expected a whole number, found \"four\""),
        (r#"{"length_penalty": true}"#, "length_penalty: expected a number, found true"),
        (r#"{"length_penalty": 1e39}"#, "length_penalty: expected a number, found 1e+39"),
        (r#"{"eos_token_id": [1, -2]}"#, "eos_token_id: expected a token id or a list of them, found [1,-2]"),
        (r#"{"early_stopping": 1}"#, "early_stopping: expected true or false, found 1"),
        ("[]", "generation_config.json: expected a JSON object, found another value"),
        ("{", "generation_config.json: expected a JSON object: "),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = generation().unwrap_err();
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

// Head, tie and scale (docs/t5.md 1.6).

#[test]
fn the_head_is_what_is_stored_and_the_scale_what_is_said() {
    let head = ("lm_head.weight".to_owned(), part("lm_head.weight", &[128, 8]));
    let without = parts(&config());
    let mut with = without.clone();
    with.extend([head]);
    // (tie_word_embeddings, scale_decoder_outputs, head stored) to (tied, scaled).
    for (tie, scale, stored, expected) in [
        (json!(null), json!(null), false, (true, true)),
        (json!(true), json!(null), false, (true, true)),
        (json!(false), json!(null), true, (false, false)),
        (json!(true), json!(false), true, (false, false)), // as transformers 5 writes an untied model
        (json!(true), json!(true), false, (true, true)),
        (json!(true), json!(null), true, (false, true)), // a tied model that stores its head all the same
        (json!(false), json!(null), false, (true, false)),
        (json!(false), json!(true), true, (false, true)),
    ] {
        let config = config_with(json!({"tie_word_embeddings": tie, "scale_decoder_outputs": scale}));
        let checkpoint = open(&config, if stored { &with } else { &without }).unwrap();
        let found = (checkpoint.config.tie_word_embeddings, checkpoint.config.scale_decoder_outputs);
        assert_eq!(found, expected, "{config}");
        assert_eq!(checkpoint.tensor("lm_head.weight").is_some(), stored);
    }
}

// Embeddings.

#[test]
fn the_embedding_has_three_names() {
    let config = config_with(json!({"tie_word_embeddings": false}));
    let mut parts = parts(&config);
    let embedding = parts.remove("shared.weight").unwrap();
    for name in schema::EMBEDDING_ALIASES {
        let mut parts = parts.clone();
        parts.insert(name.to_owned(), embedding.clone());
        let checkpoint = open(&config, &parts).unwrap();
        let tensor = checkpoint.tensor("shared.weight").unwrap();
        assert_eq!((&tensor.name[..], &tensor.data[..]), ("shared.weight", &embedding.data[..]), "{name}");
        assert!(checkpoint.tensor("lm_head.weight").is_some());
        assert_eq!(checkpoint.notes, [NO_TOKENIZER]);
    }
    refused(&config, &parts, &["tensor shared.weight: expected a tensor of shape [128, 8], found none"]);
    for name in schema::EMBEDDING_ALIASES {
        parts.insert(name.to_owned(), embedding.clone());
    }
    assert!(open(&config, &parts).is_ok(), "three equal ones");
    parts.get_mut("decoder.embed_tokens.weight").unwrap().data[9] ^= 1;
    refused(
        &config,
        &parts,
        &["tensor decoder.embed_tokens.weight", "the same values as shared.weight", "not supported"],
    );
}

// Bias tables.

#[test]
fn a_bias_table_in_every_block_is_known_by_the_tensors() {
    let per_block = config_with(json!({"model_type": "umt5"}));
    let tables = parts(&per_block);
    for model_type in ["umt5", "t5"] {
        let checkpoint = open(&config_with(json!({"model_type": model_type})), &tables).unwrap();
        assert!(checkpoint.config.relative_bias_per_block);
        assert_eq!(checkpoint.tensors().count(), tables.len());
    }
    assert!(!open(&per_block, &parts(&config())).unwrap().config.relative_bias_per_block);
    let mut partial = tables;
    let missing = "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
    partial.remove(missing);
    refused(&config(), &partial, &[missing, "expected a tensor of shape [8, 2], found none"]);
}

#[test]
fn the_left_over_cross_attention_table_is_skipped_silently_and_the_unknown_is_noted() {
    let mut parts = parts(&config());
    let table = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    parts.insert(table.to_owned(), part(table, &[8, 2]));
    assert_eq!(open(&config(), &parts).unwrap().notes, [NO_TOKENIZER]);
    parts.insert("classifier.weight".to_owned(), part("c", &[2, 8]));
    parts.insert("steps".to_owned(), Part { dtype: "I64", shape: vec![], data: vec![0; 8] });
    let notes = open(&config(), &parts).unwrap().notes;
    assert_eq!(notes[0], "unknown tensors are not used: classifier.weight, steps");
    for i in 0..9 {
        parts.insert(format!("extra.{i}"), part("e", &[1]));
    }
    let notes = open(&config(), &parts).unwrap().notes;
    assert_eq!(notes[0], "unknown tensors are not used: classifier.weight, extra.0, extra.1, and 8 more");
}

// Shapes of models.

#[test]
fn stacks_of_different_depth_are_opened() {
    let config = config_with(json!({"num_layers": 1, "num_decoder_layers": 3}));
    assert_eq!(open(&config, &parts(&config)).unwrap().tensors().count(), (8 + 1) + (3 * 13 + 1) + 3);
    let config = config_with(json!({"num_layers": 3, "num_decoder_layers": 1, "feed_forward_proj": "gated-silu"}));
    assert_eq!(open(&config, &parts(&config)).unwrap().tensors().count(), (3 * 9 + 1) + (14 + 1) + 3);
}

#[test]
fn encoders_are_opened_from_encoders_and_from_whole_models() {
    let encoder = config_with(json!({"architectures": ["T5EncoderModel"], "is_encoder_decoder": false}));
    let alone = open(&encoder, &parts(&encoder)).unwrap();
    assert_eq!(alone.tensors().count(), 2 * 8 + 3);
    assert!(alone.config.is_encoder_only() && alone.config.tie_word_embeddings);
    assert_eq!(alone.notes, [NO_TOKENIZER]);

    let mut whole = parts(&config());
    whole.insert("lm_head.weight".to_owned(), part("lm_head.weight", &[128, 8]));
    // The decoder's embedding is none of the encoder's business, even a different one.
    whole.insert("decoder.embed_tokens.weight".to_owned(), part("other", &[128, 8]));
    let checkpoint = open(&encoder, &whole).unwrap();
    assert_eq!(checkpoint.tensors().count(), 2 * 8 + 3);
    assert_eq!(checkpoint.notes[0], "an encoder-only model: 30 tensors of a decoder are not used");
}

// Tensors that are wrong.

#[test]
fn missing_and_misshapen_tensors_are_refused() {
    let good = parts(&config());
    for name in good.keys() {
        let mut parts = good.clone();
        let part = parts.remove(name).unwrap();
        refused(
            &config(),
            &parts,
            &[&format!("model.safetensors: tensor {name}: expected a tensor of shape {:?}, found none", part.shape)],
        );
        parts.insert(name.clone(), Part { shape: [part.shape.clone(), vec![1]].concat(), ..part.clone() });
        let error = format!("tensor {name}: expected shape {:?}, found", part.shape);
        refused(&config(), &parts, &[&error]);
        parts.insert(name.clone(), Part { dtype: "I32", ..part });
        refused(&config(), &parts, &[&format!("tensor {name}: expected numbers of type F32, F16 or BF16, found I32")]);
    }
}

#[test]
fn a_matrix_of_the_wrong_shape_says_both_shapes() {
    let name = "encoder.block.1.layer.1.DenseReluDense.wi.weight";
    let mut parts = parts(&config());
    parts.insert(name.to_owned(), part(name, &[8, 16]));
    refused(&config(), &parts, &[name, "expected shape [16, 8], found [8, 16]"]);
}

// The container.

fn open_bytes(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    Checkpoint::open(folder.path()).map(|_| ()).map_err(|error| error.to_string())
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn damaged_safetensors_files_are_refused() {
    for (bytes, expected) in [
        (vec![1; 7], "expected at least 8 bytes, found 7"),
        (u64::MAX.to_le_bytes().to_vec(), "expected a header of 18446744073709551615 bytes in 8"),
        (with_header("{\"a\":", 0), "its header cannot be read"),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7),
            "expected 8 bytes of tensor data, found 7",
        ),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9),
            "expected 8 bytes of tensor data, found 9",
        ),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            "its header cannot be read: invalid shape",
        ),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
            "its header cannot be read: invalid offset for tensor `a`",
        ),
        (with_header(r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8), "unknown variant `F33`"),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            "its header cannot be read: overflow",
        ),
        // Sizes that fit each by itself and not together.
        (
            with_header(
                r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
                0,
            ),
            "expected 2305843009213693951 bytes of tensor data, found 0",
        ),
    ] {
        let error = open_bytes(&bytes).unwrap_err();
        assert!(error.contains("model.safetensors: ") && error.contains(expected), "expected {expected:?} in: {error}");
    }
}

#[test]
fn sums_of_sizes_that_overflow_are_refused() {
    // Eight tensors of 2^61 - 1 bytes end just below 2^64; adding the header to that must not wrap around.
    let size = (1u64 << 61) - 1;
    let mut entries: Vec<String> = (0..8)
        .map(|i| {
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{}]}}"#, i * size, (i + 1) * size)
        })
        .collect();
    entries.push(format!(r#""t8":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#, 8 * size, 8 * size + 7));
    let error = open_bytes(&with_header(&format!("{{{}}}", entries.join(",")), 0)).unwrap_err();
    assert!(error.contains("bytes of tensor data, found 0"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = safetensors(&parts(&config()));
    let mut state = 1u32;
    for _ in 0..200 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let end = (state >> 8) as usize % bytes.len();
        let error = open_bytes(&bytes[..end]).unwrap_err();
        assert!(error.contains("model.safetensors: "), "{error}");
    }
}

// Several files.

/// Writes the model over two files and the given index.
fn open_sharded(index: impl Fn(&Parts) -> Value) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(&config());
    let (first, second): (Parts, Parts) = parts.clone().into_iter().partition(|(name, _)| name.starts_with("dec"));
    std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    std::fs::write(folder.path().join("model-00001-of-00002.safetensors"), safetensors(&first)).unwrap();
    std::fs::write(folder.path().join("model-00002-of-00002.safetensors"), safetensors(&second)).unwrap();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index(&parts).to_string()).unwrap();
    Checkpoint::open(folder.path()).map_err(|error| error.to_string())
}

fn weight_map(parts: &Parts) -> serde_json::Map<String, Value> {
    let shard =
        |name: &str| json!(format!("model-0000{}-of-00002.safetensors", if name.starts_with("dec") { 1 } else { 2 }));
    parts.keys().map(|name| (name.clone(), shard(name))).collect()
}

#[test]
fn sharded_checkpoints_are_opened() {
    let checkpoint =
        open_sharded(|parts| json!({"metadata": {"total_size": 1}, "weight_map": weight_map(parts)})).unwrap();
    let expected = parts(&config());
    assert_eq!(checkpoint.tensors().count(), expected.len());
    for (spec, tensor) in checkpoint.tensors() {
        assert_eq!(&*tensor.data, expected[&spec.hf_name].data);
        let shard = if spec.hf_name.starts_with("dec") { "model-00001-of-00002" } else { "model-00002-of-00002" };
        assert!(tensor.file.contains(shard));
    }
}

#[test]
fn faults_of_an_index_are_refused() {
    let norm = "encoder.final_layer_norm.weight";
    let with = |name: &'static str, shard: &'static str| {
        open_sharded(move |parts| {
            let mut map = weight_map(parts);
            map.insert(name.to_owned(), json!(shard));
            json!({"weight_map": map})
        })
        .map(|_| ())
        .unwrap_err()
    };
    let error = with(norm, "model-00001-of-00002.safetensors");
    assert!(
        error.contains(&format!("tensor {norm}: expected it in model-00001-of-00002.safetensors, found nothing")),
        "{error}"
    );
    let error = with(norm, "model-00003-of-00002.safetensors");
    assert!(error.contains("model-00003-of-00002.safetensors: No such file"), "{error}");
    for outside in ["../model-00001-of-00002.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""] {
        let error = with(norm, outside);
        let expected = format!("tensor {norm}: expected the name of a file in the same folder, found {outside:?}");
        assert!(error.contains(&expected), "{error}");
    }
    for index in [json!({}), json!([]), json!(null), json!({"weight_map": {"a": 1}}), json!({"weight_map": []})] {
        let error = open_sharded(|_| index.clone()).map(|_| ()).unwrap_err();
        assert!(error.contains("index.json: expected a weight_map from tensor to file name"), "{error}");
    }
    let error = open_sharded(|parts| {
        let mut map = weight_map(parts);
        map.remove(norm);
        json!({"weight_map": map})
    });
    let error = error.map(|_| ()).unwrap_err();
    assert!(
        error.contains(&format!(
            "model.safetensors.index.json: tensor {norm}: expected a tensor of shape [8], found none"
        )),
        "{error}"
    );
}
