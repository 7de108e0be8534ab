//! The command `corpus` on pages with planted faults and repeats, beside a plain loop; killed and gone on with; and a
//! run from the ids that it makes.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use common::{command, fail, run, succeed, write_corpus};
use t5_train::corpus::clean::{LineCounts, clean_page};
use t5_train::corpus::language::Language;
use t5_train::corpus::repeats::{Unit, hash, hashes, without};
use t5_train::corpus::url::normalise;
use t5_train::random::Random;

/// A page of a test.
#[derive(Clone)]
struct Page {
    url: String,
    timestamp: String,
    text: String,
}

/// Sentences that are English to whatlang, each with a number of its own.
fn sentence(random: &mut Random) -> String {
    let [who, what, place] = [
        ["The old man", "A young woman", "Their neighbour", "The quiet child", "Nobody from the village"],
        [
            "walked slowly towards",
            "had often spoken about",
            "could not remember",
            "never returned to",
            "was looking for",
        ],
        [
            "the river behind the house",
            "the garden of the church",
            "the road to the mountains",
            "the letter on the table",
            "the other side of the town",
        ],
    ]
    .map(|words| words[random.below(5)]);
    format!("{who} {what} {place} {} times.", random.below(100_000))
}

/// Pages with every fault, and lines, pages and addresses that are there twice.
fn pages(count: usize) -> Vec<Page> {
    let mut random = Random::new(11);
    let mut pages: Vec<Page> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for i in 0..count {
        let mut page: Vec<String> = Vec::new();
        for _ in 0..random.between(1, 7) {
            let line = match random.below(14) {
                0 => "Menu Home About".to_owned(),
                1 => "We use cookies on all of our pages.".to_owned(),
                2 => "You need JavaScript to see all of this.".to_owned(),
                3 => format!("{}[12] [edit]", sentence(&mut random)),
                4 if !lines.is_empty() => lines[random.below(lines.len())].to_uppercase(),
                5 => "Too short.".to_owned(),
                6 => format!("{} and then...", sentence(&mut random)),
                _ => (0..random.between(1, 4)).map(|_| sentence(&mut random)).collect::<Vec<_>>().join(" "),
            };
            lines.push(line.clone());
            page.push(line);
        }
        match random.below(30) {
            0 => page.push("function main() { return 1 now; }.".to_owned()),
            1 => page.push("Here is some Lorem Ipsum for you.".to_owned()),
            2 => {
                page = vec![
                    "Die alten Häuser standen dort. Niemand wollte sie haben. Es war sehr still geworden.".to_owned(),
                ]
            }
            3 if !pages.is_empty() => page = vec![pages[random.below(pages.len())].text.clone()],
            _ => {}
        }
        let mut url = format!("https://www.site{}.com/page/{i}/", i % 7);
        if random.below(12) == 0 && !pages.is_empty() {
            url = pages[random.below(pages.len())].url.trim_end_matches('/').replace("https://www.", "http://")
                + "?utm_x=1";
        }
        let timestamp = format!("2019-04-{:02}T10:{:02}:00Z", random.between(1, 28), random.below(60));
        pages.push(Page { url, timestamp, text: page.join("\n") });
    }
    pages
}

/// What C4 keeps of pages, by a loop over tables in memory: texts by address.
fn plain_loop(pages: &[Page], unit: Unit) -> BTreeMap<String, String> {
    let mut newest: HashMap<String, usize> = HashMap::new();
    for (i, page) in pages.iter().enumerate() {
        let known = newest.entry(normalise(&page.url)).or_insert(i);
        if page.timestamp > pages[*known].timestamp {
            *known = i;
        }
    }
    let alive: HashSet<usize> = newest.into_values().collect();
    let mut cleaned: Vec<(String, String, String)> = Vec::new();
    for (i, page) in pages.iter().enumerate().filter(|(i, _)| alive.contains(i)) {
        let _ = i;
        if let Ok(text) = clean_page(&page.text, None, &mut LineCounts::default()) {
            cleaned.push((normalise(&page.url), page.url.clone(), text));
        }
    }
    // The page whose address has the smallest hash keeps what several have.
    cleaned.sort_by_key(|(key, ..)| hash(key));
    let mut seen = HashSet::new();
    let english = Language::new("en", 0.99).unwrap();
    let mut kept = BTreeMap::new();
    for (_, url, text) in cleaned {
        let gone = (0..).zip(hashes(&text, unit)).filter(|(_, hash)| !seen.insert(*hash)).map(|(at, _)| at).collect();
        if let Some(text) = without(&text, unit, &gone).filter(|text| english.is_of(text)) {
            kept.insert(url, text);
        }
    }
    kept
}

fn json(page: &Page) -> String {
    serde_json::json!({ "text": page.text, "url": page.url, "timestamp": page.timestamp }).to_string() + "\n"
}

/// Writes pages as two WET files and one of JSON lines.
fn write_pages(folder: &Path, pages: &[Page]) {
    fs::create_dir_all(folder).unwrap();
    for (i, part) in pages.chunks(pages.len().div_ceil(3)).enumerate() {
        if i == 1 {
            let text: String = part.iter().map(json).collect();
            fs::write(folder.join("b.jsonl"), text).unwrap();
            continue;
        }
        let file = fs::File::create(folder.join(["a.warc.wet.gz", "", "c.warc.wet.gz"][i])).unwrap();
        let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        for page in part {
            let (length, text) = (page.text.len(), &page.text);
            let headers = format!("WARC-Target-URI: {}\r\nWARC-Date: {}\r\n", page.url, page.timestamp);
            write!(out, "WARC/1.0\r\nWARC-Type: conversion\r\n{headers}Content-Length: {length}\r\n\r\n{text}\r\n\r\n")
                .unwrap();
        }
        out.finish().unwrap();
    }
}

/// The texts of a split, by address.
fn kept(corpus: &Path, split: &str) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for entry in fs::read_dir(corpus.join(split)).unwrap() {
        let mut text = String::new();
        flate2::read::GzDecoder::new(fs::File::open(entry.unwrap().path()).unwrap()).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| value[name].as_str().unwrap().to_owned();
            assert!(kept.insert(field("url"), field("text")).is_none(), "an address twice");
        }
    }
    kept
}

fn config(folder: &Path, name: &str, more: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let shown = folder.display();
    fs::write(&path, format!("input = [\"{shown}/pages\"]\noutput = \"{shown}/{name}\"\n{more}\n")).unwrap();
    path
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_corpus_is_what_a_plain_loop_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(3000);
    write_pages(&dir.path().join("pages"), &pages);
    for (unit, name) in [(Unit::Lines, "lines"), (Unit::Spans, "spans")] {
        let path = config(dir.path(), name, &format!("repeats = \"{name}\"\nvalidation_per_thousand = 100"));
        let output = succeed(&["corpus", path.to_str().unwrap(), "--keep-removed", "2"]);
        let table = String::from_utf8(output.stdout).unwrap();
        let corpus = dir.path().join(name);
        let (train, validation) = (kept(&corpus, "train"), kept(&corpus, "validation"));
        let expected = plain_loop(&pages, unit);
        // About a tenth is held out: standard deviation 14 of 2,000.
        assert!(validation.len() * 20 > expected.len() && validation.len() * 7 < expected.len(), "{table}");
        let both: BTreeMap<String, String> = train.into_iter().chain(validation).collect();
        assert_eq!(both.len(), expected.len(), "{table}");
        assert_eq!(both, expected);
        for row in [
            "3000           pages read",
            "removed: of an address that another page has",
            "removed: lorem ipsum",
            "removed: a {",
            "removed: fewer than three sentences\n",
            "removed: fewer than three sentences that are not elsewhere",
            "removed: another language",
            "lines removed: no mark at the end, or ...",
            "lines removed: fewer than five words",
            "lines removed: JavaScript",
            "lines removed: cookies, terms or privacy",
            "lines or spans removed: elsewhere, too",
        ] {
            assert!(table.contains(row), "{row} in\n{table}");
        }
        // Removed and kept pages are all pages.
        let counts = |start: &str| -> u64 {
            let rows = table.lines().filter(|line| line.contains(start) && !line.contains("lines"));
            rows.map(|line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
        };
        assert_eq!(counts("removed:") + counts(" kept "), 3000, "{table}");
        let samples = fs::read_to_string(corpus.join("removed.jsonl")).unwrap();
        assert_eq!(samples.lines().filter(|line| line.contains("\"rule\":\"lorem-ipsum\"")).count(), 2, "{samples}");
        assert!(!corpus.join("work").exists());
        // Again there is nothing to do; with another rule there is.
        let before = contents(&corpus);
        let again = succeed(&["corpus", path.to_str().unwrap(), "--keep-removed", "2"]);
        assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
        assert!(String::from_utf8(again.stderr).unwrap().contains("was made before"));
        assert_eq!(contents(&corpus), before);
        let other = succeed(&["corpus", path.to_str().unwrap(), "--set", "language="]);
        assert!(!String::from_utf8(other.stdout).unwrap().contains("another language"));
    }
}

#[test]
fn a_killed_job_goes_on_and_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(6000);
    write_pages(&dir.path().join("pages"), &pages);
    write_corpus(dir.path());
    let more = "threads = 1\nvalidation_per_thousand = 100";
    let whole = config(dir.path(), "whole", more);
    succeed(&["corpus", whole.to_str().unwrap()]);
    let expected = contents(&dir.path().join("whole"));
    let path = config(dir.path(), "killed", more);
    let (mut kills, mut wait) = (0, 20);
    loop {
        let mut process = command(&["corpus", path.to_str().unwrap()]);
        let mut child = process.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        wait = wait * 4 / 3;
    }
    assert!(kills > 0);
    let mut found = contents(&dir.path().join("killed"));
    // Of what a killed process began nothing is left, and its name is its own.
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let report = Path::new("report.json");
    let without_name = |bytes: &[u8]| {
        let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        value.as_object_mut().unwrap().remove("made_of");
        value
    };
    assert_eq!(without_name(&found[report]), without_name(&expected[report]));
    found.insert(report.to_owned(), expected[report].clone());
    assert!(found == expected, "{kills} kills");
}

#[test]
fn a_run_from_shards_is_the_run_from_the_text() {
    let dir = tempfile::tempdir().unwrap();
    write_corpus(dir.path());
    let folder = dir.path().display();
    let numbers = fs::read_to_string(dir.path().join("numbers.tsv")).unwrap();
    fs::create_dir(dir.path().join("pages")).unwrap();
    fs::write(dir.path().join("pages/text.txt"), numbers.replace('\t', " is ")).unwrap();
    let train = |name: &str, task: &str| {
        let text = format!(
            "[run]\noutput = \"{folder}/{name}\"\nsteps = 6\n[model]\nvocabulary = \"{folder}/tokenizer.json\"\n\
             d_model = 16\nd_kv = 8\nd_ff = 32\nnum_layers = 1\nnum_decoder_layers = 1\nnum_heads = 2\n\
             [data]\ndir = \"{folder}\"\ninputs_length = 40\ntargets_length = 30\nlimit_tokens = 5000\n\
             [[data.tasks]]\nname = \"text\"\n{task}\nexamples = {{ kind = \"denoise\", concatenate = true }}\n\
             [data.batches]\nrows = 4\nencoder_length = 80\ndecoder_length = 60\nwindow = 4\n\
             [vocabulary]\npieces = 150\n[evaluation]\nevery_steps = 0\n"
        );
        let path = dir.path().join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = train("text", "train = [\"pages/text.txt\"]");
    let tokenizer = dir.path().join("tokenizer.json");
    succeed(&["vocab", &text, "-o", tokenizer.to_str().unwrap()]);
    let more = format!("variant = \"text\"\ndocuments = \"lines\"\nvocabulary = \"{folder}/tokenizer.json\"");
    succeed(&["corpus", config(dir.path(), "corpus", &more).to_str().unwrap()]);
    let shards = train("shards", "source = { format = \"shards\" }\ntrain = [\"corpus/shards/train\"]");
    let weights = |config: &str, name: &str| {
        succeed(&["run", config]);
        let run = dir.path().join(name);
        let found = contents(&run).into_iter().filter(|(path, _)| path.ends_with("model.safetensors"));
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty());
        found
    };
    assert!(weights(&text, "text") == weights(&shards, "shards"), "other weights");
    // Shards that were changed are refused before anything is trained.
    let ids = dir.path().join("corpus/shards/train/00000.ids");
    let mut bytes = fs::read(&ids).unwrap();
    bytes[100] ^= 1;
    fs::write(&ids, bytes).unwrap();
    let message = fail(&["run", &shards]);
    assert!(message.contains("00000.ids: was changed or damaged"), "{message}");
    assert_eq!(message.lines().filter(|line| line.contains("00000.ids")).count(), 1, "{message}");
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("pages")).unwrap();
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    assert!(fail(&["corpus", path]).contains("pages: expected a folder with files, found none"));
    fs::write(dir.path().join("pages/a.jsonl"), "{\"text\": \"Too short.\"}\n").unwrap();
    let message = fail(&["corpus", path]);
    assert!(message.contains("expected pages that the rules keep, found none"), "{message}");
    assert!(message.contains("fewer than three sentences"), "{message}");
    fs::write(dir.path().join("pages/a.jsonl"), "{\"text\": \n").unwrap();
    assert!(fail(&["corpus", path]).contains("a.jsonl:1: expected a JSON object on one line"));
    let output = run(&["corpus", path, "--set", "language=xx"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("expected a code such as en, de or fra, found xx"));
}
