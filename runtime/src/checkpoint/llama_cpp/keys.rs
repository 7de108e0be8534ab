//! The name of every key, once, for reader and writer.
//!
//! Keys of the model start with its architecture, [`T5`] or [`T5_ENCODER`]; [`of`] puts them together. Keys of our own,
//! for what llama.cpp's format leaves out, start with `pocket_t5.`; a file without them is read by the rules that
//! docs/gguf.md 9 gives for each.

/// Architecture of an encoder-decoder model.
pub const T5: &str = "t5";
/// Architecture of an encoder.
pub const T5_ENCODER: &str = "t5encoder";

/// Which keys describe the model: [`T5`] or [`T5_ENCODER`].
pub const ARCHITECTURE: &str = "general.architecture";
/// Always `model`.
pub const TYPE: &str = "general.type";
/// A name for people.
pub const NAME: &str = "general.name";
/// The number of the commonest tensor type; information only.
pub const FILE_TYPE: &str = "general.file_type";
/// Always 2: the generation of GGML's block formats.
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";

// After `t5.` or `t5encoder.`:

/// Not a limit for T5; llama.cpp requires it.
pub const CONTEXT_LENGTH: &str = "context_length";
/// `d_model`.
pub const EMBEDDING_LENGTH: &str = "embedding_length";
/// `d_ff`.
pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
/// `num_layers`: blocks of the encoder.
pub const BLOCK_COUNT: &str = "block_count";
/// `num_decoder_layers`; absent in files from before 2025-09, whose stacks are equally deep.
pub const DECODER_BLOCK_COUNT: &str = "decoder_block_count";
/// `num_heads`.
pub const HEAD_COUNT: &str = "attention.head_count";
/// Grouped heads, which T5 does not have: refused unless equal to [`HEAD_COUNT`].
pub const HEAD_COUNT_KV: &str = "attention.head_count_kv";
/// `d_kv`.
pub const KEY_LENGTH: &str = "attention.key_length";
/// `d_kv` again.
pub const VALUE_LENGTH: &str = "attention.value_length";
/// `layer_norm_epsilon`, a second time; llama.cpp's converter writes both.
pub const LAYER_NORM_EPSILON: &str = "attention.layer_norm_epsilon";
/// `layer_norm_epsilon`.
pub const RMS_EPSILON: &str = "attention.layer_norm_rms_epsilon";
/// `relative_attention_num_buckets`.
pub const BUCKETS: &str = "attention.relative_buckets_count";
/// The id that starts a target.
pub const DECODER_START: &str = "decoder_start_token_id";
/// What the decoder's output is multiplied with before the head: d_model^-0.5 or 1. llama.cpp knows the key but not
/// for T5.
pub const LOGIT_SCALE: &str = "logit_scale";

/// `t5` for a Unigram vocabulary, [`BYTES`] for bytes.
pub const TOKENIZER_MODEL: &str = "tokenizer.ggml.model";
/// [`TOKENIZER_MODEL`] of ByT5, which llama.cpp cannot run and shall refuse.
pub const BYTES: &str = "pocket_t5.bytes";
/// [`TOKENIZER_MODEL`] of a `tokenizer.json` that is kept as it is, under [`TOKENIZER_JSON`].
pub const JSON: &str = "pocket_t5.json";
/// The text of a `tokenizer.json`.
pub const TOKENIZER_JSON: &str = "pocket_t5.tokenizer.json";
/// Before [`crate::tokenizer::PieceModel::name`] in [`TOKENIZER_MODEL`] of SentencePiece models other than Unigram,
/// which llama.cpp's `t5` would cut as Unigram.
pub const PIECES: &str = "pocket_t5.";
/// Always `default`.
pub const TOKENIZER_PRE: &str = "tokenizer.ggml.pre";
/// The pieces by id, one for every row of the embedding.
pub const TOKENS: &str = "tokenizer.ggml.tokens";
/// The logarithms of their probabilities.
pub const SCORES: &str = "tokenizer.ggml.scores";
/// Their kinds, by SentencePiece's numbers.
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// SentencePiece's `add_dummy_prefix`.
pub const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// SentencePiece's `remove_extra_whitespaces`.
pub const REMOVE_EXTRA_WHITESPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
/// The normaliser's table (docs/gguf.md 3.1).
pub const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
/// The tokenizer's `</s>`, and the configuration's but for [`CONFIG_EOS_ID`].
pub const EOS_ID: &str = "tokenizer.ggml.eos_token_id";
/// The tokenizer's `<pad>`, and the configuration's but for [`CONFIG_PAD_ID`].
pub const PAD_ID: &str = "tokenizer.ggml.padding_token_id";
/// `<unk>`.
pub const UNK_ID: &str = "tokenizer.ggml.unknown_token_id";
/// Always false.
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// Always true.
pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// `model_type` of config.json: t5, mt5, umt5.
pub const MODEL_TYPE: &str = "pocket_t5.model_type";
/// Whether the embedding is the output matrix, too.
pub const TIE_WORD_EMBEDDINGS: &str = "pocket_t5.tie_word_embeddings";
/// `feed_forward_proj` in Hugging Face's spelling.
pub const FEED_FORWARD_PROJ: &str = "pocket_t5.feed_forward_proj";
/// The width of adapters; none where absent.
pub const ADAPTER_SIZE: &str = "pocket_t5.adapter_size";
/// Whether adapters are inside the feed-forward layers; false where absent.
pub const ADAPTER_INSIDE: &str = "pocket_t5.adapter_inside";
/// `relative_attention_max_distance`; 128 where absent.
pub const MAX_DISTANCE: &str = "pocket_t5.relative_attention_max_distance";
/// `eos_token_id` of config.json; that of the tokenizer where absent.
pub const CONFIG_EOS_ID: &str = "pocket_t5.eos_token_id";
/// `pad_token_id` of config.json; that of the tokenizer where absent.
pub const CONFIG_PAD_ID: &str = "pocket_t5.pad_token_id";
/// How many sentinels `<extra_id_n>` there are.
pub const EXTRA_IDS: &str = "pocket_t5.extra_ids";
/// Byte vocabularies: the id of byte 0.
pub const TOKENIZER_OFFSET: &str = "pocket_t5.tokenizer.offset";
/// Byte vocabularies: whether sentinels have ids of their own above those of bytes; false where absent.
pub const EXTRA_IDS_ABOVE: &str = "pocket_t5.tokenizer.extra_ids_above";
/// [`crate::tokenizer::Whitespace::code`].
pub const WHITESPACE: &str = "pocket_t5.tokenizer.whitespace";
/// [`crate::tokenizer::UnigramVocabulary::legacy`].
pub const LEGACY: &str = "pocket_t5.tokenizer.legacy";
/// [`crate::tokenizer::UnigramVocabulary::split_words`].
pub const SPLIT_WORDS: &str = "pocket_t5.tokenizer.split_words";
/// [`crate::tokenizer::UnigramVocabulary::byte_fallback`].
pub const BYTE_FALLBACK: &str = "pocket_t5.tokenizer.byte_fallback";
/// The ids of tokens that are cut out of a text before it is segmented.
pub const ADDED_IDS: &str = "pocket_t5.tokenizer.added_ids";
/// [`crate::tokenizer::AddedToken::flags`] of each of [`ADDED_IDS`].
pub const ADDED_FLAGS: &str = "pocket_t5.tokenizer.added_flags";
/// The names of the tasks that the model knows.
pub const TASKS: &str = "pocket_t5.tasks";
/// The text before the sources of each of [`TASKS`].
pub const TASK_PREFIXES: &str = "pocket_t5.task_prefixes";
/// Before the names of generation_config.json's settings; see [`setting`].
pub const GENERATION: &str = "pocket_t5.generation.";
/// Settings that the checkpoint had and nothing obeys, for people.
pub const NOT_OBEYED: &str = "pocket_t5.generation.not_obeyed";

/// Sentences on keys of config.json that change values and that nothing obeys, for people.
pub const CONFIG_NOT_OBEYED: &str = "pocket_t5.config.not_obeyed";

/// The modules of a sentence model behind its encoder: `pooling`, `dense` or `normalize`.
pub const SENTENCE_MODULES: &str = "pocket_t5.sentence.modules";
/// The names of the texts that can be put before an input.
pub const PROMPT_NAMES: &str = "pocket_t5.sentence.prompt_names";
/// These texts.
pub const PROMPTS: &str = "pocket_t5.sentence.prompts";
/// The name of the prompt that every input gets.
pub const DEFAULT_PROMPT: &str = "pocket_t5.sentence.default_prompt";
/// Longer inputs are cut to so many tokens.
pub const MAX_SEQ_LENGTH: &str = "pocket_t5.sentence.max_seq_length";
/// Whether capitals of an input become small letters.
pub const LOWER_CASE: &str = "pocket_t5.sentence.lower_case";

// After `pocket_t5.sentence.N.`, for module N:

/// The kinds of pooling, by [`crate::Pooling::name`].
pub const MODULE_POOLING: &str = "pooling";
/// Whether tokens of the prompt take part in it.
pub const MODULE_INCLUDE_PROMPT: &str = "include_prompt";
/// Of a dense layer: `[out, in]`.
pub const DENSE_WEIGHT: &str = "weight";
/// `[out]`
pub const DENSE_BIAS: &str = "bias";
/// `identity`, `tanh`, `relu` or `sigmoid`.
pub const DENSE_ACTIVATION: &str = "activation";

/// A key of module `index` of a sentence model.
pub fn sentence_module(index: usize, key: &str) -> String {
    format!("pocket_t5.sentence.{index}.{key}")
}

/// `[d_model]`: what the encoder's output is multiplied with where it is not for the decoder.
pub const ENCODER_SCALE: &str = "pocket_t5.encoder_scale";
/// What a head that does not generate says, by [`crate::head::HeadTask::name`].
pub const HEAD_TASK: &str = "pocket_t5.head.task";
/// The name of each of its values.
pub const HEAD_LABELS: &str = "pocket_t5.head.labels";
/// `problem_type` of config.json.
pub const HEAD_PROBLEM: &str = "pocket_t5.head.problem_type";
/// How many layers it has.
pub const HEAD_LAYERS: &str = "pocket_t5.head.layers";

/// A key of layer `index` of a head.
pub fn head_layer(index: usize, key: &str) -> String {
    format!("pocket_t5.head.{index}.{key}")
}

/// What stands before the settings of a task: `pocket_t5.task.0.`
pub fn task(index: usize) -> String {
    format!("pocket_t5.task.{index}.")
}

/// The key of a generation setting: `pocket_t5.generation.num_beams`. The name is generation_config.json's, but for the
/// end tokens, which are a list here.
pub fn setting(prefix: &str, name: &str) -> String {
    let name = if name == "eos_token_id" { "eos_token_ids" } else { name };
    format!("{prefix}{name}")
}

/// A key of the model: `t5.block_count`.
pub fn of(architecture: &str, key: &str) -> String {
    format!("{architecture}.{key}")
}
