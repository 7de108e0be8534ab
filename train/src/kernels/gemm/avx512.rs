//! Blocked products for AVX-512, in f32 or with operands rounded to bfloat16 and f32 sums (AVX512_BF16), which
//! doubles the multiplications per instruction.
//!
//! `out[m, n] = a[m, k] b[k, n]`:
//! ```text
//! pack all of b into panels of 64 columns, each [k, 64]
//! for each block of 192 rows of a                     one task per block
//!     lay the block out for broadcasts (f32 rows are used as they lie)
//!     for each panel of b, for each 256 of k          the panel's part stays in the cache
//!         for each 6 rows of the block
//!             24 registers of sums: 6 rows x 4 x 16 columns; per k 4 loads, 6 broadcasts, 24 multiply-adds
//! ```
//! Each output is summed over k in order, in runs of 256, whatever the number of threads. A bfloat16 element of
//! either layout is a pair of values of successive k in 32 bits, as the instruction wants it. Where the machine has
//! AMX, whole blocks of bfloat16 products are computed on tiles (see [`super::amx`]), from the same panels.

use std::arch::x86_64::*;
use std::cell::RefCell;

use rayon::prelude::*;

use super::amx::{self, SIDE};
use super::view::{Mat, MatMut, Precision, Product};

/// Columns of a panel of `b`.
const PANEL: usize = 64;
/// Rows of one register block.
const ROWS: usize = 6;
/// Rows of `a` that one task works on.
const BLOCK: usize = 192;
/// 32-bit elements along k that are summed in registers before the output is touched.
const DEPTH: usize = 256;

/// Elements from which on packing is worth several threads.
const LARGE: usize = 1 << 15;

/// Whether the machine has what products of a precision need.
pub fn available(precision: Precision) -> bool {
    let f32 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    match precision {
        Precision::F32 => f32,
        Precision::Bf16 => f32 && is_x86_feature_detected!("avx512bf16"),
    }
}

/// The right operand, laid out for the kernels.
pub struct Panels {
    /// `[panels, depth, 64]`, zero beyond the matrix.
    data: Vec<u32>,
    precision: Precision,
    /// What computes 32 x 32 outputs at once, where something does.
    tiles: Option<Tiles>,
    k: usize,
    n: usize,
    /// 32-bit elements along k; tiles want whole steps, the rest is zero.
    depth: usize,
}

/// [`amx::tiles`], or what stands for it in tests.
type Tiles = unsafe fn(*const u32, usize, *const u32, usize, usize, &mut [f32; SIDE * SIDE]);

/// Fewer rows than this leave tiles mostly empty.
const ROWS_FOR_TILES: usize = 16;

thread_local! {
    /// Memory of panels, kept between products.
    static SPARE: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
    /// Memory of a block of `a`.
    static LEFT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Panels {
    /// Packs a matrix `[k, n]`.
    ///
    /// # Panics
    /// If the machine lacks what [`available`] asks for.
    pub fn new(b: Mat, precision: Precision) -> Panels {
        let tiles = (precision == Precision::Bf16 && amx::available()).then_some(amx::tiles as Tiles);
        Panels::with_tiles(b, precision, tiles)
    }

    fn with_tiles(b: Mat, precision: Precision, tiles: Option<Tiles>) -> Panels {
        assert!(available(precision), "no AVX-512 for {precision:?}");
        let (k, n) = (b.rows, b.columns);
        let depth = match precision {
            Precision::F32 => k,
            Precision::Bf16 if tiles.is_some() => k.div_ceil(2).next_multiple_of(amx::STEP),
            Precision::Bf16 => k.div_ceil(2),
        };
        let mut data = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        data.resize(n.div_ceil(PANEL) * depth * PANEL, 0);
        let pack = |(panel, out): (usize, &mut [u32])| {
            let first = panel * PANEL;
            let columns = PANEL.min(n - first);
            // SAFETY: the features were checked above; the views were checked when they were made.
            unsafe { pack_panel(b, first, columns, precision, out) }
        };
        let size = (depth * PANEL).max(1);
        if data.len() < LARGE || rayon::current_num_threads() == 1 {
            data.chunks_mut(size).enumerate().for_each(pack);
        } else {
            data.par_chunks_mut(size).enumerate().for_each(pack);
        }
        Panels { data, precision, tiles, k, n, depth }
    }

    /// `out = a b` or `out += a b`.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn multiply(&self, out: MatMut, product: Product, a: Mat) {
        assert!(a.columns == self.k && out.rows == a.rows && out.columns == self.n, "shapes do not agree");
        if out.rows == 0 || out.columns == 0 {
            return;
        }
        let stride = out.stride;
        let work = |(block, out): (usize, &mut [f32])| {
            let first = block * BLOCK;
            let rows = BLOCK.min(a.rows - first);
            LEFT.with_borrow_mut(|left| {
                // SAFETY: `Panels::new` checked the features. `out` holds rows `first..first + rows` of the output:
                // `MatMut` was checked to hold all of them, the last one possibly without its gap.
                unsafe {
                    match self.tiles {
                        Some(tiles) if rows >= ROWS_FOR_TILES && self.depth > 0 => {
                            self.block_on_tiles(tiles, out, stride, product, a, first, rows, left);
                        }
                        _ => self.block(out, stride, product, a, first, rows, left),
                    }
                }
            });
        };
        // Small products are not worth a task.
        if a.rows <= BLOCK || rayon::current_num_threads() == 1 {
            out.data.chunks_mut(BLOCK * stride).take(a.rows.div_ceil(BLOCK)).enumerate().for_each(work);
        } else {
            out.data.par_chunks_mut(BLOCK * stride).take(a.rows.div_ceil(BLOCK)).enumerate().for_each(work);
        }
    }

    #[allow(clippy::too_many_arguments)] // a block of the result, where its operands begin, and scratch
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn block(
        &self,
        out: &mut [f32],
        stride: usize,
        product: Product,
        a: Mat,
        first: usize,
        rows: usize,
        left: &mut Vec<u32>,
    ) {
        let depth = self.depth;
        // Strides of the broadcasts, in 32-bit elements.
        let (left, row_stride, k_stride): (*const u32, usize, usize) = match (self.precision, a.column_stride) {
            (Precision::F32, 1) => (a.data[first * a.row_stride..].as_ptr().cast(), a.row_stride, 1),
            (Precision::F32, _) => {
                left.resize(depth * rows, 0);
                for (p, out) in left.chunks_exact_mut(rows).enumerate() {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = a.at(first + i, p).to_bits();
                    }
                }
                (left.as_ptr(), 1, rows)
            }
            (Precision::Bf16, 1) => {
                // SAFETY: bfloat16 was checked by `Panels::new`.
                unsafe { self.left_rows(a, first, rows, rows, left) };
                (left.as_ptr(), depth, 1)
            }
            (Precision::Bf16, _) => {
                left.resize(depth * rows, 0);
                for (pair, out) in left.chunks_exact_mut(rows).enumerate() {
                    let row = |p: usize| if p < self.k { &a.data[p * a.column_stride + first..][..rows] } else { &[] };
                    let (even, odd) = (row(2 * pair), row(2 * pair + 1));
                    if even.is_empty() {
                        out.fill(0);
                        continue;
                    }
                    // SAFETY: as above.
                    unsafe { pairs_of_rows(even, odd, out) };
                }
                (left.as_ptr(), 1, rows)
            }
        };
        for (panel, b) in self.data.chunks_exact((depth * PANEL).max(1)).enumerate() {
            let columns = PANEL.min(self.n - panel * PANEL);
            for from in (0..depth).step_by(DEPTH) {
                let count = DEPTH.min(depth - from);
                let add = product == Product::Add || from > 0;
                for i in (0..rows).step_by(ROWS) {
                    let height = ROWS.min(rows - i);
                    let tile = Tile {
                        count,
                        left: left.wrapping_add(i * row_stride + from * k_stride),
                        row_stride,
                        k_stride,
                        right: b[from * PANEL..].as_ptr(),
                        out: out[i * stride + panel * PANEL..].as_mut_ptr(),
                        stride,
                        columns,
                        add,
                    };
                    // SAFETY: `left` holds rows i..i + height at every k, `b` holds `count` rows of 64 from `from`
                    // on, and `out` holds `columns` values of `height` rows from row i on.
                    unsafe { tile.run(self.precision, height) };
                }
            }
        }
        if depth == 0 && product == Product::Set {
            (0..rows).for_each(|i| out[i * stride..i * stride + self.n].fill(0.0));
        }
    }

    /// As [`Panels::block`], 32 x 32 outputs at a time.
    #[allow(clippy::too_many_arguments)] // as `block`
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn block_on_tiles(
        &self,
        tiles: Tiles,
        out: &mut [f32],
        stride: usize,
        product: Product,
        a: Mat,
        first: usize,
        rows: usize,
        left: &mut Vec<u32>,
    ) {
        let depth = self.depth;
        // SAFETY: bfloat16 was checked by `Panels::new`.
        unsafe { self.left_rows(a, first, rows, rows.next_multiple_of(SIDE), left) };
        let mut sums = [0.0; SIDE * SIDE];
        for column in (0..self.n).step_by(SIDE) {
            let columns = SIDE.min(self.n - column);
            let panel = &self.data[column / PANEL * depth * PANEL..][..depth * PANEL];
            for from in (0..depth).step_by(DEPTH) {
                let count = DEPTH.min(depth - from);
                let add = product == Product::Add || from > 0;
                let right = &panel[from * PANEL + column % PANEL..];
                for i in (0..rows).step_by(SIDE) {
                    let below = &left[i * depth + from..];
                    // SAFETY: `left` has whole groups of 32 rows of `depth` pairs, `right` `count` rows of a panel of
                    // which 32 columns follow; `depth` and DEPTH are multiples of the step, so `count` is one.
                    unsafe { tiles(below.as_ptr(), depth, right.as_ptr(), PANEL, count, &mut sums) };
                    for (row, sums) in sums.chunks_exact(SIDE).take(rows - i).enumerate() {
                        let out = &mut out[(i + row) * stride + column..][..columns];
                        if add {
                            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                        } else {
                            out.copy_from_slice(&sums[..columns]);
                        }
                    }
                }
            }
        }
    }

    /// Rows of `a` as pairs `[padded, depth]`; rows beyond `rows` are zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn left_rows(&self, a: Mat, first: usize, rows: usize, padded: usize, left: &mut Vec<u32>) {
        let depth = self.depth;
        left.resize(depth * padded, 0);
        left[depth * rows..].fill(0);
        if a.column_stride == 1 {
            for (i, out) in left.chunks_exact_mut(depth.max(1)).take(rows).enumerate() {
                let start = (first + i) * a.row_stride;
                // SAFETY: the caller checked bfloat16.
                unsafe { pairs_of_row(&a.data[start..start + self.k], out) };
            }
            return;
        }
        // Columns lie together: 16 pairs of 16 rows at a time, transposed.
        for group in (0..rows).step_by(16) {
            let width = 16.min(rows - group);
            for from in (0..depth).step_by(16) {
                let mut lines = [_mm512_setzero_si512(); 16];
                for (i, line) in lines.iter_mut().enumerate() {
                    let row = |p: usize| match p < self.k {
                        true => &a.data[p * a.column_stride + first + group..][..width],
                        false => &[],
                    };
                    // SAFETY: the caller checked bfloat16.
                    *line = unsafe { interleaved(row(2 * (from + i)), row(2 * (from + i) + 1)) };
                }
                for (i, line) in transpose(lines).into_iter().take(width).enumerate() {
                    let out = &mut left[(group + i) * depth + from..][..16.min(depth - from)];
                    let mask = if out.len() == 16 { 0xffff } else { (1u16 << out.len()) - 1 };
                    // SAFETY: the mask keeps the store inside the slice.
                    unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask, line) };
                }
            }
        }
    }
}

impl Drop for Panels {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        SPARE.with_borrow_mut(|spare| {
            // Two are in use at a time; more would only hold memory.
            if spare.len() < 3 {
                spare.push(data);
            }
        });
    }
}

/// One register block.
struct Tile {
    count: usize,
    left: *const u32,
    row_stride: usize,
    k_stride: usize,
    right: *const u32,
    out: *mut f32,
    stride: usize,
    columns: usize,
    add: bool,
}

impl Tile {
    /// # Safety
    /// The pointers hold what [`Panels::block`] says, and the machine has what the precision needs.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn run(&self, precision: Precision, height: usize) {
        // SAFETY: passed on.
        unsafe {
            match (precision, height) {
                (Precision::F32, 6) => self.by_width::<6, false>(),
                (Precision::F32, 5) => self.by_width::<5, false>(),
                (Precision::F32, 4) => self.by_width::<4, false>(),
                (Precision::F32, 3) => self.by_width::<3, false>(),
                (Precision::F32, 2) => self.by_width::<2, false>(),
                (Precision::F32, _) => self.by_width::<1, false>(),
                (Precision::Bf16, 6) => self.by_width::<6, true>(),
                (Precision::Bf16, 5) => self.by_width::<5, true>(),
                (Precision::Bf16, 4) => self.by_width::<4, true>(),
                (Precision::Bf16, 3) => self.by_width::<3, true>(),
                (Precision::Bf16, 2) => self.by_width::<2, true>(),
                (Precision::Bf16, _) => self.by_width::<1, true>(),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn by_width<const HEIGHT: usize, const BF16: bool>(&self) {
        // SAFETY: passed on.
        unsafe {
            match (self.columns.div_ceil(16), BF16) {
                (4, false) => self.f32::<HEIGHT, 4>(),
                (3, false) => self.f32::<HEIGHT, 3>(),
                (2, false) => self.f32::<HEIGHT, 2>(),
                (_, false) => self.f32::<HEIGHT, 1>(),
                (4, true) => self.bf16::<HEIGHT, 4>(),
                (3, true) => self.bf16::<HEIGHT, 3>(),
                (2, true) => self.bf16::<HEIGHT, 2>(),
                (_, true) => self.bf16::<HEIGHT, 1>(),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn f32<const HEIGHT: usize, const WIDTH: usize>(&self) {
        let mut sums = [[_mm512_setzero_ps(); WIDTH]; HEIGHT];
        let (mut left, mut right) = (self.left, self.right);
        for _ in 0..self.count {
            // SAFETY: see `Tile::run`; the pointers stay inside until the last step.
            unsafe {
                let b: [__m512; WIDTH] = std::array::from_fn(|j| _mm512_loadu_ps(right.add(16 * j).cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(f32::from_bits(*left.add(i * self.row_stride)));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm512_fmadd_ps(a, b, *sum);
                    }
                }
            }
            left = left.wrapping_add(self.k_stride);
            right = right.wrapping_add(PANEL);
        }
        // SAFETY: see `Tile::run`.
        unsafe { self.store(sums) };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn bf16<const HEIGHT: usize, const WIDTH: usize>(&self) {
        let mut sums = [[_mm512_setzero_ps(); WIDTH]; HEIGHT];
        let (mut left, mut right) = (self.left, self.right);
        for _ in 0..self.count {
            // SAFETY: see `Tile::run`; the pointers stay inside until the last step.
            unsafe {
                let b: [__m512i; WIDTH] = std::array::from_fn(|j| _mm512_loadu_si512(right.add(16 * j).cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(*left.add(i * self.row_stride) as i32);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm512_dpbf16_ps(*sum, bf16(a), bf16(b));
                    }
                }
            }
            left = left.wrapping_add(self.k_stride);
            right = right.wrapping_add(PANEL);
        }
        // SAFETY: see `Tile::run`.
        unsafe { self.store(sums) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store<const HEIGHT: usize, const WIDTH: usize>(&self, sums: [[__m512; WIDTH]; HEIGHT]) {
        let last = self.columns - 16 * (WIDTH - 1);
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let mask: __mmask16 = if j + 1 < WIDTH { 0xffff } else { (0xffff_u32 >> (16 - last)) as u16 };
                // SAFETY: see `Tile::run`; the mask keeps the last vector inside the row.
                unsafe {
                    let out = self.out.add(i * self.stride + 16 * j);
                    let sum = if self.add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sum) } else { sum };
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
    }
}

/// Packs `columns` columns of `b` from `first` on into `out` `[depth, 64]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn pack_panel(b: Mat, first: usize, columns: usize, precision: Precision, out: &mut [u32]) {
    let depth = out.len() / PANEL;
    if b.column_stride == 1 {
        for (p, out) in out.chunks_exact_mut(PANEL).enumerate() {
            let row = |p: usize| &b.data[p * b.row_stride + first..][..columns];
            match precision {
                Precision::F32 => out.iter_mut().zip(row(p)).for_each(|(out, value)| *out = value.to_bits()),
                Precision::Bf16 if 2 * p >= b.rows => out.fill(0),
                Precision::Bf16 => {
                    let (even, odd) = (row(2 * p), if 2 * p + 1 < b.rows { row(2 * p + 1) } else { &[] });
                    // SAFETY: `Panels::new` checked the features.
                    unsafe { pairs_of_rows(even, odd, out) };
                }
            }
            out[columns..].fill(0);
        }
        return;
    }
    // Stored as [n, k]: 16 columns of b are 16 rows in memory, transposed 16 elements at a time.
    assert_eq!(b.row_stride, 1, "a matrix is contiguous along one side");
    let step = if precision == Precision::F32 { 16 } else { 32 };
    for group in (0..PANEL).step_by(16) {
        for (part, from) in (0..b.rows).step_by(step).enumerate() {
            let count = step.min(b.rows - from);
            let mut rows = [_mm512_setzero_si512(); 16];
            for (i, row) in rows.iter_mut().enumerate().take(columns.saturating_sub(group)) {
                let values = &b.data[(first + group + i) * b.column_stride + from..][..count];
                // SAFETY: the masks keep the loads inside `values`; `Panels::new` checked the features.
                unsafe {
                    *row = match precision {
                        Precision::F32 => _mm512_castps_si512(load(values)),
                        Precision::Bf16 => pairs(values),
                    };
                }
            }
            let rows = transpose(rows);
            for (row, p) in rows.into_iter().zip(16 * part..depth) {
                let out = &mut out[p * PANEL + group..][..16];
                // SAFETY: `out` holds 16 elements.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
            }
        }
    }
}

/// Up to 16 values, zeros after them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(values: &[f32]) -> __m512 {
    let mask = if values.len() >= 16 { 0xffff } else { (1u16 << values.len()) - 1 };
    // SAFETY: the mask keeps the load inside the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}

/// Up to 32 successive values as 16 pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs(values: &[f32]) -> __m512i {
    let (low, high) = values.split_at(values.len().min(16));
    // SAFETY: `load` stays inside its slice.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(load(high), load(low))) }
}

/// A row's values in pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_of_row(row: &[f32], out: &mut [u32]) {
    for (values, out) in row.chunks(32).zip(out.chunks_mut(16)) {
        let mask = if out.len() >= 16 { 0xffff } else { (1u16 << out.len()) - 1 };
        // SAFETY: the mask keeps the store inside the slice.
        unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask, pairs(values)) };
    }
}

/// Pairs of two rows' values, column by column; an empty second row counts as zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_of_rows(even: &[f32], odd: &[f32], out: &mut [u32]) {
    for (i, (even, out)) in even.chunks(16).zip(out.chunks_mut(16)).enumerate() {
        let odd = if odd.is_empty() { &[] } else { &odd[16 * i..][..even.len()] };
        let mask = if even.len() >= 16 { 0xffff } else { (1u16 << even.len()) - 1 };
        // SAFETY: the mask keeps the store inside the slice.
        unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask, interleaved(even, odd)) };
    }
}

/// Pairs of up to 16 values each; missing ones are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn interleaved(even: &[f32], odd: &[f32]) -> __m512i {
    // SAFETY: `load` stays inside its slice.
    unsafe {
        // Rounded halves: the even row's 16 in the low part, the odd row's in the high part; then interleaved.
        let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(load(odd), load(even)));
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(both));
        _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
    }
}

/// Transposes 16 x 16 elements of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // u[4i + j] holds, in its four quarters q, column 4q + j of rows 4i..4i + 4.
    let mut v = u;
    for j in 0..4 {
        let low = [_mm512_shuffle_i32x4::<0x88>(u[j], u[4 + j]), _mm512_shuffle_i32x4::<0xdd>(u[j], u[4 + j])];
        let high =
            [_mm512_shuffle_i32x4::<0x88>(u[8 + j], u[12 + j]), _mm512_shuffle_i32x4::<0xdd>(u[8 + j], u[12 + j])];
        v[j] = _mm512_shuffle_i32x4::<0x88>(low[0], high[0]);
        v[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low[0], high[0]);
        v[4 + j] = _mm512_shuffle_i32x4::<0x88>(low[1], high[1]);
        v[12 + j] = _mm512_shuffle_i32x4::<0xdd>(low[1], high[1]);
    }
    v
}

/// The same bits, seen as bf16 values.
#[inline(always)]
fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and every pattern is a value of either.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything of the way over tiles but the instruction itself, for which plain loops stand.
    #[test]
    fn blocks_on_tiles_are_those_of_the_other_kernel() {
        if !available(Precision::Bf16) {
            eprintln!("skipped: this processor has no bfloat16 products");
            return;
        }
        // Small whole numbers: exact in bfloat16, and their sums in f32, in whatever order.
        let value = |i: usize| ((i * 7919 + 13) % 31) as f32 - 15.0;
        let shapes =
            [(16, 1, 1), (16, 32, 32), (17, 33, 70), (40, 129, 16), (200, 600, 130), (193, 31, 65), (3, 40, 9)];
        for (m, k, n) in shapes {
            for transposed in 0..4 {
                let store = |rows: usize, columns: usize, shift: usize| -> (Vec<f32>, usize) {
                    ((0..rows * (columns + 3)).map(|i| value(i + shift)).collect(), columns + 3)
                };
                let (a_t, b_t) = (transposed & 1 == 1, transposed & 2 == 2);
                let (a, a_stride) = if a_t { store(k, m, 0) } else { store(m, k, 0) };
                let (b, b_stride) = if b_t { store(n, k, 5) } else { store(k, n, 5) };
                let a = if a_t { Mat::new(&a, k, m, a_stride).t() } else { Mat::new(&a, m, k, a_stride) };
                let b = if b_t { Mat::new(&b, n, k, b_stride).t() } else { Mat::new(&b, k, n, b_stride) };
                for product in [Product::Set, Product::Add] {
                    let run = |tiles: Option<Tiles>| {
                        let mut out: Vec<f32> = (0..m * (n + 1)).map(|i| value(i + 9)).collect();
                        // Memory that held something else before.
                        LEFT.with_borrow_mut(|left| *left = vec![0x7fc0_7fc0; 1 << 17]);
                        let out_view = MatMut::new(&mut out, m, n, n + 1);
                        Panels::with_tiles(b, Precision::Bf16, tiles).multiply(out_view, product, a);
                        out
                    };
                    assert!(run(Some(amx::plain)) == run(None), "{m} {k} {n} {transposed} {product:?}");
                }
            }
        }
    }
}
