//! Pages of files: WARC and WET, Parquet, JSON lines and plain text, compressed or not.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::text::strip;
use crate::source::stores::{self, is_address};
use crate::source::{
    Columns, Format, Input, MAX_LINE, Missing, Record, for_each_line_if_any, for_each_record, is_hidden, json_record,
    open, without_compression,
};
use crate::{Error, Result};

/// No record of a WARC file is read whose block has more bytes.
const MAX_BLOCK: u64 = 64 << 20;
/// No line of a WARC file's headers is longer.
const MAX_HEADER: u64 = 1 << 16;
/// A page becomes a line, which has to be read again.
const MAX_PAGE: usize = MAX_LINE as usize;

/// A page of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where it is from; of a file's page that does not say it, `file:PATH#NUMBER`, of an object's `ADDRESS#NUMBER`.
    pub url: String,
    /// When it was fetched, as its file says it; may be empty.
    pub timestamp: String,
    pub text: String,
}

/// What a file has in a page's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Page(Page),
    /// A page that is not plain text in UTF-8: HTML, an image, or too large.
    NotText,
    /// A page without an address or without text.
    Empty,
}

/// How plain text is divided into pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Documents {
    /// At empty lines.
    #[default]
    Paragraphs,
    /// Every line.
    Lines,
}

/// The files that paths and addresses name, those of folders, but for hidden ones, in the order of their names.
///
/// # Errors
/// Where a path leads nowhere or is not UTF-8, or a folder has no file.
pub fn files(paths: &[PathBuf]) -> Result<Vec<Input>> {
    let mut files = Vec::new();
    for path in paths {
        if is_address(path) {
            files.extend(stores::list(path)?);
            continue;
        }
        let mut local = Vec::new();
        if path.is_dir() {
            collect(path, &mut local)?;
            if local.is_empty() {
                return Err(Error::file(path, "expected a folder with files, found none"));
            }
            local.sort();
        } else {
            local.push(crate::source::find(path)?);
        }
        for path in local {
            if path.to_str().is_none() {
                return Err(Error::file(path, "expected a name in UTF-8, as pages have it in their addresses"));
            }
            let metadata = std::fs::metadata(&path).map_err(Error::io(&path))?;
            let version = format!("{:?}", metadata.modified().ok());
            files.push(Input { path, size: metadata.len(), version });
        }
    }
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.file_name().is_some_and(|name| is_hidden(&name.to_string_lossy())) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Calls `f` with every page of a file, in order. An empty file of text or JSON has none.
///
/// # Errors
/// Where the file cannot be read or is not what its name says, a record has no `text`, or `f` says so.
pub fn for_each_page(path: &Path, documents: Documents, mut f: impl FnMut(Found) -> Result<()>) -> Result<()> {
    let name = without_compression(path).unwrap_or_default();
    let suffix = Path::new(&name).extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    let numbered = |number: usize| numbered(path, number);
    let mut f = |found: Found| {
        let too_large = matches!(&found, Found::Page(page) if !fits(page, MAX_PAGE));
        f(if too_large { Found::NotText } else { found })
    };
    match suffix {
        "warc" | "wet" => warc(path, f),
        "jsonl" | "ndjson" | "json" => for_each_line_if_any(path, |number, line| {
            json_record(path, number, line)?.map_or(Ok(()), |record| f(page(path, &record)?))
        }),
        "parquet" => for_each_record(path, Format::Parquet, &Columns::default(), |record| f(page(path, &record)?)),
        _ if documents == Documents::Lines => for_each_line_if_any(path, |number, line| {
            if line.trim().is_empty() {
                return Ok(());
            }
            f(Found::Page(Page { url: numbered(number), timestamp: String::new(), text: line.to_owned() }))
        }),
        _ => {
            let (mut first, mut text) = (0, String::new());
            let mut page = |first: usize, text: &mut String| {
                if text.is_empty() {
                    return Ok(());
                }
                f(Found::Page(Page { url: numbered(first), timestamp: String::new(), text: std::mem::take(text) }))
            };
            for_each_line_if_any(path, |number, line| {
                if line.trim().is_empty() {
                    return page(first, &mut text);
                }
                // What is too large already need not be in memory as a whole.
                if text.len() >= MAX_PAGE {
                    return Ok(());
                }
                if text.is_empty() {
                    first = number;
                } else {
                    text.push('\n');
                }
                text.push_str(line);
                Ok(())
            })?;
            page(first, &mut text)
        }
    }
}

/// Whether the line of JSON that a page becomes has fewer bytes than `most`.
fn fits(page: &Page, most: usize) -> bool {
    /// More than a line has beside its values.
    const KEYS: usize = 64;
    let values = [&page.text, &page.url, &page.timestamp];
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    // Of a byte come six at most. Few pages are so large that they have to be written to know.
    KEYS + 6 * bytes < most || serde_json::to_vec(&values).is_ok_and(|json| KEYS + json.len() < most)
}

/// The address of a page that has none: its place in a file.
fn numbered(path: &Path, number: usize) -> String {
    let scheme = if is_address(path) { "" } else { "file:" };
    format!("{scheme}{}#{number}", path.display())
}

/// The page of a record with `text` and, where it has them, `url` and `timestamp` (or `date`). An `id` is no address:
/// files count from the same number each.
fn page(path: &Path, record: &Record) -> Result<Found> {
    let Some(text) = record.text("text") else {
        return match record.missing("text") {
            Some(Missing::Null) => Ok(Found::Empty),
            Some(Missing::NotText) => Ok(Found::NotText),
            None => {
                let names: Vec<&str> = record.names().collect();
                Err(Error::data(path, record.line, format!("expected a field \"text\", found {names:?}")))
            }
        };
    };
    if strip(&text).is_empty() {
        return Ok(Found::Empty);
    }
    let url = match record.text("url") {
        Some(url) if !url.is_empty() => url.into_owned(),
        _ => numbered(path, record.line),
    };
    let timestamp = record.text("timestamp").or_else(|| record.text("date")).unwrap_or_default().into_owned();
    Ok(Found::Page(Page { url, timestamp, text: text.into_owned() }))
}

/// Pages of a WARC file: its records of type `conversion`, as WET files have them, and other plain text.
fn warc(path: &Path, mut f: impl FnMut(Found) -> Result<()>) -> Result<()> {
    let mut reader = open(path)?;
    let mut line = Vec::new();
    // Lines of headers, without white space at their ends; `None` at the file's end.
    let mut read_line = |reader: &mut Box<dyn BufRead>, number: usize| -> Result<Option<String>> {
        line.clear();
        let read = reader.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line).map_err(Error::io(path))?;
        if read as u64 == MAX_HEADER {
            return Err(in_record(path, number, "expected lines of headers, found one of over 64 KiB"));
        }
        Ok((read > 0).then(|| String::from_utf8_lossy(&line).trim().to_owned()))
    };
    for number in 1.. {
        let mut start = read_line(&mut reader, number)?;
        while start.as_deref() == Some("") {
            start = read_line(&mut reader, number)?;
        }
        let Some(start) = start else {
            return if number == 1 {
                Err(Error::file(path, "expected WARC records, found an empty file"))
            } else {
                Ok(())
            };
        };
        if !start.starts_with("WARC/") {
            let start: String = start.chars().take(40).collect();
            return Err(in_record(path, number, &format!("expected WARC/1.0, found {start:?}")));
        }
        let (mut kind, mut media, mut length, mut page) = (String::new(), String::new(), None, Page::default());
        loop {
            let Some(header) = read_line(&mut reader, number)? else {
                return Err(in_record(path, number, "ends within its headers"));
            };
            if header.is_empty() {
                break;
            }
            let Some((name, value)) = header.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "warc-type" => kind = value.to_ascii_lowercase(),
                "content-type" => media = value.to_ascii_lowercase(),
                "warc-target-uri" => page.url = value.trim_matches(['<', '>']).to_owned(),
                "warc-date" => page.timestamp = value.to_owned(),
                "content-length" => length = value.parse::<u64>().ok(),
                _ => {}
            }
        }
        let Some(length) = length else {
            return Err(in_record(path, number, "expected a Content-Length, found none that is a number"));
        };
        let is_page = matches!(kind.as_str(), "conversion" | "resource" | "response");
        let is_text = kind == "conversion" || kind == "resource" && media.starts_with("text/plain");
        let wanted = is_text && length <= MAX_BLOCK;
        let mut block = Vec::new();
        let mut limited = reader.by_ref().take(length);
        let read = if wanted {
            limited.read_to_end(&mut block).map(|read| read as u64)
        } else {
            std::io::copy(&mut limited, &mut std::io::sink())
        };
        let read = read.map_err(Error::io(path))?;
        if read < length {
            return Err(in_record(path, number, &format!("ends after {read} of its {length} bytes")));
        }
        match String::from_utf8(block) {
            _ if !is_page => {}
            Ok(text) if wanted => {
                page.text = kept_lines(&text);
                f(if page.url.is_empty() || page.text.is_empty() { Found::Empty } else { Found::Page(page) })?;
            }
            _ => f(Found::NotText)?,
        }
    }
    Ok(())
}

/// The lines of a record that C4's code takes as text: stripped, none empty, none that looks like a header.
fn kept_lines(text: &str) -> String {
    let is_header = |line: &str| ["WARC", "CONTENT-", "Content-"].iter().any(|start| line.starts_with(start));
    let lines = text.split('\n').map(strip).filter(|line| !line.is_empty() && !is_header(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn in_record(path: &Path, number: usize, what: &str) -> Error {
    Error::file(path, format!("record {number}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pages(path: &Path, documents: Documents) -> Result<Vec<Found>> {
        let mut pages = Vec::new();
        for_each_page(path, documents, |found| {
            pages.push(found);
            Ok(())
        })?;
        Ok(pages)
    }

    fn texts(path: &Path, documents: Documents) -> Vec<String> {
        let texts = pages(path, documents).unwrap().into_iter().map(|found| match found {
            Found::Page(page) => page.text,
            other => format!("{other:?}"),
        });
        texts.collect()
    }

    fn record(kind: &str, headers: &str, block: &[u8]) -> Vec<u8> {
        let length = block.len();
        let mut record =
            format!("WARC/1.0\r\nWARC-Type: {kind}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
        record.extend(block);
        record.extend(b"\r\n\r\n");
        record
    }

    #[test]
    fn wet_files_have_pages_by_length_and_drop_what_looks_like_headers() {
        let dir = tempfile::tempdir().unwrap();
        let uri = "WARC-Target-URI: http://a.com/b\r\nWARC-Date: 2019-04-18T10:00:00Z\r\n";
        let text = b"  One line.  \r\n\nWARC/1.0\nContent-Length: 5\nContent is king.\n".as_slice();
        let all = [
            record("warcinfo", "", b"software: x"),
            record("conversion", uri, text),
            record("conversion", "", b"no address"),
            record("conversion", uri, b" \n "),
            record("conversion", uri, b"not UTF-8: \xFF"),
            record("response", uri, b"HTTP/1.1 200 OK\r\n\r\n<html>"),
            record("request", uri, b"GET / HTTP/1.1"),
            record("resource", &format!("{uri}Content-Type: text/plain\r\n"), "plain é".as_bytes()),
        ]
        .concat();
        let page = |text: &str| {
            let (url, timestamp) = ("http://a.com/b".to_owned(), "2019-04-18T10:00:00Z".to_owned());
            Found::Page(Page { url, timestamp, text: text.to_owned() })
        };
        let expected = [
            page("One line.\nContent is king."),
            Found::Empty,
            Found::Empty,
            Found::NotText,
            Found::NotText,
            page("plain é"),
        ];
        let path = dir.path().join("a.warc.wet.gz");
        let mut gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        gz.write_all(&all).unwrap();
        gz.finish().unwrap();
        assert_eq!(pages(&path, Documents::Lines).unwrap(), expected);
        let path = dir.path().join("a.warc");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            pages(&path, Documents::Lines).unwrap_err().to_string()
        };
        let cut = message(&all[..all.len() - 8]);
        assert!(cut.contains("a.warc: record 8: ends after 4 of its 8 bytes"), "{cut}");
        assert!(message(b"<html>").contains("record 1: expected WARC/1.0, found \"<html>\""));
        assert!(message(b"").contains("expected WARC records, found an empty file"));
        assert!(message(b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\n").contains("expected a Content-Length"));
        assert!(message(b"WARC/1.0\r\nWARC-Type").contains("ends within its headers"));
    }

    #[test]
    fn json_lines_text_and_parquet_have_pages() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let path = write("a.json", "{\"text\": \"x\\ny\", \"url\": \"u\", \"timestamp\": \"t\"}\n{\"text\": \" \"}\n");
        let page = Page { url: "u".into(), timestamp: "t".into(), text: "x\ny".into() };
        assert_eq!(pages(&path, Documents::Lines).unwrap(), [Found::Page(page), Found::Empty]);
        // Two files that count from one have two pages.
        for name in ["one.jsonl", "two.jsonl"] {
            let path = write(name, "{\"text\": \"x\", \"id\": 1, \"url\": \"\"}\n");
            let found = pages(&path, Documents::Lines).unwrap();
            assert!(matches!(&found[..], [Found::Page(page)] if page.url.ends_with(&format!("{name}#1"))), "{found:?}");
            std::fs::remove_file(path).unwrap();
        }
        let path = write("a.json", "{\"text\": null, \"url\": \"u\"}\n");
        assert_eq!(pages(&path, Documents::Lines).unwrap(), [Found::Empty]);
        let path = write("b.jsonl", "{\"text\": \"x\"}\n{\"body\": \"x\"}\n");
        let message = pages(&path, Documents::Lines).unwrap_err().to_string();
        assert!(message.ends_with("b.jsonl:2: expected a field \"text\", found [\"body\"]"), "{message}");
        let path = write("c.txt", "one\ntwo\n\n \nthree\n");
        assert_eq!(texts(&path, Documents::Paragraphs), ["one\ntwo", "three"]);
        assert_eq!(texts(&path, Documents::Lines), ["one", "two", "three"]);
        let found = pages(&path, Documents::Paragraphs).unwrap();
        assert!(matches!(&found[1], Found::Page(page) if page.url.ends_with("c.txt#5")), "{found:?}");
        let listed = files(&[dir.path().to_owned(), path.clone()]).unwrap();
        let names: Vec<_> = listed.iter().map(|input| input.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.json", "b.jsonl", "c.txt", "c.txt"]);
        assert!(files(&[dir.path().join("none")]).unwrap_err().to_string().contains("expected a data file"));
    }

    #[test]
    fn what_programs_leave_beside_pages_is_no_page() {
        let dir = tempfile::tempdir().unwrap();
        // As `hf download --local-dir` and Spark leave them.
        for name in [".cache/huggingface/a.jsonl.metadata", ".part-0.jsonl.crc", "_SUCCESS", "more/_SUCCESS"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let message = files(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(message.ends_with("expected a folder with files, found none"), "{message}");
        // Parts without pages.
        for name in ["part-0.jsonl", "part-1.txt", "more/part-2.json"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let listed = files(&[dir.path().to_owned()]).unwrap();
        assert_eq!(listed.len(), 3);
        for documents in [Documents::Paragraphs, Documents::Lines] {
            assert!(listed.iter().all(|input| pages(&input.path, documents).unwrap().is_empty()));
        }
        // A hidden folder that is asked for by its name.
        assert_eq!(files(&[dir.path().join(".cache")]).unwrap().len(), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_that_are_not_utf_8_are_refused() {
        use std::os::unix::ffi::OsStrExt;

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xE9.txt")), "text").unwrap();
        let message = files(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(message.contains(".txt: expected a name in UTF-8"), "{message}");
    }

    #[test]
    fn a_page_that_is_too_large_for_a_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let line = "a line of 3 MiB ".repeat(3 << 16) + "\n";
        std::fs::write(&path, line.repeat(22) + "\nsmall\n").unwrap();
        let found = pages(&path, Documents::Paragraphs).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0] == Found::NotText, "a page");
        assert!(matches!(&found[1], Found::Page(page) if page.text == "small" && page.url.ends_with("#24")));
        // What counts are bytes of JSON.
        let page = |text: &str| Page { text: text.repeat(100), ..Page::default() };
        assert!(fits(&page("a"), 200) && !fits(&page("a"), 150));
        assert!(fits(&page("\n"), 300) && !fits(&page("\n"), 250));
        assert!(fits(&page("\u{1}"), 700) && !fits(&page("\u{1}"), 650));
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_has_pages_where_a_column_is_called_text() {
        // Written by pyarrow (tests/data/make_parquet.py); its column is called otherwise.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dataset/data/train-00001-of-00002.parquet");
        let message = pages(&path, Documents::Lines).unwrap_err().to_string();
        assert!(message.contains("expected a field \"text\", found [\"sentence\""), "{message}");
    }
}
