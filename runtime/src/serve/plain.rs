//! What has no protocol: `/score`, the page, `/health`, `/metrics`, and what there is not.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::app::App;
use super::engine::What;
use super::fields::{Fields, Strings};
use super::metrics::CONTENT_TYPE;
use super::refusal::{Refusal, json_response};

const PAGE: &str = include_str!("page.html");

/// The page asks this server alone.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub async fn page() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

pub async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, text) = match app.is_alive() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the thread that works the model has ended"),
    };
    (status, json_response(&json!({"status": text, "model": app.name, "texts_in_flight": app.in_flight()})))
        .into_response()
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.metrics.text(app.in_flight())).into_response()
}

/// `t5 score` of one pair of texts, or of several.
pub async fn score(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let mut fields = app.fields(request).await?;
    app.check_model(&mut fields)?;
    let pairs = pairs(&mut fields)?;
    fields.end()?;
    app.check_count("source", pairs.len())?;
    let scores = |what| if let What::Score(score) = what { Some(score) } else { None };
    let scores = app.score(pairs).await?.all(scores).await?;
    let one = |score: &t5_runtime::Score| json!({"sum": score.sum, "logprobs": score.logprobs, "ids": score.ids});
    let scores: Vec<Value> = scores.iter().map(one).collect();
    Ok(json_response(&json!({"model": app.name, "scores": scores})))
}

fn pairs(fields: &mut Fields) -> Result<Vec<(String, String)>, Refusal> {
    let (Strings(sources), Strings(targets)) = (fields.need("source")?, fields.need("target")?);
    if sources.len() != targets.len() {
        let what = format!("expected as many texts as sources ({}), found {}", sources.len(), targets.len());
        return Err(fields.refuse("target", what));
    }
    Ok(sources.into_iter().zip(targets).collect())
}

pub async fn not_found(request: Request) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no {}", request.uri().path()))
}

pub async fn not_allowed(request: Request) -> Refusal {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
