//! Many lines side by side: as one is done, the next takes its place, and the answers keep the order of the lines.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use anyhow::bail;
use t5_runtime::{Batch, BatchEvent, Finish, GenerateOptions, Model, Output, Session};

use super::input::Lines;

/// Sequences side by side where nobody says how many: more gain nothing (measured with the built-in model; one at a
/// time takes 2.8 times as long). Lines of one length beside each other gain nothing either, since there is no padding.
const AT_ONCE: usize = 16;
/// Bytes of texts side by side where nobody says how many: long ones take memory, and keep the processor busy alone.
const BYTES_AT_ONCE: usize = 8 << 10;
/// Sequences side by side at most, however many are asked for: more do not make a product faster, but each takes
/// memory, not least for its logits.
const MOST_AT_ONCE: usize = 256;

/// What a line gives.
pub struct Answer {
    pub text: String,
    /// Of all sentences, one after the other.
    pub input_ids: Vec<u32>,
    pub outputs: Vec<Output>,
}

/// What answering took.
#[derive(Default)]
pub struct Work {
    /// In which there was something to do, of the job that had most.
    pub seconds: f64,
    /// Passes of the decoder, of all jobs.
    pub passes: usize,
}

/// How many lines each session has side by side.
struct Limits {
    lines: usize,
    bytes: usize,
    /// Whether to wait for so many lines before the first is begun.
    waits: bool,
    sequences: usize,
    jobs: usize,
}

impl Limits {
    fn new(batch: Option<usize>, options: &GenerateOptions, jobs: usize) -> Limits {
        let sequences = options.beams.max(options.n_best);
        let fast = (AT_ONCE / sequences).max(1);
        let lines = batch.unwrap_or(fast).min((MOST_AT_ONCE / sequences).max(1));
        Limits {
            lines,
            bytes: if batch.is_some() { usize::MAX } else { BYTES_AT_ONCE },
            waits: batch.is_some(),
            // A line of many sentences has them side by side.
            sequences: lines.max(fast) * sequences,
            jobs,
        }
    }
}

/// Lines to be answered; each has a number.
struct Feed<'l> {
    lines: &'l mut Lines,
    next: usize,
    ended: bool,
}

/// Answers in the order of their lines.
struct Answers<E> {
    /// Those that others are missing before.
    early: BTreeMap<usize, anyhow::Result<Answer>>,
    next: usize,
    emit: E,
    /// What has ended the work: the first line that has no answer, or where answers go.
    failure: Option<anyhow::Error>,
}

/// Lines under way in a session.
#[derive(Default)]
struct UnderWay {
    lines: BTreeMap<u64, Line>,
    bytes: usize,
}

struct Line {
    number: usize,
    text: String,
    input_ids: Vec<u32>,
}

/// Answers all lines, of which each session has up to `batch` side by side, and hands the answers to `emit` in order. A
/// line that cannot be answered ends the work; those before it are answered.
pub fn answer(
    model: &Model,
    lines: &mut Lines,
    sessions: &mut [Session],
    batch: Option<usize>,
    options: &GenerateOptions,
    emit: impl FnMut(Answer) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Work> {
    let limits = Limits::new(batch, options, sessions.len());
    let feed = Mutex::new(Feed { lines, next: 0, ended: false });
    let answers = Mutex::new(Answers { early: BTreeMap::new(), next: 0, emit, failure: None });
    let job = Job { model, feed: &feed, answers: &answers, limits: &limits, options };
    let works: Vec<Work> = match sessions {
        [session] => vec![job.run(session)],
        sessions => std::thread::scope(|scope| {
            let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(|| job.run(session))).collect();
            let works = threads.into_iter().map(|thread| thread.join());
            works.map(|work| work.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        }),
    };
    match answers.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(Work {
            seconds: works.iter().map(|work| work.seconds).fold(0.0, f64::max),
            passes: works.iter().map(|work| work.passes).sum(),
        }),
    }
}

/// What the sessions share.
struct Job<'j, 'l, E> {
    model: &'j Model,
    feed: &'j Mutex<Feed<'l>>,
    answers: &'j Mutex<Answers<E>>,
    limits: &'j Limits,
    options: &'j GenerateOptions,
}

impl<E: FnMut(Answer) -> anyhow::Result<()>> Job<'_, '_, E> {
    /// Answers lines until there are none left.
    fn run(&self, session: &mut Session) -> Work {
        let mut work = Work::default();
        loop {
            let taken = lock(self.feed).take(0, 0, self.limits);
            if taken.is_empty() || lock(self.answers).failure.is_some() {
                return work;
            }
            let begin = Instant::now();
            match <[(usize, anyhow::Result<String>); 1]>::try_from(taken) {
                Ok([(number, line)]) => {
                    let answer = line.and_then(|text| self.alone(session, text, &mut work));
                    self.put(number, answer);
                }
                Err(taken) => self.together(session, taken, &mut work),
            }
            work.seconds += begin.elapsed().as_secs_f64();
        }
    }

    /// The answer to the only line there is: it may look tokens up in its source.
    fn alone(&self, session: &mut Session, text: String, work: &mut Work) -> anyhow::Result<Answer> {
        let source = self.options.source(self.model, &text)?;
        let input_ids = source.sentences().concat();
        let mut generation = session.generate_source(source, self.options)?;
        while generation.step() {}
        work.passes += generation.passes();
        Ok(Answer { text, input_ids, outputs: generation.finish() })
    }

    /// Answers lines side by side, and as they are done those that are there behind them.
    fn together(&self, session: &mut Session, taken: Vec<(usize, anyhow::Result<String>)>, work: &mut Work) {
        let mut batch = match Batch::new(session, self.limits.sequences) {
            Ok(batch) => batch,
            Err(error) => return self.put(taken[0].0, Err(error.into())),
        };
        let mut under_way = UnderWay::default();
        self.add(&mut batch, taken, &mut under_way);
        while !under_way.lines.is_empty() && lock(self.answers).failure.is_none() {
            for event in batch.step() {
                let (id, outputs) = match event {
                    BatchEvent::Done { id, outputs } => (id, Ok(outputs)),
                    BatchEvent::Failed { id, error } => (id, Err(error.into())),
                    _ => continue,
                };
                if let Some(Line { number, text, input_ids }) = under_way.lines.remove(&id) {
                    under_way.bytes -= text.len();
                    self.put(number, outputs.map(|outputs| Answer { text, input_ids, outputs }));
                }
            }
            // Whoever waits for the next line holds the feed: there is none then.
            let taken = match self.feed.try_lock() {
                Ok(mut feed) => feed.take(under_way.lines.len(), under_way.bytes, self.limits),
                Err(TryLockError::WouldBlock) => Vec::new(),
                Err(TryLockError::Poisoned(_)) => break,
            };
            self.add(&mut batch, taken, &mut under_way);
        }
        work.passes += batch.passes();
    }

    fn add(
        &self,
        batch: &mut Batch<&mut Session>,
        taken: Vec<(usize, anyhow::Result<String>)>,
        under_way: &mut UnderWay,
    ) {
        for (number, line) in taken {
            let mut begin = |text: String| {
                let source = self.options.source(self.model, &text)?;
                let input_ids = source.sentences().concat();
                let id = batch.add_source(source, self.options)?;
                under_way.bytes += text.len();
                under_way.lines.insert(id, Line { number, text, input_ids });
                Ok(())
            };
            if let Err(error) = line.and_then(&mut begin) {
                return self.put(number, Err(error));
            }
        }
    }

    /// Hands out an answer as soon as those before it are. After a line without one, no more are read.
    fn put(&self, number: usize, answer: anyhow::Result<Answer>) {
        if answer.is_err() {
            lock(self.feed).ended = true;
        }
        lock(self.answers).put(number, answer);
    }
}

impl Feed<'_> {
    /// The next lines for someone who has `held` lines under way, of `bytes` bytes: those that are there, or if there
    /// is nothing else to do the one that comes, or as many as were asked for. None at the end.
    fn take(&mut self, held: usize, bytes: usize, limits: &Limits) -> Vec<(usize, anyhow::Result<String>)> {
        let (mut taken, mut bytes, mut share) = (Vec::new(), bytes, limits.lines);
        while !self.ended && held + taken.len() < limits.lines && taken.len() < share && bytes < limits.bytes {
            let waits = held == 0 && (taken.is_empty() || limits.waits);
            if !waits && !self.lines.is_ready() {
                break;
            }
            let line = self.lines.next_line().transpose();
            self.ended = !matches!(line, Some(Ok(_)));
            let Some(line) = line else { break };
            bytes += line.as_ref().map_or(0, String::len);
            taken.push((self.next, line));
            self.next += 1;
            if taken.len() == 1 && !limits.waits {
                // Others have nothing to do yet, perhaps.
                let all = 1 + self.lines.ready(limits.lines * limits.jobs);
                share = all.div_ceil(limits.jobs);
            }
        }
        taken
    }
}

impl<E: FnMut(Answer) -> anyhow::Result<()>> Answers<E> {
    fn put(&mut self, number: usize, answer: anyhow::Result<Answer>) {
        self.early.insert(number, answer);
        while self.failure.is_none()
            && let Some(answer) = self.early.remove(&self.next)
        {
            self.next += 1;
            self.failure = answer.and_then(whole).and_then(&mut self.emit).err();
        }
    }
}

/// An answer that there was memory for.
fn whole(answer: Answer) -> anyhow::Result<Answer> {
    if let Some(output) = answer.outputs.iter().find(|output| output.finish == Finish::Memory) {
        bail!("not enough memory for more than {} tokens of the text", output.ids.len());
    }
    Ok(answer)
}

/// What it guards stays usable when another thread panics: the panic is passed on when that thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
