//! What tests share: the specification's configuration; a small run, with a made-up task in a temporary folder; and the
//! command.

#![allow(dead_code, unused_imports)] // Each test binary uses a part of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../../../tests/src/checkpoint.rs"]
mod checkpoint;

pub use checkpoint::specification_config as golden_config;
use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::T5Config;
use t5_runtime::schema::Role;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_train::batches::Batch;
use t5_train::checkpoint::write_model;
use t5_train::init::{self, Scheme};
use t5_train::model::Model;

/// A model whose values follow from its tensors' names.
pub fn named(config: &T5Config) -> Model {
    let values = |data: &[u8]| data.chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
    let part = |name: &str, shape: &[usize]| checkpoint::part(name, shape).data;
    Model::from_values(config, |spec| Ok(values(&part(&spec.hf_name, &spec.shape)))).expect("a model")
}

/// A model, and the file in eight bits that is made of it: its encoder has traded factors with the decoder.
pub fn balanced(folder: &Path) -> (Model, Checkpoint) {
    let sizes = golden_config("relu", true, "t5");
    let config = T5Config { d_model: 32, d_kv: 16, d_ff: 32, vocab_size: 40, ..sizes };
    let model = Model::from_values(&config, |spec| {
        let mut values = init::values(Scheme::T5x, &config, spec, 3);
        if spec.id.role == Role::Wo {
            // Channels of different sizes, which is what is traded.
            let rows = values.chunks_exact_mut(config.d_ff).enumerate();
            rows.for_each(|(channel, row)| row.iter_mut().for_each(|value| *value *= (channel + 1) as f32));
        }
        Ok(values)
    });
    let model = model.expect("a model");
    std::fs::write(folder.join("config.json"), config.to_json().to_string()).expect("a file");
    write_model(&folder.join("model.safetensors"), &model, None).expect("a file");
    let (original, mut file) = (Checkpoint::open(folder).expect("a checkpoint"), Vec::new());
    quantize(&original, &Policy::new(DType::Q8_0), "memory.gguf", &mut file, &mut ()).expect("a file");
    let stored = Checkpoint::from_gguf("memory.gguf", Bytes::from_vec(file)).expect("a checkpoint");
    let scale = stored.encoder_scale.as_ref().expect("factors");
    let (least, most) = scale.iter().fold((f32::MAX, 0f32), |(least, most), s| (least.min(*s), most.max(*s)));
    assert!(most / least > 2.0, "nothing was traded: {least} to {most}");
    (model, stored)
}

/// A batch of one example, which fills its row.
pub fn one_example(inputs: &[u32], targets: &[u32]) -> Batch {
    Batch {
        encoder_ids: inputs.to_vec(),
        encoder_segments: vec![1; inputs.len()],
        decoder_input_ids: [&[0], &targets[..targets.len() - 1]].concat(),
        decoder_target_ids: targets.to_vec(),
        decoder_segments: vec![1; targets.len()],
        loss_weights: vec![1.0; targets.len()],
        rows: 1,
        enc_len: inputs.len(),
        dec_len: targets.len(),
    }
}

/// What is compared to the last bit.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `t5-train` with arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t5-train"));
    command.args(arguments);
    command
}

/// Runs it and gives its output.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("t5-train starts")
}

/// Runs it and expects success.
pub fn succeed(arguments: &[&str]) -> Output {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs it and expects a failure, of which it gives the message.
pub fn fail(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// A few hundred lines of a made-up language: numbers in words, and the same with digits.
pub fn write_corpus(folder: &Path) {
    let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let lines: String = (0..400)
        .map(|i: usize| {
            let digits = format!("{}", 100 + i * 7919 % 900);
            let spelled: Vec<&str> = digits.bytes().map(|digit| words[(digit - b'0') as usize]).collect();
            format!("{}\t{digits}\n", spelled.join(" "))
        })
        .collect();
    std::fs::write(folder.join("numbers.tsv"), lines).expect("a file");
}

/// A configuration over the corpus; `more` is TOML that comes first, so its tables must not be closed by others.
pub fn write_config(folder: &Path, more: &str) -> PathBuf {
    let folder_text = folder.display();
    let text = format!(
        r#"
[run]
output = "{folder_text}/run"
steps = 60
threads = 1
precision = "f32"
{more}

[model]
vocabulary = "{folder_text}/tokenizer.json"
d_model = 32
d_kv = 8
d_ff = 64
num_layers = 1
num_decoder_layers = 1
num_heads = 2

[data]
dir = "{folder_text}"
inputs_length = 32
targets_length = 32

[data.batches]
tokens = 200
window = 4

[[data.tasks]]
name = "numbers"
source = {{ format = "tsv", columns = ["words", "digits"] }}
train = ["numbers.tsv"]
hold_out = {{ field = "digits", share = 0.05 }}
examples = {{ kind = "template", input = "number: {{words}}", target = "{{digits}}" }}
metrics = ["exact-match"]

[vocabulary]
pieces = 150
characters = 20000

[schedule]
peak_rate = 0.05

[checkpoint]
every_steps = 3

[log]
every_steps = 5

[evaluation]
every_steps = 20
"#
    );
    let path = folder.join("run.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

/// A folder with corpus, configuration and vocabulary. Gives the configuration's path.
pub fn prepare(folder: &Path, more: &str) -> String {
    write_corpus(folder);
    let config = write_config(folder, more).display().to_string();
    succeed(&["vocab", &config, "-o", &folder.join("tokenizer.json").display().to_string()]);
    config
}

/// A checkpoint's files, without what `state.json` says of clocks and ranks.
pub fn result(run: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a run's file").path())
        .map(|path| {
            (
                path.file_name().expect("a run's file").to_str().expect("a run's file").to_owned(),
                std::fs::read(&path).expect("a run's file"),
            )
        })
        .collect();
    for (name, contents) in &mut files {
        if name == "state.json" {
            let mut state: serde_json::Value = serde_json::from_slice(contents).expect("a run's file");
            state["seconds"] = 0.into();
            state["interval"]["seconds"] = 0.into();
            state["interval"].as_object_mut().expect("an object").remove("shared");
            *contents = state.to_string().into_bytes();
        }
    }
    files.sort();
    files
}

/// The log without its clocks and ranks.
pub fn log(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).expect("a run's file");
    let clean = |line: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).expect("a run's file");
        record["seconds"] = 0.into();
        if let Some(train) = record["train"].as_object_mut() {
            train.remove("ranks");
        }
        for key in ["tokens_per_second", "peak_memory_mb"] {
            if record["train"].get(key).is_some() {
                record["train"][key] = 0.into();
            }
        }
        record
    };
    text.lines().map(clean).collect()
}
