//! Many inputs side by side: as one is done, the next takes its place, and the answers keep the order of the inputs.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use anyhow::bail;
use t5_runtime::generate::SIDE_BY_SIDE;
use t5_runtime::{Batch, BatchEvent, Finish, GenerateOptions, Model, Output, Session};

use super::inputs::{Input, Inputs};

/// Sequences side by side where nobody says how many: more gain nothing (measured with the built-in model; one at a
/// time takes 2.8 times as long). Lines of one length beside each other gain nothing either, since there is no padding.
const AT_ONCE: usize = 16;
/// Bytes of texts side by side where nobody says how many: long ones take memory, and keep the processor busy alone.
const BYTES_AT_ONCE: usize = 8 << 10;

/// How inputs are worked on.
pub struct Way<'a> {
    /// How many are side by side, where somebody says it.
    pub batch: Option<usize>,
    /// How long to wait for so many.
    pub flush: Duration,
    /// Whether an input that cannot be answered leaves the others alone.
    pub goes_on: bool,
    pub options: &'a GenerateOptions,
}

/// What an input gives.
pub struct Answer {
    /// Of all sentences, one after the other.
    pub input_ids: Vec<u32>,
    pub outputs: Vec<Output>,
}

/// An input, and what it gives.
pub type Answered = (Input, anyhow::Result<Answer>);

/// What answering took.
#[derive(Default)]
pub struct Work {
    /// In which there was something to do, of the job that had most.
    pub seconds: f64,
    /// Passes of the decoder, of all jobs.
    pub passes: usize,
}

/// How many inputs each session has side by side.
struct Limits {
    inputs: usize,
    bytes: usize,
    /// How long to wait for so many inputs before the first is begun.
    waits: Option<Duration>,
    sequences: usize,
    jobs: usize,
}

impl Limits {
    fn new(&Way { batch, flush, options, .. }: &Way, jobs: usize) -> Limits {
        let sequences = options.beams.max(options.n_best);
        let fast = (AT_ONCE / sequences).max(1);
        let inputs = batch.unwrap_or(fast).min((SIDE_BY_SIDE / sequences).max(1));
        Limits {
            inputs,
            bytes: if batch.is_some() { usize::MAX } else { BYTES_AT_ONCE },
            waits: batch.map(|_| flush),
            // An input of many sentences has them side by side.
            sequences: inputs.max(fast) * sequences,
            jobs,
        }
    }
}

/// Inputs to be answered; each has a number.
struct Feed<'f, 'i> {
    inputs: &'f mut Inputs<'i>,
    next: usize,
    ended: bool,
}

/// Answers in the order of their inputs.
struct Answers<E> {
    /// Those that others are missing before; an error is one of all inputs.
    early: BTreeMap<usize, anyhow::Result<Answered>>,
    next: usize,
    emit: E,
    /// Whether an input without an answer is handed out, too.
    goes_on: bool,
    /// What has ended the work: the first input that has no answer, where inputs come from or where answers go.
    failure: Option<anyhow::Error>,
}

/// Inputs under way in a session.
#[derive(Default)]
struct UnderWay {
    inputs: BTreeMap<u64, Begun>,
    bytes: usize,
}

struct Begun {
    number: usize,
    input: Input,
    input_ids: Vec<u32>,
}

/// Inputs with their numbers; an error is one of all.
type Taken = Vec<(usize, anyhow::Result<Input>)>;

/// Answers all inputs, of which each session has some side by side, and hands the answers to `emit` in order. Unless
/// the work goes on then, an input that cannot be answered ends it; those before it are answered.
pub fn answer(
    model: &Model,
    inputs: &mut Inputs,
    sessions: &mut [Session],
    way: &Way,
    emit: impl FnMut(Answered) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Work> {
    let limits = Limits::new(way, sessions.len());
    let feed = Mutex::new(Feed { inputs, next: 0, ended: false });
    let answers = Answers { early: BTreeMap::new(), next: 0, emit, goes_on: way.goes_on, failure: None };
    let answers = Mutex::new(answers);
    let job = Job { model, feed: &feed, answers: &answers, limits: &limits, way };
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
struct Job<'j, 'f, 'i, E> {
    model: &'j Model,
    feed: &'j Mutex<Feed<'f, 'i>>,
    answers: &'j Mutex<Answers<E>>,
    limits: &'j Limits,
    way: &'j Way<'j>,
}

impl<E: FnMut(Answered) -> anyhow::Result<()>> Job<'_, '_, '_, E> {
    /// Answers inputs until there are none left.
    fn run(&self, session: &mut Session) -> Work {
        let mut work = Work::default();
        loop {
            let taken = lock(self.feed).take(0, 0, self.limits);
            if taken.is_empty() || lock(self.answers).failure.is_some() {
                return work;
            }
            let begin = Instant::now();
            match <[(usize, anyhow::Result<Input>); 1]>::try_from(taken) {
                Ok([(number, Ok(input))]) => {
                    let answer = input.text().and_then(|text| self.alone(session, text, &mut work));
                    self.put(number, Ok((input, answer)));
                }
                Ok([(number, Err(error))]) => self.put(number, Err(error)),
                Err(taken) => self.together(session, taken, &mut work),
            }
            work.seconds += begin.elapsed().as_secs_f64();
        }
    }

    /// The answer to the only input there is: it may look tokens up in its source.
    fn alone(&self, session: &mut Session, text: &str, work: &mut Work) -> anyhow::Result<Answer> {
        let source = self.way.options.source(self.model, text)?;
        let input_ids = source.sentences().concat();
        let mut generation = session.generate_source(source, self.way.options)?;
        while generation.step() {}
        work.passes += generation.passes();
        Ok(Answer { input_ids, outputs: generation.finish() })
    }

    /// Answers inputs side by side, and as they are done those that are there behind them.
    fn together(&self, session: &mut Session, taken: Taken, work: &mut Work) {
        let mut batch = match Batch::new(session, self.limits.sequences) {
            Ok(batch) => batch,
            Err(error) => return self.put(taken[0].0, Err(error.into())),
        };
        let mut under_way = UnderWay::default();
        self.add(&mut batch, taken, &mut under_way);
        while !under_way.inputs.is_empty() && lock(self.answers).failure.is_none() {
            for event in batch.step() {
                let (id, outputs) = match event {
                    BatchEvent::Done { id, outputs } => (id, Ok(outputs)),
                    BatchEvent::Failed { id, error } => (id, Err(error.into())),
                    _ => continue,
                };
                if let Some(Begun { number, input, input_ids }) = under_way.inputs.remove(&id) {
                    under_way.bytes -= input.len();
                    self.put(number, Ok((input, outputs.map(|outputs| Answer { input_ids, outputs }))));
                }
            }
            // Whoever waits for the next input holds the feed: there is none then.
            let taken = match self.feed.try_lock() {
                Ok(mut feed) => feed.take(under_way.inputs.len(), under_way.bytes, self.limits),
                Err(TryLockError::WouldBlock) => Vec::new(),
                Err(TryLockError::Poisoned(_)) => break,
            };
            self.add(&mut batch, taken, &mut under_way);
        }
        work.passes += batch.passes();
    }

    fn add(&self, batch: &mut Batch<&mut Session>, taken: Taken, under_way: &mut UnderWay) {
        for (number, input) in taken {
            let input = match input {
                Ok(input) => input,
                Err(error) => return self.put(number, Err(error)),
            };
            let begun = input.text().and_then(|text| {
                let source = self.way.options.source(self.model, text)?;
                let input_ids = source.sentences().concat();
                Ok((batch.add_source(source, self.way.options)?, input_ids))
            });
            match begun {
                Ok((id, input_ids)) => {
                    under_way.bytes += input.len();
                    under_way.inputs.insert(id, Begun { number, input, input_ids });
                }
                Err(error) => {
                    self.put(number, Ok((input, Err(error))));
                    if !self.way.goes_on {
                        return;
                    }
                }
            }
        }
    }

    /// Hands out an answer as soon as those before it are. Where the work ends with it, no more are read.
    fn put(&self, number: usize, answered: anyhow::Result<Answered>) {
        if answered.as_ref().map_or(true, |(_, answer)| answer.is_err() && !self.way.goes_on) {
            lock(self.feed).ended = true;
        }
        lock(self.answers).put(number, answered);
    }
}

impl Feed<'_, '_> {
    /// The next inputs for someone who has `held` under way, of `bytes` bytes: those that are there, or if there is
    /// nothing else to do the one that comes, and as many as come in the time to wait. None at the end.
    fn take(&mut self, held: usize, bytes: usize, limits: &Limits) -> Taken {
        let (mut taken, mut bytes, mut share) = (Taken::new(), bytes, limits.inputs);
        let mut flush = None;
        while !self.ended && held + taken.len() < limits.inputs && taken.len() < share && bytes < limits.bytes {
            if let Some(time) = flush {
                self.inputs.lines.wait(time);
            }
            let waits = held == 0 && taken.is_empty();
            if !waits && !self.inputs.lines.is_ready() {
                break;
            }
            let input = self.inputs.next().transpose();
            self.ended = !matches!(input, Some(Ok(_)));
            let Some(input) = input else { break };
            bytes += input.as_ref().map_or(0, Input::len);
            taken.push((self.next, input));
            self.next += 1;
            if taken.len() > 1 || held > 0 {
                continue;
            }
            match limits.waits {
                Some(wait) => flush = Instant::now().checked_add(wait),
                None => {
                    // Others have nothing to do yet, perhaps.
                    let all = 1 + self.inputs.lines.ready(limits.inputs * limits.jobs);
                    share = all.div_ceil(limits.jobs);
                }
            }
        }
        taken
    }
}

impl<E: FnMut(Answered) -> anyhow::Result<()>> Answers<E> {
    fn put(&mut self, number: usize, answered: anyhow::Result<Answered>) {
        self.early.insert(number, answered);
        while self.failure.is_none()
            && let Some(answered) = self.early.remove(&self.next)
        {
            self.next += 1;
            let handed = answered.and_then(|(input, answer)| match answer.and_then(whole) {
                Err(error) if !self.goes_on => Err(error),
                answer => (self.emit)((input, answer)),
            });
            self.failure = handed.err();
        }
    }
}

/// An answer that there was memory for.
pub fn whole(answer: Answer) -> anyhow::Result<Answer> {
    if let Some(output) = answer.outputs.iter().find(|output| output.finish == Finish::Memory) {
        bail!("not enough memory for more than {} tokens of the text", output.ids.len());
    }
    Ok(answer)
}

/// What it guards stays usable when another thread panics: the panic is passed on when that thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
