//! Damaged files of both formats: whatever the bytes, an error or a checkpoint that can be used, never a panic.
//!
//! `PROPTEST_CASES` sets the number of cases, 256 by default.

mod common;

use std::sync::LazyLock;

use common::tiny::{Gguf, config_with, parts, safetensors};
use proptest::prelude::*;
use serde_json::json;
use t5_runtime::block;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tokenizer::Tokenizer;

/// A gated, untied model with quantised and half-precision tensors among the others, and every kind of key.
static GGUF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let json = config_with(json!({"tie_word_embeddings": false, "feed_forward_proj": "gated-gelu"}));
    let mut file = Gguf::new(&json);
    file.set("t5.logit_scale", 6, &1f32.to_le_bytes());
    file.set_u32("pocket_t5.relative_attention_max_distance", 16);
    file.set("pocket_t5.generation.early_stopping", 7, &[1]);
    file.set("general.alignment", 4, &32u32.to_le_bytes());
    let mut charsmap = 1024u32.to_le_bytes().to_vec();
    charsmap.extend([0; 1024]);
    charsmap.extend(b"a\0");
    file.set("tokenizer.ggml.precompiled_charsmap", 9, &common::array(0, charsmap.len() as u64, &charsmap));
    file.bytes()
});

/// Bytes of [`GGUF`] before the tensor data.
static GGUF_HEADER: LazyLock<usize> = LazyLock::new(|| {
    let data = Checkpoint::from_gguf("x.gguf", Bytes::from_vec(GGUF.clone())).unwrap();
    GGUF.len() - data.tensors().map(|(_, tensor)| tensor.data.len().next_multiple_of(32)).sum::<usize>()
});

static CONFIG: LazyLock<String> = LazyLock::new(|| {
    config_with(json!({"generation": null, "max_length": 20, "eos_token_id": [1], "tokenizer_class": "T5Tokenizer",
        "task_specific_params": {"a": {"prefix": "summarize: "}}, "feed_forward_proj": "gated-gelu"}))
    .to_string()
});

static SAFETENSORS: LazyLock<Vec<u8>> = LazyLock::new(|| safetensors(&parts(&serde_json::from_str(&CONFIG).unwrap())));

/// What is done to the bytes.
#[derive(Clone, Debug)]
enum Damage {
    Byte(u8),
    Flip(u8),
    Word([u8; 4]),
    Long([u8; 8]),
    Insert(Vec<u8>),
    Remove(usize),
    Cut,
}

/// Damage and its place, in 1/2^32 of the length.
fn damage() -> impl Strategy<Value = (u32, Damage)> {
    let numbers = prop_oneof![
        Just(0u64),
        Just(1),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(1 << 32),
        Just(1 << 31),
        Just(1 << 61),
        0u64..70_000,
        any::<u64>()
    ];
    let kind = prop_oneof![
        3 => any::<u8>().prop_map(Damage::Byte),
        3 => (0..8u8).prop_map(|bit| Damage::Flip(1 << bit)),
        2 => numbers.clone().prop_map(|number| Damage::Word((number as u32).to_le_bytes())),
        2 => numbers.prop_map(|number| Damage::Long(number.to_le_bytes())),
        1 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Insert),
        1 => (1..40usize).prop_map(Damage::Remove),
        1 => Just(Damage::Cut),
    ];
    (any::<u32>(), kind)
}

/// Damages the first `reach` bytes.
fn apply(bytes: &mut Vec<u8>, reach: usize, damages: &[(u32, Damage)]) {
    for (place, damage) in damages {
        let at = ((u64::from(*place) * reach.min(bytes.len()) as u64) >> 32) as usize;
        let overwrite = |bytes: &mut Vec<u8>, new: &[u8]| {
            let end = (at + new.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        };
        match damage {
            Damage::Byte(byte) => overwrite(bytes, &[*byte]),
            Damage::Flip(bits) => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Damage::Word(word) => overwrite(bytes, word),
            Damage::Long(long) => overwrite(bytes, long),
            Damage::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
            Damage::Remove(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            Damage::Cut => bytes.truncate(at),
        }
    }
}

/// Uses everything that a checkpoint gives.
fn use_all(result: t5_runtime::Result<Checkpoint>) {
    let checkpoint = match result {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for (spec, tensor) in checkpoint.tensors() {
        assert_eq!(tensor.shape, spec.shape);
        assert_eq!(block::decode_tensor(tensor).unwrap().len(), tensor.len());
        let _ = block::check(tensor);
    }
    if let Some(vocabulary) = &checkpoint.vocabulary
        && let Ok(tokenizer) = Tokenizer::new(&checkpoint.file, vocabulary)
    {
        let ids = tokenizer.encode("An Ähre, <extra_id_0> ﬁne\u{3000}day </s>.");
        tokenizer.decode(&ids, true);
        let all: Vec<u32> = (0..checkpoint.config.vocab_size as u32).collect();
        tokenizer.decode(&all, false);
    }
}

fn open_folder(config: &[u8], weights: &[u8]) -> t5_runtime::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    Checkpoint::open(folder.path())
}

#[test]
fn the_undamaged_files_are_good() {
    use_all(Ok(Checkpoint::from_gguf("x.gguf", Bytes::from_vec(GGUF.clone())).unwrap()));
    use_all(Ok(open_folder(CONFIG.as_bytes(), &SAFETENSORS).unwrap()));
    assert!(*GGUF_HEADER > 2000 && *GGUF_HEADER < GGUF.len());
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let mut state = 1u32;
    for i in 0..200 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Half of the places in the header, half anywhere.
        let reach = if i % 2 == 0 { *GGUF_HEADER } else { GGUF.len() };
        // The padding after the last tensor may be missing.
        let end = (state >> 8) as usize % reach.min(GGUF.len() - 32);
        let error = Checkpoint::from_gguf("x.gguf", Bytes::from_vec(GGUF[..end].to_vec())).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("x.gguf: "), "cut at {end}: {error}");
    }
}

proptest! {
    #[test]
    fn damaged_gguf_headers_never_panic(damages in proptest::collection::vec(damage(), 1..4)) {
        let mut bytes = GGUF.clone();
        apply(&mut bytes, *GGUF_HEADER, &damages);
        use_all(Checkpoint::from_gguf("x.gguf", Bytes::from_vec(bytes)));
    }

    #[test]
    fn damaged_safetensors_headers_never_panic(damages in proptest::collection::vec(damage(), 1..4)) {
        let mut bytes = SAFETENSORS.clone();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        apply(&mut bytes, header, &damages);
        use_all(open_folder(CONFIG.as_bytes(), &bytes));
    }

    /// Only digits change, so that the header stays JSON and sizes, shapes and offsets contradict each other.
    #[test]
    fn contradictory_safetensors_headers_never_panic(
        changes in proptest::collection::vec((any::<u32>(), 0u8..10), 1..6),
    ) {
        let mut bytes = SAFETENSORS.clone();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let digits: Vec<usize> = (8..header).filter(|&i| bytes[i].is_ascii_digit()).collect();
        for (place, digit) in changes {
            bytes[digits[place as usize % digits.len()]] = b'0' + digit;
        }
        use_all(open_folder(CONFIG.as_bytes(), &bytes));
    }

    #[test]
    fn damaged_configurations_never_panic(damages in proptest::collection::vec(damage(), 1..4)) {
        let mut config = CONFIG.as_bytes().to_vec();
        let reach = config.len();
        apply(&mut config, reach, &damages);
        use_all(open_folder(&config, &SAFETENSORS));
    }

    #[test]
    fn any_bytes_after_the_magic_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(bytes);
        use_all(Checkpoint::from_gguf("x.gguf", Bytes::from_vec(file)));
    }
}
