//! GGUF checkpoints of both dialects: what is accepted, and every way they can be wrong (docs/gguf.md 8, items 12
//! to 18).

mod common;

use std::collections::BTreeMap;

use common::tiny::{Gguf, ROWS, Token, config, config_with, part, parts, tokens};
use common::{Raw, array, string, tensor};
use serde_json::{Value as Json, json};
use t5_runtime::checkpoint::{Checkpoint, llama_cpp};
use t5_runtime::config::T5Config;
use t5_runtime::generate::{EarlyStopping, GenerationDefaults, Settings, Task};
use t5_runtime::gguf::{File, TensorInfo, Value, Writer};
use t5_runtime::schema;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::tokenizer::{AddedToken, PieceKind, UnigramVocabulary, Vocabulary, Whitespace};

/// What a model with a name says of itself.
fn named(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("general.name".to_owned(), name.to_owned())])
}

fn open_bytes(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    Checkpoint::from_gguf("x.gguf", Bytes::from_vec(bytes)).map_err(|error| error.to_string())
}

fn open(file: &Gguf) -> Result<Checkpoint, String> {
    open_bytes(file.bytes())
}

fn tiny() -> Gguf {
    Gguf::new(&config())
}

/// Asserts that the tiny file, after `change`, is refused with a message that contains all of `expected`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Gguf), expected: &[&str]) {
    let mut file = tiny();
    change(&mut file);
    let error = open(&file).map(|_| ()).expect_err("the model should be refused");
    for part in ["x.gguf: "].iter().chain(expected) {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(!error.contains('\n'), "one sentence: {error}");
}

/// The tiny file after `change`.
#[track_caller]
fn changed(change: impl FnOnce(&mut Gguf)) -> Checkpoint {
    let mut file = tiny();
    change(&mut file);
    open(&file).unwrap()
}

fn unigram(checkpoint: Checkpoint) -> UnigramVocabulary {
    match checkpoint.vocabulary {
        Some(Vocabulary::Unigram(unigram)) => unigram,
        other => panic!("expected a Unigram vocabulary, found {other:?}"),
    }
}

// What the converter writes.

#[test]
fn a_file_of_the_converter_is_opened() {
    let file = tiny();
    let checkpoint = open(&file).unwrap();
    let expected = T5Config::from_json("config.json", &config().to_string()).unwrap();
    assert_eq!(checkpoint.config, T5Config { relative_attention_max_distance: 128, ..expected });
    assert_eq!(checkpoint.tensors().count(), file.tensors.len());
    for (spec, tensor) in checkpoint.tensors() {
        assert_eq!((&tensor.name, &tensor.shape), (&spec.hf_name, &spec.shape));
        assert_eq!(&*tensor.data, part(&spec.hf_name, &spec.shape).data);
    }
    assert_eq!(checkpoint.generation, GenerationDefaults::default());
    assert_eq!(checkpoint.notes, Vec::<String>::new());
    let vocabulary = unigram(checkpoint);
    assert_eq!(vocabulary.pieces.len(), ROWS - 8, "fillers are left out");
    assert_eq!((vocabulary.unk_id, vocabulary.eos_id, vocabulary.pad_id), (2, 1, 0));
    assert_eq!(vocabulary.added, [0, 1, 2].map(AddedToken::special));
    assert_eq!((vocabulary.charsmap, vocabulary.whitespace), (None, Whitespace::Split));
    assert!(vocabulary.add_dummy_prefix && vocabulary.legacy && !vocabulary.split_words && !vocabulary.byte_fallback);
}

#[test]
fn a_file_on_disk_is_opened_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "model"] {
        let path = folder.path().join(name);
        std::fs::write(&path, tiny().bytes()).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap().file, path.display().to_string());
    }
}

#[test]
fn families_are_told_apart_by_their_tensors() {
    for (changes, tied, scaled, per_block, model_type) in [
        (json!({}), true, true, false, "t5"),
        (json!({"tie_word_embeddings": false, "feed_forward_proj": "gated-gelu"}), false, false, false, "t5"),
        (
            json!({"model_type": "umt5", "tie_word_embeddings": false, "feed_forward_proj": "gated-gelu"}),
            false,
            false,
            true,
            "umt5",
        ),
        (json!({"num_layers": 1, "num_decoder_layers": 3}), true, true, false, "t5"),
        (json!({"num_layers": 3, "num_decoder_layers": 1, "d_kv": 7}), true, true, false, "t5"),
    ] {
        let json = config_with(changes);
        let checkpoint = open(&Gguf::new(&json)).unwrap();
        let expected = T5Config::from_json("config.json", &json.to_string()).unwrap();
        assert_eq!(checkpoint.config.feed_forward, expected.feed_forward, "{json}");
        assert_eq!(checkpoint.config.tie_word_embeddings, tied, "{json}");
        assert_eq!(checkpoint.config.scale_decoder_outputs, scaled, "{json}");
        assert_eq!(checkpoint.config.relative_bias_per_block, per_block, "{json}");
        assert_eq!(checkpoint.config.model_type, model_type);
        assert_eq!(checkpoint.tensors().count(), schema::tensors(&expected).len());
    }
}

#[test]
fn encoders_are_opened() {
    let json = config_with(json!({"architectures": ["T5EncoderModel"]}));
    let mut file = Gguf::new(&json);
    let checkpoint = open(&file).unwrap();
    assert!(checkpoint.config.is_encoder_only());
    assert_eq!(checkpoint.tensors().count(), 19);
    file.tensors.push(("output.weight".to_owned(), vec![ROWS, 8], part("head", &[ROWS, 8]).data));
    assert_eq!(open(&file).unwrap().notes, ["an encoder-only model: 1 tensors of a decoder are not used"]);
}

#[test]
fn the_old_form_without_a_decoder_depth_is_read() {
    let checkpoint = changed(|file| {
        file.remove("t5.decoder_block_count").remove("t5.decoder_start_token_id");
    });
    assert_eq!((checkpoint.config.num_decoder_layers, checkpoint.config.decoder_start_token_id), (2, 0));
    let of_heads = open(Gguf::new(&config_with(json!({"d_kv": 4}))).remove("t5.attention.key_length")).unwrap();
    assert_eq!(of_heads.config.d_kv, 4, "d_model / heads where it is not said");
}

#[test]
fn integer_keys_may_have_any_width() {
    let checkpoint = changed(|file| {
        file.set("t5.block_count", 10, &2u64.to_le_bytes());
        file.set("t5.embedding_length", 5, &8i32.to_le_bytes());
        file.set("t5.attention.head_count", 0, &[2]);
        file.set("tokenizer.ggml.eos_token_id", 11, &1i64.to_le_bytes());
        file.set("t5.attention.layer_norm_rms_epsilon", 12, &1e-6f64.to_le_bytes());
    });
    assert_eq!((checkpoint.config.num_layers, checkpoint.config.eos_token_id), (2, 1));
}

// Head and scale (7.1).

#[test]
fn the_scale_is_what_is_stored_else_by_the_head() {
    let untied = config_with(json!({"tie_word_embeddings": false}));
    let scale = |json: &Json, change: &dyn Fn(&mut Gguf)| {
        let mut file = Gguf::new(json);
        change(&mut file);
        open(&file).unwrap().config.scale_decoder_outputs
    };
    let stored = |value: f32| {
        move |file: &mut Gguf| {
            file.set("t5.logit_scale", 6, &value.to_le_bytes());
        }
    };
    let flag = |value: u8| {
        move |file: &mut Gguf| {
            file.set("pocket_t5.tie_word_embeddings", 7, &[value]);
        }
    };
    assert!(scale(&config(), &|_| ()));
    assert!(!scale(&untied, &|_| ()));
    assert!(!scale(&config(), &stored(1.0)));
    assert!(scale(&untied, &stored(0.353_553_4)));
    assert!(scale(&untied, &flag(1)), "a tied model that stores its head all the same");
    assert!(!scale(&config(), &flag(0)));
    let error = refused_scale(0.5);
    assert!(error.contains("t5.logit_scale: expected 1 or d_model^-0.5 = 0.35355338, found 0.5"), "{error}");
}

fn refused_scale(value: f32) -> String {
    let mut file = tiny();
    file.set("t5.logit_scale", 6, &value.to_le_bytes());
    open(&file).map(|_| ()).unwrap_err()
}

// Item 12: tensors.

#[test]
fn missing_and_misshapen_tensors_are_refused_by_the_names_of_the_file() {
    for (name, shape, _) in tiny().tensors {
        if name != "token_embd.weight" {
            let expected = format!("tensor {name}: expected a tensor of shape {shape:?}, found none");
            refused(|file| file.tensors.retain(|(present, ..)| *present != name), &[&expected]);
        }
        let found = [&shape[..], &[1]].concat();
        let error = match name.as_str() {
            "token_embd.weight" => {
                format!("tensor {name}: expected a matrix [vocabulary, d_model], found shape {found:?}")
            }
            _ => format!("tensor {name}: expected shape {shape:?}, found {found:?}"),
        };
        refused(|file| file.tensor(&name).1 = found, &[&error]);
    }
    refused(
        |file| file.tensors.retain(|(name, ..)| name != "token_embd.weight"),
        &["tensor token_embd.weight: expected a matrix [vocabulary, d_model], found none"],
    );
    refused(
        |file| *file.tensor("enc.blk.1.ffn_up.weight") = ("enc.blk.1.ffn_up.weight".into(), vec![8, 16], vec![0; 512]),
        &["tensor enc.blk.1.ffn_up.weight: expected shape [16, 8], found [8, 16]"],
    );
}

#[test]
fn unknown_tensors_are_noted_and_the_left_over_table_is_not() {
    let with = |name: &str| changed(|file| file.tensors.push((name.to_owned(), vec![8, 2], vec![0; 64]))).notes;
    assert_eq!(with("dec.blk.0.cross_attn_rel_b.weight"), Vec::<String>::new());
    assert_eq!(with("v.patch_embd.weight"), ["unknown tensors are not used: v.patch_embd.weight"]);
    assert_eq!(with("enc.blk.2.attn_q.weight"), ["unknown tensors are not used: enc.blk.2.attn_q.weight"]);
}

// Item 13: hyperparameters.

#[test]
fn hyperparameters_are_checked() {
    for (key, value, expected) in [
        ("t5.block_count", 0, "expected 1 to 1024, found 0"),
        ("t5.block_count", 1025, "expected 1 to 1024, found 1025"),
        ("t5.block_count", u32::MAX, "expected 1 to 1024, found 4294967295"),
        ("t5.decoder_block_count", 1 << 30, "expected 0 to 1024, found 1073741824"),
        ("t5.embedding_length", 0, "expected 1 to 1048576, found 0"),
        ("t5.feed_forward_length", 0, "expected 1 to 4194304, found 0"),
        ("t5.attention.head_count", 0, "expected 1 to 65536, found 0"),
        ("t5.attention.relative_buckets_count", 2, "expected 4 to 4096, found 2"),
        ("t5.attention.relative_buckets_count", 8192, "expected 4 to 4096, found 8192"),
        ("t5.attention.relative_buckets_count", 7, "expected an even number, found 7"),
        ("t5.attention.value_length", 4, "expected 3, found 4"),
        ("pocket_t5.relative_attention_max_distance", 4, "expected 5 to"),
    ] {
        refused(
            |file| {
                file.set_u32(key, value);
            },
            &[&format!("x.gguf: {key}: {expected}")],
        );
    }
    refused(
        |file| {
            file.set_u32("t5.attention.key_length", 1 << 16).set_u32("t5.attention.value_length", 1 << 16);
            file.set_u32("t5.attention.head_count", 1 << 10);
        },
        &["t5.attention.head_count * t5.attention.key_length: expected 1 to 1048576, found 67108864"],
    );
    for (value, found) in [(0f32, "found 0"), (-1.0, "found -1")] {
        refused(
            |file| {
                file.set("t5.attention.layer_norm_rms_epsilon", 6, &value.to_le_bytes());
            },
            &["t5.attention.layer_norm_rms_epsilon: expected a positive number", found],
        );
    }
    refused(
        |file| {
            file.set("t5.attention.layer_norm_rms_epsilon", 6, &f32::INFINITY.to_le_bytes());
        },
        &["t5.attention.layer_norm_rms_epsilon: expected a finite number, found inf"],
    );
}

#[test]
fn required_keys_are_asked_for() {
    for key in [
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.relative_buckets_count",
    ] {
        let key = format!("t5.{key}");
        refused(
            |file| {
                file.remove(&key);
            },
            &[&format!("{key}: expected a whole number, found nothing")],
        );
    }
    refused(
        |file| {
            file.remove("t5.attention.layer_norm_rms_epsilon");
        },
        &["t5.attention.layer_norm_rms_epsilon: expected a finite number, found nothing"],
    );
    refused(
        |file| {
            file.remove("t5.attention.key_length").set_u32("t5.attention.head_count", 3);
        },
        &["t5.attention.key_length: expected a whole number, found nothing"],
    );
    refused(
        |file| {
            file.remove("general.architecture");
        },
        &["general.architecture: expected t5 or t5encoder, found nothing"],
    );
    refused(
        |file| {
            file.set_string("general.architecture", "llama");
        },
        &["general.architecture: expected t5 or t5encoder, found llama"],
    );
    refused(
        |file| {
            file.set_string("pocket_t5.feed_forward_proj", "gated-erf");
        },
        &["pocket_t5.feed_forward_proj: expected relu, gelu, gelu_new or silu, perhaps with gated- before it, \
             found gated-erf"],
    );
    refused(
        |file| {
            file.set_string("pocket_t5.model_type", "longt5");
        },
        &["pocket_t5.model_type: expected t5, mt5 or umt5, found longt5"],
    );
}

// Item 14: arrays and ids.

#[test]
fn the_arrays_of_the_tokenizer_have_an_element_for_each_row() {
    for (rows, found) in [(ROWS - 1, "found 127"), (ROWS + 1, "found 129"), (3, "found 3")] {
        refused(
            |file| {
                file.set_tokens(&tokens(rows, rows.min(100)));
            },
            &["tokenizer.ggml.tokens: expected 128 strings, one for each row of the embedding", found],
        );
    }
    refused(
        |file| {
            file.set("tokenizer.ggml.scores", 9, &array(6, 2, &[0; 8]));
        },
        &["tokenizer.ggml.scores: expected 128 scores", "found 2"],
    );
    refused(
        |file| {
            file.set("tokenizer.ggml.token_type", 9, &array(5, 2, &[0; 8]));
        },
        &["tokenizer.ggml.token_type: expected 128 token types", "found 2"],
    );
    for key in ["tokens", "scores", "token_type"] {
        let key = format!("tokenizer.ggml.{key}");
        refused(
            |file| {
                file.remove(&key);
            },
            &[&format!("{key}: expected 128"), "found nothing"],
        );
        refused(
            |file| {
                file.set_u32(&key, 1);
            },
            &[&format!("{key}: expected an array, found 1")],
        );
        refused(
            |file| {
                file.set(&key, 9, &array(7, 128, &[1; 128]));
            },
            &[&format!("{key}: expected"), "found an array of 128 bool values"],
        );
    }
}

#[test]
fn scores_and_types_are_checked_one_by_one() {
    let with = |change: fn(&mut Token)| {
        move |file: &mut Gguf| {
            let mut tokens = tokens(ROWS, 120);
            change(&mut tokens[7]);
            file.set_tokens(&tokens);
        }
    };
    refused(with(|token| token.1 = f32::NAN), &["tokenizer.ggml.scores: token 7: expected a finite score, found NaN"]);
    refused(with(|token| token.2 = 0), &["tokenizer.ggml.token_type: token 7: expected a type from 1 to 6, found 0"]);
    refused(with(|token| token.2 = 7), &["token 7: expected a type from 1 to 6, found 7"]);
    refused(with(|token| token.2 = -1), &["tokenizer.ggml.token_type: expected token types from 1 to 6"]);
}

#[test]
fn special_ids_are_checked() {
    for (key, name) in [("eos", "</s>"), ("padding", "<pad>")] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        refused(
            |file| {
                file.set_u32(&key, 128);
            },
            &[&format!("{key}: expected an id below 128, found 128"), ""],
        );
        // A row of the embedding, but no piece.
        refused(
            |file| {
                file.set_u32(&key, 125);
            },
            &[&format!("{key}: expected the id of a token below 120, found 125")],
        );
        let checkpoint = changed(|file| {
            file.remove(&key);
        });
        assert_eq!((checkpoint.config.eos_token_id, checkpoint.config.pad_token_id), (1, 0), "{name}");
    }
    refused(
        |file| {
            file.set_u32("tokenizer.ggml.unknown_token_id", 120);
        },
        &["tokenizer.ggml.unknown_token_id: expected the id of a token below 120, found 120"],
    );
    refused(
        |file| {
            file.set_u32("t5.decoder_start_token_id", 4000);
        },
        &["t5.decoder_start_token_id: expected an id below 128, found 4000"],
    );
    refused(
        |file| {
            file.set_string("tokenizer.ggml.eos_token_id", "</s>");
        },
        &["tokenizer.ggml.eos_token_id: expected a whole number below 2^32, found \"</s>\""],
    );
}

#[test]
fn the_unknown_id_is_that_of_type_2_where_it_is_not_stored() {
    // MADLAD: unknown 0, pad 1, end 2, and no key.
    let madlad = |file: &mut Gguf| {
        let mut tokens = tokens(ROWS, 120);
        tokens[0] = ("<unk>".to_owned(), 0.0, 2);
        tokens[1] = ("<s>".to_owned(), 0.0, 3);
        tokens[2] = ("</s>".to_owned(), 0.0, 3);
        file.set_tokens(&tokens).remove("tokenizer.ggml.unknown_token_id");
        file.set_u32("tokenizer.ggml.eos_token_id", 2).set_u32("tokenizer.ggml.padding_token_id", 1);
        file.set("tokenizer.ggml.remove_extra_whitespaces", 7, &[0]);
    };
    let checkpoint = changed(madlad);
    assert_eq!((checkpoint.config.eos_token_id, checkpoint.config.pad_token_id), (2, 1));
    let vocabulary = unigram(checkpoint);
    assert_eq!((vocabulary.unk_id, vocabulary.eos_id, vocabulary.pad_id), (0, 2, 1));
    assert_eq!(vocabulary.whitespace, Whitespace::Verbatim);
    refused(
        |file| {
            madlad(file);
            let mut tokens = tokens(ROWS, 120);
            tokens[2].2 = 3;
            file.set_tokens(&tokens);
        },
        &["tokenizer.ggml.unknown_token_id: expected an id, or a token of type 2, found neither"],
    );
}

#[test]
fn other_tokenizers_are_refused_and_none_is_accepted() {
    refused(
        |file| {
            file.set_string("tokenizer.ggml.model", "llama");
        },
        &["tokenizer.ggml.model: expected t5, pocket_t5.bpe, pocket_t5.word, pocket_t5.char, pocket_t5.bytes or \
             pocket_t5.json, found llama"],
    );
    assert_eq!(
        changed(|file| {
            file.remove("tokenizer.ggml.model");
        })
        .vocabulary,
        None
    );
}

// Item 15: equal tokens.

#[test]
fn the_first_of_equal_tokens_is_kept() {
    let checkpoint = changed(|file| {
        let mut tokens = tokens(ROWS, 120);
        tokens[50].0 = tokens[40].0.clone();
        file.set_tokens(&tokens);
    });
    assert_eq!(checkpoint.notes, ["1 tokens that come twice in the vocabulary are never produced from text"]);
    let pieces = unigram(checkpoint).pieces;
    assert_eq!((pieces[40].kind, pieces[50].kind), (PieceKind::Normal, PieceKind::Unused));
    assert_eq!(pieces[40].text, pieces[50].text, "ids still become text");
}

/// They were right where they came from.
#[test]
fn equal_tokens_of_our_own_files_keep_their_types() {
    let checkpoint = changed(|file| {
        let mut tokens = tokens(ROWS, 120);
        tokens[50].0 = tokens[40].0.clone();
        file.set_tokens(&tokens);
        file.set("pocket_t5.tokenizer.added_ids", 9, &array(4, 1, &[0; 4]));
        file.set("pocket_t5.tokenizer.added_flags", 9, &array(4, 1, &[1, 0, 0, 0]));
    });
    assert!(checkpoint.notes.is_empty(), "{:?}", checkpoint.notes);
    let pieces = unigram(checkpoint).pieces;
    assert_eq!((pieces[40].kind, pieces[50].kind), (PieceKind::Normal, PieceKind::Normal));
}

// Sentinels.

#[test]
fn sentinels_are_put_in_for_fillers() {
    let rows = 300;
    let file = |pieces: usize, change: &dyn Fn(&mut Vec<Token>)| {
        let mut file = Gguf::new(&config_with(json!({"vocab_size": rows})));
        let mut tokens = tokens(rows, pieces);
        change(&mut tokens);
        file.set_tokens(&tokens);
        file
    };
    let checkpoint = open(&file(172, &|_| ())).unwrap();
    assert_eq!(checkpoint.notes, ["the file names no sentinels: <extra_id_0> to <extra_id_99> were put in"]);
    let vocabulary = unigram(checkpoint);
    assert_eq!(vocabulary.pieces.len(), 272);
    assert_eq!((&*vocabulary.pieces[172].text, &*vocabulary.pieces[271].text), ("<extra_id_99>", "<extra_id_0>"));
    assert!(
        vocabulary.added.contains(&AddedToken::special(172)) && vocabulary.added.contains(&AddedToken::special(271))
    );
    assert_eq!(vocabulary.pieces[171].kind, PieceKind::Normal);

    // No room for 100: none.
    assert_eq!(unigram(open(&file(250, &|_| ())).unwrap()).pieces.len(), 250);
    // The file has them, as added_tokens.json gave them.
    let stored = file(172, &|tokens| {
        for (n, token) in (0..100).rev().zip(&mut tokens[172..]) {
            *token = (format!("<extra_id_{n}>"), -1000.0, 4);
        }
    });
    let checkpoint = open(&stored).unwrap();
    assert_eq!(checkpoint.notes, Vec::<String>::new());
    let from_file = unigram(checkpoint);
    assert_eq!((from_file.pieces.len(), from_file.added), (272, vocabulary.added));
    // mT5 spells them as words of its SentencePiece model; the space before them is theirs.
    let words = file(172, &|tokens| tokens[100] = ("▁<extra_id_0>".to_owned(), 0.0, 1));
    let words = unigram(open(&words).unwrap());
    assert_eq!((&*words.pieces[100].text, words.pieces[100].kind), ("<extra_id_0>", PieceKind::UserDefined));
    assert!(words.added.contains(&AddedToken { lstrip: true, ..AddedToken::special(100) }));
    // A token that someone added behind the missing sentinels.
    let behind = file(172, &|tokens| tokens[280] = ("<sep>".to_owned(), -1000.0, 4));
    let behind = unigram(open(&behind).unwrap());
    assert_eq!((behind.pieces.len(), &*behind.pieces[271].text), (281, "<extra_id_0>"));
    assert!(behind.added.contains(&AddedToken { special: false, ..AddedToken::special(280) }));
    // Our key says how many.
    let mut few = file(172, &|_| ());
    few.set_u32("pocket_t5.extra_ids", 5);
    assert_eq!(&*unigram(open(&few).unwrap()).pieces[176].text, "<extra_id_0>");
    few.set_u32("pocket_t5.extra_ids", 0);
    assert_eq!(unigram(open(&few).unwrap()).pieces.len(), 172);
}

#[test]
fn umt5_has_three_hundred_sentinels() {
    let json = config_with(json!({"vocab_size": 484, "model_type": "umt5"}));
    let mut file = Gguf::new(&json);
    file.set_tokens(&tokens(484, 100));
    let pieces = unigram(open(&file).unwrap()).pieces;
    assert_eq!((pieces.len(), &*pieces[100].text, &*pieces[399].text), (400, "<extra_id_299>", "<extra_id_0>"));
}

// Item 16: the character map.

/// A map of one block of units, in which nothing leads anywhere, and the given strings.
fn charsmap(change: impl FnOnce(&mut Vec<u32>), strings: &[u8]) -> Vec<u8> {
    let mut units = vec![0u32; 256];
    change(&mut units);
    let size = (units.len() * 4) as u32;
    [&size.to_le_bytes()[..], &units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>(), strings].concat()
}

fn with_charsmap(code: u32, bytes: &[u8]) -> impl FnOnce(&mut Gguf) {
    let value = array(code, bytes.len() as u64, bytes);
    move |file| {
        file.set("tokenizer.ggml.precompiled_charsmap", 9, &value);
    }
}

#[test]
fn character_maps_are_checked() {
    let key = "tokenizer.ggml.precompiled_charsmap: expected a character map, found a damaged one";
    let good = charsmap(|_| (), b"a\0");
    assert_eq!(unigram(changed(with_charsmap(0, &good))).charsmap, Some(good.clone()));
    assert_eq!(unigram(changed(with_charsmap(1, &good))).charsmap, Some(good.clone()), "i8 elements");
    assert_eq!(unigram(changed(with_charsmap(0, &[]))).charsmap, None);
    for length in [1, 3, 5, good.len() - 3] {
        refused(with_charsmap(0, &good[..length]), &[key]);
    }
    refused(with_charsmap(0, &[0, 0xB4, 2, 0]), &[key, "shorter than its size field"]);
    refused(with_charsmap(0, &[2, 0, 0, 0, 1, 2, 0]), &[key, "not a multiple of 4"]);
    refused(with_charsmap(0, &charsmap(|_| (), b"a")), &[key, "do not end in NUL"]);
    refused(with_charsmap(0, &charsmap(|_| (), b"\xff\0")), &[key, "not UTF-8"]);
    // The root leads to unit 256, one past the end: what llama.cpp let through.
    refused(with_charsmap(0, &charsmap(|units| units[0] = 256 << 10, b"a\0")), &[key, "unit 0 leads outside"]);
    refused(with_charsmap(0, &charsmap(|units| units.truncate(255), b"a\0")), &[key, "unit 0 leads outside"]);
    // A leaf that is its own value: an offset of 353 where there are two bytes of strings.
    let leaf = |units: &mut Vec<u32>| units[b'a' as usize] = u32::from(b'a') | 1 << 8;
    refused(with_charsmap(0, &charsmap(leaf, b"a\0")), &[key, "has no replacement"]);
    refused(
        |file| {
            file.set("tokenizer.ggml.precompiled_charsmap", 9, &array(4, 1, &[0; 4]));
        },
        &["tokenizer.ggml.precompiled_charsmap: expected bytes, found an array of 1 u32 values"],
    );
}

#[test]
fn the_real_character_map_is_accepted() {
    let Some(path) = common::shared("models/t5-tokenizer/spiece.model") else { return };
    let model = std::fs::read(path).unwrap();
    let Vocabulary::Unigram(unigram) = Vocabulary::from_sentencepiece("spiece.model", &model, 100).unwrap() else {
        panic!("expected a Unigram vocabulary")
    };
    let charsmap = unigram.charsmap.unwrap();
    assert_eq!(charsmap[..4], [0x00, 0xB4, 0x02, 0x00]);
    assert!(changed(with_charsmap(0, &charsmap)).vocabulary.is_some());
}

// Texts for people.

#[test]
fn what_a_file_says_of_itself_reaches_the_model() {
    let mut file = tiny();
    file.set_string("general.license", "cc-by-2.0").set_string("general.attribution", "tatoeba.org");
    file.set_u32("general.number", 7).set_string("other.license", "none");
    let checkpoint = open(&file).unwrap();
    assert_eq!(checkpoint.about["general.license"], "cc-by-2.0");
    assert_eq!(checkpoint.about["general.attribution"], "tatoeba.org");
    assert!(checkpoint.about.keys().all(|key| key.starts_with("general.") && key != "general.number"));
}

// Item 18.

#[test]
fn grouped_heads_and_values_per_layer_are_refused() {
    assert!(open(tiny().set_u32("t5.attention.head_count_kv", 2)).is_ok());
    refused(
        |file| {
            file.set_u32("t5.attention.head_count_kv", 1);
        },
        &["t5.attention.head_count_kv: expected 2, found 1"],
    );
    for key in ["t5.attention.head_count", "t5.feed_forward_length", "t5.attention.head_count_kv"] {
        refused(
            |file| {
                file.set(key, 9, &array(4, 2, &[2, 0, 0, 0, 2, 0, 0, 0]));
            },
            &[&format!("{key}: expected a whole number that fits the machine, found an array of 2 u32 values")],
        );
    }
}

// Our own files.

/// The file that this project writes for a checkpoint.
fn write(checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { config, vocabulary, generation, .. } = checkpoint;
    let metadata = llama_cpp::metadata(&named("tiny"), config, vocabulary.as_ref(), generation, DType::F32).unwrap();
    let infos: Vec<_> = checkpoint
        .tensors()
        .map(|(spec, tensor)| TensorInfo { name: spec.gguf_name, dtype: tensor.dtype, shape: spec.shape })
        .collect();
    let mut writer = Writer::new("x.gguf".as_ref(), Vec::new(), &metadata, &infos).unwrap();
    for (info, (_, tensor)) in infos.iter().zip(checkpoint.tensors()) {
        writer.append(&info.name, &tensor.data).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_back_for_every_family() {
    let head = |json: &mut Json, tie: bool, scale: bool| {
        json["tie_word_embeddings"] = json!(tie);
        json["scale_decoder_outputs"] = json!(scale);
    };
    for changes in [
        json!({}),
        json!({"feed_forward_proj": "gated-gelu"}),
        json!({"feed_forward_proj": "gated-silu", "relative_attention_max_distance": 99}),
        json!({"model_type": "umt5", "num_decoder_layers": 3}),
        json!({"model_type": "mt5", "layer_norm_epsilon": 1e-5, "pad_token_id": 1, "eos_token_id": 2}),
        json!({"architectures": ["T5EncoderModel"]}),
    ] {
        for (tie, scale) in [(true, true), (false, false), (true, false), (false, true)] {
            let mut json = config_with(changes.clone());
            head(&mut json, tie, scale);
            let folder = tempfile::tempdir().unwrap();
            common::tiny::write_folder(folder.path(), &json, &parts(&json));
            let mut original = Checkpoint::open(folder.path()).unwrap();
            original.vocabulary = open(&tiny()).unwrap().vocabulary.map(|vocabulary| match vocabulary {
                Vocabulary::Unigram(unigram) => Vocabulary::Unigram(UnigramVocabulary {
                    eos_id: original.config.eos_token_id,
                    pad_id: original.config.pad_token_id,
                    ..unigram
                }),
                other => other,
            });
            let bytes = write(&original);
            assert_eq!(bytes, write(&original), "the same input gives the same bytes");
            let read = open_bytes(bytes.clone()).unwrap();
            if original.config.is_encoder_only() {
                // An encoder has no head: neither question means anything.
                original.config.scale_decoder_outputs = read.config.scale_decoder_outputs;
            }
            assert_eq!(read.config, original.config);
            assert_eq!(read.vocabulary, original.vocabulary);
            assert_eq!(read.notes, Vec::<String>::new());
            for ((_, read), (_, original)) in read.tensors().zip(original.tensors()) {
                assert_eq!((&read.name, &*read.data), (&original.name, &*original.data));
            }
            assert_eq!(write(&read), bytes, "written, read and written again");
        }
    }
}

/// Defaults with every setting.
fn every_default() -> GenerationDefaults {
    GenerationDefaults {
        settings: Settings {
            max_new_tokens: Some(50),
            max_length: Some(1 << 33),
            min_new_tokens: Some(1),
            min_length: Some(0),
            do_sample: Some(false),
            num_beams: Some(4),
            num_beam_groups: Some(2),
            diversity_penalty: Some(0.75),
            length_penalty: Some(0.6),
            early_stopping: Some(EarlyStopping::Never),
            num_return_sequences: Some(2),
            temperature: Some(0.7),
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.05),
            typical_p: Some(0.8),
            epsilon_cutoff: Some(0.0003),
            eta_cutoff: Some(0.0006),
            top_h: Some(0.4),
            repetition_penalty: Some(1.25),
            encoder_repetition_penalty: Some(1.1),
            no_repeat_ngram_size: Some(3),
            encoder_no_repeat_ngram_size: Some(5),
            bad_words_ids: Some(vec![vec![5, 6], vec![7]]),
            sequence_bias: Some(vec![(vec![8, 9], -2.1)]),
            suppress_tokens: Some(vec![0, u32::MAX]),
            begin_suppress_tokens: Some(vec![3]),
            forced_bos_token_id: Some(27),
            forced_eos_token_id: Some(vec![1, 2]),
            exponential_decay_length_penalty: Some((20, 1.05)),
            renormalize_logits: Some(true),
            remove_invalid_values: Some(false),
            decoder_start_token_id: Some(2),
            eos_token_id: Some(vec![1, 7]),
            split_sentences: Some(false),
            spell_words: Some(true),
            alignment_heads: Some(vec![vec![1, 2], vec![0, 3]]),
            alignment_reading: Some(true),
        },
        tasks: vec![
            Task {
                name: "summarization".to_owned(),
                prefix: "summarize: ".to_owned(),
                settings: Settings {
                    early_stopping: Some(EarlyStopping::Yes),
                    num_beams: Some(4),
                    split_sentences: Some(true),
                    ..Settings::default()
                },
            },
            Task { name: "translation_en_to_de".to_owned(), ..Task::default() },
        ],
        not_obeyed: vec!["penalty_alpha 0.6".to_owned()],
    }
}

#[test]
fn vocabularies_and_generation_defaults_are_read_back() {
    let mut checkpoint = open(&tiny()).unwrap();
    let Some(Vocabulary::Unigram(mut vocabulary)) = checkpoint.vocabulary.take() else { unreachable!() };
    vocabulary.charsmap = Some(charsmap(|_| (), b"a\0"));
    vocabulary.whitespace = Whitespace::Trim;
    vocabulary.add_dummy_prefix = false;
    vocabulary.legacy = false;
    vocabulary.split_words = true;
    vocabulary.byte_fallback = true;
    vocabulary.append_sentinels(3);
    vocabulary.added.push(AddedToken {
        id: 9,
        special: false,
        lstrip: true,
        rstrip: true,
        normalized: true,
        outside: true,
    });
    vocabulary.pieces[9].kind = PieceKind::UserDefined;
    vocabulary.pieces[30].kind = PieceKind::Byte;
    vocabulary.pieces[31].kind = PieceKind::Unused;
    checkpoint.vocabulary = Some(Vocabulary::Unigram(vocabulary));
    checkpoint.generation = every_default();
    let read = open_bytes(write(&checkpoint)).unwrap();
    assert_eq!(read.vocabulary, checkpoint.vocabulary);
    assert_eq!(read.generation, checkpoint.generation);
    let note = "settings of the checkpoint's generation that are not obeyed: penalty_alpha 0.6";
    assert_eq!(read.notes, [note]);
}

/// Files from before tasks had names.
#[test]
fn prefixes_without_tasks_name_themselves() {
    let strings = |texts: &[&str]| array(8, texts.len() as u64, &texts.iter().flat_map(string).collect::<Vec<_>>());
    let prefixes = strings(&["translate English to German: ", "summarize: "]);
    let tasks = changed(|file| _ = file.set("pocket_t5.task_prefixes", 9, &prefixes)).generation.tasks;
    let names: Vec<(&str, &str)> = tasks.iter().map(|task| (task.name.as_str(), task.prefix.as_str())).collect();
    let expected = [("translate English to German", "translate English to German: "), ("summarize", "summarize: ")];
    assert_eq!(names, expected);

    refused(
        |file| _ = file.set("pocket_t5.tasks", 9, &strings(&["a"])),
        &["pocket_t5.task_prefixes: expected one string for each of 1 tasks, found 0"],
    );
}

#[test]
fn byte_vocabularies_are_read_back() {
    let json = config_with(json!({"vocab_size": 384}));
    let mut checkpoint = open(&Gguf::new(&json)).unwrap();
    checkpoint.vocabulary = Some(Vocabulary::bytes(384));
    let bytes = write(&checkpoint);
    assert_eq!(open_bytes(bytes.clone()).unwrap().vocabulary, checkpoint.vocabulary);
    let Vocabulary::Bytes(mut above) = Vocabulary::bytes(384) else { unreachable!("made of bytes") };
    above.extra_ids_above = true;
    checkpoint.vocabulary = Some(Vocabulary::Bytes(above));
    assert_eq!(open_bytes(write(&checkpoint)).unwrap().vocabulary, checkpoint.vocabulary);
    let file = File::parse("x.gguf", Bytes::from_vec(bytes)).unwrap();
    assert_eq!(file.string("tokenizer.ggml.model").unwrap(), Some("pocket_t5.bytes"));
    assert_eq!((file.value("tokenizer.ggml.tokens"), file.u32("pocket_t5.tokenizer.offset").unwrap()), (None, Some(3)));

    let bytes_with = |key: &str, value: u32| {
        let mut file = Gguf::new(&json);
        file.set_string("tokenizer.ggml.model", "pocket_t5.bytes").set_u32(key, value);
        open(&file).map(|_| ()).unwrap_err()
    };
    let offset = bytes_with("pocket_t5.tokenizer.offset", 129);
    assert!(offset.contains("pocket_t5.tokenizer.offset: expected at most 128 for 384 rows, found 129"), "{offset}");
    let extra_ids = bytes_with("pocket_t5.extra_ids", 257);
    assert!(extra_ids.contains("pocket_t5.extra_ids: expected at most 256, found 257"), "{extra_ids}");
}

/// `</s>` and `<pad>` of the tokenizer are one thing, what config.json calls the end and padding another.
#[test]
fn special_ids_of_tokenizer_and_configuration_are_read_back_apart() {
    let configured = |bytes: &[u8]| {
        let file = File::parse("x.gguf", Bytes::from_vec(bytes.to_vec())).unwrap();
        ["pocket_t5.eos_token_id", "pocket_t5.pad_token_id"].map(|key| file.u32(key).unwrap())
    };
    let mut checkpoint = open(&tiny()).unwrap();
    assert_eq!(configured(&write(&checkpoint)), [None, None]);
    // A piece, and a row of the embedding without one.
    (checkpoint.config.eos_token_id, checkpoint.config.pad_token_id) = (5, 125);
    let bytes = write(&checkpoint);
    assert_eq!(configured(&bytes), [Some(5), Some(125)]);
    let read = open_bytes(bytes.clone()).unwrap();
    assert_eq!(read.config, checkpoint.config);
    assert_eq!(read.vocabulary, checkpoint.vocabulary);
    assert_eq!(write(&read), bytes, "written, read and written again");

    let pairs = br#"{"model": {"type": "BPE", "vocab": {"a": 0}}}"#;
    for vocabulary in [
        Vocabulary::from_other_tokenizer_json("tokenizer.json", pairs, 2, 3).unwrap(),
        Vocabulary::from_other_tokenizer_json("tokenizer.json", pairs, 5, 125).unwrap(),
    ] {
        checkpoint.vocabulary = Some(vocabulary);
        let read = open_bytes(write(&checkpoint)).unwrap();
        assert_eq!(read.config, checkpoint.config);
        assert_eq!(read.vocabulary, checkpoint.vocabulary);
    }

    refused(
        |file| _ = file.set_u32("pocket_t5.pad_token_id", 128),
        &["pocket_t5.pad_token_id: expected an id below 128, found 128"],
    );
    refused(
        |file| _ = file.set_u32("pocket_t5.pad_token_id", 3).set_u32("tokenizer.ggml.padding_token_id", 125),
        &["tokenizer.ggml.padding_token_id: expected the id of a token below 120, found 125"],
    );
}

#[test]
fn the_keys_are_those_of_the_specification() {
    let json =
        config_with(json!({"tie_word_embeddings": false, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 1}));
    let config = T5Config::from_json("config.json", &json.to_string()).unwrap();
    let vocabulary = open(&tiny()).unwrap().vocabulary.unwrap();
    let keys =
        llama_cpp::metadata(&named("Tiny"), &config, Some(&vocabulary), &GenerationDefaults::default(), DType::Q8_0)
            .unwrap();
    let small: Vec<(&str, String)> = keys.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    let expected = [
        ("general.architecture", "\"t5\""),
        ("general.type", "\"model\""),
        ("general.name", "\"Tiny\""),
        ("t5.context_length", "512"),
        ("t5.embedding_length", "8"),
        ("t5.feed_forward_length", "16"),
        ("t5.block_count", "2"),
        ("t5.decoder_block_count", "1"),
        ("t5.attention.head_count", "2"),
        ("t5.attention.key_length", "3"),
        ("t5.attention.value_length", "3"),
        ("t5.attention.layer_norm_epsilon", "0.000001"),
        ("t5.attention.layer_norm_rms_epsilon", "0.000001"),
        ("t5.attention.relative_buckets_count", "8"),
        ("t5.decoder_start_token_id", "0"),
        ("t5.logit_scale", "1"),
        ("general.file_type", "7"),
        ("tokenizer.ggml.model", "\"t5\""),
        ("tokenizer.ggml.pre", "\"default\""),
        ("tokenizer.ggml.tokens", "an array of 128 string values"),
        ("tokenizer.ggml.scores", "an array of 128 f32 values"),
        ("tokenizer.ggml.token_type", "an array of 128 i32 values"),
        ("tokenizer.ggml.add_space_prefix", "true"),
        ("tokenizer.ggml.remove_extra_whitespaces", "true"),
        ("tokenizer.ggml.unknown_token_id", "2"),
        ("tokenizer.ggml.add_bos_token", "false"),
        ("tokenizer.ggml.add_eos_token", "true"),
        ("pocket_t5.extra_ids", "0"),
        ("pocket_t5.tokenizer.whitespace", "4"),
        ("pocket_t5.tokenizer.legacy", "true"),
        ("pocket_t5.tokenizer.split_words", "false"),
        ("pocket_t5.tokenizer.byte_fallback", "false"),
        ("pocket_t5.tokenizer.added_ids", "an array of 3 u32 values"),
        ("pocket_t5.tokenizer.added_flags", "an array of 3 u32 values"),
        ("tokenizer.ggml.eos_token_id", "1"),
        ("tokenizer.ggml.padding_token_id", "0"),
        ("general.quantization_version", "2"),
        ("pocket_t5.model_type", "\"t5\""),
        ("pocket_t5.tie_word_embeddings", "false"),
        ("pocket_t5.feed_forward_proj", "\"gated-gelu\""),
        ("pocket_t5.relative_attention_max_distance", "16"),
    ];
    assert_eq!(small, expected.map(|(key, value)| (key, value.to_owned())));
    // llama.cpp reads these as u32.
    for key in ["t5.block_count", "general.file_type", "tokenizer.ggml.eos_token_id", "t5.decoder_start_token_id"] {
        let value = &keys.iter().find(|(present, _)| present == key).unwrap().1;
        assert!(matches!(value, Value::U32(_)), "{key}: {value:?}");
    }
    let codes =
        [(DType::F32, 0), (DType::F16, 1), (DType::BF16, 32), (DType::Q4_0, 2), (DType::Q4_K, 14), (DType::Q6_K, 18)];
    for (dtype, code) in codes {
        let keys = llama_cpp::metadata(&BTreeMap::new(), &config, None, &GenerationDefaults::default(), dtype).unwrap();
        assert!(keys.contains(&("general.file_type".to_owned(), Value::U32(code))), "{dtype}");
        assert!(!keys.iter().any(|(key, _)| key == "general.name" || key == "tokenizer.ggml.model"));
    }
}

#[test]
fn faults_of_our_own_keys_are_refused() {
    let ours = |key: &'static str, code: u32, value: Vec<u8>| {
        move |file: &mut Gguf| {
            file.set("pocket_t5.tokenizer.added_ids", 9, &array(4, 2, &[0, 0, 0, 0, 1, 0, 0, 0]));
            file.set("pocket_t5.tokenizer.added_flags", 9, &array(4, 2, &[1, 0, 0, 0, 1, 0, 0, 0]));
            file.set(key, code, &value);
        }
    };
    let numbers = |numbers: &[u32]| {
        array(4, numbers.len() as u64, &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
    };
    changed(ours("pocket_t5.tokenizer.whitespace", 4, vec![4, 0, 0, 0]));
    for (key, code, value, expected) in [
        ("pocket_t5.tokenizer.whitespace", 4, vec![5, 0, 0, 0], "expected a rule from 0 to 4, found 5"),
        ("pocket_t5.tokenizer.added_ids", 9, numbers(&[0, 120]), "expected ids below 120, found 120"),
        ("pocket_t5.tokenizer.added_flags", 9, numbers(&[1, 32]), "expected flags below 32, found 32"),
        ("pocket_t5.tokenizer.added_flags", 9, numbers(&[1]), "expected 2 values, found 1"),
        (
            "pocket_t5.tokenizer.added_ids",
            9,
            array(8, 1, &string("a")),
            "expected whole numbers, found an array of 1 string",
        ),
        ("pocket_t5.tokenizer.legacy", 4, vec![1, 0, 0, 0], "expected true or false, found 1"),
        (
            "pocket_t5.generation.eos_token_ids",
            9,
            array(6, 1, &[0; 4]),
            "expected token ids, found an array of 1 f32 values",
        ),
        ("pocket_t5.task_prefixes", 9, numbers(&[1]), "expected strings, found an array of 1 u32 values"),
        ("pocket_t5.generation.bad_words_ids", 8, string("[[1],[]]"), "expected a list of lists of token ids as JSON"),
        ("pocket_t5.generation.early_stopping", 8, string("ever"), "expected true or false, found \"ever\""),
        (
            "pocket_t5.generation.num_beams",
            8,
            string("4"),
            "expected a whole number that fits the machine, found \"4\"",
        ),
        ("pocket_t5.generation.length_penalty", 7, vec![1], "expected a finite number, found true"),
    ] {
        refused(ours(key, code, value), &[&format!("{key}: {expected}")]);
    }
}

#[test]
fn a_vocabulary_with_more_pieces_than_rows_is_not_written() {
    let vocabulary = open(&tiny()).unwrap().vocabulary.unwrap();
    let config = T5Config::from_json("config.json", &config_with(json!({"vocab_size": 119})).to_string()).unwrap();
    let error =
        llama_cpp::metadata(&BTreeMap::new(), &config, Some(&vocabulary), &GenerationDefaults::default(), DType::F32)
            .unwrap_err();
    assert!(error.to_string().contains("expected at most 119 pieces"), "{error}");
}

#[test]
fn a_part_of_a_split_model_in_memory_is_refused() {
    refused(
        |file| {
            file.set("split.count", 2, &[3, 0]);
        },
        &["expected a whole model, found one part of 3"],
    );
}

// candle's dialect.

#[test]
fn candle_files_are_opened_with_their_companions() {
    let json = config_with(json!({"num_heads": 32, "d_kv": 1, "d_model": 32, "d_ff": 64}));
    let mut raw = Raw::default();
    let parts = parts(&json);
    for (name, part) in &parts {
        // Everything with two extents is quantised, bias tables included.
        let quantised = part.shape.len() == 2;
        let values: Vec<f32> = part.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let dtype = if quantised { DType::Q8_0 } else { DType::F32 };
        let mut data = vec![0; dtype.row_bytes(values.len()).unwrap()];
        t5_runtime::block::encode(dtype, &values, &mut data).unwrap();
        raw.data.resize(raw.data.len().next_multiple_of(32), 0);
        let extents: Vec<u64> = part.shape.iter().rev().map(|&extent| extent as u64).collect();
        raw.tensors.push(tensor(name, &extents, if quantised { 8 } else { 0 }, raw.data.len() as u64));
        raw.data.extend(data);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, raw.bytes()).unwrap();
    let notes = Checkpoint::open(&path).unwrap().notes;
    assert!(notes[0].contains("model.gguf: no config.json, so the tensors say what it is"), "{notes:?}");
    std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors().count(), parts.len());
    let name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    assert_eq!(checkpoint.tensor(name).unwrap().dtype, DType::Q8_0);
    let error = open_bytes(raw.bytes()).map(|_| ()).unwrap_err();
    assert!(error.contains("x.gguf: general.architecture: expected t5 or t5encoder, found nothing"), "{error}");

    // Of another type that candle writes.
    let mut unread = raw.clone();
    unread.tensors[0] = tensor("decoder.block.0.layer.0.SelfAttention.k.weight", &[256, 4], 10, 0);
    std::fs::write(&path, unread.bytes()).unwrap();
    let error = Checkpoint::open(&path).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("SelfAttention.k.weight: expected one of the types F32, F16") && error.contains("found Q2_K"),
        "{error}"
    );
}

#[test]
fn split_checkpoints_are_opened() {
    let file = tiny();
    let folder = tempfile::tempdir().unwrap();
    let total = file.tensors.len();
    for (number, tensors) in [&file.tensors[..10], &file.tensors[10..]].into_iter().enumerate() {
        let values = if number == 0 { file.values.clone() } else { Vec::new() };
        let mut part = Gguf { values, tensors: tensors.to_vec() };
        part.set("split.no", 2, &(number as u16).to_le_bytes()).set("split.count", 2, &[2, 0]);
        part.set("split.tensors.count", 5, &(total as i32).to_le_bytes());
        std::fs::write(folder.path().join(format!("m-{:05}-of-00002.gguf", number + 1)), part.bytes()).unwrap();
    }
    let checkpoint = Checkpoint::open(&folder.path().join("m-00001-of-00002.gguf")).unwrap();
    assert_eq!(checkpoint.tensors().count(), total);
    let error = Checkpoint::open(&folder.path().join("m-00002-of-00002.gguf")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("part 2 of 2: expected the first, m-00001-of-00002.gguf"), "{error}");
}

// The totals of docs/gguf.md 4.

#[test]
fn published_models_have_the_published_counts_and_sizes() {
    let t5_small = json!({"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048,
        "num_layers": 6, "num_heads": 8});
    let flan = json!({"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024,
        "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false});
    let xxl = |model_type: &str, layers: usize, encoder_only: bool| {
        json!({"model_type": model_type, "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240,
            "num_layers": layers, "num_heads": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
            "is_encoder_decoder": !encoder_only})
    };
    let specs = |json: &Json| schema::tensors(&T5Config::from_json("config.json", &json.to_string()).unwrap());
    let counts = [&t5_small, &flan, &xxl("t5", 24, true), &xxl("umt5", 24, true), &xxl("t5", 32, false)]
        .map(|json| specs(json).len());
    assert_eq!(counts, [131, 190, 219, 242, 742]);

    let size = |json: &Json, dtype: DType| -> usize {
        specs(json)
            .into_iter()
            .map(|spec| {
                let norm = spec.id.role.is_norm();
                let fits = dtype.row_bytes(*spec.shape.last().unwrap()).is_some();
                let dtype = if norm {
                    DType::F32
                } else if fits {
                    dtype
                } else {
                    DType::F16
                };
                TensorInfo { name: spec.gguf_name, dtype, shape: spec.shape }.size().unwrap().next_multiple_of(32)
            })
            .sum()
    };
    let sizes = |json: &Json| [DType::F32, DType::F16, DType::Q8_0].map(|dtype| size(json, dtype));
    // The numbers of the specification hold the left-over table, too: 256 values of t5-small, F32, F16, and F16 again.
    assert_eq!(sizes(&t5_small), [242_027_520 - 1024, 121_046_528 - 512, 64_337_408 - 512]);
    assert_eq!(sizes(&flan), [307_844_608, 153_965_312, 81_834_752]);
}

// A file of another writer (golden/gguf_file.py).

#[test]
fn a_file_of_the_reference_writer_is_opened_with_its_values() {
    let checkpoint = open_bytes(include_bytes!("golden/t5-tiny.gguf").to_vec()).unwrap();
    let config = &checkpoint.config;
    let sizes = (config.vocab_size, config.d_model, config.d_kv, config.d_ff, config.num_heads);
    assert_eq!(sizes, (32, 32, 8, 64, 2));
    assert_eq!((config.num_layers, config.num_decoder_layers, config.relative_attention_num_buckets), (1, 2, 8));
    assert_eq!(config.feed_forward.name(), "gated-gelu");
    assert!(!config.tie_word_embeddings && !config.scale_decoder_outputs);
    assert_eq!(checkpoint.notes, Vec::<String>::new());
    for (n, (spec, tensor)) in checkpoint.tensors().enumerate() {
        let expected = match spec.shape[..] {
            [_] => DType::F32,
            [_, columns] if columns % 32 != 0 => DType::F16,
            _ => DType::Q8_0,
        };
        assert_eq!(tensor.dtype, expected, "{}", spec.gguf_name);
        // Values are multiples of 1/64 up to 1/2: exact in F16, within half a step of Q8_0.
        for (i, value) in t5_runtime::block::decode_tensor(tensor).unwrap().into_iter().enumerate() {
            let written = ((i * 7 + n * 13) % 64) as f32 / 64.0 - 0.5;
            let bound = if expected == DType::Q8_0 { 0.5 / 127.0 * 0.51 } else { 0.0 };
            assert!((value - written).abs() <= bound, "{} value {i}: {value}, written {written}", spec.gguf_name);
        }
    }
    let vocabulary = unigram(checkpoint);
    assert_eq!((vocabulary.pieces.len(), &*vocabulary.pieces[3].text, &*vocabulary.pieces[19].text), (20, "▁", "p"));
    assert_eq!((vocabulary.pieces[19].score, vocabulary.charsmap.unwrap().len()), (-3.0, 4 + 1024 + 2));
}
