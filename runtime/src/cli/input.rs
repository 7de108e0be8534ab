//! Opening models, and reading input lines.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use t5_runtime::checkpoint::Checkpoint;
#[cfg(feature = "hub")]
use t5_runtime::hub;
use t5_runtime::{Model, ModelOptions, Session, physical_cores};

use super::args::{InputArgs, ModelArgs, ScoreArgs};
use super::usage;

/// Opens the model that the arguments name and prints its notes if asked.
pub fn open_model(args: &ModelArgs) -> anyhow::Result<Model> {
    prepare(open_checkpoint(args.model.as_deref())?, args)
}

/// Makes a model of a checkpoint and prints its notes if asked.
pub fn prepare(checkpoint: Checkpoint, args: &ModelArgs) -> anyhow::Result<Model> {
    let isa = args.isa.as_deref().map(str::parse).transpose()?;
    let said = checkpoint.not_obeyed.clone();
    let options = ModelOptions { isa, copy: args.no_mmap };
    let model = match &args.packed {
        Some(packed) => Model::from_checkpoint_and_packed(checkpoint, &options, packed)?,
        None => Model::from_checkpoint(checkpoint, &options)?,
    };
    if args.verbose {
        for note in model.notes().iter().filter(|note| !said.contains(note)) {
            eprintln!("t5: note: {note}");
        }
        eprintln!("t5: instruction set: {}", model.kernels().isa().name());
    }
    Ok(model)
}

/// A working space with `threads` threads for each of `jobs` jobs; by default the cores are shared out.
pub fn sessions(model: &Model, jobs: usize, threads: Option<usize>) -> anyhow::Result<Vec<Session>> {
    if !(1..=1024).contains(&jobs) {
        return Err(usage(format!("--jobs: expected 1 to 1024, found {jobs}")));
    }
    (0..jobs).map(|_| session(model, Some(threads.unwrap_or_else(|| (physical_cores() / jobs).max(1))))).collect()
}

/// A working space with `threads` threads, by default as many as there are cores.
pub fn session(model: &Model, threads: Option<usize>) -> anyhow::Result<Session> {
    let threads = threads.unwrap_or_else(physical_cores);
    if !(1..=1024).contains(&threads) {
        return Err(usage(format!("--threads: expected 1 to 1024, found {threads}")));
    }
    let mut session = model.session();
    session.set_threads(threads);
    Ok(session)
}

/// Opens a checkpoint by path or hub name; without either the built-in model. Says what it asks for and does not get.
pub fn open_checkpoint(name: Option<&str>) -> anyhow::Result<Checkpoint> {
    let Some(name) = name else {
        #[cfg(feature = "default-model")]
        return Ok(Checkpoint::pocket()?);
        #[cfg(not(feature = "default-model"))]
        return Err(usage("--model: expected a GGUF file, a Hugging Face folder or hf:OWNER/NAME"));
    };
    let checkpoint = Checkpoint::open(&local_path(name)?)?;
    for note in &checkpoint.not_obeyed {
        eprintln!("t5: note: {note}");
    }
    Ok(checkpoint)
}

/// Puts another tokenizer in the place of the checkpoint's.
pub fn replace_tokenizer(checkpoint: &mut Checkpoint, name: &str) -> anyhow::Result<()> {
    #[cfg(feature = "hub")]
    if hub::is_hub_name(name) {
        let folder = hub::fetch_tokenizer(name, &mut hub::TerminalProgress::default())?;
        return Ok(checkpoint.replace_tokenizer(&folder)?);
    }
    Ok(checkpoint.replace_tokenizer(Path::new(name))?)
}

/// The path itself, or where the hub's cache keeps the model.
fn local_path(name: &str) -> anyhow::Result<PathBuf> {
    #[cfg(feature = "hub")]
    if hub::is_hub_name(name) {
        return Ok(hub::fetch(name, &mut hub::TerminalProgress::default())?);
    }
    Ok(PathBuf::from(name))
}

/// Reads much at once: what is there already can be worked on together.
fn reader(source: impl Read + Send + 'static) -> BufReader<Box<dyn Read + Send>> {
    BufReader::with_capacity(1 << 18, Box::new(source))
}

/// Input lines, one after the other, with the name and number of each for messages.
pub struct Lines {
    source: LineSource,
    name: String,
    number: usize,
}

enum LineSource {
    Arguments(std::vec::IntoIter<String>),
    /// A file, all of which is there.
    File(BufReader<Box<dyn Read + Send>>),
    /// Lines that someone may still be writing.
    Reader(BufReader<Box<dyn Read + Send>>),
}

impl Lines {
    /// The texts given as arguments, the lines of the input file, or those of standard input.
    pub fn open(args: &InputArgs) -> anyhow::Result<Lines> {
        if !args.text.is_empty() {
            let source = LineSource::Arguments(args.text.clone().into_iter());
            return Ok(Lines { source, name: "argument".to_owned(), number: 0 });
        }
        match &args.input {
            Some(path) => Lines::file(path),
            None if std::io::stdin().is_terminal() => Err(usage("expected a text, or --input FILE")),
            None => Lines::file(Path::new("-")),
        }
    }

    /// The lines of a file, or of standard input if it is `-`.
    pub fn file(path: &Path) -> anyhow::Result<Lines> {
        if path == Path::new("-") {
            let source = LineSource::Reader(reader(std::io::stdin()));
            return Ok(Lines { source, name: "standard input".to_owned(), number: 0 });
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        let kind = file.metadata().map(|metadata| metadata.file_type());
        if kind.as_ref().is_ok_and(|kind| kind.is_dir()) {
            bail!("{name}: expected a file of input lines, found a folder");
        }
        let is_file = kind.is_ok_and(|kind| kind.is_file());
        let source = if is_file { LineSource::File(reader(file)) } else { LineSource::Reader(reader(file)) };
        Ok(Lines { source, name, number: 0 })
    }

    /// Whether there is a next line, or the end, without waiting for whoever writes it.
    pub fn is_ready(&self) -> bool {
        match &self.source {
            LineSource::Arguments(_) | LineSource::File(_) => true,
            LineSource::Reader(reader) => reader.buffer().contains(&b'\n'),
        }
    }

    /// Lines, at most so many, that have been read from where they come from: there can be more.
    pub fn ready(&self, most: usize) -> usize {
        match &self.source {
            LineSource::Arguments(texts) => texts.len().min(most),
            LineSource::File(reader) | LineSource::Reader(reader) => {
                reader.buffer().iter().filter(|&&byte| byte == b'\n').take(most).count()
            }
        }
    }

    /// `NAME, line N`, of the line that was read last.
    pub fn place(&self) -> String {
        format!("{}, line {}", self.name, self.number)
    }

    /// The next line without its end.
    pub fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        self.number += 1;
        let reader = match &mut self.source {
            LineSource::Arguments(texts) => return Ok(texts.next()),
            LineSource::File(reader) | LineSource::Reader(reader) => reader,
        };
        let mut bytes = Vec::new();
        if reader.read_until(b'\n', &mut bytes).with_context(|| self.name.clone())? == 0 {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let line = String::from_utf8(bytes);
        Ok(Some(line.with_context(|| format!("{}: expected UTF-8", self.place()))?))
    }
}

/// Writes what `answer` makes of the source and target of each line `SOURCE<TAB>TARGET`, a line each, as it comes.
pub fn answer_pairs(
    args: &ScoreArgs,
    answer: impl Fn(&mut Session, &str, &str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut lines = Lines::file(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let Some((source, target)) = line.split_once('\t') else {
            bail!("{}: expected SOURCE<TAB>TARGET, found no tab", lines.place());
        };
        writeln!(out, "{}", answer(&mut session, source, target)?)?;
        out.flush()?;
    }
    Ok(())
}
