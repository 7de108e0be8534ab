//! Correlations of numbers.

/// Pearson's correlation, times 100; 0 where one side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().min(y.len());
    let mean = |values: &[f64]| values.iter().take(n).sum::<f64>() / n.max(1) as f64;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    let spread = (xx * yy).sqrt();
    if spread == 0.0 { 0.0 } else { 100.0 * xy / spread }
}

/// Spearman's rank correlation, times 100; equal values share their mean rank.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let end = (start..order.len()).find(|&i| values[order[i]] != values[order[start]]).unwrap_or(order.len());
        let rank = (start + end - 1) as f64 / 2.0 + 1.0;
        order[start..end].iter().for_each(|&i| ranks[i] = rank);
        start = end;
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
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
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
