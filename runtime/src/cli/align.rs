//! `t5 align`.

use std::io::Write;

use anyhow::bail;
use serde_json::json;
use t5_runtime::WordAlignment;

use super::args::ScoreArgs;
use super::input::{Lines, open_model, session};

pub fn run(args: &ScoreArgs) -> anyhow::Result<()> {
    let mut lines = Lines::file(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let Some((source, target)) = line.split_once('\t') else {
            bail!("{}: expected SOURCE<TAB>TARGET, found no tab", lines.place());
        };
        let words = session.align(source, target)?;
        if args.json {
            writeln!(out, "{}", describe(&words))?;
        } else {
            let link = |(target, word): (usize, &String)| {
                words.strongest(target).map(|source| format!("{}→{word}", words.source[source]))
            };
            let links: Vec<String> = words.target.iter().enumerate().filter_map(link).collect();
            writeln!(out, "{}", links.join(" "))?;
        }
        out.flush()?;
    }
    Ok(())
}

fn describe(words: &WordAlignment) -> serde_json::Value {
    let rows: Vec<&[f32]> = words.weights.chunks_exact(words.source.len().max(1)).collect();
    json!({"source": words.source, "target": words.target, "weights": rows})
}
