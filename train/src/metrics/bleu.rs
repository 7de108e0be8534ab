//! Corpus BLEU as sacrebleu computes it.

use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;

/// Longest n-grams that count.
const ORDERS: usize = 4;

/// How texts become tokens before n-grams are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokenization {
    /// `mteval-v13a`, sacrebleu's default.
    V13a,
    /// `mteval-v14` international, the T5 paper's.
    International,
}

/// The score and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// 0 to 100.
    pub score: f64,
    /// Smoothed n-gram precisions in percent.
    pub precisions: [f64; ORDERS],
    pub brevity_penalty: f64,
    pub system_length: usize,
    pub reference_length: usize,
}

fn rules(patterns: &[(&str, &'static str)]) -> Vec<(Regex, &'static str)> {
    patterns.iter().filter_map(|(pattern, by)| Regex::new(pattern).ok().map(|regex| (regex, *by))).collect()
}

/// Splits a text as the tokenisation's script does.
pub fn tokenize(text: &str, tokenization: Tokenization) -> Vec<String> {
    static V13A: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        rules(&[
            (r"([\{-\~\[-\` -\&\(-\+\:-\@/])", " $1 "),
            (r"([^0-9])([.,])", "$1 $2 "),
            (r"([.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ])
    });
    static INTERNATIONAL: LazyLock<Vec<(Regex, &str)>> =
        LazyLock::new(|| rules(&[(r"(\P{N})(\p{P})", "$1 $2 "), (r"(\p{P})(\P{N})", " $1 $2"), (r"(\p{S})", " $1 ")]));
    let text = text.trim_end();
    let (rules, mut line) = match tokenization {
        Tokenization::V13a => {
            let line = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
            let line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
            (&V13A, format!(" {line} "))
        }
        Tokenization::International => (&INTERNATIONAL, text.to_string()),
    };
    for (regex, by) in rules.iter() {
        line = regex.replace_all(&line, *by).into_owned();
    }
    line.split_whitespace().map(str::to_string).collect()
}

fn ngrams(tokens: &[String]) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for n in 1..=ORDERS {
        for gram in tokens.windows(n) {
            *counts.entry(gram).or_insert(0) += 1;
        }
    }
    counts
}

/// Corpus BLEU with exponential smoothing; each prediction has references of its own, one or more.
///
/// An n-gram counts as often as in the reference that has it most often; the reference length is that of the closest
/// reference, the shorter one of two.
pub fn bleu(predictions: &[&str], references: &[&[String]], tokenization: Tokenization) -> Bleu {
    let (mut correct, mut total) = ([0usize; ORDERS], [0usize; ORDERS]);
    let (mut system_length, mut reference_length) = (0, 0);
    for (prediction, references) in predictions.iter().zip(references) {
        let tokens = tokenize(prediction, tokenization);
        let references: Vec<Vec<String>> = references.iter().map(|r| tokenize(r, tokenization)).collect();
        let mut most: HashMap<&[String], usize> = HashMap::new();
        for reference in &references {
            for (gram, count) in ngrams(reference) {
                let known = most.entry(gram).or_insert(0);
                *known = count.max(*known);
            }
        }
        system_length += tokens.len();
        reference_length +=
            references.iter().map(Vec::len).min_by_key(|&len| (len.abs_diff(tokens.len()), len)).unwrap_or(0);
        for (gram, count) in ngrams(&tokens) {
            total[gram.len() - 1] += count;
            correct[gram.len() - 1] += count.min(most.get(gram).copied().unwrap_or(0));
        }
    }
    let brevity_penalty = match (system_length, reference_length) {
        (0, _) => 0.0,
        (s, r) if s < r => (1.0 - r as f64 / s as f64).exp(),
        _ => 1.0,
    };
    let mut precisions = [0.0; ORDERS];
    let mut smooth = 1.0;
    for n in 0..ORDERS {
        if total[n] == 0 {
            break;
        }
        precisions[n] = if correct[n] == 0 {
            // "exp": the j-th order without a match counts as half of half ... a match.
            smooth *= 2.0;
            100.0 / (smooth * total[n] as f64)
        } else {
            100.0 * correct[n] as f64 / total[n] as f64
        };
    }
    let score = if correct.iter().all(|&c| c == 0) || precisions.contains(&0.0) {
        0.0
    } else {
        brevity_penalty * (precisions.iter().map(|p| p.ln()).sum::<f64>() / ORDERS as f64).exp()
    };
    if correct.iter().all(|&c| c == 0) {
        precisions = [0.0; ORDERS];
    }
    Bleu { score, precisions, brevity_penalty, system_length, reference_length }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::fixture;

    #[test]
    fn tokenisations() {
        let join = |text, tokenization| tokenize(text, tokenization).join(" ");
        assert_eq!(
            join("It's 3.5, e.g. \"this\" (or that)...", Tokenization::V13a),
            "It's 3.5 , e . g . \" this \" ( or that ) . . ."
        );
        assert_eq!(join("«Ja», 2,5 €!", Tokenization::International), "« Ja » , 2,5 € !");
    }

    #[test]
    fn equals_sacrebleu() {
        let fixture = fixture();
        for case in fixture["corpora"].as_array().unwrap() {
            let (predictions, references) = crate::metrics::corpus(case);
            let predictions: Vec<&str> = predictions.iter().map(String::as_str).collect();
            let references: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
            for (key, tokenization) in [("bleu", Tokenization::V13a), ("bleu_intl", Tokenization::International)] {
                let expected = case[key].as_f64().unwrap();
                let score = bleu(&predictions, &references, tokenization).score;
                // The same sums in another order.
                assert!((score - expected).abs() < 1e-9, "{} {key}: {score} {expected}", case["name"]);
            }
        }
    }
}
