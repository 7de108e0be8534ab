//! `t5 serve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use t5_runtime::{MAX_THREADS, default_threads, physical_cores};
use tracing::level_filters::LevelFilter;

use super::args::{LogFormat, LogLevel, ServeArgs};
use super::input::open_model;
use super::usage;
use crate::serve::{self, Config, Limits};

/// A decoder of at most so many bytes stays in the caches of a processor's core. Then a batch for each thread answers
/// more than one batch whose steps all of them share; a larger one is read from memory in each step, the better the
/// more sequences it is read for.
const IN_CACHES: usize = 16 << 20;

/// Where a token may be, beside a file.
const TOKEN_VARIABLE: &str = "T5_SERVE_TOKEN";

pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    for (flag, value, most) in [
        ("--threads", args.threads.unwrap_or(1), 1024),
        ("--parallel", args.parallel, 256),
        ("--queue", args.queue, 1 << 16),
        ("--connections", args.connections, 1 << 16),
        ("--max-body-bytes", args.max_body_bytes, 1 << 30),
        ("--max-input-tokens", args.max_input_tokens, 1 << 20),
        ("--max-new-tokens", args.max_new_tokens, 1 << 20),
        ("--timeout", args.timeout as usize, 86_400),
    ] {
        if !(1..=most).contains(&value) {
            return Err(usage(format!("{flag}: expected 1 to {most}, found {value}")));
        }
    }
    if let Some(origin) = args.cors.iter().find(|origin| !is_origin(origin)) {
        return Err(usage(format!("--cors: expected an origin such as https://example.org, or *, found {origin:?}")));
    }
    start_log(args.log, args.log_format);
    let token = token(args.token_file.as_deref())?;
    let model = open_model(&args.model)?;
    let small = model.decoder_step_bytes() <= IN_CACHES;
    // Batches side by side may take all cores, each what is good for one.
    let threads = args.threads.unwrap_or_else(|| match args.workers {
        None if small => physical_cores(),
        workers => default_threads().saturating_mul(workers.unwrap_or(1)).min(physical_cores()),
    });
    let workers = match args.workers {
        Some(workers) if (1..=threads).contains(&workers) => workers,
        Some(workers) => {
            return Err(usage(format!("--workers: expected 1 to {threads}, a thread for each, found {workers}")));
        }
        None if small => threads,
        None => 1,
    };
    let most = workers.saturating_mul(MAX_THREADS);
    if threads > most {
        return Err(usage(format!("--threads: expected 1 to {most}, {MAX_THREADS} for each worker, found {threads}")));
    }
    let config = Config {
        host: args.host,
        port: args.port,
        threads,
        workers,
        parallel: args.parallel,
        queue: args.queue,
        connections: args.connections,
        limits: Limits {
            body: args.max_body_bytes,
            input_tokens: args.max_input_tokens,
            new_tokens: args.max_new_tokens,
            time: Duration::from_secs(args.timeout),
        },
        drain: Duration::from_secs(args.drain),
        token,
        origins: args.cors.clone(),
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name(args.model.one()?),
    };
    serve::run(model, name, config)
}

fn start_log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(std::io::stderr);
    // What cannot be written would be told on the same standard error, and a print that fails is a panic: requests
    // would be lost with whoever reads the log.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
}

/// A scheme and a host, perhaps with a port; or all.
fn is_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    origin == "*"
        || host.is_some_and(|host| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'))
}

/// The token of a file, or of the environment. It is never an argument, which everybody on a machine can read.
fn token(file: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let (place, text) = match (file, std::env::var(TOKEN_VARIABLE)) {
        (Some(_), Ok(_)) => {
            return Err(usage(format!("--token-file: expected {TOKEN_VARIABLE} not to be set, found it set")));
        }
        (Some(path), Err(_)) => {
            let place = path.display().to_string();
            (place.clone(), std::fs::read_to_string(path).context(place)?)
        }
        (None, Ok(text)) => (TOKEN_VARIABLE.to_owned(), text),
        (None, Err(std::env::VarError::NotPresent)) => return Ok(None),
        (None, Err(error)) => return Err(error).context(TOKEN_VARIABLE),
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(usage(format!("{place}: expected a token of visible ASCII characters")));
    }
    Ok(Some(token.as_bytes().to_vec()))
}

/// What requests call a model: the name of its file or folder, without the ending.
fn name(model: Option<&str>) -> String {
    let Some(model) = model else { return "pocket-t5".to_owned() };
    let path = PathBuf::from(model.strip_prefix("hf:").unwrap_or(model));
    let path = path.canonicalize().unwrap_or(path);
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_as_its_file() {
        assert_eq!(name(None), "pocket-t5");
        assert_eq!(name(Some("hf:google/flan-t5-small")), "flan-t5-small");
        assert_eq!(name(Some(concat!(env!("CARGO_MANIFEST_DIR"), "/model/pocket-t5.gguf"))), "pocket-t5");
        assert_eq!(name(Some(concat!(env!("CARGO_MANIFEST_DIR"), "/model/"))), "model");
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        for origin in ["*", "https://example.org", "http://localhost:3000"] {
            assert!(is_origin(origin), "{origin}");
        }
        for wrong in ["", "example.org", "https://", "https://example.org/", "https://a b"] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
