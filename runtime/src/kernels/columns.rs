//! Columns of a result, which threads share.

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::{LANES, Simd};

/// Some columns of rows `[m, n]` that a kernel writes. Threads write different columns of the same rows.
pub(crate) struct Columns<'a> {
    start: *mut f32,
    m: usize,
    n: usize,
    columns: Range<usize>,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: a value stands for the exclusive right to write its columns, as a mutable slice would if they lay together.
unsafe impl Send for Columns<'_> {}
// SAFETY: a shared reference gives access to nothing but `part`, whose caller vouches for what it does.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All columns of `y`, rows of `n`.
    #[inline(always)]
    pub(crate) fn new(y: &'a mut [f32], n: usize) -> Columns<'a> {
        Columns { start: y.as_mut_ptr(), m: y.len() / n.max(1), n, columns: 0..n, of: PhantomData }
    }

    /// Some of these columns.
    ///
    /// # Safety
    /// No two parts that are used at once may have a column in common, and the whole must not be written meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, columns: Range<usize>) -> Columns<'a> {
        assert!(self.columns.start <= columns.start && columns.end <= self.columns.end, "a part of these columns");
        Columns { start: self.start, m: self.m, n: self.n, columns, of: PhantomData }
    }

    /// How many rows they have.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.m
    }

    /// The first of these columns.
    #[inline(always)]
    pub(crate) fn first(&self) -> usize {
        self.columns.start
    }

    /// The groups of 16 that these columns are, if they begin with one.
    #[inline(always)]
    pub(crate) fn groups(&self) -> Range<usize> {
        self.columns.start / LANES..self.columns.end.div_ceil(LANES)
    }

    /// Writes a group's vector from `column` on; the last group may cover fewer than 16 columns.
    #[inline(always)]
    pub(crate) fn store<V: Simd>(&mut self, v: V, value: V::F, row: usize, column: usize) {
        assert!(row < self.m && self.columns.contains(&column), "a place among these columns");
        let width = LANES.min(self.columns.end - column);
        // SAFETY: the place is inside the rows, and no one else writes or reads these columns.
        let out = unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.n + column), width) };
        match out.first_chunk_mut::<LANES>() {
            Some(out) => v.store(value, out),
            None => {
                let mut lanes = [0.0; LANES];
                v.store(value, &mut lanes);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }
}
