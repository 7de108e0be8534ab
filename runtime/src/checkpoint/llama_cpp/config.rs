//! The configuration as key-values, both ways (docs/gguf.md 2, 7.1 and 9).

use std::collections::BTreeMap;

use super::{defaults, keys, vocabulary};
use crate::config::{Adapters, FeedForwardKind, OneStack, T5Config};
use crate::error::{Error, Result};
use crate::generate::GenerationDefaults;
use crate::gguf::{File, Value};
use crate::tensor::DType;
use crate::tokenizer::Vocabulary;

/// All key-values of a model's file, in the order in which llama.cpp's converter writes them, then our own.
/// `about` are texts for people, with keys that begin with `general.`; `file_type` is the type of most tensors.
/// `dropout_rate` and `initializer_factor`, which only training uses, are not stored.
///
/// # Errors
/// [`Error::Tokenizer`] where the vocabulary has more pieces than the embedding has rows.
pub fn metadata(
    about: &BTreeMap<String, String>,
    config: &T5Config,
    vocabulary: Option<&Vocabulary>,
    generation: &GenerationDefaults,
    file_type: DType,
) -> Result<Vec<(String, Value)>> {
    let architecture = match config.one_stack() {
        // One that programs without such models refuse.
        Some(one_stack) => one_stack.model_type(),
        None if config.is_encoder_only() => keys::T5_ENCODER,
        None => keys::T5,
    };
    let mut values: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, value: Value| values.push((key.to_owned(), value));
    let text = |text: &str| Value::String(text.to_owned());

    put(keys::ARCHITECTURE, text(architecture));
    put(keys::TYPE, text("model"));
    if let Some(name) = about.get(keys::NAME) {
        put(keys::NAME, text(name));
    }
    let ours = [keys::ARCHITECTURE, keys::TYPE, keys::NAME];
    for (key, value) in about.iter().filter(|(key, _)| !ours.contains(&key.as_str())) {
        put(key, text(value));
    }
    let mut put_model = |key: &str, value: Value| put(&keys::of(architecture, key), value);
    put_model(keys::CONTEXT_LENGTH, Value::U32(512));
    put_model(keys::EMBEDDING_LENGTH, Value::count(config.d_model));
    put_model(keys::FEED_FORWARD_LENGTH, Value::count(config.d_ff));
    put_model(keys::BLOCK_COUNT, Value::count(config.num_layers));
    if !config.is_encoder_only() {
        put_model(keys::DECODER_BLOCK_COUNT, Value::count(config.num_decoder_layers));
    }
    put_model(keys::HEAD_COUNT, Value::count(config.num_heads));
    put_model(keys::KEY_LENGTH, Value::count(config.d_kv));
    put_model(keys::VALUE_LENGTH, Value::count(config.d_kv));
    put_model(keys::LAYER_NORM_EPSILON, Value::F32(config.layer_norm_epsilon));
    put_model(keys::RMS_EPSILON, Value::F32(config.layer_norm_epsilon));
    put_model(keys::BUCKETS, Value::count(config.relative_attention_num_buckets));
    if !config.is_encoder_only() {
        put_model(keys::DECODER_START, Value::U32(config.decoder_start_token_id));
        put_model(keys::LOGIT_SCALE, Value::F32(config.logits_scale()));
    }
    put(keys::FILE_TYPE, Value::U32(file_type_code(file_type)));
    if let Some(vocabulary) = vocabulary {
        vocabulary::append(vocabulary, config, &mut put)?;
    }
    let (eos_id, pad_id) = match vocabulary {
        Some(vocabulary) => (vocabulary.eos_id(), vocabulary.pad_id()),
        None => (config.eos_token_id, config.pad_token_id),
    };
    put(keys::EOS_ID, Value::U32(eos_id));
    put(keys::PAD_ID, Value::U32(pad_id));
    put(keys::QUANTIZATION_VERSION, Value::U32(2));

    put(keys::MODEL_TYPE, text(&config.model_type));
    put(keys::TIE_WORD_EMBEDDINGS, Value::Bool(config.tie_word_embeddings));
    put(keys::FEED_FORWARD_PROJ, text(&config.feed_forward.name()));
    put(keys::MAX_DISTANCE, Value::count(config.relative_attention_max_distance));
    if config.eos_token_id != eos_id {
        put(keys::CONFIG_EOS_ID, Value::U32(config.eos_token_id));
    }
    if config.pad_token_id != pad_id {
        put(keys::CONFIG_PAD_ID, Value::U32(config.pad_token_id));
    }
    if let Some(Adapters { size, inside }) = config.adapters {
        put(keys::ADAPTER_SIZE, Value::count(size));
        put(keys::ADAPTER_INSIDE, Value::Bool(inside));
    }
    defaults::append(generation, &mut put);
    Ok(values)
}

/// llama.cpp's number for "mostly this type"; that of F32 for types that no file has.
fn file_type_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 | DType::F8_E4M3 | DType::F8_E5M2 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::BF16 => 32,
    }
}

/// The configuration that a file in llama.cpp's dialect describes. The tie and the bias per block are guesses that
/// the tensors correct.
pub(super) fn read(file: &File) -> Result<T5Config> {
    let architecture = file
        .string(keys::ARCHITECTURE)?
        .ok_or_else(|| file.error(keys::ARCHITECTURE, "expected t5 or t5encoder, found nothing"))?;
    let one_stack = OneStack::of_type(architecture);
    if !matches!(architecture, keys::T5 | keys::T5_ENCODER) && one_stack.is_none() {
        return Err(file.error(keys::ARCHITECTURE, format!("expected t5 or t5encoder, found {architecture}")));
    }
    let encoder_only = architecture == keys::T5_ENCODER;
    let size = |key: &str| file.usize(&keys::of(architecture, key));
    let required = |key: &str| {
        size(key)?.ok_or_else(|| file.error(&keys::of(architecture, key), "expected a whole number, found nothing"))
    };
    let embedding = tensor_shape(file, "token_embd.weight")?;
    let (d_model, num_heads, num_layers) =
        (required(keys::EMBEDDING_LENGTH)?, required(keys::HEAD_COUNT)?, required(keys::BLOCK_COUNT)?);
    let d_kv = match size(keys::KEY_LENGTH)? {
        Some(d_kv) => d_kv,
        // As llama.cpp does; not all T5 models have heads × d_kv = d_model.
        None if num_heads > 0 && d_model.is_multiple_of(num_heads) => d_model / num_heads,
        None => required(keys::KEY_LENGTH)?,
    };
    for (key, expected) in [(keys::VALUE_LENGTH, d_kv), (keys::HEAD_COUNT_KV, num_heads)] {
        if let Some(found) = size(key)?
            && found != expected
        {
            return Err(file.error(&keys::of(architecture, key), format!("expected {expected}, found {found}")));
        }
    }
    let vocab_size = embedding[0];
    let id = |key: &str, default: u32| {
        let id = file.u32(key)?.unwrap_or(default);
        if (id as usize) < vocab_size {
            Ok(id)
        } else {
            Err(file.error(key, format!("expected an id below {vocab_size}, found {id}")))
        }
    };
    // The configuration's own where there is one, else the tokenizer's.
    let special_id = |own: &str, tokenizers: &str, default: u32| {
        let key = if file.value(own).is_some() { own } else { tokenizers };
        id(key, default)
    };
    let pad_token_id = special_id(keys::CONFIG_PAD_ID, keys::PAD_ID, 0)?;
    let rms_epsilon = keys::of(architecture, keys::RMS_EPSILON);
    let usual = if one_stack.is_some() { architecture } else { keys::T5 };
    let config = T5Config {
        model_type: file.string(keys::MODEL_TYPE)?.unwrap_or(usual).to_owned(),
        vocab_size,
        d_model,
        d_kv,
        d_ff: required(keys::FEED_FORWARD_LENGTH)?,
        num_layers,
        num_decoder_layers: match (encoder_only, size(keys::DECODER_BLOCK_COUNT)?) {
            (true, _) => 0,
            (false, blocks) => blocks.unwrap_or(num_layers),
        },
        num_heads,
        relative_attention_num_buckets: required(keys::BUCKETS)?,
        relative_attention_max_distance: file.usize(keys::MAX_DISTANCE)?.unwrap_or(128),
        relative_bias_per_block: false,
        layer_norm_epsilon: file
            .float(&rms_epsilon)?
            .ok_or_else(|| file.error(&rms_epsilon, "expected a finite number, found nothing"))?,
        feed_forward: feed_forward(file)?,
        adapters: match file.usize(keys::ADAPTER_SIZE)?.unwrap_or(0) {
            0 => None,
            size => Some(Adapters { size, inside: file.boolean(keys::ADAPTER_INSIDE)?.unwrap_or(false) }),
        },
        tie_word_embeddings: !has_tensor(file, "output.weight"),
        scale_decoder_outputs: scale_decoder_outputs(file, architecture, d_model)?,
        pad_token_id,
        eos_token_id: special_id(keys::CONFIG_EOS_ID, keys::EOS_ID, 1)?,
        decoder_start_token_id: id(&keys::of(architecture, keys::DECODER_START), pad_token_id)?,
        // Not stored: for training only.
        dropout_rate: 0.1,
        initializer_factor: 1.0,
    };
    if config.one_stack() != one_stack {
        let what = format!("expected that of the architecture {architecture}, found {}", config.model_type);
        return Err(file.error(keys::MODEL_TYPE, what));
    }
    if one_stack.is_none() && !matches!(config.model_type.as_str(), "t5" | "mt5" | "umt5" | "byt5") {
        return Err(file.error(keys::MODEL_TYPE, format!("expected t5, mt5 or umt5, found {}", config.model_type)));
    }
    config.validate(file.name()).map_err(|error| in_gguf_terms(error, architecture))?;
    Ok(config)
}

/// Without a key of ours: gated GELU where there is a gate, else ReLU.
fn feed_forward(file: &File) -> Result<FeedForwardKind> {
    let name = match file.string(keys::FEED_FORWARD_PROJ)? {
        Some(name) => name,
        None if has_tensor(file, "enc.blk.0.ffn_gate.weight") => "gated-gelu",
        None => "relu",
    };
    FeedForwardKind::from_name(name).ok_or_else(|| {
        let what = format!("expected relu, gelu, gelu_new or silu, perhaps with gated- before it, found {name}");
        file.error(keys::FEED_FORWARD_PROJ, what)
    })
}

/// Section 7.1: the scale that is stored, else d_model^-0.5 for a tied head, by our flag or by the missing tensor.
fn scale_decoder_outputs(file: &File, architecture: &str, d_model: usize) -> Result<bool> {
    let key = keys::of(architecture, keys::LOGIT_SCALE);
    let Some(scale) = file.float(&key)? else {
        return Ok(file.boolean(keys::TIE_WORD_EMBEDDINGS)?.unwrap_or(!has_tensor(file, "output.weight")));
    };
    let scaled = (d_model as f32).powf(-0.5);
    let near = |expected: f32| (scale / expected - 1.0).abs() < 1e-4;
    match (near(scaled), near(1.0)) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(file.error(&key, format!("expected 1 or d_model^-0.5 = {scaled}, found {scale}"))),
    }
}

fn has_tensor(file: &File, name: &str) -> bool {
    file.tensors().iter().any(|tensor| tensor.name == name)
}

/// The shape of a matrix that must be there.
fn tensor_shape<'a>(file: &'a File, name: &str) -> Result<&'a [usize]> {
    let tensor = file
        .tensors()
        .iter()
        .find(|tensor| tensor.name == name)
        .ok_or_else(|| Error::tensor(file.name(), name, "expected a matrix [vocabulary, d_model], found none"))?;
    if tensor.shape.len() != 2 {
        let what = format!("expected a matrix [vocabulary, d_model], found shape {:?}", tensor.shape);
        return Err(Error::tensor(file.name(), name, what));
    }
    Ok(&tensor.shape)
}

/// Puts the file's key where a message of [`T5Config::validate`] has config.json's.
fn in_gguf_terms(error: Error, architecture: &str) -> Error {
    let Error::Config { file, key, what } = error else { return error };
    let key = match key.as_str() {
        "d_model" => keys::of(architecture, keys::EMBEDDING_LENGTH),
        "d_kv" => keys::of(architecture, keys::KEY_LENGTH),
        "d_ff" => keys::of(architecture, keys::FEED_FORWARD_LENGTH),
        "num_heads" => keys::of(architecture, keys::HEAD_COUNT),
        "num_heads * d_kv" => {
            format!("{} * {}", keys::of(architecture, keys::HEAD_COUNT), keys::of(architecture, keys::KEY_LENGTH))
        }
        "num_layers" => keys::of(architecture, keys::BLOCK_COUNT),
        "num_decoder_layers" => keys::of(architecture, keys::DECODER_BLOCK_COUNT),
        "relative_attention_num_buckets" => keys::of(architecture, keys::BUCKETS),
        "relative_attention_max_distance" => keys::MAX_DISTANCE.to_owned(),
        "adapter_size" => keys::ADAPTER_SIZE.to_owned(),
        "layer_norm_epsilon" => keys::of(architecture, keys::RMS_EPSILON),
        _ => key,
    };
    Error::Config { file, key, what }
}
