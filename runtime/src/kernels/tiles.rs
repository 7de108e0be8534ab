//! Rows by tiles: as many as a kernel's registers hold sums for.

use std::ops::Range;

/// The tiles of rows `start..end`, as first row and number of rows: `most` at a time, the rest by powers of two. Few
/// sizes, because each is compiled for each kernel and instruction set.
#[derive(Clone)]
pub(crate) struct Tiles {
    start: usize,
    end: usize,
    most: usize,
}

impl Tiles {
    #[inline(always)]
    pub(crate) fn new(rows: Range<usize>, most: usize) -> Tiles {
        Tiles { start: rows.start, end: rows.end, most }
    }
}

impl Iterator for Tiles {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        let left = self.end - self.start;
        if left == 0 {
            return None;
        }
        let rows = if left >= self.most { self.most } else { 1 << left.ilog2() };
        self.start += rows;
        Some((self.start - rows, rows))
    }
}

/// Rows, a whole number of tiles, whose `row_bytes` each stay in the second-level cache beside the weights.
#[inline(always)]
pub(crate) fn rows_in_cache(row_bytes: usize, most: usize) -> usize {
    const CACHE: usize = 384 << 10;
    (CACHE / row_bytes.max(1) / most).max(1) * most
}

/// Calls `$f::<…, M>` with the run-time number of rows, at most `$most`, as `M`.
macro_rules! with_rows {
    ($rows:expr, $most:expr, $f:ident[$($infer:tt)*]($($arg:expr),*)) => {
        match $rows {
            1 => $f::<$($infer,)* 1>($($arg),*),
            2 if $most >= 2 => $f::<$($infer,)* 2>($($arg),*),
            3 if $most == 3 => $f::<$($infer,)* 3>($($arg),*),
            4 if $most >= 4 => $f::<$($infer,)* 4>($($arg),*),
            6 if $most == 6 => $f::<$($infer,)* 6>($($arg),*),
            8 if $most >= 8 => $f::<$($infer,)* 8>($($arg),*),
            12 if $most >= 12 => $f::<$($infer,)* 12>($($arg),*),
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(crate) use with_rows;
