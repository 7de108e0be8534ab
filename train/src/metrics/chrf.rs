//! Corpus chrF2 as sacrebleu computes it.

use std::collections::HashMap;

/// Longest character n-grams.
const ORDERS: usize = 6;
/// Weight of recall, squared.
const BETA_SQUARED: f64 = 4.0;

/// Counts of one order: (in the prediction, in the reference, in both).
type Counts = [[usize; 3]; ORDERS];

fn ngrams(text: &str) -> Vec<HashMap<Vec<char>, usize>> {
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    (1..=ORDERS)
        .map(|n| {
            let mut counts = HashMap::new();
            for gram in chars.windows(n) {
                *counts.entry(gram.to_vec()).or_insert(0) += 1;
            }
            counts
        })
        .collect()
}

fn f_score(counts: &Counts) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0);
    for &[predicted, reference, both] in counts {
        if predicted > 0 && reference > 0 {
            precision += both as f64 / predicted as f64;
            recall += both as f64 / reference as f64;
            orders += 1;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / f64::from(orders), recall / f64::from(orders));
    100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
}

/// Corpus chrF: each prediction against the reference that scores best, counts summed over the corpus. 0 to 100.
pub fn chrf(predictions: &[&str], references: &[&[String]]) -> f64 {
    let mut sum: Counts = [[0; 3]; ORDERS];
    for (prediction, references) in predictions.iter().zip(references) {
        let predicted = ngrams(prediction);
        let mut best: Option<(f64, Counts)> = None;
        for reference in *references {
            let reference = ngrams(reference);
            let mut counts: Counts = [[0; 3]; ORDERS];
            for (n, (p, r)) in predicted.iter().zip(&reference).enumerate() {
                // An order that the reference is too short for does not count against the prediction.
                let total = if r.is_empty() { 0 } else { p.values().sum() };
                let both = p.iter().map(|(gram, &count)| count.min(r.get(gram).copied().unwrap_or(0))).sum();
                counts[n] = [total, r.values().sum(), both];
            }
            let score = f_score(&counts);
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, counts));
            }
        }
        if let Some((_, counts)) = best {
            for (sum, counts) in sum.iter_mut().zip(counts) {
                for (sum, count) in sum.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
        }
    }
    f_score(&sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::fixture;

    #[test]
    fn equals_sacrebleu() {
        for case in fixture()["corpora"].as_array().unwrap() {
            let (predictions, references) = crate::metrics::corpus(case);
            let predictions: Vec<&str> = predictions.iter().map(String::as_str).collect();
            let references: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
            let (score, expected) = (chrf(&predictions, &references), case["chrf"].as_f64().unwrap());
            assert!((score - expected).abs() < 1e-9, "{}: {score} {expected}", case["name"]);
        }
    }
}
