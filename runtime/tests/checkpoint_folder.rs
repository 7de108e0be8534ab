//! Hugging Face folders and safetensors files: what is accepted, and every way they can be wrong.

// The largest `json!` of these tests has more keys than the macro's default depth.
#![recursion_limit = "256"]

mod common;

use std::path::Path;

use common::tiny::{Part, Parts, config, config_with, part, parts, safetensors, write_folder};
use serde_json::{Value, json};
use t5_runtime::checkpoint::{Checkpoint, llama_cpp};
use t5_runtime::config::T5Config;
use t5_runtime::generate::{EarlyStopping, GenerationDefaults, Settings, Task};
use t5_runtime::gguf;
use t5_runtime::schema;
use t5_runtime::tensor::DType;
use t5_runtime::tokenizer::{Tokenizer, Vocabulary};
use tempfile::TempDir;

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
    // Without one, shapes say all but a few numbers.
    let alone = Checkpoint::open(&path).unwrap();
    assert!(alone.notes[0].contains("no config.json, so the tensors say what it is: t5, "), "{:?}", alone.notes);
    let beside = folder.path().join("config.json");
    std::fs::write(&beside, config().to_string()).unwrap();
    let with = Checkpoint::open(&path).unwrap();
    assert_eq!(with.notes, [NO_TOKENIZER]);
    assert_eq!(T5Config { relative_attention_max_distance: 16, ..alone.config.clone() }, with.config);
    // An image model's configuration is none.
    std::fs::write(&beside, json!({"_class_name": "FluxTransformer2DModel", "num_layers": 19}).to_string()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().config, alone.config);
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
    assert!(error("").contains("not a model: expected config.json and model.safetensors in this folder"));
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
        &[
            "tensor shared.weight: expected shape [128, 512], found [128, 8]; ",
            "config.json does not say d_model, so the transformers library's default counts",
        ],
    );
    // The default may be right.
    let wide = config_with(json!({"d_model": 512, "num_heads": 8, "num_layers": 1}));
    let left_out = config_with(json!({"d_model": null, "num_heads": null, "num_layers": 1}));
    assert_eq!(open(&left_out, &common::tiny::parts(&wide)).unwrap().config.inner_dim(), 24);
    refused(
        &config_with(json!({"model_type": "longt5"})),
        &parts,
        &["found longt5: LongT5 attends within windows; the transformers library runs it"],
    );
    refused(&config_with(json!({"model_type": "bart"})), &parts, &["config.json: model_type", "found bart"]);
    refused(&config_with(json!({"num_layers": 5000})), &parts, &["num_layers: expected 1 to 1024, found 5000"]);
    refused(&config_with(json!({"d_kv": -1})), &parts, &["d_kv: expected a whole number, found -1"]);
    refused(&config_with(json!({"eos_token_id": 128})), &parts, &["eos_token_id: expected an id below 128, found 128"]);
    refused(&json!([1]), &parts, &["config.json"]);
}

/// The answer of the whole file, since values and shapes follow from it.
#[test]
fn keys_that_change_values_are_obeyed_or_named() {
    let opened = |changes: Value| {
        let config = config_with(changes);
        open(&config, &parts(&config)).unwrap_or_else(|error| panic!("{error}"))
    };
    for (changes, expected) in [
        (json!({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": true}), "gated-gelu"),
        // transformers derives the two from feed_forward_proj only where the file is silent.
        (json!({"feed_forward_proj": "gated-gelu", "dense_act_fn": "silu"}), "gated-silu"),
        (json!({"feed_forward_proj": "gated-gelu", "is_gated_act": false}), "gelu_new"),
        (json!({"feed_forward_proj": "relu", "is_gated_act": true}), "gated-relu"),
        (json!({"dense_act_fn": "gelu_pytorch_tanh"}), "gelu_new"),
        (json!({"feed_forward_proj": "gelu"}), "gelu"),
        (json!({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}), "gated-gelu_python"),
        // What the class of the family assumes.
        (json!({"model_type": "mt5"}), "gated-gelu"),
        (json!({"model_type": "umt5"}), "gated-gelu"),
        (json!({}), "relu"),
    ] {
        assert_eq!(opened(changes.clone()).config.feed_forward.name(), expected, "{changes}");
    }
    for (changes, expected) in [
        (json!({"decoder_start_token_id": 5, "bos_token_id": 7}), 5),
        (json!({"bos_token_id": 7, "pad_token_id": 3}), 7),
        (json!({"pad_token_id": 3}), 3),
        (json!({}), 0),
    ] {
        assert_eq!(opened(changes.clone()).config.decoder_start_token_id, expected, "{changes}");
    }
    // Other names of the sizes.
    let renamed = json!({"d_model": null, "hidden_size": 8, "num_heads": null, "num_attention_heads": 2,
        "num_layers": null, "num_hidden_layers": 2, "d_kv": null, "head_dim": 3});
    assert_eq!(opened(renamed).config, opened(json!({})).config);
    refused(
        &config_with(json!({"hidden_size": 9})),
        &parts(&config()),
        &["config.json: hidden_size: expected 8, as d_model says the same in other words, found 9"],
    );
    refused(
        &config_with(json!({"dense_act_fn": "tanh"})),
        &parts(&config()),
        &["config.json: dense_act_fn: expected relu, gelu, gelu_new or silu, found tanh"],
    );

    for (changes, expected) in [
        (json!({"tie_encoder_decoder": true}), "config.json: tie_encoder_decoder is not obeyed"),
        (json!({"pruned_heads": {"0": [1]}}), "config.json: pruned_heads is not obeyed"),
        (json!({"quantization_config": {"load_in_8bit": true}}), "config.json: quantization_config is not obeyed"),
        (json!({"prefix": "summarize: "}), "config.json: prefix is not obeyed"),
    ] {
        let checkpoint = opened(changes);
        for notes in [checkpoint.notes, checkpoint.not_obeyed] {
            assert!(notes.iter().any(|note| note.contains(expected)), "expected {expected:?} in {notes:?}");
        }
    }
    let silent = json!({
        "tie_encoder_decoder": false, "pruned_heads": {}, "prefix": "", "torch_dtype": "float16", "use_cache": false
    });
    assert_eq!(opened(silent).notes, [NO_TOKENIZER]);
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
fn sentinels_of_bytes_have_the_ids_that_a_file_gives_them() {
    let config = config_with(json!({"vocab_size": 384, "tokenizer_class": "ByT5Tokenizer"}));
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), &config, &parts(&config));
    let write = |name: &str, json: &Value| std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    let open = || Checkpoint::open(folder.path()).map_err(|error| error.to_string());
    let tokenizer = || Tokenizer::new("test", &open().unwrap().vocabulary.unwrap()).unwrap();
    let text = "a<extra_id_0>b<extra_id_2>";

    let published = tokenizer();
    assert_eq!(published.encode(text), [100, 258, 101, 256, 1]);

    // As transformers saves the tokenizer: <extra_id_0> is 259, and so on upwards.
    let ids: serde_json::Map<String, Value> = (0..125).map(|n| (format!("<extra_id_{n}>"), json!(259 + n))).collect();
    write("added_tokens.json", &json!(ids));
    let check = |tokenizer: Tokenizer| {
        assert_eq!(tokenizer.encode(text), [100, 259, 101, 261, 1]);
        assert_eq!(tokenizer.decode(&[100, 259, 101, 261, 1], false), format!("{text}</s>"));
        assert_eq!(tokenizer.decode(&[100, 259, 101, 261, 1], true), "ab");
        assert_eq!(tokenizer.vocab_size(), 384);
        assert_eq!((tokenizer.sentinel_id(124), tokenizer.id_of("<extra_id_124>")), (Some(383), Some(383)));
        assert_eq!((tokenizer.piece(383), tokenizer.piece(258)), (Some("<extra_id_124>"), Some("<0xFF>")));
        assert!(tokenizer.is_special(300) && !tokenizer.is_special(258));
    };
    check(tokenizer());
    std::fs::remove_file(folder.path().join("added_tokens.json")).unwrap();
    let decoder: serde_json::Map<String, Value> = (ids.iter())
        .map(|(name, id)| (id.to_string(), json!({"content": name, "special": true})))
        .chain([("0".to_owned(), json!({"content": "<pad>"}))])
        .collect();
    write("tokenizer_config.json", &json!({"added_tokens_decoder": decoder}));
    check(tokenizer());

    write("tokenizer_config.json", &json!({"added_tokens_decoder": {"258": {"content": "<extra_id_0>"}}}));
    let plain = open().unwrap();
    assert_eq!((plain.vocabulary, plain.not_obeyed), (Some(Vocabulary::bytes(384)), vec![]));
    // Bytes have no place for others.
    let others = json!({"258": {"content": "<extra_id_0>"}, "259": {"content": "<a>"}, "260": {"content": "<b>"}});
    write("tokenizer_config.json", &json!({"added_tokens_decoder": others}));
    let others = open().unwrap();
    assert_eq!(others.vocabulary, Some(Vocabulary::bytes(384)));
    let note = "tokenizer_config.json: added tokens are not obeyed, they are read byte by byte: <a>, <b>";
    assert!(others.not_obeyed.len() == 1 && others.not_obeyed[0].ends_with(note), "{:?}", others.not_obeyed);
    assert_eq!(others.notes, others.not_obeyed);
    for id in ["257", "300", "-1"] {
        write("tokenizer_config.json", &json!({"added_tokens_decoder": {id: {"content": "<extra_id_0>"}}}));
        let error = open().map(|_| ()).unwrap_err();
        let expected = "tokenizer_config.json: tokenizer: expected <extra_id_n> to have the id 258 - n or 259 + n";
        assert!(error.contains(expected), "{error}");
    }
}

/// Opening a pipe would wait for a writer, and reading a device does not end.
#[cfg(unix)]
#[test]
fn what_is_there_and_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let pipe = |name: &str| {
        let _ = std::fs::remove_file(path(name));
        assert!(std::process::Command::new("mkfifo").arg(path(name)).status().unwrap().success());
    };
    let error = |path: &std::path::Path| Checkpoint::open(path).map(|_| ()).unwrap_err().to_string();
    for name in ["pipe.gguf", "pipe.safetensors", "pipe"] {
        pipe(name);
        assert_eq!(error(&path(name)), format!("{}: expected a file, found a pipe", path(name).display()));
    }
    assert_eq!(error("/dev/null".as_ref()), "/dev/null: expected a file, found a device");
    let _listener = std::os::unix::net::UnixListener::bind(path("socket.gguf")).unwrap();
    assert!(error(&path("socket.gguf")).ends_with("socket.gguf: expected a file, found a socket"));

    // Files of a folder, and files that a file names.
    let model = path("model");
    std::fs::create_dir(&model).unwrap();
    write_folder(&model, &config(), &parts(&config()));
    for name in ["generation_config.json", "tokenizer.json", "config.json"] {
        pipe(&format!("model/{name}"));
        assert!(error(&model).ends_with(&format!("{name}: expected a file, found a pipe")), "{}", error(&model));
        std::fs::remove_file(model.join(name)).unwrap();
    }
    std::fs::write(model.join("config.json"), config().to_string()).unwrap();
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    std::fs::create_dir(model.join("shard.safetensors")).unwrap();
    let index = json!({"weight_map": {"shared.weight": "shard.safetensors"}});
    std::fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(error(&model).ends_with("shard.safetensors: expected a file, found a folder"), "{}", error(&model));
}

/// By what paths are, however they are spelled.
#[test]
fn a_checkpoint_knows_the_files_it_was_read_from() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), &config(), &parts(&config()));
    std::fs::write(folder.path().join("generation_config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("report.json"), "{}").unwrap();
    for opened in [folder.path().to_owned(), folder.path().join("model.safetensors")] {
        let checkpoint = Checkpoint::open(&opened).unwrap();
        for (name, expected) in [
            ("model.safetensors", true),
            ("./config.json", true),
            ("../{}/generation_config.json", true),
            ("report.json", false),
            ("absent.json", false),
        ] {
            let base = folder.path().file_name().unwrap().to_string_lossy();
            let path = folder.path().join(name.replace("{}", &base));
            assert_eq!(checkpoint.reads(&path), expected, "{}", path.display());
        }
    }
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

/// A folder of a model with so many rows, and a SentencePiece model of 216 pieces.
fn with_pieces(rows: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(json!({"vocab_size": rows}));
    write_folder(folder.path(), &config, &parts(&config));
    std::fs::write(folder.path().join("spiece.model"), include_bytes!("tokenizer/small.model")).unwrap();
    folder
}

/// Tokens that were added to a SentencePiece model, as transformers 4 saves them, and the ids that the library's
/// T5Tokenizer (5.24) gives: what is normalised is looked for behind the character map, `lstrip` and `rstrip` swallow
/// spaces, and a word behind a token begins as any other.
#[test]
fn tokens_that_other_files_add_to_a_sentencepiece_model_have_their_ids() {
    let folder = with_pieces(256);
    let write = |name: &str, json: &Value| std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    let open = || Checkpoint::open(folder.path()).map_err(|error| error.to_string());
    let tokenizer = || Tokenizer::new("test", &open().unwrap().vocabulary.unwrap()).unwrap();
    let check = |cases: &[(&str, &[u32])]| {
        let tokenizer = tokenizer();
        cases.iter().for_each(|(text, ids)| assert_eq!(tokenizer.encode(text), *ids, "{text}"));
    };
    let plain: [(&str, &[u32]); 4] = [
        ("a {b} c", &[12, 236, 103, 237, 76, 1]),
        ("a{b}c", &[12, 236, 103, 237, 76, 1]),
        ("{ }", &[236, 237, 1]),
        ("a <extra_id_0>{<extra_id_1> b", &[12, 235, 236, 234, 103, 1]),
    ];

    // 216 pieces and 20 sentinels; then all that there is to say of each.
    let token = |content: &str, flags: &[&str]| {
        let mut token = json!({"content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false});
        flags.iter().for_each(|flag| token[*flag] = true.into());
        token
    };
    let mut decoder = json!({
        "0": token("<pad>", &["special"]), "1": token("</s>", &["special"]), "2": token("<unk>", &["special"]),
        "13": token("er", &["normalized"]), "236": token("{", &["normalized"]), "237": token("}", &["normalized"]),
        "238": token("<l>", &["lstrip"]), "239": token("<r>", &["rstrip"]), "240": token("ﬁx", &["normalized"]),
        "241": token("<sep>", &["special"])
    });
    for n in 0..20 {
        let sentinel = token(&format!("<extra_id_{n}>"), &["lstrip", "rstrip", "special"]);
        decoder[(235 - n).to_string()] = sentinel;
    }
    let with = |decoder: &Value| json!({"extra_ids": 20, "added_tokens_decoder": decoder});
    write("tokenizer_config.json", &with(&decoder));
    check(&plain);
    check(&[
        ("the roses <l> the <r> boat", &[22, 4, 3, 61, 8, 238, 22, 4, 239, 107, 72, 1]),
        ("the<l>the<r>the", &[22, 4, 238, 22, 4, 239, 22, 4, 1]),
        ("ﬁx fix it", &[240, 240, 3, 147, 1]),
        ("the garden<sep>er", &[22, 4, 124, 120, 34, 241, 13, 1]),
        ("Hi <extra_id_0> there", &[3, 168, 33, 235, 22, 13, 3, 4, 1]),
        ("over water", &[135, 155, 13, 180, 72, 13, 1]),
    ]);
    let all = tokenizer();
    assert_eq!(all.decode(&[12, 236, 103, 237, 241, 235, 1], true), "a{ b}");
    assert!(all.is_special(241) && all.is_special(235) && all.is_special(2) && !all.is_special(236));
    // What cannot be is left out: a piece of another name, a gap, what is no word of its own, more tokens than rows.
    for (id, token, expected) in [
        ("5", token("<x>", &[]), "\"<x>\" (id 5): the model has \"r\" at this id"),
        ("243", token("<x>", &[]), "\"<x>\" (id 243): there are only 242 ids before it"),
        ("242", token("<x>", &["single_word"]), "\"<x>\" (id 242): single_word is not supported"),
        ("256", token("<x>", &[]), "\"<x>\" (id 256): the embedding has 256 rows"),
    ] {
        let mut wrong = decoder.clone();
        wrong[id] = token;
        write("tokenizer_config.json", &with(&wrong));
        assert_eq!(
            left_out(&open().unwrap()),
            [format!("tokenizer_config.json: added tokens are left out: {expected}")]
        );
        assert!(tokenizer().encode("<sep>") == [241, 1] && tokenizer().vocab_size() == 242, "{expected}");
    }
    let mut many = decoder.clone();
    (243..253).for_each(|id| many[id.to_string()] = token(&format!("<{id}>"), &[]));
    write("tokenizer_config.json", &with(&many));
    assert!(
        left_out(&open().unwrap())[0].ends_with("\"<245>\" (id 245): there are only 242 ids before it; and 7 more")
    );

    // A decoder is the whole list.
    write("tokenizer_config.json", &with(&decoder));
    write("added_tokens.json", &json!({"<old>": 242}));
    assert_eq!((tokenizer().vocab_size(), left_out(&open().unwrap())), (242, vec![]));

    // As before there was `added_tokens_decoder`: ids alone, and which are special in a file of its own.
    write("tokenizer_config.json", &json!({"extra_ids": 20}));
    write("added_tokens.json", &json!({"{": 236, "}": 237, "<sep>": 238}));
    write("special_tokens_map.json", &json!({"eos_token": "</s>", "additional_special_tokens": ["<sep>"]}));
    check(&plain);
    check(&[("the garden<sep>er", &[22, 4, 124, 120, 34, 238, 3, 13, 1])]);
    check(&[("Hi <extra_id_0> there", &[3, 168, 33, 235, 22, 13, 4, 1])]);
    assert!(tokenizer().is_special(238) && !tokenizer().is_special(236));
}

/// What a checkpoint says of tokens that are left out, by the file's name alone.
fn left_out(checkpoint: &Checkpoint) -> Vec<String> {
    let notes =
        checkpoint.not_obeyed.iter().map(|note| note.rsplit_once(['/', '\\']).map_or(&**note, |(_, note)| note));
    assert_eq!(checkpoint.notes, checkpoint.not_obeyed);
    notes.map(str::to_owned).collect()
}

/// The usual sentinels are a guess that such a list beats.
#[test]
fn a_list_that_begins_behind_the_pieces_gives_the_sentinels_their_ids() {
    let folder = with_pieces(344);
    let encoded = |config: Value| {
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(left_out(&checkpoint), [""; 0]);
        Tokenizer::new("test", &checkpoint.vocabulary.unwrap()).unwrap().encode("<extra_id_0><sep><extra_id_99>")
    };
    let ascending = |first: u32| {
        let token = |n: u32| ((first + n).to_string(), json!({"content": format!("<extra_id_{n}>"), "special": true}));
        (0..100).map(token).collect::<serde_json::Map<_, _>>()
    };
    // 216 pieces.
    let mut behind = ascending(217);
    behind.insert("216".to_owned(), json!({"content": "<sep>", "special": true}));
    assert_eq!(encoded(json!({"extra_ids": 100, "added_tokens_decoder": behind})), [217, 216, 316, 1]);
    let mut before = ascending(216);
    before.insert("316".to_owned(), json!({"content": "<sep>", "special": true}));
    assert_eq!(encoded(json!({"extra_ids": 100, "added_tokens_decoder": before})), [216, 316, 315, 1]);
    // One token alone: there is no room for sentinels.
    let alone = encoded(json!({"added_tokens_decoder": {"216": {"content": "<sep>"}}}));
    assert!(alone.contains(&216) && alone.iter().all(|&id| id <= 216), "{alone:?}");
}

/// Those of mT5 are pieces; whatever a list says of them, the ids of the pieces are what pre-training knew.
#[test]
fn sentinels_in_a_sentencepiece_model_keep_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    // 216 pieces and three more: field 1 of the model with the fields text, score and type (user defined).
    let mut model = include_bytes!("tokenizer/small.model").to_vec();
    for n in (0..3).rev() {
        let text = format!("▁<extra_id_{n}>");
        let piece = [&[10, text.len() as u8], text.as_bytes(), &[21, 0, 0, 0, 0, 24, 4]].concat();
        model.extend([&[10, piece.len() as u8], &*piece].concat());
    }
    let token = |n: u32| ((221 - n).to_string(), json!({"content": format!("<extra_id_{n}>"), "special": true}));
    let listed: serde_json::Map<_, _> = (0..3).map(token).collect();
    let said = json!({"extra_ids": 3, "added_tokens_decoder": listed});
    for rows in [220, 240] {
        let config = config_with(json!({"vocab_size": rows}));
        write_folder(folder.path(), &config, &parts(&config));
        std::fs::write(folder.path().join("spiece.model"), &model).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), said.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(left_out(&checkpoint), [""; 0]);
        let tokenizer = Tokenizer::new("test", &checkpoint.vocabulary.unwrap()).unwrap();
        assert_eq!(tokenizer.encode("<extra_id_0><extra_id_2>"), [218, 216, 1]);
    }
}

/// Of the tokens left out those of the tokenizer in use are named.
#[test]
fn notes_of_a_tokenizer_come_and_go_with_it() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let config = config_with(json!({"vocab_size": 384}));
    for (folder, token) in folders.iter().zip(["<a>", "<b>"]) {
        write_folder(folder.path(), &config, &parts(&config));
        let said = json!({"tokenizer_class": "ByT5Tokenizer", "added_tokens_decoder": {"259": {"content": token}}});
        std::fs::write(folder.path().join("tokenizer_config.json"), said.to_string()).unwrap();
    }
    let mut checkpoint = Checkpoint::open(folders[0].path()).unwrap();
    let note = |token: &str| format!("{TOKENS_OF_BYTES}: {token}");
    assert_eq!(left_out(&checkpoint), [note("<a>")]);
    checkpoint.replace_tokenizer(folders[1].path()).unwrap();
    assert_eq!(left_out(&checkpoint), [note("<b>")]);
    // A GGUF file keeps the name of the file, not the path.
    let value = llama_cpp::more_metadata(&checkpoint).remove(0).1;
    let gguf::Value::Array(array) = value else { panic!("expected an array, found {value:?}") };
    assert_eq!(array.strings().unwrap().collect::<Vec<_>>(), [note("<b>")]);
    std::fs::write(folders[1].path().join("spiece.model"), include_bytes!("tokenizer/small.model")).unwrap();
    checkpoint.replace_tokenizer(&folders[1].path().join("spiece.model")).unwrap();
    assert_eq!(left_out(&checkpoint), [""; 0]);
}

/// How a note on the tokens that bytes have no place for begins.
const TOKENS_OF_BYTES: &str = "tokenizer_config.json: added tokens are not obeyed, they are read byte by byte";

/// A setting of a task that is not obeyed, as messages name it.
const MAX_TIME: &str = "task_specific_params.summarization.max_time 2.0";

/// A folder whose config.json has settings and tasks, as old checkpoints do.
fn folder_with_tasks() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(json!({"max_length": 77, "stop_strings": ["."], "task_specific_params": {
        "summarization": {"prefix": "summarize: ", "num_beams": 4, "max_time": 2.0},
        "translation": {"prefix": "translate English to German: "},
        "nothing": {"max_length": 3}
    }}));
    write_folder(folder.path(), &config, &parts(&config));
    folder
}

/// Its tasks as they are read.
fn tasks() -> Vec<Task> {
    let task = |name: &str, prefix: &str, settings: Settings| Task {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        settings,
    };
    vec![
        task("nothing", "", Settings { max_length: Some(3), ..Settings::default() }),
        task("summarization", "summarize: ", Settings { num_beams: Some(4), ..Settings::default() }),
        task("translation", "translate English to German: ", Settings::default()),
    ]
}

fn generation(folder: &Path) -> Result<(GenerationDefaults, Vec<String>), String> {
    Checkpoint::open(folder).map(|c| (c.generation, c.notes)).map_err(|e| e.to_string())
}

#[test]
fn old_checkpoints_keep_generation_defaults_in_their_configuration() {
    let folder = folder_with_tasks();
    let (defaults, notes) = generation(folder.path()).unwrap();
    let old = GenerationDefaults {
        settings: Settings { max_length: Some(77), ..Settings::default() },
        tasks: tasks(),
        not_obeyed: vec!["stop_strings [\".\"]".to_owned(), MAX_TIME.to_owned()],
    };
    assert_eq!(defaults, old);
    let note = "settings of the checkpoint's generation that are not obeyed: stop_strings [\".\"], ";
    assert!(notes.contains(&format!("{note}{MAX_TIME}")), "{notes:?}");
}

/// A generation_config.json with every setting, those that nothing obeys among them.
fn every_setting() -> Value {
    json!({
        "max_new_tokens": 50, "min_length": 2, "min_new_tokens": 3, "do_sample": false, "num_beams": 4,
        "num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 0.6, "early_stopping": "never",
        "num_return_sequences": 2, "temperature": 0.75, "top_k": 40, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.125,
        "epsilon_cutoff": 0.0625, "eta_cutoff": 0.03125, "top_h": 0.375, "repetition_penalty": 1.5,
        "encoder_repetition_penalty": 1.25, "no_repeat_ngram_size": 3, "encoder_no_repeat_ngram_size": 5,
        "bad_words_ids": [[5, 6], [7]], "sequence_bias": [[[8, 9], -2.5]], "suppress_tokens": [7],
        "begin_suppress_tokens": [3], "forced_bos_token_id": 27, "forced_eos_token_id": 1,
        "exponential_decay_length_penalty": [20, 1.5], "renormalize_logits": true, "remove_invalid_values": true,
        "decoder_start_token_id": 2, "eos_token_id": [1, 5], "split_sentences": true,
        "spell_words": false, "alignment_heads": [[1, 2]], "alignment_reading": false,
        // What asks for nothing, and what has no effect.
        "max_length": null, "transformers_version": "5", "use_cache": false, "guidance_scale": 1, "penalty_alpha": 0.0,
        "constraints": null, "force_words_ids": [], "token_healing": false, "pad_token_id": 0,
        // What is not obeyed, known or not.
        "guidance_scale_": 1.5, "dola_layers": "high",
        "watermarking_config": {"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": 5},
    })
}

/// What is read of it.
fn every_setting_read() -> Settings {
    Settings {
        max_new_tokens: Some(50),
        max_length: None,
        min_new_tokens: Some(3),
        min_length: Some(2),
        do_sample: Some(false),
        num_beams: Some(4),
        num_beam_groups: Some(2),
        diversity_penalty: Some(0.5),
        length_penalty: Some(0.6),
        early_stopping: Some(EarlyStopping::Never),
        num_return_sequences: Some(2),
        temperature: Some(0.75),
        top_k: Some(40),
        top_p: Some(0.5),
        min_p: Some(0.25),
        typical_p: Some(0.125),
        epsilon_cutoff: Some(0.0625),
        eta_cutoff: Some(0.03125),
        top_h: Some(0.375),
        repetition_penalty: Some(1.5),
        encoder_repetition_penalty: Some(1.25),
        no_repeat_ngram_size: Some(3),
        encoder_no_repeat_ngram_size: Some(5),
        bad_words_ids: Some(vec![vec![5, 6], vec![7]]),
        sequence_bias: Some(vec![(vec![8, 9], -2.5)]),
        suppress_tokens: Some(vec![7]),
        begin_suppress_tokens: Some(vec![3]),
        forced_bos_token_id: Some(27),
        forced_eos_token_id: Some(vec![1]),
        exponential_decay_length_penalty: Some((20, 1.5)),
        renormalize_logits: Some(true),
        remove_invalid_values: Some(true),
        decoder_start_token_id: Some(2),
        eos_token_id: Some(vec![1, 5]),
        split_sentences: Some(true),
        spell_words: Some(false),
        alignment_heads: Some(vec![vec![1, 2]]),
        alignment_reading: Some(false),
    }
}

#[test]
fn generation_defaults_come_from_generation_config() {
    let folder = folder_with_tasks();
    std::fs::write(folder.path().join("generation_config.json"), every_setting().to_string()).unwrap();
    let (defaults, notes) = generation(folder.path()).unwrap();
    assert_eq!((defaults.settings, defaults.tasks), (every_setting_read(), tasks()));
    let watermark = "watermarking_config {\"bias\":2.0,\"greenlist_ratio\":0.25,\"hash…";
    assert_eq!(defaults.not_obeyed, ["dola_layers \"high\"", "guidance_scale_ 1.5", watermark, MAX_TIME]);
    assert!(notes.iter().any(|note| note.contains("dola_layers \"high\", guidance_scale_ 1.5")), "{notes:?}");
}

#[test]
fn settings_of_a_wrong_type_are_refused_by_name() {
    let folder = folder_with_tasks();
    for (text, expected) in [
        (r#"{"num_beams": "four"}"#, "generation_config.json: num_beams: expected a whole number, found \"four\""),
        (r#"{"length_penalty": true}"#, "length_penalty: expected a number, found true"),
        (r#"{"length_penalty": 1e39}"#, "length_penalty: expected a number, found 1e+39"),
        (r#"{"eos_token_id": [1, -2]}"#, "eos_token_id: expected a token id or a list of them, found [1,-2]"),
        (r#"{"early_stopping": 1}"#, "early_stopping: expected true, false or \"never\", found 1"),
        (r#"{"bad_words_ids": [[]]}"#, "bad_words_ids: expected a list of lists of token ids, found [[]]"),
        ("[]", "generation_config.json: expected a JSON object, found another value"),
        ("{", "generation_config.json: expected a JSON object: "),
    ] {
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        let error = generation(folder.path()).unwrap_err();
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

/// transformers' mT5 never scales and so writes no key that says so; version 4 did scale a tied one.
#[test]
fn the_scale_of_a_family_without_the_key() {
    for (family, tie, version, expected) in [
        ("mt5", json!(true), json!("5.23.0"), false),
        ("mt5", json!(true), json!(null), false),
        ("mt5", json!(null), json!(null), false),
        ("mt5", json!(false), json!("4.57.3"), false),
        ("mt5", json!(true), json!("4.57.3"), true),
        ("umt5", json!(false), json!("4.57.3"), false),
        ("umt5", json!(true), json!("5.23.0"), true),
        ("t5", json!(true), json!("4.57.3"), true),
        ("t5", json!(null), json!(null), true),
        ("t5", json!(false), json!(null), false),
    ] {
        let changes = json!({"model_type": family, "tie_word_embeddings": tie, "transformers_version": version});
        let config = T5Config::from_json("config.json", &config_with(changes.clone()).to_string()).unwrap();
        assert_eq!(config.scale_decoder_outputs, expected, "{changes}");
        let changes = json!({"model_type": family, "tie_word_embeddings": tie, "scale_decoder_outputs": !expected});
        let config = T5Config::from_json("config.json", &config_with(changes.clone()).to_string()).unwrap();
        assert_eq!(config.scale_decoder_outputs, !expected, "{changes}");
    }
}

/// Where the words of the file do not fit what is stored, that is said.
#[test]
fn a_head_that_is_not_as_it_is_said_to_be_is_named() {
    let config = config_with(json!({"tie_word_embeddings": false}));
    let mut tensors = parts(&config);
    tensors.remove("lm_head.weight");
    let notes = open(&config, &tensors).unwrap().notes;
    assert!(notes[0].contains("tie_word_embeddings is false, but there is no lm_head.weight"), "{notes:?}");
    let config = config_with(json!({"model_type": "umt5", "tie_word_embeddings": false}));
    let tensors = parts(&config);
    let resaved = config_with(json!({"model_type": "umt5", "tie_word_embeddings": true}));
    let notes = open(&resaved, &tensors).unwrap().notes;
    assert!(notes[0].contains("as transformers 5 does with every umT5"), "{notes:?}");
    assert_eq!(open(&config, &tensors).unwrap().notes, [NO_TOKENIZER]);
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
        refused(
            &config(),
            &parts,
            &[&format!("tensor {name}: expected numbers of type F32, F16, BF16 or F8, found I32")],
        );
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
