//! Source files: plain text, tables (TSV, CSV, JSON lines, Parquet) and two formats of their own, optionally compressed
//! with gzip, xz or zstd.
//!
//! A file becomes records; a record is a handful of named values. Reading is strict: a byte that is not UTF-8, a row
//! without its tabs or a line that is not JSON stops the run with the file and the line.

pub mod stores;
mod tables;
mod zstd;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// No line of text is longer than this many bytes; a longer one is a binary file or a decompression bomb.
pub(crate) const MAX_LINE: u64 = 64 << 20;

/// Compression by file name.
const SUFFIXES: [&str; 3] = ["gz", "xz", "zst"];

/// A file or an object as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// What changes when it is written again: its time, or a store's mark.
    pub version: String,
}

/// How a file is divided into records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One record a line, in the field `text`; blank lines are boundaries of documents and make no record.
    #[default]
    Text,
    /// Values separated by tabs; the columns are named in the task, or by a first line (`header = true`).
    Tsv,
    /// Values separated by commas, quoted where they hold commas, quotes or line breaks; the first line names the
    /// columns.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Parquet files with named columns: one, or a Hugging Face data-set folder, or one of its splits as FOLDER/SPLIT.
    Parquet,
    /// SQuAD's JSON: fields `question`, `context`, `answers` (a list), `title` and `id`.
    Squad,
    /// A folder of ids, which only unlabelled text is taken from (see `shards`).
    Shards,
    /// The CMU pronouncing dictionary: fields `word`, `letters` (those of the word, with spaces between them) and
    /// `pronunciations` (a list, all variants of a word).
    Cmudict,
}

/// A value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    List(Vec<String>),
}

/// Why a record has no value of a field that its file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Null,
    /// Bytes that are not UTF-8.
    NotText,
}

/// One record of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Line in the file, from 1; the question's number for SQuAD.
    pub line: usize,
    /// The text before this record ended a document (a blank line).
    pub starts_document: bool,
    fields: Vec<(String, Value)>,
    missing: Vec<(String, Missing)>,
}

impl Record {
    /// A record of named values.
    pub fn new(line: usize, fields: Vec<(String, Value)>) -> Record {
        Record { line, fields, ..Record::default() }
    }

    /// A record of named values, of which some are missing.
    fn with_missing(line: usize, values: impl Iterator<Item = (String, Result<Value, Missing>)>) -> Record {
        let mut record = Record::new(line, Vec::new());
        for (name, value) in values {
            match value {
                Ok(value) => record.fields.push((name, value)),
                Err(missing) => record.missing.push((name, missing)),
            }
        }
        record
    }

    /// Why a field that the file has is without a value here.
    pub fn missing(&self, name: &str) -> Option<Missing> {
        self.missing.iter().find(|(key, _)| key == name).map(|&(_, missing)| missing)
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text of a field; the parts of a list joined by spaces.
    pub fn text(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.get(name).map(|value| match value {
            Value::Text(text) => text.into(),
            Value::List(parts) => parts.join(" ").into(),
        })
    }

    /// Every value of a field: one for a text, all for a list.
    pub fn values(&self, name: &str) -> Option<&[String]> {
        self.get(name).map(|value| match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(parts) => parts.as_slice(),
        })
    }

    /// The names of the fields that have values, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(key, _)| key.as_str())
    }
}

/// How to read a TSV file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The names of the columns in order; an empty name is passed over. Without any, the first line has them.
    pub names: Vec<String>,
    /// The first line names the columns and is no record.
    pub header: bool,
}

/// The file itself, or the one that has a compression suffix added to its name.
///
/// # Errors
/// Where neither exists.
pub fn find(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    for suffix in SUFFIXES {
        let mut name = path.as_os_str().to_os_string();
        name.push(".");
        name.push(suffix);
        if Path::new(&name).is_file() {
            return Ok(name.into());
        }
    }
    let found = if path.is_dir() { "found a folder" } else { "found nothing there (nor with .gz, .xz or .zst added)" };
    Err(Error::file(path, format!("expected a data file, {found}")))
}

/// The compression that a file's name says, in whatever case.
fn compression(path: &Path) -> Option<&'static str> {
    let suffix = path.extension()?.to_str()?;
    SUFFIXES.into_iter().find(|known| suffix.eq_ignore_ascii_case(known))
}

/// A file's name in lower case, without a compression's suffix; `None` where the path ends in no name. What is not
/// UTF-8 in it does not hide its suffixes.
pub fn without_compression(path: &Path) -> Option<String> {
    let name = if compression(path).is_some() { path.file_stem()? } else { path.file_name()? };
    Some(name.to_string_lossy().to_ascii_lowercase())
}

/// Whether a file's or a folder's name says that it lies beside the data: hidden ones (`.cache`, `.part-0.crc`), and
/// the mark of a job of Spark that ended.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "_SUCCESS"
}

pub use tables::{columns, format_of, has_split};

/// Opens a file, or an object by its address, decompressing by its suffix.
///
/// # Errors
/// Where it does not exist, cannot be read or has no valid compression header.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let (path, file): (PathBuf, Box<dyn Read>) = if stores::is_address(path) {
        (path.to_owned(), stores::read(path)?)
    } else {
        let path = find(path)?;
        let file = File::open(&path).map_err(Error::io(&path))?;
        (path, Box::new(file))
    };
    let file = BufReader::with_capacity(1 << 18, file);
    Ok(match compression(&path) {
        Some("gz") => Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(file))),
        Some("xz") => Box::new(BufReader::with_capacity(1 << 18, lzma_rust2::XzReader::new(file, true))),
        Some("zst") => {
            let frames = zstd::Frames::new(file).map_err(|e| Error::file(&path, e.to_string()))?;
            Box::new(BufReader::with_capacity(1 << 18, frames))
        }
        _ => Box::new(file),
    })
}

/// Calls `f` with the number (from 1) and text of each line, without its end and without a byte-order mark.
///
/// # Errors
/// Where a line is not UTF-8, is absurdly long, or `f` says so; where the file is empty.
pub fn for_each_line(path: &Path, mut f: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut any = false;
    for_each_line_if_any(path, |number, line| {
        any |= !line.trim().is_empty();
        f(number, line)
    })?;
    if any { Ok(()) } else { Err(Error::file(path, "expected text, found an empty file")) }
}

/// As [`for_each_line`], of a file that may be empty.
///
/// # Errors
/// Where a line is not UTF-8, is absurdly long, or `f` says so.
pub fn for_each_line_if_any(path: &Path, mut f: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut reader = open(path)?;
    let mut buffer = Vec::new();
    let mut number = 0;
    loop {
        buffer.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut buffer).map_err(Error::io(path))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if read as u64 == MAX_LINE && buffer.last() != Some(&b'\n') {
            return Err(Error::data(path, number, format!("expected lines of less than {} MB", MAX_LINE >> 20)));
        }
        let line = std::str::from_utf8(&buffer).map_err(|e| {
            let at = e.valid_up_to();
            Error::data(path, number, format!("expected UTF-8, found byte 0x{:02X} in column {}", buffer[at], at + 1))
        })?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = if number == 1 { line.strip_prefix('\u{FEFF}').unwrap_or(line) } else { line };
        f(number, line)?;
    }
}

/// Calls `f` with every record of a file.
///
/// # Errors
/// As [`for_each_line`], and where a line is not what the format asks for.
pub fn for_each_record(
    path: &Path,
    format: Format,
    columns: &Columns,
    mut f: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    match format {
        Format::Text => {
            let mut starts_document = true;
            for_each_line(path, |line, text| {
                if text.trim().is_empty() {
                    starts_document = true;
                    return Ok(());
                }
                let fields = vec![("text".to_string(), Value::Text(text.to_string()))];
                let starts_document = std::mem::take(&mut starts_document);
                f(Record { starts_document, ..Record::new(line, fields) })
            })
        }
        Format::Tsv => {
            let mut names = columns.names.clone();
            for_each_line(path, |line, text| {
                if line == 1 && columns.header {
                    if names.is_empty() {
                        names = text.split('\t').map(|name| name.trim().to_string()).collect();
                    }
                    return Ok(());
                }
                if text.is_empty() {
                    return Ok(());
                }
                f(Record::new(line, tsv_fields(path, line, text, &names)?))
            })
        }
        Format::Jsonl => for_each_line(path, |line, text| json_record(path, line, text)?.map_or(Ok(()), &mut f)),
        Format::Csv => tables::csv(path, f),
        Format::Parquet => tables::parquet(path, f),
        Format::Squad => squad(path, f),
        Format::Cmudict => cmudict(path, f),
        Format::Shards => Err(Error::file(path, "expected a format of texts, found shards, which hold ids alone")),
    }
}

fn tsv_fields(path: &Path, line: usize, text: &str, names: &[String]) -> Result<Vec<(String, Value)>> {
    let mut parts = text.split('\t');
    let mut fields = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let Some(part) = parts.next() else {
            let wanted = names.iter().map(|n| if n.is_empty() { "-" } else { n }).collect::<Vec<_>>().join(", ");
            return Err(Error::data(
                path,
                line,
                format!("expected {} columns separated by tabs ({wanted}), found {i}", names.len()),
            ));
        };
        if !name.is_empty() {
            fields.push((name.clone(), Value::Text(part.to_string())));
        }
    }
    Ok(fields)
}

/// The record of a line of JSON; `None` of a blank one.
///
/// # Errors
/// Where the line is no object.
pub(crate) fn json_record(path: &Path, line: usize, text: &str) -> Result<Option<Record>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|e| Error::data(path, line, format!("expected a JSON object on one line: {e}")))?;
    Ok(Some(Record::with_missing(line, object.into_iter().map(|(name, value)| (name, json_value(value))))))
}

/// Strings, numbers, booleans and lists of them; nested values are written out as JSON, null is missing.
fn json_value(value: serde_json::Value) -> Result<Value, Missing> {
    use serde_json::Value as Json;
    let text = |value: Json| match value {
        Json::String(text) => text,
        // Class ids of SuperGLUE are written as false and true, too.
        Json::Bool(b) => u8::from(b).to_string(),
        other => other.to_string(),
    };
    match value {
        Json::Null => Err(Missing::Null),
        Json::Array(items) => Ok(Value::List(items.into_iter().map(text).collect())),
        other => Ok(Value::Text(text(other))),
    }
}

fn squad(path: &Path, mut f: impl FnMut(Record) -> Result<()>) -> Result<()> {
    #[derive(Deserialize)]
    struct Squad {
        data: Vec<Article>,
    }
    #[derive(Deserialize)]
    struct Article {
        #[serde(default)]
        title: String,
        paragraphs: Vec<Paragraph>,
    }
    #[derive(Deserialize)]
    struct Paragraph {
        context: String,
        qas: Vec<Question>,
    }
    #[derive(Deserialize)]
    struct Question {
        id: String,
        question: String,
        #[serde(default)]
        answers: Vec<Answer>,
    }
    #[derive(Deserialize)]
    struct Answer {
        text: String,
    }
    let file: Squad = serde_json::from_reader(open(path)?)
        .map_err(|e| Error::data(path, e.line(), format!("expected SQuAD JSON: {e}")))?;
    let mut number = 0;
    for article in file.data {
        for paragraph in article.paragraphs {
            for question in paragraph.qas {
                number += 1;
                let text = |s: &str| Value::Text(s.to_string());
                f(Record::new(
                    number,
                    vec![
                        ("id".into(), text(&question.id)),
                        ("title".into(), text(&article.title)),
                        ("context".into(), text(&paragraph.context)),
                        ("question".into(), text(&question.question)),
                        ("answers".into(), Value::List(question.answers.into_iter().map(|a| a.text).collect())),
                    ],
                ))?;
            }
        }
    }
    if number == 0 { Err(Error::file(path, "expected SQuAD questions, found none")) } else { Ok(()) }
}

/// `word PH ON EM` a line, further pronunciations as `word(2)` after the first one, `#` starts a comment.
fn cmudict(path: &Path, mut f: impl FnMut(Record) -> Result<()>) -> Result<()> {
    let record = |line: usize, word: String, pronunciations: Vec<String>| {
        let letters: Vec<String> = word.chars().map(String::from).collect();
        let fields = [
            ("word", Value::Text(word)),
            ("letters", Value::Text(letters.join(" "))),
            ("pronunciations", Value::List(pronunciations)),
        ];
        Record::new(line, fields.map(|(name, value)| (name.into(), value)).into())
    };
    let mut current: Option<(usize, String, Vec<String>)> = None;
    for_each_line(path, |line, text| {
        let text = text.split('#').next().unwrap_or("").trim();
        if text.is_empty() || text.starts_with(";;;") {
            return Ok(());
        }
        let (head, phones) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::data(path, line, format!("expected a word and its phones, found {text:?}")))?;
        let word = head.find('(').filter(|&at| at > 0 && head.ends_with(')')).map_or(head, |at| &head[..at]);
        let phones = phones.split_whitespace().collect::<Vec<_>>().join(" ");
        match &mut current {
            Some((_, previous, pronunciations)) if previous == word => pronunciations.push(phones),
            _ => {
                if let Some((line, word, pronunciations)) = current.replace((line, word.to_string(), vec![phones])) {
                    f(record(line, word, pronunciations))?;
                }
            }
        }
        Ok(())
    })?;
    match current {
        Some((line, word, pronunciations)) => f(record(line, word, pronunciations)),
        None => Err(Error::file(path, "expected words and their phones, found none")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("temporary file");
        path
    }

    fn records(path: &Path, format: Format, columns: &Columns) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        for_each_record(path, format, columns, |record| {
            out.push(record);
            Ok(())
        })?;
        Ok(out)
    }

    fn two_columns() -> Columns {
        Columns { names: vec!["en".into(), "de".into()], header: false }
    }

    #[test]
    fn reads_tsv_with_and_without_a_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.tsv", "Hello.\tHallo.\textra\r\n\nYes\tJa\n".as_bytes());
        let rows = records(&path, Format::Tsv, &two_columns()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[1].line, rows[1].text("de").unwrap().as_ref()), (3, "Ja"));
        assert_eq!(rows[0].get("extra"), None);
        let path = write(&dir, "b.tsv", "\u{FEFF}Quality\t#1 ID\n1\t702876\n".as_bytes());
        let rows = records(&path, Format::Tsv, &Columns { names: vec![], header: true }).unwrap();
        assert_eq!(rows[0].text("Quality").unwrap(), "1");
        let rows = records(&path, Format::Tsv, &Columns { names: vec!["label".into()], header: true }).unwrap();
        assert_eq!((rows.len(), rows[0].text("label").unwrap().as_ref()), (1, "1"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_name_that_is_not_utf_8_has_its_suffix() {
        use std::os::unix::ffi::OsStrExt;

        let path = Path::new(std::ffi::OsStr::from_bytes(b"na\xEFve.jsonl.gz"));
        assert!(without_compression(path).unwrap().ends_with("ve.jsonl"));
        assert_eq!(format_of(path), Some(Format::Jsonl));
    }

    #[test]
    fn names_the_line_of_a_row_without_a_tab() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.tsv", b"Hello.\tHallo.\nno tab here\n");
        let error = records(&path, Format::Tsv, &two_columns()).unwrap_err().to_string();
        assert!(error.ends_with("a.tsv:2: expected 2 columns separated by tabs (en, de), found 1"), "{error}");
    }

    #[test]
    fn names_the_line_of_invalid_utf8() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.txt", b"fine\nalso fine\nbro\xFFken\n");
        let error = records(&path, Format::Text, &Columns::default()).unwrap_err().to_string();
        assert!(error.ends_with("a.txt:3: expected UTF-8, found byte 0xFF in column 4"), "{error}");
    }

    #[test]
    fn missing_and_empty_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let error = records(&dir.path().join("none.txt"), Format::Text, &Columns::default()).unwrap_err().to_string();
        assert!(error.contains("none.txt: expected a data file, found nothing there"), "{error}");
        let path = write(&dir, "empty.txt", b"\n  \n");
        let error = records(&path, Format::Text, &Columns::default()).unwrap_err().to_string();
        assert!(error.ends_with("empty.txt: expected text, found an empty file"), "{error}");
    }

    #[test]
    fn reads_json_lines_and_names_the_line_of_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.jsonl", br#"{"source": ["a", "b"], "n": 3, "flag": true, "none": null}"#);
        let rows = records(&path, Format::Jsonl, &Columns::default()).unwrap();
        assert_eq!(rows[0].text("source").unwrap(), "a b");
        assert_eq!(rows[0].values("source").unwrap().len(), 2);
        assert_eq!(rows[0].text("n").unwrap(), "3");
        assert_eq!(rows[0].text("flag").unwrap(), "1");
        assert_eq!(rows[0].get("none"), None);
        assert_eq!((rows[0].missing("none"), rows[0].missing("n")), (Some(Missing::Null), None));
        let path = write(&dir, "b.jsonl", b"{\"a\": 1}\n[1]\n");
        let error = records(&path, Format::Jsonl, &Columns::default()).unwrap_err().to_string();
        assert!(error.contains("b.jsonl:2: expected a JSON object on one line"), "{error}");
    }

    #[test]
    fn text_knows_where_documents_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.txt", b"one\ntwo\n\nthree\n");
        let rows = records(&path, Format::Text, &Columns::default()).unwrap();
        let starts: Vec<_> = rows.iter().map(|r| (r.line, r.starts_document)).collect();
        assert_eq!(starts, [(1, true), (2, false), (4, true)]);
    }

    #[test]
    fn reads_cmudict_with_variants_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let text = "a AH0\na(2) EY1\naachen AA1 K AH0 N # place, german\n'bout B AW1 T\n";
        let path = write(&dir, "cmudict.dict", text.as_bytes());
        let rows = records(&path, Format::Cmudict, &Columns::default()).unwrap();
        let words: Vec<_> =
            rows.iter().map(|r| (r.text("word").unwrap().into_owned(), r.values("pronunciations").unwrap())).collect();
        assert_eq!(words[0].1, ["AH0", "EY1"]);
        assert_eq!((words[1].0.as_str(), words[1].1), ("aachen", &["AA1 K AH0 N".to_string()][..]));
        assert_eq!(words[2].0, "'bout");
        assert_eq!(rows[2].text("letters").unwrap(), "' b o u t");
    }

    #[test]
    fn reads_squad() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas":
            [{"id": "7", "question": "q?", "answers": [
                {"text": "a", "answer_start": 0}, {"text": "b", "answer_start": 1}]}]}]}]}"#;
        let path = write(&dir, "a.json", text.as_bytes());
        let rows = records(&path, Format::Squad, &Columns::default()).unwrap();
        assert_eq!(rows[0].text("question").unwrap(), "q?");
        assert_eq!(rows[0].values("answers").unwrap(), ["a", "b"]);
        let path = write(&dir, "b.json", b"{\"data\": 1}");
        assert!(records(&path, Format::Squad, &Columns::default()).unwrap_err().to_string().contains("b.json:1:"));
    }

    /// "one\ntwo\n" as written by gzip, xz and zstd.
    #[test]
    fn decompresses_by_suffix_and_finds_a_file_without_naming_it() {
        let dir = tempfile::tempdir().unwrap();
        let gz = include_bytes!("../tests/data/two-lines.txt.gz");
        let xz = include_bytes!("../tests/data/two-lines.txt.xz");
        let zst = include_bytes!("../tests/data/two-lines.txt.zst");
        // In whatever case; only lower case is found without it.
        for (name, bytes) in [("e.txt.GZ", &gz[..]), ("f.TXT.Zst", zst)] {
            let path = write(&dir, name, bytes);
            assert_eq!(without_compression(&path).unwrap(), name[..5].to_ascii_lowercase());
            assert_eq!(records(&path, Format::Text, &Columns::default()).unwrap().len(), 2, "{name}");
        }
        for (name, bytes) in [("a.txt.gz", &gz[..]), ("b.txt.xz", xz), ("c.txt.zst", zst)] {
            let path = write(&dir, name, bytes);
            for path in [path.clone(), path.with_extension("")] {
                let rows = records(&path, Format::Text, &Columns::default()).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(rows.len(), 2, "{name}");
                assert_eq!(rows[1].text("text").unwrap(), "two");
            }
        }
        let path = write(&dir, "d.txt.xz", b"not xz at all, really");
        assert!(records(&path, Format::Text, &Columns::default()).is_err());
    }
}
