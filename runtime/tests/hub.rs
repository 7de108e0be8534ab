//! `hf:` names against a small server that answers as the hub does.
#![cfg(feature = "hub")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use t5_runtime::hub::{Hub, Progress};

/// What the server has and how it behaves.
#[derive(Default)]
struct State {
    /// (repository, revision) to commit.
    revisions: BTreeMap<(String, String), String>,
    /// (repository, commit) to files.
    files: BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>,
    /// Repositories that need this token.
    secret: BTreeMap<String, String>,
    /// Repositories whose terms nobody accepted.
    gated: Vec<String>,
    /// Path to the bytes after which a connection that sends it breaks, once each.
    breaks: Vec<(String, usize)>,
    /// Answer a range that does not start at 0 with the whole file.
    ignores_ranges: bool,
    /// So many requests for lists of files fail with 503.
    busy: usize,
    /// METHOD PATH RANGE of every request.
    log: Vec<String>,
    /// `Authorization` headers that the content network got with a transfer (the one-byte question is the crate's).
    leaked: Vec<String>,
}

struct FakeHub {
    address: String,
    state: Arc<Mutex<State>>,
}

const COMMIT: &str = "1111111111111111111111111111111111111111";
const OLDER: &str = "2222222222222222222222222222222222222222";

impl FakeHub {
    fn start() -> FakeHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), address.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (state, address) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(connection, &state, &address));
            }
        });
        FakeHub { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn add(&self, repository: &str, revision: &str, commit: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state();
        for name in [revision, commit] {
            state.revisions.insert((repository.to_owned(), name.to_owned()), commit.to_owned());
        }
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        state.files.insert((repository.to_owned(), commit.to_owned()), files);
    }

    fn hub(&self, cache: &Path) -> Hub {
        let mut hub = Hub::new(&self.address, cache);
        hub.pause = Duration::ZERO;
        hub
    }

    /// Requests since the last call.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

/// A hub that nothing answers: the port was free a moment ago.
fn switched_off(cache: &Path) -> Hub {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut hub = Hub::new(&format!("http://{address}"), cache);
    hub.pause = Duration::ZERO;
    hub
}

fn serve(connection: TcpStream, state: &Mutex<State>, address: &str) {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let mut headers = BTreeMap::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some((key, value)) = line.split_once(':') {
            headers.insert(key.to_lowercase(), value.trim().to_owned());
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = headers.get("range").cloned().unwrap_or_default();
    state.lock().unwrap().log.push(format!("{path} {range}").trim().to_owned());
    let _ = answer(&connection, &path, &headers, state, address);
}

fn reply(mut connection: &TcpStream, status: &str, extra: &str, body: &[u8]) -> std::io::Result<()> {
    write!(connection, "HTTP/1.1 {status}\r\nConnection: close\r\n{extra}Content-Length: {}\r\n\r\n", body.len())?;
    connection.write_all(body)
}

fn answer(
    connection: &TcpStream,
    path: &str,
    headers: &BTreeMap<String, String>,
    state: &Mutex<State>,
    address: &str,
) -> std::io::Result<()> {
    let state = &mut *state.lock().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match &parts[..] {
        ["api", "models", owner, name, "revision", revision] => {
            answer_list(connection, state, headers, &format!("{owner}/{name}"), revision)
        }
        [owner, name, "resolve", revision, file @ ..] => {
            let key = (format!("{owner}/{name}"), revision.replace("%2F", "/"));
            answer_place(connection, state, headers, key, &file.join("/"), address)
        }
        ["cdn", owner, name, commit, file @ ..]
        | ["api", "resolve-cache", "models", owner, name, commit, file @ ..] => {
            let file = file.join("/").replace("?signature=1", "");
            let key = (format!("{owner}/{name}"), (*commit).to_owned());
            answer_content(connection, state, headers, key, &file, parts[0] == "cdn")
        }
        _ => reply(connection, "404 Not Found", "", b""),
    }
}

impl State {
    /// Whether a repository needs a token that the request does not have.
    fn refuses(&self, repository: &str, headers: &BTreeMap<String, String>) -> bool {
        let secret = self.secret.get(repository);
        secret.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}")))
    }
}

/// The commit of a revision and its files.
fn answer_list(
    connection: &TcpStream,
    state: &mut State,
    headers: &BTreeMap<String, String>,
    repository: &str,
    revision: &str,
) -> std::io::Result<()> {
    if state.refuses(repository, headers) {
        return reply(connection, "401 Unauthorized", "", b"{\"error\":\"Invalid username or password.\"}");
    }
    if state.busy > 0 {
        state.busy -= 1;
        return reply(connection, "503 Service Unavailable", "", b"");
    }
    let key = (repository.to_owned(), revision.replace("%2F", "/"));
    let Some(commit) = state.revisions.get(&key) else { return reply(connection, "404 Not Found", "", b"{}") };
    let names = state.files[&(key.0, commit.clone())].keys();
    let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
    let body = serde_json::json!({"sha": commit, "siblings": siblings, "private": false}).to_string();
    reply(connection, "200 OK", "Content-Type: application/json\r\n", body.as_bytes())
}

/// Where a file of a (repository, revision) is. Small files: a relative redirect to where they are served from. Large
/// ones: an absolute one to the content network, with the size and ETag in the answer of the hub itself.
fn answer_place(
    connection: &TcpStream,
    state: &State,
    headers: &BTreeMap<String, String>,
    key: (String, String),
    file: &str,
    address: &str,
) -> std::io::Result<()> {
    let repository = &key.0;
    if state.refuses(repository, headers) {
        return reply(connection, "401 Unauthorized", "", b"");
    }
    if state.gated.contains(repository) {
        return reply(connection, "403 Forbidden", "X-Error-Code: GatedRepo\r\n", b"");
    }
    let Some(commit) = state.revisions.get(&key) else {
        return reply(connection, "404 Not Found", "X-Error-Code: RevisionNotFound\r\n", b"");
    };
    let Some(bytes) = state.files[&(repository.clone(), commit.clone())].get(file) else {
        return reply(connection, "404 Not Found", "X-Error-Code: EntryNotFound\r\n", b"");
    };
    if file.ends_with(".safetensors") || file.ends_with(".gguf") {
        let etag = etag(bytes);
        // `localhost` is another host than 127.0.0.1, as the content network is another one than the hub.
        let network = address.replace("127.0.0.1", "localhost");
        let extra = format!(
            "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n\
             Location: {network}/cdn/{repository}/{commit}/{file}?signature=1\r\n",
            bytes.len()
        );
        reply(connection, "302 Found", &extra, b"")
    } else {
        let extra = format!("Location: /api/resolve-cache/models/{repository}/{commit}/{file}\r\n");
        reply(connection, "307 Temporary Redirect", &extra, b"")
    }
}

/// The bytes of a file of a (repository, commit), or the range that was asked for.
fn answer_content(
    mut connection: &TcpStream,
    state: &mut State,
    headers: &BTreeMap<String, String>,
    key: (String, String),
    file: &str,
    network: bool,
) -> std::io::Result<()> {
    let bytes = state.files[&key][file].clone();
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let (start, end) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
    if start >= bytes.len() {
        return reply(connection, "416 Range Not Satisfiable", "", b"");
    }
    if network && end == bytes.len() {
        state.leaked.extend(headers.get("authorization").cloned());
    }
    let ignored = state.ignores_ranges && start > 0;
    let body = if ignored { &bytes[..] } else { &bytes[start..end] };
    let mut extra = format!("ETag: \"{}\"\r\nX-Repo-Commit: {}\r\n", etag(&bytes), key.1);
    if !ignored {
        extra += &format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
    }
    let status = if ignored { "200 OK" } else { "206 Partial Content" };
    match state.breaks.iter().position(|(name, _)| name == file).filter(|_| body.len() > 1) {
        Some(broken) => {
            let (_, sent) = state.breaks.remove(broken);
            write!(connection, "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n", body.len())?;
            connection.write_all(&body[..sent.min(body.len() - 1)])?;
            connection.shutdown(std::net::Shutdown::Both)
        }
        None => reply(connection, status, &extra, body),
    }
}

/// Any function of the content serves.
fn etag(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}{:08x}", bytes.len())
}

/// Remembers what it was told.
#[derive(Default)]
struct Told {
    starts: Vec<(String, u64, u64)>,
    bytes: u64,
    finished: usize,
}

impl Progress for Told {
    fn start(&mut self, file: &str, size: u64, done: u64) {
        self.starts.push((file.to_owned(), size, done));
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    fn finish(&mut self) {
        self.finished += 1;
    }
}

fn weights(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

fn model(hub: &FakeHub) -> Vec<u8> {
    let weights = weights(100_000);
    hub.add(
        "ann/tiny",
        "main",
        COMMIT,
        &[
            ("README.md", b"# Tiny"),
            ("config.json", b"{}"),
            ("model.safetensors", &weights),
            ("pytorch_model.bin", b"not wanted"),
            ("spiece.model", b"pieces"),
            ("tokenizer.json", b"{\"a\":1}"),
        ],
    );
    weights
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fails(hub: &Hub, name: &str) -> String {
    hub.fetch(name, &mut ()).unwrap_err().to_string()
}

#[test]
fn a_model_is_downloaded_once() {
    let server = FakeHub::start();
    let weights = model(&server);
    let cache = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let path = server.hub(cache.path()).fetch("hf:ann/tiny", &mut told).unwrap();

    assert_eq!(path, cache.path().join("models--ann--tiny/snapshots").join(COMMIT));
    assert_eq!(names(&path), ["config.json", "model.safetensors", "spiece.model", "tokenizer.json"]);
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read(path.join("tokenizer.json")).unwrap(), b"{\"a\":1}");
    let reference = std::fs::read_to_string(cache.path().join("models--ann--tiny/refs/main")).unwrap();
    assert_eq!(reference, COMMIT);
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(path.join("config.json")).unwrap(),
        Path::new("../../blobs").join(etag(b"{}")),
        "the layout of the shared cache"
    );
    assert_eq!(told.starts.last(), Some(&("model.safetensors".to_owned(), 100_000, 0)));
    assert_eq!((told.starts.len(), told.finished, told.bytes), (4, 4, 100_000 + 2 + 6 + 7));

    // Again, with the server off: no request is needed.
    assert_eq!(switched_off(cache.path()).fetch("hf:ann/tiny", &mut ()).unwrap(), path);
    server.log();
    assert_eq!(server.hub(cache.path()).fetch("hf:ann/tiny", &mut ()).unwrap(), path);
    assert_eq!(server.log(), Vec::<String>::new());
}

#[test]
fn a_revision_is_a_branch_a_commit_or_a_pull_request() {
    let server = FakeHub::start();
    let new = model(&server);
    let old = weights(5_000);
    server.add(
        "ann/tiny",
        "refs/pr/1",
        OLDER,
        &[("config.json", b"{}"), ("model.safetensors", &old), ("tokenizer.json", b"{}")],
    );
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let read = |path: PathBuf| std::fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(read(hub.fetch("hf:ann/tiny@refs/pr/1", &mut ()).unwrap()), old);
    assert_eq!(read(hub.fetch("hf:ann/tiny", &mut ()).unwrap()), new);
    server.log();
    // By commit, from the cache. Both revisions share the blob of config.json, which was transferred once.
    assert_eq!(read(hub.fetch(&format!("hf:ann/tiny@{OLDER}"), &mut ()).unwrap()), old);
    assert_eq!(read(switched_off(cache.path()).fetch("hf:ann/tiny@refs/pr/1", &mut ()).unwrap()), old);
    assert_eq!(server.log(), Vec::<String>::new());

    assert_eq!(fails(&hub, "hf:ann/tiny@v9"), "hf:ann/tiny@v9: has no revision v9");
}

#[test]
fn a_blob_of_another_revision_is_linked_not_transferred() {
    let server = FakeHub::start();
    let bytes = model(&server);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    hub.fetch("hf:ann/tiny", &mut ()).unwrap();
    server.add(
        "ann/tiny",
        "v2",
        OLDER,
        &[("config.json", b"{\"new\": 1}"), ("model.safetensors", &bytes), ("tokenizer.json", b"{\"a\":1}")],
    );
    let mut told = Told::default();
    let path = hub.fetch("hf:ann/tiny@v2", &mut told).unwrap();
    assert_eq!(told.starts, [("config.json".to_owned(), 10, 0)]);
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), bytes);
}

#[test]
fn shards_follow_their_index() {
    let server = FakeHub::start();
    let index =
        br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    server.add(
        "ann/large",
        "main",
        COMMIT,
        &[
            ("config.json", b"{\"tokenizer_class\": \"ByT5Tokenizer\"}"),
            ("model-00001-of-00002.safetensors", b"one"),
            ("model-00002-of-00002.safetensors", b"two"),
            ("model.safetensors.index.json", index),
            ("other.safetensors", b"not wanted"),
        ],
    );
    let cache = tempfile::tempdir().unwrap();
    let path = server.hub(cache.path()).fetch("hf:ann/large", &mut ()).unwrap();
    let files = names(&path);
    assert_eq!(files.len(), 4, "{files:?}");
    assert_eq!(std::fs::read(path.join("model-00002-of-00002.safetensors")).unwrap(), b"two");
    assert_eq!(switched_off(cache.path()).fetch("hf:ann/large", &mut ()).unwrap(), path);
    // A snapshot that lacks a shard is not complete.
    std::fs::remove_file(path.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(fails(&switched_off(cache.path()), "hf:ann/large").contains("cannot reach"));
    server.hub(cache.path()).fetch("hf:ann/large", &mut ()).unwrap();
    assert_eq!(names(&path), files);

    server.add("ann/hole", "main", OLDER, &[("config.json", b"{}"), ("model.safetensors.index.json", index)]);
    assert_eq!(
        fails(&server.hub(cache.path()), "hf:ann/hole"),
        "hf:ann/hole: has no file model-00001-of-00002.safetensors at revision main"
    );
}

#[test]
fn gguf_files_are_taken_alone_or_by_name() {
    let server = FakeHub::start();
    let own = b"GGUF\x03\0\0\0 ... general.architecture ... t5";
    server.add("ann/one", "main", COMMIT, &[("README.md", b""), ("t5.gguf", own)]);
    server.add("ann/two", "main", COMMIT, &[("config.json", b"{}"), ("f16.gguf", b"GGUF16"), ("sub/q8.gguf", own)]);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());

    let path = hub.fetch("hf:ann/one", &mut ()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), own);
    assert_eq!(switched_off(cache.path()).fetch("hf:ann/one", &mut ()).unwrap(), path);
    assert_eq!(switched_off(cache.path()).fetch("hf:ann/one/t5.gguf", &mut ()).unwrap(), path);

    assert_eq!(
        fails(&hub, "hf:ann/two"),
        "hf:ann/two: has 2 GGUF files, name one as hf:ann/two/FILE.gguf or by its type as hf:ann/two:Q8_0: \
         f16.gguf, sub/q8.gguf"
    );
    // candle's dialect needs what lies beside it.
    let path = hub.fetch("hf:ann/two/f16.gguf", &mut ()).unwrap();
    assert_eq!(names(path.parent().unwrap()), ["config.json", "f16.gguf"]);
    let path = hub.fetch("hf:ann/two/sub/q8.gguf", &mut ()).unwrap();
    assert!(path.ends_with("sub/q8.gguf"), "{}", path.display());
    assert_eq!(std::fs::read(&path).unwrap(), own);
    assert_eq!(
        fails(&hub, "hf:ann/two/q4.gguf"),
        "hf:ann/two/q4.gguf: has no file q4.gguf; its GGUF files are f16.gguf, sub/q8.gguf"
    );
}

#[test]
fn a_type_chooses_among_gguf_files() {
    let server = FakeHub::start();
    let own = b"GGUF\x03\0\0\0 ... general.architecture ... t5";
    server.add(
        "ann/many",
        "main",
        COMMIT,
        &[("t5-bf16.gguf", b"GGUF"), ("t5-f16.gguf", b"GGUF16"), ("t5-Q8_0.gguf", own)],
    );
    let cache = tempfile::tempdir().unwrap();
    let path = server.hub(cache.path()).fetch("hf:ann/many:q8_0", &mut ()).unwrap();
    assert!(path.ends_with("t5-Q8_0.gguf"), "{}", path.display());
    assert_eq!(std::fs::read(&path).unwrap(), own);
    assert_eq!(switched_off(cache.path()).fetch("hf:ann/many:Q8_0", &mut ()).unwrap(), path);
    assert_eq!(
        fails(&server.hub(cache.path()), "hf:ann/many:Q4_0"),
        "hf:ann/many:Q4_0: has no GGUF file of the type Q4_0; its GGUF files are t5-Q8_0.gguf, t5-bf16.gguf, \
         t5-f16.gguf"
    );
}

#[test]
fn a_pipeline_s_encoder_is_found_or_named() {
    let server = FakeHub::start();
    let index = br#"{"weight_map": {"a": "model-00001-of-00001.safetensors"}}"#;
    let t5 = br#"{"model_type": "t5"}"#;
    let files: [(&str, &[u8]); 9] = [
        ("model_index.json", b"{}"),
        ("text_encoder/config.json", br#"{"model_type": "clip_text_model"}"#),
        ("text_encoder/model.safetensors", b"not wanted"),
        ("text_encoder_2/config.json", t5),
        ("text_encoder_2/model-00001-of-00001.safetensors", b"shard"),
        ("text_encoder_2/model.safetensors.index.json", index),
        ("tokenizer/vocab.json", b"not wanted"),
        ("tokenizer_2/spiece.model", b"pieces"),
        ("transformer/config.json", b"not wanted"),
    ];
    server.add("ann/flux", "main", COMMIT, &files);
    for name in ["hf:ann/flux/text_encoder_2", "hf:ann/flux"] {
        let cache = tempfile::tempdir().unwrap();
        let path = server.hub(cache.path()).fetch(name, &mut ()).unwrap();
        let snapshot = cache.path().join("models--ann--flux/snapshots").join(COMMIT);
        assert_eq!(path, snapshot.join("text_encoder_2"), "{name}");
        assert_eq!(
            names(&path),
            ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            "{name}"
        );
        assert_eq!(names(&snapshot.join("tokenizer_2")), ["spiece.model"], "{name}");
        assert!(!snapshot.join("text_encoder/model.safetensors").exists(), "{name}");
        assert_eq!(switched_off(cache.path()).fetch(name, &mut ()).unwrap(), path, "{name}");
    }
    let cache = tempfile::tempdir().unwrap();
    let error = fails(&server.hub(cache.path()), "hf:ann/flux/text_encoder_9");
    assert_eq!(error, "hf:ann/flux/text_encoder_9: has no such folder");
}

#[test]
fn pickles_come_only_to_who_reads_them() {
    let server = FakeHub::start();
    server.add("ann/old", "main", COMMIT, &[("config.json", b"{}"), ("pytorch_model.bin", b"weights")]);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = server.hub(cache.path());
    assert!(fails(&hub, "hf:ann/old").contains("found only pytorch_model.bin: t5-quantize takes it"));
    hub.pickles = true;
    let path = hub.fetch("hf:ann/old", &mut ()).unwrap();
    assert_eq!(names(&path), ["config.json", "pytorch_model.bin"]);
}

#[test]
fn what_the_hub_does_not_have() {
    let server = FakeHub::start();
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    assert_eq!(fails(&hub, "hf:ann/none"), format!("hf:ann/none: no such repository on {}", server.address));
    assert_eq!(fails(&hub, "hf:ann/none@v1"), format!("hf:ann/none@v1: no such repository on {}", server.address));
    server.add("ann/pickle", "main", COMMIT, &[("config.json", b"{}"), ("pytorch_model.bin", b"")]);
    assert!(fails(&hub, "hf:ann/pickle").contains("found only pytorch_model.bin"));
    server.add("ann/tiny", "main", COMMIT, &[("config.json", b"{}"), ("model.safetensors", b"1234")]);
    // The list may name a file that is gone a moment later.
    let key = ("ann/tiny".to_owned(), COMMIT.to_owned());
    server.state().revisions.insert(("ann/tiny".to_owned(), "stale".to_owned()), "3".repeat(40));
    let listed = server.state().files[&key].clone();
    server.state().files.insert(("ann/tiny".to_owned(), "3".repeat(40)), listed);
    assert_eq!(fails(&hub, "hf:ann/tiny@stale"), "hf:ann/tiny@stale: has no file config.json at revision stale");
}

#[test]
fn a_private_repository_needs_the_token() {
    let server = FakeHub::start();
    let bytes = model(&server);
    server.state().secret.insert("ann/tiny".to_owned(), "open-sesame".to_owned());
    let cache = tempfile::tempdir().unwrap();
    let mut hub = server.hub(cache.path());
    let error = fails(&hub, "hf:ann/tiny");
    assert!(error.starts_with("hf:ann/tiny: the hub asks for a token (HTTP 401)"), "{error}");
    hub.token = Some("wrong".to_owned());
    let error = fails(&hub, "hf:ann/tiny");
    assert!(error.starts_with("hf:ann/tiny: the hub does not accept the token (HTTP 401)"), "{error}");
    hub.token = Some("open-sesame".to_owned());
    let path = hub.fetch("hf:ann/tiny", &mut ()).unwrap();
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), bytes);
    assert_eq!(server.state().leaked, Vec::<String>::new(), "the content network is another host");

    server.add("ann/gated", "main", OLDER, &[("config.json", b"{}"), ("model.safetensors", b"1")]);
    server.state().gated.push("ann/gated".to_owned());
    let error = fails(&hub, "hf:ann/gated");
    assert!(error.contains("HTTP 403") && error.contains(&format!("{}/ann/gated", server.address)), "{error}");
}

#[test]
fn a_broken_transfer_continues_where_it_stopped() {
    let server = FakeHub::start();
    let bytes = model(&server);
    let file = "model.safetensors".to_owned();
    server.state().breaks = vec![(file.clone(), 40_000), (file.clone(), 0), (file.clone(), 10_000)];
    let cache = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let path = server.hub(cache.path()).fetch("hf:ann/tiny", &mut told).unwrap();
    assert_eq!(std::fs::read(path.join(&file)).unwrap(), bytes);
    let starts: Vec<u64> = told.starts.iter().filter(|(name, ..)| *name == file).map(|(.., done)| *done).collect();
    assert_eq!(starts, [0, 40_000, 40_000, 50_000]);
    assert_eq!(told.bytes, 100_000 + 2 + 6 + 7, "no byte came twice");
    let log = server.log();
    assert!(log.iter().any(|request| request.starts_with("/cdn/") && request.ends_with("bytes=50000-")), "{log:?}");
}

#[test]
fn a_later_run_continues_a_broken_transfer() {
    let server = FakeHub::start();
    let bytes = model(&server);
    let file = "model.safetensors".to_owned();
    let cache = tempfile::tempdir().unwrap();
    let mut hub = server.hub(cache.path());
    hub.attempts = 0;
    server.state().breaks = vec![(file.clone(), 30_000), (file.clone(), 0)];
    let error = fails(&hub, "hf:ann/tiny");
    assert!(error.contains("the connection to") && error.contains("broke"), "{error}");
    // Until it is complete, the revision does not exist in the cache.
    hub.offline = true;
    assert!(fails(&hub, "hf:ann/tiny").contains("not in the cache"));
    hub.offline = false;
    let mut told = Told::default();
    let path = hub.fetch("hf:ann/tiny", &mut told).unwrap();
    assert_eq!(std::fs::read(path.join(&file)).unwrap(), bytes);
    assert_eq!(told.starts, [(file, 100_000, 30_000)]);
}

#[test]
fn part_files_of_every_length_are_coped_with() {
    let server = FakeHub::start();
    let bytes = model(&server);
    for length in [0, 1, 99_999, 100_000, 100_001] {
        let cache = tempfile::tempdir().unwrap();
        let blobs = cache.path().join("models--ann--tiny/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let mut part = bytes.clone();
        part.resize(length, 0);
        std::fs::write(blobs.join(etag(&bytes)).with_extension("part"), part).unwrap();
        let path = server.hub(cache.path()).fetch("hf:ann/tiny", &mut ()).unwrap();
        assert!(std::fs::read(path.join("model.safetensors")).unwrap() == bytes, "part of {length} bytes");
    }
}

#[test]
fn a_server_that_ignores_ranges_cannot_spoil_the_file() {
    let server = FakeHub::start();
    let bytes = model(&server);
    let file = "model.safetensors".to_owned();
    server.state().breaks = vec![(file.clone(), 30_000)];
    server.state().ignores_ranges = true;
    let cache = tempfile::tempdir().unwrap();
    let path = server.hub(cache.path()).fetch("hf:ann/tiny", &mut ()).unwrap();
    assert!(std::fs::read(path.join(file)).unwrap() == bytes);
}

#[test]
fn a_link_without_its_blob_is_mended() {
    let server = FakeHub::start();
    let bytes = model(&server);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let path = hub.fetch("hf:ann/tiny", &mut ()).unwrap();
    std::fs::remove_file(std::fs::canonicalize(path.join("model.safetensors")).unwrap()).unwrap();
    assert_eq!(hub.fetch("hf:ann/tiny", &mut ()).unwrap(), path);
    assert!(std::fs::read(path.join("model.safetensors")).unwrap() == bytes);
}

#[test]
fn a_busy_hub_is_asked_again() {
    let server = FakeHub::start();
    model(&server);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = server.hub(cache.path());
    server.state().busy = 2;
    hub.attempts = 1;
    assert!(fails(&hub, "hf:ann/tiny").ends_with("answers with HTTP status 503"));
    server.state().busy = 1;
    hub.fetch("hf:ann/tiny", &mut ()).unwrap();
}

#[test]
fn offline_is_the_cache_only() {
    let server = FakeHub::start();
    model(&server);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = server.hub(cache.path());
    hub.offline = true;
    let error = fails(&hub, "hf:ann/tiny");
    assert!(error.starts_with("hf:ann/tiny: not in the cache ") && error.contains("HF_HUB_OFFLINE"), "{error}");
    hub.offline = false;
    let path = hub.fetch("hf:ann/tiny", &mut ()).unwrap();
    server.log();
    hub.offline = true;
    assert_eq!(hub.fetch("hf:ann/tiny", &mut ()).unwrap(), path);
    // Another tool may have fetched the weights only; that has to do.
    for file in ["tokenizer.json", "spiece.model"] {
        std::fs::remove_file(path.join(file)).unwrap();
    }
    assert_eq!(hub.fetch("hf:ann/tiny", &mut ()).unwrap(), path);
    assert_eq!(server.log(), Vec::<String>::new());
    // With a network the rest is fetched.
    hub.offline = false;
    hub.fetch("hf:ann/tiny", &mut ()).unwrap();
    assert!(path.join("tokenizer.json").is_file());

    let error = fails(&switched_off(&cache.path().join("empty")), "hf:ann/tiny");
    assert!(error.contains("cannot reach http://127.0.0.1:") && error.contains("HF_HUB_OFFLINE=1"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = FakeHub::start();
    model(&server);
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("file");
    std::fs::write(&cache, "").unwrap();
    let error = fails(&server.hub(&cache), "hf:ann/tiny");
    assert!(error.contains(cache.to_str().unwrap()), "{error}");
}

#[test]
fn a_tokenizer_comes_without_weights() {
    let server = FakeHub::start();
    model(&server);
    let cache = tempfile::tempdir().unwrap();
    let path = server.hub(cache.path()).fetch_tokenizer("hf:ann/tiny", &mut ()).unwrap();
    assert_eq!(names(&path), ["config.json", "spiece.model", "tokenizer.json"]);
    assert_eq!(switched_off(cache.path()).fetch_tokenizer("hf:ann/tiny", &mut ()).unwrap(), path);
    // It is no model yet, and becomes one.
    let whole = server.hub(cache.path()).fetch("hf:ann/tiny", &mut ()).unwrap();
    assert!(whole == path && path.join("model.safetensors").exists());

    server.add("ann/none", "main", COMMIT, &[("config.json", b"{}"), ("model.safetensors", b"")]);
    let error = |name: &str| server.hub(cache.path()).fetch_tokenizer(name, &mut ()).unwrap_err().to_string();
    assert_eq!(error("hf:ann/none"), "hf:ann/none: expected tokenizer.json or spiece.model, found neither");
    assert!(error("hf:ann/tiny/x.gguf").contains("expected a repository with a tokenizer, found the name of a file"));
    let mut offline = server.hub(tempfile::tempdir().unwrap().path());
    offline.offline = true;
    let error = offline.fetch_tokenizer("hf:ann/tiny", &mut ()).unwrap_err().to_string();
    assert!(error.contains("its tokenizer is not in the cache"), "{error}");
}

/// What a killed download leaves: files that come before the vocabulary, or a part of it.
#[test]
fn a_tokenizer_that_is_cached_in_part_is_fetched() {
    let server = FakeHub::start();
    let files = ["added_tokens.json", "merges.txt", "tokenizer_config.json", "vocab.json"];
    server.add("ann/parts", "main", COMMIT, &files.map(|file| (file, &b"{}"[..])));
    let name = format!("hf:ann/parts@{COMMIT}");
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--ann--parts/snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    for file in ["tokenizer_config.json", "added_tokens.json", "vocab.json"] {
        std::fs::write(snapshot.join(file), "{}").unwrap();
        let error = switched_off(cache.path()).fetch_tokenizer(&name, &mut ()).unwrap_err().to_string();
        assert!(error.contains("cannot reach"), "{file}: {error}");
    }
    assert_eq!(server.hub(cache.path()).fetch_tokenizer(&name, &mut ()).unwrap(), snapshot);
    assert_eq!(names(&snapshot), files);
    assert_eq!(switched_off(cache.path()).fetch_tokenizer(&name, &mut ()).unwrap(), snapshot);
    // Bytes need no vocabulary, and the file that says so comes last.
    std::fs::write(snapshot.join("config.json"), r#"{"tokenizer_class": "ByT5Tokenizer"}"#).unwrap();
    std::fs::remove_file(snapshot.join("tokenizer_config.json")).unwrap();
    std::fs::remove_file(snapshot.join("merges.txt")).unwrap();
    switched_off(cache.path()).fetch_tokenizer(&name, &mut ()).unwrap_err();
    std::fs::remove_file(snapshot.join("vocab.json")).unwrap();
    std::fs::write(snapshot.join("tokenizer_config.json"), r#"{"tokenizer_class": "ByT5Tokenizer"}"#).unwrap();
    assert_eq!(switched_off(cache.path()).fetch_tokenizer(&name, &mut ()).unwrap(), snapshot);
}

#[test]
fn modules_of_sentence_transformers_come_with_a_model() {
    let server = FakeHub::start();
    let weights = weights(5_000);
    server.add(
        "ann/sentences",
        "main",
        COMMIT,
        &[
            ("1_Pooling/config.json", b"{}"),
            ("2_Dense/config.json", b"{}"),
            ("2_Dense/model.safetensors", b"dense"),
            ("2_Dense/pytorch_model.bin", b"not wanted"),
            ("config.json", b"{}"),
            ("model.safetensors", &weights),
            ("modules.json", b"[]"),
            ("sentence_bert_config.json", b"{}"),
            ("onnx/config.json", b"not wanted"),
        ],
    );
    let cache = tempfile::tempdir().unwrap();
    let path = server.hub(cache.path()).fetch("hf:ann/sentences", &mut ()).unwrap();
    let expected =
        ["1_Pooling", "2_Dense", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json"];
    assert_eq!(names(&path), expected);
    assert_eq!(names(&path.join("2_Dense")), ["config.json", "model.safetensors"]);

    // Where there is no better form, and who asks can read it.
    let old: [(&str, &[u8]); 5] = [
        ("2_Dense/config.json", b"{}"),
        ("2_Dense/pytorch_model.bin", b"dense"),
        ("config.json", b"{}"),
        ("modules.json", b"[]"),
        ("pytorch_model.bin", b"weights"),
    ];
    server.add("ann/old-sentences", "main", COMMIT, &old);
    let mut hub = server.hub(cache.path());
    hub.pickles = true;
    let path = hub.fetch("hf:ann/old-sentences", &mut ()).unwrap();
    assert_eq!(names(&path.join("2_Dense")), ["config.json", "pytorch_model.bin"]);
}
