//! `t5 serve`: one model behind HTTP.
//!
//! A request's way: `listen` has the connections, `watch` gives it an id, a line in the log and its place in the
//! numbers, and lets in who may; a module for each protocol (`completions`, `embeddings`, `tgi`, `kserve`, `plain`)
//! reads it by `fields` and `options` and writes the answer. `app` asks the workers in between: whether there is room,
//! and within which limits. A worker is an `engine`, a thread that works the model, a step at a time for all requests
//! that it has: texts in a [`Batch`](t5_runtime::Batch), which they join and leave, and beside it `side`, which encodes
//! and scores. A request's texts go to the one that has least to do. Who is gone is noticed between two steps. What is
//! wrong is a `refusal`, told in the form of its protocol.

mod app;
mod completions;
mod embeddings;
mod engine;
mod fields;
mod kserve;
mod limits;
mod listen;
mod metrics;
mod options;
mod plain;
mod refusal;
mod side;
mod sse;
mod tgi;
mod tokens;
mod watch;

use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::routing::{get, post};
use t5_runtime::Model;
use tokio::net::TcpListener;

use app::App;
pub use limits::{Config, Limits};

/// Threads that read requests and write answers: little work, but not to wait for one another.
const HTTP_THREADS: usize = 2;

/// Serves until a signal comes and what was begun is answered.
pub fn run(model: Model, name: String, config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("t5-http")
        .enable_all()
        .build()
        .context("no threads for connections")?;
    let done = runtime.block_on(serve(model, name, &config));
    // What a late client holds does not hold the program.
    runtime.shutdown_background();
    done
}

async fn serve(model: Model, name: String, config: &Config) -> anyhow::Result<()> {
    let place = format!("{}:{}", config.host, config.port);
    let listener = TcpListener::bind((config.host, config.port)).await.context(place)?;
    let address = listener.local_addr()?;
    let (app, mut ended) = App::start(model, name, config)?;
    let app = Arc::new(app);
    if !address.ip().is_loopback() && config.token.is_none() {
        tracing::warn!("whoever reaches {address} may ask: no token is set (--token-file)");
    }
    let Config { parallel, queue, threads, workers, .. } = *config;
    tracing::info!(%address, model = app.name, parallel, queue, threads, workers, "listening");
    let whole = listen::serve(listener, router(&app, config), config, ended.recv()).await?;
    if !app.is_alive() {
        bail!("a thread that works the model has ended");
    }
    tracing::info!(whole, "stopped");
    Ok(())
}

fn router(app: &Arc<App>, config: &Config) -> Router {
    let routes = Router::new()
        .route("/", get(plain::page))
        .route("/health", get(plain::health))
        .route("/metrics", get(plain::metrics))
        .route("/score", post(plain::score))
        .route("/v1/models", get(completions::models))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/info", get(tgi::info))
        .route("/generate", post(tgi::generate))
        .route("/generate_stream", post(tgi::generate_stream))
        .route("/v2", get(kserve::server))
        .route("/v2/health/live", get(kserve::live))
        .route("/v2/health/ready", get(kserve::ready))
        .route("/v2/models/{name}", get(kserve::model))
        .route("/v2/models/{name}/ready", get(kserve::model_ready))
        .route("/v2/models/{name}/infer", post(kserve::infer))
        .fallback(plain::not_found)
        .method_not_allowed_fallback(plain::not_allowed)
        .with_state(app.clone());
    watch::layers(routes, app, config)
}
