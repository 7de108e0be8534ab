//! Folders of sentence-transformers: modules.json, and a folder for each module.

use std::path::Path;

use serde_json::Value;

use super::files::SAFETENSORS;
use super::{Files, PICKLES, head, weights_of};
use crate::error::{Error, Result};
use crate::json::{self, Keys};
use crate::pooling::Pooling;
use crate::sentence_model::{Dense, DenseActivation, SentenceModel, SentenceModule};

pub(crate) const MODULES: &str = "modules.json";
const PROMPTS: &str = "config_sentence_transformers.json";
/// What may say where inputs are cut, in the transformer's folder; the first is what T5's are called.
const TRANSFORMER: [&str; 2] = ["sentence_bert_config.json", "sentence_t5_config.json"];

/// A module as modules.json lists it: the last part of its class, and its folder.
struct Listed {
    class: String,
    folder: String,
}

/// The folder of the encoder within one of sentence-transformers, `""` mostly; `None` for another folder.
pub(in crate::checkpoint) fn transformer_folder(files: Files) -> Result<Option<String>> {
    let Some(list) = listed(files)? else { return Ok(None) };
    match list.into_iter().next() {
        Some(Listed { class, folder }) if class == "Transformer" => Ok(Some(folder)),
        Some(Listed { class, .. }) => Err(unknown(&files.place(MODULES), &class)),
        None => Err(Error::format(files.place(MODULES), "expected at least one module, found none")),
    }
}

/// Reads what is behind the encoder of a folder of sentence-transformers; `None` for another folder. Its vectors have
/// `d_model` values.
pub(in crate::checkpoint) fn read(files: Files, d_model: usize) -> Result<Option<SentenceModel>> {
    let Some(list) = listed(files)? else { return Ok(None) };
    let mut model = SentenceModel::default();
    for (index, Listed { class, folder }) in list.iter().enumerate() {
        match class.as_str() {
            "Transformer" if index == 0 => transformer(files, folder, &mut model)?,
            "Pooling" => model.modules.push(pooling(files, folder)?),
            "Dense" => model.modules.push(SentenceModule::Dense(dense(files, folder)?)),
            "Normalize" => model.modules.push(SentenceModule::Normalize),
            // Does something in training only.
            "Dropout" => {}
            _ => return Err(unknown(&files.place(MODULES), class)),
        }
    }
    if let Some(text) = files.bytes(PROMPTS)? {
        let place = files.place(PROMPTS);
        let json = json::object(&place, &text)?;
        let keys = Keys { file: &place, json: &json };
        if let Some(prompts) = keys.get("prompts") {
            let wrong = || keys.wrong("prompts", "an object of texts", prompts);
            for (name, prompt) in prompts.as_object().ok_or_else(wrong)? {
                let prompt = if prompt.is_null() { Some("") } else { prompt.as_str() };
                model.prompts.insert(name.clone(), prompt.ok_or_else(wrong)?.to_owned());
            }
        }
        model.default_prompt = keys.string("default_prompt_name")?.map(str::to_owned);
    }
    model.check(&files.place(MODULES), d_model)?;
    Ok(Some(model))
}

/// The files of a module, by their paths in the folder, for whoever has to fetch them.
#[cfg(feature = "hub")]
pub(crate) fn is_file_of_module(path: &str) -> bool {
    match path.split_once('/') {
        None => path == MODULES || path == PROMPTS || TRANSFORMER.contains(&path),
        Some((folder, file)) => {
            folder.starts_with(|first: char| first.is_ascii_digit())
                && folder.contains('_')
                && (file == "config.json" || file == SAFETENSORS || file == PICKLES[0])
        }
    }
}

fn unknown(place: &str, class: &str) -> Error {
    let what = format!("expected modules Transformer, Pooling, Dense, Normalize or Dropout, found {class}");
    Error::config(place, "type", what)
}

fn listed(files: Files) -> Result<Option<Vec<Listed>>> {
    let Some(text) = files.bytes(MODULES)? else { return Ok(None) };
    let place = files.place(MODULES);
    let json: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::format(&place, format!("expected a list of modules: {error}")))?;
    let list = json.as_array().ok_or_else(|| Error::format(&place, "expected a list of modules"))?;
    let module = |json: &Value| {
        let keys = Keys { file: &place, json };
        let class =
            keys.string("type")?.ok_or_else(|| Error::config(&place, "type", "expected a class, found none"))?;
        let folder = keys.string("path")?.unwrap_or_default();
        // Folders of this folder, not others.
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
        if !folder.is_empty() && !folder.split('/').all(plain) {
            return Err(Error::config(&place, "path", format!("expected a folder in this one, found {folder:?}")));
        }
        let class = class.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(Listed { class, folder: folder.to_owned() })
    };
    list.iter().map(module).collect::<Result<_>>().map(Some)
}

/// A file of a module's folder.
fn path(folder: &str, file: &str) -> String {
    Path::new(folder).join(file).to_string_lossy().into_owned()
}

/// Where inputs are cut, and whether they become small letters.
fn transformer(files: Files, folder: &str, model: &mut SentenceModel) -> Result<()> {
    for name in TRANSFORMER.map(|name| path(folder, name)) {
        let Some(text) = files.bytes(&name)? else { continue };
        let place = files.place(&name);
        let json = json::object(&place, &text)?;
        let keys = Keys { file: &place, json: &json };
        model.max_seq_length = keys.integer("max_seq_length")?;
        model.lower_case = keys.boolean("do_lower_case")?.unwrap_or(false);
        break;
    }
    let name = path(folder, "tokenizer_config.json");
    if let (None, Some(text)) = (model.max_seq_length, files.bytes(&name)?) {
        let json = json::object(&files.place(&name), &text)?;
        // Tokenizers without a limit say 10^30.
        let limit = json.get("model_max_length").and_then(Value::as_u64).filter(|&limit| limit < 1 << 31);
        model.max_seq_length = limit.and_then(|limit| usize::try_from(limit).ok());
    }
    Ok(())
}

fn config(files: Files, folder: &str, class: &str) -> Result<(String, Value)> {
    let name = path(folder, "config.json");
    let place = files.place(&name);
    match files.bytes(&name)? {
        Some(text) => Ok((place.clone(), json::object(&place, &text)?)),
        None => {
            let what = format!("expected the configuration of the module {class} that {MODULES} lists, found no file");
            Err(Error::format(place, what))
        }
    }
}

fn pooling(files: Files, folder: &str) -> Result<SentenceModule> {
    let (place, json) = config(files, folder, "Pooling")?;
    let keys = Keys { file: &place, json: &json };
    // One name or several, since release 6; before that a switch for each kind.
    let kind = |name: &Value| name.as_str().and_then(Pooling::from_name);
    let kinds = match keys.get("pooling_mode") {
        Some(Value::Array(list)) => list.iter().map(kind).collect(),
        Some(name) => kind(name).map(|kind| vec![kind]),
        None => {
            let switch = |kind: &Pooling| match kind {
                Pooling::First => "pooling_mode_cls_token",
                Pooling::Max => "pooling_mode_max_tokens",
                Pooling::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
                Pooling::WeightedMean => "pooling_mode_weightedmean_tokens",
                Pooling::Last => "pooling_mode_lasttoken",
                Pooling::Mean | Pooling::None => "pooling_mode_mean_tokens",
            };
            let mut on = Vec::new();
            for kind in Pooling::VECTORS {
                if keys.boolean(switch(&kind))?.unwrap_or(false) {
                    on.push(kind);
                }
            }
            Some(on)
        }
    };
    let kinds = kinds.filter(|kinds: &Vec<Pooling>| !kinds.is_empty()).ok_or_else(|| {
        let names: Vec<&str> = Pooling::VECTORS.iter().map(|kind| kind.name()).collect();
        let found = keys.get("pooling_mode").map_or_else(|| "none".to_owned(), Value::to_string);
        Error::config(&place, "pooling_mode", format!("expected one or more of {}, found {found}", names.join(", ")))
    })?;
    Ok(SentenceModule::Pooling { kinds, include_prompt: keys.boolean("include_prompt")?.unwrap_or(true) })
}

fn dense(files: Files, folder: &str) -> Result<Dense> {
    let (place, json) = config(files, folder, "Dense")?;
    let keys = Keys { file: &place, json: &json };
    let size = |key: &str| {
        let size = keys.integer(key)?.filter(|size| (1..=1 << 20).contains(size));
        size.ok_or_else(|| Error::config(&place, key, "expected 1 to 1048576 values, found none or another number"))
    };
    let (columns, rows) = (size("in_features")?, size("out_features")?);
    for (key, usual) in [("module_input_name", "sentence_embedding"), ("module_output_name", "sentence_embedding")] {
        if let Some(found) = keys.string(key)?.filter(|&found| found != usual) {
            return Err(Error::config(&place, key, format!("expected {usual}, found {found}")));
        }
    }
    if keys.boolean("use_residual")?.unwrap_or(false) {
        return Err(Error::config(&place, "use_residual", "expected false, found true"));
    }
    let class = keys.string("activation_function")?.unwrap_or("torch.nn.modules.activation.Tanh");
    let name = class.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let activation = DenseActivation::from_name(&name).filter(|_| class.starts_with("torch.")).ok_or_else(|| {
        let what = format!("expected Identity, Tanh, ReLU or Sigmoid of torch.nn, found {class}");
        Error::config(&place, "activation_function", what)
    })?;

    let names = [SAFETENSORS, PICKLES[0]].map(|name| path(folder, name));
    let place = files.place(&names[0]);
    let found = names.iter().map(|name| Ok(files.bytes(name)?.map(|_| name)));
    let Some(name) = found.collect::<Result<Vec<_>>>()?.into_iter().flatten().next() else {
        return Err(Error::format(place, "expected the weights of a dense layer, found no file"));
    };
    let (place, stored) = (files.place(name), weights_of(files, name)?);
    let values = |name: &str, shape: &[usize]| {
        let Some(tensor) = stored.tensors.get(name) else {
            let what = match stored.unsupported.get(name) {
                Some(dtype) => format!("expected numbers of type F32, F16 or BF16, found {dtype}"),
                None => format!("expected a tensor of shape {shape:?}, found none"),
            };
            return Err(Error::tensor(&place, name, what));
        };
        if tensor.shape != shape {
            return Err(tensor.error(format!("expected shape {shape:?}, found {:?}", tensor.shape)));
        }
        head::values(tensor)
    };
    let bias = if keys.boolean("bias")?.unwrap_or(true) { values("linear.bias", &[rows])? } else { vec![0.0; rows] };
    Ok(Dense { weight: values("linear.weight", &[rows, columns])?, bias, activation })
}
