//! Proposals of the next tokens, looked up in the source. Where output repeats input (corrections, summaries, quotes),
//! one pass of the decoder checks several tokens at once. The output is the same as without.
//!
//! Known as prompt lookup decoding, a form of speculative decoding (Leviathan et al. 2023) without a second model.

/// The longest match that is looked for, in tokens.
const LONGEST_MATCH: usize = 4;

/// How many tokens are proposed at first, and after all of them were right twice in a row. With the token before them
/// they are four rows and eight, as many as one product takes at once.
const FEW: usize = 3;
pub(super) const MANY: usize = 7;

/// How many tokens to wait after an attempt in which nothing was right: at first, and at most.
const SHORT_PAUSE: usize = 4;
const LONG_PAUSE: usize = 64;

/// A single token, as after a correction, is a match only within this many places of where the last match ended.
const NEAR: usize = 4;

/// What proposing needs to know of one text.
pub(super) struct Proposer {
    source: Vec<u32>,
    /// Where in the source the last match ended.
    cursor: usize,
    /// How often in a row all proposals were right.
    successes: usize,
    pause: usize,
    /// Nothing is proposed before so many tokens are there.
    next: usize,
}

impl Proposer {
    pub fn new(source: &[u32]) -> Proposer {
        Proposer { source: source.to_vec(), cursor: 0, successes: 0, pause: SHORT_PAUSE, next: 0 }
    }

    /// Proposes at most `most` tokens that may follow `ids`.
    pub fn propose(&mut self, ids: &[u32], most: usize) -> &[u32] {
        if ids.len() < self.next {
            return &[];
        }
        let Some(end) = (1..=LONGEST_MATCH.min(ids.len())).rev().find_map(|n| self.find(&ids[ids.len() - n..])) else {
            return &[];
        };
        self.cursor = end;
        let count = if self.successes >= 2 { MANY } else { FEW };
        let proposed = &self.source[end..];
        &proposed[..proposed.len().min(count).min(most)]
    }

    /// Where `last` ends in the source, if something follows it: the first such place behind the cursor, else the first
    /// of all.
    fn find(&self, last: &[u32]) -> Option<usize> {
        let places = || self.source.windows(last.len()).enumerate().filter(|(_, window)| *window == last);
        let mut ends = places().map(|(at, _)| at + last.len()).filter(|&end| end < self.source.len());
        if last.len() == 1 {
            return ends.find(|&end| end > self.cursor && end <= self.cursor + NEAR);
        }
        let first = ends.next()?;
        if first > self.cursor { Some(first) } else { ends.find(|&end| end > self.cursor).or(Some(first)) }
    }

    /// After an attempt: how many were proposed, how many of them right, and how many tokens there are now.
    pub fn learn(&mut self, proposed: usize, right: usize, tokens: usize) {
        self.cursor += right;
        self.successes = if right == proposed { self.successes + 1 } else { 0 };
        if right > 0 {
            self.pause = SHORT_PAUSE;
        } else {
            self.next = tokens + self.pause;
            self.pause = (2 * self.pause).min(LONG_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [u32; 0] = [];

    #[test]
    fn what_follows_the_longest_match_is_proposed() {
        let mut lookup = Proposer::new(&[1, 2, 3, 9, 2, 3, 4, 5, 6, 7]);
        assert_eq!(lookup.propose(&[], 9), NOTHING);
        assert_eq!(lookup.propose(&[8], 9), NOTHING);
        assert_eq!(lookup.propose(&[8, 2, 3], 9), [9, 2, 3]);
        assert_eq!(lookup.propose(&[9, 2, 3], 9), [4, 5, 6]);
        assert_eq!(lookup.propose(&[9, 2, 3], 2), [4, 5]);
        // Nothing follows the last token.
        assert_eq!(lookup.propose(&[6, 7], 9), NOTHING);
    }

    #[test]
    fn a_single_token_counts_where_the_output_had_come_to() {
        let mut lookup = Proposer::new(&[1, 2, 3, 4, 5, 6, 7, 8, 3, 9]);
        assert_eq!(lookup.propose(&[1], 9), [2, 3, 4]);
        lookup.learn(3, 0, 2);
        assert_eq!(lookup.propose(&[1, 30, 3], 9), NOTHING, "it waits after a failure");
        assert_eq!(lookup.propose(&[1, 30, 31, 32, 33, 34, 3], 9), [4, 5, 6]);
        lookup.learn(3, 3, 10);
        assert_eq!(lookup.propose(&[1, 30, 31, 32, 33, 34, 3, 4, 5, 6, 40, 3], 9), [9]);
    }

    #[test]
    fn success_makes_it_bolder_and_failure_pause_longer() {
        let source: Vec<u32> = (0..200).collect();
        let mut lookup = Proposer::new(&source);
        for (tokens, count) in [(3, 3), (7, 3), (11, 7), (19, 7)] {
            assert_eq!(lookup.propose(&source[..tokens], 99).len(), count);
            lookup.learn(count, count, tokens + count + 1);
        }
        for pause in [4, 8, 16, 32, 64, 64] {
            lookup.next = 0;
            assert!(!lookup.propose(&source[..50], 99).is_empty());
            lookup.learn(3, 0, 50);
            assert_eq!(lookup.propose(&source[..49 + pause], 99), NOTHING);
        }
        assert_eq!(lookup.propose(&source[..90], 99), NOTHING, "64 tokens after the fiftieth");
        lookup.next = 0;
        assert_eq!(lookup.propose(&source[..50], 99).len(), 3);
    }
}
