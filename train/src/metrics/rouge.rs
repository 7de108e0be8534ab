//! ROUGE as the T5 paper uses the `rouge_score` package: no stemming, F-measures, the mean over examples.

use std::collections::HashMap;

/// Mean F-measures in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    pub rouge1: f64,
    pub rouge2: f64,
    pub rouge_l: f64,
    /// Over sentences: ` . ` ends one.
    pub rouge_lsum: f64,
}

/// Small letters and digits; everything else separates.
fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|token| !token.is_empty())
        .map(str::to_string)
        .collect()
}

fn f_measure(hits: usize, target: usize, prediction: usize) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    let (precision, recall) = (hits as f64 / prediction as f64, hits as f64 / target as f64);
    2.0 * precision * recall / (precision + recall)
}

fn rouge_n(target: &[String], prediction: &[String], n: usize) -> f64 {
    let count = |tokens: &[String]| -> HashMap<Vec<String>, usize> {
        let mut counts = HashMap::new();
        for gram in tokens.windows(n) {
            *counts.entry(gram.to_vec()).or_insert(0) += 1;
        }
        counts
    };
    let (t, p) = (count(target), count(prediction));
    let hits = t.iter().map(|(gram, &count)| count.min(p.get(gram).copied().unwrap_or(0))).sum();
    f_measure(hits, t.values().sum(), p.values().sum())
}

/// Lengths of longest common subsequences of all prefixes, `[target + 1][prediction + 1]`.
fn lcs_table(target: &[String], prediction: &[String]) -> Vec<Vec<usize>> {
    let mut table = vec![vec![0; prediction.len() + 1]; target.len() + 1];
    for i in 1..=target.len() {
        for j in 1..=prediction.len() {
            table[i][j] = if target[i - 1] == prediction[j - 1] {
                table[i - 1][j - 1] + 1
            } else {
                table[i - 1][j].max(table[i][j - 1])
            };
        }
    }
    table
}

/// Places in the target of one longest common subsequence. Of two ways back, up in the target is taken unless the left
/// cell is strictly larger, as the reference does: the choice shows in the union below.
fn lcs_places(target: &[String], prediction: &[String]) -> Vec<usize> {
    let table = lcs_table(target, prediction);
    let (mut i, mut j) = (target.len(), prediction.len());
    let mut places = Vec::new();
    while i > 0 && j > 0 {
        if target[i - 1] == prediction[j - 1] {
            places.push(i - 1);
            i -= 1;
            j -= 1;
        } else if table[i][j - 1] > table[i - 1][j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    places
}

fn rouge_lsum(target: &str, prediction: &str) -> f64 {
    let sentences = |text: &str| -> Vec<Vec<String>> {
        text.replace(" . ", " .\n").split('\n').map(tokens).filter(|tokens| !tokens.is_empty()).collect()
    };
    let (target, prediction) = (sentences(target), sentences(prediction));
    let counts = |sentences: &[Vec<String>]| -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for token in sentences.iter().flatten() {
            *counts.entry(token.clone()).or_insert(0) += 1;
        }
        counts
    };
    let (mut target_left, mut prediction_left) = (counts(&target), counts(&prediction));
    let mut hits = 0;
    for sentence in &target {
        let mut union: Vec<usize> = prediction.iter().flat_map(|other| lcs_places(sentence, other)).collect();
        union.sort_unstable();
        union.dedup();
        for place in union {
            let token = &sentence[place];
            // A token is hit at most as often as it is there on both sides.
            if let (Some(t), Some(p)) = (target_left.get_mut(token), prediction_left.get_mut(token))
                && *t > 0
                && *p > 0
            {
                hits += 1;
                *t -= 1;
                *p -= 1;
            }
        }
    }
    f_measure(hits, target.iter().map(Vec::len).sum(), prediction.iter().map(Vec::len).sum())
}

/// ROUGE of predictions against one target each.
pub fn rouge(predictions: &[&str], targets: &[&str]) -> Rouge {
    let mut sum = Rouge::default();
    for (prediction, target) in predictions.iter().zip(targets) {
        let (p, t) = (tokens(prediction), tokens(target));
        sum.rouge1 += rouge_n(&t, &p, 1);
        sum.rouge2 += rouge_n(&t, &p, 2);
        let lcs = lcs_table(&t, &p)[t.len()][p.len()];
        sum.rouge_l += f_measure(lcs, t.len(), p.len());
        sum.rouge_lsum += rouge_lsum(target, prediction);
    }
    let mean = |sum: f64| if predictions.is_empty() { 0.0 } else { 100.0 * sum / predictions.len() as f64 };
    Rouge {
        rouge1: mean(sum.rouge1),
        rouge2: mean(sum.rouge2),
        rouge_l: mean(sum.rouge_l),
        rouge_lsum: mean(sum.rouge_lsum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::fixture;

    #[test]
    fn equals_rouge_score() {
        for case in fixture()["summaries"].as_array().unwrap() {
            let text = |key: &str| case[key].as_str().unwrap();
            let scores = rouge(&[text("prediction")], &[text("target")]);
            for (key, score) in [
                ("rouge1", scores.rouge1),
                ("rouge2", scores.rouge2),
                ("rougeL", scores.rouge_l),
                ("rougeLsum", scores.rouge_lsum),
            ] {
                let expected = case[key].as_f64().unwrap();
                assert!((score - expected).abs() < 1e-9, "{key} {score} {expected}: {case}");
            }
        }
    }
}
