//! SQuAD's exact match and F1, with SQuAD's or TriviaQA's normal form of answers.

use std::collections::HashMap;

/// How answers are brought to a normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// ASCII punctuation is deleted.
    Squad,
    /// Punctuation, also some quotation marks beyond ASCII, becomes a space.
    TriviaQa,
}

/// Small letters, no punctuation, no articles, single spaces.
pub fn normal_form(answer: &str, normalization: Normalization) -> String {
    let lower = answer.to_lowercase();
    let plain: String = match normalization {
        Normalization::Squad => lower.chars().filter(|c| !c.is_ascii_punctuation()).collect(),
        Normalization::TriviaQa => lower
            .chars()
            .map(|c| if c.is_ascii_punctuation() || matches!(c, '‘' | '’' | '´') { ' ' } else { c })
            .collect(),
    };
    // Articles are words between characters that are no word characters, not only between spaces.
    let mut out = String::with_capacity(plain.len());
    let mut word = String::new();
    for c in plain.chars().chain(['\n']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if matches!(word.as_str(), "a" | "an" | "the") {
            out.push(' ');
        } else {
            out.push_str(&word);
        }
        word.clear();
        out.push(c);
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn f1(prediction: &str, reference: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for token in reference.split(' ').filter(|t| !t.is_empty()) {
        *left.entry(token).or_insert(0) += 1;
    }
    let reference_len: usize = left.values().sum();
    let tokens: Vec<&str> = prediction.split(' ').filter(|t| !t.is_empty()).collect();
    let mut same = 0;
    for token in &tokens {
        if let Some(count) = left.get_mut(token).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (same as f64 / tokens.len() as f64, same as f64 / reference_len as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Mean exact match and F1 in percent, the best over each prediction's references.
pub fn exact_match_and_f1(predictions: &[&str], references: &[&[String]], normalization: Normalization) -> (f64, f64) {
    let (mut exact, mut f1_sum) = (0.0, 0.0);
    for (prediction, references) in predictions.iter().zip(references) {
        let prediction = normal_form(prediction, normalization);
        let references: Vec<String> = references.iter().map(|r| normal_form(r, normalization)).collect();
        exact += f64::from(u8::from(references.contains(&prediction)));
        f1_sum += references.iter().map(|r| f1(&prediction, r)).fold(0.0, f64::max);
    }
    let mean = |sum: f64| if predictions.is_empty() { 0.0 } else { 100.0 * sum / predictions.len() as f64 };
    (mean(exact), mean(f1_sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_vectors() {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let references =
            [own(&["big moose", "hippo"]), own(&["correct1"]), own(&["correct2.1", "correct2.2"]), own(&["a", "b"])];
        let references: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
        let predictions = ["‘a big  Moose!‘", "wrong", "correct2.2", "c"];
        assert_eq!(exact_match_and_f1(&predictions, &references, Normalization::Squad), (25.0, 35.0));
        assert_eq!(exact_match_and_f1(&predictions, &references, Normalization::TriviaQa), (50.0, 50.0));
        let references = [own(&["abc abd", "$$$$"])];
        let references: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
        let (em, f1) = exact_match_and_f1(&["abd"], &references, Normalization::Squad);
        assert_eq!(em, 0.0);
        assert!((f1 - 200.0 / 3.0).abs() < 1e-9);
    }
}
