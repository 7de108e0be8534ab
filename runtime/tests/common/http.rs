//! `t5 serve` as tests start it, and a client that does what it is told, wrong things too.
#![allow(dead_code)] // Each test crate uses a part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Lines of the log, objects each.
    pub log: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    /// The built-in model, unless the arguments name another one.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let (server, lines) = Server::launch(arguments, environment);
        let entries = server.log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                entries.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        server
    }

    /// One whose log nobody reads any more once it listens.
    pub fn start_unheard(arguments: &[&str]) -> Server {
        Server::launch(arguments, &[]).0
    }

    fn launch(arguments: &[&str], environment: &[(&str, &str)]) -> (Server, Lines<BufReader<ChildStderr>>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
            .args(["serve", "--port", "0", "--log-format", "json"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server listens").unwrap();
            let entry: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if entry["message"] == "listening" {
                break entry["address"].as_str().unwrap().parse().unwrap();
            }
        };
        (Server { child, address, log: Arc::default() }, lines)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn get(&self, path: &str) -> Answer {
        Request::new("GET", path).send(self.address)
    }

    /// The answer to a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        Request::post(path, body).send(self.address)
    }

    /// The answer, which must be 200.
    #[track_caller]
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub fn wait_for(&self, metric: &str, value: f64) {
        wait(metric, || self.metric(metric) == value);
    }

    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// How it ends by itself.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A request, which may be wrong in any way.
pub struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        Request { head: format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n"), body: Vec::new() }
    }

    pub fn post(path: &str, body: &Value) -> Request {
        Request::new("POST", path).header("content-type", "application/json").body(body.to_string().as_bytes())
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Request {
        self.body = body.to_vec();
        let length = body.len().to_string();
        self.header("content-length", &length)
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }

    pub fn send(&self, address: SocketAddr) -> Answer {
        self.open(address).finish()
    }

    /// Sends it, and reads the head of the answer.
    pub fn open(&self, address: SocketAddr) -> Reply {
        let mut connection = connect(address);
        connection.write_all(&self.bytes()).unwrap();
        Reply::read(connection).unwrap()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.set_nodelay(true).unwrap();
    connection
}

/// An answer of which the head has come.
pub struct Reply {
    reader: BufReader<TcpStream>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
}

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn read(connection: TcpStream) -> std::io::Result<Reply> {
        let mut reader = BufReader::new(connection);
        let wrong = |line: &str| std::io::Error::other(format!("no head of an answer: {line:?}"));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| wrong(&line))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Reply { reader, status, headers })
    }

    /// The next piece of a body that comes in pieces.
    pub fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut piece = vec![0; length + 2];
        self.reader.read_exact(&mut piece)?;
        piece.truncate(length);
        Ok((length > 0).then_some(piece))
    }

    /// All of the body. The connection is as good as before.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        if let Some(length) = self.headers.get("content-length") {
            let mut body = vec![0; length.parse().map_err(std::io::Error::other)?];
            self.reader.read_exact(&mut body)?;
            return Ok(body);
        }
        let mut body = Vec::new();
        if self.headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            while let Some(piece) = self.chunk()? {
                body.extend(piece);
            }
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    pub fn into_connection(self) -> TcpStream {
        self.reader.into_inner()
    }

    pub fn finish(mut self) -> Answer {
        let body = self.rest().unwrap();
        Answer { status: self.status, headers: self.headers, body }
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The data of server-sent events.
    pub fn events(&self) -> Vec<String> {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{}", self.text());
        let text = self.text();
        let events = text.strip_suffix("\n\n").unwrap().split("\n\n");
        events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }
}
