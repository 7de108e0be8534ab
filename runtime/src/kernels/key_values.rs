//! Keys and values laid out for many queries, in floats or in integers.

use super::attention::{self, Alignment, HeadKeyValues, HeadRows, HeadScratch, Heads};
use super::memory::Buffer;
use super::simd::{LANES, Pairs};
use super::{Kernels, integer_attention};

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
        if integer_attention::possible(width) { self } else { Numbers::Floats }
    }
}

/// Keys and values of one head.
#[derive(Clone, Copy)]
pub(crate) enum PackedHead<'a> {
    Floats(attention::PackedHead<'a>),
    Integers(integer_attention::PackedHead<'a>),
}

/// Memory of packed heads, `[runs]` of one length and width each.
#[derive(Default)]
struct Packed {
    /// Each of [`attention::PackedHead::size`].
    floats: Buffer<[f32; LANES]>,
    /// Each of [`integer_attention::Sizes`].
    pairs: Buffer<Pairs>,
    scales: Buffer<[f32; LANES]>,
}

impl Packed {
    /// Makes room for this many runs; where there was less, what was there is lost.
    fn reserve(&mut self, numbers: Numbers, runs: usize, len: usize, width: usize) {
        match numbers.of(width) {
            Numbers::Floats => {
                self.floats.part(runs * attention::PackedHead::size(len, width));
            }
            Numbers::Integers => {
                let sizes = integer_attention::Sizes::of(len, width);
                self.pairs.part(runs * sizes.pairs);
                self.scales.part(runs * sizes.scales);
            }
        }
    }

    /// Lays out a head as this run, for which there is room.
    fn pack(&mut self, kernels: Kernels, numbers: Numbers, run: usize, head: HeadKeyValues<'_>) {
        match numbers.of(head.width) {
            Numbers::Floats => {
                let size = attention::PackedHead::size(head.len, head.width);
                attention::PackedHead::pack(&mut self.floats.part((run + 1) * size)[run * size..], head);
            }
            Numbers::Integers => {
                let sizes = integer_attention::Sizes::of(head.len, head.width);
                let pairs = &mut self.pairs.part((run + 1) * sizes.pairs)[run * sizes.pairs..];
                let scales = &mut self.scales.part((run + 1) * sizes.scales)[run * sizes.scales..];
                integer_attention::pack(kernels, pairs, scales, head);
            }
        }
    }

    fn head(&self, numbers: Numbers, run: usize, len: usize, width: usize) -> PackedHead<'_> {
        match numbers.of(width) {
            Numbers::Floats => {
                let size = attention::PackedHead::size(len, width);
                let packed = &self.floats.values()[run * size..(run + 1) * size];
                PackedHead::Floats(attention::PackedHead::new(packed, len, width))
            }
            Numbers::Integers => {
                let sizes = integer_attention::Sizes::of(len, width);
                let pairs = &self.pairs.values()[run * sizes.pairs..(run + 1) * sizes.pairs];
                let scales = &self.scales.values()[run * sizes.scales..(run + 1) * sizes.scales];
                PackedHead::Integers(integer_attention::PackedHead::new(pairs, scales, len, width))
            }
        }
    }
}

/// Memory that one head after the other is laid out in, and what attending to it needs.
#[derive(Default)]
pub(crate) struct HeadMemory {
    packed: Packed,
    pub(crate) scratch: Scratch,
}

#[derive(Default)]
pub(crate) struct Scratch {
    floats: HeadScratch,
    integers: integer_attention::Scratch,
}

impl HeadMemory {
    /// Lays out a head.
    pub(crate) fn pack(
        &mut self,
        kernels: Kernels,
        numbers: Numbers,
        head: HeadKeyValues<'_>,
    ) -> (PackedHead<'_>, &mut Scratch) {
        self.packed.reserve(numbers, 1, head.len, head.width);
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
        alignment: Option<&mut Alignment<'_>>,
        scratch: &mut Scratch,
    ) {
        match self {
            PackedHead::Floats(head) => {
                attention::attend_head(kernels, rows, head, bias, alignment, &mut scratch.floats);
            }
            PackedHead::Integers(head) => {
                integer_attention::attend_head(kernels, rows, head, bias, alignment, &mut scratch.integers);
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
}

impl PackedKeyValues {
    /// Makes room for `blocks` blocks of a source of `len` positions; what was there is lost.
    pub fn begin(&mut self, numbers: Numbers, heads: Heads, len: usize, blocks: usize) {
        (self.numbers, self.heads, self.len) = (numbers, heads, len);
        self.packed.reserve(numbers, blocks * heads.count, len, heads.width);
    }

    /// Takes over `keys` and `values` of a block, `[len, heads * width]` each.
    pub fn pack(&mut self, kernels: Kernels, block: usize, keys: &[f32], values: &[f32]) {
        let (len, width, inner) = (self.len, self.heads.width, self.heads.inner());
        assert!(keys.len() == values.len() && keys.len() == len * inner, "keys and values are [len, inner]");
        for head in 0..self.heads.count {
            let first = (head * width).min(keys.len());
            let of_head = HeadKeyValues { keys: &keys[first..], values: &values[first..], stride: inner, len, width };
            self.packed.pack(kernels, self.numbers, block * self.heads.count + head, of_head);
        }
    }

    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// Positions.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn head(&self, block: usize, head: usize) -> PackedHead<'_> {
        self.packed.head(self.numbers, block * self.heads.count + head, self.len, self.heads.width)
    }
}
