//! What storing costs: a model under several policies against its own F32 form, teacher-forced.
//!
//! `cargo run --release -p t5-quantize --example agreement -- MODEL GOLDEN.jsonl [LINES.txt] [TYPE[,KEEP]...]`
//!
//! References are the greedy ids and log-probabilities of `GOLDEN.jsonl` (from the transformers library) and, for each
//! line of `LINES.txt`, the first 64 greedy tokens of the model stored as F32. Every policy is fed those tokens; the
//! table says how many of them it would have chosen itself, and how far their log-probability moved. The tables of
//! README.md come from here.

use std::path::Path;

use t5_quantize::{Keep, Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::{GenerateOptions, Model, Result};

const POLICIES: [&str; 12] = [
    "f32",
    "f16",
    "q8_0",
    "q8_0,wo=f16",
    "q8_0,wi_0=f16,wi_1=f16",
    "q8_0,self_?=f16",
    "q8_0,cross_?=f16",
    "q8_0,token_embedding=f16",
    "q8_0,output_head=f16",
    "q4_0",
    "q4_0,wo=q8_0",
    "q4_k",
];

/// A source and a target: for each token of the target its log-probability and the token that the F32 model would
/// have chosen in its place.
struct Case {
    source: Vec<u32>,
    target: Vec<u32>,
    logprobs: Vec<f32>,
    choices: Vec<Option<usize>>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let model = arguments.next().ok_or("expected MODEL GOLDEN.jsonl [LINES.txt] [TYPE[,KEEP]...]")?;
    let golden = arguments.next().ok_or("expected GOLDEN.jsonl after MODEL")?;
    let lines = arguments.next_if(|argument| argument.ends_with(".txt"));
    let mut policies: Vec<String> = arguments.collect();
    if policies.is_empty() {
        policies = POLICIES.map(str::to_owned).to_vec();
    }
    let checkpoint = Checkpoint::open(Path::new(&model))?;
    let (exact, _) = stored(&checkpoint, "f32")?;
    let mut sets = vec![("golden", read_golden(&exact, &golden)?)];
    if let Some(lines) = lines {
        sets.push(("lines", generate(&exact, &std::fs::read_to_string(lines)?)?));
    }
    drop(exact);

    println!("{:<28}{:>9}  reference   tokens  agree       mean shift  mean |shift|", "policy", "size");
    for policy in &policies {
        let (model, bytes) = stored(&checkpoint, policy)?;
        for (name, cases) in &sets {
            let sums = measure(&model, cases)?;
            let tokens = sums.tokens as f64;
            println!(
                "{policy:<28}{:>6.1} MB  {name:<10}{:>8}  {:>7.3} %  {:>+11.6}  {:>12.6}",
                bytes as f64 / 1e6,
                sums.tokens,
                100.0 * sums.agreed as f64 / tokens,
                sums.shift / tokens,
                sums.magnitude / tokens
            );
        }
    }
    Ok(())
}

/// The model as a policy stores it, and the size of its file. After `>` that file is stored again as another policy:
/// `q8_0>f32` is what int8 does to weights alone, since products with F32 weights keep activations in F32.
fn stored(checkpoint: &Checkpoint, policies: &str) -> Result<(Model, usize)> {
    let mut bytes = Vec::new();
    for policy in policies.split('>') {
        let mut parts = policy.split(',');
        let base = DType::from_name(parts.next().unwrap_or_default()).unwrap_or(DType::F32);
        let mut policy = Policy::new(base);
        for part in parts {
            match part {
                "no-balance" => policy.balance = false,
                "run=32" => policy.scale_run = 32,
                "run=128" => policy.scale_run = 128,
                "run=256" => policy.scale_run = 256,
                keep => policy.keep.push(Keep::parse(keep)?),
            }
        }
        let before = std::mem::take(&mut bytes);
        match before.is_empty() {
            true => quantize(checkpoint, &policy, "memory", &mut bytes, &mut ())?,
            false => {
                let checkpoint = Checkpoint::from_gguf("memory", Bytes::from_vec(before))?;
                quantize(&checkpoint, &policy, "memory", &mut bytes, &mut ())?
            }
        };
    }
    let size = bytes.len();
    Ok((Model::from_gguf("memory", Bytes::from_vec(bytes))?, size))
}

/// The tokens that a model chooses after each part of a target.
fn choices(model: &Model, source: &[u32], target: &[u32]) -> Result<Vec<Option<usize>>> {
    let logits = model.session().logits_ids(source, target)?;
    Ok(logits.chunks_exact(model.config().vocab_size).map(|row| model.kernels().argmax(row)).collect())
}

fn read_golden(model: &Model, path: &str) -> Result<Vec<Case>, Box<dyn std::error::Error>> {
    let mut cases = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let json: serde_json::Value = serde_json::from_str(line)?;
        let numbers =
            |key: &str| -> Option<Vec<f64>> { json[key].as_array()?.iter().map(|value| value.as_f64()).collect() };
        // The first line says what made the file.
        if let (Some(source), Some(target), Some(logprobs)) =
            (numbers("input_ids"), numbers("greedy_ids"), numbers("greedy_logprobs"))
        {
            let ids = |numbers: Vec<f64>| numbers.into_iter().map(|id| id as u32).collect();
            let (source, target): (Vec<u32>, Vec<u32>) = (ids(source), ids(target));
            let logprobs = logprobs.into_iter().map(|value| value as f32).collect();
            // Not the target: in one case the end was forbidden.
            let choices = choices(model, &source, &target)?;
            cases.push(Case { source, target, logprobs, choices });
        }
    }
    Ok(cases)
}

/// Cases from the greedy output of a model.
fn generate(model: &Model, lines: &str) -> Result<Vec<Case>> {
    let mut session = model.session();
    let options = GenerateOptions::default().max_new_tokens(64);
    lines
        .lines()
        .map(|line| {
            let source = model.tokenizer()?.encode(line);
            let target = session.generate_batch_ids(&[&source], &options)?.remove(0).remove(0).ids;
            let logprobs = session.score_ids(&source, &target)?.logprobs;
            let choices = choices(model, &source, &target)?;
            Ok(Case { source, target, logprobs, choices })
        })
        .collect()
}

#[derive(Default)]
struct Sums {
    tokens: usize,
    agreed: usize,
    shift: f64,
    magnitude: f64,
}

fn measure(model: &Model, cases: &[Case]) -> Result<Sums> {
    let mut session = model.session();
    let mut sums = Sums::default();
    for case in cases {
        let choices = choices(model, &case.source, &case.target)?;
        let logprobs = session.score_ids(&case.source, &case.target)?.logprobs;
        sums.agreed += choices.iter().zip(&case.choices).filter(|(found, expected)| found == expected).count();
        sums.tokens += case.target.len();
        for (found, expected) in logprobs.iter().zip(&case.logprobs) {
            sums.shift += f64::from(found - expected);
            sums.magnitude += f64::from((found - expected).abs());
        }
    }
    Ok(sums)
}
