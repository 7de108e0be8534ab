//! `t5 score`.

use anyhow::anyhow;
use serde_json::{Value, json};
use t5_runtime::Score;

use super::args::{InputArgs, ScoreArgs};
use super::input::{open_model, session};
use super::inputs::{Input, Inputs, field};
use super::results::Results;

pub fn run(ScoreArgs { pairs, work, target_field }: &ScoreArgs) -> anyhow::Result<()> {
    let input = InputArgs { text: Vec::new(), input: Some(pairs.input.clone()) };
    let mut inputs = Inputs::open(&input, work)?;
    let Some(mut results) = Results::open(work, &mut inputs, true)? else { return Ok(()) };
    let model = open_model(&pairs.model)?;
    let mut session = session(&model, pairs.threads)?;
    let target = results.are_objects().then_some(target_field.as_str());
    while let Some(input) = inputs.next()? {
        let pair = pair(&input, target).map_err(|what| anyhow!("{}: {what}", inputs.lines.place()));
        let score = input.text().and(pair).and_then(|(source, target)| Ok(session.score(source, target)?));
        let (tokens, end) = (score.as_ref().map_or(0, |score| score.ids.len()), input.end);
        if results.are_objects() {
            let result = score.map(|score| if pairs.json { as_json(&score) } else { json!(score.sum) });
            results.object(input, result)?;
        } else {
            let score = score?;
            results.line(&if pairs.json { as_json(&score).to_string() } else { format!("{:.6}", score.sum) })?;
        }
        results.count(tokens, end);
    }
    results.finish()
}

/// A source and its target, which an object has under a name.
fn pair<'i>(input: &'i Input, target: Option<&str>) -> Result<(&'i str, &'i str), String> {
    let text = input.text().unwrap_or_default();
    match target {
        Some(name) => Ok((text, field(&input.object, name)?)),
        None => text.split_once('\t').ok_or_else(|| "expected SOURCE<TAB>TARGET, found no tab".to_owned()),
    }
}

fn as_json(score: &Score) -> Value {
    json!({"logprobs": score.logprobs, "sum": score.sum, "ids": score.ids})
}
