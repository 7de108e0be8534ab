//! Factors that move magnitude between the decoder's final norm and an output head of its own.
//!
//! The head is where int8 hurts most (README.md): a few channels of the last hidden state are far larger than the
//! others, so 32 activations or weights that share a scale are rounded by the step of the largest. The logits are
//!
//! ```text
//! z[v] = Σ_j W[v, j] · g[j] · x[j]        x: the hidden state over its root mean square, g: the norm's weight
//! ```
//!
//! and stay what they are when W[v, j] s[j] and g[j] / s[j] are stored, for any s > 0. Errors of weights and activations
//! are balanced where a channel's weights are as large as its activations, each against the others: s[j] =
//! sqrt(|g[j]| ξ[j] / w[j]), with w[j] the root mean square of the head's column and ξ[j] that of x[j]. ξ is known
//! only when the model runs, but what writes channel j of the hidden state is row j of each feed-forward `wo`, and the
//! norm of those rows is near enough. (SmoothQuant, Xiao et al. 2022, section 4, with α = 1/2 and without samples.)
//!
//! Factors are powers of two, so that the product of the stored values is the same number, bit for bit, before the
//! head is rounded to int8.

use t5_runtime::Result;
use t5_runtime::block;
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::schema::{Role, Stack, TensorSpec};
use t5_runtime::tensor::{DType, Tensor};

/// No channel is moved further than this power of two.
const MAX_EXPONENT: i32 = 12;

/// Whether and how two tensors are stored with other magnitudes than they were read with.
pub(crate) struct Balance {
    /// s[j]: the head's columns are multiplied with it.
    head: Vec<f32>,
    /// 1 / s[j] for the final norm.
    norm: Vec<f32>,
}

impl Balance {
    /// The factors for a plan; none where there is no head, or it is not rounded to blocks now.
    pub fn new(checkpoint: &Checkpoint, plan: &[(TensorSpec, DType)]) -> Result<Option<Balance>> {
        let tensors = |wanted: fn(&TensorSpec) -> bool| {
            plan.iter().filter(move |(spec, _)| wanted(spec)).filter_map(|(spec, _)| checkpoint.tensor(&spec.hf_name))
        };
        let head_dtype = plan.iter().find(|(spec, _)| spec.id.role == Role::OutputHead).map(|(_, dtype)| *dtype);
        let (Some(head), Some(norm), Some(dtype)) =
            (tensors(|spec| spec.id.role == Role::OutputHead).next(), tensors(is_final_norm).next(), head_dtype)
        else {
            return Ok(None);
        };
        if head.dtype.block_len() > 1 || dtype.block_len() == 1 {
            return Ok(None);
        }
        let mut columns = vec![0f64; head.columns()];
        for_each_row(head, |_, row| {
            columns.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) * f64::from(*value));
        })?;
        let mut rows = vec![0f64; head.columns()];
        for wo in tensors(|spec| spec.id.role == Role::Wo && spec.id.stack == Some(Stack::Decoder)) {
            for_each_row(wo, |index, row| {
                rows[index] += row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
            })?;
        }
        let mut weights = vec![0f64; head.columns()];
        for_each_row(norm, |_, row| {
            weights.iter_mut().zip(row).for_each(|(weight, value)| *weight = f64::from(*value));
        })?;
        let ratios = weights.iter().zip(&rows).zip(&columns).map(|((g, row), column)| g * g * row / column);
        let exponents: Vec<Option<i32>> = ratios.map(fourth_root_exponent).collect();
        let known: Vec<i32> = exponents.iter().copied().flatten().collect();
        let mean = known.iter().sum::<i32>().div_euclid(known.len().max(1) as i32);
        let factor = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
        let exponents: Vec<i32> = exponents
            .into_iter()
            .map(|exponent| exponent.map_or(0, |exponent| (exponent - mean).clamp(-MAX_EXPONENT, MAX_EXPONENT)))
            .collect();
        Ok(Some(Balance {
            head: exponents.iter().map(|exponent| factor(*exponent)).collect(),
            norm: exponents.iter().map(|exponent| factor(-exponent)).collect(),
        }))
    }

    /// What the columns of a tensor are multiplied with, if it is one of the two.
    pub fn factors(&self, spec: &TensorSpec) -> Option<&[f32]> {
        match spec.id.role {
            Role::OutputHead => Some(&self.head),
            _ if is_final_norm(spec) => Some(&self.norm),
            _ => None,
        }
    }
}

fn is_final_norm(spec: &TensorSpec) -> bool {
    spec.id.role == Role::FinalNorm && spec.id.stack == Some(Stack::Decoder)
}

/// The exponent of the power of two nearest to the fourth root of `value`, from its own exponent alone: the same on
/// every machine. `None` where there is none: dead channels, and values that are refused later.
fn fourth_root_exponent(value: f64) -> Option<i32> {
    // round(log2(value) / 4) = floor((log2(value) + 2) / 4), and floor may be taken first.
    value.is_normal().then(|| (((value.to_bits() >> 52) & 0x7ff) as i32 - 1023 + 2).div_euclid(4))
}

/// Calls `each` with every row's number and values, and gives mapped pages back.
fn for_each_row(tensor: &Tensor, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    tensor.check_size()?;
    let mut row = vec![0.0; tensor.columns()];
    for index in 0..tensor.rows() {
        block::decode(tensor.dtype, tensor.row_data(index), &mut row);
        each(index, &row);
    }
    tensor.data.release();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourth_roots_are_rounded_to_powers_of_two() {
        for (value, exponent) in [(1.0, 0), (16.0, 1), (256.0, 2), (1.0 / 16.0, -1), (3.9, 0), (4.0, 1), (63.0, 1)] {
            assert_eq!(fourth_root_exponent(value), Some(exponent), "{value}");
            assert_eq!((value.log2() / 4.0 + 0.5).floor() as i32, exponent, "{value}");
        }
        for value in [0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(fourth_root_exponent(value), None, "{value}");
        }
    }
}
