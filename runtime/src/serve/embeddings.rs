//! `/v1/embeddings`, in OpenAI's form.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use t5_runtime::{EncodeOptions, Pooling};

use super::app::App;
use super::engine::What;
use super::fields::{Field, Fields};
use super::refusal::{Refusal, json_response};

/// How numbers are written.
enum Encoding {
    Float,
    Base64,
}

impl Field for Encoding {
    const EXPECTED: &'static str = "\"float\" or \"base64\"";

    fn read(value: &Value) -> Option<Encoding> {
        match value.as_str()? {
            "float" => Some(Encoding::Float),
            "base64" => Some(Encoding::Base64),
            _ => None,
        }
    }
}

struct OneVector(Pooling);

impl Field for OneVector {
    const EXPECTED: &'static str = r#""mean", "first", "last", "max", "mean_sqrt_len_tokens" or "weightedmean""#;

    fn read(value: &Value) -> Option<OneVector> {
        Pooling::asked(value.as_str()?).filter(|&pooling| pooling != Pooling::None).map(OneVector)
    }
}

/// How texts become vectors, by the library's names.
pub fn options(fields: &mut Fields) -> Result<EncodeOptions, Refusal> {
    Ok(EncodeOptions {
        pooling: fields.get("pooling")?.map(|OneVector(pooling)| pooling),
        normalize: fields.get("normalize")?.unwrap_or(false),
        prompt: fields.get("prompt")?,
        ..EncodeOptions::default()
    })
}

pub async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let mut fields = app.fields(request).await?;
    app.check_model(&mut fields)?;
    let inputs = app.inputs(&mut fields, "input")?;
    let encoding = fields.get("encoding_format")?.unwrap_or(Encoding::Float);
    let options = options(&mut fields)?;
    let width = app.model.width_of(&options);
    fields.only("dimensions", &json!(width), "vectors of this model are not cut")?;
    if let Some(user) = fields.get::<String>("user")? {
        tracing::info!(user, "on behalf of");
    }
    fields.end()?;
    let named = |refusal: Refusal| refusal.renamed(&[("source", "input")]);
    let (answers, tokens) = app.encode("input", inputs, options).await.map_err(named)?;
    let vectors = |what| if let What::Vectors(vectors) = what { Some(vectors) } else { None };
    let vectors = answers.all(vectors).await?.into_iter().flatten();
    let data: Vec<Value> = vectors
        .enumerate()
        .map(|(index, vector)| {
            let embedding = match encoding {
                Encoding::Float => json!(vector.values),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = vector.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    json!(STANDARD.encode(bytes))
                }
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(json_response(&json!({"object": "list", "data": data, "model": app.name, "usage": usage})))
}
