//! Fused differentiable operations: each is one sub-layer of the model as a candle custom op with a backward
//! pass of its own.
//!
//! Candle's automatic differentiation orders them: a forward pass builds about six nodes per pair of blocks
//! instead of some two hundred, and `backward` walks them. Gradients of activations travel through candle;
//! gradients of parameters are added straight into [`Gradients`], so that accumulation over several batches,
//! and the embedding's three uses, cost nothing extra.
//!
//! Activations are ragged, `[tokens, d_model]` over all examples of a batch without padding; see [`Sequences`].

pub mod attention;
pub mod block;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod gather;
pub mod norm;
pub mod sequences;
pub mod soft_targets;

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor, Var};

pub use dropout::Dropout;
pub use sequences::{Sequences, Span};
pub use soft_targets::SoftTargets;

use crate::kernels::{Mat, MatMut, Precision, Product, multiply};

/// The gradients of all parameters, flat, in the order of the parameters. That of a parameter that is not trained is
/// empty, and then nothing is computed for it.
pub struct Gradients {
    buffers: Vec<Mutex<Vec<f32>>>,
}

impl Gradients {
    /// Zeros for parameters of the given sizes.
    pub fn new(sizes: impl IntoIterator<Item = usize>) -> Gradients {
        Gradients { buffers: sizes.into_iter().map(|size| Mutex::new(vec![0.0; size])).collect() }
    }

    /// The gradient of one parameter.
    pub fn get(&self, index: usize) -> MutexGuard<'_, Vec<f32>> {
        // A panic while the lock was held ends the run anyway.
        self.buffers[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Sets all to zero.
    pub fn clear(&self) {
        for index in 0..self.buffers.len() {
            self.get(index).fill(0.0);
        }
    }
}

/// One forward and backward pass over one batch: what all its operations share.
pub struct Pass {
    pub sequences: Sequences,
    /// The parameters, in the order of the schema.
    pub vars: Arc<Vec<Var>>,
    pub gradients: Arc<Gradients>,
    pub dropout: dropout::Plan,
    /// Whether a backward pass follows; otherwise nothing is saved for one.
    pub training: bool,
    /// Of the products with parameters; attention's are f32.
    pub precision: Precision,
}

impl Pass {
    pub(crate) fn linear(&self, m: usize, n: usize, k: usize) -> Linear {
        Linear { m, n, k, precision: self.precision }
    }

    /// The same pass, without a backward pass to follow.
    pub(crate) fn without_training(&self) -> Pass {
        let Pass { sequences, vars, gradients, dropout, precision, .. } = self;
        let (sequences, vars, gradients) = (sequences.clone(), vars.clone(), gradients.clone());
        Pass { sequences, vars, gradients, dropout: *dropout, training: false, precision: *precision }
    }

    /// The values of parameter `index`.
    pub fn parameter(&self, index: usize) -> candle_core::Result<Values<'_>> {
        Values::new(self.vars[index].as_tensor())
    }
}

/// The values of a contiguous f32 tensor in main memory.
pub struct Values<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    start: usize,
    len: usize,
}

impl<'a> Values<'a> {
    /// Borrows them.
    ///
    /// # Errors
    /// Where the tensor is not contiguous, not f32 or not on the CPU.
    pub fn new(tensor: &'a Tensor) -> candle_core::Result<Values<'a>> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = contiguous(layout)?;
        if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
            candle_core::bail!("expected f32 values in main memory");
        }
        Ok(Values { start, len: end - start, storage: Box::new(storage) })
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.start + self.len],
            _ => unreachable!("checked when it was made"),
        }
    }
}

fn contiguous(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("expected a contiguous tensor".to_owned()))
}

/// The values of an operation's argument.
pub fn argument<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = contiguous(layout)?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Lets a function change a variable's values where they lie.
///
/// # Errors
/// Where they are not contiguous f32 values in main memory.
pub fn update_in_place(var: &Var, change: impl FnOnce(&mut [f32])) -> candle_core::Result<()> {
    struct Change<F>(RefCell<Option<F>>);

    impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "update"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
                candle_core::bail!("expected contiguous f32 values");
            };
            if let Some(change) = self.0.borrow_mut().take() {
                change(&mut values[start..end]);
            }
            Ok(())
        }
    }

    var.as_tensor().inplace_op1(&Change(RefCell::new(Some(change))))
}

/// What an operation keeps from its forward pass for its backward pass.
pub struct ForBackward<T>(Mutex<Option<T>>);

impl<T> Default for ForBackward<T> {
    fn default() -> Self {
        ForBackward(Mutex::new(None))
    }
}

impl<T> ForBackward<T> {
    /// What is there from the beginning.
    pub fn holding(value: T) -> ForBackward<T> {
        ForBackward(Mutex::new(Some(value)))
    }

    fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(value);
    }

    /// Takes it out, so that its memory is free as soon as the backward pass is through with it.
    fn take(&self, op: &'static str) -> candle_core::Result<T> {
        let value = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        value.ok_or_else(|| candle_core::Error::Msg(format!("{op}: a second backward pass, or one without training")))
    }
}

/// The three products of a linear layer `y = x w^T`, with `w` `[n, k]` and `m` rows.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub precision: Precision,
}

impl Linear {
    /// `y[m, n] = x[m, k] w[n, k]^T`
    pub fn forward(self, x: &[f32], w: &[f32], y: &mut [f32]) {
        let Linear { m, n, k, precision } = self;
        multiply(MatMut::new(y, m, n, n), Product::Set, Mat::new(x, m, k, k), Mat::new(w, n, k, k).t(), precision);
    }

    /// `dx[m, k] (+)= dy[m, n] w[n, k]`
    pub fn input_gradient(self, product: Product, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Linear { m, n, k, precision } = self;
        multiply(MatMut::new(dx, m, k, k), product, Mat::new(dy, m, n, n), Mat::new(w, n, k, k), precision);
    }

    /// `dw[n, k] += dy[m, n]^T x[m, k]`, unless `dw` is empty.
    pub fn weight_gradient(self, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        if dw.is_empty() {
            return;
        }
        let Linear { m, n, k, precision } = self;
        multiply(MatMut::new(dw, n, k, k), Product::Add, Mat::new(dy, m, n, n).t(), Mat::new(x, m, k, k), precision);
    }
}
