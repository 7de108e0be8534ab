//! candle's quantized T5 behind the commands of worker.py: `candle-peer FOLDER`, JSON lines on stdin and stdout.
//!
//! It has no beam search; sequences run in lock step.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_transformers::models::quantized_t5::{Config, T5ForConditionalGeneration};
use candle_transformers::quantized_var_builder::VarBuilder;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn load(folder: &str) -> Result<T5ForConditionalGeneration> {
    let config: Config = serde_json::from_str(&std::fs::read_to_string(format!("{folder}/config.json"))?)?;
    let weights = VarBuilder::from_gguf(format!("{folder}/model.gguf"), &Device::Cpu)?;
    Ok(T5ForConditionalGeneration::load(weights, &config)?)
}

/// `[batch][length]` of a JSON value, each row `copies` times.
fn ids(value: &Value, copies: usize) -> Result<Tensor> {
    let rows: Vec<Vec<u32>> = serde_json::from_value(value.clone())?;
    let (batch, length) = (rows.len() * copies, rows[0].len());
    let all: Vec<u32> = rows.iter().flat_map(|row| (0..copies).flat_map(|_| row.iter().copied())).collect();
    Ok(Tensor::from_vec(all, (batch, length), &Device::Cpu)?)
}

/// `count` tokens of every row; the end token is suppressed where the ids are wanted.
fn decode(model: &mut T5ForConditionalGeneration, memory: &Tensor, count: usize, wanted: bool) -> Result<Vec<u32>> {
    model.clear_kv_cache();
    let mut token = Tensor::zeros((memory.dim(0)?, 1), DType::U32, &Device::Cpu)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let logits = model.decode(&token, memory)?;
        if wanted {
            let mut row: Vec<f32> = logits.i(0)?.to_vec1()?;
            row[1] = f32::NEG_INFINITY;
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0) as u32;
            out.push(best);
            token = Tensor::new(&[[best]], &Device::Cpu)?;
        } else {
            token = logits.argmax(1)?.reshape((logits.dim(0)?, 1))?;
        }
    }
    Ok(out)
}

fn milliseconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let begin = Instant::now();
    work()?;
    Ok(1e3 * begin.elapsed().as_secs_f64())
}

fn answer(folder: &str, model: &mut T5ForConditionalGeneration, command: &Value) -> Result<Value> {
    let number = |key: &str| command[key].as_u64().unwrap_or(1) as usize;
    let value = if !command["encoder"].is_null() {
        let ids = ids(&command["encoder"], 1)?;
        milliseconds(|| Ok(model.encode(&ids).map(|_| ())?))?
    } else if !command["step"].is_null() {
        let memory = model.encode(&ids(&command["step"], number("beams"))?)?;
        let tokens = number("tokens");
        let short = milliseconds(|| decode(model, &memory, 1, false).map(|_| ()))?;
        (milliseconds(|| decode(model, &memory, tokens, false).map(|_| ()))? - short) / (tokens - 1) as f64
    } else if !command["load"].is_null() {
        let begin = Instant::now();
        *model = load(folder)?;
        1e3 * begin.elapsed().as_secs_f64()
    } else if !command["answer"].is_null() {
        let memory = model.encode(&ids(&json!([command["answer"]]), 1)?)?;
        return Ok(json!({ "ids": decode(model, &memory, number("tokens"), true)? }));
    } else {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6
    };
    Ok(json!({ "value": value }))
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("usage: candle-peer FOLDER")?;
    let mut model = load(&folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "version": "0.11" }))?;
    for line in std::io::stdin().lock().lines() {
        let command = serde_json::from_str(&line?)?;
        writeln!(out, "{}", answer(&folder, &mut model, &command)?)?;
    }
    Ok(())
}
