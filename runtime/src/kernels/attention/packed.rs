//! Keys and values laid out for many queries, in floats or in integers.

use super::floats::{self, FloatHead, FloatScratch};
use super::integers::{self, IntegerHead, IntegerScratch, Sizes};
use super::{HeadAlignment, HeadKeyValues, HeadRows, Heads};
use crate::error::Result;
use crate::kernels::dot::Pairs;
use crate::kernels::isa::Kernels;
use crate::kernels::memory::Buffer;
use crate::kernels::simd::LANES;
use crate::kernels::sizes::product;

/// The numbers in which queries meet keys, and weights meet values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// f32.
    #[default]
    Floats,
    /// 16-bit integers with scales, for models whose products are of integers anyway: half the memory and half the
    /// instructions. Heads wider than 128 values, or of an odd number of them, use floats all the same.
    Integers,
}

impl Numbers {
    fn of(self, width: usize) -> Numbers {
        if integers::possible(width) { self } else { Numbers::Floats }
    }
}

/// Keys and values of one head.
#[derive(Clone, Copy)]
pub(crate) enum PackedHead<'a> {
    Floats(FloatHead<'a>),
    Integers(IntegerHead<'a>),
}

/// Memory of packed heads, `[runs]` of one length and width each.
#[derive(Default)]
struct Packed {
    /// Each of [`FloatHead::size`].
    floats: Buffer<[f32; LANES]>,
    /// Each of [`Sizes`].
    pairs: Buffer<Pairs>,
    scales: Buffer<[f32; LANES]>,
}

impl Packed {
    /// Makes room for this many runs; where there was less, what was there is lost.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    fn reserve(&mut self, numbers: Numbers, runs: usize, len: usize, width: usize) -> Result<()> {
        match numbers.of(width) {
            Numbers::Floats => self.floats.reserve(product([runs, FloatHead::size(len, width)])),
            Numbers::Integers => {
                let sizes = Sizes::of(len, width);
                self.pairs.reserve(product([runs, sizes.pairs]))?;
                self.scales.reserve(product([runs, sizes.scales]))
            }
        }
    }

    /// Lays out a head as this run, for which there is room.
    fn pack(&mut self, kernels: Kernels, numbers: Numbers, run: usize, head: HeadKeyValues<'_>) {
        match numbers.of(head.width) {
            Numbers::Floats => {
                let size = FloatHead::size(head.len, head.width);
                FloatHead::pack(&mut self.floats.part((run + 1) * size)[run * size..], head);
            }
            Numbers::Integers => {
                let sizes = Sizes::of(head.len, head.width);
                let pairs = &mut self.pairs.part((run + 1) * sizes.pairs)[run * sizes.pairs..];
                let scales = &mut self.scales.part((run + 1) * sizes.scales)[run * sizes.scales..];
                integers::pack(kernels, pairs, scales, head);
            }
        }
    }

    fn head(&self, numbers: Numbers, run: usize, len: usize, width: usize) -> PackedHead<'_> {
        match numbers.of(width) {
            Numbers::Floats => {
                let size = FloatHead::size(len, width);
                let packed = &self.floats.values()[run * size..(run + 1) * size];
                PackedHead::Floats(FloatHead::new(packed, len, width))
            }
            Numbers::Integers => {
                let sizes = Sizes::of(len, width);
                let pairs = &self.pairs.values()[run * sizes.pairs..(run + 1) * sizes.pairs];
                let scales = &self.scales.values()[run * sizes.scales..(run + 1) * sizes.scales];
                PackedHead::Integers(IntegerHead::new(pairs, scales, len, width))
            }
        }
    }
}

/// Memory that one head after the other is laid out in, and what attending to it needs.
#[derive(Default)]
pub(crate) struct HeadMemory {
    packed: Packed,
    pub(crate) scratch: HeadScratch,
}

#[derive(Default)]
pub(crate) struct HeadScratch {
    floats: FloatScratch,
    integers: IntegerScratch,
}

impl HeadMemory {
    /// Makes room for heads of this size; where there was less, what was there is lost.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough.
    pub(crate) fn reserve(&mut self, numbers: Numbers, len: usize, width: usize) -> Result<()> {
        self.packed.reserve(numbers, 1, len, width)
    }

    /// Lays out a head, for which there is room.
    pub(crate) fn pack(
        &mut self,
        kernels: Kernels,
        numbers: Numbers,
        head: HeadKeyValues<'_>,
    ) -> (PackedHead<'_>, &mut HeadScratch) {
        self.packed.pack(kernels, numbers, 0, head);
        (self.packed.head(numbers, 0, head.len, head.width), &mut self.scratch)
    }
}

impl PackedHead<'_> {
    /// `out = softmax(q K^T + bias) V` for the queries of one head. `bias` is the first query's over keys 0, 1, …; each
    /// following query's begins one value earlier.
    pub(crate) fn attend(
        self,
        kernels: Kernels,
        rows: &mut HeadRows<'_>,
        bias: Option<(&[f32], usize)>,
        alignment: Option<&mut HeadAlignment<'_>>,
        scratch: &mut HeadScratch,
    ) {
        match self {
            PackedHead::Floats(head) => {
                floats::attend_head(kernels, rows, head, bias, alignment, &mut scratch.floats);
            }
            PackedHead::Integers(head) => {
                integers::attend_head(kernels, rows, head, bias, alignment, &mut scratch.integers);
            }
        }
    }
}

/// Keys and values of a source text for the cross-attention of every block, computed once and read at every step.
#[derive(Default)]
pub struct PackedKeyValues {
    /// `[blocks][heads]`
    packed: Packed,
    numbers: Numbers,
    heads: Heads,
    len: usize,
    blocks: usize,
}

impl PackedKeyValues {
    /// Makes room for `blocks` blocks of a source of `len` positions; what was there is lost.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is not enough: no block can be packed then.
    ///
    /// # Panics
    /// If there are no positions or no heads, or heads have no values.
    pub fn begin(&mut self, numbers: Numbers, heads: Heads, len: usize, blocks: usize) -> Result<()> {
        assert!(len > 0 && heads.inner() > 0, "a source has at least one position");
        self.blocks = 0;
        self.packed.reserve(numbers, product([blocks, heads.count]), len, heads.width)?;
        (self.numbers, self.heads, self.len, self.blocks) = (numbers, heads, len, blocks);
        Ok(())
    }

    /// Takes over `keys` and `values` of a block, `[len, heads * width]` each.
    ///
    /// # Panics
    /// If they have another length, or [`PackedKeyValues::begin`] made no room for the block.
    pub fn pack(&mut self, kernels: Kernels, block: usize, keys: &[f32], values: &[f32]) {
        let run = self.run(block);
        let (len, width, inner) = (self.len, self.heads.width, self.heads.inner());
        assert!(
            keys.len() == values.len() && keys.len() == product([len, inner]),
            "expected keys and values of {len} positions, {inner} each"
        );
        for head in 0..self.heads.count {
            let first = head * width;
            let of_head = HeadKeyValues { keys: &keys[first..], values: &values[first..], stride: inner, len, width };
            self.packed.pack(kernels, self.numbers, run + head, of_head);
        }
    }

    /// The first run of a block.
    fn run(&self, block: usize) -> usize {
        assert!(block < self.blocks, "block {block} of {}: there is no room for it", self.blocks);
        block * self.heads.count
    }

    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// Positions.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn head(&self, block: usize, head: usize) -> PackedHead<'_> {
        self.packed.head(self.numbers, self.run(block) + head, self.len, self.heads.width)
    }
}
