//! Training steps of the peers' two shapes: `cargo bench -p t5-train --bench step -- [tiny|t5-small] [threads]
//! [adamw|adafactor] [f32|bf16]`.
//!
//! As the peers are measured: random ids, no padding, dropout 0.1, tokens of encoder and decoder a second, the
//! median of the steps after two warm-up ones. Beside it: whether the loss fell, so that the work was real.

use std::time::Instant;

use serde_json::json;
use t5_runtime::config::T5Config;
use t5_train::batches::Batch;
use t5_train::config::Config;
use t5_train::init::Scheme;
use t5_train::kernels::Precision;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::Sequences;
use t5_train::ops::dropout::Plan;
use t5_train::optimizer::{Method, Optimizer};
use t5_train::random::splitmix64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let argument = |index: usize, default: &str| arguments.get(index).map_or(default.to_owned(), String::clone);
    let (name, threads) = (argument(0, "tiny"), argument(1, "1").parse().expect("a number of threads"));
    let kind = if argument(2, "adamw") == "adafactor" { Method::Adafactor } else { Method::AdamW };
    let precision = if argument(3, "f32") == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| measure(&name, threads, kind, precision));
}

fn measure(name: &str, threads: usize, kind: Method, precision: Precision) {
    // d_model, d_ff, layers, heads, vocabulary; rows, encoder and decoder length.
    let ([d_model, d_ff, layers, heads, vocab_size], [rows, source, target]) = match name {
        "t5-small" => ([512, 2048, 6, 8, 32128], [8, 128, 32]),
        _ => ([256, 1024, 4, 4, 8192], [32, 64, 64]),
    };
    let config = json!({
        "model_type": "t5", "vocab_size": vocab_size, "d_model": d_model, "d_kv": 64, "d_ff": d_ff,
        "num_layers": layers, "num_heads": heads,
    });
    let config = T5Config::from_json("config.json", &config.to_string()).expect("a configuration");
    let batch = random_batch([rows, source, target], vocab_size);
    let model = Model::new(&config, Scheme::T5x, 1).and_then(|model| model.with_precision(precision)).expect("a model");
    let mut options = Config::parse("base", "", &[]).expect("the base").optimizer;
    options.kind = kind;
    let mut optimizer = Optimizer::new(&options, &model.trained());
    let loss_options = LossOptions { label_smoothing: 0.0, z_loss: 0.0, denominator: (rows * target) as f64 };
    let rate = if kind == Method::Adafactor { 1e-3 } else { 1e-4 };
    let (mut steps, mut passes, mut updates, mut losses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut busy_before = f64::NAN;
    for step in 0..9u64 {
        if step == 2 {
            busy_before = cpu_seconds();
        }
        let started = Instant::now();
        let sequences = Sequences::new(&batch, vocab_size).expect("a batch");
        let dropout = Plan { rate: 0.1, seed: step, shared_over_length: false };
        let (loss, _) = model.backward(sequences, &loss_options, dropout).expect("a step");
        let passed = started.elapsed().as_secs_f64();
        let norm = Optimizer::gradient_norm(&model);
        optimizer.step(&model, step, rate, norm).expect("an update");
        let whole = started.elapsed().as_secs_f64();
        losses.push(loss);
        if step >= 2 {
            steps.push(whole);
            passes.push(passed);
            updates.push(whole - passed);
        }
    }
    let busy = (cpu_seconds() - busy_before) / steps.len() as f64;
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[0], values[values.len() - 1])
    };
    let tokens = (rows * (source + target)) as f64;
    let (whole, fastest, slowest) = median(&mut steps);
    println!(
        "{name} {precision:?} {kind:?} {threads} threads: {:.0} tok/s ({:.0}-{:.0}), {:.0} tok per CPU second, \
         forward and backward {:.0} ms, update {:.1} ms, peak memory {:.0} MB, loss {:.3} -> {:.3}",
        tokens / whole,
        tokens / slowest,
        tokens / fastest,
        tokens / busy,
        median(&mut passes).0 * 1e3,
        median(&mut updates).0 * 1e3,
        t5_train::trainer::peak_memory_mb().unwrap_or(f64::NAN),
        losses[0],
        losses[losses.len() - 1],
    );
    assert!(losses[losses.len() - 1] < losses[0], "the loss did not fall");
}

/// Rows of random ids without padding.
fn random_batch([rows, source, target]: [usize; 3], vocab_size: usize) -> Batch {
    let id = |stream: u64, i: usize| 2 + (splitmix64(splitmix64(stream) ^ i as u64) % (vocab_size as u64 - 2)) as u32;
    let targets: Vec<u32> = (0..rows * target).map(|i| id(2, i)).collect();
    Batch {
        encoder_ids: (0..rows * source).map(|i| id(1, i)).collect(),
        encoder_segments: vec![1; rows * source],
        decoder_input_ids: (0..rows * target).map(|i| if i % target == 0 { 0 } else { targets[i - 1] }).collect(),
        decoder_target_ids: targets,
        decoder_segments: vec![1; rows * target],
        loss_weights: vec![1.0; rows * target],
        rows,
        enc_len: source,
        dec_len: target,
    }
}

/// Processor time of this process; the clock ticks a hundred times a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
