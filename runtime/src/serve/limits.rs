//! What the server is told when it starts.

use std::net::IpAddr;
use std::time::Duration;

/// What one request may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Tokens of a text, of all its sentences.
    pub input_tokens: usize,
    /// New tokens of a text (of each of its sentences).
    pub new_tokens: usize,
    /// From its last byte to the last byte of its answer.
    pub time: Duration,
}

/// How to serve.
pub struct Config {
    pub host: IpAddr,
    /// 0: one that is free.
    pub port: u16,
    /// Threads that work the model, all together.
    pub threads: usize,
    /// Batches side by side, which share the threads out: at most as many.
    pub workers: usize,
    /// Sequences that a worker decodes side by side.
    pub parallel: usize,
    /// Texts in work and waiting.
    pub queue: usize,
    pub connections: usize,
    pub limits: Limits,
    /// How long what was begun may take once a signal has come.
    pub drain: Duration,
    /// What a request must show.
    pub token: Option<Vec<u8>>,
    /// Pages of which hosts may read answers; `*`: of all.
    pub origins: Vec<String>,
}
