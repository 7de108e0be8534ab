//! `t5 embed`.

use std::io::Write;

use serde_json::json;

use super::args::EmbedArgs;
use super::input::{Lines, open_model, session};

pub fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let ids = model.tokenizer()?.encode(&line);
        let embedding = session.embed_ids(&ids)?;
        if args.json {
            writeln!(out, "{}", json!({"embedding": embedding, "input_ids": ids}))?;
        } else {
            let values: Vec<String> = embedding.iter().map(f32::to_string).collect();
            writeln!(out, "{}", values.join(" "))?;
        }
        out.flush()?;
    }
    Ok(())
}
