//! What changes a row of logits (greedy, sampling) or of log-probabilities (beams) before a token is chosen;
//! the rules and their order are those of the transformers library.

use super::options::Plan;

/// Applies all processors to `row` `[vocab_size]`. `history` is the decoder's input so far: the start token,
/// the forced prefix, and `new` generated tokens.
pub(crate) fn process(plan: &Plan, history: &[u32], new: usize, row: &mut [f32]) {
    let options = &plan.options;
    if options.repetition_penalty != 1.0 {
        repetition_penalty(options.repetition_penalty, history, row);
    }
    if options.no_repeat_ngram > 0 {
        forbid_repeated_ngrams(options.no_repeat_ngram, history, row);
    }
    if new < options.min_new_tokens {
        for &id in &plan.eos {
            row[id as usize] = f32::NEG_INFINITY;
        }
    }
    if !plan.forbidden.is_empty() {
        for (value, &forbidden) in row.iter_mut().zip(&plan.forbidden) {
            if forbidden {
                *value = f32::NEG_INFINITY;
            }
        }
    }
}

/// Divides positive values of tokens seen by `penalty` and multiplies negative ones, once each.
fn repetition_penalty(penalty: f32, history: &[u32], row: &mut [f32]) {
    for (i, &id) in history.iter().enumerate() {
        if !history[..i].contains(&id) {
            let value = &mut row[id as usize];
            *value = if *value < 0.0 { *value * penalty } else { *value / penalty };
        }
    }
}

/// Forbids every token that would complete an n-gram that `history` already holds.
fn forbid_repeated_ngrams(n: usize, history: &[u32], row: &mut [f32]) {
    if history.len() + 1 < n {
        return;
    }
    let tail = &history[history.len() + 1 - n..];
    for ngram in history.windows(n) {
        if ngram[..n - 1] == *tail {
            row[ngram[n - 1] as usize] = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_penalty_counts_each_token_once() {
        let mut row = [2.0, -2.0, 1.0];
        repetition_penalty(2.0, &[0, 1, 0, 1], &mut row);
        assert_eq!(row, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn ngrams_seen_are_forbidden() {
        let mut row = [0.0; 5];
        forbid_repeated_ngrams(2, &[0, 1, 2, 1], &mut row);
        assert_eq!(row, [0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0]);
        let mut row = [0.0; 5];
        forbid_repeated_ngrams(1, &[3], &mut row);
        assert_eq!(row[3], f32::NEG_INFINITY);
        let mut row = [0.0; 5];
        forbid_repeated_ngrams(3, &[3, 1], &mut row);
        assert_eq!(row, [0.0; 5]);
    }
}
