//! Corpora of pages in object stores: from a web server, from S3 and from GCS, the same as from files; what a store
//! refuses; connections that end early. The stores are servers of this test, and for S3 also moto, where Python has it.

mod common;
#[path = "common/corpora.rs"]
mod corpora;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{command, succeed};
use corpora::{contents, pages, write_files};

/// What an object's bytes are: some, so many times, and others at the end.
#[derive(Clone, Default)]
struct Object {
    record: Vec<u8>,
    times: usize,
    end: Vec<u8>,
}

impl Object {
    fn of(bytes: Vec<u8>) -> Object {
        Object { end: bytes, ..Object::default() }
    }

    fn len(&self) -> usize {
        self.record.len() * self.times + self.end.len()
    }

    fn write(&self, mut range: Range<usize>, out: &mut impl Write) -> std::io::Result<()> {
        let records = self.record.len() * self.times;
        while range.start < range.end.min(records) {
            let from = range.start % self.record.len();
            let to = self.record.len().min(from + range.len());
            out.write_all(&self.record[from..to])?;
            range.start += to - from;
        }
        out.write_all(&self.end[range.start.max(records) - records..range.end.max(records) - records])
    }
}

/// How a store behaves.
#[derive(Default)]
struct Behaviour {
    objects: BTreeMap<String, Object>,
    /// Answers to everything, in the place of 200.
    status: Option<u16>,
    /// Says no mark of what an object is.
    no_mark: bool,
    /// Gives no ranges.
    no_ranges: bool,
    /// Connections that end after so many bytes of an answer.
    cuts: AtomicUsize,
    cut_at: usize,
    /// Where the answers to requests began.
    starts: Mutex<Vec<usize>>,
}

/// A server of objects over HTTP, as web servers have them, with the listings of S3 and GCS, two objects at a time.
struct Store {
    address: String,
    behaviour: Arc<Behaviour>,
}

impl Store {
    fn start(behaviour: Behaviour) -> Store {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(behaviour);
        let of_thread = behaviour.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let behaviour = of_thread.clone();
                // A client may go away in the middle.
                std::thread::spawn(move || drop(answer(&behaviour, stream)));
            }
        });
        Store { address, behaviour }
    }

    fn of(objects: impl IntoIterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, Object> {
        objects.into_iter().map(|(name, bytes)| (name, Object::of(bytes))).collect()
    }
}

fn answer(behaviour: &Behaviour, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (method, target) = line.split_once(' ').map(|(method, rest)| (method.to_owned(), rest.to_owned())).unwrap();
    let target = target.split(' ').next().unwrap().to_owned();
    let mut range = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some((from, to)) = lower.strip_prefix("range: bytes=").and_then(|range| range.trim().split_once('-')) {
            range = Some(from.parse::<usize>().unwrap()..to.parse::<usize>().unwrap() + 1);
        }
    }
    let target = decoded(&target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let date = "Last-Modified: Wed, 28 Oct 2026 10:00:00 GMT\r\nConnection: close\r\n";
    let short = |out: &mut TcpStream, status: u16, body: &str| {
        let length = body.len();
        write!(out, "HTTP/1.1 {status} x\r\n{date}Content-Length: {length}\r\n\r\n{body}")
    };
    if let Some(status) = behaviour.status {
        return short(&mut out, status, "");
    }
    if query.contains("list-type=2") {
        return short(&mut out, 200, &listing(behaviour, path, query));
    }
    let Some(object) = behaviour.objects.get(path) else { return short(&mut out, 404, "") };
    let length = object.len();
    let range = range.filter(|_| !behaviour.no_ranges);
    let asked = range.clone().unwrap_or(0..length);
    let mark = if behaviour.no_mark { String::new() } else { format!("ETag: \"{length}\"\r\n") };
    let status = match &range {
        Some(range) => format!("206 x\r\nContent-Range: bytes {}-{}/{length}", range.start, range.end - 1),
        None => "200 OK".to_owned(),
    };
    write!(out, "HTTP/1.1 {status}\r\n{date}{mark}Content-Length: {}\r\n\r\n", asked.len())?;
    if method == "HEAD" {
        return Ok(());
    }
    behaviour.starts.lock().unwrap().push(asked.start);
    let cut = behaviour.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |cuts| cuts.checked_sub(1)).is_ok();
    let end = if cut { asked.end.min(asked.start + behaviour.cut_at) } else { asked.end };
    object.write(asked.start..end, &mut out)
}

/// A target with the bytes that `%XX` stand for.
fn decoded(target: &str) -> String {
    let mut parts = target.split('%');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push(u8::from_str_radix(&part[..2], 16).unwrap().into());
        text += &part[2..];
    }
    text
}

/// A page of a listing: `/BUCKET?list-type=2&prefix=...`, two objects, and where to go on.
fn listing(behaviour: &Behaviour, path: &str, query: &str) -> String {
    let bucket = format!("{}/", path.trim_end_matches('/'));
    let value = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    let (prefix, after) = (value("prefix"), value("continuation-token"));
    let keys = behaviour.objects.iter().filter_map(|(key, object)| Some((key.strip_prefix(&bucket)?, object)));
    let mut keys = keys.filter(|(key, _)| key.starts_with(&prefix) && *key > &*after);
    let mut found = String::new();
    let mut last = "";
    for (key, object) in keys.by_ref().take(2) {
        let size = object.len();
        found += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-10-28T10:00:00.000Z</LastModified><ETag>\"{size}\"</ETag>\
             <Size>{size}</Size></Contents>"
        );
        last = key;
    }
    let more = keys.next().is_some();
    let token = if more { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
    format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{found}</ListBucketResult>")
}

/// Pages in four files, and the corpus of the files.
fn local(folder: &Path) -> (Vec<PathBuf>, BTreeMap<PathBuf, Vec<u8>>) {
    let pages_folder = folder.join("pages");
    write_files(&pages_folder, &pages(900), 4);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&pages_folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let shown: Vec<String> = files.iter().map(|file| format!("{:?}", file.display().to_string())).collect();
    succeed(&["corpus", &config(folder, "local", &shown.join(", "))]);
    let corpus = texts(&folder.join("local"));
    assert!(corpus.len() == 8, "{:?}", corpus.keys());
    (files, corpus)
}

fn config(folder: &Path, name: &str, input: &str) -> String {
    let path = folder.join(format!("{name}.toml"));
    let output = folder.join(name);
    std::fs::write(&path, format!("input = [{input}]\noutput = {:?}\n", output.display().to_string())).unwrap();
    path.display().to_string()
}

/// The texts of a corpus, by file.
fn texts(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = contents(folder);
    found.retain(|path, _| path.starts_with("train") || path.starts_with("validation"));
    found
}

/// The command on some input, with variables.
fn corpus(folder: &Path, name: &str, input: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = command(&["corpus", &config(folder, name, &format!("{input:?}"))]);
    command.env_remove("AWS_PROFILE").envs(variables.iter().copied()).output().unwrap()
}

fn message(output: &Output) -> String {
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

fn s3(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ]
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_corpus_of_addresses_is_the_corpus_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let (files, expected) = local(dir.path());
    let objects = |folder: &str| {
        Store::of(files.iter().map(|file| (format!("{folder}{}", name(file)), std::fs::read(file).unwrap())))
    };
    // A web server, file by file.
    let web = Store::start(Behaviour { objects: objects("/some/pages/"), ..Behaviour::default() });
    let inputs: Vec<String> =
        files.iter().map(|file| format!("\"http://{}/some/pages/{}\"", web.address, name(file))).collect();
    succeed(&["corpus", &config(dir.path(), "web", &inputs.join(", "))]);
    assert!(texts(&dir.path().join("web")) == expected, "not the corpus of the files");
    // A folder of S3, found page by page, without its hidden objects.
    let mut in_bucket = objects("/bucket/some/pages/");
    for hidden in [".hidden", ".cache/a.jsonl", "_SUCCESS"] {
        in_bucket.insert(format!("/bucket/some/pages/{hidden}"), Object::of(b"hidden".to_vec()));
    }
    in_bucket.insert("/bucket/some/other.jsonl".into(), Object::of(b"other".to_vec()));
    let store = Store::start(Behaviour { objects: in_bucket, ..Behaviour::default() });
    let endpoint = format!("http://{}", store.address);
    for (name, input) in [("s3", "s3://bucket/some/pages"), ("s3-folder", "s3://bucket/some/pages/")] {
        let output = corpus(dir.path(), name, input, &s3(&endpoint));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(texts(&dir.path().join(name)) == expected, "not the corpus of the files");
    }
    // The same of GCS.
    let account = dir.path().join("account.json");
    let text = serde_json::json!({
        "gcs_base_url": endpoint, "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": "",
    });
    std::fs::write(&account, text.to_string()).unwrap();
    let account = [("GOOGLE_SERVICE_ACCOUNT", account.to_str().unwrap())];
    let output = corpus(dir.path(), "gs", "gs://bucket/some/pages/", &account);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(texts(&dir.path().join("gs")) == expected, "not the corpus of the files");
    // What was made of the same objects is made.
    let output = corpus(dir.path(), "s3", "s3://bucket/some/pages", &s3(&endpoint));
    assert!(String::from_utf8(output.stderr).unwrap().contains("was made before"));
}

#[test]
#[cfg(feature = "parquet")]
fn parquet_files_are_read_by_ranges() {
    use t5_train::source::{Columns, Format, for_each_record};

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dataset/data/train-00001-of-00002.parquet");
    let records = |path: &Path| {
        let mut records = Vec::new();
        for_each_record(path, Format::Parquet, &Columns::default(), |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
        records
    };
    let objects = Store::of([("/a.parquet".to_owned(), std::fs::read(&path).unwrap())]);
    let store = Store::start(Behaviour { objects, ..Behaviour::default() });
    let found = records(Path::new(&format!("http://{}/a.parquet", store.address)));
    assert_eq!(found, records(&path));
    assert!(!found.is_empty());
    // The end comes first.
    assert!(store.behaviour.starts.lock().unwrap()[0] > 0);
}

#[test]
fn where_a_connection_ends_early_the_rest_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (files, expected) = local(dir.path());
    let file = &files[0];
    let first: BTreeMap<_, _> = expected.into_iter().filter(|(path, _)| name(path).contains("00000")).collect();
    let bytes = std::fs::read(file).unwrap();
    let cut_at = bytes.len() / 4;
    for no_mark in [false, true] {
        let objects = Store::of([(format!("/{}", name(file)), bytes.clone())]);
        let cuts = AtomicUsize::new(2);
        let store = Store::start(Behaviour { objects, cuts, cut_at, no_mark, ..Behaviour::default() });
        let corpus_name = format!("cut-{no_mark}");
        let input = format!("http://{}/{}", store.address, name(file));
        let output = corpus(dir.path(), &corpus_name, &input, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = texts(&dir.path().join(corpus_name));
        // Repeats over files are not found in one.
        assert_eq!(found.keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>());
        assert_eq!(*store.behaviour.starts.lock().unwrap(), [0, cut_at, 2 * cut_at]);
    }
    // It ends early again and again, or the server has no ranges.
    for (no_ranges, expected) in [(false, "the connection ends after "), (true, "ange")] {
        let objects = Store::of([("/a.warc.wet.gz".to_owned(), bytes.clone())]);
        let cuts = AtomicUsize::new(usize::MAX);
        let store =
            Store::start(Behaviour { objects, cuts, cut_at: 10, no_mark: true, no_ranges, ..Behaviour::default() });
        let output = corpus(dir.path(), "never", &format!("http://{}/a.warc.wet.gz", store.address), &[]);
        let message = message(&output);
        assert!(message.contains("/a.warc.wet.gz: ") && message.contains(expected), "{message}");
        assert!(!dir.path().join("never/train/part-00000.jsonl.gz").exists());
    }
}

#[test]
fn what_a_store_refuses_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Store::start(Behaviour::default());
    let endpoint = format!("http://{}", empty.address);
    let web = format!("{endpoint}/a.jsonl");
    let nothing = message(&corpus(dir.path(), "none", &web, &[]));
    assert!(nothing.contains("/a.jsonl: expected an object, and the store has none there"), "{nothing}");
    let nothing = message(&corpus(dir.path(), "none", "s3://bucket/a", &s3(&endpoint)));
    assert!(
        nothing.contains("s3://bucket/a: expected an object, or a folder with some, and the store has"),
        "{nothing}"
    );
    for status in [401, 403] {
        let refusing = Store::start(Behaviour { status: Some(status), ..Behaviour::default() });
        let endpoint = format!("http://{}", refusing.address);
        let web = message(&corpus(dir.path(), "none", &format!("{endpoint}/a.jsonl"), &[]));
        assert!(web.contains("/a.jsonl: expected to be let in, and the store refuses"), "{status}: {web}");
        for address in ["s3://bucket/a", "s3://bucket/a/"] {
            let s3 = message(&corpus(dir.path(), "none", address, &s3(&endpoint)));
            assert!(s3.contains(&format!("{address}: expected to be let in, and the store refuses")), "{s3}");
        }
    }
    // Nobody listens.
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let nobody = message(&corpus(dir.path(), "none", &format!("{nobody}/a.jsonl"), &[]));
    assert!(nobody.contains("/a.jsonl: "), "{nobody}");
    assert!(!dir.path().join("none").exists());
}

#[test]
fn an_object_is_never_in_memory_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    // 400 MB of a crawl that has no text, and one page.
    let record = |kind: &str, block: &[u8]| {
        let length = block.len();
        let uri = "WARC-Target-URI: http://a.com/b\r\nWARC-Date: 2019-04-18T10:00:00Z";
        let head = format!("WARC/1.0\r\nWARC-Type: {kind}\r\n{uri}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), block, b"\r\n\r\n"].concat()
    };
    let text = "The old man went home to the village. The child was waiting for him there. They were both very happy.";
    let object = Object {
        record: record("response", &vec![b'x'; 1 << 20]),
        times: 400,
        end: record("conversion", text.as_bytes()),
    };
    let objects = BTreeMap::from([("/a.warc".to_owned(), object)]);
    let store = Store::start(Behaviour { objects, ..Behaviour::default() });
    let output = corpus(dir.path(), "big", &format!("http://{}/a.warc", store.address), &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("401           pages read"));
    let (_, memory) = said.trim_end().rsplit_once(" s, ").expect("seconds and memory");
    let memory: u32 = memory.split(' ').next().unwrap().parse().unwrap();
    println!("400 MB with {memory} MB of memory");
    // The program itself, two threads' batches, and what is under way from the network.
    assert!(memory < 120, "{said}");
}

/// A process that ends with the test.
struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn put(address: &str, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// moto 5, a server with S3's interface from the Python registry: in the interpreter that PYTHON names.
#[test]
fn s3_as_moto_has_it() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = std::process::Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: {python} has no moto[server]");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (files, expected) = local(dir.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut moto = std::process::Command::new(&python);
    moto.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let _moto = Moto(moto.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let address = format!("127.0.0.1:{port}");
    let begin = std::time::Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(begin.elapsed().as_secs() < 60, "moto does not start");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    put(&address, "/bucket", b"");
    for file in &files {
        put(&address, &format!("/bucket/crawl/pages/{}", name(file)), &std::fs::read(file).unwrap());
    }
    let endpoint = format!("http://{address}");
    let output = corpus(dir.path(), "moto", "s3://bucket/crawl", &s3(&endpoint));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(texts(&dir.path().join("moto")) == expected, "not the corpus of the files");
    let nothing = message(&corpus(dir.path(), "none", "s3://bucket/other", &s3(&endpoint)));
    assert!(nothing.contains("s3://bucket/other: expected an object, or a folder with some"), "{nothing}");
    let nothing = message(&corpus(dir.path(), "none", "s3://no-bucket/other/", &s3(&endpoint)));
    assert!(nothing.contains("s3://no-bucket/other/: "), "{nothing}");
    println!("moto gave {} objects", files.len());
}
