//! Pocket T5: any T5-family checkpoint into one self-contained GGUF file.
//!
//! A [`Checkpoint`] gives tensors and all that belongs to them, a [`Policy`] says how each is to be stored, and
//! [`quantize`] writes them front to back, a few rows at a time, into anything that takes bytes. The same input gives
//! the same bytes. Without the feature `cli` nothing here touches a file but [`adapter::Adapter::open`]: a browser does
//! the same with bytes.
//!
//! ```no_run
//! use t5_quantize::{Policy, quantize};
//! use t5_runtime::{checkpoint::Checkpoint, tensor::DType};
//!
//! let checkpoint = Checkpoint::open("flan-t5-small".as_ref())?;
//! let mut bytes = Vec::new();
//! let report = quantize(&checkpoint, &Policy::new(DType::Q8_0), "model.gguf", &mut bytes, &mut ())?;
//! println!("{report}");
//! # Ok::<(), t5_runtime::Error>(())
//! ```

#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

pub mod adapter;
#[cfg(feature = "cli")]
pub mod align;
mod balance;
pub mod compare;
pub mod policy;
#[cfg(feature = "pytorch")]
pub mod pytorch;
pub mod report;
mod store;

use std::io::Write;
use std::path::Path;

pub use policy::{Keep, Policy};
pub use report::Report;
use t5_runtime::Result;
use t5_runtime::checkpoint::{Checkpoint, llama_cpp};
use t5_runtime::gguf::{Array, TensorInfo, Value, Writer};
use t5_runtime::schema::{Role, Stack, TensorSpec};
use t5_runtime::tensor::DType;

/// Told how far the work is; `()` ignores it.
pub trait Progress {
    /// The work begins, on this many values in all.
    fn start(&mut self, values: u64);
    /// A tensor begins.
    fn tensor(&mut self, name: &str);
    /// This many more values are stored.
    fn advance(&mut self, values: u64);
}

impl Progress for () {
    fn start(&mut self, _values: u64) {}
    fn tensor(&mut self, _name: &str) {}
    fn advance(&mut self, _values: u64) {}
}

/// Writes a checkpoint as one GGUF file of llama.cpp's T5 dialect, with everything that a T5 program needs: weights,
/// configuration, vocabulary, generation defaults, and what it says of itself. `file` names the output in messages.
///
/// Tensors that are stored in the type already are copied bit for bit. Matrices that are rounded to blocks trade
/// factors with the norms before them, unless [`Policy::balance`] is false. Memory: some rows of one tensor, beside
/// what the checkpoint holds itself (of a mapped one, at most the pages of the tensor at work).
///
/// # Errors
/// A policy that does not suit the model; a tensor with NaN, infinity or a number (or block scale) that its new type
/// cannot hold, by name, row and column; a failing `out`. What was written until then is not a valid file.
pub fn quantize(
    checkpoint: &Checkpoint,
    policy: &Policy,
    file: &str,
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let plan = policy.plan(&checkpoint.config)?;
    let infos: Vec<TensorInfo> = plan
        .iter()
        .map(|(spec, dtype)| TensorInfo { name: spec.gguf_name.clone(), dtype: *dtype, shape: spec.shape.clone() })
        .collect();
    let balance = if policy.balance { balance::Balance::new(checkpoint, &plan)? } else { balance::Balance::default() };
    let mut metadata = llama_cpp::metadata(
        &checkpoint.about,
        &checkpoint.config,
        checkpoint.vocabulary.as_ref(),
        &checkpoint.generation,
        policy.base,
    )?;
    metadata.extend(llama_cpp::more_metadata(checkpoint));
    metadata.extend(encoder_scale(checkpoint, &plan, &balance));
    let mut writer = Writer::new(Path::new(file), out, &metadata, &infos)?;
    progress.start(plan.iter().map(|(spec, _)| spec.shape.iter().product::<usize>() as u64).sum());
    let mut store = store::Store::new();
    let mut report = Report::default();
    for (spec, dtype) in &plan {
        progress.tensor(&spec.hf_name);
        let Some(tensor) = checkpoint.tensor(&spec.hf_name) else {
            return Err(t5_runtime::Error::tensor(
                &checkpoint.file,
                &spec.hf_name,
                "expected in the checkpoint, found none",
            ));
        };
        let factors = balance.factors(spec);
        let run = policy::scale_run(policy, *dtype, spec);
        report.tensors.push(store.tensor(tensor, spec, *dtype, run, factors, &mut writer, progress)?);
    }
    writer.finish()?;
    Ok(report)
}

/// Where the encoder's last norm trades factors with the decoder, the file says how its states become again what they
/// were: not only the decoder reads them.
fn encoder_scale(
    checkpoint: &Checkpoint,
    plan: &[(TensorSpec, DType)],
    balance: &balance::Balance,
) -> Option<(String, Value)> {
    let is_last_norm = |spec: &TensorSpec| (spec.id.role, spec.id.stack) == (Role::FinalNorm, Some(Stack::Encoder));
    let (norm, _) = plan.iter().find(|(spec, _)| is_last_norm(spec))?;
    let given = checkpoint.encoder_scale.as_deref();
    let traded = balance.factors(norm);
    let scale: Vec<f32> = match (given, traded) {
        (None, None) => return None,
        (Some(given), None) => given.to_vec(),
        (given, Some(traded)) => {
            let before = given.into_iter().flatten().copied().chain(std::iter::repeat(1.0));
            traded.iter().zip(before).map(|(factor, before)| before / factor).collect()
        }
    };
    Some((llama_cpp::keys::ENCODER_SCALE.to_owned(), Value::Array(Array::of_floats(scale))))
}
