//! `t5 score`.

use serde_json::json;

use super::args::ScoreArgs;
use super::input::answer_pairs;

pub fn run(args: &ScoreArgs) -> anyhow::Result<()> {
    answer_pairs(args, |session, source, target| {
        let score = session.score(source, target)?;
        Ok(if args.json {
            json!({"logprobs": score.logprobs, "sum": score.sum, "ids": score.ids}).to_string()
        } else {
            format!("{:.6}", score.sum)
        })
    })
}
