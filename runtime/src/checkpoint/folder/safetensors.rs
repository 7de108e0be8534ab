//! Safetensors files: one, or several under an index.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};

use super::Files;
use crate::checkpoint::assemble::Stored;
use crate::error::{Error, Result};
use crate::storage::Bytes;
use crate::tensor::{DType, Tensor};

/// A tensor of bytes with this name, perhaps behind a prefix, is a SentencePiece model.
const SENTENCEPIECE: &str = "spiece_model";

/// Reads one file; tensor data stay slices of `bytes`.
pub(super) fn parse(file: &str, bytes: &Bytes) -> Result<Stored> {
    let wrong = |what: String| Error::format(file, what);
    let prefix: [u8; 8] = bytes
        .get(..8)
        .and_then(|prefix| prefix.try_into().ok())
        .ok_or_else(|| wrong(format!("not a safetensors file: expected at least 8 bytes, found {}", bytes.len())))?;
    let length = u64::from_le_bytes(prefix);
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(8)).filter(|&end| end <= bytes.len());
    let header = end.and_then(|end| bytes.get(8..end)).ok_or_else(|| {
        wrong(format!("not a safetensors file, or cut off: expected a header of {length} bytes in {}", bytes.len()))
    })?;
    // Not `SafeTensors::read_metadata`: its sum of header and data sizes overflows on hostile files.
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| wrong(format!("not a safetensors file: its header cannot be read: {error}")))?;
    let data = bytes.slice(8 + header.len()..bytes.len()).expect("the header lies inside");
    if metadata.data_len() != data.len() {
        return Err(wrong(format!("expected {} bytes of tensor data, found {}", metadata.data_len(), data.len())));
    }
    let mut stored = Stored::default();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F8_E4M3 => DType::F8_E4M3,
            Dtype::F8_E5M2 => DType::F8_E5M2,
            Dtype::U8 if name.rsplit('.').next() == Some(SENTENCEPIECE) => {
                let (start, end) = info.data_offsets;
                let model = data.slice(start..end).map(|model| (name.clone(), model));
                if stored.sentencepiece.is_some() || model.is_none() {
                    return Err(Error::tensor(file, &name, "expected one tokenizer inside the file, found another"));
                }
                stored.sentencepiece = model;
                continue;
            }
            other => {
                stored.unsupported.insert(name, other.to_string());
                continue;
            }
        };
        let data = data.slice(info.data_offsets.0..info.data_offsets.1).ok_or_else(|| {
            Error::tensor(file, &name, format!("expected offsets inside the file, found {:?}", info.data_offsets))
        })?;
        let tensor =
            Tensor { name: name.clone(), file: file.to_owned(), dtype, shape: info.shape.clone(), data, scale: 1.0 };
        stored.tensors.insert(name, tensor);
    }
    Ok(stored)
}

/// The tensors of one file, which need not be a model's.
pub(crate) fn tensors(file: &str, bytes: &Bytes) -> Result<HashMap<String, Tensor>> {
    let stored = parse(file, bytes)?;
    match stored.unsupported.iter().next() {
        Some((name, dtype)) => Err(Error::tensor(file, name, format!("expected F32, F16 or BF16, found {dtype}"))),
        None => Ok(stored.tensors),
    }
}

/// Reads the files that an index names.
pub(super) fn parse_sharded(files: Files, index: &str) -> Result<Stored> {
    let file = files.place(index);
    let text = files.required(index)?;
    // Other keys of an index (`metadata`) are of any type, so only this one is typed.
    let weight_map: BTreeMap<String, String> = serde_json::from_slice::<serde_json::Value>(&text)
        .and_then(|json| serde_json::from_value(json.get("weight_map").cloned().unwrap_or_default()))
        .map_err(|error| Error::format(&file, format!("expected a weight_map from tensor to file name: {error}")))?;
    let mut shards: HashMap<String, Stored> = HashMap::new();
    let mut stored = Stored::default();
    for (name, shard_name) in weight_map {
        if Path::new(&shard_name).file_name() != Some(shard_name.as_ref()) {
            let what = format!("expected the name of a file in the same folder, found {shard_name:?}");
            return Err(Error::tensor(&file, &name, what));
        }
        if !shards.contains_key(&shard_name) {
            shards.insert(shard_name.clone(), super::weights_of(files, &shard_name)?);
        }
        let shard = shards.get_mut(&shard_name).expect("just inserted");
        if let Some(tensor) = shard.tensors.remove(&name) {
            stored.tensors.insert(name, tensor);
        } else if let Some(model) = shard.sentencepiece.take_if(|(found, _)| *found == name) {
            stored.sentencepiece = Some(model);
        } else if let Some(dtype) = shard.unsupported.remove(&name) {
            stored.unsupported.insert(name, dtype);
        } else {
            return Err(Error::tensor(&file, &name, format!("expected it in {shard_name}, found nothing")));
        }
    }
    Ok(stored)
}
