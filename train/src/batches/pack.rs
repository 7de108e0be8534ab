//! Packing: which examples share a row.

use serde::{Deserialize, Serialize};

/// How rows are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Examples in order; a row ends with the first one that does not fit. The reference's way.
    Sequential,
    /// Each example goes into the first row with room. Denser.
    #[default]
    FirstFit,
}

/// Rows of example indices, given each example's (inputs, targets) lengths and the lengths of a row.
///
/// # Panics
/// Where an example is longer than a row.
pub fn pack_rows(lengths: &[(usize, usize)], enc_len: usize, dec_len: usize, packing: Packing) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Room left in each row; `open` is the first row that may still have some.
    let mut room: Vec<(usize, usize)> = Vec::new();
    let mut open = 0;
    let shortest =
        (lengths.iter().map(|l| l.0).min().unwrap_or(0).max(1), lengths.iter().map(|l| l.1).min().unwrap_or(0).max(1));
    for (i, &(enc, dec)) in lengths.iter().enumerate() {
        assert!(
            enc <= enc_len && dec <= dec_len,
            "example {i} ({enc}, {dec}) is longer than a row ({enc_len}, {dec_len})"
        );
        let fits = |room: &(usize, usize)| enc <= room.0 && dec <= room.1;
        let row = match packing {
            Packing::Sequential => room.len().checked_sub(1).filter(|&last| fits(&room[last])),
            Packing::FirstFit => {
                while open < room.len() && (room[open].0 < shortest.0 || room[open].1 < shortest.1) {
                    open += 1;
                }
                (open..room.len()).find(|&row| fits(&room[row]))
            }
        };
        let row = row.unwrap_or_else(|| {
            rows.push(Vec::new());
            room.push((enc_len, dec_len));
            rows.len() - 1
        });
        rows[row].push(i);
        room[row].0 -= enc;
        room[row].1 -= dec;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn sequential_closes_a_row_at_the_first_misfit_and_first_fit_looks_back() {
        let lengths = [(6, 2), (5, 2), (3, 2), (4, 2)];
        assert_eq!(pack_rows(&lengths, 10, 7, Packing::Sequential), [vec![0], vec![1, 2], vec![3]]);
        assert_eq!(pack_rows(&lengths, 10, 7, Packing::FirstFit), [vec![0, 2], vec![1, 3]]);
        // All features must fit.
        assert_eq!(pack_rows(&[(1, 5), (1, 5)], 10, 7, Packing::FirstFit), [vec![0], vec![1]]);
    }

    #[test]
    fn every_example_is_in_exactly_one_row_and_rows_fit() {
        let mut random = Random::new(8);
        let lengths: Vec<_> = (0..2000).map(|_| (random.between(1, 60), random.between(1, 50))).collect();
        for packing in [Packing::Sequential, Packing::FirstFit] {
            let rows = pack_rows(&lengths, 64, 50, packing);
            let mut seen = vec![0; lengths.len()];
            for row in &rows {
                assert!(row.iter().map(|&i| lengths[i].0).sum::<usize>() <= 64);
                assert!(row.iter().map(|&i| lengths[i].1).sum::<usize>() <= 50);
                row.iter().for_each(|&i| seen[i] += 1);
            }
            assert!(seen.iter().all(|&n| n == 1));
        }
        let count = |packing| pack_rows(&lengths, 64, 50, packing).len();
        assert!(count(Packing::FirstFit) < count(Packing::Sequential));
    }
}
