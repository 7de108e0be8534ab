//! Metrics of class ids; -1 is a prediction that is no class.

use std::collections::HashMap;

/// Share of equal ids, in percent.
pub fn accuracy(targets: &[i64], predictions: &[i64]) -> f64 {
    let right = targets.iter().zip(predictions).filter(|(t, p)| t == p).count();
    percent(right as f64, targets.len() as f64)
}

/// Binary F1 of class 1, in percent. A prediction outside {0, 1} counts as the opposite of its target.
pub fn f1_with_invalid(targets: &[i64], predictions: &[i64]) -> f64 {
    let predictions: Vec<i64> = targets
        .iter()
        .zip(predictions)
        .map(|(t, p)| if matches!(p, 0 | 1) { *p } else { i64::from(*t == 0) })
        .collect();
    100.0 * f1_of(targets, &predictions, 1)
}

/// Mean F1 of the classes `0..classes`, in percent; 0 for a class where it is not defined.
pub fn macro_f1(targets: &[i64], predictions: &[i64], classes: usize) -> f64 {
    let sum: f64 = (0..classes as i64).map(|class| f1_of(targets, predictions, class)).sum();
    percent(sum, classes as f64)
}

fn f1_of(targets: &[i64], predictions: &[i64], class: i64) -> f64 {
    let pairs = || targets.iter().zip(predictions);
    let both = pairs().filter(|&(t, p)| *t == class && *p == class).count() as f64;
    let either = pairs().map(|(t, p)| usize::from(*t == class) + usize::from(*p == class)).sum::<usize>() as f64;
    if either == 0.0 { 0.0 } else { 2.0 * both / either }
}

/// Matthews correlation of any number of classes, times 100; 0 where it is not defined.
pub fn matthews(targets: &[i64], predictions: &[i64]) -> f64 {
    let mut counts: HashMap<i64, (f64, f64)> = HashMap::new();
    for (t, p) in targets.iter().zip(predictions) {
        counts.entry(*t).or_default().0 += 1.0;
        counts.entry(*p).or_default().1 += 1.0;
    }
    let n = targets.len() as f64;
    let right = targets.iter().zip(predictions).filter(|(t, p)| t == p).count() as f64;
    let sum = |f: fn(&(f64, f64)) -> f64| counts.values().map(f).sum::<f64>();
    let covariance = right * n - sum(|(t, p)| t * p);
    let spread = ((n * n - sum(|(_, p)| p * p)) * (n * n - sum(|(t, _)| t * t))).sqrt();
    if spread == 0.0 { 0.0 } else { 100.0 * covariance / spread }
}

/// Share of groups all of whose members are right, in percent.
pub fn group_exact_match(targets: &[i64], predictions: &[i64], groups: &[&str]) -> f64 {
    let mut whole: HashMap<&str, bool> = HashMap::new();
    for ((t, p), group) in targets.iter().zip(predictions).zip(groups) {
        *whole.entry(group).or_insert(true) &= t == p;
    }
    percent(whole.values().filter(|&&right| right).count() as f64, whole.len() as f64)
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { 100.0 * part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_vectors() {
        assert!((macro_f1(&[0, 1, 1, 2], &[0, 0, 2, 2], 3) - 400.0 / 9.0).abs() < 1e-9);
        assert!((f1_with_invalid(&[0, 1, 1, 0], &[0, 1, 2, 2]) - 50.0).abs() < 1e-9);
        assert!((matthews(&[0, 0, 2, 1], &[0, 1, 2, 1]) - 70.0).abs() < 1e-9);
        assert_eq!(accuracy(&[0, 0, 2, 1], &[0, 1, 2, 1]), 75.0);
        assert_eq!(group_exact_match(&[0, 0, 1], &[0, 1, 1], &["a", "a", "b"]), 50.0);
        // Not defined.
        assert_eq!(matthews(&[1, 1], &[1, 1]), 0.0);
        assert_eq!(f1_with_invalid(&[0], &[0]), 0.0);
    }

    #[test]
    fn equal_the_reference_on_random_classes() {
        let fixture = crate::metrics::fixture();
        let case = &fixture["classes"];
        let list =
            |key: &str| -> Vec<i64> { case[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
        let (targets, predictions) = (list("targets"), list("predictions"));
        for (key, value) in [
            ("matthews", matthews(&targets, &predictions)),
            ("macro_f1", macro_f1(&targets, &predictions, 4)),
            ("accuracy", accuracy(&targets, &predictions)),
        ] {
            let expected = case[key].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{key}: {value} {expected}");
        }
    }
}
