//! A weight matrix in the form its products read, whatever type it has in the file.

use std::sync::OnceLock;

use super::argmax::int8_copy::{self, Int8Copy, Widened, widen_bf16, widen_f16, widen_f32};
use super::argmax::{self, planes};
use super::attention::packed::Numbers;
use super::columns::Columns;
use super::isa::{Isa, Kernels};
use super::layout::BLOCK;
use super::memory::Table;
use super::pack::floats::{Pair, set_pairs, zeroed_pairs};
use super::pack::nibbles::{Q4, Q4K};
use super::pack::planes::Planes;
use super::pack::q8::Q8;
use super::pack::{self, Row};
use super::product::{self, floats};
use super::quantize::{Start, find_zeros, quantize};
use super::rows;
use super::simd::{BF16, F16, LANES};
use super::sizes::{self, share};
use super::threads::Threads;
use super::workspace::{Workspace, own};
use crate::block;
use crate::error::Result;
#[cfg(not(target_arch = "wasm32"))]
use crate::storage::Bytes;
use crate::tensor::{DType, Tensor};

/// A weight matrix `[n, k]`, possibly several stacked by rows, made ready for `y = x W^T`.
pub struct Matrix {
    storage: Storage,
    /// The int8 copy of weights of floats that [`Matrix::argmax`] makes when it is first called; `None` inside where
    /// there was no memory for it.
    int8_copy: Option<OnceLock<Option<Int8Copy>>>,
    /// Whether it meets many zeros.
    sparse: bool,
    n: usize,
    k: usize,
    /// The instruction set that the weights are packed for.
    isa: Isa,
}

/// From this many weights on, bounds save time, also where a core's own cache holds them all: with the head of the
/// built-in model, two million, a greedy step takes 0.20 ms instead of 0.24 (Intel Xeon, AVX-512 VNNI). In WebAssembly
/// bounds never do: taking nibbles apart costs more there than reading half as much saves.
const LARGE: usize = 1 << 20;

fn is_large(n: usize, k: usize) -> bool {
    !cfg!(target_family = "wasm") && n.saturating_mul(k) >= LARGE
}

/// What a matrix is for.
#[derive(Clone, Copy, PartialEq)]
pub enum Purpose {
    /// [`Matrix::multiply`].
    Product,
    /// [`Matrix::argmax`] too. Int8 weights that are many are laid out so that it reads little more than half of them;
    /// of weights of floats it makes an int8 copy, which it reads instead of most.
    Argmax,
}

enum Storage {
    Q8(Q8),
    Planes(Planes),
    Q4(Q4),
    Q4K(Q4K),
    F32(Table<Pair<f32>>),
    F16(Table<Pair<F16>>),
    BF16(Table<Pair<BF16>>),
    /// Decoded anew for every product, 16 rows at a time.
    Encoded(Vec<Tensor>),
}

impl Matrix {
    /// Prepares one matrix, or several of equal width stacked by rows (`q`, `k`, `v` in one product).
    ///
    /// Weights of type Q8_0, Q4_0, Q4_K, F32, F16 and BF16 are copied into the layout that products read, and the
    /// file's pages released; other types, and parts of different types, stay as they are.
    ///
    /// # Errors
    /// Where widths differ, a tensor's size does not match its shape, the scale of a block is not finite, or there is
    /// not enough memory.
    ///
    /// # Panics
    /// If there are no parts.
    pub fn new(kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        Matrix::made_for(Purpose::Product, kernels, parts)
    }

    /// As [`Matrix::new`], for this purpose.
    ///
    /// # Errors
    /// As [`Matrix::new`].
    ///
    /// # Panics
    /// As [`Matrix::new`].
    pub fn made_for(purpose: Purpose, kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        parts.iter().try_for_each(|part| part.check_size())?;
        match Matrix::zeroed(kernels, parts, purpose)? {
            Some(matrix) => {
                let mut matrix = matrix.filled(kernels, parts)?;
                if purpose == Purpose::Argmax && is_large(matrix.n, matrix.k) {
                    matrix.int8_copy = Some(OnceLock::new());
                }
                Ok(matrix)
            }
            None => {
                let (n, k) = Matrix::shape(parts)?;
                let storage = Storage::Encoded(parts.iter().map(|&part| part.clone()).collect());
                Ok(Matrix { storage, int8_copy: None, sparse: false, n, k, isa: kernels.isa() })
            }
        }
    }

    /// This matrix, for activations of which many are zero: products of Q8_0 with a single row leave neighbouring zeros
    /// out where they are many. The results are the same. Several rows have fewer zeros in common, and gain nothing.
    #[must_use]
    pub fn for_zeros(self) -> Matrix {
        Matrix { sparse: true, ..self }
    }

    /// Rows and columns of parts stacked by rows.
    ///
    /// # Errors
    /// Where widths differ.
    ///
    /// # Panics
    /// If there are no parts.
    fn shape(parts: &[&Tensor]) -> Result<(usize, usize)> {
        assert!(!parts.is_empty(), "a matrix has at least one part");
        let k = parts[0].columns();
        let mut n = 0usize;
        for part in parts {
            if part.columns() != k {
                return Err(part.error(format!("expected rows of {k} values, found {}", part.columns())));
            }
            n = n.saturating_add(part.rows());
        }
        Ok((n, k))
    }

    /// The type of all parts; `None` where they differ or have scales of their own, and are therefore not packed.
    fn one_type(parts: &[&Tensor]) -> Option<DType> {
        let dtype = parts[0].dtype;
        parts.iter().all(|part| part.dtype == dtype && part.scale == 1.0).then_some(dtype)
    }

    /// Sets all rows, and releases the file's pages.
    fn filled(mut self, kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        let mut first = 0;
        for part in parts {
            for row in 0..part.rows() {
                self.set_row(kernels, first + row, part, row, part.row_data(row))?;
            }
            part.data.release();
            first += part.rows();
        }
        Ok(self)
    }

    /// Makes the int8 copy of weights of floats, however few they are.
    #[cfg(test)]
    pub(super) fn copy(&mut self, kernels: Kernels) {
        self.int8_copy = Some(OnceLock::new());
        self.wanted_copy(kernels);
    }

    /// The int8 copy of weights of floats, made when it is first wanted: most uses of a model never do. Where there is
    /// no memory for it, there is none, and all products are computed.
    fn wanted_copy(&self, kernels: Kernels) -> Option<&Int8Copy> {
        let (n, k) = (self.n, self.k);
        let cell = self.int8_copy.as_ref().filter(|_| k.is_multiple_of(BLOCK))?;
        let copy = |widened: &Widened<'_>| int8_copy::copy(kernels, widened, n, k).ok();
        match &self.storage {
            Storage::F32(w) => cell.get_or_init(|| copy(&|group, out| widen_f32(kernels, w, group, out))),
            Storage::F16(w) => cell.get_or_init(|| copy(&|group, out| widen_f16(kernels, w, group, out))),
            Storage::BF16(w) => cell.get_or_init(|| copy(&|group, out| widen_bf16(kernels, w, group, out))),
            _ => return None,
        }
        .as_ref()
    }

    /// A matrix of the same form with all weights zero, for [`Matrix::set_row`]; `None` for types that stay as they
    /// are. Needs the tensors' types and shapes only.
    ///
    /// # Errors
    /// Where widths differ, or there is not enough memory.
    ///
    /// # Panics
    /// If there are no parts.
    pub(crate) fn zeroed(kernels: Kernels, parts: &[&Tensor], purpose: Purpose) -> Result<Option<Matrix>> {
        let (n, k) = Matrix::shape(parts)?;
        let Some(dtype) = Matrix::one_type(parts) else { return Ok(None) };
        let storage = match dtype {
            DType::Q8_0 if purpose == Purpose::Argmax && is_large(n, k) => Storage::Planes(Planes::zeroed(n, k)?),
            // What argmax bounds, block by block, has no runs, whatever its layout.
            DType::Q8_0 if purpose == Purpose::Argmax => Storage::Q8(Q8::zeroed(n, k)?),
            DType::Q8_0 => Storage::Q8(Q8::in_runs(n, k)?),
            DType::Q4_0 => Storage::Q4(Q4::zeroed(n, k)?),
            DType::Q4_K => Storage::Q4K(Q4K::zeroed(n, k)?),
            DType::F32 => Storage::F32(zeroed_pairs(n, k)?),
            DType::F16 => Storage::F16(zeroed_pairs(n, k)?),
            DType::BF16 => Storage::BF16(zeroed_pairs(n, k)?),
            _ => return Ok(None),
        };
        Ok(Some(Matrix { storage, int8_copy: None, sparse: false, n, k, isa: kernels.isa() }))
    }

    /// The weights as they lie in memory, for [`Matrix::from_packed`]: how many blocks make a run, and all tables;
    /// `None` for forms that are made anew each time.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn packed(&self) -> Option<(usize, Vec<&[u8]>)> {
        Some(match &self.storage {
            Storage::Q8(w) => (w.run, vec![w.weights.bytes(), w.scales.bytes()]),
            Storage::Q4(w) => (1, vec![w.weights.bytes(), w.scales.bytes()]),
            Storage::Q4K(w) => (1, vec![w.weights.bytes(), w.scales.bytes()]),
            Storage::F32(w) => (1, vec![w.bytes()]),
            Storage::F16(w) => (1, vec![w.bytes()]),
            Storage::BF16(w) => (1, vec![w.bytes()]),
            Storage::Planes(_) | Storage::Encoded(_) => return None,
        })
    }

    /// What [`Matrix::made_for`] makes of these parts, from the bytes that [`Matrix::packed`] gave for it, which may be
    /// of a mapped file; `None` where they do not suit the parts.
    ///
    /// # Errors
    /// Where widths differ, or a tensor's size does not match its shape.
    ///
    /// # Panics
    /// If there are no parts.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn from_packed(
        kernels: Kernels,
        parts: &[&Tensor],
        purpose: Purpose,
        run: usize,
        tables: Vec<Bytes>,
    ) -> Result<Option<Matrix>> {
        parts.iter().try_for_each(|part| part.check_size())?;
        let (n, k) = Matrix::shape(parts)?;
        let Some(dtype) = Matrix::one_type(parts) else { return Ok(None) };
        let groups = n.div_ceil(LANES);
        let (blocks, pairs) = (sizes::product([groups, k / BLOCK]), sizes::product([n.div_ceil(2 * LANES), k]));
        let mut tables = tables.into_iter();
        let mut storage = || {
            Some(match dtype {
                DType::Q8_0 if purpose == Purpose::Argmax && is_large(n, k) => return None,
                DType::Q8_0 => {
                    let longest = if purpose == Purpose::Argmax { 1 } else { block::longest_run(k) };
                    let weights = Table::shared(tables.next()?, blocks)?;
                    let scales = Table::shared(tables.next()?, blocks)?;
                    let suits = run.is_power_of_two() && run <= longest;
                    Storage::Q8(Q8 { weights, scales, run: suits.then_some(run)? })
                }
                DType::Q4_0 => Storage::Q4(Q4 {
                    weights: Table::shared(tables.next()?, blocks)?,
                    scales: Table::shared(tables.next()?, blocks)?,
                }),
                DType::Q4_K => Storage::Q4K(Q4K {
                    weights: Table::shared(tables.next()?, blocks)?,
                    scales: Table::shared(tables.next()?, sizes::product([groups, k / dtype.block_len()]))?,
                }),
                DType::F32 => Storage::F32(Table::shared(tables.next()?, pairs)?),
                DType::F16 => Storage::F16(Table::shared(tables.next()?, pairs)?),
                DType::BF16 => Storage::BF16(Table::shared(tables.next()?, pairs)?),
                _ => return None,
            })
        };
        let int8_copy = (purpose == Purpose::Argmax && is_large(n, k)).then(OnceLock::new);
        Ok(storage().map(|storage| Matrix { storage, int8_copy, sparse: false, n, k, isa: kernels.isa() }))
    }

    /// Int8 weights in two planes, however few they are.
    #[cfg(test)]
    pub(super) fn in_planes(kernels: Kernels, part: &Tensor) -> Result<Matrix> {
        let (n, k) = (part.rows(), part.columns());
        let storage = Storage::Planes(Planes::zeroed(n, k)?);
        Matrix { storage, int8_copy: None, sparse: false, n, k, isa: kernels.isa() }.filled(kernels, &[part])
    }

    /// A matrix of this shape without weights: it must not be used.
    ///
    /// # Errors
    /// Where widths differ.
    pub(crate) fn absent(kernels: Kernels, parts: &[&Tensor]) -> Result<Matrix> {
        let (n, k) = Matrix::shape(parts)?;
        Ok(Matrix { storage: Storage::Encoded(Vec::new()), int8_copy: None, sparse: false, n, k, isa: kernels.isa() })
    }

    /// Sets row `i`, from `bytes` of row `index` of a tensor.
    ///
    /// # Errors
    /// If the scale of a block is not finite.
    pub(crate) fn set_row(
        &mut self,
        kernels: Kernels,
        i: usize,
        tensor: &Tensor,
        index: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let k = self.k;
        let row = Row { tensor, index, bytes };
        let layout = pack::layout(kernels);
        match &mut self.storage {
            Storage::Q8(w) => w.set_row(i, k, row, layout)?,
            Storage::Planes(w) => w.set_row(i, k, row, layout)?,
            Storage::Q4(w) => w.set_row(i, k, row, layout)?,
            Storage::Q4K(w) => w.set_row(i, k, row, layout)?,
            Storage::F32(w) => set_pairs(w, i, k, bytes),
            Storage::F16(w) => set_pairs(w, i, k, bytes),
            Storage::BF16(w) => set_pairs(w, i, k, bytes),
            Storage::Encoded(_) => unreachable!("a matrix made by zeroed"),
        }
        Ok(())
    }

    /// Whether [`Matrix::row`] can be used with weights of this type.
    pub(crate) fn has_rows(dtype: DType) -> bool {
        dtype == DType::Q8_0
    }

    /// The values of row `i`, `[k]`, exactly as [`block::decode`] gives them for the file's bytes.
    ///
    /// # Panics
    /// If [`Matrix::has_rows`] is false.
    pub(crate) fn row(&self, kernels: Kernels, i: usize, out: &mut [f32]) {
        let layout = pack::layout(kernels);
        match &self.storage {
            Storage::Q8(w) => {
                for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                    block::decode(DType::Q8_0, &w.block(i, self.k, block, layout), out);
                }
            }
            Storage::Planes(w) => {
                for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                    block::decode(DType::Q8_0, &w.block(i, self.k, block, layout), out);
                }
            }
            _ => unreachable!("a matrix of a type whose rows can be read"),
        }
    }

    /// In what numbers its products are computed.
    pub fn numbers(&self) -> Numbers {
        match &self.storage {
            Storage::Q8(_) | Storage::Planes(_) | Storage::Q4(_) | Storage::Q4K(_) => Numbers::Integers,
            Storage::F32(_) | Storage::F16(_) | Storage::BF16(_) | Storage::Encoded(_) => Numbers::Floats,
        }
    }

    /// Rows: the width of a product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: the width of the input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// `y[m, n] = x[m, k] W^T`.
    ///
    /// Q8_0, Q4_0 and Q4_K weights meet activations quantised to int8 in blocks of 32, with exact integer sums; where
    /// 2, 4 or 8 neighbouring blocks of Q8_0 have one scale in every row, in runs of as many. Other types are widened
    /// to f32. A row's result depends neither on the other rows, nor on the instruction set, nor on
    /// the number of threads.
    ///
    /// # Panics
    /// If `x` or `y` has another length, or `kernels` is not what the matrix was prepared for.
    pub fn multiply(&self, kernels: Kernels, x: &[f32], m: usize, y: &mut [f32], workspace: &mut Workspace) {
        let (n, k) = (self.n, self.k);
        assert!(x.len() == sizes::product([m, k]) && y.len() == sizes::product([m, n]), "x is [m, k] and y is [m, n]");
        assert_eq!(kernels.isa(), self.isa, "a matrix is used with the kernels it was prepared for");
        workspace.shared();
        let Workspace { threads, activations, x: tiles, row, own: scratch } = workspace;
        let scratch = &scratch[..];
        let mut y = Columns::new(y, n);
        match &self.storage {
            Storage::Q8(w) => {
                quantize(kernels, x, k, w.run, Start::Int8, activations);
                if self.sparse && m == 1 {
                    find_zeros(kernels, activations);
                }
                let work = |y: &mut Columns<'_>, _| product::q8(kernels, w, activations, k / BLOCK, y);
                divide(threads, sizes::product([m, k]), n, LANES, &y, &work);
            }
            Storage::Planes(w) => {
                quantize(kernels, x, k, 1, Start::Int8, activations);
                let work = |y: &mut Columns<'_>, thread| {
                    product::planes::planes(kernels, w, activations, k / BLOCK, y, &mut own(scratch, thread).joined);
                };
                divide(threads, sizes::product([m, k]), n, LANES, &y, &work);
            }
            Storage::Q4(w) => {
                quantize(kernels, x, k, 1, Start::Nibbles, activations);
                let work = |y: &mut Columns<'_>, _| product::nibbles::q4(kernels, w, activations, k / BLOCK, y);
                divide(threads, sizes::product([m, k]), n, LANES, &y, &work);
            }
            Storage::Q4K(w) => {
                quantize(kernels, x, k, 1, Start::Sum, activations);
                let work = |y: &mut Columns<'_>, _| product::nibbles::q4_k(kernels, w, activations, k / BLOCK, y);
                divide(threads, sizes::product([m, k]), n, LANES, &y, &work);
            }
            Storage::F32(w) => {
                let x = tiled(kernels, x, m, tiles);
                let work = |y: &mut Columns<'_>, thread| {
                    floats::plain_f32(kernels, w, x, k, y, &mut own(scratch, thread).wide);
                };
                divide(threads, sizes::product([m, k]), n, 2 * LANES, &y, &work);
            }
            Storage::F16(w) => {
                let x = tiled(kernels, x, m, tiles);
                let work = |y: &mut Columns<'_>, thread| {
                    floats::plain_f16(kernels, w, x, k, y, &mut own(scratch, thread).wide);
                };
                divide(threads, sizes::product([m, k]), n, 2 * LANES, &y, &work);
            }
            Storage::BF16(w) => {
                let x = tiled(kernels, x, m, tiles);
                let work = |y: &mut Columns<'_>, thread| {
                    floats::plain_bf16(kernels, w, x, k, y, &mut own(scratch, thread).wide);
                };
                divide(threads, sizes::product([m, k]), n, 2 * LANES, &y, &work);
            }
            Storage::Encoded(parts) => {
                let wide = &mut own(scratch, 0).wide;
                row.resize(k, 0.0);
                wide.resize(wide.len().max(k), [0.0; LANES]);
                let x = tiled(kernels, x, m, tiles);
                let mut rows = parts.iter().flat_map(|part| (0..part.rows()).map(move |row| (part, row)));
                for column in (0..n).step_by(LANES) {
                    for (lane, (part, index)) in rows.by_ref().take(LANES).enumerate() {
                        part.decode(part.row_data(index), row);
                        for (wide, &value) in wide.iter_mut().zip(row.iter()) {
                            wide[lane] = value;
                        }
                    }
                    floats::panel(kernels, &wide[..k], x, &mut y, column);
                }
            }
        }
    }

    /// The index of the largest value of `x W^T` for a single row, among those not in `except`: the same as if the
    /// product had been computed by [`Matrix::multiply`], the lowest one on ties, `None` where all are NaN. `y` `[n]`
    /// is scratch.
    ///
    /// # Panics
    /// As [`Matrix::multiply`], and if `except` names a row that is not there.
    pub fn argmax(
        &self,
        kernels: Kernels,
        x: &[f32],
        except: &[u32],
        y: &mut [f32],
        workspace: &mut Workspace,
    ) -> Option<usize> {
        if let Storage::Planes(w) = &self.storage
            && w.bounded()
        {
            assert!(x.len() == self.k && y.len() == self.n, "x is [k] and y is [n]");
            assert_eq!(kernels.isa(), self.isa, "a matrix is used with the kernels it was prepared for");
            let Workspace { threads, activations, .. } = workspace;
            quantize(kernels, x, self.k, 1, Start::Sum, activations);
            let length = argmax::length(activations);
            // No bounds can be computed from a length that is not finite.
            if length.is_finite() {
                let work = |y: &mut Columns<'_>, _| planes::bounds(kernels, w, activations, length, y);
                divide(threads, self.k, self.n, LANES, &Columns::new(y, self.n), &work);
                except.iter().for_each(|&id| y[id as usize] = f32::NEG_INFINITY);
                return planes::largest(kernels, w, activations, y);
            }
        }
        if let Some(copy) = self.wanted_copy(kernels)
            && copy.bounded()
        {
            assert!(x.len() == self.k && y.len() == self.n, "x is [k] and y is [n]");
            assert_eq!(kernels.isa(), self.isa, "a matrix is used with the kernels it was prepared for");
            let Workspace { threads, activations, row, .. } = workspace;
            copy.balance(x, row);
            quantize(kernels, row, self.k, 1, Start::Int8, activations);
            if let Some(lengths) = int8_copy::lengths(row, activations) {
                let work = |y: &mut Columns<'_>, _| int8_copy::bounds(kernels, copy, activations, lengths, y);
                divide(threads, self.k, self.n, LANES, &Columns::new(y, self.n), &work);
                except.iter().for_each(|&id| y[id as usize] = f32::NEG_INFINITY);
                return match &self.storage {
                    Storage::F32(w) => int8_copy::largest_f32(kernels, copy, w, x, y),
                    Storage::F16(w) => int8_copy::largest_f16(kernels, copy, w, x, y),
                    Storage::BF16(w) => int8_copy::largest_bf16(kernels, copy, w, x, y),
                    _ => unreachable!("only weights of floats have a copy"),
                };
            }
        }
        self.multiply(kernels, x, 1, y, workspace);
        except.iter().for_each(|&id| y[id as usize] = f32::NEG_INFINITY);
        rows::argmax(kernels, y)
    }

    /// Bytes that [`Matrix::argmax`] reads at least.
    pub fn argmax_bytes(&self) -> usize {
        match (&self.storage, self.int8_copy.as_ref().and_then(OnceLock::get)) {
            (_, Some(Some(copy))) => copy.bytes(),
            (Storage::Planes(w), _) => w.upper_bytes(),
            _ => self.bytes(),
        }
    }

    /// Bytes that one product of a single row reads.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Q8(w) => w.bytes(),
            Storage::Planes(w) => w.bytes(),
            Storage::Q4(w) => w.bytes(),
            Storage::Q4K(w) => w.bytes(),
            Storage::F32(w) => size_of_val(&w[..]),
            Storage::F16(w) => size_of_val(&w[..]),
            Storage::BF16(w) => size_of_val(&w[..]),
            Storage::Encoded(parts) => parts.iter().map(|part| part.data.len()).sum(),
        }
    }
}

/// `x` laid out by tiles for products of weights of floats. A single row is laid out so already.
fn tiled<'a>(kernels: Kernels, x: &'a [f32], m: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    if m <= 1 {
        return x;
    }
    floats::tile_rows(kernels, x, x.len() / m, buffer);
    buffer
}

/// Computes the `n` columns of a product of `each` multiplications a column, in parts of whole units of `unit` columns
/// by all threads: `work(columns, thread)`.
fn divide(
    threads: &mut Threads,
    each: usize,
    n: usize,
    unit: usize,
    y: &Columns<'_>,
    work: &(dyn Fn(&mut Columns<'_>, usize) + Sync),
) {
    let units = n.div_ceil(unit);
    let parts = threads.parts(units, sizes::product([each, n]));
    threads.run(parts, &|thread, part| {
        let units = share(units, part, parts);
        // SAFETY: shares have no unit in common, and the whole is not used meanwhile.
        let mut columns = unsafe { y.part(units.start * unit..(units.end * unit).min(n)) };
        work(&mut columns, thread);
    });
}
