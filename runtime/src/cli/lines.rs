//! Input lines: given as arguments, in a file, or from someone who may still be writing them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};

use super::args::InputArgs;
use super::usage;

/// The longest line, in bytes: what never ends must not take all memory.
const LONGEST: usize = 64 << 20;
/// Bytes of lines that are read ahead of those that are worked on.
const AHEAD: usize = 1 << 20;

/// A line without its end, or why it is none, in a few words.
pub type Line = Result<String, String>;

/// Input lines, one after the other, with the name and number of each for messages.
pub struct Lines {
    source: Source,
    name: String,
    number: usize,
    /// Bytes of the file, where it is one, and those read so far.
    size: Option<u64>,
    read: u64,
}

enum Source {
    Arguments(std::vec::IntoIter<String>),
    /// A file, all of which is there.
    File(BufReader<File>),
    /// Lines that someone may still be writing.
    Pipe(Pipe),
    /// The same where there are no threads: reading waits.
    Unwatched(BufReader<Box<dyn Read + Send>>),
}

impl Source {
    /// Lines that someone may still be writing.
    fn watched(source: impl Read + Send + 'static) -> std::io::Result<Source> {
        if cfg!(target_family = "wasm") {
            return Ok(Source::Unwatched(BufReader::with_capacity(1 << 18, Box::new(source))));
        }
        Pipe::new(source).map(Source::Pipe)
    }
}

impl Lines {
    /// The texts given as arguments, the lines of the input file, or those of standard input.
    pub fn open(args: &InputArgs) -> anyhow::Result<Lines> {
        if !args.text.is_empty() {
            let source = Source::Arguments(args.text.clone().into_iter());
            return Ok(Lines { source, name: "argument".to_owned(), number: 0, size: None, read: 0 });
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
            let (source, name) = (Source::watched(std::io::stdin())?, "standard input".to_owned());
            return Ok(Lines { source, name, number: 0, size: None, read: 0 });
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        let metadata = file.metadata().ok();
        if metadata.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            bail!("{name}: expected a file of input lines, found a folder");
        }
        let size = metadata.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        // Much at once: what is there already can be worked on together.
        let source = match size {
            Some(_) => Source::File(BufReader::with_capacity(1 << 18, file)),
            None => Source::watched(file)?,
        };
        Ok(Lines { source, name, number: 0, size, read: 0 })
    }

    /// Whether there is a next line, or the end, without waiting for whoever writes it.
    pub fn is_ready(&self) -> bool {
        match &self.source {
            Source::Arguments(_) | Source::File(_) => true,
            Source::Pipe(pipe) => pipe.is_ready(),
            Source::Unwatched(reader) => reader.buffer().contains(&b'\n'),
        }
    }

    /// Waits until there is a next line, or the end, but not longer than until `time`.
    pub fn wait(&self, time: Instant) {
        if let Source::Pipe(pipe) = &self.source {
            pipe.wait(time);
        }
    }

    /// Lines, at most so many, that have been read from where they come from: there can be more.
    pub fn ready(&self, most: usize) -> usize {
        match &self.source {
            Source::Arguments(texts) => texts.len().min(most),
            Source::File(reader) => lines_in(reader.buffer(), most),
            Source::Pipe(pipe) => pipe.queue().lines.len().min(most),
            Source::Unwatched(reader) => lines_in(reader.buffer(), most),
        }
    }

    /// `NAME, line N`, of the line that was read last.
    pub fn place(&self) -> String {
        format!("{}, line {}", self.name, self.number)
    }

    /// The number of the line that was read last, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Bytes of the file, where it is one.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes read so far, where it is a file.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next line, or what is in its place. A byte-order mark in front of all lines is none of their characters.
    pub fn next(&mut self) -> anyhow::Result<Option<Line>> {
        self.number += 1;
        let line = match &mut self.source {
            Source::Arguments(texts) => return Ok(texts.next().map(Ok)),
            Source::File(reader) => {
                let line = read_line(reader, LONGEST).with_context(|| self.name.clone())?;
                self.read += line.as_ref().map_or(0, |(_, bytes)| *bytes as u64);
                line.map(|(line, _)| line)
            }
            Source::Pipe(pipe) => pipe.next().with_context(|| self.name.clone())?,
            Source::Unwatched(reader) => {
                let line = read_line(reader, LONGEST).with_context(|| self.name.clone())?;
                line.map(|(line, _)| line)
            }
        };
        Ok(match line {
            Some(Ok(line)) if self.number == 1 => Some(Ok(line.strip_prefix('\u{feff}').unwrap_or(&line).to_owned())),
            line => line,
        })
    }

    /// The next line, where each has to be one.
    pub fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        match self.next()? {
            Some(Err(what)) => bail!("{}: {what}", self.place()),
            line => Ok(line.and_then(Result::ok)),
        }
    }
}

/// The next line and its bytes; `None` at the end.
fn read_line(reader: &mut impl BufRead, longest: usize) -> std::io::Result<Option<(Line, usize)>> {
    let mut bytes = Vec::new();
    let mut taken = reader.by_ref().take(longest as u64 + 1).read_until(b'\n', &mut bytes)?;
    if taken == 0 {
        return Ok(None);
    }
    let ended = bytes.last() == Some(&b'\n');
    if taken > longest && !ended {
        taken += reader.skip_until(b'\n')?;
        return Ok(Some((Err(format!("expected a line of at most {longest} bytes, found {taken}")), taken)));
    }
    if ended {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let line = String::from_utf8(bytes).map_err(|error| format!("expected UTF-8: {error}"));
    Ok(Some((line, taken)))
}

/// Ends of lines, at most so many.
fn lines_in(bytes: &[u8], most: usize) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').take(most).count()
}

/// Lines that a thread of their own waits for, so that nobody else has to.
struct Pipe(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<(Line, usize)>,
    bytes: usize,
    ended: bool,
    failure: Option<std::io::Error>,
}

impl Pipe {
    fn new(source: impl Read + Send + 'static) -> std::io::Result<Pipe> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let writer = shared.clone();
        std::thread::Builder::new().spawn(move || {
            let mut reader = BufReader::with_capacity(1 << 18, source);
            loop {
                let line = read_line(&mut reader, LONGEST);
                let mut queue = writer.wait_while(|queue| queue.bytes >= AHEAD);
                match line {
                    Ok(Some((line, bytes))) => {
                        queue.bytes += bytes;
                        queue.lines.push_back((line, bytes));
                    }
                    end => {
                        queue.ended = true;
                        queue.failure = end.err();
                    }
                }
                writer.changed.notify_all();
                if queue.ended {
                    return;
                }
            }
        })?;
        Ok(Pipe(shared))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ready(&self) -> bool {
        let queue = self.queue();
        queue.ended || !queue.lines.is_empty()
    }

    fn wait(&self, time: Instant) {
        let mut queue = self.queue();
        while !queue.ended && queue.lines.is_empty() {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.0.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn next(&self) -> std::io::Result<Option<Line>> {
        let mut queue = self.0.wait_while(|queue| queue.lines.is_empty() && !queue.ended);
        if let Some((line, bytes)) = queue.lines.pop_front() {
            queue.bytes -= bytes;
            self.0.changed.notify_all();
            return Ok(Some(line));
        }
        queue.failure.take().map_or(Ok(None), Err)
    }
}

impl Shared {
    fn wait_while(&self, mut holds: impl FnMut(&Queue) -> bool) -> MutexGuard<'_, Queue> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.wait_while(queue, |queue| holds(queue)).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_line_is_said_and_passed_over() {
        let mut reader = &b"one\r\ntwo\xFF\n12345678\n123456789\n12345678901234567890\n\nlast"[..];
        let mut lines = Vec::new();
        let mut bytes = 0;
        while let Some((line, taken)) = read_line(&mut reader, 8).unwrap() {
            lines.push(line);
            bytes += taken;
        }
        assert_eq!(bytes, 5 + 5 + 9 + 10 + 21 + 1 + 4);
        assert_eq!(lines[0].as_deref(), Ok("one"));
        assert!(lines[1].as_ref().unwrap_err().starts_with("expected UTF-8: "));
        assert_eq!(lines[2].as_deref(), Ok("12345678"));
        for (line, found) in [(3, 10), (4, 21)] {
            assert_eq!(lines[line], Err(format!("expected a line of at most 8 bytes, found {found}")));
        }
        assert_eq!((lines[5].as_deref(), lines[6].as_deref(), lines.len()), (Ok(""), Ok("last"), 7));
    }
}
