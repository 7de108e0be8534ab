//! One tensor from the type it is read as into the type it is stored as, a few rows at a time.

use std::io::Write;

use t5_runtime::Result;
use t5_runtime::block::{self, EncodeError};
use t5_runtime::gguf::Writer;
use t5_runtime::schema::TensorSpec;
use t5_runtime::tensor::{DType, Tensor};

use crate::Progress;
use crate::report::{Errors, TensorReport};

/// Values that one piece holds, unless a row is longer: small enough for the processor's cache.
const PIECE_VALUES: usize = 1 << 15;

/// The buffers of the work, one piece for each thread.
pub(crate) struct Store {
    pieces: Vec<Piece>,
}

/// Some rows of a tensor on their way.
#[derive(Default)]
struct Piece {
    /// As they were read.
    values: Vec<f32>,
    /// In the new type.
    bytes: Vec<u8>,
    /// The values that the new type gives back.
    stored: Vec<f32>,
    errors: Errors,
}

impl Store {
    pub fn new() -> Store {
        // Every piece is the same work wherever it is done: results do not depend on the number of threads.
        let threads = if cfg!(target_arch = "wasm32") {
            1
        } else {
            std::thread::available_parallelism().map_or(1, |threads| threads.get().min(16))
        };
        Store { pieces: (0..threads).map(|_| Piece::default()).collect() }
    }

    /// Writes `tensor` as `dtype`, its columns multiplied with `factors` if there are any; where it becomes Q8_0,
    /// `scale_run` neighbouring values share a scale. Errors are reported in the units of `tensor`.
    #[allow(clippy::too_many_arguments)] // what a tensor becomes, and where it goes
    pub fn tensor<W: Write>(
        &mut self,
        tensor: &Tensor,
        spec: &TensorSpec,
        dtype: DType,
        scale_run: usize,
        factors: Option<&[f32]>,
        writer: &mut Writer<W>,
        progress: &mut dyn Progress,
    ) -> Result<TensorReport> {
        tensor.check_size()?;
        if tensor.dtype == dtype {
            // The bytes are copied as they are, so faults that decoding accepts must be found here.
            block::check(tensor)?;
        }
        let columns = tensor.columns();
        let rows_per_piece = (PIECE_VALUES / columns).max(1);
        let row_bytes = tensor.data.len() / tensor.rows();
        let mut report = TensorReport {
            name: spec.hf_name.clone(),
            gguf_name: spec.gguf_name.clone(),
            role: spec.id.role,
            shape: spec.shape.clone(),
            from: tensor.dtype,
            to: dtype,
            scale_run: None,
            bytes_before: tensor.data.len() as u64,
            bytes_after: 0,
            errors: Errors::default(),
        };
        // What is copied has its own: what there is in the end is looked for.
        let mut run = (dtype == DType::Q8_0).then(|| block::longest_run(columns));
        let mut row = 0;
        let mut data = tensor.data.chunks(rows_per_piece * row_bytes).peekable();
        while data.peek().is_some() {
            let first = row;
            let results = side_by_side(&mut self.pieces, &mut data, |piece, data| {
                piece.convert(tensor, data, dtype, scale_run, factors)
            });
            for (piece, result) in self.pieces.iter().zip(results) {
                result.map_err(|fault| tensor.error(sentence(fault, row, columns)))?;
                writer.append(&spec.gguf_name, &piece.bytes)?;
                run = run.map(|run| block::run_of(run, &piece.bytes));
                report.bytes_after += piece.bytes.len() as u64;
                report.errors.merge(&piece.errors);
                row += piece.values.len() / columns;
                progress.advance(piece.values.len() as u64);
            }
            // Mapped pages count as our memory until they are given back.
            if let Some(done) = tensor.data.slice(first * row_bytes..row * row_bytes) {
                done.release();
            }
        }
        report.scale_run = run.map(|run| run * dtype.block_len());
        Ok(report)
    }
}

/// Gives each piece the next data, as long as there are any, and converts them side by side. One result for each
/// piece that got data.
fn side_by_side<'a>(
    pieces: &mut [Piece],
    data: &mut impl Iterator<Item = &'a [u8]>,
    convert: impl Fn(&mut Piece, &[u8]) -> Result<(), EncodeError> + Sync,
) -> Vec<Result<(), EncodeError>> {
    let mut work: Vec<_> = pieces.iter_mut().zip(data).collect();
    if let [(piece, data)] = &mut work[..] {
        return vec![convert(piece, data)];
    }
    let convert = &convert;
    std::thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|(piece, data)| scope.spawn(move || convert(piece, data))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

impl Piece {
    /// Converts whole rows of a tensor, of which `data` are the bytes, and compares the result with them.
    fn convert(
        &mut self,
        tensor: &Tensor,
        data: &[u8],
        to: DType,
        scale_run: usize,
        factors: Option<&[f32]>,
    ) -> Result<(), EncodeError> {
        let (from, columns) = (tensor.dtype, tensor.columns());
        let rows = data.len() / from.row_bytes(columns).expect("the tensor's size was checked");
        self.values.resize(rows * columns, 0.0);
        tensor.decode(data, &mut self.values);
        self.errors = Errors::default();
        self.bytes.resize(rows * to.row_bytes(columns).expect("the type suits the width"), 0);
        if from == to && tensor.scale == 1.0 && factors.is_none() {
            if let Some(index) = self.values.iter().position(|value| !value.is_finite()) {
                return Err(EncodeError::NotFinite { index, value: self.values[index] });
            }
            self.bytes.copy_from_slice(data);
            self.errors.add(&self.values, &self.values);
            return Ok(());
        }
        if let Some(factors) = factors {
            self.values.chunks_exact_mut(columns).for_each(|row| multiply(row, factors));
        }
        block::encode_in_runs(to, scale_run / to.block_len(), &self.values, &mut self.bytes)?;
        self.stored.resize(self.values.len(), 0.0);
        block::decode(to, &self.bytes, &mut self.stored);
        if let Some(factors) = factors {
            let rows = self.values.chunks_exact_mut(columns).zip(self.stored.chunks_exact_mut(columns));
            rows.for_each(|(read, stored)| {
                divide(read, factors);
                divide(stored, factors);
            });
        }
        self.errors.add(&self.values, &self.stored);
        Ok(())
    }
}

fn multiply(row: &mut [f32], factors: &[f32]) {
    row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
}

fn divide(row: &mut [f32], factors: &[f32]) {
    row.iter_mut().zip(factors).for_each(|(value, factor)| *value /= factor);
}

/// The fault with its place in the tensor; the piece began at row `row`.
fn sentence(fault: EncodeError, row: usize, columns: usize) -> String {
    let place = |index: usize| format!("row {}, column {}", row + index / columns, index % columns);
    match fault {
        EncodeError::NotFinite { index, value } => {
            format!("{}: expected a finite number, found {value}", place(index))
        }
        EncodeError::Overflow { index, value, dtype } => {
            format!("{}: expected a number that {dtype} can hold, found {value}", place(index))
        }
        other => other.to_string(),
    }
}
