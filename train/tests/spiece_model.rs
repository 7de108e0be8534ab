//! The SentencePiece model that an export writes, read by the runtime and by the `sentencepiece` library.

#[path = "../../tests/src/shared.rs"]
mod shared_folder;

use std::path::Path;

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::tokenizer::{Tokenizer, Vocabulary};
use t5_train::vocabulary::{self, to_sentencepiece};

fn checkpoint() -> Checkpoint {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf");
    Checkpoint::open(&model).unwrap()
}

/// The built-in model's vocabulary, its SentencePiece model, and both as tokenizers. Tokens that were added behind the
/// sentinels, which no SentencePiece model can say, are left out.
fn pocket() -> (Vec<u8>, Tokenizer, Tokenizer) {
    let mut arrays = checkpoint().vocabulary.unwrap();
    let sentinels = vocabulary::Vocabulary::new(&arrays, Path::new("pocket")).unwrap().sentinels();
    let Vocabulary::Unigram(unigram) = &mut arrays else { panic!("expected pieces") };
    unigram.pieces.truncate(sentinels.first as usize + 1);
    unigram.added.retain(|token| token.special || !token.outside);
    let Vocabulary::Unigram(unigram) = &arrays else { panic!("expected pieces") };
    let bytes = to_sentencepiece(unigram, sentinels);
    let read = Vocabulary::from_sentencepiece("spiece.model", &bytes, sentinels.count).unwrap();
    let Vocabulary::Unigram(again) = &read else { panic!("expected pieces") };
    // Pieces with scores and kinds, sentinels and the character map come back.
    assert_eq!(again.pieces, unigram.pieces);
    assert_eq!(again.charsmap, unigram.charsmap);
    assert_eq!((again.pad_id, again.eos_id, again.unk_id), (unigram.pad_id, unigram.eos_id, unigram.unk_id));
    let tokenizer = |arrays: &Vocabulary| Tokenizer::new("pocket", arrays).unwrap();
    (bytes, tokenizer(&arrays), tokenizer(&read))
}

/// `sentencepiece.json` has ids by the library, made from the very bytes that are written here.
#[test]
fn the_sentencepiece_library_gives_the_same_ids() {
    let (bytes, ours, read) = pocket();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spiece.model");
    std::fs::write(&file, &bytes).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("data/sentencepiece.json")).unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    let made_of = golden["crc32"].as_u64().unwrap();
    assert_eq!(u64::from(crc.sum()), made_of, "make_sentencepiece.py {} makes the values anew", file.display());
    let rows = golden["rows"].as_array().unwrap();
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<u32> = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(read.encode_prefix(text), ids, "the model written, {text:?}");
        assert_eq!(ours.encode_prefix(text), ids, "the vocabulary itself, {text:?}");
    }
    assert!(rows.len() > 30);
}

/// A run whose vocabulary is such a file keeps it as that, with the class that reads it.
#[test]
fn a_sentencepiece_vocabulary_is_kept_as_one() {
    let (bytes, ..) = pocket();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spiece.model");
    std::fs::write(&file, &bytes).unwrap();
    let vocabulary = vocabulary::Vocabulary::read(&file).unwrap();
    let files = t5_train::export::model_files(&checkpoint().config, 20, Some(bytes.clone()), &vocabulary);
    let contents = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, contents)| contents.as_slice());
    assert_eq!(contents("spiece.model"), Some(bytes.as_slice()));
    assert_eq!(contents("tokenizer.json"), None);
    let config: serde_json::Value = serde_json::from_slice(contents("tokenizer_config.json").unwrap()).unwrap();
    assert_eq!((&config["tokenizer_class"], &config["extra_ids"]), (&"T5Tokenizer".into(), &100.into()));
}

/// Every line of the sentence pairs, both languages, as the library segments them: make_sentencepiece.py prints the
/// number of texts and the checksum of their ids.
#[test]
fn thousands_of_sentences_have_the_same_ids() {
    let (_, ours, read) = pocket();
    let (mut count, mut crc) = (0, flate2::Crc::new());
    for name in ["en-de.dev.tsv", "en-fr.dev.tsv"] {
        let Some(file) = shared_folder::shared(&format!("data/tatoeba/{name}")) else { return };
        let text = std::fs::read_to_string(&file).unwrap();
        for text in text.lines().flat_map(|line| line.split('\t')) {
            let ids = ours.encode_prefix(text);
            assert_eq!(read.encode_prefix(text), ids, "{text:?}");
            count += 1;
            ids.iter().chain([&u32::MAX]).for_each(|id| crc.update(&id.to_le_bytes()));
        }
    }
    assert_eq!((count, crc.sum()), (6192, 236_786_098));
}
