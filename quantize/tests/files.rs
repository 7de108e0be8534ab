//! What is in the files: names, shapes, types and keys against the description of llama.cpp's format
//! (docs/gguf.md 2 to 6 and 9), values against naive codecs, and the ways in which a checkpoint is refused.

mod common;

use common::{FAMILIES, checkpoint, config, tensor_values, write_checkpoint};
use t5_quantize::policy::FILE_TYPES;
use t5_quantize::{Keep, Policy, Report, quantize};
use t5_runtime::block;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::gguf::{File, Value};
use t5_runtime::kernels::{Isa, Kernels};
use t5_runtime::schema;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::{Model, ModelOptions};

fn store(checkpoint: &Checkpoint, policy: &Policy) -> (Vec<u8>, Report) {
    let mut bytes = Vec::new();
    let report = quantize(checkpoint, policy, "out.gguf", &mut bytes, &mut ()).unwrap();
    (bytes, report)
}

/// The file of one family as `base`.
fn family(json: &str, base: DType) -> (Checkpoint, File, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), json)).unwrap();
    let (bytes, _) = store(&source, &Policy::new(base));
    let file = File::parse("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
    (source, file, bytes)
}

/// Section 4, written down a second time: names and shapes as files have them.
fn expected_tensors(c: &T5Config) -> Vec<(String, Vec<usize>)> {
    let (d, f, i, v) = (c.d_model, c.d_ff, c.num_heads * c.d_kv, c.vocab_size);
    let bias = vec![c.relative_attention_num_buckets, c.num_heads];
    let mut all = vec![("token_embd.weight".to_owned(), vec![v, d])];
    for (stack, blocks) in [("enc", c.num_layers), ("dec", c.num_decoder_layers)] {
        if blocks == 0 {
            continue;
        }
        all.push((format!("{stack}.output_norm.weight"), vec![d]));
        for n in 0..blocks {
            let mut add =
                |name: &str, shape: &[usize]| all.push((format!("{stack}.blk.{n}.{name}.weight"), shape.to_vec()));
            for attention in if stack == "enc" { &["attn"][..] } else { &["attn", "cross_attn"] } {
                add(&format!("{attention}_norm"), &[d]);
                for part in ["q", "k", "v"] {
                    add(&format!("{attention}_{part}"), &[i, d]);
                }
                add(&format!("{attention}_o"), &[d, i]);
            }
            if n == 0 || c.model_type == "umt5" {
                add("attn_rel_b", &bias);
            }
            add("ffn_norm", &[d]);
            if c.feed_forward.gated {
                add("ffn_gate", &[f, d]);
            }
            add("ffn_up", &[f, d]);
            add("ffn_down", &[d, f]);
        }
    }
    if !c.tie_word_embeddings && c.num_decoder_layers > 0 {
        all.push(("output.weight".to_owned(), vec![v, d]));
    }
    all.sort();
    all
}

#[test]
fn names_shapes_and_types_of_every_family() {
    for (family_name, json) in FAMILIES {
        for base in FILE_TYPES {
            let (source, file, _) = family(json, base);
            let mut found: Vec<_> =
                file.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
            found.sort();
            assert_eq!(found, expected_tensors(&source.config), "{family_name} {base}");
            for tensor in file.tensors() {
                let (name, columns) = (tensor.name.as_str(), tensor.columns());
                let four_bit = matches!(base, DType::Q4_0 | DType::Q4_K);
                let expected = if name.contains("norm") || name.contains("rel_b") {
                    DType::F32
                } else if matches!(base, DType::F16 | DType::F32) {
                    base
                } else if columns % 32 != 0 {
                    DType::F16
                } else if four_bit && matches!(name, "token_embd.weight" | "output.weight")
                    || base == DType::Q4_K && columns % 256 != 0
                {
                    DType::Q8_0
                } else {
                    base
                };
                assert_eq!(tensor.dtype, expected, "{family_name} {base} {name}");
            }
        }
    }
}

#[test]
fn the_model_is_read_back_as_it_was() {
    for (name, json) in FAMILIES {
        let (source, _, bytes) = family(json, DType::F32);
        let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
        let mut expected = source.config.clone();
        // Not stored: for training only.
        (expected.dropout_rate, expected.initializer_factor) = (0.1, 1.0);
        assert_eq!(back.config, expected, "{name}");
        assert_eq!(back.generation, source.generation, "{name}");
        for (spec, tensor) in back.tensors() {
            assert!(*tensor.data == *source.tensor(&spec.hf_name).unwrap().data, "{name} {}", spec.hf_name);
        }
    }
}

#[test]
fn keys_of_an_encoder_decoder() {
    let (_, file, _) = family(FAMILIES[1].1, DType::Q8_0);
    for (key, value) in [
        ("general.architecture", Value::String("t5".to_owned())),
        ("general.type", Value::String("model".to_owned())),
        ("general.file_type", Value::U32(7)),
        ("general.quantization_version", Value::U32(2)),
        ("t5.context_length", Value::U32(512)),
        ("t5.embedding_length", Value::U32(64)),
        ("t5.feed_forward_length", Value::U32(96)),
        ("t5.block_count", Value::U32(2)),
        ("t5.decoder_block_count", Value::U32(3)),
        ("t5.attention.head_count", Value::U32(6)),
        ("t5.attention.key_length", Value::U32(16)),
        ("t5.attention.value_length", Value::U32(16)),
        ("t5.attention.layer_norm_epsilon", Value::F32(1e-6)),
        ("t5.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("t5.attention.relative_buckets_count", Value::U32(32)),
        ("t5.decoder_start_token_id", Value::U32(0)),
        ("t5.logit_scale", Value::F32(1.0)),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("pocket_t5.model_type", Value::String("t5".to_owned())),
        ("pocket_t5.tie_word_embeddings", Value::Bool(false)),
        ("pocket_t5.feed_forward_proj", Value::String("gated-gelu".to_owned())),
        ("pocket_t5.relative_attention_max_distance", Value::U32(128)),
    ] {
        assert_eq!(file.value(key), Some(&value), "{key}");
    }
    assert_eq!(file.version(), 3);
    assert_eq!(file.alignment(), 32);
}

#[test]
fn keys_that_differ_between_families_and_types() {
    let key = |json: &str, base, key: &str| family(json, base).1.value(key).cloned();
    for (base, number) in [(DType::F32, 0), (DType::F16, 1), (DType::Q4_0, 2), (DType::Q8_0, 7), (DType::Q4_K, 14)] {
        assert_eq!(key(FAMILIES[0].1, base, "general.file_type"), Some(Value::U32(number)), "{base}");
    }
    // Tied: 32^-0.5.
    assert_eq!(key(FAMILIES[0].1, DType::F16, "t5.logit_scale"), Some(Value::F32(32f32.powf(-0.5))));
    assert_eq!(key(FAMILIES[0].1, DType::F16, "pocket_t5.tie_word_embeddings"), Some(Value::Bool(true)));
    assert_eq!(
        key(FAMILIES[4].1, DType::F16, "pocket_t5.feed_forward_proj"),
        Some(Value::String("gated-silu".to_owned()))
    );
    // An own head and a scale.
    assert_eq!(key(FAMILIES[3].1, DType::F16, "t5.logit_scale"), Some(Value::F32(32f32.powf(-0.5))));
    assert_eq!(key(FAMILIES[5].1, DType::F16, "general.architecture"), Some(Value::String("t5encoder".to_owned())));
    assert_eq!(key(FAMILIES[5].1, DType::F16, "t5encoder.block_count"), Some(Value::U32(2)));
    assert_eq!(key(FAMILIES[5].1, DType::F16, "t5encoder.decoder_block_count"), None);
}

/// Section 6: d = max|x| / 127 in f32, q = x (1/d) rounded half away from zero, d stored as half.
fn naive_q8_0(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in values.chunks(32) {
        let d = block.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend(half::f16::from_f32(d).to_le_bytes());
        out.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
    }
    out
}

#[test]
fn stored_values_are_those_of_naive_codecs() {
    for (base, encode) in [
        (
            DType::F32,
            &(|values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect())
                as &dyn Fn(&[f32]) -> Vec<u8>,
        ),
        (DType::F16, &|values| values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()),
        (DType::Q8_0, &naive_q8_0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[1].1)).unwrap();
        let (bytes, _) = store(&source, &Policy { balance: false, scale_run: 32, ..Policy::new(base) });
        let file = File::parse("out.gguf", Bytes::from_vec(bytes)).unwrap();
        let mut compared = 0;
        for (index, spec) in schema::tensors(&source.config).iter().enumerate() {
            let tensor = file.tensors().iter().find(|tensor| tensor.name == spec.gguf_name).unwrap();
            if tensor.dtype == base {
                assert!(*tensor.data == encode(&tensor_values(index, spec))[..], "{base} {}", spec.hf_name);
                compared += 1;
            }
        }
        assert!(compared > 20, "{base}");
    }
}

#[test]
fn sixteen_bit_sources_are_read_exactly() {
    for dtype in [DType::F16, DType::BF16] {
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(&folder.path().join("model"), FAMILIES[1].1, dtype, |_, _| {});
        let source = Checkpoint::open(&folder.path().join("model")).unwrap();
        let (bytes, report) = store(&source, &Policy::new(DType::F32));
        let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
        for (spec, tensor) in back.tensors() {
            let source = source.tensor(&spec.hf_name).unwrap();
            assert_eq!((source.dtype, tensor.dtype), (dtype, DType::F32));
            assert_eq!(block::decode_tensor(tensor).unwrap(), block::decode_tensor(source).unwrap());
        }
        assert!(report.tensors.iter().all(|tensor| tensor.errors.max == 0.0 && tensor.errors.squared > 0.0));
    }
}

#[test]
fn the_report_measures_the_file() {
    for base in FILE_TYPES {
        let folder = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[7].1)).unwrap();
        let (bytes, report) = store(&source, &Policy { balance: false, ..Policy::new(base) });
        let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
        for ((spec, tensor), said) in back.tensors().zip(&report.tensors) {
            let read = block::decode_tensor(source.tensor(&spec.hf_name).unwrap()).unwrap();
            let stored = block::decode_tensor(tensor).unwrap();
            let max = read.iter().zip(&stored).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            let squares: f64 = read.iter().zip(&stored).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let rms = (squares / read.len() as f64).sqrt();
            assert_eq!(said.name, spec.hf_name);
            assert_eq!((said.to, said.bytes_after), (tensor.dtype, tensor.data.len() as u64));
            assert_eq!(said.errors.max, max, "{base} {}", said.name);
            // Only the order of additions differs.
            assert!((said.errors.rms() - rms).abs() <= 1e-6 * rms, "{base} {}", said.name);
        }
    }
}

/// Behind a norm only the products of its weights and a matrix's columns matter.
#[test]
fn balancing_keeps_what_a_norm_and_a_matrix_mean_together() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[1].1)).unwrap();
    let values = |checkpoint: &Checkpoint, name: &str| block::decode_tensor(checkpoint.tensor(name).unwrap()).unwrap();
    let pairs = [
        ("decoder.final_layer_norm.weight", "lm_head.weight"),
        ("encoder.final_layer_norm.weight", "decoder.block.1.layer.1.EncDecAttention.v.weight"),
        ("encoder.block.1.layer.1.layer_norm.weight", "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"),
        ("decoder.block.1.layer.0.layer_norm.weight", "decoder.block.1.layer.0.SelfAttention.k.weight"),
        ("decoder.block.0.layer.1.layer_norm.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight"),
    ];
    let (bytes, report) = store(&source, &Policy { scale_run: 32, ..Policy::new(DType::Q8_0) });
    let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
    for (norm, matrix) in pairs {
        let (read, stored) = (values(&source, norm), values(&back, norm));
        let factors: Vec<f32> = read.iter().zip(&stored).map(|(read, stored)| read / stored).collect();
        assert!(factors.iter().any(|factor| (factor - 1.0).abs() > 0.05), "{norm}: {factors:?}");
        let (read, stored) = (values(&source, matrix), values(&back, matrix));
        let blocks = read.chunks_exact(32).zip(stored.chunks_exact(32)).enumerate();
        for (index, (read, stored)) in blocks {
            // Half a step of the block, and the rounding of the step to half precision.
            let most = stored.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0 * 0.57;
            for (i, (read, stored)) in read.iter().zip(stored).enumerate() {
                let factor = factors[(index * 32 + i) % factors.len()];
                assert!((read * factor - stored).abs() <= most, "{matrix}: {read} as {stored}, {factor}");
            }
        }
        let said = report.tensors.iter().find(|tensor| tensor.name == matrix).unwrap();
        let differences = read.iter().zip(&stored).enumerate();
        let max = differences
            .map(|(i, (read, stored))| (read - stored / factors[i % factors.len()]).abs())
            .fold(0f32, f32::max);
        assert!((said.errors.max - max).abs() <= 1e-5 * max, "{matrix}: the report's units are the checkpoint's");
    }
    // Matrices that are not rounded to blocks leave the norm before them alone.
    for policy in [Policy::new(DType::F16), Policy { balance: false, ..Policy::new(DType::Q8_0) }] {
        let (bytes, _) = store(&source, &policy);
        let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
        pairs.iter().for_each(|(norm, _)| assert_eq!(values(&back, norm), values(&source, norm)));
    }
}

/// Matrices that many rows meet at once, and the decoder's others, get one scale for as many values as the policy has
/// for them, which is that of the largest; the embedding keeps its blocks.
#[test]
fn runs_share_a_scale() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[7].1)).unwrap();
    for (scale_run, decoder_scale_run) in [(32, 32), (128, 32), (256, 32), (128, 256)] {
        let policy = Policy { balance: false, scale_run, decoder_scale_run, ..Policy::new(DType::Q8_0) };
        let (bytes, report) = store(&source, &policy);
        let file = File::parse("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
        for (index, spec) in schema::tensors(&source.config).iter().enumerate() {
            let tensor = file.tensors().iter().find(|tensor| tensor.name == spec.gguf_name).unwrap();
            let said = report.tensors.iter().find(|said| said.gguf_name == spec.gguf_name).unwrap();
            if tensor.dtype != DType::Q8_0 {
                assert_eq!(said.scale_run, None, "{}", spec.hf_name);
                continue;
            }
            let name = &spec.hf_name;
            let many_rows =
                name.starts_with("encoder") || name.contains("EncDecAttention.k") || name.contains("EncDecAttention.v");
            let wanted = match many_rows {
                true => scale_run,
                false if name.starts_with("decoder") => decoder_scale_run,
                false => 32,
            };
            // Rows of `o` have 384 values.
            let run = if tensor.columns() == 384 { wanted.min(128) } else { wanted };
            assert_eq!(said.scale_run, Some(run), "{name}");
            let blocks = tensor.data.as_chunks::<34>().0;
            for (values, blocks) in tensor_values(index, spec).chunks(run).zip(blocks.chunks(run / 32)) {
                let d = values.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
                for (values, block) in values.chunks(32).zip(blocks) {
                    assert_eq!(block[..2], half::f16::from_f32(d).to_le_bytes(), "{name}");
                    assert!(values.iter().zip(&block[2..]).all(|(x, q)| (x / d - f32::from(*q as i8)).abs() < 0.501));
                }
            }
        }
        // What is copied keeps its runs, and the report finds them.
        let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
        let (again, copied) = store(&back, &Policy::new(DType::Q8_0));
        assert!(again == bytes);
        let runs = |report: &Report| report.tensors.iter().map(|tensor| tensor.scale_run).collect::<Vec<_>>();
        assert_eq!(runs(&copied), runs(&report));
    }
    for (wrong, option) in [
        (Policy { scale_run: 64, ..Policy::new(DType::Q8_0) }, "scale-run"),
        (Policy { decoder_scale_run: 64, ..Policy::new(DType::Q8_0) }, "decoder-scale-run"),
    ] {
        let error = quantize(&source, &wrong, "out.gguf", &mut Vec::new(), &mut ()).unwrap_err();
        assert_eq!(error.to_string(), format!("{option}: expected 32, 128 or 256, found 64"));
    }
}

/// Whatever is rounded how: one file gives one result, to the last bit, on every instruction set of this machine.
#[test]
fn files_run_alike_on_every_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[7].1)).unwrap();
    let ids: Vec<u32> = (0..23).map(|i| 2 + i * 7 % 60).collect();
    let mut all = Vec::new();
    for (base, scale_run) in
        [(DType::Q8_0, 32), (DType::Q8_0, 128), (DType::Q8_0, 256), (DType::Q4_0, 128), (DType::Q4_K, 128)]
    {
        let (bytes, _) = store(&source, &Policy { scale_run, ..Policy::new(base) });
        let logits = |kernels: Kernels| -> Vec<u32> {
            let checkpoint = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
            let options = ModelOptions { isa: Some(kernels.isa()), ..ModelOptions::default() };
            let model = Model::from_checkpoint(checkpoint, &options).unwrap();
            let logits = model.session().logits_ids(&ids, &ids[..5]).unwrap();
            logits.iter().map(|logit| logit.to_bits()).collect()
        };
        let expected = logits(Kernels::of(Isa::Scalar).unwrap());
        for kernels in Kernels::available() {
            assert!(logits(kernels) == expected, "{base}, {scale_run} a scale, on {}", kernels.isa().name());
        }
        assert!(!all.contains(&expected), "{base}, {scale_run} a scale: the same as another");
        all.push(expected);
    }
}

#[test]
fn storing_a_file_again_changes_nothing() {
    for (name, json) in FAMILIES {
        for base in FILE_TYPES {
            let (source, _, bytes) = family(json, base);
            assert!(store(&source, &Policy::new(base)).0 == bytes, "{name} {base}: the same input");
            let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
            let (again, report) = store(&back, &Policy::new(base));
            assert!(again == bytes, "{name} {base}: its own output");
            assert!(report.tensors.iter().all(|tensor| tensor.errors.max == 0.0), "{name} {base}");
        }
    }
}

#[test]
fn vocabulary_and_generation_defaults_travel_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path(), FAMILIES[0].1);
    let tokenizer = serde_json::json!({
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": true, "normalized": false},
            {"id": 1, "content": "</s>", "special": true, "normalized": false},
            {"id": 2, "content": "<unk>", "special": true, "normalized": false},
            {"id": 5, "content": "<extra_id_0>", "special": true, "normalized": false},
        ],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [
            ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁a", -1.5], ["b", -2.5], ["<extra_id_0>", 0.0]
        ]},
    });
    std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let generation = r#"{"max_new_tokens": 20, "num_beams": 4, "length_penalty": 0.6, "eos_token_id": [1, 3]}"#;
    std::fs::write(path.join("generation_config.json"), generation).unwrap();

    let source = Checkpoint::open(&path).unwrap();
    let (bytes, _) = store(&source, &Policy::new(DType::Q8_0));
    let file = File::parse("out.gguf", Bytes::from_vec(bytes.clone())).unwrap();
    let array = |key: &str| file.array(key).unwrap().unwrap();
    assert_eq!(file.string("tokenizer.ggml.model").unwrap(), Some("t5"));
    // One for each row of the embedding.
    assert_eq!(array("tokenizer.ggml.tokens").len(), 64);
    assert_eq!(array("tokenizer.ggml.scores").len(), 64);
    let tokens: Vec<&str> = array("tokenizer.ggml.tokens").strings().unwrap().take(6).collect();
    assert_eq!(tokens, ["<pad>", "</s>", "<unk>", "▁a", "b", "<extra_id_0>"]);
    assert_eq!(array("tokenizer.ggml.token_type").integers().unwrap()[..6], [3, 3, 2, 1, 1, 4]);
    assert_eq!(file.value("tokenizer.ggml.unknown_token_id"), Some(&Value::U32(2)));
    assert_eq!(file.value("pocket_t5.extra_ids"), Some(&Value::U32(1)));
    assert_eq!(file.value("pocket_t5.generation.num_beams"), Some(&Value::U32(4)));

    let back = Checkpoint::from_gguf("out.gguf", Bytes::from_vec(bytes)).unwrap();
    assert!(source.vocabulary.is_some());
    assert_eq!(back.vocabulary, source.vocabulary);
    assert_eq!(back.generation, source.generation);
    assert_eq!(back.generation.settings.eos_token_id, Some(vec![1, 3]));
}

/// The sizes of the data section that docs/gguf.md 4 gives for published models, with bias tables as F32.
#[test]
fn published_models_have_the_sizes_of_the_specification() {
    let t5 = r#"{"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}"#;
    let flan = r#"{"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
    // The specification counts t5-small's left-over third table, [32, 8], which we leave out.
    let (left_over, f32_tables) = (32 * 8, 2 * 32 * (8 + 6));
    assert_eq!(f32_tables, 896);
    for (json, base, published, leave_out, tables) in [
        (t5, DType::F32, 242_027_520, 4 * left_over, 0),
        (t5, DType::F16, 121_046_528, 2 * left_over, 2 * 2 * 32 * 8),
        (t5, DType::Q8_0, 64_337_408, 2 * left_over, 2 * 2 * 32 * 8),
        (flan, DType::F32, 307_844_608, 0, 0),
        (flan, DType::F16, 153_965_312, 0, 2 * 2 * 32 * 6),
        (flan, DType::Q8_0, 81_834_752, 0, 2 * 2 * 32 * 6),
    ] {
        let plan = Policy::new(base).plan(&config(json)).unwrap();
        let size: usize = plan
            .iter()
            .map(|(spec, dtype)| {
                let columns = *spec.shape.last().unwrap();
                let rows = spec.shape.iter().product::<usize>() / columns;
                (dtype.row_bytes(columns).unwrap() * rows).next_multiple_of(32)
            })
            .sum();
        assert_eq!(size, published - leave_out + tables, "{base}");
    }
}

/// The sentence with which a checkpoint is refused whose tensors `edit` has changed.
fn refusal(base: DType, keep: &[&str], edit: impl Fn(&str, &mut Vec<f32>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write_checkpoint(&path, FAMILIES[7].1, DType::F32, edit);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let keep = keep.iter().map(|keep| Keep::parse(keep).unwrap()).collect();
    let error =
        quantize(&checkpoint, &Policy { keep, ..Policy::new(base) }, "out.gguf", &mut Vec::new(), &mut ()).unwrap_err();
    error.to_string().split_once("model.safetensors: ").unwrap().1.to_owned()
}

#[test]
fn values_that_cannot_be_stored_are_refused_by_tensor_and_place() {
    let change = |tensor: &'static str, row: usize, column: usize, columns: usize, value: f32| {
        move |name: &str, values: &mut Vec<f32>| {
            if name == tensor {
                values[row * columns + column] = value;
            }
        }
    };
    const WO: &str = "encoder.block.0.layer.1.DenseReluDense.wo.weight";
    const NORM: &str = "decoder.block.0.layer.2.layer_norm.weight";
    for base in FILE_TYPES {
        for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            assert_eq!(
                refusal(base, &[], change(WO, 200, 511, 512, value)),
                format!("tensor {WO}: row 200, column 511: expected a finite number, found {shown}"),
                "{base}"
            );
        }
        // Norms are copied; they are looked at all the same.
        assert_eq!(
            refusal(base, &[], change(NORM, 0, 9, 256, f32::NAN)),
            format!("tensor {NORM}: row 0, column 9: expected a finite number, found NaN"),
            "{base}"
        );
    }
    // 65504 is the largest half: of a number, or of the scale of a block, whose steps are max / 127 or max / 8.
    for (base, fits, too_large) in
        [(DType::F16, 65504.0, 65536.0), (DType::Q8_0, 127.0 * 65504.0, 9e6), (DType::Q4_0, 8.0 * 65504.0, 6e5)]
    {
        let change = |value| change(WO, 3, 77, 512, value);
        assert_eq!(
            refusal(base, &[], change(too_large)),
            format!("tensor {WO}: row 3, column 77: expected a number that {base} can hold, found {too_large}")
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write_checkpoint(&path, FAMILIES[7].1, DType::F32, change(fits));
        store(&Checkpoint::open(&path).unwrap(), &Policy::new(base));
    }
    let message = refusal(DType::Q4_K, &[], change(WO, 3, 77, 512, 1e30));
    assert!(message.starts_with(&format!("tensor {WO}: row 3, column 77: expected a number that q4_k")), "{message}");
    let message = refusal(DType::F32, &["wo=bf16"], change(WO, 3, 77, 512, f32::MAX));
    assert!(message.contains("expected a number that bf16 can hold"), "{message}");
}

#[test]
fn damaged_blocks_are_refused_whether_copied_or_stored_anew() {
    let (_, file, bytes) = family(FAMILIES[7].1, DType::Q8_0);
    const WO: &str = "enc.blk.0.ffn_down.weight";
    // Where the tensor lies in the file.
    let data = &*file.tensors().iter().find(|tensor| tensor.name == WO).unwrap().data;
    let start = bytes.windows(data.len()).position(|window| window == data).unwrap();
    let damaged = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[start + at..start + at + value.len()].copy_from_slice(value);
        Checkpoint::from_gguf("in.gguf", Bytes::from_vec(bytes)).unwrap()
    };
    let refusal = |checkpoint: &Checkpoint, base| {
        let error = quantize(checkpoint, &Policy::new(base), "out.gguf", &mut Vec::new(), &mut ()).unwrap_err();
        error.to_string()
    };
    let name = "in.gguf: tensor encoder.block.0.layer.1.DenseReluDense.wo.weight: ";
    // The second block of the first row gets a scale that is infinite, or a value of -128.
    let infinite = damaged(34, &half::f16::INFINITY.to_le_bytes());
    assert_eq!(refusal(&infinite, DType::Q8_0), format!("{name}row 0, block 1: expected a finite scale, found inf"));
    assert!(refusal(&infinite, DType::F16).starts_with(&format!("{name}row 0, column ")));
    let low = damaged(34 + 2, &[0x80]);
    assert_eq!(refusal(&low, DType::Q8_0), format!("{name}row 0, block 1: expected values in [-127, 127], found -128"));
}

#[test]
fn a_failing_writer_is_an_error() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[0].1)).unwrap();
    let size = store(&source, &Policy::new(DType::Q8_0)).0.len();
    for room in [0, 100, size / 2, size - 1] {
        let error =
            quantize(&source, &Policy::new(DType::Q8_0), "disk/out.gguf", &mut Full(room), &mut ()).unwrap_err();
        assert_eq!(error.to_string(), "disk/out.gguf: no storage space", "{room}");
    }
    quantize(&source, &Policy::new(DType::Q8_0), "disk/out.gguf", &mut Full(size), &mut ()).unwrap();
}

#[test]
fn progress_adds_up_to_all_values() {
    #[derive(Default)]
    struct Sum {
        expected: u64,
        values: u64,
        tensors: Vec<String>,
    }
    impl t5_quantize::Progress for Sum {
        fn start(&mut self, values: u64) {
            self.expected = values;
        }
        fn tensor(&mut self, name: &str) {
            self.tensors.push(name.to_owned());
        }
        fn advance(&mut self, values: u64) {
            self.values += values;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&checkpoint(folder.path(), FAMILIES[7].1)).unwrap();
    let mut sum = Sum::default();
    quantize(&source, &Policy::new(DType::Q4_K), "out.gguf", &mut std::io::sink(), &mut sum).unwrap();
    assert_eq!(sum.values, sum.expected);
    let names: Vec<_> = schema::tensors(&source.config).into_iter().map(|spec| spec.hf_name).collect();
    assert_eq!(sum.tensors, names);
}

/// flan-t5-small with real weights and tokenizer, where the shared folder is.
#[test]
fn a_real_model_keeps_tokenizer_and_values() {
    let Some(path) = common::shared("models/flan-t5-small-titler") else { return };
    let source = Checkpoint::open(&path).unwrap();
    let (bytes, report) = store(&source, &Policy::new(DType::Q8_0));
    let back = Checkpoint::from_gguf("titler.gguf", Bytes::from_vec(bytes)).unwrap();
    assert_eq!(back.tensors().count(), 190);
    assert!(source.vocabulary.is_some());
    assert_eq!(back.vocabulary, source.vocabulary);
    // Int8 blocks of real weights: errors stay under 1.5 % of the values.
    for role in report.roles() {
        assert!(role.errors.relative_rms() < 0.015, "{}: {}", role.role.name(), role.errors.relative_rms());
    }
}
