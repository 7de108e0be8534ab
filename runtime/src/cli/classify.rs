//! `t5 classify` and `t5 answer`.

use std::io::Write;

use anyhow::bail;
use serde_json::{Map, json};
use t5_runtime::head::{Classes, Head, HeadTask, Problem};
use t5_runtime::tokenizer::Tokenizer;

use super::args::{AnswerArgs, ClassifyArgs};
use super::input::{open_model, session};
use super::lines::Lines;

pub fn classify(args: &ClassifyArgs) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let classes = session.classify(&line)?;
        let Some(head) = model.head() else { bail!("{}: expected a classifier", model.file()) };
        if args.json {
            writeln!(out, "{}", describe(head, &classes, model.tokenizer()?))?;
        } else {
            print(&mut out, head, &classes, model.tokenizer()?)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// The label with the highest score, and it.
fn best<'h>(head: &'h Head, scores: &[f32]) -> (&'h str, f32) {
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index);
    (&head.labels[best], scores[best])
}

/// A line a text: the best label and its score; of several possible ones all that are more likely than not; of a
/// regression all values. A line a token, and an empty one, where tokens have classes.
fn print(out: &mut impl Write, head: &Head, classes: &Classes, tokenizer: &Tokenizer) -> std::io::Result<()> {
    let rows = classes.scores.chunks_exact(head.labels.len());
    if head.task == HeadTask::Tokens {
        for (&id, scores) in classes.input_ids.iter().zip(rows) {
            let (label, score) = best(head, scores);
            writeln!(out, "{}\t{label}\t{score:.6}", tokenizer.piece(id).unwrap_or_default())?;
        }
        return writeln!(out);
    }
    for scores in rows {
        let all = head.labels.iter().map(String::as_str).zip(scores.iter().copied());
        let named: Vec<(&str, f32)> = match head.problem {
            Problem::SingleLabel => vec![best(head, scores)],
            Problem::MultiLabel => all.filter(|(_, score)| *score > 0.5).collect(),
            Problem::Regression => all.collect(),
        };
        let named: Vec<String> = named.iter().map(|(label, score)| format!("{label}\t{score:.6}")).collect();
        writeln!(out, "{}", named.join("\t"))?;
    }
    Ok(())
}

fn describe(head: &Head, classes: &Classes, tokenizer: &Tokenizer) -> serde_json::Value {
    let row = |scores: &[f32]| {
        let all: Map<_, _> = head.labels.iter().cloned().zip(scores.iter().map(|score| json!(score))).collect();
        let (label, score) = best(head, scores);
        json!({"label": label, "score": score, "scores": all})
    };
    let mut rows = classes.scores.chunks_exact(head.labels.len()).map(row);
    if head.task == HeadTask::Tokens {
        let pieces: Vec<&str> = classes.input_ids.iter().map(|&id| tokenizer.piece(id).unwrap_or_default()).collect();
        return json!({"tokens": rows.collect::<Vec<_>>(), "pieces": pieces, "input_ids": classes.input_ids});
    }
    let mut object = rows.next().unwrap_or_default();
    object["input_ids"] = json!(classes.input_ids);
    object
}

pub fn answer(args: &AnswerArgs) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let Some((question, context)) = line.split_once('\t') else {
            bail!("{}: expected QUESTION<TAB>CONTEXT, found no tab", lines.place());
        };
        let answer = session.answer(question, context, args.max_answer_tokens)?;
        if args.json {
            let span = [answer.span.start, answer.span.end];
            let object = json!({"answer": answer.text, "score": answer.score, "span": span,
                "input_ids": answer.input_ids});
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{}", answer.text)?;
        }
        out.flush()?;
    }
    Ok(())
}
