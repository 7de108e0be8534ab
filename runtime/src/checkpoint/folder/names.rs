//! The names of one file's tensors: which of them are a T5's, and what they are called elsewhere.
//!
//! Files for image and video models hold a T5 beside other models, under a prefix of their own
//! (`text_encoders.t5xxl.transformer.`), the transformers library keeps that of a classifier beside its head
//! (`transformer.`), and the Wan models spell its tensors in their own way. All become the names of [`schema`], under
//! which the rest of this crate looks for them; a tensor itself keeps the name that its file has for it, for messages.

use std::collections::{BTreeMap, HashMap};

use crate::checkpoint::assemble::Stored;
use crate::error::{Error, Result};
use crate::schema::{self, Role, Stack, TensorId};
use crate::tensor::Tensor;

/// What stands behind the prefix in Wan's spelling of a T5. Other models have `blocks.0.attn.q.weight`, too.
const OF_WAN: [&str; 3] = ["blocks.0.attn.q.weight", "blocks.0.ffn.fc1.weight", "token_embedding.weight"];

/// Ends of the names of what every value of the weight beside it is multiplied with.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// Ends of the names of what only other ways of computing products need: scales of activations, and how weights were
/// made.
const WITHOUT_EFFECT: [&str; 4] = ["scale_input", "input_scale", "comfy_quant", "scaled_fp8"];

/// Gives the T5 among the tensors of `file` its usual names, puts other models aside, and scales where they belong.
///
/// # Errors
/// Where there are two T5s, two tensors for one weight, or a scale that is not one number.
pub(super) fn settle(file: &str, stored: &mut Stored) -> Result<Prefix> {
    let mut beside = Prefix::default();
    if let Some((prefix, wan)) = place(file, stored)? {
        if !prefix.is_empty() {
            beside = take_prefix_off(stored, prefix);
        }
        if wan {
            rename(file, &mut stored.tensors)?;
            rename(file, &mut stored.unsupported)?;
        }
    }
    scale(file, stored)?;
    Ok(beside)
}

/// What stood before the names of the T5.
#[derive(Default)]
pub(super) struct Prefix {
    name: String,
    /// How many tensors of types that no model has stand under other names.
    unsupported: usize,
}

impl Prefix {
    /// A note where tensors are left that are not the T5's.
    pub(super) fn note(&self, file: &str, stored: &Stored) -> Option<String> {
        let count = stored.others.len() + self.unsupported;
        let prefix = &self.name;
        (count > 0).then(|| format!("{file}: the T5 is {prefix}*; {count} tensors beside it are not its own"))
    }
}

/// The prefix of the T5's names, and whether they are Wan's; `None` where there is none to be seen.
fn place(file: &str, stored: &Stored) -> Result<Option<(String, bool)>> {
    let usual = schema::hf_name(in_encoder(Role::SelfQ, Some(0)));
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    for name in stored.tensors.keys().chain(stored.unsupported.keys()) {
        let prefix = |first: &str| name.strip_suffix(first).filter(|rest| rest.is_empty() || rest.ends_with('.'));
        if let Some(prefix) = prefix(&usual) {
            found.insert(prefix, false);
        } else if let Some(prefix) = prefix(OF_WAN[0])
            && OF_WAN.iter().all(|rest| stored.has(&format!("{prefix}{rest}")))
        {
            found.insert(prefix, true);
        }
    }
    if found.len() > 1 {
        let names: Vec<String> = found.keys().map(|prefix| format!("{prefix}*")).collect();
        let what = format!("expected the tensors of one T5, found those of {}: {}", names.len(), names.join(", "));
        return Err(Error::format(file, what));
    }
    Ok(found.pop_first().map(|(prefix, wan)| (prefix.to_owned(), wan)))
}

/// Takes the prefix off, and puts aside what does not have it.
fn take_prefix_off(stored: &mut Stored, prefix: String) -> Prefix {
    fn part<T>(tensors: &mut HashMap<String, T>, prefix: &str) -> HashMap<String, T> {
        let (own, others): (HashMap<_, _>, _) =
            std::mem::take(tensors).into_iter().partition(|(name, _)| name.starts_with(prefix));
        *tensors = own.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
        others
    }
    stored.others = part(&mut stored.tensors, &prefix);
    let unsupported = part(&mut stored.unsupported, &prefix).len();
    Prefix { name: prefix, unsupported }
}

/// Gives tensors with Wan's names the usual ones.
fn rename<T>(file: &str, tensors: &mut HashMap<String, T>) -> Result<()> {
    for (name, tensor) in std::mem::take(tensors) {
        let usual = usual(&name).unwrap_or_else(|| name.clone());
        if tensors.insert(usual, tensor).is_some() {
            return Err(Error::tensor(file, name, "expected one tensor for each weight, found another with it"));
        }
    }
    Ok(())
}

/// The usual name for one of Wan's; what is said of a weight (`X.scale_weight`) goes with it.
fn usual(name: &str) -> Option<String> {
    let (module, rest) = name.rsplit_once('.')?;
    let id = match module {
        "token_embedding" => TensorId { role: Role::TokenEmbedding, stack: None, block: None },
        "norm" => in_encoder(Role::FinalNorm, None),
        // One table for all blocks.
        "pos_embedding.embedding" => in_encoder(Role::RelativeBias, Some(0)),
        _ => {
            let (block, module) = module.strip_prefix("blocks.")?.split_once('.')?;
            let role = match module {
                "norm1" => Role::AttentionNorm,
                "attn.q" => Role::SelfQ,
                "attn.k" => Role::SelfK,
                "attn.v" => Role::SelfV,
                "attn.o" => Role::SelfO,
                "pos_embedding.embedding" => Role::RelativeBias,
                "norm2" => Role::FeedForwardNorm,
                "ffn.gate.0" => Role::Wi0,
                "ffn.fc1" => Role::Wi1,
                "ffn.fc2" => Role::Wo,
                _ => return None,
            };
            in_encoder(role, Some(block.parse().ok()?))
        }
    };
    Some(format!("{}.{rest}", schema::hf_name(id).strip_suffix(".weight")?))
}

fn in_encoder(role: Role, block: Option<usize>) -> TensorId {
    TensorId { role, stack: Some(Stack::Encoder), block }
}

/// Notes in each weight the scale that is stored beside it.
fn scale(file: &str, stored: &mut Stored) -> Result<()> {
    let end = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    stored.tensors.retain(|name, _| !WITHOUT_EFFECT.contains(&end(name).as_str()));
    stored.unsupported.retain(|name, _| !WITHOUT_EFFECT.contains(&end(name).as_str()));
    let is_scale = |name: &&String| SCALES.contains(&end(name).as_str());
    if let Some((name, dtype)) = stored.unsupported.iter().find(|(name, _)| is_scale(name)) {
        return Err(Error::tensor(file, name, format!("expected one number of type F32, F16 or BF16, found {dtype}")));
    }
    let names: Vec<String> = stored.tensors.keys().filter(is_scale).cloned().collect();
    for name in names {
        let Some(scale) = stored.tensors.remove(&name) else { continue };
        let (module, _) = name.rsplit_once('.').unwrap_or_default();
        let Some(weight) = stored.tensors.get_mut(&format!("{module}.weight")) else {
            return Err(scale.error("expected the weight that it scales beside it, found none"));
        };
        if weight.scale != 1.0 {
            return Err(scale.error("expected one scale for each weight, found a second"));
        }
        weight.scale = number(&scale)?;
    }
    Ok(())
}

/// The number that a tensor of one value holds.
fn number(tensor: &Tensor) -> Result<f32> {
    if tensor.len() != 1 {
        let what = format!("expected one number to scale all of a weight, found shape {:?}", tensor.shape);
        return Err(tensor.error(what));
    }
    tensor.check_size()?;
    let mut value = [0.0];
    tensor.decode(&tensor.data, &mut value);
    if !value[0].is_finite() {
        return Err(tensor.error(format!("expected a finite scale, found {}", value[0])));
    }
    Ok(value[0])
}
