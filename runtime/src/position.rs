//! Relative position: buckets of distances and the bias that attention adds to its scores.

use std::sync::Arc;

use crate::config::{OneStack, T5Config};
use crate::error::Result;
use crate::kernels::BiasRow;
use crate::schema::Stack;
use crate::tensor::Tensor;

/// Which distances a stack can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Encoder, and a prefix language model: keys on both sides; half the buckets for each.
    Bidirectional,
    /// Decoder: keys up to the query; all buckets for the past.
    Causal,
}

impl From<Stack> for Direction {
    fn from(stack: Stack) -> Direction {
        match stack {
            Stack::Encoder => Direction::Bidirectional,
            Stack::Decoder => Direction::Causal,
        }
    }
}

/// Distances to buckets, as a table of the first distance of each bucket: no logarithm at run time, so no
/// platform's `ln` can move a boundary (docs/t5.md 1.2).
#[derive(Clone, Debug)]
pub struct Buckets {
    direction: Direction,
    /// `first[b]` is the smallest distance in bucket `b` of one side.
    first: Vec<usize>,
}

impl Buckets {
    /// The table for `buckets` in all and distances up to `max_distance`, beyond which all share the last bucket.
    pub fn new(direction: Direction, buckets: usize, max_distance: usize) -> Buckets {
        let side = match direction {
            Direction::Bidirectional => buckets / 2,
            Direction::Causal => buckets,
        };
        let exact = side / 2;
        let bucket = |distance: usize| {
            if distance < exact {
                return distance;
            }
            let position = (distance as f64 / exact as f64).ln() / (max_distance as f64 / exact as f64).ln();
            // The nudge keeps distances that lie exactly on a boundary (16, 32, 64 of 128) inside the bucket they
            // open, whatever the last bit of the quotient is.
            (exact + (position * (side - exact) as f64 + 1e-9) as usize).min(side - 1)
        };
        // Buckets never fall as distances grow, so each begins where halving an interval leads: walking over all
        // distances would take minutes where a file names 2^30. The logarithms of neighbouring distances differ by far
        // more than their rounding errors up to there.
        let mut first = vec![0];
        while first.len() < side {
            let (mut below, mut begins) = (first[first.len() - 1], max_distance);
            if below >= max_distance || bucket(max_distance) < first.len() {
                break;
            }
            while begins - below > 1 {
                let middle = below + (begins - below) / 2;
                if bucket(middle) < first.len() { below = middle } else { begins = middle }
            }
            // With few distances and many buckets some buckets stay empty: they begin where the next one does.
            first.resize((bucket(begins) + 1).min(side), begins);
        }
        Buckets { direction, first }
    }

    /// The table of a stack of this model.
    pub fn of_stack(config: &T5Config, stack: Stack) -> Buckets {
        let direction = match config.one_stack() {
            Some(OneStack::Prefix) => Direction::Bidirectional,
            _ => stack.into(),
        };
        let (count, max_distance) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        Buckets::new(direction, count, max_distance)
    }

    /// The bucket of a key at `key` for a query at `query` (positions).
    pub fn of(&self, query: usize, key: usize) -> usize {
        let past = |distance: usize| self.first.partition_point(|&first| first <= distance) - 1;
        match self.direction {
            Direction::Causal => past(query.saturating_sub(key)),
            Direction::Bidirectional if key > query => self.side() + past(key - query),
            Direction::Bidirectional => past(query - key),
        }
    }

    fn side(&self) -> usize {
        self.first.len()
    }
}

/// The bias of one table, laid out so that a query's biases over successive keys are one slice.
#[derive(Clone, Debug)]
pub(crate) struct PositionBias {
    /// Of the stack.
    buckets: Arc<Buckets>,
    num_heads: usize,
    /// `[buckets, num_heads]`, the checkpoint's table.
    table: Vec<f32>,
    /// `[num_heads, span]`: the bias of `key - query = i - (length - 1)`.
    by_offset: Vec<f32>,
    length: usize,
}

impl PositionBias {
    /// Reads a table of a stack, `[buckets, num_heads]`, which has these buckets.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn new(buckets: Arc<Buckets>, tensor: &Tensor) -> Result<PositionBias> {
        let num_heads = tensor.columns();
        let mut table = vec![0.0; tensor.len()];
        for (row, out) in table.chunks_exact_mut(num_heads).enumerate() {
            tensor.decode(tensor.row_data(row), out);
        }
        if let Some(bad) = table.iter().find(|value| !value.is_finite()) {
            return Err(tensor.error(format!("expected finite values, found {bad}")));
        }
        Ok(PositionBias { buckets, num_heads, table, by_offset: Vec::new(), length: 0 })
    }

    /// Lays the biases out for positions below `length`, unless they are. A model's tables are copied by each session,
    /// which prepares its own.
    pub fn prepare(&mut self, length: usize) {
        if length <= self.length {
            return;
        }
        // Doubling, so that a session meeting ever longer inputs rebuilds rarely.
        let length = length.max(2 * self.length).max(64);
        let span = match self.buckets.direction {
            Direction::Causal => length,
            Direction::Bidirectional => 2 * length - 1,
        };
        self.by_offset.clear();
        self.by_offset.resize(self.num_heads * span, 0.0);
        for i in 0..span {
            // A query at length - 1 sees key i at offset i - (length - 1).
            let bucket = self.buckets.of(length - 1, i);
            for head in 0..self.num_heads {
                self.by_offset[head * span + i] = self.table[bucket * self.num_heads + head];
            }
        }
        self.length = length;
    }

    /// The biases of the query at `query`, for keys below the prepared length (causal: up to `query`).
    pub fn row(&self, query: usize) -> BiasRow<'_> {
        debug_assert!(query < self.length);
        BiasRow {
            values: &self.by_offset,
            head_stride: self.by_offset.len() / self.num_heads,
            offset: self.length - 1 - query,
        }
    }
}

/// The bias tables of a stack: one that its blocks share, or one for each block (umT5).
#[derive(Clone)]
pub(crate) struct StackBias(Vec<PositionBias>);

impl StackBias {
    /// At least one table.
    pub fn new(tables: Vec<PositionBias>) -> StackBias {
        StackBias(tables)
    }

    /// As [`PositionBias::prepare`], for all of them.
    pub fn prepare(&mut self, length: usize) {
        self.0.iter_mut().for_each(|table| table.prepare(length));
    }

    /// What the scores of a block get.
    pub fn of_block(&self, block: usize) -> &PositionBias {
        &self.0[block.min(self.0.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of docs/t5.md 1.2 in float64, logarithm and all.
    fn reference(rel: i64, direction: Direction, buckets: usize, max_distance: usize) -> usize {
        let n = -rel;
        let (base, side, n) = match direction {
            Direction::Bidirectional => (if n < 0 { buckets / 2 } else { 0 }, buckets / 2, n.unsigned_abs() as usize),
            Direction::Causal => (0, buckets, n.max(0) as usize),
        };
        let exact = side / 2;
        if n < exact {
            return base + n;
        }
        let v = (n as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln() * (side - exact) as f32;
        base + (exact + v as usize).min(side - 1)
    }

    #[test]
    fn first_distances_are_those_of_the_specification() {
        let causal = Buckets::new(Direction::Causal, 32, 128);
        let expected: Vec<usize> =
            (0..=16).chain([19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]).collect();
        assert_eq!(causal.first, expected);
        let both = Buckets::new(Direction::Bidirectional, 32, 128);
        let expected: Vec<usize> = (0..=8).chain([12, 16, 23, 32, 46, 64, 91]).collect();
        assert_eq!(both.first, expected);
        assert_eq!(Buckets::new(Direction::Bidirectional, 8, 128).first, [0, 1, 2, 16]);
        assert_eq!(Buckets::new(Direction::Causal, 8, 128).first, [0, 1, 2, 3, 4, 10, 23, 54]);
    }

    #[test]
    fn agrees_with_the_formula_at_every_distance() {
        for direction in [Direction::Bidirectional, Direction::Causal] {
            for (buckets, max) in [(32, 128), (8, 128), (8, 20), (64, 256), (4, 5)] {
                let table = Buckets::new(direction, buckets, max);
                for key in 0..3001 {
                    let expected = reference(key as i64 - 1500, direction, buckets, max);
                    let found = table.of(1500, key);
                    assert_eq!(found, expected, "{direction:?} {buckets} {max} {}", key as i64 - 1500);
                }
            }
        }
    }

    /// The first distance of each bucket, found by walking over all of them.
    fn walked(direction: Direction, buckets: usize, max_distance: usize) -> Vec<usize> {
        let side = if direction == Direction::Causal { buckets } else { buckets / 2 };
        let exact = side / 2;
        let bucket = |distance: usize| {
            if distance < exact {
                return distance;
            }
            let position = (distance as f64 / exact as f64).ln() / (max_distance as f64 / exact as f64).ln();
            (exact + (position * (side - exact) as f64 + 1e-9) as usize).min(side - 1)
        };
        let mut first = vec![0];
        for distance in 1..=max_distance {
            while first.len() < side && first.len() <= bucket(distance) {
                first.push(distance);
            }
        }
        first
    }

    #[test]
    fn boundaries_are_those_of_a_walk_over_all_distances() {
        for direction in [Direction::Bidirectional, Direction::Causal] {
            for buckets in (0..70).chain([126, 127, 128, 254, 512, 1000, 4096]) {
                for max in (0..150).step_by(3).chain([1, 128, 256, 1000, 4097, 30_000]) {
                    let found = Buckets::new(direction, buckets, max).first;
                    assert_eq!(found, walked(direction, buckets, max), "{direction:?} {buckets} {max}");
                }
            }
        }
    }

    /// A walk would take half a minute.
    #[test]
    fn far_distances_cost_no_time() {
        let begin = std::time::Instant::now();
        let table = Buckets::new(Direction::Causal, 4096, 1 << 30);
        assert!(begin.elapsed().as_secs_f32() < 1.0, "{:?}", begin.elapsed());
        assert_eq!((table.side(), table.of(1 << 30, 0)), (4096, 4095));
        // The logarithmic half runs from 2^11 to 2^30 in 2^11 buckets.
        for bucket in [2049, 3000, 4095] {
            let expected = 2f64.powf(11.0 + 19.0 * (bucket - 2048) as f64 / 2048.0);
            assert_eq!(table.first[bucket], expected.ceil() as usize, "bucket {bucket}");
        }
    }

    #[test]
    fn worked_matrix() {
        let both = Buckets::new(Direction::Bidirectional, 32, 128);
        let causal = Buckets::new(Direction::Causal, 32, 128);
        let matrix = |table: &Buckets| (0..3).map(|q| [table.of(q, 0), table.of(q, 1)]).collect::<Vec<_>>();
        assert_eq!(matrix(&both), [[0, 17], [1, 0], [2, 1]]);
        assert_eq!(matrix(&causal), [[0, 0], [1, 0], [2, 1]]);
    }
}
