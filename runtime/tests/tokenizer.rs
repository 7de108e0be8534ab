//! Tokenizers against their references: the `tokenizers` crate, run here on the same files, and values made by its
//! library for Python, SentencePiece and transformers (`tokenizer/golden.json`, beside the script that made it).

mod common;

use common::shared;
use proptest::prelude::*;
use serde_json::Value;
use std::process::Command;
use t5_runtime::tokenizer::{
    AddedToken, Piece, PieceKind, PieceModel, Tokenizer, UnigramVocabulary, Vocabulary, Whitespace,
};

const SMALL_JSON: &[u8] = include_bytes!("tokenizer/small.json");
const SMALL_MODEL: &[u8] = include_bytes!("tokenizer/small.model");
const FALLBACK_MODEL: &[u8] = include_bytes!("tokenizer/fallback.model");
const GOLDEN: &[u8] = include_bytes!("tokenizer/golden.json");

fn golden() -> Value {
    serde_json::from_slice(GOLDEN).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn id_lists(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Our tokenizer and the crate's, from one tokenizer.json.
fn both(json: &[u8]) -> (Tokenizer, tokenizers::Tokenizer) {
    let vocabulary = Vocabulary::from_tokenizer_json("test", json).unwrap();
    let mut reference = tokenizers::Tokenizer::from_bytes(json).unwrap();
    reference.with_truncation(None).unwrap();
    reference.with_padding(None);
    (Tokenizer::new("test", &vocabulary).unwrap(), reference)
}

/// The one known difference: a text that ends with `</s>` gets no second one.
fn without_double_eos(mut ids: Vec<u32>, eos: u32) -> Vec<u32> {
    if ids.ends_with(&[eos, eos]) {
        ids.pop();
    }
    ids
}

/// The text of a stream that is given `ids` one by one.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.stream(skip_special);
    let mut text: String = ids.iter().map(|&id| stream.push(id).to_string()).collect();
    text.push_str(stream.finish());
    text
}

/// Asserts that ids and texts are those of the reference, and that a stream gives the same text.
fn assert_same(name: &str, ours: &Tokenizer, reference: &tokenizers::Tokenizer, text: &str) {
    let encoding = reference.encode(text, true).unwrap();
    let ids = ours.encode(text);
    let expected = without_double_eos(encoding.get_ids().to_vec(), ours.eos_id());
    let shown: String = text.chars().take(200).collect();
    assert_eq!(ids, expected, "{name}: {shown:?} is {:?}", encoding.get_tokens());
    for skip_special in [false, true] {
        let expected = reference.decode(&ids, skip_special).unwrap();
        assert_eq!(ours.decode(&ids, skip_special), expected, "{name}: {shown:?} back");
        assert_eq!(streamed(ours, &ids, skip_special), expected, "{name}: {shown:?} streamed");
    }
}

/// Lines of 100 kB that take long if anything is not linear.
fn long_lines() -> Vec<String> {
    let units = [
        "a",
        "é",
        "and ",
        "<",
        " ",
        "e\u{301}",
        "\u{301}",
        "🇩",
        "👩\u{200d}",
        "क\u{94d}",
        "<extra_id_0>",
        "日",
        "</s> ",
    ];
    units.iter().map(|unit| unit.repeat(100_000 / unit.len())).collect()
}

#[test]
fn every_variant_gives_the_ids_of_the_reference() {
    let golden = golden();
    let base: Value = serde_json::from_slice(SMALL_JSON).unwrap();
    let charsmap = base["normalizer"]["precompiled_charsmap"].clone();
    for (name, keys) in golden["variants"].as_object().unwrap() {
        let mut description = base.clone();
        for (key, value) in keys.as_object().unwrap() {
            let mut value = value.clone();
            let steps = match value.get_mut("normalizers") {
                Some(steps) => steps.as_array_mut().unwrap().iter_mut().collect(),
                None => vec![&mut value],
            };
            for step in steps.into_iter().filter(|step| step.get("precompiled_charsmap").is_some()) {
                step["precompiled_charsmap"] = charsmap.clone();
            }
            description[key] = value;
        }
        let (ours, reference) = both(description.to_string().as_bytes());
        assert_eq!(ours.vocab_size(), reference.get_vocab_size(true));
        let texts = strings(&golden["texts"]);
        texts.iter().for_each(|text| assert_same(name, &ours, &reference, text));
        long_lines().iter().for_each(|text| assert_same(name, &ours, &reference, text));
        for pair in texts.windows(2) {
            assert_same(name, &ours, &reference, &pair.join("<extra_id_3>"));
        }
    }
}

/// Compares with values that another program computed. ByT5's tokenizer adds no second `</s>` either.
fn assert_golden(name: &str, ours: &Tokenizer, texts: &[String], golden: &Value) {
    let expected = id_lists(&golden["ids"]);
    assert_eq!(texts.len(), expected.len());
    for (text, ids) in texts.iter().zip(&expected) {
        let ids = if name == "byt5" { ids.clone() } else { without_double_eos(ids.clone(), ours.eos_id()) };
        assert_eq!(ours.encode(text), ids, "{name}: {text:?}");
    }
    let lists: Vec<Vec<u32>> = expected.into_iter().chain(id_lists(&golden["lists"])).collect();
    for (key, skip_special) in [("decoded", false), ("decoded_skip_special", true)] {
        let texts = strings(&golden[key]);
        assert_eq!(texts.len(), lists.len());
        for (ids, text) in lists.iter().zip(texts) {
            assert_eq!(ours.decode(ids, skip_special), text, "{name}: {ids:?}");
            assert_eq!(streamed(ours, ids, skip_special), text, "{name}: {ids:?} streamed");
        }
    }
}

#[test]
fn golden_values_of_other_programs() {
    let golden = golden();
    let texts = strings(&golden["texts"]);
    let published = Vocabulary::from_tokenizer_json("small.json", SMALL_JSON).unwrap();
    let ours = Tokenizer::new("small.json", &published).unwrap();
    assert_golden("small.json", &ours, &texts, &golden["small.json, published"]);
    // The model file it was made from says the same.
    let from_model = Vocabulary::from_sentencepiece("small.model", SMALL_MODEL, 20).unwrap();
    let ours = Tokenizer::new("small.model", &from_model).unwrap();
    assert_golden("small.model", &ours, &texts, &golden["small.json, published"]);
    if let Some(folder) = shared("models/t5-tokenizer") {
        let json = std::fs::read(folder.join("tokenizer.json")).unwrap();
        let model = std::fs::read(folder.join("spiece.model")).unwrap();
        for (name, vocabulary) in [
            ("tokenizer.json", Vocabulary::from_tokenizer_json("tokenizer.json", &json).unwrap()),
            ("spiece.model", Vocabulary::from_sentencepiece("spiece.model", &model, 100).unwrap()),
        ] {
            assert_golden(name, &Tokenizer::new(name, &vocabulary).unwrap(), &texts, &golden["t5"]);
        }
    }
}

#[test]
fn byte_fallback_and_kept_spaces_as_in_sentencepiece() {
    let golden = &golden()["sentencepiece fallback.model"];
    let vocabulary = Vocabulary::from_sentencepiece("fallback.model", FALLBACK_MODEL, 300).unwrap();
    let Vocabulary::Unigram(unigram) = &vocabulary else { panic!("a Unigram model") };
    assert!(unigram.byte_fallback);
    assert_eq!(unigram.whitespace, Whitespace::Verbatim);
    let ours = Tokenizer::new("fallback.model", &vocabulary).unwrap();
    let rows = strings(&golden["texts"]).into_iter().zip(id_lists(&golden["ids"])).zip(strings(&golden["decoded"]));
    for ((text, ids), decoded) in rows {
        // SentencePiece takes the longest entry of the character map at each place, the crate the shortest that a
        // grapheme cluster starts with, for the whole cluster.
        if text.contains("a\u{301}\u{302}") || text.contains("\r\n") {
            continue;
        }
        assert_eq!(ours.encode_prefix(&text), ids, "{text:?}");
        assert_eq!(ours.decode(&ids, true), decoded, "{text:?}");
        assert_eq!(streamed(&ours, &ids, true), decoded, "{text:?}");
    }
    // A character is given out when its last byte came.
    let ids = ours.encode_prefix("a😀b");
    let mut stream = ours.stream(true);
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).to_string()).collect();
    assert!(parts.contains(&"😀".to_string()), "{parts:?}");
    // Bytes that are no character: one U+FFFD each, wherever they end.
    let byte = |byte: u8| ours.id_of(&format!("<0x{byte:02X}>")).unwrap();
    let a = ours.id_of("a").unwrap();
    let damaged =
        [a, byte(0xE2), byte(0x82), a, byte(0xF0), byte(0x9F), byte(0xE2), byte(0x82), byte(0xAC), byte(0x80)];
    assert_eq!(ours.decode(&damaged, true), "a\u{FFFD}\u{FFFD}a\u{FFFD}\u{FFFD}€\u{FFFD}");
    assert_eq!(streamed(&ours, &damaged, true), ours.decode(&damaged, true));
    // Sentinels follow, 300 of them, as umT5 has it; a user's own symbol is not special.
    assert_eq!(ours.sentinel_id(0), Some(ours.vocab_size() as u32 - 1));
    assert_eq!(ours.sentinel_id(299), Some(ours.vocab_size() as u32 - 300));
    let symbol = ours.id_of("<2de>").unwrap();
    assert_eq!(ours.encode_prefix("<2de> x")[0], symbol);
    assert!(!ours.is_special(symbol) && ours.decode(&[symbol], true) == "<2de>");
}

#[test]
fn byte_fallback_as_in_the_reference() {
    let Vocabulary::Unigram(unigram) = Vocabulary::from_sentencepiece("fallback.model", FALLBACK_MODEL, 0).unwrap()
    else {
        panic!("a Unigram model")
    };
    let mut description: Value = serde_json::from_slice(SMALL_JSON).unwrap();
    let vocabulary = unigram.pieces.iter().map(|piece| serde_json::json!([piece.text, piece.score])).collect();
    description["model"]["vocab"] = Value::Array(vocabulary);
    description["model"]["byte_fallback"] = true.into();
    description["added_tokens"].as_array_mut().unwrap().truncate(3);
    let (ours, reference) = both(description.to_string().as_bytes());
    let mut spelled = 0;
    // Text that spells a byte piece is one of the departures.
    for text in strings(&golden()["texts"]).iter().filter(|text| !text.contains("<0x")) {
        let ids = ours.encode(text);
        let expected = without_double_eos(reference.encode(text.as_str(), true).unwrap().get_ids().to_vec(), 1);
        assert_eq!(ids, expected, "{text:?}");
        spelled += ids.iter().filter(|&&id| ours.piece(id).unwrap().starts_with("<0x")).count();
    }
    assert!(spelled > 100, "{spelled} byte pieces");
    assert_eq!(ours.decode(&ours.encode("日本語 😀"), true), "日本語 😀");
    assert!(ours.encode("<0x41>").len() > 3);
}

#[test]
fn lines_of_three_languages_give_the_ids_of_the_reference() {
    let mut lines = Vec::new();
    for name in ["en-de", "en-fr"] {
        let Some(path) = shared(&format!("data/tatoeba/{name}.dev.tsv")) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        lines.extend(text.lines().flat_map(|line| line.split('\t')).map(String::from));
    }
    lines.extend(packed_lines("data/novels.txt.xz", "xz -dc novels.txt.xz", 1000));
    lines.extend(packed_lines("data/multi30k.tar.xz", "tar -xJOf multi30k.tar.xz", 2000));
    assert!(lines.len() >= 5000, "{} lines", lines.len());
    let files = ["t5-tokenizer/tokenizer.json", "flan-t5-small-titler/tokenizer.json", "t5-tokenizer/spiece.model"];
    let mut reference = None;
    for file in files {
        let Some(path) = shared(&format!("models/{file}")) else { return };
        let bytes = std::fs::read(path).unwrap();
        let ours = if file.ends_with("json") {
            let (ours, crates) = both(&bytes);
            reference = Some(crates);
            ours
        } else {
            let vocabulary = Vocabulary::from_sentencepiece(file, &bytes, 100).unwrap();
            Tokenizer::new(file, &vocabulary).unwrap()
        };
        let reference = reference.as_ref().unwrap();
        lines.iter().for_each(|line| assert_same(file, &ours, reference, line));
        if file.ends_with("json") {
            long_lines().iter().for_each(|line| assert_same(file, &ours, reference, line));
        }
    }
}

/// The first `count` lines of an archive, if the command that unpacks it is there.
fn packed_lines(path: &str, command: &str, count: usize) -> Vec<String> {
    let Some(path) = shared(path) else { return Vec::new() };
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).current_dir(path.parent().unwrap()).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().take(count).map(String::from).collect()
        }
        _ => {
            eprintln!("skipped: {} could not be unpacked with `{command}`", path.display());
            Vec::new()
        }
    }
}

#[test]
fn known_encodings() {
    if let Some(path) = shared("models/t5-tokenizer/tokenizer.json") {
        let (t5, _) = both(&std::fs::read(path).unwrap());
        let paragraph = "A long paragraph for summarization.";
        assert_eq!(t5.encode(paragraph), [71, 307, 8986, 21, 4505, 1635, 1707, 5, 1]);
        assert_eq!(t5.encode("Summary of the text."), [20698, 13, 8, 1499, 5, 1]);
        assert_eq!(t5.encode_prefix("Summary of the text."), [20698, 13, 8, 1499, 5]);
        let special = "<pad> Today is <unk> nice day </s>";
        assert_eq!(t5.encode(special), [0, 1960, 19, 2, 1245, 239, 1]);
        assert_eq!(t5.decode(&t5.encode(special), false), "<pad> Today is<unk> nice day</s>");
        assert_eq!(t5.encode(&format!("{paragraph}</s>")), t5.encode(paragraph));
        assert_eq!(t5.encode("Hello <extra_id_0>."), [8774, 32099, 3, 5, 1]);
        assert_eq!((t5.sentinel_id(0), t5.sentinel_id(99), t5.sentinel_id(100)), (Some(32099), Some(32000), None));
        assert_eq!((t5.pad_id(), t5.eos_id(), t5.unk_id(), t5.vocab_size()), (0, 1, 2, 32100));
        // Embedding rows without a piece, and ids beyond them, are unknown; what follows </s> counts.
        let ids = [8774, 32100, 4_000_000_000, 8774, 1, 8774];
        assert_eq!(t5.decode(&ids, false), "Hello<unk><unk> Hello</s> Hello");
        assert_eq!(t5.decode(&ids, true), "Hello Hello Hello");
    }
    if let Some(path) = shared("models/t5-tokenizer/spiece.model") {
        let mut vocabulary = Vocabulary::from_sentencepiece("spiece", &std::fs::read(path).unwrap(), 100).unwrap();
        let Vocabulary::Unigram(unigram) = &mut vocabulary else { panic!("a Unigram model") };
        unigram.legacy = false;
        let t5 = Tokenizer::new("spiece", &vocabulary).unwrap();
        assert_eq!(t5.encode("Hello <extra_id_0>."), [8774, 32099, 5, 1]);
        assert_eq!(t5.encode("Hello <extra_id_0> ."), [8774, 32099, 3, 5, 1]);
        assert_eq!(t5.encode(" Hello"), [8774, 1]);
    }
    if let Some(path) = shared("data/t5-fixtures/seqio-test-sentencepiece.model") {
        let bytes = std::fs::read(path).unwrap();
        let mut vocabulary = Vocabulary::from_sentencepiece("seqio", &bytes, 10).unwrap();
        assert_eq!(vocabulary.len(), 36);
        let seqio = Tokenizer::new("seqio", &vocabulary).unwrap();
        assert_eq!(seqio.encode_prefix("this is a test"), [11, 8, 6, 3, 8, 6, 3, 5, 10]);
        assert_eq!(seqio.decode(&[11, 8, 6, 3, 8, 6, 3, 5, 10], true), "this is a test");
        assert_eq!(seqio.decode(&[25], true), "v");
        assert_eq!(seqio.encode_prefix("<extra_id_0> <extra_id_1> v <extra_id_9>"), [35, 34, 3, 25, 26]);
        assert_eq!(seqio.decode(&seqio.encode("a a  a   a"), true), "a a a a");
        let Vocabulary::Unigram(unigram) = &mut vocabulary else { panic!("a Unigram model") };
        unigram.whitespace = Whitespace::Verbatim;
        let seqio = Tokenizer::new("seqio", &vocabulary).unwrap();
        assert_eq!(seqio.decode(&seqio.encode("a a  a   a"), true), "a a  a   a");
    }
}

#[test]
fn bytes_are_the_ids_of_byt5() {
    let byt5 = Tokenizer::new("test", &Vocabulary::bytes(384)).unwrap();
    let golden = &golden()["byt5"];
    assert_golden("byt5", &byt5, &strings(&golden["texts"]), golden);
    let text = "this is a test 🤗 你好";
    let ids = [119, 107, 108, 118, 35, 108, 118, 35, 100, 35, 119, 104, 118, 119, 35, 243, 162, 167, 154, 35, 231, 192];
    assert_eq!(byt5.encode_prefix(text)[..22], ids);
    assert_eq!(byt5.decode(&byt5.encode(text), true), text);
    // Sentinels have the ids of pre-training, from the top byte downwards.
    let spans = "The dog <extra_id_0> a ball<extra_id_1> park.";
    let ids =
        [87, 107, 104, 35, 103, 114, 106, 35, 258, 35, 100, 35, 101, 100, 111, 111, 257, 35, 115, 100, 117, 110, 49, 1];
    assert_eq!(byt5.encode(spans), ids);
    assert_eq!(byt5.decode(&ids, false), format!("{spans}</s>"));
    assert_eq!(byt5.decode(&ids, true), "The dog  a ball park.");
    assert_eq!((byt5.sentinel_id(0), byt5.sentinel_id(124), byt5.sentinel_id(125)), (Some(258), Some(134), None));
    // Other ids and what is not UTF-8 vanish.
    assert_eq!(byt5.decode(&[100, 259, 383, 4_000_000_000, 229, 101, 197, 172], true), "ab©");
    assert_eq!(byt5.decode(&[229, 133], true), "");
    assert_eq!((byt5.piece(100), byt5.piece(198), byt5.piece(258)), (Some("a"), Some("<0xC3>"), Some("<extra_id_0>")));
    for id in 0..byt5.vocab_size() as u32 {
        assert_eq!(byt5.id_of(byt5.piece(id).unwrap()), Some(id));
    }
}

#[test]
fn sentinels_of_seqio_swallow_the_space_before_them() {
    let Vocabulary::Unigram(mut unigram) = Vocabulary::from_sentencepiece("small", SMALL_MODEL, 0).unwrap() else {
        panic!("a Unigram model")
    };
    let plain = unigram.pieces.len() as u32;
    // As SeqIO appends them to the model: field 1, text, score, type.
    let mut bytes = SMALL_MODEL.to_vec();
    for n in [1, 0] {
        let text = format!("▁<extra_id_{n}>");
        let mut piece = vec![10, text.len() as u8];
        piece.extend(text.bytes());
        piece.extend([21, 0, 0, 0, 0, 24, 4]);
        bytes.extend([10, piece.len() as u8]);
        bytes.extend(piece);
    }
    let vocabulary = Vocabulary::from_sentencepiece("seqio", &bytes, 100).unwrap();
    assert_eq!(vocabulary.len() as u32, plain + 2, "no further sentinels");
    let tokenizer = Tokenizer::new("seqio", &vocabulary).unwrap();
    assert_eq!((tokenizer.sentinel_id(0), tokenizer.sentinel_id(1)), (Some(plain + 1), Some(plain)));
    unigram.append_sentinels(2);
    let appended = Tokenizer::new("small", &Vocabulary::Unigram(unigram)).unwrap();
    for text in ["The gardener <extra_id_0> the roses", "<extra_id_0> <extra_id_1>"] {
        assert_eq!(tokenizer.encode(text), appended.encode(text));
    }
}

#[test]
fn pieces_have_their_ids() {
    let tokenizer = both(SMALL_JSON).0;
    for id in 0..tokenizer.vocab_size() as u32 {
        assert_eq!(tokenizer.id_of(tokenizer.piece(id).unwrap()), Some(id));
    }
    assert_eq!(tokenizer.piece(tokenizer.vocab_size() as u32), None);
    assert_eq!(tokenizer.id_of("no such piece"), None);
    assert_eq!(tokenizer.piece(tokenizer.sentinel_id(7).unwrap()), Some("<extra_id_7>"));
    let special: Vec<u32> = (0..=u32::from(u8::MAX)).filter(|&id| tokenizer.is_special(id)).collect();
    assert_eq!(special.len(), 23, "{special:?}");
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let tokenizer = both(SMALL_JSON).0;
    let texts = strings(&golden()["texts"]);
    let expected: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (text, ids) in texts.iter().zip(&expected) {
                    assert_eq!(&tokenizer.encode(text), ids);
                    assert_eq!(streamed(&tokenizer, ids, true), tokenizer.decode(ids, true));
                }
            });
        }
    });
}

#[test]
fn settings_that_are_left_out_are_told() {
    let notes = Vocabulary::ignored_in_tokenizer_json("small.json", SMALL_JSON).unwrap();
    assert_eq!(notes, ["small.json: truncation to 48 tokens is ignored"]);
    assert!(Vocabulary::ignored_in_tokenizer_json("x", b"[").is_err());
}

#[test]
fn json_that_cannot_be_represented_is_refused_by_name() {
    let refused = |change: fn(&mut Value), expected: &str| {
        let mut description: Value = serde_json::from_slice(SMALL_JSON).unwrap();
        change(&mut description);
        let error = Vocabulary::from_tokenizer_json("t.json", description.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should contain {expected}");
        assert!(error.to_string().starts_with("t.json: "), "{error}");
    };
    refused(|d| d["model"]["type"] = "BPE".into(), "the model is BPE, expected Unigram");
    refused(
        |d| d["model"] = serde_json::json!({"type": "WordPiece", "vocab": {"a": 0}}),
        "the model is WordPiece, expected Unigram",
    );
    refused(|d| d["model"]["unk_id"] = Value::Null, "no unk_id");
    refused(|d| d["model"]["unk_id"] = 236.into(), "id 236, but there are 236 pieces");
    refused(|d| d["model"]["vocab"][5] = "x".into(), "not a Unigram tokenizer");
    refused(|d| d["normalizer"] = serde_json::json!({"type": "Lowercase"}), "normalizer: Lowercase is not supported");
    refused(|d| d["normalizer"]["precompiled_charsmap"] = "?".into(), "not base64");
    refused(
        |d| {
            let precompiled = d["normalizer"].clone();
            let strip = serde_json::json!({"type": "Strip", "strip_left": false, "strip_right": true});
            d["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [strip, precompiled]});
        },
        "comes too late",
    );
    refused(
        |d| {
            d["normalizer"] = serde_json::json!({"type": "Strip", "strip_left": false, "strip_right": true});
            d["pre_tokenizer"] = d["decoder"].clone();
        },
        "Strip without Replace",
    );
    refused(|d| d["pre_tokenizer"] = Value::Null, "pre_tokenizer: there is none");
    refused(|d| d["pre_tokenizer"] = serde_json::json!({"type": "ByteLevel"}), "ByteLevel is not supported");
    refused(
        |d| d["pre_tokenizer"]["pretokenizers"][0]["type"] = "Digits".into(),
        "expected Metaspace or WhitespaceSplit",
    );
    refused(|d| d["pre_tokenizer"]["pretokenizers"][1]["replacement"] = "_".into(), "the replacement of Metaspace");
    refused(|d| d["pre_tokenizer"]["pretokenizers"][1]["prepend_scheme"] = "first".into(), "only prepend_scheme");
    refused(
        |d| d["pre_tokenizer"]["pretokenizers"][1]["prepend_scheme"] = "last".into(),
        "prepend_scheme is not known",
    );
    refused(|d| d["decoder"] = serde_json::json!({"type": "WordPiece"}), "decoder: WordPiece is not supported");
    refused(|d| d["decoder"]["prepend_scheme"] = "never".into(), "it keeps the first space");
    refused(|d| d["post_processor"] = serde_json::json!({"type": "BertProcessing"}), "BertProcessing is not supported");
    refused(
        |d| {
            let eos = d["post_processor"]["single"][1].clone();
            d["post_processor"]["single"].as_array_mut().unwrap().insert(0, eos);
        },
        "expected the text and one special token behind it",
    );
    refused(|d| d["added_tokens"][1]["single_word"] = true.into(), "single_word is not supported");
    refused(|d| d["added_tokens"][1]["content"] = "</x>".into(), "the model has \"</s>\" at this id");
    refused(|d| d["added_tokens"][22]["id"] = 300.into(), "there are only 236 ids before it");
    let error = Vocabulary::from_tokenizer_json("t.json", b"{}").unwrap_err();
    assert!(error.to_string().starts_with("t.json: not a Unigram tokenizer"), "{error}");
}

#[test]
fn models_that_cannot_be_represented_are_refused_by_name() {
    let refused = |bytes: &[u8], expected: &str| {
        let error = Vocabulary::from_sentencepiece("m.model", bytes, 100).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should contain {expected}");
        assert!(error.to_string().starts_with("m.model: "), "{error}");
    };
    // One piece of each kind, then fields of the trainer (2), the normalizer (3) and the denormalizer (5).
    let unknown = [10, 9, 10, 5, b'<', b'u', b'n', b'k', b'>', 24, 2];
    let end = [10, 8, 10, 4, b'<', b'/', b's', b'>', 24, 3];
    let pad = [10, 9, 10, 5, b'<', b'p', b'a', b'd', b'>', 24, 3];
    let a = [10, 3, 10, 1, b'a'];
    let good = [&unknown[..], &end, &pad, &a].concat();
    let with = |tail: &[u8]| [&good[..], tail].concat();
    assert!(Vocabulary::from_sentencepiece("m.model", &good, 100).is_ok());
    refused(b"", "it has no pieces");
    refused(&with(&[18, 2, 24, 5]), "the model has the unknown type 5, expected 1 to 4");
    refused(&with(&[18, 2, 24, 9]), "unknown type 9");
    refused(&with(&[18, 3, 0xC0, 1, 1]), "treat_whitespace_as_suffix");
    refused(&with(&[26, 2, 40, 0]), "escape_whitespaces");
    refused(&with(&[42, 3, 18, 1, 0]), "denormalizer");
    refused(&with(&[10, 0]), "piece 4: it is empty");
    refused(&with(&[10, 3, 10, 1, 0xFF]), "piece 4: its text is not UTF-8");
    refused(&with(&[10, 5, 10, 1, b'b', 24, 7]), "piece 4: its type is 7");
    refused(&with(&unknown), "two unknown pieces");
    refused(&[&end[..], &pad, &a].concat(), "there is no unknown piece");
    refused(&with(&[10]), "1 bytes were expected where 0 are left");
    refused(&with(&[10, 100, 1]), "100 bytes were expected where 1 are left");
    refused(&with(&[10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]), "bytes");
    refused(&with(&[0xFF; 12]), "more than 64 bits");
    refused(&with(&[11]), "the unknown encoding 3");
    let error = Vocabulary::from_sentencepiece("m.model", &good, u32::MAX).unwrap_err();
    assert!(error.to_string().contains("expected at most 65536"), "{error}");
}

/// A vocabulary of five pieces.
fn tiny() -> UnigramVocabulary {
    let piece = |text: &str, score: f32, kind| Piece { text: text.into(), score, kind };
    UnigramVocabulary {
        model: PieceModel::Unigram,
        pieces: vec![
            piece("<pad>", 0.0, PieceKind::Control),
            piece("</s>", 0.0, PieceKind::Control),
            piece("<unk>", 0.0, PieceKind::Unknown),
            piece("▁", -1.0, PieceKind::Normal),
            piece("a", -2.0, PieceKind::Normal),
        ],
        unk_id: 2,
        eos_id: 1,
        pad_id: 0,
        charsmap: None,
        whitespace: Whitespace::Split,
        add_dummy_prefix: true,
        legacy: true,
        split_words: true,
        byte_fallback: false,
        added: (0..3).map(AddedToken::special).collect(),
    }
}

/// Encoding writes a mark in front of each stretch behind an added token; behind the end of a line it is no space.
#[test]
fn lines_come_back_as_they_were() {
    let mut vocabulary = tiny();
    for text in ["\n", "<b>"] {
        let id = vocabulary.pieces.len() as u32;
        vocabulary.pieces.push(Piece { text: text.into(), score: 0.0, kind: PieceKind::UserDefined });
        vocabulary.added.push(AddedToken { special: false, outside: true, ..AddedToken::special(id) });
    }
    let (tokenizer, modern) = [true, false]
        .map(|legacy| UnigramVocabulary { legacy, ..vocabulary.clone() })
        .map(|vocabulary| Tokenizer::new("tiny", &Vocabulary::Unigram(vocabulary)).unwrap())
        .into();
    let ids = tokenizer.encode_prefix("aa a\na\n\na<b>a");
    assert_eq!(ids, [3, 4, 4, 3, 4, 5, 3, 4, 5, 5, 3, 4, 6, 3, 4]);
    assert_eq!(tokenizer.decode(&ids, true), "aa a\na\n\na<b> a");
    assert_eq!(streamed(&tokenizer, &ids, true), tokenizer.decode(&ids, true));
    // Where no mark was put, one that is there is a space of the text.
    assert_eq!(modern.encode_prefix("a\na"), [3, 4, 5, 4]);
    assert_eq!(modern.decode(&[3, 4, 5, 3, 4], true), "a\n a");
}

#[test]
fn vocabularies_that_contradict_themselves_are_refused() {
    let refused = |change: fn(&mut UnigramVocabulary), expected: &str| {
        let mut vocabulary = tiny();
        change(&mut vocabulary);
        match Tokenizer::new("v.gguf", &Vocabulary::Unigram(vocabulary)) {
            Err(error) => assert!(error.to_string().contains(expected), "{error} should contain {expected}"),
            Ok(_) => panic!("{expected} was not noticed"),
        }
    };
    assert!(Tokenizer::new("v.gguf", &Vocabulary::Unigram(tiny())).is_ok());
    refused(|v| v.unk_id = 5, "<unk> has the id 5, but there are only 5 pieces");
    refused(|v| v.eos_id = 9, "</s> has the id 9");
    refused(|v| v.pad_id = u32::MAX, "<pad> has the id");
    refused(|v| v.added.push(AddedToken::special(5)), "an added token has the id 5");
    refused(|v| v.pieces[4].score = f32::NAN, "piece 4 (\"a\") has the score NaN");
    refused(|v| v.pieces.truncate(3), "there is no normal piece");
    refused(|v| v.byte_fallback = true, "there is no byte piece <0x00>");
    refused(|v| v.charsmap = Some(vec![]), "it has no size field");
    refused(|v| v.charsmap = Some(vec![4, 0, 0, 0]), "shorter than its size field says");
    refused(|v| v.charsmap = Some(vec![2, 0, 0, 0, 0, 0]), "not a multiple of 4");
    refused(|v| v.charsmap = Some(vec![0; 5]), "it has no unit");
    refused(|v| v.charsmap = Some(vec![4, 0, 0, 0, 0, 0, 0, 0, 0]), "unit 0 leads outside");
    refused(|v| v.charsmap = Some([vec![0, 4, 0, 0], vec![0; 1024], vec![0xFF]].concat()), "not UTF-8");
    refused(|v| v.charsmap = Some([vec![0, 4, 0, 0], vec![0; 1024], b"x".to_vec()].concat()), "do not end in NUL");
    let mut leaf = [vec![0, 4, 0, 0], vec![0; 1024], b"x\0".to_vec()].concat();
    leaf[4 + 1] = 1;
    let mut vocabulary = tiny();
    // The root is a leaf whose value is its own number, 256: beyond two bytes of replacements.
    vocabulary.charsmap = Some(leaf);
    let error = Tokenizer::new("v.gguf", &Vocabulary::Unigram(vocabulary)).err().unwrap();
    assert!(error.to_string().contains("unit 0 has no replacement"), "{error}");
    let error = Tokenizer::new(
        "v.gguf",
        &match Vocabulary::bytes(384) {
            Vocabulary::Bytes(mut bytes) => {
                bytes.offset = 4;
                Vocabulary::Bytes(bytes)
            }
            other => other,
        },
    );
    assert!(error.err().unwrap().to_string().contains("byte 0 has the id 4, expected 3"));
}

/// Whatever a file says, reading it, building from it and using it end well.
fn use_if_it_can_be_read(vocabulary: t5_runtime::Result<Vocabulary>, text: &str) {
    let Ok(vocabulary) = vocabulary else { return };
    let Ok(tokenizer) = Tokenizer::new("test", &vocabulary) else { return };
    let ids = tokenizer.encode(text);
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    assert_eq!(streamed(&tokenizer, &ids, false), tokenizer.decode(&ids, false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        text in "\\PC{0,20}|[a-e ＡÄé\u{301}<>\t]{0,30}",
    ) {
        let damaged = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            changes.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte });
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            bytes
        };
        use_if_it_can_be_read(Vocabulary::from_sentencepiece("test", &damaged(SMALL_MODEL), 3), &text);
        use_if_it_can_be_read(Vocabulary::from_sentencepiece("test", &damaged(FALLBACK_MODEL), 3), &text);
        use_if_it_can_be_read(Vocabulary::from_tokenizer_json("test", &damaged(SMALL_JSON)), &text);
        let Ok(Vocabulary::Unigram(mut unigram)) = Vocabulary::from_sentencepiece("test", SMALL_MODEL, 3) else {
            panic!("the fixture is good")
        };
        unigram.charsmap = unigram.charsmap.map(|charsmap| damaged(&charsmap));
        use_if_it_can_be_read(Ok(Vocabulary::Unigram(unigram)), &text);
    }

    #[test]
    fn any_bytes_are_no_model(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        use_if_it_can_be_read(Vocabulary::from_sentencepiece("test", &bytes, 3), "a");
        use_if_it_can_be_read(Vocabulary::from_tokenizer_json("test", &bytes), "a");
    }

    #[test]
    fn any_text_has_the_ids_of_the_reference(
        text in "(\\PC|[ \t\n\0a-zA-Zéß\u{301}\u{200d}▁<>]|</s>|<extra_id_1>){0,40}",
    ) {
        thread_local!(static BOTH: (Tokenizer, tokenizers::Tokenizer) = both(SMALL_JSON));
        BOTH.with(|(ours, reference)| assert_same("small.json", ours, reference, &text));
    }

    #[test]
    fn a_stream_of_any_ids_is_their_text(ids in prop::collection::vec(0u32..600, 0..60), skip_special: bool) {
        let fallback = Vocabulary::from_sentencepiece("test", FALLBACK_MODEL, 10).unwrap();
        for vocabulary in [fallback, Vocabulary::bytes(384)] {
            let tokenizer = Tokenizer::new("test", &vocabulary).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids, skip_special), tokenizer.decode(&ids, skip_special));
        }
    }
}
