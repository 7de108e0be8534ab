//! Error rates of pronunciations: phones are separated by spaces, digits after vowels are stress.

use crate::edit_distance::edit_distance;

fn phones(text: &str, stress: bool) -> Vec<&str> {
    let bare = |phone: &'_ str| -> usize { phone.trim_end_matches(|c: char| c.is_ascii_digit()).len() };
    text.split_whitespace().map(|phone| if stress { phone } else { &phone[..bare(phone)] }).collect()
}

/// Edit distance to each word's nearest pronunciation over the phones of those pronunciations, in percent. Of equally
/// near ones, the longest counts. May be above 100.
pub fn phoneme_error_rate(predictions: &[&str], references: &[&[String]], stress: bool) -> f64 {
    let (mut errors, mut total) = (0, 0);
    for (prediction, references) in predictions.iter().zip(references) {
        let predicted = phones(prediction, stress);
        let nearest = references
            .iter()
            .map(|reference| {
                let reference = phones(reference, stress);
                (edit_distance(&predicted, &reference), reference.len())
            })
            .min_by_key(|&(distance, len)| (distance, std::cmp::Reverse(len)));
        if let Some((distance, len)) = nearest {
            errors += distance;
            total += len;
        }
    }
    if total == 0 { 0.0 } else { 100.0 * errors as f64 / total as f64 }
}

/// Share of words whose prediction equals none of their pronunciations, in percent.
pub fn word_error_rate(predictions: &[&str], references: &[&[String]], stress: bool) -> f64 {
    let wrong = predictions
        .iter()
        .zip(references)
        .filter(|(prediction, references)| {
            let predicted = phones(prediction, stress);
            !references.iter().any(|reference| phones(reference, stress) == predicted)
        })
        .count();
    if predictions.is_empty() { 0.0 } else { 100.0 * wrong as f64 / predictions.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_the_nearest_pronunciation() {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let references = [own(&["T AH0 M EY1 T OW2", "T AH0 M AA1 T OW2"]), own(&["K AE1 T"]), own(&["D AO1 G"])];
        let references: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
        // Right by the second pronunciation; one stress wrong; one phone wrong and one too many.
        let predictions = ["T AH0 M AA1 T OW2", "K AE0 T", "D AA1 G Z"];
        assert!((phoneme_error_rate(&predictions, &references, true) - 100.0 * 3.0 / 12.0).abs() < 1e-9);
        assert!((phoneme_error_rate(&predictions, &references, false) - 100.0 * 2.0 / 12.0).abs() < 1e-9);
        assert!((word_error_rate(&predictions, &references, true) - 200.0 / 3.0).abs() < 1e-9);
        assert!((word_error_rate(&predictions, &references, false) - 100.0 / 3.0).abs() < 1e-9);
    }
}
