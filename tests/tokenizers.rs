//! Tokenizers of other kinds than Unigram: the ids of 2,000 lines in several scripts are their references' (golden/
//! make_tokenizers.py and make_other_tokenizers.py), from the files they come in and from a GGUF file.

use std::path::PathBuf;

use serde_json::{Value, json};
use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::tokenizer::{PieceModel, Tokenizer, Vocabulary};
use t5_tests::paths;
use t5_tests::wide::encoder;

fn place(file: &str) -> PathBuf {
    paths::golden("tokenizers").join(file)
}

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(place("lines.txt")).unwrap();
    let lines: Vec<String> = text.strip_suffix('\n').unwrap().split('\n').map(str::to_owned).collect();
    assert_eq!(lines.len(), 2000);
    lines
}

/// Lists of ids, each behind its length.
fn ids(file: &str) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(place(file)).unwrap();
    let mut numbers = bytes.as_chunks().0.iter().map(|bytes| u32::from(u16::from_le_bytes(*bytes)));
    let mut lists = Vec::new();
    while let Some(count) = numbers.next() {
        lists.push(numbers.by_ref().take(count as usize).collect());
    }
    lists
}

/// The vocabulary after a stay in a GGUF file whose embedding has a row for each piece.
fn through_gguf(vocabulary: Vocabulary) -> Vocabulary {
    let folder = encoder(vocabulary.len(), |config| {
        if let Vocabulary::Unigram(unigram) = &vocabulary {
            config["pad_token_id"] = unigram.pad_id.into();
            config["eos_token_id"] = unigram.eos_id.into();
        }
    });
    let mut checkpoint = Checkpoint::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    checkpoint.vocabulary = Some(vocabulary);
    stored(&checkpoint).vocabulary.unwrap()
}

fn stored(checkpoint: &Checkpoint) -> Checkpoint {
    let mut bytes = Vec::new();
    quantize(checkpoint, &Policy::new(DType::F16), "x.gguf", &mut bytes, &mut ()).unwrap();
    Checkpoint::from_gguf("x.gguf", Bytes::from_vec(bytes)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sentencepiece_models_of_every_kind_give_its_ids() {
    let lines = lines();
    let text = std::fs::read_to_string(place("models.json")).unwrap();
    let models: serde_json::Value = serde_json::from_str(&text).unwrap();
    let models = models["models"].as_array().unwrap();
    let all = ids("ids.bin");
    assert_eq!(all.len(), models.len() * lines.len());
    for (entry, expected) in models.iter().zip(all.chunks(lines.len())) {
        let name = entry["model"].as_str().unwrap();
        let bytes = std::fs::read(place(&format!("{name}.model"))).unwrap();
        let vocabulary = Vocabulary::from_sentencepiece(name, &bytes, 0).unwrap();
        let Vocabulary::Unigram(pieces) = &vocabulary else { panic!("{name}: not of pieces") };
        assert_ne!(pieces.model, PieceModel::Unigram, "{name}");
        assert_eq!(pieces.pieces.len() as u64, entry["pieces"].as_u64().unwrap(), "{name}");
        let again = through_gguf(vocabulary.clone());
        assert_eq!(again, vocabulary, "{name}");
        let tokenizer = Tokenizer::new(name, &again).unwrap();
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(&tokenizer.encode_prefix(line), expected, "{name}: {line:?}");
        }
    }
}

/// Of pieces that come twice the last one counts, as in the `tokenizers` crate; also in the file that is made of them.
#[test]
fn the_last_of_equal_pieces_counts() {
    let text = std::fs::read_to_string(paths::golden("families/unigram").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    let vocabulary = json["model"]["vocab"].as_array_mut().unwrap();
    assert_eq!(vocabulary[5][0], "s");
    vocabulary[6] = vocabulary[5].clone();
    let vocabulary = Vocabulary::from_tokenizer_json("t.json", json.to_string().as_bytes()).unwrap();
    let again = through_gguf(vocabulary.clone());
    assert_eq!(again, vocabulary);
    for vocabulary in [vocabulary, again] {
        assert_eq!(Tokenizer::new("t.json", &vocabulary).unwrap().encode("ss"), [15, 6, 1]);
    }
}

#[test]
fn unknown_types_of_sentencepiece_models_are_refused() {
    let mut bytes = std::fs::read(place("char.model")).unwrap();
    // Field 3 of the trainer's settings, which follow the pieces: its only value 4.
    let at = bytes.windows(2).rposition(|window| window == [0x18, 4]).unwrap();
    bytes[at + 1] = 9;
    let error = Vocabulary::from_sentencepiece("x.model", &bytes, 0).unwrap_err().to_string();
    assert_eq!(error, "x.model: tokenizer: the model has the unknown type 9, expected 1 to 4");
}

/// A folder with a tokenizer in parts.
fn in_parts(name: &str) -> tempfile::TempDir {
    let versions = std::fs::read_to_string(place(&format!("{name}/versions.json"))).unwrap();
    let versions: serde_json::Value = serde_json::from_str(&versions).unwrap();
    let folder = encoder(versions["rows"].as_u64().unwrap() as usize, |_| ());
    for entry in std::fs::read_dir(place(name)).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn tokenizers_in_parts_give_the_library_s_ids() {
    let mut lines = lines();
    lines.push("a <extra_id_1> b<extra_id_0>".to_owned());
    for name in ["roberta", "gpt2", "bert"] {
        let folder = in_parts(name);
        let checkpoint = Checkpoint::open(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let stored = stored(&checkpoint);
        assert_eq!(stored.vocabulary, checkpoint.vocabulary, "{name}");
        let tokenizer = Tokenizer::new(name, &stored.vocabulary.unwrap()).unwrap();
        for (line, expected) in lines.iter().zip(ids(&format!("{name}/ids.bin"))) {
            let found = tokenizer.encode(line);
            assert_eq!(found, expected, "{name}: {line:?}");
            let mut stream = tokenizer.stream(true);
            let mut text: String = found.iter().map(|&id| stream.push(id).to_owned()).collect();
            text += stream.finish();
            if name != "bert" {
                // Byte-level pieces are joined as they are, so that pieces of text add up.
                assert_eq!(text, tokenizer.decode(&found, true), "{name}: {line:?}");
            }
        }
        assert_eq!(tokenizer.sentinel_id(1).is_some(), name == "roberta");
    }
}

/// How a token is looked for, as the files say: transformers' RobertaTokenizer gives these ids.
#[test]
fn added_tokens_in_parts_keep_their_flags() {
    let token = |n: u32| {
        json!({"content": format!("<extra_id_{n}>"), "single_word": false, "lstrip": true, "rstrip": n == 2,
            "normalized": true, "special": true})
    };
    let decoder: serde_json::Map<String, Value> = (0..3).map(|n| ((600 + n).to_string(), token(n))).collect();
    let folder = in_parts("roberta");
    let edit = |file: &str, key: &str, value: Value| {
        let path = folder.path().join(file);
        let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        std::fs::write(path, json.to_string()).unwrap();
    };
    let check = || {
        let vocabulary = Checkpoint::open(folder.path()).unwrap().vocabulary.unwrap();
        let tokenizer = Tokenizer::new("roberta", &vocabulary).unwrap();
        assert_eq!(tokenizer.encode("x  <extra_id_0>"), [0, 92, 600, 2]);
        assert_eq!(tokenizer.encode("a <extra_id_1> b<extra_id_0>"), [0, 69, 601, 404, 600, 2]);
        assert_eq!(tokenizer.encode("a<extra_id_2> b"), [0, 69, 602, 70, 2]);
    };
    // As transformers 4 wrote it: ids in added_tokens.json, all else here, or in an object for each token.
    edit("special_tokens_map.json", "additional_special_tokens", (0..3).map(token).collect());
    check();
    edit("tokenizer_config.json", "added_tokens_decoder", decoder.into());
    edit("special_tokens_map.json", "additional_special_tokens", Value::Null);
    check();
}
