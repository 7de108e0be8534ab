//! Factors that move magnitude between a norm and the matrices that read its output.
//!
//! A few channels of the hidden states are far larger than the others, so the 32 activations or weights that share a
//! scale are rounded by the step of the largest. Behind a norm every product is
//!
//! ```text
//! y[i] = Σ_j W[i, j] · g[j] · x[j]        x: the hidden state over its root mean square, g: the norm's weight
//! ```
//!
//! and stays what it is when W[i, j] s[j] and g[j] / s[j] are stored, for any s > 0. Errors of weights and activations
//! are balanced where a channel's weights are as large as its activations, each against the others: s[j] =
//! sqrt(|g[j]| ξ[j] / w[j]), with w[j] the root mean square of the matrices' column and ξ[j] that of x[j]. ξ is known
//! only when the model runs, but what writes channel j of the hidden state is row j of each feed-forward `wo`, and the
//! norm of those rows is near enough. (SmoothQuant, Xiao et al. 2022, section 4, with α = 1/2 and without samples.)
//!
//! Norms stay F32, so nothing is lost beside the rounding to blocks that follows. A tied head has no norm of its own
//! to trade with: its matrix is the embedding, too.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use t5_runtime::Result;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema::{Role, Stack, TensorSpec};
use t5_runtime::tensor::{DType, Tensor};

/// No channel is moved further than this factor from the others.
const MOST: f64 = 4096.0;

/// Factors that columns of tensors are multiplied by before they are stored, by canonical name of the tensor.
#[derive(Default)]
pub(crate) struct Balance {
    factors: BTreeMap<String, Vec<f32>>,
}

impl Balance {
    /// The factors for a plan. A norm takes part where all matrices behind it are rounded to blocks, and now.
    pub fn new(checkpoint: &Checkpoint, plan: &[(TensorSpec, DType)]) -> Result<Balance> {
        let mut balance = Balance::default();
        let mut written = HashMap::new();
        for (norm, _) in plan.iter().filter(|(spec, _)| spec.id.role.is_norm()) {
            let behind: Vec<_> = plan.iter().filter(|(spec, _)| reads(spec, norm)).collect();
            let mut matrices = Vec::new();
            for (spec, dtype) in &behind {
                let source = checkpoint.tensor(&spec.hf_name);
                matrices.extend(source.filter(|source| source.dtype.block_len() == 1 && dtype.block_len() > 1));
            }
            let (Some(stack), Some(weights)) = (norm.id.stack, checkpoint.tensor(&norm.hf_name)) else { continue };
            if matrices.is_empty() || matrices.len() < behind.len() {
                continue;
            }
            let written: &Vec<f64> = match written.entry(stack) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(squares_of_written_rows(checkpoint, plan, stack)?),
            };
            let factors = factors(weights, &matrices, written)?;
            let inverse = factors.iter().map(|factor| 1.0 / factor).collect();
            balance.factors.insert(norm.hf_name.clone(), inverse);
            balance.factors.extend(behind.iter().map(|(spec, _)| (spec.hf_name.clone(), factors.clone())));
        }
        Ok(balance)
    }

    /// Factors of the columns of a tensor, if it has any.
    pub fn factors(&self, spec: &TensorSpec) -> Option<&[f32]> {
        self.factors.get(&spec.hf_name).map(Vec::as_slice)
    }
}

/// Whether a matrix multiplies the output of `norm`.
fn reads(matrix: &TensorSpec, norm: &TensorSpec) -> bool {
    let same_block = (matrix.id.stack, matrix.id.block) == (norm.id.stack, norm.id.block);
    match norm.id.role {
        Role::AttentionNorm => same_block && matches!(matrix.id.role, Role::SelfQ | Role::SelfK | Role::SelfV),
        Role::CrossAttentionNorm => same_block && matrix.id.role == Role::CrossQ,
        Role::FeedForwardNorm => same_block && matches!(matrix.id.role, Role::Wi | Role::Wi0 | Role::Wi1),
        Role::FinalNorm if norm.id.stack == Some(Stack::Encoder) => matrix.id.role.reads_encoder_states(),
        Role::FinalNorm => matrix.id.role == Role::OutputHead,
        _ => false,
    }
}

/// ξ[j]² up to a factor: the sum of squares of row j of every `wo` of a stack.
fn squares_of_written_rows(checkpoint: &Checkpoint, plan: &[(TensorSpec, DType)], stack: Stack) -> Result<Vec<f64>> {
    let mut sums = vec![0f64; checkpoint.config.d_model];
    for (spec, _) in plan.iter().filter(|(spec, _)| spec.id.role == Role::Wo && spec.id.stack == Some(stack)) {
        if let Some(wo) = checkpoint.tensor(&spec.hf_name) {
            for_each_row(wo, |index, row| sums[index] += row.iter().map(|value| square(*value)).sum::<f64>())?;
        }
    }
    Ok(sums)
}

/// s for one norm and the matrices behind it. Square roots and arithmetic only: the same on every machine.
fn factors(norm: &Tensor, matrices: &[&Tensor], written: &[f64]) -> Result<Vec<f32>> {
    let mut columns = vec![0f64; written.len()];
    for matrix in matrices {
        for_each_row(matrix, |_, row| columns.iter_mut().zip(row).for_each(|(sum, value)| *sum += square(*value)))?;
    }
    let mut wanted = written.to_vec();
    for_each_row(norm, |_, row| wanted.iter_mut().zip(row).for_each(|(sum, weight)| *sum *= square(*weight)))?;
    let wanted: Vec<f64> = wanted.iter().zip(&columns).map(|(large, small)| (large / small).sqrt().sqrt()).collect();
    let mut sorted: Vec<f64> = wanted.iter().copied().filter(|factor| factor.is_normal()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(1.0);
    // Dead channels stay as they are, and so do values that are refused later.
    let factor = |wanted: &f64| if wanted.is_normal() { (wanted / middle).clamp(1.0 / MOST, MOST) } else { 1.0 };
    Ok(wanted.iter().map(|wanted| factor(wanted) as f32).collect())
}

fn square(value: f32) -> f64 {
    f64::from(value) * f64::from(value)
}

/// Calls `each` with every row's number and values, and gives mapped pages back.
fn for_each_row(tensor: &Tensor, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    tensor.check_size()?;
    let mut row = vec![0.0; tensor.columns()];
    for index in 0..tensor.rows() {
        tensor.decode(tensor.row_data(index), &mut row);
        each(index, &row);
    }
    tensor.data.release();
    Ok(())
}
