//! Where the results of a job go: standard output, or a file that is there once it is whole and that a killed job goes
//! on with.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Stdout, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Map, Value, json};
use t5_runtime::command::{Incomplete, say};
use t5_runtime::output::{OutputFile, put_in_place, target_of};

use super::args::WorkArgs;
use super::inputs::{Input, Inputs};
use super::usage;

/// Bytes that are compressed at a time.
const PIECE: usize = 4 << 20;

/// Results, a line each.
pub struct Results<'a> {
    args: &'a WorkArgs,
    out: Out,
    /// Of this run.
    done: usize,
    failed: usize,
    tokens: usize,
    bar: ProgressBar,
    begin: Instant,
}

enum Out {
    Standard(Stdout),
    File(Unfinished),
}

/// A file that becomes the place's target when it is whole.
struct Unfinished {
    place: Place,
    file: BufWriter<File>,
    committed: bool,
}

/// Which file is to be written.
struct Place {
    /// As the caller named it, which says how it is compressed.
    path: PathBuf,
    /// Behind all links.
    target: PathBuf,
    /// What the target is called until it is whole.
    partial: PathBuf,
}

/// Where results will go, of which nothing is made yet.
pub struct Destination<'a> {
    args: &'a WorkArgs,
    place: Option<Place>,
}

impl<'a> Destination<'a> {
    /// Looks at what the arguments name. `None` if all that is wanted is there already.
    pub fn new(args: &'a WorkArgs) -> anyhow::Result<Option<Destination<'a>>> {
        let Some(path) = &args.output else { return Ok(Some(Destination { args, place: None })) };
        let behind = target_of(path)?;
        // Where it is no link, messages have the caller's spelling.
        let target = if path.is_symlink() { behind } else { path.clone() };
        let partial = with_suffix(&target, ".partial");
        if args.resume && target.exists() && !partial.exists() {
            say(format_args!("t5: note: {}: is there already", path.display()));
            return Ok(None);
        }
        Ok(Some(Destination { args, place: Some(Place { path: path.clone(), target, partial }) }))
    }

    /// Opens it, and passes over the inputs that an earlier run has answered.
    ///
    /// `lines` says whether each input gives one line, without which nobody can tell what is answered.
    pub fn open(self, inputs: &mut Inputs, lines: bool) -> anyhow::Result<Results<'a>> {
        let Destination { args, place } = self;
        let out = match place {
            None => Out::Standard(std::io::stdout()),
            Some(place) => {
                if args.resume && !lines {
                    return Err(usage("--resume: expected a result of one line: one of --json, --input-format jsonl"));
                }
                let left = args.resume && place.partial.exists();
                let file = if left { go_on(&place.partial, args, inputs)? } else { begin(&place.partial)? };
                Out::File(Unfinished { place, file: BufWriter::new(file), committed: false })
            }
        };
        let size = inputs.lines.size();
        // A text or two are done before anybody asks how far they are.
        let unseen = (args.are_objects() || size.is_some()) && !std::io::stdout().is_terminal();
        let bar = bar(size, args.output.is_some() || unseen);
        Ok(Results { args, out, done: 0, failed: 0, tokens: 0, bar, begin: Instant::now() })
    }
}

impl Results<'_> {
    /// Whether results are objects.
    pub fn are_objects(&self) -> bool {
        self.args.are_objects()
    }

    /// Whether somebody reads along as results come.
    pub fn are_watched(&self) -> bool {
        matches!(&self.out, Out::Standard(out) if out.is_terminal())
    }

    /// Writes the result of an object, or why it has none, in its place.
    pub fn object(&mut self, input: Input, result: anyhow::Result<Value>) -> anyhow::Result<()> {
        let Input { mut object, line, .. } = input;
        match result {
            Ok(value) => {
                object.insert(self.args.output_field().to_owned(), value);
            }
            Err(error) => {
                self.failed += 1;
                let id = object.remove(self.args.id_field()).unwrap_or_default();
                return self.line(&without_result(self.args.id_field(), id, line, &error).to_string());
            }
        }
        self.line(&Value::Object(object).to_string())
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes part of a result. It is with whoever reads it when this returns.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.out {
            Out::Standard(out) => {
                out.write_all(bytes)?;
                Ok(out.flush()?)
            }
            Out::File(Unfinished { place, file, .. }) => {
                let written = file.write_all(bytes).and_then(|()| file.flush());
                written.with_context(|| place.partial.display().to_string())
            }
        }
    }

    /// Says something on stderr, beside the bar.
    pub fn note(&self, what: impl Display) {
        self.bar.suspend(|| say(format_args!("t5: note: {what}")));
    }

    /// Tells that an input is done, which has taken so many new tokens.
    pub fn count(&mut self, tokens: usize, bytes_read: u64) {
        self.done += 1;
        self.tokens += tokens;
        if self.bar.is_hidden() {
            return;
        }
        let speed = self.tokens as f64 / self.begin.elapsed().as_secs_f64().max(1e-9);
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        self.bar.set_message(format!("{} records{failed}, {speed:.0} tokens/s", self.done));
        self.bar.set_position(bytes_read);
    }

    /// Puts a file in its place, and tells what failed.
    pub fn finish(self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        if let Out::File(file) = self.out {
            file.commit()?;
        }
        tell_failed(self.failed, self.done, self.args.strict)
    }
}

/// What stands in the place of the result of an object.
pub fn without_result(id_field: &str, id: Value, line: usize, error: &anyhow::Error) -> Value {
    let error = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    json!({id_field: id, "line": line, "error": error})
}

/// Tells how many objects have no result, if there are any; an error if there must be none.
pub fn tell_failed(failed: usize, all: usize, strict: bool) -> anyhow::Result<()> {
    if failed == 0 {
        return Ok(());
    }
    let what = format!("{failed} of {all} records failed: see their \"error\"");
    if strict {
        return Err(Incomplete(what).into());
    }
    say(format_args!("t5: note: {what}"));
    Ok(())
}

impl Unfinished {
    fn commit(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| self.place.partial.display().to_string())?;
        let Place { path: named, target, partial } = &self.place;
        let (partial_name, path) = (partial.display().to_string(), named.display().to_string());
        let extension = named.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["gz", "zst"].contains(&extension) {
            put_in_place(self.file.get_ref(), partial, target).with_context(|| path)?;
            self.committed = true;
            return Ok(());
        }
        let mut output = OutputFile::create(target)?;
        let copied = match extension {
            "gz" => {
                let encoder = GzEncoder::new(&mut output, flate2::Compression::default());
                self.copy(encoder, |encoder| encoder.finish().map(|_| ()))
            }
            _ => self.copy(ZstdFrames(&mut output), |_| Ok(())),
        };
        copied.with_context(|| path)?;
        output.commit()?;
        self.committed = true;
        std::fs::remove_file(&self.place.partial).with_context(|| partial_name)
    }

    /// Writes all of the file again.
    fn copy<W: Write>(&self, mut to: W, end: impl FnOnce(W) -> std::io::Result<()>) -> std::io::Result<()> {
        let mut from = File::open(&self.place.partial)?;
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            (&mut from).take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return end(to);
            }
            to.write_all(&piece)?;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A job that gave no result leaves nothing to go on with, and nothing that the next one has to remove.
        if !self.committed && self.file.get_ref().metadata().is_ok_and(|metadata| metadata.len() == 0) {
            // Nothing can be done about a failure here; the next job says that the file is there.
            let _ = std::fs::remove_file(&self.place.partial);
        }
    }
}

/// Each write is a frame of its own; readers take them one after the other.
struct ZstdFrames<W>(W);

impl<W: Write> Write for ZstdFrames<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Compressed in memory, where nothing can fail.
        self.0.write_all(&compress_to_vec(bytes, CompressionLevel::Fastest))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The name with something behind it, its own extension included.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Begins a file that nobody else has begun.
fn begin(partial: &Path) -> anyhow::Result<File> {
    match OpenOptions::new().read(true).write(true).create_new(true).open(partial) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(usage(format!(
            "--output: expected no {}, which another job has left or writes: go on with it by --resume, or remove it",
            partial.display()
        ))),
        file => {
            let file = file.with_context(|| partial.display().to_string())?;
            lock(&file, partial)?;
            Ok(file)
        }
    }
}

/// Two jobs must not write one file. Where files have no locks, nobody can tell.
fn lock(file: &File, partial: &Path) -> anyhow::Result<()> {
    if matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        bail!("{}: expected a file that no other job writes", partial.display());
    }
    Ok(())
}

/// Opens what an earlier job has left behind its last whole line, and passes over the inputs of those before.
fn go_on(partial: &Path, args: &WorkArgs, inputs: &mut Inputs) -> anyhow::Result<File> {
    let name = || partial.display().to_string();
    let mut file = OpenOptions::new().read(true).write(true).open(partial).with_context(name)?;
    lock(&file, partial)?;
    let (mut whole, mut lines, mut last, mut line) = (0u64, 0usize, Vec::new(), Vec::new());
    let mut reader = BufReader::with_capacity(1 << 18, &file);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).with_context(name)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        whole += read as u64;
        lines += 1;
        std::mem::swap(&mut last, &mut line);
    }
    let mut input = None;
    for done in 0..lines {
        input = inputs.next()?;
        if input.is_none() {
            bail!("{}: expected at most {done} results, one for each input, found {lines}: another input's?", name());
        }
    }
    if let (true, Some(input)) = (args.are_objects(), input) {
        let result: Map<String, Value> =
            serde_json::from_slice(&last).map_err(|error| anyhow!("{}, line {lines}: {error}", name()))?;
        let [found, expected] = [&result, &input.object].map(|object| object.get(args.id_field()));
        if found.unwrap_or(&Value::Null) != expected.unwrap_or(&Value::Null) {
            let [found, expected] = [found, expected].map(|id| id.cloned().unwrap_or(Value::Null));
            bail!(
                "{}, line {lines}: expected the result of {expected}, found that of {found}: another input's?",
                name()
            );
        }
    }
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).with_context(name)?;
    Ok(file)
}

/// How much is done, on a terminal, if `wanted`.
fn bar(size: Option<u64>, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if size.is_some() { "{wide_bar} {percent} % {msg}, {eta} left" } else { "{msg} {elapsed}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    size.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style)
}
