//! States of the encoder and vectors of sentence models against the transformers and sentence-transformers libraries:
//! golden/states.jsonl and golden/sentence.

use std::path::Path;

use serde_json::{Value, json};
use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::{EncodeOptions, Encoded, Model, ModelOptions, Passage, Pooling};
use t5_tests::convert::converted;
use t5_tests::{Case, Golden, Report, beside, families, paths};

fn options(case: &Case) -> EncodeOptions {
    let number = |key: &str| case.has(key).then(|| case.get(key).as_i64().unwrap());
    EncodeOptions {
        pooling: Some(Pooling::None),
        pad_to: number("pad_to").map(|length| length as usize),
        pad_mask: !case.has("pad_mask") || *case.get("pad_mask") == json!(true),
        layer: number("layer").map(|layer| layer as isize),
        ..EncodeOptions::default()
    }
}

fn one(model: &Model, passage: &Passage, options: &EncodeOptions) -> Encoded {
    model.session().encode_passages(std::slice::from_ref(passage), options).unwrap().remove(0)
}

/// The bits of all values: equal ones are equal to the last.
fn bits(encoded: &[Encoded]) -> Vec<Vec<u32>> {
    encoded.iter().map(|encoded| encoded.values.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn states_are_those_of_the_transformers_library() {
    let golden = Golden::read(&paths::golden("states.jsonl"));
    let mut report = Report::default();
    for case in &golden.cases {
        let model = Model::open(families::folder(case.text("family"))).unwrap();
        let place = format!("line {}: {}", case.line, case.text("family"));
        let passage = Passage::from(case.ids("ids"));
        let options = options(case);
        let found = one(&model, &passage, &options);
        let expected = case.floats("states");
        report.equal(&place, &found.input_ids, &case.ids("input_ids"));
        report.equal(&place, &(found.rows, found.width()), &(found.input_ids.len(), model.config().d_model));
        report.close("states", &place, &found.values, &expected, 1e-4);
        report.equal(&place, &model.rows_of(&passage, &options).unwrap(), &(found.rows, found.tokens));

        // Pooling is over the text's tokens, whatever padding does.
        let d = found.width();
        let rows: Vec<&[f32]> = expected.chunks_exact(d).take(found.tokens).collect();
        let column = |combine: fn(Vec<f32>) -> f32| -> Vec<f32> {
            (0..d).map(|i| combine(rows.iter().map(|row| row[i]).collect())).collect()
        };
        for (pooling, expected) in [
            (Pooling::Mean, column(|values| values.iter().sum::<f32>() / values.len() as f32)),
            (Pooling::Max, column(|values| values.into_iter().fold(f32::NEG_INFINITY, f32::max))),
            (Pooling::First, rows[0].to_vec()),
            (Pooling::Last, rows[rows.len() - 1].to_vec()),
        ] {
            let pooled = one(&model, &passage, &EncodeOptions { pooling: Some(pooling), ..options.clone() });
            report.equal(&place, &pooled.rows, &1);
            report.close("pooled", &place, &pooled.values, &expected, 1e-4);
        }
        let normal = one(&model, &passage, &EncodeOptions { normalize: true, ..options.clone() });
        for (row, expected) in normal.values.chunks_exact(d).zip(expected.chunks_exact(d)) {
            let length = expected.iter().map(|value| value * value).sum::<f32>().sqrt();
            let expected: Vec<f32> = expected.iter().map(|value| value / length).collect();
            report.close("normalised", &place, row, &expected, 1e-4);
        }
    }
    report.finish("states");
}

/// Masked padding changes nothing of what it stands behind; attended to, it does.
#[test]
fn masked_padding_changes_no_bit() {
    for family in ["t5-1.0", "umt5", "odd"] {
        for checkpoint in
            [Checkpoint::open(&families::folder(family)).unwrap(), converted(&families::folder(family), DType::Q8_0)]
        {
            let model = Model::from_checkpoint(checkpoint, &ModelOptions::default()).unwrap();
            let passage = Passage::from(vec![5, 9, 33, 7, 1]);
            let plain = EncodeOptions { pooling: Some(Pooling::None), ..EncodeOptions::default() };
            let bare = one(&model, &passage, &plain);
            let masked = one(&model, &passage, &EncodeOptions { pad_to: Some(40), ..plain.clone() });
            assert_eq!(masked.values.len(), 8 * bare.values.len());
            assert_eq!(masked.values[..bare.values.len()], bare.values[..], "{family}");
            let seen = EncodeOptions { pad_to: Some(40), pad_mask: false, ..plain };
            assert_ne!(one(&model, &passage, &seen).values[..bare.values.len()], bare.values[..], "{family}");
        }
    }
}

/// Texts of all lengths, more than one pass takes, and any number of threads: the bits of one by one.
#[test]
fn many_give_the_bits_of_one_by_one() {
    let model = Model::open(families::folder("unigram")).unwrap();
    let passages: Vec<Passage> = (0..60u32)
        .map(|i| (0..1 + i * 37 % 83).map(|j| 3 + (i * 31 + j * 17) % 200).chain([1]).collect::<Vec<u32>>().into())
        .collect();
    for options in [
        EncodeOptions { pooling: Some(Pooling::None), ..EncodeOptions::default() },
        EncodeOptions { pad_to: Some(48), normalize: true, ..EncodeOptions::default() },
        EncodeOptions { pad_to: Some(48), pad_mask: false, layer: Some(1), ..EncodeOptions::default() },
    ] {
        let alone: Vec<Encoded> = passages.iter().map(|passage| one(&model, passage, &options)).collect();
        for threads in [1, 3] {
            let mut session = model.session();
            session.set_threads(threads);
            let together = session.encode_passages(&passages, &options).unwrap();
            assert_eq!(bits(&together), bits(&alone), "{options:?}, {threads} threads");
            assert_eq!(together, alone);
        }
    }
}

#[test]
fn faulty_options_are_named() {
    let model = Model::open(families::folder("unigram")).unwrap();
    let says = |options: EncodeOptions, passage: Passage| {
        model.session().encode_passages(&[passage], &options).unwrap_err().to_string()
    };
    let ids = || Passage::from(vec![5, 6, 1]);
    let default = EncodeOptions::default;
    for (layer, found) in [(3, "3"), (-4, "-4"), (isize::MIN, "-9223372036854775808")] {
        let error = says(EncodeOptions { layer: Some(layer), ..default() }, ids());
        assert_eq!(error, format!("layer: expected -3 to 2, found {found}"));
    }
    let error = says(EncodeOptions { pad_to: Some(0), ..default() }, ids());
    assert_eq!(error, "pad_to: expected at least 1, found 0");
    assert_eq!(says(default(), vec![].into()), "source: expected at least one token");
    assert_eq!(says(default(), vec![256].into()), "source: expected ids below 256, found 256");
    let cut = Passage { ids: vec![5, 6, 7, 1], wanted: Some(2..3) };
    let error = says(EncodeOptions { pad_to: Some(2), ..default() }, cut);
    assert_eq!(error, "pad_to: expected at least one of the tokens that are wanted among 2, found none");
    let error = model.encode(&["a"], &EncodeOptions { prompt: Some("query".into()), ..default() }).unwrap_err();
    assert_eq!(error.to_string(), "prompt: expected none, since the model has no prompts, found query");
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Every vector of the folder's golden file, with the vector that a model gives.
fn vectors(name: &str, model: &Model) -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let golden = Golden::read(&paths::golden("sentence").join(name).join("golden.jsonl"));
    assert!(golden.cases.len() >= 4);
    let vector = |case: &Case| {
        let options = EncodeOptions { prompt: case.get("prompt").as_str().map(str::to_owned), ..Default::default() };
        let found = model.encode(&[case.text("text")], &options).unwrap().remove(0);
        assert_eq!((found.rows, found.width()), (1, model.width_of(&options)));
        (format!("{name}, line {}", case.line), found.values, case.floats("vector"))
    };
    golden.cases.iter().map(vector).collect()
}

#[test]
fn sentence_models_give_the_vectors_of_the_python_package() {
    let mut report = Report::default();
    for name in beside::SENTENCE_MODELS {
        let folder = beside::sentence_model(name);
        let model = Model::open(folder.path()).unwrap();
        let file = converted(folder.path(), DType::F32);
        assert_eq!(file.sentence.as_ref(), model.sentence_model());
        let file = Model::from_checkpoint(file, &ModelOptions::default()).unwrap();
        for model in [&model, &file] {
            for (place, found, expected) in vectors(name, model) {
                report.close("vector", &place, &found, &expected, 1e-5);
            }
        }
        // What asks for a vector without options gets the model's.
        let (_, default, _) = vectors(name, &model).remove(0);
        assert_eq!(model.session().embed("The house").unwrap(), default);
    }
    report.finish("sentence models");

    let folder = beside::sentence_model("kinds");
    let model = Model::open(folder.path()).unwrap();
    let encode = |options: EncodeOptions| model.encode(&["The house"], &options).unwrap().remove(0);
    let typed = encode(EncodeOptions { prefix: Some("query: ".into()), ..EncodeOptions::default() });
    let named = EncodeOptions { prompt: Some("query".into()), ..EncodeOptions::default() };
    assert_eq!(typed, encode(named.clone()));
    let error = model.encode(&["a"], &EncodeOptions { prompt: Some("no".into()), ..named }).unwrap_err();
    assert_eq!(error.to_string(), "prompt: expected one of document, query, found no");
    // Another pooling than the model's has none of its layers.
    let mean = EncodeOptions { pooling: Some(Pooling::Mean), ..EncodeOptions::default() };
    assert_eq!((encode(mean.clone()).width(), model.width_of(&mean)), (32, 32));
}

/// A file in eight bits of a whole model, whose norms have traded factors with the matrices behind them: the decoder
/// gets what it wants, and everybody else the states of the checkpoint.
#[test]
fn balanced_files_have_the_states_of_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = t5_tests::tiny::specification(t5_tests::tiny::Variant::V1_1);
    (tiny.config.d_model, tiny.config.d_kv, tiny.config.d_ff, tiny.config.vocab_size) = (32, 16, 32, 40);
    let mut tiny = t5_tests::tiny::silent(tiny.config);
    let channel = |i: usize| 1.0 + (i % 32) as f32;
    for (name, shape, values) in &mut tiny.tensors {
        if shape.len() == 2 {
            let wo = name.ends_with("wo.weight");
            let value = |i: usize| ((i * 7919 + 31 * i * i) % 1009) as f32 / 1009.0 - 0.5;
            let rows = |i: usize| if wo { channel(i / shape[1]) } else { 1.0 };
            *values = (0..values.len()).map(|i| value(i) * rows(i)).collect();
        }
    }
    tiny.write(folder.path());
    let exact = Model::open(folder.path()).unwrap();
    let file = converted(folder.path(), DType::Q8_0);
    let scale = file.encoder_scale.clone().unwrap();
    let (least, most) = scale.iter().fold((f32::MAX, 0f32), |(least, most), s| (least.min(*s), most.max(*s)));
    assert!(most / least > 2.0, "nothing was traded: {least} to {most}");
    // Stored once more, it says the same.
    let mut bytes = Vec::new();
    quantize(&file, &Policy::new(DType::F32), "memory.gguf", &mut bytes, &mut ()).unwrap();
    let again = Checkpoint::from_gguf("memory.gguf", Bytes::from_vec(bytes)).unwrap();
    assert_eq!(again.encoder_scale.as_ref(), Some(&scale));
    let ids = [5, 9, 33, 7, 1];
    let expected = exact.session().encode_ids(&ids).unwrap().to_vec();
    for checkpoint in [file, again] {
        let model = Model::from_checkpoint(checkpoint, &ModelOptions::default()).unwrap();
        let found = model.session().encode_ids(&ids).unwrap().to_vec();
        assert!(cosine(&found, &expected) > 0.999, "{}", cosine(&found, &expected));
        let mean = model.session().embed_ids(&ids).unwrap();
        assert!(cosine(&mean, &exact.session().embed_ids(&ids).unwrap()) > 0.999);
    }
}

#[test]
fn sentence_models_in_eight_bits_point_the_same_way() {
    for name in beside::SENTENCE_MODELS {
        let folder = beside::sentence_model(name);
        let model = Model::from_checkpoint(converted(folder.path(), DType::Q8_0), &ModelOptions::default()).unwrap();
        for (place, found, expected) in vectors(name, &model) {
            let cosine = cosine(&found, &expected);
            assert!(cosine > 0.999, "{place}: {cosine}");
        }
    }
}

/// Transformer files in a folder of their own, as before 2021.
#[test]
fn an_encoder_in_its_own_folder() {
    let folder = beside::sentence_model("st5");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("0_Transformer")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"] {
        std::fs::rename(at(file), at("0_Transformer").join(file)).unwrap();
    }
    edit(&at("modules.json"), |json| json[0]["path"] = json!("0_Transformer"));
    let model = Model::open(folder.path()).unwrap();
    for (place, found, expected) in vectors("st5", &model) {
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{place}");
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// What is done to the folder, and what is said then.
type Damage = (fn(&Path), &'static str);

const DAMAGES: [Damage; 14] = [
    (
        |folder| std::fs::remove_file(folder.join("2_Dense/model.safetensors")).unwrap(),
        "2_Dense/model.safetensors: expected the weights of a dense layer, found no file",
    ),
    (
        |folder| {
            std::fs::rename(folder.join("2_Dense/model.safetensors"), folder.join("2_Dense/pytorch_model.bin"))
                .unwrap();
        },
        "2_Dense/pytorch_model.bin: not a model: expected safetensors or GGUF; `t5-quantize ",
    ),
    (
        |folder| std::fs::remove_dir_all(folder.join("2_Dense")).unwrap(),
        "2_Dense/config.json: expected the configuration of the module Dense that modules.json lists, \
         found no file",
    ),
    (
        |folder| {
            let path = folder.join("2_Dense/model.safetensors");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 4]).unwrap();
        },
        "2_Dense/model.safetensors: expected 3072 bytes of tensor data, found 3068",
    ),
    (
        |folder| edit(&folder.join("2_Dense/config.json"), |json| json["out_features"] = json!(25)),
        "tensor linear.weight: expected shape [25, 32], found [24, 32]",
    ),
    (
        |folder| edit(&folder.join("2_Dense/config.json"), |json| json["bias"] = json!(true)),
        "tensor linear.bias: expected a tensor of shape [24], found none",
    ),
    (
        |folder| edit(&folder.join("2_Dense/config.json"), |json| json["activation_function"] = json!("my.Tanh")),
        "activation_function: expected Identity, Tanh, ReLU or Sigmoid of torch.nn, found my.Tanh",
    ),
    (
        |folder| edit(&folder.join("2_Dense/config.json"), |json| json["use_residual"] = json!(true)),
        "use_residual: expected false, found true",
    ),
    (
        |folder| edit(&folder.join("1_Pooling/config.json"), |json| json["pooling_mode_mean_tokens"] = json!(false)),
        "pooling_mode: expected one or more of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken, \
         found none",
    ),
    (
        |folder| edit(&folder.join("1_Pooling/config.json"), |json| json["pooling_mode_cls_token"] = json!(true)),
        "module 1: expected 24 x 64 weights of a dense layer, found 768",
    ),
    (
        |folder| {
            edit(&folder.join("modules.json"), |json| json[2]["type"] = json!("sentence_transformers.models.LSTM"))
        },
        "type: expected modules Transformer, Pooling, Dense, Normalize or Dropout, found LSTM",
    ),
    (
        |folder| edit(&folder.join("modules.json"), |json| drop(json.as_array_mut().unwrap().remove(1))),
        "module 0: expected a pooling module first, found another",
    ),
    (
        |folder| edit(&folder.join("modules.json"), |json| json[1]["path"] = json!("../1_Pooling")),
        "path: expected a folder in this one, found \"../1_Pooling\"",
    ),
    (
        |folder| {
            let path = folder.join("config_sentence_transformers.json");
            edit(&path, |json| json["default_prompt_name"] = json!("query"));
        },
        "default_prompt_name: expected the name of a prompt, found \"query\"",
    ),
];

#[test]
fn damaged_sentence_models_are_named() {
    for (damage, expected) in DAMAGES {
        let folder = beside::sentence_model("st5");
        damage(folder.path());
        let error = Checkpoint::open(folder.path()).err().unwrap_or_else(|| panic!("opened: {expected}")).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
