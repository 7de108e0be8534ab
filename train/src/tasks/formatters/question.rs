//! SQuAD and TriviaQA: questions, contexts and answers with padded punctuation.

use std::collections::HashSet;

use super::fields::{Formatted, text, values};
use crate::{source::Record, tasks::example::TextExample};

/// A space on both sides of each ASCII punctuation mark; runs of white space become one space.
fn pad_punctuation(text: &str) -> String {
    let mut padded = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            padded.extend([' ', c, ' ']);
        } else {
            padded.push(c);
        }
    }
    collapse_spaces(&padded)
}

/// Runs of white space become one space, also at the ends. White space is that of the reference's regular expressions
/// (RE2's `\s`): five ASCII characters, not a no-break space and not a vertical tab.
fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let space = matches!(c, '\t' | '\n' | '\x0C' | '\r' | ' ');
        if !space {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// The record's answers, each once.
pub(super) fn padded_answers(record: &Record) -> Formatted<Vec<String>> {
    let mut answers: Vec<String> = values(record, "answers")?.iter().map(|a| pad_punctuation(a)).collect();
    let mut seen = HashSet::new();
    answers.retain(|answer| seen.insert(answer.clone()));
    if answers.is_empty() { Err("answers: expected at least one, found none".into()) } else { Ok(answers) }
}

fn question_and_context(question: &str, context: &str) -> String {
    collapse_spaces(&format!("question: {question} context: {context}"))
}

/// A question about a context; every answer is a reference.
pub(super) fn squad(record: &Record) -> Formatted<TextExample> {
    let question = pad_punctuation(&text(record, "question")?);
    let context = pad_punctuation(&text(record, "context")?);
    let references = padded_answers(record)?;
    let inputs = question_and_context(&question, &context);
    Ok(TextExample { context, ..TextExample::new(inputs, references[0].clone()) }.with_references(references))
}

/// A question without its context.
pub(super) fn squad_trivia(record: &Record) -> Formatted<TextExample> {
    let question = pad_punctuation(&text(record, "question")?);
    let references = padded_answers(record)?;
    let inputs = collapse_spaces(&format!("squad trivia question: {question}"));
    Ok(TextExample::new(inputs, references[0].clone()).with_references(references))
}

/// The place of the first answer in the context's words, or nothing where it is not in there. The references are the
/// answers themselves: predicted places are judged by the words that they point at.
pub(super) fn squad_span(record: &Record) -> Formatted<Option<TextExample>> {
    let mut example = squad(record)?;
    let texts = |text: &str| words(text).map(|word| text[word].to_string()).collect::<Vec<_>>();
    let (context, answer) = (texts(&example.context), texts(&example.targets));
    let Some(start) = context.windows(answer.len()).position(|window| window == answer) else { return Ok(None) };
    example.targets = format!("start: {start} end: {}", start + answer.len() - 1);
    Ok(Some(example))
}

/// The words of a context as spans count them. As in the reference, every character that is no ASCII letter, digit or
/// underscore separates two words, so that two such characters in a row make an empty word.
fn words(context: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let separator = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut start = 0;
    let ends = context.match_indices(separator).map(|(at, mark)| (at, at + mark.len()));
    ends.chain([(context.len(), context.len())]).map(move |(end, next)| std::mem::replace(&mut start, next)..end)
}

/// What a predicted `start: i end: j` points at in a context, from the first word to the last. A prediction that is not
/// of this form, or points behind the end, points at nothing.
pub(crate) fn words_of_span<'a>(context: &'a str, prediction: &str) -> &'a str {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let tokens: Vec<&str> = prediction.split(|c| !word(c)).filter(|token| !token.is_empty()).collect();
    let number = |at: usize| tokens.get(at).and_then(|token| token.parse::<usize>().ok());
    let (Some(first), Some(last)) = (number(1), number(3)) else { return "" };
    let words: Vec<_> = words(context).collect();
    match words.get(first) {
        Some(start) if first <= last => &context[start.start..words[last.min(words.len() - 1)].end],
        _ => "",
    }
}

/// For each of the record's contexts that holds an answer, the input and the aliases that are in the context.
pub(super) fn trivia_qa(record: &Record) -> Formatted<Vec<(String, Vec<String>)>> {
    let question = pad_punctuation(&text(record, "question")?);
    let answers = padded_answers(record)?;
    let mut found = Vec::new();
    for context in values(record, "contexts")? {
        let context = pad_punctuation(context);
        let lower = context.to_ascii_lowercase();
        let aliases: Vec<String> =
            answers.iter().filter(|answer| lower.contains(&answer.to_ascii_lowercase())).cloned().collect();
        if !aliases.is_empty() {
            found.push((question_and_context(&question, &context), aliases));
        }
    }
    Ok(found)
}
