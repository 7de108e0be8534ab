//! Rules that a caller writes.

use std::fmt;
use std::sync::Arc;

/// A rule of the caller's: it changes a row of logits before a token is chosen, and so decides what may come next, as
/// `prefix_allowed_tokens_fn` and `LogitsProcessor` do in the transformers library.
///
/// It is given the decoder's input so far (the start token, a forced prefix, and what was generated) and the row,
/// `[vocab_size]`: logits under greedy search and sampling, log-probabilities under beam search, as the rules before it
/// left them. It runs after those of the options, once for each row of a step, so it must answer by what it is given
/// alone. A token at -infinity is not chosen; where all are, the text ends with [`Finish::Blocked`](super::Finish).
///
/// ```
/// use t5_runtime::{GenerateOptions, LogitsProcessor, Model};
///
/// let model = Model::pocket()?;
/// // No exclamation mark at the end.
/// let mark = model.tokenizer()?.id_of("!").unwrap() as usize;
/// let rule = LogitsProcessor::new(move |_so_far, logits| logits[mark] = f32::NEG_INFINITY);
/// let options = GenerateOptions::default().processor(rule);
/// let outputs = model.session().generate("translate English to German: Good morning!", &options)?.finish();
/// assert_eq!(outputs[0].text, "Guten Morgen.");
/// # Ok::<(), t5_runtime::Error>(())
/// ```
#[derive(Clone)]
pub struct LogitsProcessor(Arc<Rule>);

type Rule = dyn Fn(&[u32], &mut [f32]) + Send + Sync;

impl LogitsProcessor {
    /// A rule that `change` is.
    pub fn new(change: impl Fn(&[u32], &mut [f32]) + Send + Sync + 'static) -> LogitsProcessor {
        LogitsProcessor(Arc::new(change))
    }

    /// A rule by which only those tokens may come next that `allowed` names for the decoder's input so far. Ids outside
    /// the vocabulary are passed over.
    ///
    /// ```
    /// # use t5_runtime::LogitsProcessor;
    /// let rule = LogitsProcessor::allowing(|so_far| if so_far.len() == 1 { vec![2] } else { vec![1] });
    /// let mut row = [0.5; 4];
    /// rule.apply(&[0], &mut row);
    /// assert_eq!(row, [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.5, f32::NEG_INFINITY]);
    /// ```
    pub fn allowing(allowed: impl Fn(&[u32]) -> Vec<u32> + Send + Sync + 'static) -> LogitsProcessor {
        LogitsProcessor::new(move |so_far, row| {
            let mut ids = allowed(so_far);
            ids.sort_unstable();
            keep_only(ids, row);
        })
    }

    /// Changes `row` `[vocab_size]` after `so_far`.
    pub fn apply(&self, so_far: &[u32], row: &mut [f32]) {
        (self.0)(so_far, row);
    }
}

impl fmt::Debug for LogitsProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogitsProcessor").finish_non_exhaustive()
    }
}

/// Leaves out of a row all tokens but `ids`, which ascend.
pub(super) fn keep_only(ids: impl IntoIterator<Item = u32>, row: &mut [f32]) {
    let mut begin = 0;
    for id in ids {
        let id = id as usize;
        if id < row.len() && id >= begin {
            row[begin..id].fill(f32::NEG_INFINITY);
            begin = id + 1;
        }
    }
    row[begin..].fill(f32::NEG_INFINITY);
}
