//! `t5 serve` under load: 64 clients, texts of all lengths, one in ten of whom hangs up and one in a hundred of whom
//! sends what is no request. No error, no request without an answer, every text as it is alone, and memory that stays.
//! `tests/run load` runs it; by hand:
//!
//! ```sh
//! POCKET_T5_LOAD_SECONDS=60 cargo test --profile unchecked -p t5-runtime --features serve --test serve_load -- \
//!     --ignored --nocapture
//! ```
//!
//! With POCKET_T5_LOAD_ADDRESS=127.0.0.1:8000 it asks another server that answers `/v1/completions`, such as
//! tests/peers/serve_peer.py, whose texts are compared with those that it gives one by one.

#[path = "common/http.rs"]
mod http;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Reply, Request, Server, connect};
use serde_json::{Value, json};
use t5_runtime::{Model, Overrides};

const CLIENTS: usize = 64;

/// Everyday sentences; a text has one to eight of them.
const SENTENCES: [&str; 16] = [
    "Where is the station?",
    "I am looking for my brother.",
    "The old man sat by the window and watched the rain.",
    "She has never been to Paris, but she speaks French very well.",
    "Could you tell me what time the next train to Berlin leaves?",
    "It is too late.",
    "My father bought a new car last week because the old one was broken.",
    "We want to eat something before we go home.",
    "If it rains tomorrow, the children will have to stay in the house all day.",
    "Tom is taller than all the other boys in his class.",
    "Thank you!",
    "He opened the door, looked around carefully, and then went slowly down the stairs.",
    "I do not know whether he will come.",
    "The book that you gave me yesterday is very interesting.",
    "How much does this cost?",
    "There were a lot of people waiting in front of the theatre when we arrived there at eight o'clock.",
];

/// Words that are pronounced: the shortest requests.
const WORDS: [&str; 6] = ["station", "window", "brother", "through", "yesterday", "interesting"];

/// The head of a request, as far as its length.
macro_rules! head {
    () => {
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: "
    };
}

/// What is no request.
const GARBAGE: [&[u8]; 4] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    concat!(head!(), "5\r\n\r\n{\"pro").as_bytes(),
    // No UTF-8 follows.
    concat!(head!(), "3\r\n\r\n").as_bytes(),
    b"GET /v1/nothing HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// A sequence of numbers that a seed determines (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn texts() -> Vec<String> {
    let mut numbers = Numbers(1);
    let mut texts: Vec<String> = WORDS.iter().map(|word| format!("pronounce: {word}")).collect();
    for sentences in [1, 1, 1, 2, 2, 3, 5, 8] {
        for task in ["translate English to German: ", "translate English to French: ", "fix: "] {
            for _ in 0..4 {
                let some = (0..sentences).map(|_| SENTENCES[numbers.below(SENTENCES.len())]);
                texts.push(format!("{task}{}", some.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

fn body(text: &str, stream: bool) -> Value {
    json!({"prompt": text, "stream": stream, "max_tokens": 128})
}

/// A client that keeps its connection.
struct Client {
    address: SocketAddr,
    connection: Option<std::net::TcpStream>,
}

/// A text, and how many new tokens it is of (0 where the answer does not say).
type Completed = (String, usize);

impl Client {
    fn open(&mut self, request: &Request) -> std::io::Result<Reply> {
        let mut connection = self.connection.take().unwrap_or_else(|| connect(self.address));
        connection.write_all(&request.bytes())?;
        Reply::read(connection)
    }

    fn complete(&mut self, text: &str, stream: bool) -> std::io::Result<Completed> {
        let mut reply = self.open(&Request::post("/v1/completions", &body(text, stream)))?;
        let answer = String::from_utf8(reply.rest()?).map_err(std::io::Error::other)?;
        let (status, closes) = (reply.status, reply.headers.get("connection").is_some_and(|value| value == "close"));
        if !closes {
            self.connection = Some(reply.into_connection());
        }
        let wrong = || std::io::Error::other(format!("{status}: {answer}"));
        if status != 200 {
            return Err(wrong());
        }
        let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(std::io::Error::other);
        if !stream {
            let answer = parse(&answer)?;
            let text = answer["choices"][0]["text"].as_str().ok_or_else(wrong)?;
            return Ok((text.to_owned(), answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize));
        }
        let events = answer.strip_suffix("data: [DONE]\n\n").ok_or_else(wrong)?;
        let mut text = String::new();
        for event in events.split_terminator("\n\n") {
            let chunk = parse(event.strip_prefix("data: ").ok_or_else(wrong)?)?;
            text += chunk["choices"][0]["text"].as_str().ok_or_else(wrong)?;
        }
        Ok((text, 0))
    }

    /// Asks, and goes away: at once, or after the first piece.
    fn hang_up(&mut self, text: &str, after_a_piece: bool) -> std::io::Result<()> {
        if after_a_piece {
            let mut reply = self.open(&Request::post("/v1/completions", &body(text, true)))?;
            reply.chunk()?;
            return Ok(());
        }
        let mut connection = self.connection.take().unwrap_or_else(|| connect(self.address));
        connection.write_all(&Request::post("/v1/completions", &body(text, false)).bytes())
    }

    fn send_garbage(&mut self, kind: usize) -> std::io::Result<()> {
        let kind = kind % GARBAGE.len();
        self.connection = None;
        let mut connection = connect(self.address);
        connection.write_all(GARBAGE[kind])?;
        if kind == 2 {
            connection.write_all(b"\xff\xfe\xfd")?;
        }
        // A server may also close without a word.
        match Reply::read(connection) {
            Ok(reply) if !(400..500).contains(&reply.status) => {
                Err(std::io::Error::other(format!("garbage is answered {}", reply.status)))
            }
            _ => Ok(()),
        }
    }
}

/// Megabytes that a process has in memory.
fn memory(process: Option<u32>) -> f64 {
    let read = |id: u32| std::fs::read_to_string(format!("/proc/{id}/status")).ok();
    let status = process.and_then(read).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

#[derive(Default)]
struct Seen {
    /// Milliseconds of each answer.
    times: Vec<f64>,
    tokens: usize,
    hung_up: usize,
    garbage: usize,
    errors: Vec<String>,
}

#[test]
#[ignore = "a minute and more: tests/run load"]
fn load() {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds = variable("POCKET_T5_LOAD_SECONDS").map_or(60, |seconds| seconds.parse().expect("seconds"));
    let flags = variable("POCKET_T5_LOAD_FLAGS").unwrap_or_default();
    let peer: Option<SocketAddr> =
        variable("POCKET_T5_LOAD_ADDRESS").map(|address| address.parse().expect("HOST:PORT"));
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let server = peer.is_none().then(|| Server::start(&flags));
    let address = peer.or(server.as_ref().map(|server| server.address)).unwrap();
    let process = server.as_ref().map(Server::id);
    let texts = texts();

    // One at a time: what the texts are, and how fast that is.
    let mut one = Client { address, connection: None };
    let expected: Vec<Completed> = texts.iter().map(|text| one.complete(text, false).unwrap()).collect();
    let begin = Instant::now();
    let (mut alone, mut alone_tokens, mut alone_times) = (0, 0, Vec::new());
    while begin.elapsed() < Duration::from_secs(seconds / 4 + 1) {
        let place = alone % texts.len();
        let asked = Instant::now();
        assert_eq!(one.complete(&texts[place], false).unwrap(), expected[place]);
        alone_times.push(1e3 * asked.elapsed().as_secs_f64());
        alone_tokens += expected[place].1;
        alone += 1;
    }
    let alone_seconds = begin.elapsed().as_secs_f64();
    alone_times.sort_by(f64::total_cmp);
    if peer.is_none() {
        let model = Model::pocket().unwrap();
        let options = Overrides { max_new_tokens: Some(128), ..Overrides::default() };
        let options = model.options(&options).unwrap();
        let mut session = model.session();
        for (text, (found, _)) in texts.iter().zip(&expected) {
            assert_eq!(&session.generate(text, &options).unwrap().finish()[0].text, found);
        }
    }

    // All of them.
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let number = AtomicUsize::new(0);
    let client = || {
        let mut client = Client { address, connection: None };
        let mut seen = Seen::default();
        while Instant::now() < end {
            let request = number.fetch_add(1, Ordering::Relaxed);
            let mut numbers = Numbers(request as u64);
            let place = numbers.below(texts.len());
            let (text, stream) = (&texts[place], numbers.below(2) == 0);
            let asked = Instant::now();
            let done = match numbers.below(100) {
                0 => {
                    seen.garbage += 1;
                    client.send_garbage(request)
                }
                1..=10 => {
                    seen.hung_up += 1;
                    client.hang_up(text, stream)
                }
                _ => client.complete(text, stream).and_then(|(found, _)| {
                    seen.times.push(1e3 * asked.elapsed().as_secs_f64());
                    seen.tokens += expected[place].1;
                    let same = found == expected[place].0;
                    same.then_some(()).ok_or_else(|| std::io::Error::other(format!("{text}: {found}")))
                }),
            };
            if let Err(error) = done {
                client.connection = None;
                seen.errors.push(error.to_string());
            }
        }
        seen
    };
    let mut memories = BTreeMap::new();
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(500));
            memories.insert(begin.elapsed().as_millis(), memory(process));
        }
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let took = begin.elapsed().as_secs_f64();
    let mut times: Vec<f64> = all.iter().flat_map(|seen| seen.times.clone()).collect();
    times.sort_by(f64::total_cmp);
    let tokens: usize = all.iter().map(|seen| seen.tokens).sum();
    let errors: Vec<&String> = all.iter().flat_map(|seen| &seen.errors).collect();
    let (hung_up, garbage) =
        (all.iter().map(|seen| seen.hung_up).sum::<usize>(), all.iter().map(|seen| seen.garbage).sum::<usize>());
    let rate = times.len() as f64 / took;
    let alone_rate = alone as f64 / alone_seconds;
    println!(
        "one at a time: {alone} texts in {alone_seconds:.1} s, {alone_rate:.1} texts/s, {:.0} tokens/s, p50 {:.1} ms, \
         p99 {:.1} ms",
        alone_tokens as f64 / alone_seconds,
        percentile(&alone_times, 0.5),
        percentile(&alone_times, 0.99),
    );
    println!(
        "{CLIENTS} clients: {} texts in {took:.1} s, {rate:.1} texts/s ({:.2} times as many), {:.0} tokens/s, \
         p50 {:.1} ms, p99 {:.1} ms; {hung_up} hung up, {garbage} sent garbage, {} errors",
        times.len(),
        rate / alone_rate,
        tokens as f64 / took,
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        errors.len(),
    );
    assert!(errors.is_empty(), "{:?}", &errors[..errors.len().min(5)]);
    assert!(hung_up > 0 && garbage > 0 && times.len() > CLIENTS);
    if let Some(server) = &server {
        // After a quarter of the time everything has its size.
        let settled: Vec<f64> = memories.range((1000 * u128::from(seconds) / 4)..).map(|(_, memory)| *memory).collect();
        let (first, last) = (settled[0], settled[settled.len() - 1]);
        println!("memory: {first:.1} MB after a quarter of the time, {last:.1} MB at its end");
        assert!(last < 1.1 * first + 2.0, "{settled:?}");
        // Nothing is left behind, and none was lost.
        server.wait_for("t5_texts_in_flight", 0.0);
        let answered = server.get("/metrics").text();
        assert!(!answered.contains("status=\"5") && !answered.contains("status=\"429\""), "{answered}");
        assert_eq!(server.post("/v1/completions", &body(&texts[0], false)).json()["choices"][0]["text"], expected[0].0);
    }
}
