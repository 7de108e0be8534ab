//! How the states of a text's tokens become one vector, and the length of a vector becomes 1.

use std::ops::Range;

/// What is made of the states of a text's tokens. The names are those of the sentence-transformers library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Nothing: the states of all tokens.
    None,
    /// Their mean.
    Mean,
    /// The first token's.
    First,
    /// The last token's, which is `</s>`.
    Last,
    /// The largest value of each dimension.
    Max,
    /// Their sum divided by the square root of their number.
    MeanSqrtLen,
    /// Their mean, in which the token at place i, counted from 1, has weight i.
    WeightedMean,
}

impl Pooling {
    /// Every kind that gives one vector, in the order in which sentence-transformers puts several together.
    pub const VECTORS: [Pooling; 6] =
        [Pooling::First, Pooling::Max, Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::Last];

    /// The name that sentence-transformers and our files have for it.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::None => "none",
            Pooling::First => "cls",
            Pooling::Max => "max",
            Pooling::Mean => "mean",
            Pooling::MeanSqrtLen => "mean_sqrt_len_tokens",
            Pooling::WeightedMean => "weightedmean",
            Pooling::Last => "lasttoken",
        }
    }

    /// The kind of this name that gives one vector.
    pub fn from_name(name: &str) -> Option<Pooling> {
        Pooling::VECTORS.into_iter().find(|pooling| pooling.name() == name)
    }

    /// The kind that a caller asks for by this name: also `none`, and the command's `first` and `last`.
    pub fn asked(name: &str) -> Option<Pooling> {
        match name {
            "none" => Some(Pooling::None),
            "first" => Some(Pooling::First),
            "last" => Some(Pooling::Last),
            name => Pooling::from_name(name),
        }
    }

    /// What is made of rows `tokens` of `states`, as [`Pooling::pool`].
    pub(crate) fn pooled(self, states: &[f32], d: usize, tokens: Range<usize>) -> Vec<f32> {
        let mut out = Vec::new();
        self.pool(states, d, tokens, &mut out);
        out
    }

    /// Appends to `out` what is made of rows `tokens`, at least one, of `states` `[rows, d]`. Sums are in f64.
    pub(crate) fn pool(self, states: &[f32], d: usize, tokens: Range<usize>, out: &mut Vec<f32>) {
        let start = tokens.start;
        let rows = &states[tokens.start * d..tokens.end * d];
        let last = rows.len() - d;
        let count = tokens.len() as f64;
        let sum = |weight: fn(usize) -> f64, divisor: f64, out: &mut Vec<f32>| {
            let mut sums = vec![0f64; d];
            for (i, row) in rows.chunks_exact(d).enumerate() {
                let weight = weight(start + i);
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value));
            }
            out.extend(sums.into_iter().map(|sum| (sum / divisor) as f32));
        };
        match self {
            Pooling::None => out.extend_from_slice(rows),
            Pooling::First => out.extend_from_slice(&rows[..d]),
            Pooling::Last => out.extend_from_slice(&rows[last..]),
            Pooling::Max => {
                let begin = out.len();
                out.extend_from_slice(&rows[..d]);
                for row in rows[d..].chunks_exact(d) {
                    out[begin..].iter_mut().zip(row).for_each(|(max, value)| *max = max.max(*value));
                }
            }
            Pooling::Mean => sum(|_| 1.0, count, out),
            Pooling::MeanSqrtLen => sum(|_| 1.0, count.sqrt(), out),
            Pooling::WeightedMean => {
                let weights: usize = tokens.map(|token| token + 1).sum();
                sum(|token| (token + 1) as f64, weights as f64, out);
            }
        }
    }
}

/// Divides each row of `values` `[rows, width]` by its length, so that the dot product of two is their cosine. A row of
/// zeros stays as it is.
pub(crate) fn normalize(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let square: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        let length = square.sqrt().max(1e-12);
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_by_hand() {
        // Four tokens of two values, of which the first and the last do not count.
        let states = [9.0, -9.0, 1.0, -4.0, 3.0, -2.0, 9.0, 9.0];
        let over_sqrt = |sum: f64| (sum / 2f64.sqrt()) as f32;
        for (pooling, expected) in [
            (Pooling::None, &[1.0, -4.0, 3.0, -2.0][..]),
            (Pooling::First, &[1.0, -4.0]),
            (Pooling::Last, &[3.0, -2.0]),
            (Pooling::Max, &[3.0, -2.0]),
            (Pooling::Mean, &[2.0, -3.0]),
            (Pooling::MeanSqrtLen, &[over_sqrt(4.0), over_sqrt(-6.0)]),
            (Pooling::WeightedMean, &[(2.0 + 9.0) / 5.0, (-8.0 - 6.0) / 5.0]),
        ] {
            let mut out = vec![7.0];
            pooling.pool(&states, 2, 1..3, &mut out);
            assert_eq!((out[0], &out[1..]), (7.0, expected), "{pooling:?}");
            if pooling != Pooling::None {
                assert_eq!(Pooling::from_name(pooling.name()), Some(pooling));
            }
        }
        let asked = ["none", "first", "last", "cls"].map(Pooling::asked);
        let expected = [Pooling::None, Pooling::First, Pooling::Last, Pooling::First].map(Some);
        assert_eq!(asked, expected);
        assert_eq!(["none", "first", "last", ""].map(Pooling::from_name), [None; 4]);
    }

    #[test]
    fn lengths_become_one() {
        let mut values = [3.0, -4.0, 0.0, 0.0, 1e-30, 0.0];
        normalize(&mut values, 2);
        assert_eq!(values[..4], [0.6, -0.8, 0.0, 0.0]);
        // As torch does it: divided by 1e-12 at least.
        assert!((values[4] - 1e-18).abs() < 1e-24);
    }
}
