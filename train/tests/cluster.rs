//! Corpora by a scheduler and executors of Ballista: the same as by one process and by a plain loop, to the last byte,
//! also where an executor is killed in the middle of a stage.

mod common;
#[path = "common/corpora.rs"]
mod corpora;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{command, fail, succeed, write_corpus};
use corpora::{config, contents, kept, pages, plain_loop, write_files};
use t5_train::corpus::repeats::Unit;

/// Processes that end with the test.
struct Servers {
    scheduler: u16,
    processes: Vec<Child>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A port that nobody listens at, nor at the one above it.
fn free_port() -> u16 {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn start(arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    command(&arguments).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

impl Servers {
    /// A scheduler and so many executors, of one thread each.
    fn start(folder: &Path, executors: usize) -> Servers {
        let scheduler = free_port();
        let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        let at = format!("127.0.0.1:{scheduler}");
        let processes = vec![start(&text(&["corpus", "scheduler", "--listen", &at, "--executor-timeout", "6"]))];
        let mut servers = Servers { scheduler, processes };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", scheduler)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "no scheduler");
            std::thread::sleep(Duration::from_millis(50));
        }
        for i in 0..executors {
            let listen = format!("127.0.0.1:{}", free_port());
            let work = folder.join(format!("executor-{i}")).display().to_string();
            let scheduler = format!("localhost:{scheduler}");
            servers.processes.push(start(&text(&[
                "corpus",
                "executor",
                "--scheduler",
                &scheduler,
                "--listen",
                &listen,
                "--threads",
                "1",
                "--work",
                &work,
            ])));
        }
        servers
    }

    fn address(&self) -> String {
        format!("df://localhost:{}", self.scheduler)
    }
}

/// The files of a corpus; what names the files that it was made of is the same where the options are.
fn corpus(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let found = contents(folder);
    assert!(!found.keys().any(|path| path.starts_with("work")), "{:?}", found.keys());
    found
}

/// What both splits have, by address.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    kept(folder, "train").into_iter().chain(kept(folder, "validation")).collect()
}

#[test]
fn a_cluster_makes_the_corpus_of_one_process_and_of_a_plain_loop() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(3000);
    write_files(&dir.path().join("pages"), &pages, 7);
    write_corpus(dir.path());
    let folder = dir.path().display();
    let vocabulary = common::write_config(dir.path(), "").display().to_string();
    succeed(&["vocab", &vocabulary, "-o", &format!("{folder}/tokenizer.json")]);
    let servers = Servers::start(dir.path(), 2);
    for (unit, name) in [(Unit::Lines, "lines"), (Unit::Spans, "spans")] {
        let more =
            format!("repeats = \"{name}\"\nvalidation_per_thousand = 100\nvocabulary = \"{folder}/tokenizer.json\"\n");
        let one = config(dir.path(), name, &more);
        let one = succeed(&["corpus", one.to_str().unwrap(), "--keep-removed", "2"]);
        let many_name = format!("{name}-cluster");
        let many = config(dir.path(), &many_name, &more);
        let arguments = ["corpus", many.to_str().unwrap(), "--keep-removed", "2", "--cluster", &servers.address()];
        let output = succeed(&arguments);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), String::from_utf8(one.stdout).unwrap());
        let (one, many) = (corpus(&dir.path().join(name)), corpus(&dir.path().join(&many_name)));
        assert!(one.contains_key(Path::new("shards/train/00006.ids")) && one.contains_key(Path::new("removed.jsonl")));
        for (path, bytes) in &one {
            assert!(many.get(path) == Some(bytes), "{} is another", path.display());
        }
        assert_eq!(one.len(), many.len());
        let expected = plain_loop(&pages, unit);
        assert!(expected.len() > 1000);
        assert!(texts(&dir.path().join(&many_name)) == expected, "not what a plain loop keeps");
        let again = succeed(&arguments);
        assert!(String::from_utf8(again.stderr).unwrap().contains("was made before"));
    }
}

#[test]
fn executors_take_a_vocabulary_that_is_named_later() {
    let dir = tempfile::tempdir().unwrap();
    write_files(&dir.path().join("pages"), &pages(300), 3);
    let servers = Servers::start(dir.path(), 1);
    let (one, many) = (config(dir.path(), "one", ""), config(dir.path(), "many", ""));
    let [one, many] = [&one, &many].map(|path| path.to_str().unwrap());
    common::prepare(dir.path(), "");
    let of_the_texts = format!("vocabulary={}/tokenizer.json", dir.path().display());
    let at = servers.address();
    succeed(&["corpus", many, "--cluster", &at]);
    // The same files by the same rules: the executor knows the job without a vocabulary, then with another one.
    for vocabulary in ["vocabulary=bytes", &of_the_texts] {
        succeed(&["corpus", one, "--set", vocabulary]);
        succeed(&["corpus", many, "--set", vocabulary, "--cluster", &at]);
        let (one, many) = (corpus(&dir.path().join("one")), corpus(&dir.path().join("many")));
        assert!(one == many, "{vocabulary}: another corpus than that of one process");
        assert!(many.contains_key(Path::new("shards/train/00002.ids")));
    }
}

#[test]
fn an_executor_that_is_killed_in_the_middle_of_a_stage_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(6000);
    write_files(&dir.path().join("pages"), &pages, 16);
    succeed(&["corpus", config(dir.path(), "one", "").to_str().unwrap()]);
    let expected = corpus(&dir.path().join("one"));
    // In the first stage, and in a later one, whose exchanged data go with the executor.
    for (name, files, least) in [("first", "work/pages", 3), ("later", "work/texts", 2)] {
        let mut servers = Servers::start(dir.path(), 2);
        let path = config(dir.path(), name, "");
        let client = ["corpus", path.to_str().unwrap(), "--cluster", &servers.address()].map(str::to_owned);
        let mut client = start(&client);
        // Files that stand for parts, in a folder whose name begins so.
        let done = || {
            let (parent, start) = files.split_once('/').unwrap();
            let folders = std::fs::read_dir(dir.path().join(name).join(parent)).into_iter().flatten().flatten();
            let of_stage = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(start));
            let names = of_stage.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
            names.filter(|name| !name.file_name().to_string_lossy().contains("partial")).count()
        };
        let begin = Instant::now();
        while done() < least {
            assert!(begin.elapsed() < Duration::from_secs(600), "{name}: no part is done");
            assert!(client.try_wait().unwrap().is_none(), "{name}: the job ended before the executor was killed");
            std::thread::sleep(Duration::from_millis(1));
        }
        servers.processes[2].kill().unwrap();
        servers.processes[2].wait().unwrap();
        let when = done();
        assert!(when < 16, "{name}: all parts were done when the executor was killed");
        assert!(client.wait().unwrap().success(), "{name}: killed after {when} parts");
        let found = corpus(&dir.path().join(name));
        for (path, bytes) in &expected {
            assert!(found.get(path) == Some(bytes), "{name}: {} is another", path.display());
        }
        assert_eq!(found.len(), expected.len());
        println!("{name}: an executor was killed when {when} of 16 parts were done");
    }
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pages")).unwrap();
    std::fs::write(dir.path().join("pages/a.jsonl"), "{\"text\": \"Some text.\"}\n{\"body\": 1}\n").unwrap();
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    let nobody = format!("df://localhost:{}", free_port());
    let message = fail(&["corpus", path, "--cluster", &nobody]);
    assert!(message.contains(&format!("{nobody}: expected the cluster to do the work: ")), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    let servers = Servers::start(dir.path(), 1);
    let message = fail(&["corpus", path, "--cluster", &servers.address()]);
    assert!(message.ends_with("pages/a.jsonl:2: expected a field \"text\", found [\"body\"]\n"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    let message = fail(&["corpus", path, "--set", "output=here", "--cluster", &servers.address()]);
    assert!(message.contains("here: expected a path from the root on"), "{message}");
    assert!(!Path::new("here").exists());
    let message = fail(&["corpus", "executor", "--scheduler", "nowhere"]);
    assert!(message.contains("--scheduler: expected HOST:PORT, found nowhere"), "{message}");
}
