//! Subword regularisation: pieces divided at random, so that a model sees words spelled in several ways.
//!
//! Kudo ("Subword Regularization", 2018) samples from all spellings of a text; here, as in BPE-dropout (Provilkov and
//! others, 2020), each piece of the best spelling is divided with a probability, which needs no text and no lattice.

use std::collections::HashMap;

use t5_runtime::tokenizer::{PieceKind, UnigramVocabulary};

use crate::random::Random;

/// The pieces that may be divided, by rising id: no sentinel and no token that a user defined, which have a score of 0.
pub(super) fn ordinary(vocabulary: &UnigramVocabulary) -> Vec<u32> {
    let pieces = (0..).zip(&vocabulary.pieces);
    pieces.filter(|(_, piece)| piece.kind == PieceKind::Normal && piece.score < 0.0).map(|(id, _)| id).collect()
}

/// The pairs of pieces that each piece can be divided into.
#[derive(Debug, Default)]
pub(super) struct Divisions {
    pairs: Vec<[u32; 2]>,
    /// Where the pairs of each id end.
    ends: Vec<u32>,
}

impl Divisions {
    /// Those of ordinary pieces, by rising id, into such.
    pub fn new<'a, I: Iterator<Item = (u32, &'a str)>>(ordinary: impl Fn() -> I) -> Divisions {
        let ids: HashMap<&str, u32> = ordinary().map(|(id, piece)| (piece, id)).collect();
        let mut divisions = Divisions::default();
        for (id, piece) in ordinary() {
            divisions.ends.resize(id as usize, divisions.pairs.len() as u32);
            let halves = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
            let known = halves.filter_map(|(a, b)| Some([*ids.get(a)?, *ids.get(b)?]));
            divisions.pairs.extend(known);
            divisions.ends.push(divisions.pairs.len() as u32);
        }
        divisions
    }

    fn of(&self, id: u32) -> &[[u32; 2]] {
        let end = |id: usize| self.ends.get(id).map_or(self.pairs.len(), |&end| end as usize);
        let id = id as usize;
        &self.pairs[if id == 0 { 0 } else { end(id - 1) }..end(id)]
    }

    /// Ids of the same text: each piece is divided with a probability where it can be, and its halves again.
    pub fn divide(&self, ids: &[u32], probability: f64, random: &mut Random) -> Vec<u32> {
        let mut divided = Vec::with_capacity(ids.len() + ids.len() / 4);
        // Pieces that are still to be looked at, the next one last.
        let mut ahead: Vec<u32> = ids.iter().rev().copied().collect();
        while let Some(id) = ahead.pop() {
            let pairs = self.of(id);
            match (!pairs.is_empty() && random.uniform() < probability).then(|| random.choose(pairs)).flatten() {
                Some(&[first, second]) => ahead.extend([second, first]),
                None => divided.push(id),
            }
        }
        divided
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use crate::{random::Random, vocabulary::Vocabulary};

    #[test]
    fn pieces_are_divided_at_random_and_the_text_stays() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf");
        let vocabulary = Vocabulary::read(&model).unwrap();
        let text = "translate English to German: The station was unbelievably <extra_id_0> yesterday.";
        let ids = vocabulary.encode(text);
        let divide = |probability, seed| vocabulary.divide(&ids, probability, &mut Random::new(seed));
        assert_eq!(divide(0.0, 1), ids);
        assert_eq!(divide(0.3, 7), divide(0.3, 7));
        let spellings: HashSet<Vec<u32>> = (0..100).map(|seed| divide(0.3, seed)).collect();
        assert!(spellings.len() > 50, "{}", spellings.len());
        let sentinel = vocabulary.sentinels().first;
        for spelling in &spellings {
            assert_eq!(vocabulary.decode(spelling), vocabulary.decode(&ids));
            assert_eq!(spelling[0], ids[0], "the prefix is one token");
            assert!(spelling.contains(&sentinel));
        }
        // Of 40,000 pieces that can be divided, 0.1 are: a standard deviation is 60 of them.
        let station = vocabulary.encode("station");
        assert_eq!(station.len(), 1);
        let many = station.repeat(40_000);
        let divided = vocabulary.divide(&many, 0.1, &mut Random::new(3));
        let whole = divided.iter().filter(|&&id| id == station[0]).count();
        assert!(whole.abs_diff(36_000) < 300, "{whole}");
        assert!(!Vocabulary::bytes(384).unwrap().can_divide());
    }
}
