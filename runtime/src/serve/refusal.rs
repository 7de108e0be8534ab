//! What is wrong with a request, told in the form of the protocol that it came by.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use t5_runtime::Error;

use super::fields::Renaming;

/// One sentence, and what programs need to know besides.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// The field of the request that is wrong.
    pub field: Option<String>,
    pub message: String,
    /// Seconds after which to come again.
    pub retry_after: Option<u64>,
}

/// The protocols' forms of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    OpenAi,
    TextGenerationInference,
    /// KServe's, and that of what has no protocol.
    Plain,
}

impl Form {
    pub fn of(path: &str) -> Form {
        match path {
            "/generate" | "/generate_stream" | "/info" => Form::TextGenerationInference,
            path if path.starts_with("/v1/") => Form::OpenAi,
            _ => Form::Plain,
        }
    }
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, field: None, message: message.into(), retry_after: None }
    }

    /// A field with a value that cannot be obeyed.
    pub fn field(name: impl Into<String>, what: impl std::fmt::Display) -> Refusal {
        let name = name.into();
        let message = format!("{name}: {what}");
        Refusal { field: Some(name), ..Refusal::new(StatusCode::BAD_REQUEST, message) }
    }

    /// Of another field, as its protocol calls it.
    pub fn renamed(mut self, names: &[Renaming]) -> Refusal {
        let Some(field) = &self.field else { return self };
        if let Some((from, to)) = names.iter().find(|(from, _)| from == field) {
            self.message = format!("{to}{}", &self.message[from.len()..]);
            self.field = Some((*to).to_owned());
        }
        self
    }

    /// What the library says of a request.
    pub fn of(error: &Error) -> Refusal {
        match error {
            Error::Option { option, what } => Refusal::field(*option, what),
            // An encoder asked for text, a model without a tokenizer.
            Error::Config { .. } | Error::Tokenizer { .. } => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
            Error::Memory { .. } => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    pub fn too_late(seconds: u64) -> Refusal {
        let message = format!("expected an answer within {seconds} s, found that it takes longer");
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
    }

    pub fn broken() -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the model's thread has ended; the server must be started anew")
    }

    /// The body.
    pub fn json(&self, form: Form) -> Value {
        let Refusal { status, field, message, .. } = self;
        match form {
            Form::OpenAi => {
                let kind = match *status {
                    StatusCode::UNAUTHORIZED => "authentication_error",
                    StatusCode::NOT_FOUND => "not_found_error",
                    StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
                    status if status.is_server_error() => "server_error",
                    _ => "invalid_request_error",
                };
                json!({"error": {"message": message, "type": kind, "param": field, "code": status.as_u16()}})
            }
            Form::TextGenerationInference => {
                let kind = match *status {
                    StatusCode::TOO_MANY_REQUESTS => "overloaded",
                    StatusCode::GATEWAY_TIMEOUT => "incomplete_generation",
                    status if status.is_server_error() => "generation",
                    _ => "validation",
                };
                json!({"error": message, "error_type": kind})
            }
            Form::Plain => json!({"error": message}),
        }
    }

    /// The answer.
    pub fn response(&self, form: Form) -> Response {
        // Where the others say 400, this protocol says 422.
        let status = match (form, self.status) {
            (Form::TextGenerationInference, StatusCode::BAD_REQUEST) => StatusCode::UNPROCESSABLE_ENTITY,
            (_, status) => status,
        };
        let mut response = json_response(&self.json(form));
        *response.status_mut() = status;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Left for `watch` to write, which knows the form.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub fn json_response(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_form() {
        let wrong = Refusal::of(&Error::Option { option: "n_best", what: "expected 1, found 2".to_owned() });
        let wrong = wrong.renamed(&[("n_best", "n")]);
        let expected = json!({"error": {
            "message": "n: expected 1, found 2", "type": "invalid_request_error", "param": "n", "code": 400,
        }});
        assert_eq!(wrong.json(Form::of("/v1/completions")), expected);
        let expected = json!({"error": "n: expected 1, found 2", "error_type": "validation"});
        assert_eq!(wrong.json(Form::of("/generate")), expected);
        assert_eq!(wrong.json(Form::of("/v2/models/m/infer")), json!({"error": "n: expected 1, found 2"}));
        assert_eq!(wrong.response(Form::of("/generate")).status(), 422);
        assert_eq!(wrong.response(Form::of("/score")).status(), 400);
        let full = Refusal { retry_after: Some(3), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "full") };
        assert_eq!(full.response(Form::OpenAi).headers()[header::RETRY_AFTER], "3");
        assert_eq!(full.json(Form::TextGenerationInference)["error_type"], "overloaded");
    }
}
