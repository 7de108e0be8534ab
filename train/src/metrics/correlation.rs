//! Correlations of numbers. A correlation that is not defined is NaN, as in SciPy.

/// Pearson's correlation, times 100; NaN for fewer than two pairs, where one side is constant, and where a number is
/// not finite.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().min(y.len());
    if n < 2 {
        return f64::NAN;
    }
    let (x, y) = (direction(&x[..n]), direction(&y[..n]));
    100.0 * x.iter().zip(&y).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0)
}

/// The values about their mean, scaled to a Euclidean norm of 1; all NaN where they are constant.
fn direction(values: &[f64]) -> Vec<f64> {
    // Compared directly: the mean of equal values may differ from them in the last bit.
    if values.iter().all(|value| *value == values[0]) {
        return vec![f64::NAN; values.len()];
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    // Squares of values around 1 neither overflow nor vanish.
    let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / largest).collect();
    let norm = scaled.iter().map(|value| value * value).sum::<f64>().sqrt();
    scaled.into_iter().map(|value| value / norm).collect()
}

/// Spearman's rank correlation, times 100; equal values share their mean rank. NaN for fewer than two pairs, where one
/// side is constant, and where a number is NaN; infinite ones have ranks as any other.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return f64::NAN;
    }
    pearson(&ranks(x), &ranks(y))
}

/// The ranks of numbers of which none is NaN.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut done = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = done as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        done += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_vectors() {
        assert!((spearman(&[0.0, 2.0, 1.0], &[0.0, 1.0, 2.0]) - 50.0).abs() < 1e-9);
        assert!((pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 100.0).abs() < 1e-9);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(ranks(&[0.0, -0.0, -1.0]), [2.5, 2.5, 1.0]);
    }

    /// Lists with values that are hard on arithmetic; the values are SciPy's.
    #[test]
    fn equal_the_reference_at_the_edges() {
        let fixture = crate::metrics::fixture();
        let number = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.parse().unwrap(),
            number => number.as_f64().unwrap(),
        };
        for case in fixture["correlations"].as_array().unwrap() {
            let list = |key: &str| -> Vec<f64> { case[key].as_array().unwrap().iter().map(number).collect() };
            let (x, y) = (list("targets"), list("predictions"));
            for (key, value) in [("pearson", pearson(&x, &y)), ("spearman", spearman(&x, &y))] {
                let expected = number(&case[key]);
                let same = (value.is_nan() && expected.is_nan()) || (value - expected).abs() < 1e-9;
                assert!(same, "{key} of {}: {value}, expected {expected}", case["name"]);
            }
        }
    }

    #[test]
    fn equal_the_reference_with_ties() {
        let fixture = crate::metrics::fixture();
        let case = &fixture["numbers"];
        let list =
            |key: &str| -> Vec<f64> { case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
        let (x, y) = (list("targets"), list("predictions"));
        for (key, value) in [("pearson", pearson(&x, &y)), ("spearman", spearman(&x, &y))] {
            let expected = case[key].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{key}: {value} {expected}");
        }
    }
}
