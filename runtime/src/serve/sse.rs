//! Answers that come in pieces: server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

use super::app::{Answers, Told};
use super::refusal::{Form, Refusal};

/// How a protocol writes what comes.
pub trait Writer: Send + 'static {
    const FORM: Form;

    /// The events of what has been told.
    fn write(&mut self, told: Told, events: &mut Vec<Value>);

    /// The last ones.
    fn end(&mut self, events: &mut Vec<Value>);

    /// What stands behind the last event of a stream that has come to its end.
    const LAST: &'static str = "";
}

/// What a stream that had begun ended with in place of its end: for the log, with the answer that it belongs to.
#[derive(Clone, Default)]
pub struct Failure(Arc<OnceLock<Refusal>>);

impl Failure {
    pub fn get(&self) -> Option<&Refusal> {
        self.0.get()
    }
}

struct Stream<W> {
    /// Told already.
    told: VecDeque<Result<Told, Refusal>>,
    answers: Answers,
    writer: W,
    failure: Failure,
    over: bool,
}

/// The answer; its head waits for the first word of the engine, so that a request that cannot be done has the status
/// that it should.
pub async fn response<W: Writer>(mut answers: Answers, writer: W) -> Result<Response, Refusal> {
    let first = answers.next().await.transpose()?.map(Ok);
    let failure = Failure::default();
    let told = first.into_iter().collect();
    let stream = Stream { told, answers, writer, failure: failure.clone(), over: false };
    let body = stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx would wait for more.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (headers, Body::from_stream(body)).into_response();
    response.extensions_mut().insert(failure);
    Ok(response)
}

impl<W: Writer> Stream<W> {
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        while text.is_empty() && !self.over {
            let told = match self.told.pop_front() {
                Some(told) => Some(told),
                None => self.answers.next().await,
            };
            let mut events = Vec::new();
            match told {
                Some(Ok(told)) => self.writer.write(told, &mut events),
                // Nothing comes behind it.
                Some(Err(refusal)) => {
                    events.push(refusal.json(W::FORM));
                    let _ = self.failure.0.set(refusal);
                    self.over = true;
                }
                None => {
                    self.writer.end(&mut events);
                    self.over = true;
                }
            }
            for event in events {
                let _ = write!(text, "data: {event}\n\n");
            }
            if self.over && self.failure.get().is_none() {
                text.push_str(W::LAST);
            }
        }
        (!text.is_empty()).then(|| text.into())
    }
}
