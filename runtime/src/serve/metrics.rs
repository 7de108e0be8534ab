//! Numbers for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Upper bounds of durations, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// What the format is called.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub first_text: Histogram,
    pub input_tokens: IntCounter,
    pub new_tokens: IntCounter,
    pub cancelled: IntCounter,
    pub passes: IntCounter,
    in_flight: IntGauge,
    decoding: IntGauge,
    /// How long a text takes, when texts follow one another: a sliding mean, in microseconds.
    pace: AtomicU64,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let requests = Opts::new(
            "t5_requests_total",
            "Requests answered; status 499: the client has hung up. Of a stream that an error ended, its status.",
        );
        let requests = IntCounterVec::new(requests, &["endpoint", "status"])?;
        registry.register(Box::new(requests.clone()))?;
        let seconds = HistogramOpts::new("t5_request_seconds", "From a request's head to the end of its answer.");
        let seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["endpoint"])?;
        registry.register(Box::new(seconds.clone()))?;
        let first = HistogramOpts::new("t5_first_text_seconds", "Until the first text of a request, waiting included.");
        let first_text = Histogram::with_opts(first.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(first_text.clone()))?;
        Ok(Metrics {
            first_text,
            input_tokens: counter("t5_input_tokens_total", "Tokens of texts that were read.")?,
            new_tokens: counter("t5_new_tokens_total", "Tokens that were generated.")?,
            cancelled: counter(
                "t5_texts_cancelled_total",
                "Texts, and lists for vectors, that nobody waited for any more.",
            )?,
            passes: counter("t5_decoder_passes_total", "Passes of the decoder, each of all sequences side by side.")?,
            in_flight: gauge("t5_texts_in_flight", "Texts in work and waiting.")?,
            decoding: gauge("t5_texts_generating", "Texts in the batches, those that wait for a sequence included.")?,
            pace: AtomicU64::new(0),
            registry,
            requests,
            seconds,
        })
    }

    /// A request is over.
    pub fn request(&self, endpoint: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[endpoint, &status.to_string()]).inc();
        self.seconds.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    /// A worker has so many texts now, and had so many before.
    pub fn generating(&self, before: usize, now: usize) {
        self.decoding.add(now as i64 - before as i64);
    }

    /// A text is done, so long after the one before it.
    pub fn text_done(&self, after: Duration) {
        let (mean, new) = (self.pace.load(Ordering::Relaxed), after.as_micros() as u64);
        let mean = if mean == 0 { new } else { (15 * mean + new) / 16 };
        self.pace.store(mean, Ordering::Relaxed);
    }

    /// Whole seconds until so many texts will be done, 1 to 60.
    pub fn seconds_for(&self, texts: usize) -> u64 {
        (self.pace.load(Ordering::Relaxed) * texts as u64).div_ceil(1_000_000).clamp(1, 60)
    }

    /// All of them.
    pub fn text(&self, in_flight: usize) -> String {
        self.in_flight.set(in_flight as i64);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_often_is_told_when_to_come_again() {
        let metrics = Metrics::new().unwrap();
        assert_eq!(metrics.seconds_for(100), 1);
        (0..100).for_each(|_| metrics.text_done(Duration::from_millis(50)));
        assert_eq!(metrics.seconds_for(100), 5);
        assert_eq!(metrics.seconds_for(1_000_000), 60);
        metrics.request("/score", 200, Duration::from_millis(3));
        let text = metrics.text(7);
        assert!(text.contains("t5_requests_total{endpoint=\"/score\",status=\"200\"} 1\n"), "{text}");
        assert!(text.contains("t5_texts_in_flight 7\n"), "{text}");
    }
}
