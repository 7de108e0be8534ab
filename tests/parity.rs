//! Every family against the transformers library: the tiny checkpoints under golden/families, exact ids and bounded
//! values.

use t5_runtime::Model;
use t5_tests::families;

macro_rules! families {
    ($($test:ident $name:literal,)*) => {
        $(#[test]
        fn $test() {
            families::check($name, "as it is", &Model::open(families::folder($name)).unwrap());
        })*

        /// Every folder has its test.
        #[test]
        fn no_family_is_left_out() {
            let mut tested = vec![$($name),*];
            tested.sort();
            assert_eq!(families::names(), tested);
        }
    };
}

families! {
    byt5 "byt5",
    encoder_only "encoder-only",
    gated_relu "gated-relu",
    gated_silu "gated-silu",
    language_model "lm",
    madlad "madlad",
    mt5 "mt5",
    odd_sizes "odd",
    prefix_language_model "prefix-lm",
    several_ends "several-ends",
    shallow_encoder "shallow-encoder",
    t5_1_0 "t5-1.0",
    t5_1_1 "t5-1.1",
    t5_resaved "t5-resaved",
    umt5 "umt5",
    unigram "unigram",
}

/// The SentencePiece model alone: its sentinels are implied by the size of the embedding.
#[test]
fn unigram_without_tokenizer_json() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "spiece.model"] {
        std::fs::copy(families::folder("unigram").join(file), copy.path().join(file)).unwrap();
    }
    families::check("unigram", "with spiece.model alone", &Model::open(copy.path()).unwrap());
}
