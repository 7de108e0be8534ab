//! Pages with planted faults and repeats, what a plain loop keeps of them, and what a corpus on disk has.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use t5_train::corpus::clean::{LineCounts, clean_page};
use t5_train::corpus::language::Language;
use t5_train::corpus::repeats::{Unit, hash, hashes, without};
use t5_train::corpus::url::normalise;
use t5_train::random::Random;

/// A page of a test.
#[derive(Clone)]
pub struct Page {
    pub url: String,
    pub timestamp: String,
    pub text: String,
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
pub fn pages(count: usize) -> Vec<Page> {
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
pub fn plain_loop(pages: &[Page], unit: Unit) -> BTreeMap<String, String> {
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
        let gone = hashes(&text, unit).into_iter().filter(|(_, hash)| !seen.insert(*hash)).map(|(at, _)| at).collect();
        if let Some(text) = without(&text, unit, &gone).filter(|text| english.is_of(text)) {
            kept.insert(url, text);
        }
    }
    kept
}

fn json(page: &Page) -> String {
    serde_json::json!({ "text": page.text, "url": page.url, "timestamp": page.timestamp }).to_string() + "\n"
}

/// Writes pages as three files, every second one of JSON lines and the others WET.
pub fn write_pages(folder: &Path, pages: &[Page]) {
    write_files(folder, pages, 3);
}

/// As [`write_pages`], so many files.
pub fn write_files(folder: &Path, pages: &[Page], files: usize) {
    fs::create_dir_all(folder).unwrap();
    for (i, part) in pages.chunks(pages.len().div_ceil(files)).enumerate() {
        if i % 2 == 1 {
            let text: String = part.iter().map(json).collect();
            fs::write(folder.join(format!("{i:03}.jsonl")), text).unwrap();
            continue;
        }
        let file = fs::File::create(folder.join(format!("{i:03}.warc.wet.gz"))).unwrap();
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
pub fn kept(corpus: &Path, split: &str) -> BTreeMap<String, String> {
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

pub fn config(folder: &Path, name: &str, more: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let shown = folder.display();
    fs::write(&path, format!("input = [\"{shown}/pages\"]\noutput = \"{shown}/{name}\"\n{more}\n")).unwrap();
    path
}

/// Every file of a folder with its bytes.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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
