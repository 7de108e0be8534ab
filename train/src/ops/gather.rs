//! Rows of one layout in another: ragged `[tokens, width]` <-> padded `[examples * longest, width]`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Storage, Tensor};

type Result<T> = candle_core::Result<T>;

/// The index of a row that is all zeros.
pub const NO_ROW: u32 = u32::MAX;

/// `out[i, :] = x[rows[i], :]`, or zeros for [`NO_ROW`].
///
/// Each row of `x` is taken once at most, so the backward pass is a gather, too, by the inverse map. (Candle's own
/// runs through all rows one after the other on a GPU, since several may add to one place.)
pub struct Gather {
    /// `[out rows]` u32, on the device of `x`.
    pub rows: Tensor,
    /// `[x rows]` u32: where each row of `x` went.
    pub inverse: Tensor,
}

impl Gather {
    fn select<S: BackendStorage>(&self, x: &S, layout: &Layout, rows: &S, rows_layout: &Layout) -> Result<S> {
        x.index_select(rows, layout, rows_layout, 0)
    }

    fn shape(&self, layout: &Layout) -> Result<Shape> {
        let (_, width) = layout.shape().dims2()?;
        Ok(Shape::from((self.rows.elem_count(), width)))
    }
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, rows_layout) = self.rows.storage_and_layout();
        match &*rows {
            Storage::Cpu(rows) => Ok((self.select(x, layout, rows, rows_layout)?, self.shape(layout)?)),
            _ => candle_core::bail!("gather: the rows are on another device than the values"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (rows, rows_layout) = self.rows.storage_and_layout();
        match &*rows {
            Storage::Cuda(rows) => Ok((self.select(x, layout, rows, rows_layout)?, self.shape(layout)?)),
            _ => candle_core::bail!("gather: the rows are on another device than the values"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (rows, inverse) = (self.inverse.clone(), self.rows.clone());
        Ok(Some(gradient.contiguous()?.apply_op1(Gather { rows, inverse })?))
    }
}
