//! The character map of SentencePiece's `nmt_nfkc` normaliser, built from Unicode's tables.
//!
//! The rules are: Unicode's NFKC for every single code point; NFKC for every sequence that is a spelling of a
//! decomposed character (a letter and its accents, the parts of a Korean syllable, each in any of their compatible
//! forms); and a few rules of "NMT" that drop control characters and make odd blanks a space. The file form is a
//! minimal double array with XOR transitions (as darts-clone's): a `u32` size in bytes, the units, then the NUL-ended
//! replacement texts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::OnceLock,
};

use unicode_normalization::UnicodeNormalization;

type Rules = HashMap<Vec<char>, String>;

/// Becomes a space.
const BLANKS: [char; 15] = [
    '\t', '\n', '\u{000C}', '\r', '\u{1680}', '\u{200B}', '\u{200C}', '\u{200D}', '\u{200E}', '\u{200F}', '\u{2028}',
    '\u{2029}', '\u{2581}', '\u{FEFF}', '\u{FFFD}',
];

/// Is dropped: control characters that are no white space.
fn is_dropped(c: char) -> bool {
    matches!(c, '\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{8F}' | '\u{9F}')
}

/// The compiled map, ready for a `Precompiled` normaliser or a SentencePiece model. Made once, in about a second.
pub fn nmt_nfkc() -> &'static [u8] {
    static MAP: OnceLock<Vec<u8>> = OnceLock::new();
    MAP.get_or_init(|| compile(&rules()))
}

fn rules() -> Rules {
    let mut spellings: HashMap<char, Vec<char>> = HashMap::new();
    let mut single = Rules::new();
    let mut decomposed: BTreeSet<Vec<char>> = BTreeSet::new();
    for c in '\u{1}'..=char::MAX {
        let nfkd: Vec<char> = std::iter::once(c).nfkd().collect();
        match nfkd.as_slice() {
            [one] => spellings.entry(*one).or_default().push(c),
            _ => {
                decomposed.insert(nfkd);
            }
        }
        let nfkc: String = std::iter::once(c).nfkc().collect();
        if !nfkc.chars().eq([c]) {
            single.insert(vec![c], nfkc);
        }
    }
    let mut sequences = Rules::new();
    for nfkd in &decomposed {
        let nfkc: String = nfkd.iter().copied().nfkc().collect();
        // What does not compose to one character (ligatures, Arabic words) is covered by the rules of its parts.
        if nfkc.chars().count() != 1 {
            continue;
        }
        expand(nfkd, &spellings, &mut Vec::new(), &mut |spelling| {
            if !nfkc.chars().eq(spelling.iter().copied()) {
                sequences.insert(spelling.to_vec(), nfkc.clone());
            }
        });
    }
    for c in BLANKS {
        single.insert(vec![c], " ".into());
    }
    for c in ('\u{1}'..='\u{9F}').filter(|&c| is_dropped(c)) {
        single.insert(vec![c], String::new());
    }
    // Wide and plain tilde mean different things in Japanese.
    single.remove(&vec!['\u{FF5E}']);
    without_redundant(single, sequences)
}

/// Every sequence of code points that has this decomposition, part by part.
fn expand(nfkd: &[char], spellings: &HashMap<char, Vec<char>>, prefix: &mut Vec<char>, f: &mut impl FnMut(&[char])) {
    let Some((first, rest)) = nfkd.split_first() else { return f(prefix) };
    for &spelling in spellings.get(first).map_or(std::slice::from_ref(first), Vec::as_slice) {
        prefix.push(spelling);
        expand(rest, spellings, prefix, f);
        prefix.pop();
    }
}

/// Leaves out sequences that shorter rules normalise to the same text.
fn without_redundant(mut kept: Rules, sequences: Rules) -> Rules {
    let longest = sequences.keys().map(Vec::len).max().unwrap_or(0);
    for len in 2..=longest {
        let needed: Vec<_> = sequences
            .iter()
            .filter(|(key, value)| key.len() == len && normalize(&kept, key, len - 1) != **value)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        kept.extend(needed);
    }
    kept
}

/// Longest match first, as the normaliser does it.
fn normalize(rules: &Rules, text: &[char], longest: usize) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        let matched = (1..=longest.min(text.len() - at))
            .rev()
            .find_map(|len| rules.get(&text[at..at + len]).map(|value| (len, value)));
        match matched {
            Some((len, value)) => {
                out.push_str(value);
                at += len;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// A set of transitions: (byte, child); byte 0 with the text's offset ends a key. Equal sets are one node.
type Node = Vec<(u8, u32)>;

fn compile(rules: &Rules) -> Vec<u8> {
    let mut texts: Vec<u8> = Vec::new();
    let mut offsets: HashMap<&str, u32> = HashMap::new();
    let mut keys: Vec<(Vec<u8>, u32)> = Vec::with_capacity(rules.len());
    // In order, so that the bytes are the same on every run.
    for (key, value) in rules.iter().collect::<BTreeMap<_, _>>() {
        let offset = *offsets.entry(value).or_insert_with(|| {
            let offset = texts.len() as u32;
            texts.extend_from_slice(value.as_bytes());
            texts.push(0);
            offset
        });
        keys.push((key.iter().collect::<String>().into_bytes(), offset));
    }
    keys.sort();
    let mut nodes: Vec<Node> = Vec::new();
    let root = minimize(&keys, 0, &mut nodes, &mut HashMap::new());
    let units = place(&nodes, root);
    let mut out = ((units.len() * 4) as u32).to_le_bytes().to_vec();
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    out.extend(texts);
    out
}

/// The node of all keys from `depth` on; `known` makes equal sub-automata one.
fn minimize(keys: &[(Vec<u8>, u32)], depth: usize, nodes: &mut Vec<Node>, known: &mut HashMap<Node, u32>) -> u32 {
    let mut node = Node::new();
    let mut rest = keys;
    while let Some((key, offset)) = rest.first() {
        match key.get(depth) {
            None => {
                node.push((0, *offset));
                rest = &rest[1..];
            }
            Some(&byte) => {
                let end = rest.partition_point(|(key, _)| key[depth] == byte);
                node.push((byte, minimize(&rest[..end], depth + 1, nodes, known)));
                rest = &rest[end..];
            }
        }
    }
    *known.entry(node.clone()).or_insert_with(|| {
        nodes.push(node);
        nodes.len() as u32 - 1
    })
}

/// Lays the nodes into units. A node has a base; its child by byte `c` is the unit at `base ^ c`.
fn place(nodes: &[Node], root: u32) -> Vec<u32> {
    let mut units: Vec<u32> = vec![0];
    let mut taken: Vec<bool> = vec![true];
    let mut base_used: Vec<bool> = vec![true];
    let mut bases: Vec<Option<usize>> = vec![None; nodes.len()];
    // The largest nodes first: small ones fill the gaps.
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(nodes[n].len()));
    let mut first_free = 1;
    for n in order {
        let node = &nodes[n];
        while taken.get(first_free).copied().unwrap_or(false) {
            first_free += 1;
        }
        let mut slot = first_free;
        let base = loop {
            let base = slot ^ usize::from(node[0].0);
            let free = |at: usize| !taken.get(at).copied().unwrap_or(false);
            // An offset must not be 0 nor too wide for 21 bits; base 0 would be the root's own unit.
            let unused = !base_used.get(base).copied().unwrap_or(false);
            if base != 0 && free(slot) && unused && node.iter().all(|&(byte, _)| free(base ^ usize::from(byte))) {
                break base;
            }
            slot += 1;
        };
        bases[n] = Some(base);
        let end = (base | 0xFF) + 1;
        if units.len() < end {
            units.resize(end, 0);
            taken.resize(end, false);
            base_used.resize(end, false);
        }
        base_used[base] = true;
        node.iter().for_each(|&(byte, _)| taken[base ^ usize::from(byte)] = true);
    }
    let base_of = |n: u32| bases[n as usize].unwrap_or(0);
    let link = |at: usize, n: u32| {
        let offset = (at ^ base_of(n)) as u32;
        let leaf = u32::from(nodes[n as usize].first().is_some_and(|&(byte, _)| byte == 0));
        assert!(offset < 1 << 21, "the character map has more units than a link can span");
        offset << 10 | leaf << 8
    };
    units[0] = link(0, root);
    for (n, node) in nodes.iter().enumerate() {
        for &(byte, child) in node {
            let at = base_of(n as u32) ^ usize::from(byte);
            units[at] = if byte == 0 { child | 1 << 31 } else { link(at, child) | u32::from(byte) };
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use tokenizers::{NormalizedString, Normalizer, normalizers::Precompiled};

    use super::*;

    /// Every key and its text, read back from a compiled map.
    fn decompile(bytes: &[u8]) -> BTreeMap<String, String> {
        let size = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let units: Vec<u32> =
            bytes[4..4 + size].chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        let texts = &bytes[4 + size..];
        let mut out = BTreeMap::new();
        let base = |unit: u32| ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize;
        let mut stack = vec![(base(units[0]), Vec::new())];
        while let Some((at, key)) = stack.pop() {
            for byte in 1..=255u8 {
                let Some(&unit) = units.get(at ^ usize::from(byte)) else { continue };
                if unit & (1 << 31 | 0xFF) != u32::from(byte) {
                    continue;
                }
                let mut key: Vec<u8> = key.clone();
                key.push(byte);
                let next = (at ^ usize::from(byte)) ^ base(unit);
                if unit >> 8 & 1 == 1 {
                    let text = &texts[(units[next] & 0x7FFF_FFFF) as usize..];
                    let end = text.iter().position(|&b| b == 0).unwrap();
                    out.insert(
                        String::from_utf8(key.clone()).unwrap(),
                        String::from_utf8(text[..end].to_vec()).unwrap(),
                    );
                }
                stack.push((next, key));
            }
        }
        out
    }

    #[test]
    fn compiling_keeps_every_rule() {
        let rules = rules();
        let compiled = compile(&rules);
        let expected: BTreeMap<String, String> =
            rules.iter().map(|(key, value)| (key.iter().collect(), value.clone())).collect();
        assert!(decompile(&compiled) == expected);
        // The reference's has 237,561 bytes.
        assert!(compiled.len() < 300_000, "{}", compiled.len());
    }

    #[test]
    fn normalises_as_nmt_nfkc() {
        let map = Precompiled::from(nmt_nfkc()).unwrap();
        let normal = |text: &str| {
            let mut text = NormalizedString::from(text);
            map.normalize(&mut text).unwrap();
            text.get().to_string()
        };
        assert_eq!(normal("ﬁne １２３ ①"), "fine 123 1");
        assert_eq!(normal("a\tb\u{200B}c\u{7}d"), "a b cd");
        assert_eq!(normal("e\u{301}"), "é");
        assert_eq!(normal("ｶ"), "カ");
        assert_eq!(normal("plain – “text” ü"), "plain – “text” ü");
    }

    #[test]
    fn equals_the_published_map_up_to_newer_unicode() {
        let Some(file) = crate::testing::shared("models/t5-tokenizer/tokenizer.json") else { return };
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let charsmap = &json["normalizer"]["precompiled_charsmap"];
        let text = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
        let bytes = crate::testing::base64(text["precompiled_charsmap"].as_str().unwrap());
        let (published, ours) = (decompile(&bytes), decompile(nmt_nfkc()));
        // Nothing that the published map knows is missing or different.
        let lost: Vec<_> = published.iter().filter(|(key, value)| ours.get(*key) != Some(value)).collect();
        assert!(lost.is_empty(), "{} of {}: {:?}", lost.len(), published.len(), &lost[..lost.len().min(20)]);
        let new: Vec<_> = ours.keys().filter(|key| !published.contains_key(*key)).collect();
        println!(
            "{} rules published, {} more of newer Unicode: {:?}",
            published.len(),
            new.len(),
            &new[..new.len().min(20)]
        );
        assert!(new.len() < 1000, "{}", new.len());
    }
}
