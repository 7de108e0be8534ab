//! Tables with named columns: CSV, and Parquet files as Hugging Face data sets have them.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

#[cfg(feature = "parquet")]
use super::Missing;
use super::{Columns, Format, Record, Value, for_each_record, open};
use crate::{Error, Result};

/// A line that is put behind a table: where a quote is not closed, the reader takes all that follows into the value
/// and says nothing, and then this line is a part of it.
const END: &str = "\n\0the table's end\0\n";

/// Calls `f` with every record of a CSV file.
pub(super) fn csv(path: &Path, mut f: impl FnMut(Record) -> Result<()>) -> Result<()> {
    let inner = open(path)?.chain(END.as_bytes());
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(LineFeeds { inner, held: false });
    let swallows = |record: &csv::StringRecord| record.iter().any(|value| value.ends_with(END));
    let unclosed = |line: usize| {
        let what = "expected a quote that closes the record's last value, found the end of the file";
        Error::data(path, line, what)
    };
    let names: Vec<String> = {
        let header = reader.headers().map_err(|error| wrong(path, &error))?;
        if swallows(header) {
            return Err(unclosed(header.position().map_or(1, |position| position.line() as usize)));
        }
        header.iter().map(|name| name.trim_start_matches('\u{FEFF}').trim().to_owned()).collect()
    };
    if names.iter().all(|name| name.is_empty() || name == END.trim()) {
        return Err(Error::file(path, "expected a first line with the columns' names, found an empty file"));
    }
    for record in reader.records() {
        let record = record.map_err(|error| wrong(path, &error))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        if swallows(&record) {
            return Err(unclosed(line));
        }
        if record.iter().eq([END.trim()]) {
            return Ok(());
        }
        if record.len() != names.len() {
            let what = format!(
                "expected {} values, as the first line has, found {}; values with commas or line breaks need quotes",
                names.len(),
                record.len()
            );
            return Err(Error::data(path, line, what));
        }
        let fields = names.iter().cloned().zip(record.iter().map(|value| Value::Text(value.to_owned())));
        f(Record::new(line, fields.collect()))?;
    }
    Ok(())
}

/// Lines end as Unix ends them: the CSV reader takes the second half of `\r\n` into the next record, whose line would
/// then be counted one too low.
struct LineFeeds<R> {
    inner: R,
    /// Whether a `\r` was taken whose next byte is not known yet.
    held: bool,
}

impl<R: BufRead> Read for LineFeeds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let given = self.inner.fill_buf()?;
            if std::mem::take(&mut self.held) && given.first() != Some(&b'\n') {
                buffer[0] = b'\r';
                return Ok(1);
            }
            if given.first() == Some(&b'\r') {
                self.held = true;
                self.inner.consume(1);
                continue;
            }
            let len = given.iter().position(|&byte| byte == b'\r').unwrap_or(given.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&given[..len]);
            self.inner.consume(len);
            return Ok(len);
        }
    }
}

/// An error of the CSV reader in our words.
fn wrong(path: &Path, error: &csv::Error) -> Error {
    let line = error.position().map_or(1, |position| position.line() as usize);
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            Error::data(path, line, format!("expected UTF-8, found other bytes in value {}", err.field() + 1))
        }
        _ => Error::data(path, line, error.to_string()),
    }
}

/// The format of a table by its name, a compression's suffix aside; `None` where the name does not say.
pub fn format_of(path: &Path) -> Option<Format> {
    if path.is_dir() {
        return Some(Format::Parquet);
    }
    let name = super::without_compression(path)?;
    match Path::new(&name).extension()?.to_str()? {
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// The names of the columns of a table, in its order: those of its first record.
///
/// # Errors
/// Where the file cannot be read or has no record.
pub fn columns(path: &Path, format: Format) -> Result<Vec<String>> {
    /// That reading has seen enough.
    const SEEN: &str = "the first record was seen";
    let mut names = Vec::new();
    let columns = Columns { names: Vec::new(), header: true };
    let read = for_each_record(path, format, &columns, |record| {
        names = record.names().map(str::to_owned).collect();
        Err(Error::Invalid(SEEN.to_owned()))
    });
    match read {
        Err(Error::Invalid(what)) if what == SEEN => Ok(names),
        Err(error) => Err(error),
        Ok(()) => Err(Error::file(path, "expected records below the columns' names, found none")),
    }
}

/// Whether a folder has Parquet files of a split.
pub fn has_split(folder: &Path, split: &str) -> bool {
    shards(&folder.join(split)).is_ok()
}

/// The Parquet files that a path names: itself, those of a folder, or those of the split `path` of its parent, which
/// are called `SPLIT-…` or lie in a folder of that name.
fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, &mut files)?;
    } else if let (Some(parent), Some(split)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        && parent.is_dir()
    {
        collect(parent, &mut files)?;
        files.retain(|file| {
            let inside = file.strip_prefix(parent).unwrap_or(file);
            let name = inside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let of_name = name.strip_prefix(split).is_some_and(|rest| rest.starts_with(['-', '.']));
            let folders = inside.parent().into_iter().flat_map(Path::components);
            of_name || folders.into_iter().any(|part| part.as_os_str() == split)
        });
    }
    if files.is_empty() {
        let what = "expected a Parquet file, a folder with some, or a split of it as FOLDER/SPLIT, found none";
        return Err(Error::file(path, what));
    }
    files.sort();
    Ok(files)
}

/// All Parquet files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|suffix| suffix == "parquet") {
            files.push(path);
        }
    }
    Ok(())
}

/// Calls `f` with every record of Parquet files; a record's line is its row, from 1.
#[cfg(feature = "parquet")]
pub(super) fn parquet(path: &Path, mut f: impl FnMut(Record) -> Result<()>) -> Result<()> {
    if super::stores::is_address(path) {
        #[cfg(feature = "stores")]
        return parquet_rows(path, super::stores::Ranged::open(path)?, f);
        #[cfg(not(feature = "stores"))]
        return super::stores::read(path).map(drop);
    }
    shards(path)?.into_iter().try_for_each(|shard| {
        let file = std::fs::File::open(&shard).map_err(Error::io(&shard))?;
        parquet_rows(&shard, file, &mut f)
    })
}

#[cfg(feature = "parquet")]
fn parquet_rows(
    path: &Path,
    file: impl parquet::file::reader::ChunkReader + 'static,
    mut f: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let wrong = |error: parquet::errors::ParquetError| {
        Error::file(path, format!("expected a Parquet file that can be read: {error}"))
    };
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    for (row, record) in (1..).zip(reader.get_row_iter(None).map_err(wrong)?) {
        let record = record.map_err(wrong)?;
        f(Record::with_missing(row, record.get_column_iter().map(|(name, field)| (name.clone(), value(field)))))?;
    }
    Ok(())
}

/// As of JSON: null is missing, booleans are 1 and 0, nested values are written out. Not every writer marks its texts
/// as such, so bytes are text where they are UTF-8.
#[cfg(feature = "parquet")]
fn value(field: &parquet::record::Field) -> Result<Value, Missing> {
    use parquet::record::Field;

    let text = |field: &Field| match field {
        Field::Str(text) => Ok(text.clone()),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map_err(|_| Missing::NotText),
        Field::Bool(value) => Ok(u8::from(*value).to_string()),
        other => Ok(other.to_string()),
    };
    match field {
        Field::Null => Err(Missing::Null),
        Field::ListInternal(list) => list.elements().iter().map(text).collect::<Result<_, _>>().map(Value::List),
        other => text(other).map(Value::Text),
    }
}

#[cfg(not(feature = "parquet"))]
pub(super) fn parquet(path: &Path, _: impl FnMut(Record) -> Result<()>) -> Result<()> {
    shards(path)?;
    Err(Error::file(path, "expected another format, since this t5-train was built without its feature parquet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(path: &Path, format: Format) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for_each_record(path, format, &Columns { names: Vec::new(), header: true }, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    }

    #[test]
    fn csv_has_quotes_commas_and_line_breaks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        std::fs::write(&path, "\u{FEFF}text, label\r\n\"one, \"\"two\"\"\nthree\",1\r\nplain,0\n").unwrap();
        assert_eq!(columns(&path, Format::Csv).unwrap(), ["text", "label"]);
        let found = records(&path, Format::Csv).unwrap();
        assert_eq!(found[0].text("text").unwrap(), "one, \"two\"\nthree");
        assert_eq!((found[1].text("label").unwrap(), found[1].line), ("0".into(), 4));
        // However the bytes come in.
        for len in 1..6 {
            let bytes = b"a\r\n\r\r\nb\rc\r";
            let inner = std::io::BufReader::with_capacity(len, &bytes[..]);
            let mut text = String::new();
            LineFeeds { inner, held: false }.read_to_string(&mut text).unwrap();
            assert_eq!(text, "a\n\r\nb\rc\r");
        }
        let message = |contents: &[u8]| {
            std::fs::write(&path, contents).unwrap();
            records(&path, Format::Csv).unwrap_err().to_string()
        };
        let uneven = message(b"text,label\na,1\nb\n");
        assert!(
            uneven.ends_with(
                "table.csv:3: expected 2 values, as the first line has, found 1; values with commas or \
             line breaks need quotes"
            ),
            "{uneven}"
        );
        assert!(message(b"text,label\na,\xFF\n").contains("expected UTF-8, found other bytes in value 2"));
        assert!(message(b"").contains("found an empty file"));
        assert!(message(b"\xEF\xBB\xBF\n").contains("found an empty file"));
        // A value that ends the file, and one that takes the rest of it.
        for (contents, last) in [("a,\"b\nc\"", "b\nc"), ("a,b\"", "b\""), ("a,\"b\n\"\n\n", "b\n")] {
            std::fs::write(&path, format!("text,label\n{contents}")).unwrap();
            let found = records(&path, Format::Csv).unwrap();
            assert_eq!((found.len(), &*found[0].text("label").unwrap()), (1, last));
        }
        for (contents, line) in [
            ("text,label\none,1\ntwo,\"second\nthree,3\nfour,4\n", 3),
            ("text,label\n\"one,1", 2),
            ("text,\"label\none,1\n", 1),
            ("text\n\"one\n", 2),
        ] {
            let unclosed = message(contents.as_bytes());
            let expected = format!("table.csv:{line}: expected a quote that closes the record's last value");
            assert!(unclosed.contains(&expected), "{unclosed}");
        }
    }

    #[test]
    fn tables_are_known_by_their_names() {
        for (name, format) in [
            ("a.csv", Some(Format::Csv)),
            ("a.TSV.gz", Some(Format::Tsv)),
            ("a.jsonl.zst", Some(Format::Jsonl)),
            ("a.parquet", Some(Format::Parquet)),
            ("a.xlsx", None),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn bytes_of_parquet_are_text_where_they_are_utf_8() {
        use parquet::record::Field;

        let bytes = |bytes: &[u8]| value(&Field::Bytes(bytes.to_vec().into()));
        assert_eq!(bytes("naïve".as_bytes()), Ok(Value::Text("naïve".into())));
        assert_eq!(bytes(b"na\xEFve"), Err(Missing::NotText));
        assert_eq!(value(&Field::Null), Err(Missing::Null));
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_shards_are_read_as_a_folder_and_by_split() {
        // Written by pyarrow (tests/data/make_parquet.py).
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dataset");
        let texts = |path: &str| -> Vec<String> {
            let found = records(&folder.join(path), Format::Parquet).unwrap();
            found.iter().map(|record| record.text("sentence").unwrap().into_owned()).collect()
        };
        assert_eq!(texts("train"), ["a fine film", "too long, \"too\" loud", "naïve\nbut new"]);
        assert_eq!(texts("validation"), ["dull"]);
        assert_eq!(texts("data/train-00001-of-00002.parquet"), ["naïve\nbut new"]);
        assert_eq!(texts("").len(), 4);
        let first = &records(&folder.join("train"), Format::Parquet).unwrap()[0];
        assert_eq!(first.text("label").unwrap(), "1");
        assert_eq!(first.text("liked").unwrap(), "1");
        assert_eq!(first.values("words").unwrap(), ["a", "fine", "film"]);
        assert_eq!(first.text("nothing"), None);
        assert!(has_split(&folder, "validation") && !has_split(&folder, "test"));
        let message = records(&folder.join("test"), Format::Parquet).unwrap_err().to_string();
        assert!(message.contains("a split of it as FOLDER/SPLIT, found none"), "{message}");
        let broken = tempfile::tempdir().unwrap();
        std::fs::write(broken.path().join("a.parquet"), "PAR1 no more").unwrap();
        let message = records(broken.path(), Format::Parquet).unwrap_err().to_string();
        assert!(message.contains("a.parquet: expected a Parquet file that can be read"), "{message}");
    }
}
