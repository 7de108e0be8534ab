//! Texts with names: lines, JSON objects, or the proteins of a FASTA file.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use needletail::FastxReader;
use needletail::parser::Format;
use serde_json::{Map, Value};
use t5_runtime::{EncodeOptions, Model, Passage};

use super::args::{EmbedArgs, InputFormat, only_of_objects};
use super::embed::result_keys;
use super::inputs::field;
use super::lines::Lines;
use super::usage;

/// One text.
pub struct Record {
    /// Where it stands, for messages.
    pub place: String,
    /// What it is called, where it has a name.
    pub name: Option<String>,
    /// What the encoder reads.
    pub passage: Passage,
    /// The object that it is part of.
    pub object: Map<String, Value>,
}

/// A line that gives no record.
pub struct Faulty {
    /// The line, from 1.
    pub line: usize,
    /// What the object is called, where it is one and has a name.
    pub id: Value,
    pub error: anyhow::Error,
}

/// Texts, one after the other.
pub struct Records<'a> {
    args: &'a EmbedArgs,
    source: Source,
}

enum Source {
    Lines(Lines),
    Fasta { reader: Box<dyn FastxReader>, file: String },
}

impl<'a> Records<'a> {
    /// Opens what the arguments name.
    pub fn open(args: &'a EmbedArgs) -> anyhow::Result<Records<'a>> {
        let given = [
            ("--text-field", args.text_field.is_some()),
            ("--id-field", args.id_field.is_some()),
            ("--strict", args.strict),
        ];
        only_of_objects(args.input_format == InputFormat::Jsonl, &given)?;
        let source = match args.input_format {
            InputFormat::Fasta if !args.input.text.is_empty() => {
                return Err(usage("--input-format fasta: expected --input FILE, found a text among the arguments"));
            }
            InputFormat::Fasta => fasta(args.input.input.as_deref())?,
            _ => Source::Lines(Lines::open(&args.input)?),
        };
        Ok(Records { args, source })
    }

    /// Whether there is a next one, or the end, without waiting for whoever writes it.
    pub fn is_ready(&self) -> bool {
        match &self.source {
            Source::Lines(lines) => lines.is_ready(),
            Source::Fasta { .. } => true,
        }
    }

    /// The next one, for this model. An error is one of all.
    pub fn next(&mut self, model: &Model, options: &EncodeOptions) -> anyhow::Result<Option<Result<Record, Faulty>>> {
        match &mut self.source {
            Source::Lines(lines) => {
                let Some(line) = lines.next()? else { return Ok(None) };
                let (line, number, place) =
                    (line.map_err(|what| anyhow!("{}: {what}", lines.place())), lines.number(), lines.place());
                let mut object = Map::new();
                let record = line.and_then(|line| self.record(&line, place, &mut object, model, options));
                Ok(Some(record.map_err(|error| {
                    let id = object.remove(self.args.id_field.as_deref().unwrap_or("id"));
                    Faulty { line: number, id: id.unwrap_or_default(), error }
                })))
            }
            Source::Fasta { reader, file } => {
                let Some(record) = reader.next() else { return Ok(None) };
                let record = record.with_context(|| format!("{file}: expected a FASTA file"))?;
                if record.format() != Format::Fasta {
                    bail!("{file}: expected a FASTA file, found FASTQ");
                }
                let header = String::from_utf8_lossy(record.id()).into_owned();
                let name = header.split_whitespace().next().unwrap_or_default().to_owned();
                let place = format!("{file}, record {name:?}");
                if name.is_empty() {
                    bail!("{place}: expected a name behind >, found none");
                }
                let residues = residues(&record.seq()).map_err(|what| anyhow!("{place}: {what}"))?;
                let passage = protein(model, options.prefix.as_deref().unwrap_or_default(), &residues)
                    .map_err(|what| anyhow!("{place}: {what}"))?;
                Ok(Some(Ok(Record { place, name: Some(name), passage, object: Map::new() })))
            }
        }
    }

    /// That of a line, whose object is kept in `object` if it is one.
    fn record(
        &self,
        line: &str,
        place: String,
        object: &mut Map<String, Value>,
        model: &Model,
        options: &EncodeOptions,
    ) -> anyhow::Result<Record> {
        let mut name = None;
        let text = if self.args.input_format == InputFormat::Jsonl {
            *object = serde_json::from_str(line).with_context(|| format!("{place}: expected a JSON object"))?;
            let text = self.args.text_field.as_deref().unwrap_or("text");
            let text = field(object, text).map_err(|what| anyhow!("{place}: {what}"))?;
            // A file has none of the object.
            let printed = self.args.output.is_none();
            let taken = result_keys(options).into_iter().find(|key| printed && object.contains_key(*key));
            if let Some(key) = taken {
                bail!("{place}: expected no {key:?}, which part of the result is called");
            }
            name = self.args.id_field.as_ref().map(|key| id(object, key, &place)).transpose()?;
            text
        } else {
            line
        };
        let passage = model.passage(text, options)?;
        Ok(Record { place, name, passage, object: std::mem::take(object) })
    }
}

/// The name of an object's text: a string or a number.
fn id(object: &Map<String, Value>, key: &str, place: &str) -> anyhow::Result<String> {
    match object.get(key) {
        Some(Value::String(name)) => Ok(name.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => bail!("{place}: expected a string or a number {key:?}, found {other}"),
        None => bail!("{place}: expected a string or a number {key:?}, found none"),
    }
}

fn fasta(path: Option<&Path>) -> anyhow::Result<Source> {
    let (input, file): (Box<dyn Read + Send>, String) = match path {
        Some(path) if path != Path::new("-") => {
            let file = path.display().to_string();
            (Box::new(File::open(path).with_context(|| file.clone())?), file)
        }
        None if std::io::stdin().is_terminal() => return Err(usage("expected --input FILE")),
        _ => (Box::new(std::io::stdin()), "standard input".to_owned()),
    };
    let reader = needletail::parse_fastx_reader(input).with_context(|| format!("{file}: expected a FASTA file"))?;
    Ok(Source::Fasta { reader, file })
}

/// The residues of a sequence as ProtT5 and its like read them: capitals, the rare ones as X, without gaps and without
/// the stop at the end.
fn residues(sequence: &[u8]) -> Result<Vec<u8>, String> {
    let sequence = sequence.strip_suffix(b"*").unwrap_or(sequence);
    let mut residues = Vec::with_capacity(sequence.len());
    for (index, &byte) in sequence.iter().enumerate() {
        match byte.to_ascii_uppercase() {
            b'-' => {}
            b'U' | b'Z' | b'O' | b'B' => residues.push(b'X'),
            letter @ b'A'..=b'Z' => residues.push(letter),
            _ => {
                let found = char::from(byte);
                return Err(format!("expected letters of residues, found {found:?} at place {}", index + 1));
            }
        }
    }
    if residues.is_empty() { Err("expected residues, found none".to_owned()) } else { Ok(residues) }
}

/// The ids of a protein; what is wanted are its residues, without the prefix and `</s>`.
fn protein(model: &Model, prefix: &str, residues: &[u8]) -> Result<Passage, String> {
    let tokenizer = model.tokenizer().map_err(|error| error.to_string())?;
    let mut text = String::with_capacity(2 * residues.len());
    for &residue in residues {
        text.extend([char::from(residue), ' ']);
    }
    text.pop();
    let alone = tokenizer.encode(&text);
    let ids = match prefix.trim_end() {
        "" => alone.clone(),
        prefix => tokenizer.encode(&format!("{prefix} {text}")),
    };
    if alone.len() != residues.len() + 1 || !ids.ends_with(&alone) {
        let found = alone.len() - 1;
        let what = "is the model one of proteins?";
        return Err(format!("expected a token for each of {} residues, found {found}: {what}", residues.len()));
    }
    let last = ids.len() - 1;
    Ok(Passage { wanted: Some(last - residues.len()..last), ids })
}

#[cfg(test)]
mod tests {
    use super::residues;

    #[test]
    fn residues_of_a_sequence() {
        assert_eq!(residues(b"mKuzob-V*").unwrap(), b"MKXXXXV");
        assert_eq!(residues(b"MK*V").unwrap_err(), "expected letters of residues, found '*' at place 3");
        assert_eq!(residues(b"M1").unwrap_err(), "expected letters of residues, found '1' at place 2");
        for nothing in [&b""[..], b"*", b"--"] {
            assert_eq!(residues(nothing).unwrap_err(), "expected residues, found none");
        }
    }
}
