//! `t5 tokenize`.

use std::io::Write;

use anyhow::{Context, ensure};
use serde_json::json;
use t5_runtime::tokenizer::Tokenizer;

use super::args::TokenizeArgs;
use super::input::open_checkpoint;
use super::lines::Lines;

pub fn run(args: &TokenizeArgs) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.input)?;
    // Weights are not needed.
    let checkpoint = open_checkpoint(args.model.one()?)?;
    let vocabulary = checkpoint
        .vocabulary
        .as_ref()
        .with_context(|| format!("{}: expected a model with a tokenizer, found none", checkpoint.file))?;
    let tokenizer = Tokenizer::new(&checkpoint.file, vocabulary)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        if args.decode {
            let ids = line
                .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
                .filter(|word| !word.is_empty())
                .map(|word| {
                    let id =
                        word.parse().with_context(|| format!("{}: expected ids, found {word:?}", lines.place()))?;
                    let size = tokenizer.vocab_size();
                    ensure!((id as usize) < size, "{}: expected ids below {size}, found {id}", lines.place());
                    Ok(id)
                })
                .collect::<anyhow::Result<Vec<u32>>>()?;
            let text = tokenizer.decode(&ids, true);
            if args.json {
                writeln!(out, "{}", json!({"text": text, "ids": ids}))?;
            } else {
                writeln!(out, "{text}")?;
            }
        } else {
            let ids = tokenizer.encode(&line);
            if args.json {
                let pieces: Vec<&str> = ids.iter().filter_map(|&id| tokenizer.piece(id)).collect();
                writeln!(out, "{}", json!({"ids": ids, "pieces": pieces}))?;
            } else {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                writeln!(out, "{}", ids.join(" "))?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
