//! `t5 generate --choices`.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use t5_runtime::{Choice, Choices, SplitSentences};

use super::args::GenerateArgs;
use super::generate::overrides;
use super::input::{Lines, open_model, session};
use super::usage;

pub fn run(args: &GenerateArgs, choices: &str) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.input)?;
    let texts = texts(choices)?;
    let model = open_model(&args.model)?;
    let choices = Choices::new(&model, &texts)?;
    let best = args.n_best.unwrap_or(1);
    if !(1..=texts.len()).contains(&best) {
        let what = format!("expected at most the number of choices ({}), and at least 1, found {best}", texts.len());
        return Err(usage(format!("--n-best: {what}")));
    }
    let options = t5_runtime::Overrides { n_best: None, ..overrides(args) };
    let options = model.options(&options)?.split_sentences(SplitSentences::No);
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let source = options.source(&model, &line)?;
        let source = &source.sentences()[0];
        let ranked = session.choose_ids(source, &choices)?;
        if args.json {
            let mut object = as_json(&ranked[0]);
            object["input_ids"] = json!(source);
            object["choices"] = ranked.iter().map(as_json).collect();
            writeln!(out, "{object}")?;
        } else if best == 1 {
            writeln!(out, "{}", ranked[0].text)?;
        } else {
            for choice in &ranked[..best] {
                writeln!(out, "{:.6}\t{}", choice.logprob, choice.text)?;
            }
        }
        out.flush()?;
    }
    Ok(())
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
