//! The most probable segmentation of a text into pieces (Kudo 2018, section 3.1: the Viterbi path of a Unigram model).
//!
//! What counts as better is as in the `tokenizers` crate, the reference: sums of scores in f64, an earlier candidate
//! wins a draw, an unknown character costs 10 more than the least probable piece, neighbouring unknown characters are
//! one unknown piece. The crate's own model is not used because building it takes too long; see `trie`.

use super::trie::Trie;

/// By how much an unknown character is less probable than the least probable piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Marks a value of the trie as a piece that has an id but is never a candidate.
pub(super) const NOT_A_CANDIDATE: u32 = 1 << 31;

/// A Unigram model.
pub(super) struct Segmenter {
    /// From a piece's text to its id, perhaps with [`NOT_A_CANDIDATE`].
    pub(super) trie: Trie,
    /// The score of each id.
    pub(super) scores: Vec<f32>,
    /// The least score of a normal piece.
    pub(super) min_score: f32,
    pub(super) unk_id: u32,
    /// The id of each byte's piece, for models that spell unknown characters.
    pub(super) byte_ids: Option<Box<[u32; 256]>>,
}

/// The best path that ends at one byte position.
#[derive(Clone, Copy)]
struct BestPath {
    score: f64,
    /// The length of its last piece in bytes; 0 before any path came here.
    len: u32,
    id: u32,
}

/// The buffer of [`Segmenter::segment`].
#[derive(Default)]
pub(super) struct PathBuffer {
    best: Vec<BestPath>,
}

impl Segmenter {
    /// Appends the ids of `text` to `ids`. Linear in its length times the longest piece.
    pub(super) fn segment(&self, text: &str, scratch: &mut PathBuffer, ids: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let best = &mut scratch.best;
        best.clear();
        best.resize(bytes.len() + 1, BestPath { score: 0.0, len: 0, id: 0 });
        let unknown_score = f64::from(self.min_score) - UNKNOWN_PENALTY;

        let mut start = 0;
        while start < bytes.len() {
            let score_here = best[start].score;
            let mut offer = |end: usize, score: f64, id: u32| {
                let target = &mut best[end];
                if target.len == 0 || score > target.score {
                    *target = BestPath { score, len: (end - start) as u32, id };
                }
            };
            let char_end = start + utf8_len(bytes[start]);
            let mut has_char = false;
            let mut node = Trie::ROOT;
            for (end, &byte) in bytes.iter().enumerate().skip(start) {
                let Some(child) = self.trie.child(node, byte) else { break };
                node = child;
                if let Some(id) = self.trie.value(node).filter(|id| id & NOT_A_CANDIDATE == 0) {
                    offer(end + 1, f64::from(self.scores[id as usize]) + score_here, id);
                    has_char |= end + 1 == char_end;
                }
            }
            if !has_char {
                offer(char_end, unknown_score + score_here, self.unk_id);
            }
            start = char_end;
        }

        // Back from the end. A run of unknown characters becomes one piece when the run is over.
        let first = ids.len();
        let mut end = bytes.len();
        let mut run_end = end;
        while end > 0 {
            let BestPath { len, id, .. } = best[end];
            let start = end - len as usize;
            if id != self.unk_id {
                ids.push(id);
                run_end = start;
            } else if start == 0 || best[start].id != self.unk_id {
                self.push_unknown(&bytes[start..run_end], ids);
                run_end = start;
            }
            end = start;
        }
        ids[first..].reverse();
    }

    /// Appends the ids of a run of characters without a piece, the last one first.
    fn push_unknown(&self, run: &[u8], ids: &mut Vec<u32>) {
        // Text that became "<unk>" by normalisation is a candidate of its own; it is not spelled.
        match &self.byte_ids {
            Some(byte_ids) if self.trie.get(run) != Some(self.unk_id) => {
                ids.extend(run.iter().rev().map(|&byte| byte_ids[byte as usize]))
            }
            _ => ids.push(self.unk_id),
        }
    }
}

/// The length of the UTF-8 character that starts with `byte`.
fn utf8_len(byte: u8) -> usize {
    match byte {
        0..0x80 => 1,
        0x80..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}
