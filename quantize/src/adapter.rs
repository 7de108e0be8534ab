//! LoRA adapters in the form of the PEFT library: a folder with `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter has for some of a model's matrices W `[outputs, inputs]` two small ones, A `[rank, inputs]` and B
//! `[outputs, rank]`; the adapted model has `W + scale B A` in their place (Hu et al. 2021).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use t5_runtime::block::decode_tensor;
use t5_runtime::checkpoint::{self, Checkpoint};
use t5_runtime::schema;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::Tensor;
use t5_runtime::{Error, Result};

/// The name of the file that says what an adapter is.
pub const CONFIG: &str = "adapter_config.json";
/// The name of the file that has its matrices.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's modules.
pub const PREFIX: &str = "base_model.model.";

/// The two matrices for one of a model's.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `[rank, inputs]`
    pub a: Vec<f32>,
    /// `[outputs, rank]`
    pub b: Vec<f32>,
    /// Rows of `a`.
    pub rank: usize,
    /// Columns of `a`.
    pub inputs: usize,
    /// Rows of `b`.
    pub outputs: usize,
}

impl Factors {
    /// `w += scale b a`, `w` `[outputs, inputs]`. Sums are in f64, so that a zero `b` changes no bit.
    pub fn add_to(&self, scale: f32, w: &mut [f32]) {
        let mut row = vec![0.0f64; self.inputs];
        for (w, b) in w.chunks_exact_mut(self.inputs).zip(self.b.chunks_exact(self.rank)) {
            row.fill(0.0);
            for (&b, a) in b.iter().zip(self.a.chunks_exact(self.inputs)) {
                row.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
            }
            for (w, &sum) in w.iter_mut().zip(&row) {
                // Not even the sign of a zero changes where there is nothing to add.
                if sum != 0.0 {
                    *w = (f64::from(*w) + f64::from(scale) * sum) as f32;
                }
            }
        }
    }
}

/// An adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What products of the two matrices are multiplied with: alpha / rank, or alpha / sqrt(rank) with rank-stabilised
    /// LoRA.
    pub scale: f32,
    /// By the names of the matrices that they change, such as `encoder.block.0.layer.0.SelfAttention.q.weight`.
    pub factors: BTreeMap<String, Factors>,
    /// The file of the matrices, for messages.
    file: String,
}

impl Adapter {
    /// Reads an adapter's folder.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the adapter is none of LoRA's plain form: another method, trained biases,
    /// whole modules, or ranks that differ between matrices.
    pub fn open(folder: &Path) -> Result<Adapter> {
        let config = folder.join(CONFIG);
        let text = std::fs::read_to_string(&config).map_err(Error::io(&config))?;
        let weights = folder.join(WEIGHTS);
        let bytes = Bytes::map(&weights)?;
        Adapter::parse(&config.display().to_string(), &text, &weights.display().to_string(), &bytes)
    }

    /// As [`Adapter::open`], from what the two files hold; their names are for messages.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn parse(config_file: &str, config: &str, file: &str, weights: &Bytes) -> Result<Adapter> {
        let (rank, scale) = scale(config_file, config)?;
        let mut sides: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for (name, tensor) in checkpoint::safetensors(file, weights)? {
            // With several adapters in one model PEFT writes the adapter's name before `.weight`.
            let place = ["lora_A", "lora_B"].iter().enumerate().find_map(|(side, infix)| {
                let (module, rest) = name.strip_prefix(PREFIX)?.split_once(&format!(".{infix}."))?;
                (rest == "weight" || rest == "default.weight").then(|| (side, format!("{module}.weight")))
            });
            let Some((side, module)) = place else {
                let what = format!("expected {PREFIX}MODULE.lora_A.weight or .lora_B.weight, which can be merged");
                return Err(Error::tensor(file, &name, what));
            };
            sides.entry(module).or_default()[side] = Some(tensor);
        }
        if sides.is_empty() {
            return Err(Error::format(file, "expected LoRA matrices, found none"));
        }
        let mut factors = BTreeMap::new();
        for (module, sides) in sides {
            let [Some(a), Some(b)] = sides else {
                return Err(Error::tensor(file, &module, "expected lora_A and lora_B, found one of them"));
            };
            let (&[rank_of_a, inputs], &[outputs, rank_of_b]) = (&a.shape[..], &b.shape[..]) else {
                return Err(Error::tensor(file, &module, "expected two matrices, found others"));
            };
            if rank_of_a != rank || rank_of_b != rank || inputs == 0 || outputs == 0 {
                let what = format!("expected [{rank}, …] and […, {rank}], found {:?} and {:?}", a.shape, b.shape);
                return Err(Error::tensor(file, &module, what));
            }
            let values = Factors { a: decode_tensor(&a)?, b: decode_tensor(&b)?, rank, inputs, outputs };
            factors.insert(module, values);
        }
        Ok(Adapter { scale, factors, file: file.to_owned() })
    }

    /// What to say before merging where the checkpoint may not be what the adapter was trained on: matrices of a
    /// balanced file are W s, behind norms g / s, for which `scale B A` is wrong unless it was trained for them. Which
    /// of the two it was, neither file says, nor that a file without blocks was made of a balanced one. (Of what reads
    /// the encoder's states the file says s, and t5-train trains on W.)
    pub fn doubt(&self, checkpoint: &Checkpoint) -> Option<String> {
        let in_blocks = |name: &String| checkpoint.tensor(name).is_some_and(|tensor| tensor.dtype.block_len() > 1);
        let doubtful = checkpoint.encoder_scale.is_some() || self.factors.keys().any(in_blocks);
        doubtful.then(|| {
            format!(
                "{} was quantised before: an adapter that t5-train trained on this very file is merged as it should \
                 be, one that was trained on its original gives another model and belongs into the original",
                checkpoint.file
            )
        })
    }

    /// Puts `W + scale B A` in the place of each matrix that the adapter changes, in f32. In the place of `W s`, with
    /// the checkpoint's `encoder_scale` s, comes `(W + scale B A) s`.
    ///
    /// # Errors
    /// If the checkpoint has no such matrix, or one of another shape; the checkpoint is then as it was.
    pub fn merge(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        let mut specs = schema::tensors(&checkpoint.config);
        specs.retain(|spec| spec.id.role.reads_encoder_states());
        let mut merged = Vec::new();
        for (name, factors) in &self.factors {
            let Some(tensor) = checkpoint.tensor(name) else {
                let what = format!("expected a matrix of {}, which has none of this name", checkpoint.file);
                return Err(Error::tensor(&self.file, name, what));
            };
            if tensor.shape != [factors.outputs, factors.inputs] {
                let (outputs, inputs, file) = (factors.outputs, factors.inputs, &checkpoint.file);
                let what = format!("expected {:?} as in {file}, found [{outputs}, {inputs}]", tensor.shape);
                return Err(Error::tensor(&self.file, name, what));
            }
            let mut factors = Cow::Borrowed(factors);
            if let Some(s) = &checkpoint.encoder_scale
                && specs.iter().any(|spec| spec.hf_name == *name)
            {
                let rows = factors.to_mut().a.chunks_exact_mut(s.len());
                rows.for_each(|row| row.iter_mut().zip(s).for_each(|(a, s)| *a *= s));
            }
            let mut values = decode_tensor(tensor)?;
            factors.add_to(self.scale, &mut values);
            merged.push((name, values));
        }
        merged.into_iter().try_for_each(|(name, values)| checkpoint.replace_values(name, &values))
    }
}

/// The rank and the scale that an `adapter_config.json` says, if it says nothing that cannot be merged.
fn scale(file: &str, text: &str) -> Result<(usize, f32)> {
    let wrong = |what: String| Error::format(file, what);
    let config: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("expected a JSON object: {error}")))?;
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind != "LORA" {
        return Err(wrong(format!("peft_type: expected LORA, found {kind:?}")));
    }
    // Keys that change what the matrices mean, with the value that changes nothing.
    let plain = [
        ("bias", Value::from("none")),
        ("use_dora", Value::from(false)),
        ("fan_in_fan_out", Value::from(false)),
        ("lora_bias", Value::from(false)),
        ("modules_to_save", Value::Null),
        ("rank_pattern", Value::Object(Map::new())),
        ("alpha_pattern", Value::Object(Map::new())),
        ("layer_replication", Value::Null),
        ("trainable_token_indices", Value::Null),
        ("target_parameters", Value::Null),
        ("alora_invocation_tokens", Value::Null),
        ("use_qalora", Value::from(false)),
        ("use_bdlora", Value::from(false)),
    ];
    for (key, expected) in plain {
        let found = config.get(key).unwrap_or(&Value::Null);
        let empty = found.is_null() || found.as_array().is_some_and(Vec::is_empty);
        if !empty && *found != expected {
            return Err(wrong(format!("{key}: expected {expected}, the only value that can be merged, found {found}")));
        }
    }
    let rank = config.get("r").and_then(Value::as_u64).filter(|rank| (1..=1 << 16).contains(rank));
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
    let (Some(rank), Some(alpha)) = (rank, alpha) else {
        return Err(wrong("r and lora_alpha: expected a rank of 1 or more and a number".to_owned()));
    };
    let stabilised = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let divisor = if stabilised { (rank as f64).sqrt() } else { rank as f64 };
    Ok((rank as usize, (alpha / divisor) as f32))
}
