//! A trie over byte strings in three flat arrays.
//!
//! Nodes are numbered level by level, so the children of a node are neighbours and one index per node finds them:
//! 9 bytes a node, no allocation per node, and building is one sort and one pass. The `tokenizers` crate keeps a hash
//! map in every node; with 250,000 pieces that is what takes a second and 200 MB.

/// Marks a node at which no key ends.
const NONE: u32 = u32::MAX;

/// From byte strings to numbers below `u32::MAX`.
pub(super) struct Trie {
    /// `first_child[n]..first_child[n + 1]` are the children of node n; node 0 is the root.
    first_child: Vec<u32>,
    /// The byte that leads to each node; ascending among the children of one node.
    label: Vec<u8>,
    /// The value of the key that ends at each node, or [`NONE`].
    value: Vec<u32>,
}

impl Trie {
    /// Builds the trie of `keys`, whose lengths add up to less than 2^32. Empty keys are left out; of equal keys the
    /// last one counts.
    pub(super) fn new<'a>(keys: impl Iterator<Item = (&'a [u8], u32)>) -> Trie {
        // Sorting compares the first 16 bytes as one number: they decide nearly always and need no memory look-up.
        let mut sorted: Vec<(u128, u32, &[u8], u32)> = keys
            .filter(|(key, _)| !key.is_empty())
            .enumerate()
            .map(|(order, (key, value))| (prefix(key), order as u32, key, value))
            .collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.2.cmp(b.2)).then_with(|| b.1.cmp(&a.1)));
        sorted.dedup_by(|later, earlier| later.2 == earlier.2);

        let mut trie = Trie { first_child: Vec::new(), label: vec![0], value: Vec::new() };
        // The keys below each node of the current level, as a range of `sorted`.
        let mut level = vec![(0, sorted.len())];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next_level = Vec::new();
            for (mut low, high) in level {
                trie.first_child.push(trie.label.len() as u32);
                let ends_here = low < high && sorted[low].2.len() == depth;
                trie.value.push(if ends_here { sorted[low].3 } else { NONE });
                low += usize::from(ends_here);
                while low < high {
                    let byte = sorted[low].2[depth];
                    let count = sorted[low..high].iter().take_while(|key| key.2[depth] == byte).count();
                    trie.label.push(byte);
                    next_level.push((low, low + count));
                    low += count;
                }
            }
            level = next_level;
            depth += 1;
        }
        trie.first_child.push(trie.label.len() as u32);
        trie
    }

    /// The node at which every search starts.
    pub(super) const ROOT: u32 = 0;

    /// The node that `byte` leads to from `node`.
    #[inline]
    pub(super) fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let first = self.first_child[node as usize];
        let labels = &self.label[first as usize..self.first_child[node as usize + 1] as usize];
        let index = match labels.len() {
            0 => return None,
            1..=8 => labels.iter().position(|&label| label == byte)?,
            _ => labels.binary_search(&byte).ok()?,
        };
        Some(first + index as u32)
    }

    /// The value of the key that ends at `node`.
    #[inline]
    pub(super) fn value(&self, node: u32) -> Option<u32> {
        let value = self.value[node as usize];
        (value != NONE).then_some(value)
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<u32> {
        let mut node = Trie::ROOT;
        for &byte in key {
            node = self.child(node, byte)?;
        }
        self.value(node)
    }

    /// The longest key that `text` starts with: its length and value.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut node = Trie::ROOT;
        let mut longest = None;
        for (index, &byte) in text.iter().enumerate() {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            if let Some(value) = self.value(node) {
                longest = Some((index + 1, value));
            }
        }
        longest
    }
}

/// The first 16 bytes of `key` as a number that orders as they do.
fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn build(keys: &[&str]) -> Trie {
        Trie::new(keys.iter().enumerate().map(|(value, key)| (key.as_bytes(), value as u32)))
    }

    #[test]
    fn finds_keys_and_longest_prefixes() {
        let trie = build(&["a", "ab", "abcd", "b", "a", ""]);
        assert_eq!(trie.get(b"a"), Some(4), "the last of equal keys counts");
        assert_eq!(trie.get(b"abcd"), Some(2));
        assert_eq!(trie.get(b"abc"), None);
        assert_eq!(trie.get(b""), None);
        assert_eq!(trie.longest_prefix(b"abcx"), Some((2, 1)));
        assert_eq!(trie.longest_prefix(b"xabc"), None);
        assert_eq!(build(&[]).get(b"a"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(keys in prop::collection::vec("[ab\u{0}]{0,20}|\\PC{0,3}", 0..60), probe in "[ab]{0,20}") {
            let trie = Trie::new(keys.iter().enumerate().map(|(value, key)| (key.as_bytes(), value as u32)));
            let map: HashMap<&[u8], u32> =
                keys.iter().enumerate().map(|(value, key)| (key.as_bytes(), value as u32)).collect();
            for key in &keys {
                let expected = if key.is_empty() { None } else { map.get(key.as_bytes()).copied() };
                prop_assert_eq!(trie.get(key.as_bytes()), expected);
            }
            let longest = (1..=probe.len()).rev().find_map(|n| Some((n, *map.get(&probe.as_bytes()[..n])?)));
            prop_assert_eq!(trie.longest_prefix(probe.as_bytes()), longest);
        }
    }
}
