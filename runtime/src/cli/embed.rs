//! `t5 embed`.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use t5_runtime::{EncodeOptions, Encoded, Passage, Pooling, Session};

use super::args::{EmbedArgs, InputFormat, YesNo};
use super::input::{open_checkpoint, prepare, replace_tokenizer, session};
use super::records::{Faulty, Record, Records};
use super::results::{tell_failed, without_result};
use super::states_file::{Format, Item, StatesFile};
use super::usage;

/// How many texts, and how many bytes of states, are on their way at once.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: usize = 64 << 20;

pub fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let output = match &args.output {
        Some(path) if args.json => {
            return Err(usage(format!("--json: expected no --output, found {}", path.display())));
        }
        Some(path) => Some((path.as_path(), Format::of(path, args.dtype)?)),
        None => None,
    };
    let records = Records::open(args)?;
    let mut checkpoint = open_checkpoint(args.model.one()?)?;
    if let Some(name) = &args.tokenizer {
        replace_tokenizer(&mut checkpoint, name)?;
    }
    let model = prepare(checkpoint, &args.model)?;
    let options = EncodeOptions {
        pooling: args.pooling.map(Into::into),
        normalize: args.normalize,
        pad_to: args.pad_to,
        pad_mask: args.pad_mask == YesNo::Yes,
        layer: args.layer,
        prompt: args.prompt.clone(),
        prefix: args.prefix.clone(),
    };
    let session = session(&model, args.threads)?;
    let embedder = Embedder { args, options, session };
    match output {
        Some((path, format)) => embedder.write_file(records, path, format),
        None => embedder.print_all(records),
    }
}

fn is_pooled(options: &EncodeOptions) -> bool {
    options.pooling != Some(Pooling::None)
}

/// What a text's result adds to its object.
pub fn result_keys(options: &EncodeOptions) -> Vec<&'static str> {
    if is_pooled(options) { vec!["embedding", "input_ids"] } else { vec!["states", "mask", "input_ids"] }
}

struct Embedder<'a> {
    args: &'a EmbedArgs,
    options: EncodeOptions,
    session: Session,
}

impl Embedder<'_> {
    /// Whether a window with these texts and tokens is full.
    fn is_full(&self, texts: usize, tokens: usize) -> bool {
        texts >= WINDOW_TEXTS || tokens * self.session.model().config().d_model * size_of::<f32>() >= WINDOW_BYTES
    }

    /// Prints results as input comes, all that is there already together.
    fn print_all(mut self, mut records: Records) -> anyhow::Result<()> {
        let model = self.session.model().clone();
        let mut out = std::io::stdout().lock();
        let bar = bar(None, !out.is_terminal());
        let objects = self.args.input_format == InputFormat::Jsonl;
        let (mut all, mut failed) = (0, 0);
        loop {
            let (mut window, mut tokens) = (Vec::new(), 0);
            // A bad text ends the work only after those before it are answered, and a bad object does not.
            let ended = loop {
                match records.next(&model, &self.options) {
                    Ok(Some(Err(faulty))) if !objects => break Some(Err(faulty.error)),
                    Ok(Some(record)) => {
                        tokens += record.as_ref().map_or(0, |record| record.passage.ids.len());
                        window.push(record);
                        if self.is_full(window.len(), tokens) || !records.is_ready() {
                            break None;
                        }
                    }
                    Ok(None) => break Some(Ok(())),
                    Err(error) => break Some(Err(error)),
                }
            };
            let passages: Vec<Passage> = window.iter().flatten().map(|record| record.passage.clone()).collect();
            let mut results = self.encode(&passages, &bar)?.into_iter();
            all += window.len();
            for record in &window {
                match record {
                    Err(Faulty { line, id, error }) => {
                        failed += 1;
                        let key = self.args.id_field.as_deref().unwrap_or("id");
                        writeln!(out, "{}", without_result(key, id.clone(), *line, error))?;
                    }
                    Ok(record) => results.next().map_or(Ok(()), |encoded| self.print(&mut out, record, &encoded))?,
                }
            }
            out.flush()?;
            if let Some(end) = ended {
                bar.finish_and_clear();
                end?;
                return tell_failed(failed, all, self.args.strict);
            }
        }
    }

    /// Writes a file, for which all texts are read first.
    fn write_file(mut self, mut records: Records, path: &Path, format: Format) -> anyhow::Result<()> {
        let model = self.session.model().clone();
        let pooled = is_pooled(&self.options);
        let (mut items, mut passages) = (Vec::new(), Vec::new());
        while let Some(record) = records.next(&model, &self.options)? {
            let Record { place, name, passage, .. } = record.map_err(|faulty| faulty.error)?;
            let name = name.unwrap_or_else(|| items.len().to_string());
            let (rows, real) = model.rows_of(&passage, &self.options)?;
            items.push(Item { place, name, rows, real });
            passages.push(passage);
        }
        if items.is_empty() {
            bail!("expected at least one text, found none");
        }
        let width = model.width_of(&self.options);
        let mut file = StatesFile::create(path, format, self.args.dtype, &items, pooled, width)?;
        let bar = bar(Some(items.len()), true);
        let mut first = 0;
        while first < items.len() {
            let (mut end, mut tokens) = (first, 0);
            while end < items.len() && !self.is_full(end - first, tokens) {
                tokens += passages[end].ids.len();
                end += 1;
            }
            let results = self.encode(&passages[first..end], &bar)?;
            for (item, encoded) in items[first..end].iter().zip(results) {
                file.append(item, &encoded.values)?;
            }
            first = end;
        }
        bar.finish_and_clear();
        file.finish()
    }

    fn encode(&mut self, passages: &[Passage], bar: &ProgressBar) -> anyhow::Result<Vec<Encoded>> {
        let mut all: Vec<Option<Encoded>> = vec![None; passages.len()];
        self.session.encode_each(passages, &self.options, &mut |index, encoded| {
            all[index] = Some(encoded);
            bar.inc(1);
        })?;
        Ok(all.into_iter().flatten().collect())
    }

    /// A vector a line; without pooling, a line a token and an empty one behind each text.
    fn print(&self, out: &mut impl Write, record: &Record, encoded: &Encoded) -> anyhow::Result<()> {
        let rows = encoded.values.chunks_exact(encoded.width());
        if self.args.json || !record.object.is_empty() {
            let mut object = record.object.clone();
            if let (true, Some(name)) = (object.is_empty(), &record.name) {
                object.insert("id".to_owned(), json!(name));
            }
            if is_pooled(&self.options) {
                object.insert("embedding".to_owned(), json!(encoded.values));
            } else {
                object.insert("states".to_owned(), json!(rows.collect::<Vec<_>>()));
                let real = encoded.rows.min(encoded.tokens);
                let mask: Vec<u8> = (0..encoded.rows).map(|row| u8::from(row < real)).collect();
                object.insert("mask".to_owned(), json!(mask));
            }
            object.insert("input_ids".to_owned(), json!(encoded.input_ids));
            writeln!(out, "{}", Value::Object(object))?;
            return Ok(());
        }
        for row in rows {
            let values: Vec<String> = row.iter().map(f32::to_string).collect();
            writeln!(out, "{}", values.join(" "))?;
        }
        if !is_pooled(&self.options) {
            writeln!(out)?;
        }
        Ok(())
    }
}

/// How many texts are done, on a terminal, if `wanted`.
fn bar(texts: Option<usize>, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if texts.is_some() { "{wide_bar} {pos}/{len} texts {eta}" } else { "{pos} texts {elapsed}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    texts.map_or_else(ProgressBar::no_length, |texts| ProgressBar::new(texts as u64)).with_style(style)
}
