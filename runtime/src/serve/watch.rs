//! What happens to every request: an id, who may ask, which pages may read the answer, errors in their form, the log.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::Instrument;

use super::app::App;
use super::fields::cut;
use super::limits::Config;
use super::refusal::{Form, Refusal};
use super::sse::Failure;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The status of a request whose client has gone, in the log and the metrics; nobody is sent it.
const HUNG_UP: u16 = 499;

/// What may be asked without a token: whether the server lives, and the page, which holds nothing.
const OPEN: [&str; 4] = ["/", "/health", "/v2/health/live", "/v2/health/ready"];

/// A request's name, in its answer and in the log.
#[derive(Clone)]
pub struct RequestId(pub String);

pub fn layers(routes: Router, app: &Arc<App>, config: &Config) -> Router {
    let routes = routes.layer(from_fn_with_state(app.clone(), admit)).layer(from_fn(put_into_form));
    let routes = match config.origins.as_slice() {
        [] => routes,
        origins => routes.layer(cors(origins)),
    };
    routes.layer(from_fn_with_state(app.clone(), watch))
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, REQUEST_ID])
        .expose_headers([REQUEST_ID, header::RETRY_AFTER]);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    layer.allow_origin(AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())))
}

/// Lets in who shows the token, if there is one.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(token) = app.token.as_deref().filter(|_| !OPEN.contains(&request.uri().path())) else {
        return next.run(request).await;
    };
    let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    // How long it takes says nothing of where they differ.
    if bool::from(shown.unwrap_or_default().ct_eq(token)) {
        return next.run(request).await;
    }
    let found = if shown.is_some() { "another one" } else { "none" };
    let message = format!("authorization: expected Bearer and the token of this server, found {found}");
    Refusal::new(StatusCode::UNAUTHORIZED, message).into_response()
}

/// What stands behind `Bearer `, in any spelling of it.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Writes a refusal as its protocol has it.
async fn put_into_form(request: Request, next: Next) -> Response {
    let form = Form::of(request.uri().path());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => {
            let mut response = refusal.response(form);
            response.extensions_mut().insert(Why::of(&refusal));
            response
        }
        None => response,
    }
}

/// Why a request was refused, for the log.
#[derive(Clone)]
struct Why(String);

impl Why {
    /// Of a field no more than its name: a message shows the beginning of what was sent, and texts are not logged.
    fn of(refusal: &Refusal) -> Why {
        Why(refusal.field.as_ref().map_or_else(|| refusal.message.clone(), |field| cut(field, 60)))
    }
}

async fn watch(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).and_then(given).unwrap_or_else(new_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id);
    let mut seen = Seen {
        app,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        endpoint,
        begin: Instant::now(),
        why: None,
        failure: None,
        status: HUNG_UP,
        span: span.clone(),
    };
    let mut response = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    seen.why = response.extensions_mut().remove();
    seen.failure = response.extensions_mut().remove();
    let status = response.status().as_u16();
    let streams = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if !streams {
        seen.answered(status);
        return response;
    }
    // It is over when its last piece is, or when the client has gone before.
    response.map(|body| {
        let pieces = body.into_data_stream();
        Body::from_stream(stream::unfold((pieces, seen), move |(mut pieces, mut seen)| async move {
            let Some(piece) = pieces.next().await else {
                seen.answered(status);
                return None;
            };
            Some((piece, (pieces, seen)))
        }))
    })
}

/// A request that is told of when it is over.
struct Seen {
    app: Arc<App>,
    method: Method,
    path: String,
    /// The path as the routes have it.
    endpoint: String,
    begin: Instant,
    why: Option<Why>,
    /// What may end its stream.
    failure: Option<Failure>,
    /// Until it is answered, that of one whose client has gone.
    status: u16,
    span: tracing::Span,
}

impl Seen {
    fn answered(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(refusal) = self.failure.as_ref().and_then(Failure::get) {
            self.status = refusal.status.as_u16();
            self.why = Some(Why::of(refusal));
        }
        let took = self.begin.elapsed();
        self.app.metrics.request(&self.endpoint, self.status, took);
        let (method, path, status, ms) = (&self.method, self.path.as_str(), self.status, took.as_secs_f64() * 1e3);
        let ms = (ms * 1e3).round() / 1e3;
        self.span.in_scope(|| match &self.why {
            Some(Why(why)) => tracing::info!(%method, path, status, ms, why, "refused"),
            None if status == HUNG_UP => tracing::info!(%method, path, status, ms, "the client has gone"),
            None => tracing::info!(%method, path, status, ms, "answered"),
        });
    }
}

/// The id that a client gave, if it may stand in a log.
fn given(header: &HeaderValue) -> Option<String> {
    let id = header.to_str().ok()?;
    ((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())).then(|| id.to_owned())
}

fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Each of these states has keys of its own.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b"abc"[..], b"Basic abc", b"Bearer", b""] {
            assert_eq!(bearer(wrong), None);
        }
    }

    #[test]
    fn an_id_is_what_may_stand_in_a_log() {
        let id = |text: &'static str| given(&HeaderValue::from_static(text));
        assert_eq!(id("a-1_B").as_deref(), Some("a-1_B"));
        assert_eq!((id("a b"), id("")), (None, None));
        assert_ne!(new_id(), new_id());
    }
}
