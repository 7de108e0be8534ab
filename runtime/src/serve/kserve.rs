//! `/v2`: KServe's open inference protocol. A text is an element of a tensor of bytes.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use t5_runtime::Overrides;

use super::app::{App, Generation, Input};
use super::embeddings;
use super::engine::What;
use super::fields::Fields;
use super::options;
use super::refusal::{Refusal, json_response};

/// The tensor that goes in.
const INPUT: &str = "text";
/// Those that come out: texts and their scores, or vectors.
const TEXT: &str = "text";
const SCORE: &str = "score";
const EMBEDDING: &str = "embedding";

pub async fn live(State(app): State<Arc<App>>) -> Response {
    status(app.is_alive(), "live")
}

pub async fn ready(State(app): State<Arc<App>>) -> Response {
    status(app.is_alive(), "ready")
}

fn status(yes: bool, what: &str) -> Response {
    let mut response = json_response(&json!({what: yes}));
    if !yes {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

pub async fn server() -> Response {
    json_response(&json!({"name": "t5", "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
}

/// A model's name in a path, unless it is not UTF-8.
type Name = Result<Path<String>, PathRejection>;

pub async fn model_ready(State(app): State<Arc<App>>, name: Name) -> Result<Response, Refusal> {
    check_name(&app, name)?;
    Ok(status(app.is_alive(), "ready").into_response())
}

pub async fn model(State(app): State<Arc<App>>, name: Name) -> Result<Response, Refusal> {
    check_name(&app, name)?;
    let tensor = |name: &str, kind: &str, shape: Value| json!({"name": name, "datatype": kind, "shape": shape});
    let width = app.model.width_of(&t5_runtime::EncodeOptions::default());
    let mut outputs = vec![tensor(EMBEDDING, "FP32", json!([-1, width]))];
    if !app.model.config().is_encoder_only() {
        outputs.splice(0..0, [tensor(TEXT, "BYTES", json!([-1])), tensor(SCORE, "FP32", json!([-1]))]);
    }
    Ok(json_response(&json!({
        "name": app.name,
        "versions": [],
        "platform": "t5",
        "inputs": [tensor(INPUT, "BYTES", json!([-1]))],
        "outputs": outputs,
    })))
}

fn check_name(app: &App, name: Name) -> Result<(), Refusal> {
    match name {
        Ok(Path(name)) if name == app.name => Ok(()),
        Ok(Path(name)) => Err(app.unknown_model("model", &name)),
        Err(_) => Err(Refusal::field("model", "expected a name in UTF-8, found other bytes in the path")),
    }
}

pub async fn infer(State(app): State<Arc<App>>, name: Name, request: Request) -> Result<Response, Refusal> {
    check_name(&app, name)?;
    if request.headers().contains_key("inference-header-content-length") {
        let message = "inference-header-content-length: expected JSON alone, found a binary extension";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let mut fields = app.fields(request).await?;
    let id: Option<String> = fields.get("id")?;
    let (texts, shape) = read_inputs(&mut fields)?;
    app.check_count("inputs", texts.len())?;
    let wanted = read_outputs(&app, &mut fields)?;
    let mut parameters = fields.object("parameters")?;
    fields.end()?;
    let inputs = texts.into_iter().map(Input::Text).collect();
    let outputs = if wanted == [EMBEDDING] {
        let options = embeddings::options(&mut parameters)?;
        parameters.end()?;
        let width = app.model.width_of(&options);
        let (answers, _) = app.encode("inputs", inputs, options).await?;
        let vectors = |what| if let What::Vectors(vectors) = what { Some(vectors) } else { None };
        let vectors = answers.all(vectors).await?.into_iter().flatten();
        let data: Vec<f32> = vectors.flat_map(|vector| vector.values).collect();
        let shape: Vec<usize> = shape.into_iter().chain([width]).collect();
        vec![json!({"name": EMBEDDING, "datatype": "FP32", "shape": shape, "data": data})]
    } else {
        let mut overrides = Overrides::default();
        options::take(&mut parameters, &mut overrides)?;
        overrides.seed.get_or_insert_with(options::any_seed);
        parameters.end()?;
        let best = *overrides.n_best.get_or_insert(1);
        overrides.logprobs = Some(wanted.contains(&SCORE));
        let Generation { answers, .. } = app.generate("inputs", inputs, overrides).await?;
        let results = |what| if let What::Outputs(outputs) = what { Some(outputs) } else { None };
        let results = answers.all(results).await?;
        // Beam search may find fewer than were asked for.
        if let Some(found) = results.iter().find(|results| results.len() != best) {
            let message = format!("n_best: expected {best} texts of each, found {} of one", found.len());
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        let shape: Vec<usize> = if best > 1 { shape.into_iter().chain([best]).collect() } else { shape };
        let all: Vec<_> = results.into_iter().flatten().collect();
        let tensor = |&name: &&str| match name {
            TEXT => {
                let data: Vec<&str> = all.iter().map(|output| output.text.as_str()).collect();
                json!({"name": TEXT, "datatype": "BYTES", "shape": shape, "data": data})
            }
            _ => {
                let data: Vec<f32> = all.iter().map(|output| output.score).collect();
                json!({"name": SCORE, "datatype": "FP32", "shape": shape, "data": data})
            }
        };
        wanted.iter().map(tensor).collect()
    };
    let mut answer = json!({"model_name": app.name, "outputs": outputs});
    if let Some(id) = id {
        answer["id"] = json!(id);
    }
    Ok(json_response(&answer))
}

/// The texts, in their order, and the tensor's shape.
fn read_inputs(fields: &mut Fields) -> Result<(Vec<String>, Vec<usize>), Refusal> {
    let mut tensor = only_of_list(fields, "inputs")?;
    let name: String = tensor.need("name")?;
    if name != INPUT {
        return Err(tensor.refuse("name", format!("expected {INPUT:?}, found {name:?}")));
    }
    let kind: String = tensor.need("datatype")?;
    if kind != "BYTES" {
        return Err(tensor.refuse("datatype", format!("expected \"BYTES\", found {kind:?}")));
    }
    let shape: Vec<u32> = tensor.need("shape")?;
    let data = tensor.value("data").unwrap_or_default();
    let mut texts = Vec::new();
    if !flatten(&data, &mut texts) {
        return Err(tensor.wrong("data", "a list of strings", &data));
    }
    let shape: Vec<usize> = shape.into_iter().map(|extent| extent as usize).collect();
    if shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)) != Some(texts.len()) {
        return Err(tensor.refuse("shape", format!("expected one of {} texts, found {shape:?}", texts.len())));
    }
    tensor.object("parameters")?.end()?;
    tensor.end()?;
    Ok((texts, shape))
}

/// Data may be nested as the shape is, or one flat list.
fn flatten(data: &Value, texts: &mut Vec<String>) -> bool {
    let Some(list) = data.as_array() else { return false };
    list.iter().all(|one| match one {
        Value::String(text) => {
            texts.push(text.clone());
            true
        }
        nested => flatten(nested, texts),
    })
}

/// The names of the tensors that are wanted.
fn read_outputs(app: &App, fields: &mut Fields) -> Result<Vec<&'static str>, Refusal> {
    let usual = if app.model.config().is_encoder_only() { EMBEDDING } else { TEXT };
    let mut wanted = Vec::new();
    for mut tensor in objects_of_list(fields, "outputs")? {
        let name: String = tensor.need("name")?;
        let Some(known) = [TEXT, SCORE, EMBEDDING].into_iter().find(|known| *known == name) else {
            return Err(tensor.refuse("name", format!("expected {TEXT:?}, {SCORE:?} or {EMBEDDING:?}, found {name:?}")));
        };
        if wanted.contains(&known) {
            return Err(tensor.refuse("name", format!("expected each output once, found {known:?} twice")));
        }
        tensor.object("parameters")?.end()?;
        tensor.end()?;
        wanted.push(known);
    }
    if wanted.is_empty() {
        wanted.push(usual);
    }
    if wanted.len() > 1 && wanted.contains(&EMBEDDING) {
        return Err(fields.refuse("outputs", "expected texts or vectors in a request, found both"));
    }
    Ok(wanted)
}

fn objects_of_list(fields: &mut Fields, name: &str) -> Result<Vec<Fields>, Refusal> {
    let Some(value) = fields.value(name) else { return Ok(Vec::new()) };
    match value {
        Value::Array(list) => list.into_iter().enumerate().map(|(i, one)| fields.within(name, i, one)).collect(),
        other => Err(fields.wrong(name, "a list of tensors", &other)),
    }
}

fn only_of_list(fields: &mut Fields, name: &str) -> Result<Fields, Refusal> {
    let list = objects_of_list(fields, name)?;
    let [only] = <[Fields; 1]>::try_from(list)
        .map_err(|list| fields.refuse(name, format!("expected one tensor, {INPUT:?}, found {}", list.len())))?;
    Ok(only)
}
