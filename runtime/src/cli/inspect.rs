//! `t5 inspect`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;
use t5_runtime::schema;
use t5_runtime::tokenizer::Vocabulary;

use super::args::InspectArgs;
use super::input::open_checkpoint;

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let checkpoint = open_checkpoint(args.model.as_deref())?;
    let mut types: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    let mut tensors = Vec::new();
    let (mut values, mut bytes) = (0, 0);
    for spec in schema::tensors(&checkpoint.config) {
        let Some(tensor) = checkpoint.tensor(&spec.hf_name) else { continue };
        let total = types.entry(tensor.dtype.name()).or_default();
        *total = (total.0 + 1, total.1 + tensor.len(), total.2 + tensor.data.len());
        values += tensor.len();
        bytes += tensor.data.len();
        tensors.push(json!({
            "name": spec.hf_name,
            "gguf_name": spec.gguf_name,
            "shape": tensor.shape,
            "type": tensor.dtype.name(),
            "bytes": tensor.data.len(),
        }));
    }
    let tokenizer = match &checkpoint.vocabulary {
        Some(Vocabulary::Unigram(vocabulary)) => {
            format!("{}, {} pieces", vocabulary.model.name(), vocabulary.pieces.len())
        }
        Some(Vocabulary::Bytes(_)) => "bytes".to_owned(),
        Some(Vocabulary::Json(json)) => format!("{}, {} pieces", json.kind, json.count),
        None => "none".to_owned(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let object = json!({
            "file": checkpoint.file,
            "config": checkpoint.config.to_json(),
            "parameters": values,
            "bytes": bytes,
            "tokenizer": tokenizer,
            "head": checkpoint.head.as_ref().map(|head| json!({"task": head.task.name(), "labels": head.labels})),
            "sentence_model": checkpoint.sentence.as_ref().map(ToString::to_string),
            "generation": checkpoint.generation.to_json(),
            "tensors": tensors,
            "notes": checkpoint.notes,
        });
        writeln!(out, "{object}")?;
        return Ok(());
    }
    writeln!(out, "{}", checkpoint.file)?;
    if let serde_json::Value::Object(config) = checkpoint.config.to_json() {
        for (key, value) in config {
            writeln!(out, "  {key}: {value}")?;
        }
    }
    writeln!(out, "tokenizer: {tokenizer}")?;
    if let Some(head) = &checkpoint.head {
        writeln!(out, "head: {}: {}", head.task.name(), head.labels.join(", "))?;
    }
    if let Some(sentence) = &checkpoint.sentence {
        writeln!(out, "sentence model: {sentence}")?;
    }
    if let serde_json::Value::Object(generation) = checkpoint.generation.to_json() {
        for (key, value) in generation.iter().filter(|(key, _)| *key != "task_specific_params" && *key != "not_obeyed")
        {
            writeln!(out, "generation: {key}: {value}")?;
        }
        for (name, task) in
            generation.get("task_specific_params").and_then(|tasks| tasks.as_object()).into_iter().flatten()
        {
            let settings: Vec<String> =
                task.as_object().into_iter().flatten().map(|(key, value)| format!("{key} {value}")).collect();
            writeln!(out, "task: {name}: {}", settings.join(", "))?;
        }
    }
    writeln!(out, "parameters: {values}, {:.1} MB", bytes as f64 / 1e6)?;
    for (name, (count, values, bytes)) in types {
        writeln!(out, "  {name}: {count} tensors, {values} values, {:.1} MB", bytes as f64 / 1e6)?;
    }
    for note in &checkpoint.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
