//! `t5 score`.

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use t5_runtime::{Score, Session};

use super::args::{InputArgs, ScoreArgs, only_of_objects};
use super::input::{open_model, session};
use super::inputs::{Input, Inputs, field};
use super::results::Destination;

/// Pairs side by side, and bytes of them: more gain nothing, and take memory.
const AT_ONCE: usize = 16;
const BYTES_AT_ONCE: usize = 8 << 10;

pub fn run(ScoreArgs { pairs, work, target_field }: &ScoreArgs) -> anyhow::Result<()> {
    only_of_objects(work.are_objects(), &[("--target-field", target_field.is_some())])?;
    let input = InputArgs { text: Vec::new(), input: Some(pairs.input.clone()) };
    let mut inputs = Inputs::open(&input, work)?;
    let Some(destination) = Destination::new(work)? else { return Ok(()) };
    let model = open_model(&pairs.model)?;
    let mut session = session(&model, pairs.threads)?;
    let mut results = destination.open(&mut inputs, true)?;
    let target = results.are_objects().then(|| target_field.as_deref().unwrap_or("target"));
    loop {
        let (window, end) = window(&mut inputs);
        for (input, score) in score(&mut session, window, target) {
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
        if let Some(end) = end {
            end?;
            return results.finish();
        }
    }
}

/// The inputs that are there, with their places, or the one that comes; and whether that is all, or why.
fn window(inputs: &mut Inputs) -> (Vec<(Input, String)>, Option<anyhow::Result<()>>) {
    let (mut window, mut bytes) = (Vec::new(), 0);
    loop {
        match inputs.next() {
            Ok(Some(input)) => {
                bytes += input.len();
                window.push((input, inputs.lines.place()));
                if window.len() == AT_ONCE || bytes >= BYTES_AT_ONCE || !inputs.lines.is_ready() {
                    return (window, None);
                }
            }
            Ok(None) => return (window, Some(Ok(()))),
            Err(error) => return (window, Some(Err(error))),
        }
    }
}

/// What each pair gives.
fn score(
    session: &mut Session,
    window: Vec<(Input, String)>,
    target: Option<&str>,
) -> Vec<(Input, anyhow::Result<Score>)> {
    let pairs: Vec<_> = window.iter().map(|(input, place)| pair(input, place, target)).collect();
    let good: Vec<(&str, &str)> = pairs.iter().flatten().copied().collect();
    let scores: Vec<anyhow::Result<Score>> = match session.score_batch(&good) {
        Ok(scores) => scores.into_iter().map(Ok).collect(),
        // One of them cannot be done: which one?
        Err(_) => good.iter().map(|(source, target)| Ok(session.score(source, target)?)).collect(),
    };
    let mut scores = scores.into_iter();
    let scored = |pair: anyhow::Result<_>| pair.and_then(|_| scores.next().context("a score of each pair")?);
    let scores: Vec<anyhow::Result<Score>> = pairs.into_iter().map(scored).collect();
    window.into_iter().map(|(input, _)| input).zip(scores).collect()
}

/// A source and its target, which an object has under a name.
fn pair<'i>(input: &'i Input, place: &str, target: Option<&str>) -> anyhow::Result<(&'i str, &'i str)> {
    let text = input.text()?;
    let pair = match target {
        Some(name) => field(&input.object, name).map(|target| (text, target)),
        None => text.split_once('\t').ok_or_else(|| "expected SOURCE<TAB>TARGET, found no tab".to_owned()),
    };
    pair.map_err(|what| anyhow!("{place}: {what}"))
}

fn as_json(score: &Score) -> Value {
    json!({"logprobs": score.logprobs, "sum": score.sum, "ids": score.ids})
}
