//! What of a model is trained: everything, everything by and by from the top, or low-rank factors beside matrices that
//! stay as they are (LoRA, Hu et al. 2021).
//!
//! A factored matrix is `W + scale B A`. It is kept as that sum, so that passes read it as any other matrix; B and A
//! get their gradients from that of the sum: `dB = scale dW A^T`, `dA = scale B^T dW`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use t5_quantize::adapter::{self, Adapter, Factors};
use t5_runtime::config::Adapters;
use t5_runtime::schema::{Role, Stack, TensorSpec};

use crate::config::Config;
use crate::kernels::{Mat, MatMut, Precision, Product, multiply};
use crate::ops::{Gradients, Values, update_in_place};
use crate::parameters::Parameters;
use crate::random::{Random, derive, hash_bytes};
use crate::{Error, Result, files};

/// The section `[tuning]` of a run's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub method: Method,
    /// Gradual: steps after which the next block from the top begins to be trained; 0 divides the run evenly.
    pub episode_steps: u64,
    /// LoRA: columns of B, rows of A.
    pub rank: usize,
    /// LoRA: `scale` is `alpha / rank`.
    pub alpha: f64,
    /// LoRA: `scale` is `alpha / sqrt(rank)` instead.
    pub rank_stabilised: bool,
    /// LoRA: names of modules, or their ends behind a dot, as PEFT's `target_modules`; "all-linear" alone means every
    /// matrix but the embedding and the head.
    pub targets: Vec<String>,
    /// LoRA: an adapter's folder to go on from; empty: A is drawn and B is zero.
    pub adapter: String,
    /// Adapters: their width.
    #[serde(default = "usual_adapter_size")]
    pub adapter_size: usize,
    /// Adapters: inside the feed-forward layers, as the paper's text has them, or layers of their own, as its released
    /// configuration.
    #[serde(default)]
    pub adapter_inside: bool,
    /// Adapters: whether all norms are trained, too.
    #[serde(default)]
    pub adapter_norms: bool,
}

fn usual_adapter_size() -> usize {
    64
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every parameter.
    All,
    /// The embedding and the top block of each stack, then one block more in each episode.
    Gradual,
    /// Low-rank factors alone.
    Lora,
    /// Small layers that are put in behind the feed-forward layers.
    Adapters,
}

impl Options {
    /// Refuses what cannot be.
    pub(crate) fn check(&self, file: &str, config: &Config) -> Result<()> {
        let refuse = |key: &str, what: String| Err(Error::config(file, key, what));
        if self.method != Method::Lora && !self.adapter.is_empty() {
            let what = format!("expected none unless tuning.method is lora, found {}", self.adapter);
            return refuse("tuning.adapter", what);
        }
        if !matches!(self.method, Method::Lora | Method::Adapters) {
            return Ok(());
        }
        if config.model.from.is_empty() {
            return refuse("tuning.method", "expected model.from, whose matrices stay as they are".to_owned());
        }
        if self.method == Method::Adapters {
            if !(1..=1 << 20).contains(&self.adapter_size) {
                return refuse("tuning.adapter_size", format!("expected 1 to 1048576, found {}", self.adapter_size));
            }
            if config.model.share_stacks {
                let what = "expected false with adapters, which each stack has of its own".to_owned();
                return refuse("model.share_stacks", what);
            }
            if config.optimizer.keep_slots {
                return refuse("optimizer.keep_slots", "expected false with adapters, which are new".to_owned());
            }
            return Ok(());
        }
        if !(1..=1 << 16).contains(&self.rank) {
            return refuse("tuning.rank", format!("expected 1 to 65536, found {}", self.rank));
        }
        if !self.alpha.is_finite() || self.alpha <= 0.0 {
            return refuse("tuning.alpha", format!("expected a number above 0, found {}", self.alpha));
        }
        if config.checkpoint.average_decay > 0.0 {
            let what = "expected 0 with LoRA, since an average of products is no product".to_owned();
            return refuse("checkpoint.average_decay", what);
        }
        if config.model.share_stacks {
            let what = "expected false with LoRA: adapters name the matrices of each stack".to_owned();
            return refuse("model.share_stacks", what);
        }
        if config.optimizer.keep_slots {
            return refuse("optimizer.keep_slots", "expected false with LoRA, whose factors are new".to_owned());
        }
        Ok(())
    }

    /// The adapters that are asked for.
    pub(crate) fn adapters(&self) -> Adapters {
        Adapters { size: self.adapter_size, inside: self.adapter_inside }
    }

    /// How many blocks of each stack are trained at a step, counted from the top; `None`: all.
    pub fn blocks_at(&self, step: u64, steps: u64, blocks: usize) -> Option<usize> {
        if self.method != Method::Gradual {
            return None;
        }
        let episode = if self.divides_the_run() { steps.div_ceil(blocks.max(1) as u64) } else { self.episode_steps };
        Some((step / episode.max(1)) as usize + 1)
    }

    /// Whether what is trained at a step depends on how many there are.
    pub(crate) fn divides_the_run(&self) -> bool {
        self.method == Method::Gradual && self.episode_steps == 0
    }

    fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32
    }
}

/// Whether a tensor is trained while `blocks` blocks from the top are. What belongs to a stack as a whole goes with the
/// block that it stands beside: the final norm with the last, the one table of positions with the first. The embedding
/// and the head are trained from the start, as in the paper.
pub(crate) fn is_trained(spec: &TensorSpec, blocks: usize, encoder: usize, decoder: usize) -> bool {
    blocks_above(spec, encoder, decoder).is_none_or(|above| above < blocks)
}

/// Whether a tensor is trained where adapters are: they alone, or with all norms.
pub(crate) fn is_chosen(role: Role, norms: bool) -> bool {
    role.is_adapter() || norms && role.is_norm()
}

/// How many blocks of its stack are above a tensor's; `None` for one that belongs to no block.
pub(crate) fn blocks_above(spec: &TensorSpec, encoder: usize, decoder: usize) -> Option<usize> {
    let all = if spec.id.stack? == Stack::Encoder { encoder } else { decoder };
    Some(all - 1 - spec.id.block?)
}

/// One matrix and its factors.
struct Factored {
    /// Where the matrix is among the parameters.
    index: usize,
    /// Its name without `.weight`.
    module: String,
    /// W, `[outputs, inputs]`.
    base: Vec<f32>,
    outputs: usize,
    inputs: usize,
    /// A `[rank, inputs]` and B `[outputs, rank]`.
    factors: [Var; 2],
}

/// The factors of a model.
pub struct Lora {
    rank: usize,
    scale: f32,
    options: Options,
    base_model: String,
    factored: Vec<Factored>,
    /// Of A and B of each matrix in turn.
    gradients: Gradients,
}

impl Lora {
    /// Factors for the matrices of a model that the options name; the model is then the adapted one.
    pub(crate) fn new(parameters: &Parameters, options: &Options, base_model: &str, seed: u64) -> Result<Lora> {
        let given = match options.adapter.as_str() {
            "" => None,
            folder => Some(Adapter::open(Path::new(folder))?),
        };
        let wrong = |key: &str, what: String| Error::config("configuration", key, what);
        if let Some(given) = &given {
            let unknown = |name: &&String| !parameters.specs().iter().any(|spec| spec.hf_name == **name);
            if let Some(name) = given.factors.keys().find(unknown) {
                return Err(wrong("tuning.adapter", format!("{name}: expected a matrix of the model, found none")));
            }
            if given.scale != options.scale() {
                let what = format!("expected the adapter's {}, found {}", given.scale, options.scale());
                return Err(wrong("tuning.alpha / rank", what));
            }
        }
        let mut used = vec![false; options.targets.len()];
        let (mut factored, mut sizes) = (Vec::new(), Vec::new());
        for (index, spec) in parameters.specs().iter().enumerate() {
            let &[outputs, inputs] = &spec.shape[..] else { continue };
            let module = spec.hf_name.strip_suffix(".weight").unwrap_or(&spec.hf_name).to_owned();
            if !is_targeted(spec, &module, &options.targets, &mut used) {
                continue;
            }
            let rank = options.rank;
            let (a, b) = match given.as_ref().map(|given| given.factors.get(&spec.hf_name)) {
                Some(Some(Factors { a, b, rank: found, inputs: i, outputs: o }))
                    if (*found, *i, *o) == (rank, inputs, outputs) =>
                {
                    (a.clone(), b.clone())
                }
                Some(found) => {
                    let found =
                        found.map_or("none".to_owned(), |f| format!("{} of {} x {}", f.rank, f.outputs, f.inputs));
                    let what = format!("{module}: expected rank {rank} of {outputs} x {inputs}, found {found}");
                    return Err(wrong("tuning.adapter", what));
                }
                None => {
                    // PEFT's: uniform within inputs^-0.5, and zero.
                    let random = &mut Random::new(derive(seed, &[hash_bytes(module.as_bytes())]));
                    let limit = (inputs as f64).powf(-0.5);
                    let a = (0..rank * inputs).map(|_| ((2.0 * random.uniform() - 1.0) * limit) as f32).collect();
                    (a, vec![0.0; outputs * rank])
                }
            };
            sizes.extend([a.len(), b.len()]);
            let factors =
                [Var::from_vec(a, (rank, inputs), &Device::Cpu)?, Var::from_vec(b, (outputs, rank), &Device::Cpu)?];
            let base = parameters.values(index)?;
            factored.push(Factored { index, module, base, outputs, inputs, factors });
        }
        if let Some((target, _)) = options.targets.iter().zip(used).find(|(_, used)| !used) {
            let mut names: Vec<&str> = parameters.specs().iter().filter_map(short_name).collect();
            names.sort_unstable();
            names.dedup();
            let what = format!("expected names of matrices ({}) or all-linear, found {target}", names.join(", "));
            return Err(wrong("tuning.targets", what));
        }
        if factored.is_empty() {
            return Err(wrong("tuning.targets", "expected one or more names of matrices, found none".to_owned()));
        }
        // What is not trained on would not be in the model either.
        let unused =
            |name: &&String| !factored.iter().any(|factored| parameters.specs()[factored.index].hf_name == **name);
        if let Some(name) = given.iter().flat_map(|given| given.factors.keys()).find(unused) {
            let what = format!("{name}: expected a matrix that tuning.targets names, found factors of another");
            return Err(wrong("tuning.adapter", what));
        }
        let lora = Lora {
            rank: options.rank,
            scale: options.scale(),
            options: options.clone(),
            base_model: base_model.to_owned(),
            factored,
            gradients: Gradients::new(sizes),
        };
        // The gradients of other tensors are never computed.
        for index in 0..parameters.specs().len() {
            let wanted = lora.factored.iter().any(|factored| factored.index == index);
            parameters.want_gradient(index, wanted);
        }
        lora.merge(parameters)?;
        Ok(lora)
    }

    /// The trained tensors: name, shape, values, and where the gradient is in [`Lora::gradients`].
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, &Var, usize)> {
        self.factored.iter().enumerate().flat_map(move |(at, factored)| {
            let module = &factored.module;
            let shapes = [vec![self.rank, factored.inputs], vec![factored.outputs, self.rank]];
            let names = ["lora_A", "lora_B"].map(|side| format!("{}{module}.{side}.weight", adapter::PREFIX));
            names
                .into_iter()
                .zip(shapes)
                .zip(&factored.factors)
                .enumerate()
                .map(move |(side, ((name, shape), var))| (name, shape, var, 2 * at + side))
        })
    }

    /// The place of the matrix that a trained tensor is a factor of.
    pub(crate) fn factored(&self, index: usize) -> usize {
        self.factored[index / 2].index
    }

    pub(crate) fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Puts `W + scale B A` into the model.
    pub(crate) fn merge(&self, parameters: &Parameters) -> Result<()> {
        self.factored.par_iter().try_for_each(|factored| -> Result<()> {
            let [a, b] = [&factored.factors[0], &factored.factors[1]].map(|var| Values::new(var.as_tensor()));
            let (a, b) = (a?.to_vec(), b?.to_vec());
            let Factored { inputs, outputs, .. } = *factored;
            let factors = Factors { a, b, rank: self.rank, inputs, outputs };
            update_in_place(&parameters.vars()[factored.index], |w| {
                w.copy_from_slice(&factored.base);
                factors.add_to(self.scale, w);
            })?;
            Ok(())
        })
    }

    /// Moves the gradients of the sums to the factors.
    pub(crate) fn collect(&self, parameters: &Parameters) -> Result<()> {
        self.factored.iter().enumerate().try_for_each(|(at, factored)| -> Result<()> {
            let (rank, inputs, outputs) = (self.rank, factored.inputs, factored.outputs);
            let mut dw = parameters.gradients().get(factored.index);
            dw.iter_mut().for_each(|dw| *dw *= self.scale);
            let [a, b] = [Values::new(factored.factors[0].as_tensor())?, Values::new(factored.factors[1].as_tensor())?];
            let d = Mat::new(&dw, outputs, inputs, inputs);
            let (mut da, mut db) = (self.gradients.get(2 * at), self.gradients.get(2 * at + 1));
            let add = |out: MatMut, x: Mat, y: Mat| multiply(out, Product::Add, x, y, Precision::F32);
            add(MatMut::new(&mut da, rank, inputs, inputs), Mat::new(&b, outputs, rank, rank).t(), d);
            add(MatMut::new(&mut db, outputs, rank, rank), d, Mat::new(&a, rank, inputs, inputs).t());
            dw.fill(0.0);
            Ok(())
        })
    }

    /// Writes the factors as PEFT does.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        files::create_folder(folder)?;
        let tensors: Vec<(String, Vec<usize>, &Var, usize)> = self.tensors().collect();
        let values = tensors
            .iter()
            .map(|(name, shape, var, _)| {
                Ok((name.clone(), shape.as_slice(), Cow::Owned(Values::new(var.as_tensor())?.to_vec())))
            })
            .collect::<Result<Vec<_>>>()?;
        files::write_tensors(&folder.join(adapter::WEIGHTS), values)?;
        let targets = match self.options.targets.as_slice() {
            [all] if all == ALL_LINEAR => json!(ALL_LINEAR),
            targets => json!(targets),
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": "SEQ_2_SEQ_LM",
            "base_model_name_or_path": self.base_model,
            "r": self.rank,
            "lora_alpha": self.options.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.options.rank_stabilised,
            "target_modules": targets,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        files::write_synced(&folder.join(adapter::CONFIG), format!("{config:#}\n").as_bytes())
    }

    /// Goes on with the factors of a checkpoint's folder.
    pub(crate) fn restore(&self, parameters: &Parameters, folder: &Path) -> Result<()> {
        let mut read: BTreeMap<String, Factors> = Adapter::open(folder)?.factors;
        for factored in &self.factored {
            let name = format!("{}.weight", factored.module);
            let Some(Factors { a, b, .. }) = read.remove(&name) else {
                return Err(Error::file(
                    folder.join(adapter::WEIGHTS),
                    format!("{name}: expected its factors, found none"),
                ));
            };
            for (var, values) in factored.factors.iter().zip([a, b]) {
                if var.as_tensor().elem_count() != values.len() {
                    let what = format!("{name}: expected factors of rank {}, found others", self.rank);
                    return Err(Error::file(folder.join(adapter::WEIGHTS), what));
                }
                update_in_place(var, |old| old.copy_from_slice(&values))?;
            }
        }
        self.merge(parameters)
    }
}

/// PEFT's name for every matrix but the embedding and the head.
const ALL_LINEAR: &str = "all-linear";

/// What PEFT's lists call a matrix, if it can be factored.
fn short_name(spec: &TensorSpec) -> Option<&str> {
    let linear = spec.shape.len() == 2 && !matches!(spec.id.role, Role::TokenEmbedding | Role::RelativeBias);
    linear.then(|| spec.hf_name.strip_suffix(".weight")?.rsplit('.').next()).flatten()
}

/// The shapes of A and B of a tensor that the options name.
pub(crate) fn factor_shapes(spec: &TensorSpec, options: &Options) -> Option<[[usize; 2]; 2]> {
    let module = spec.hf_name.strip_suffix(".weight").unwrap_or(&spec.hf_name);
    let targeted = is_targeted(spec, module, &options.targets, &mut vec![false; options.targets.len()]);
    let &[outputs, inputs] = &spec.shape[..] else { return None };
    targeted.then_some([[options.rank, inputs], [outputs, options.rank]])
}

fn is_targeted(spec: &TensorSpec, module: &str, targets: &[String], used: &mut [bool]) -> bool {
    if short_name(spec).is_none() {
        return false;
    }
    let mut targeted = false;
    for (target, used) in targets.iter().zip(used) {
        let all = target == ALL_LINEAR && targets.len() == 1 && spec.id.role != Role::OutputHead;
        let ends = module.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if all || ends {
            *used = true;
            targeted = true;
        }
    }
    targeted
}
