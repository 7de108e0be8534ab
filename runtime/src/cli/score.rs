//! `t5 score`.

use std::io::Write;

use anyhow::bail;
use serde_json::json;

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
        let score = session.score(source, target)?;
        if args.json {
            let object = json!({"logprobs": score.logprobs, "sum": score.sum, "ids": score.ids});
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{:.6}", score.sum)?;
        }
        out.flush()?;
    }
    Ok(())
}
