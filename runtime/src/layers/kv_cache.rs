//! Self-attention keys and values of everything that is being decoded.

use super::Query;
use crate::error::Result;
use crate::kernels::{Buffer, Heads, KeyValues};
use crate::memory;

/// Positions that there is room for at first.
pub(crate) const FIRST_POSITIONS: usize = 64;

/// The past of every sequence, in every block of the decoder.
///
/// Each sequence writes into a slot of its own. Its path says which slot holds its token at each position: where beams
/// continue one another, paths are copied, never keys and values.
pub(crate) struct KvCache {
    blocks: usize,
    heads: Heads,
    slots: usize,
    /// How many each slot has room for.
    positions: usize,
    /// `[block][keys, values][slot][head][position][width]`
    values: Buffer<f32>,
    /// `[slots, positions]`
    paths: Vec<u32>,
    /// Scratch of the same size.
    next_paths: Vec<u32>,
}

impl KvCache {
    pub fn new(blocks: usize, heads: Heads) -> KvCache {
        KvCache {
            blocks,
            heads,
            slots: 0,
            positions: 0,
            values: Buffer::default(),
            paths: Vec::new(),
            next_paths: Vec::new(),
        }
    }

    /// Starts over with this many empty slots, which are expected to hold `positions` tokens in the end.
    pub fn begin(&mut self, slots: usize, positions: usize) -> Result<()> {
        self.slots = slots;
        self.paths.clear();
        self.next_paths.clear();
        // What was allocated for earlier requests is there already.
        let ready = self.values.values().len() / (self.runs() * self.heads.width).max(1);
        self.positions = 0; // nothing to keep
        self.grow(ready.max(FIRST_POSITIONS).min(positions))
    }

    /// Positions that there is room for.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Runs of `[position][width]`.
    fn runs(&self) -> usize {
        self.blocks * 2 * self.slots * self.heads.count
    }

    /// Makes room for `positions` tokens a slot, more than there were. Limits of new tokens are often far above what is
    /// generated, so memory follows what is used.
    ///
    /// # Errors
    /// If there is not so much memory: what the slots hold is as before.
    pub fn grow(&mut self, positions: usize) -> Result<()> {
        let (before, after) = (self.positions * self.heads.width, positions * self.heads.width);
        let runs = self.runs();
        if self.values.values().len() < runs.saturating_mul(after) {
            let paths = (self.slots * positions * 2) as u64;
            memory::ask("keys and values of more tokens", paths.saturating_mul(size_of::<u32>() as u64))?;
            if before == 0 {
                self.values.reserve(runs.saturating_mul(after))?;
            } else {
                let mut grown = Buffer::default();
                grown.reserve(runs.saturating_mul(after))?;
                let kept = self.values.values().chunks_exact(before);
                for (run, values) in kept.zip(grown.part(runs * after).chunks_exact_mut(after)) {
                    values[..before].copy_from_slice(run);
                }
                self.values = grown;
            }
        } else {
            // From the last on, so that nothing is overwritten before it has moved.
            let values = self.values.part(runs * after);
            for run in (1..runs).rev() {
                values.copy_within(run * before..(run + 1) * before, run * after);
            }
        }
        self.next_paths.clear();
        for slot in 0..self.slots {
            let known = self.paths.get(slot * self.positions..(slot + 1) * self.positions).unwrap_or_default();
            self.next_paths.extend_from_slice(known);
            self.next_paths.extend(std::iter::repeat_n(slot as u32, positions - known.len()));
        }
        std::mem::swap(&mut self.paths, &mut self.next_paths);
        self.next_paths.resize(self.paths.len(), 0);
        self.positions = positions;
        Ok(())
    }

    /// Makes each query's sequence go on in its own slot.
    pub fn extend(&mut self, queries: &[Query]) {
        for query in queries {
            self.paths[query.sequence * self.positions + query.position] = query.sequence as u32;
        }
    }

    /// Where keys, then values, of a block lie, and how many of each there are.
    fn of_block(&self, block: usize) -> (std::ops::Range<usize>, usize) {
        let half = self.slots * self.heads.count * self.positions * self.heads.width;
        (2 * half * block..2 * half * (block + 1), half)
    }

    /// Takes over keys and values of a block from `qkv` `[queries, 3 * inner]`.
    pub fn write(&mut self, block: usize, queries: &[Query], qkv: &[f32]) {
        let Heads { count, width } = self.heads;
        let (inner, run) = (count * width, self.positions * width);
        let (range, half) = self.of_block(block);
        let (keys, values) = self.values.part(range.end)[range].split_at_mut(half);
        for (query, qkv) in queries.iter().zip(qkv.chunks_exact(3 * inner)) {
            for head in 0..count {
                let from = inner + head * width;
                let at = (query.sequence * count + head) * run + query.position * width;
                keys[at..at + width].copy_from_slice(&qkv[from..from + width]);
                values[at..at + width].copy_from_slice(&qkv[inner + from..inner + from + width]);
            }
        }
    }

    /// What a query attends to in a block: its sequence up to itself.
    pub fn view(&self, block: usize, query: &Query) -> KeyValues<'_> {
        let (range, half) = self.of_block(block);
        let (keys, values) = self.values.values()[range].split_at(half);
        let slots = &self.paths[query.sequence * self.positions..][..=query.position];
        KeyValues { keys, values, positions: self.positions, slots }
    }

    /// Makes sequence `first + i` continue what was sequence `first + parents[i]`, over positions below `len`.
    pub fn reorder(&mut self, first: usize, parents: &[usize], len: usize) {
        let positions = self.positions;
        for (i, &parent) in parents.iter().enumerate() {
            let from = (first + parent) * positions;
            self.next_paths[i * positions..][..len].copy_from_slice(&self.paths[from..from + len]);
        }
        for i in 0..parents.len() {
            self.paths[(first + i) * positions..][..len].copy_from_slice(&self.next_paths[i * positions..][..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { count: 2, width: 3 };

    /// A row of `[3 * inner]` whose values tell where they belong.
    fn qkv(block: usize, sequence: usize, position: usize) -> Vec<f32> {
        (0..18).map(|column| (block * 10_000 + sequence * 1000 + position * 100 + column) as f32).collect()
    }

    /// Keys and values of every head that a query sees, position by position, with the sequence that each was written
    /// by.
    #[track_caller]
    fn assert_sees(cache: &KvCache, query: &Query, writers: &[usize]) {
        for block in 0..2 {
            let seen = cache.view(block, query);
            assert_eq!(seen.slots.len(), writers.len());
            for (position, (&slot, &writer)) in seen.slots.iter().zip(writers).enumerate() {
                let row = qkv(block, writer, position);
                for head in 0..HEADS.count {
                    let at = ((slot as usize * HEADS.count + head) * seen.positions + position) * HEADS.width;
                    let from = 6 + head * HEADS.width;
                    assert_eq!(seen.keys[at..at + 3], row[from..from + 3], "block {block}, position {position}");
                    assert_eq!(
                        seen.values[at..at + 3],
                        row[6 + from..6 + from + 3],
                        "block {block}, position {position}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_sequence_sees_its_own_past_after_growing_and_reordering() {
        let mut cache = KvCache::new(2, HEADS);
        // The second time there is room from the first, which is larger.
        for positions in [64, 2] {
            cache.begin(4, positions).unwrap();
            assert!(cache.positions() >= 2);
            let put = |cache: &mut KvCache, position: usize| {
                let queries: Vec<Query> = (0..4).map(|sequence| Query { token: 0, sequence, position }).collect();
                cache.extend(&queries);
                for block in 0..2 {
                    let rows: Vec<f32> = (0..4).flat_map(|sequence| qkv(block, sequence, position)).collect();
                    cache.write(block, &queries, &rows);
                }
                queries
            };
            put(&mut cache, 0);
            let queries = put(&mut cache, 1);
            assert_sees(&cache, &queries[3], &[3, 3]);
            // Sequences 1 to 3 become beams of one another.
            cache.reorder(1, &[1, 1, 0], 2);
            cache.grow(cache.positions() + 3).unwrap();
            let queries = put(&mut cache, 2);
            for (query, writers) in queries.iter().zip([[0, 0, 0], [2, 2, 1], [2, 2, 2], [1, 1, 3]]) {
                assert_sees(&cache, query, &writers);
            }
            cache.reorder(1, &[2, 2, 2], 3);
            let queries = put(&mut cache, 3);
            assert_sees(&cache, &queries[1], &[1, 1, 3, 1]);
            assert_sees(&cache, &queries[0], &[0, 0, 0, 0]);
        }
    }
}
