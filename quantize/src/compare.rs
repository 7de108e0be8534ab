//! How far the predictions of a stored model are from those of the checkpoint that it was made of, on pairs of texts.

use std::fmt;

use serde_json::{Value, json};
use t5_runtime::{Error, Model, Result};

/// Predictions of two models of the same targets, each token predicted after the true ones before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Tokens that were predicted, `</s>` included.
    pub tokens: usize,
    /// Mean Kullback-Leibler divergence of the stored model's distribution from the checkpoint's, in nats.
    pub divergence: f64,
    /// Tokens for which both find the same one likeliest.
    pub same_choice: usize,
    /// Mean log-probability of the true token by the checkpoint.
    pub log_probability: f64,
    /// The same by the stored model.
    pub stored_log_probability: f64,
}

/// Compares `stored` with the `original` on pairs of a source, with its task's prefix, and a target. A source is read
/// whole, spelled out where its task wants that.
///
/// # Errors
/// If a model has no decoder or no vocabulary, they differ in their vocabulary, there are no pairs, or there is not
/// enough memory.
pub fn compare(original: &Model, stored: &Model, pairs: &[(String, String)]) -> Result<Comparison> {
    let (ours, theirs) = (original.config().vocab_size, stored.config().vocab_size);
    if ours != theirs || pairs.is_empty() {
        let found = if pairs.is_empty() { "no pairs".to_owned() } else { format!("{ours} and {theirs} tokens") };
        let what = format!("expected pairs of texts and two models of one vocabulary, found {found}");
        return Err(Error::Option { option: "compare", what });
    }
    let tokenizer = original.tokenizer()?;
    let (mut session, mut stored) = (original.session(), stored.session());
    let mut sums = Comparison::default();
    for (source, target) in pairs {
        let (source, target) = (original.source_ids(source)?, tokenizer.encode(target));
        let all = session.logits_ids(&source, &target)?;
        let all_stored = stored.logits_ids(&source, &target)?;
        for ((logits, stored), &token) in all.chunks(ours).zip(all_stored.chunks(ours)).zip(&target) {
            sums.add(logits, stored, token as usize);
        }
    }
    let tokens = sums.tokens as f64;
    Ok(Comparison {
        divergence: sums.divergence / tokens,
        log_probability: sums.log_probability / tokens,
        stored_log_probability: sums.stored_log_probability / tokens,
        ..sums
    })
}

impl Comparison {
    /// Adds one token's predictions; means are sums until the end.
    fn add(&mut self, logits: &[f32], stored: &[f32], token: usize) {
        let (p, q) = (log_probabilities(logits), log_probabilities(stored));
        self.tokens += 1;
        self.divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.same_choice += usize::from(likeliest(&p) == likeliest(&q));
        self.log_probability += p[token];
        self.stored_log_probability += q[token];
    }

    /// `{"tokens", "kl_divergence", "same_choice", "log_probability", "stored_log_probability"}`; `same_choice` is a
    /// share.
    pub fn to_json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "kl_divergence": self.divergence,
            "same_choice": self.same_choice as f64 / self.tokens as f64,
            "log_probability": self.log_probability,
            "stored_log_probability": self.stored_log_probability,
        })
    }
}

impl fmt::Display for Comparison {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = 100.0 * self.same_choice as f64 / self.tokens as f64;
        write!(
            f,
            "{} tokens: KL divergence {:.5} nats, the same likeliest token {same:.2} %, mean log-probability {:.4} \
             (before: {:.4})",
            self.tokens, self.divergence, self.stored_log_probability, self.log_probability
        )
    }
}

fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = logits.iter().map(|&x| f64::from(x - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|&x| f64::from(x - largest) - log_sum).collect()
}

/// The first of the largest.
fn likeliest(x: &[f64]) -> Option<usize> {
    (0..x.len()).rev().max_by(|&a, &b| x[a].total_cmp(&x[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_distributions() {
        let mut sums = Comparison::default();
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2.
        let ln = |x: f32| x.ln();
        sums.add(&[ln(2.0), 0.0, 0.0], &[ln(3.0), ln(6.0), ln(3.0)], 0);
        assert!((sums.divergence - 0.25 * 2f64.ln()).abs() < 1e-6, "{sums:?}");
        assert_eq!((sums.tokens, sums.same_choice), (1, 0));
        assert!((sums.log_probability - 0.5f64.ln()).abs() < 1e-6);
        assert!((sums.stored_log_probability - 0.25f64.ln()).abs() < 1e-6);
        // The same one, whatever is added to all; of equals the first.
        sums.add(&[1.0, 5.0, 5.0], &[-1.0, 3.0, 3.0], 2);
        assert_eq!((sums.tokens, sums.same_choice), (2, 1));
        assert!((sums.divergence - 0.25 * 2f64.ln()).abs() < 1e-6, "{sums:?}");
    }
}
