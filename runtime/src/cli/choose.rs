//! `t5 generate --choices`.

use std::path::Path;

use serde_json::{Value, json};
use t5_runtime::{Choice, Choices, SplitSentences};

use super::args::GenerateArgs;
use super::generate::overrides;
use super::input::{open_models, session};
use super::inputs::Inputs;
use super::lines::Lines;
use super::results::Destination;
use super::usage;

pub fn run(args: &GenerateArgs, choices: &str) -> anyhow::Result<()> {
    let texts = texts(choices)?;
    let best = args.n_best.unwrap_or(1);
    if !(1..=texts.len()).contains(&best) {
        let what = format!("expected at most the number of choices ({}), and at least 1, found {best}", texts.len());
        return Err(usage(format!("--n-best: {what}")));
    }
    let mut inputs = Inputs::open(&args.input, &args.work)?;
    let objects = args.work.are_objects();
    let Some(destination) = Destination::new(&args.work)? else { return Ok(()) };
    let one_line = objects || args.json || (best == 1 && !texts.iter().any(|text| text.contains('\n')));
    let model = open_models(args)?;
    let choices = Choices::new(&model, &texts)?;
    let options = t5_runtime::Overrides { n_best: None, ..overrides(args) };
    let options = model.options(&options)?.split_sentences(SplitSentences::No);
    let mut session = session(&model, args.threads)?;
    let mut results = destination.open(&mut inputs, one_line)?;
    while let Some(input) = inputs.next()? {
        let ranked = input.text().and_then(|text| {
            let source = options.source(&model, text)?.sentences()[0].clone();
            let ranked = session.choose_ids(&source, &choices)?;
            Ok((source, ranked))
        });
        let end = input.end;
        if objects {
            let result = ranked.map(|(source, ranked)| match args.json {
                true => whole(&source, &ranked),
                false if best == 1 => json!(ranked[0].text),
                false => ranked[..best].iter().map(|choice| json!(choice.text)).collect(),
            });
            results.object(input, result)?;
        } else {
            let (source, ranked) = ranked?;
            if args.json {
                results.line(&whole(&source, &ranked).to_string())?;
            } else if best == 1 {
                results.line(&ranked[0].text)?;
            } else {
                for choice in &ranked[..best] {
                    results.line(&format!("{:.6}\t{}", choice.logprob, choice.text))?;
                }
            }
        }
        results.count(1, end);
    }
    results.finish()
}

fn whole(source: &[u32], ranked: &[Choice]) -> Value {
    let mut object = as_json(&ranked[0]);
    object["input_ids"] = json!(source);
    object["choices"] = ranked.iter().map(as_json).collect();
    object
}

/// What is between commas, or the lines of a file.
fn texts(choices: &str) -> anyhow::Result<Vec<String>> {
    if choices.contains(',') {
        return Ok(choices.split(',').map(|text| text.trim().to_owned()).collect());
    }
    let mut lines = Lines::file(Path::new(choices))?;
    let mut texts = Vec::new();
    while let Some(line) = lines.next_line()? {
        texts.push(line);
    }
    Ok(texts)
}

fn as_json(choice: &Choice) -> Value {
    json!({
        "text": choice.text,
        "index": choice.index,
        "logprob": choice.logprob,
        "probability": choice.probability,
    })
}
