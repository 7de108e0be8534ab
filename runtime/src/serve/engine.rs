//! The threads that work the model: each a batch of its own, which shares the work of its steps among further threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::Context;
use t5_runtime::{
    Batch, BatchEvent, EncodeOptions, Encoded, Error, Finish, GenerateOptions, Model, Output, Passage, Score, Session,
    SourceText, Token,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::limits::Config;
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::side::Side;

/// Something to do for a request.
pub struct Job {
    /// Which of the request's texts it is.
    pub index: usize,
    pub work: Work,
    pub events: Events,
    pub begun: Instant,
    /// Its share of the room, given back with it.
    pub room: Option<OwnedSemaphorePermit>,
    /// Its share of what its worker has to do, likewise.
    pub load: Option<Load>,
}

/// What a job adds to its worker's work while it is there.
pub struct Load {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Load {
    fn add(all: &Arc<AtomicUsize>, own: usize) -> Load {
        all.fetch_add(own, Ordering::Relaxed);
        Load { all: all.clone(), own }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

pub enum Work {
    Generate { source: SourceText, options: Arc<GenerateOptions> },
    Encode { passages: Vec<Passage>, options: EncodeOptions },
    Score { source: Vec<u32>, target: Vec<u32> },
}

impl Work {
    /// How many sequences it is, at the least.
    fn size(&self) -> usize {
        match self {
            Work::Generate { source, .. } => source.sentences().len(),
            Work::Encode { passages, .. } => passages.len(),
            Work::Score { .. } => 1,
        }
    }
}

/// What has come of a job. Each ends with one that is no piece, or a refusal.
pub enum What {
    Piece { text: String, tokens: Vec<Token> },
    Outputs(Vec<Output>),
    Vectors(Vec<Encoded>),
    Score(Score),
}

/// Where a job's events go; closed when nobody waits for them any more.
pub type Events = UnboundedSender<(usize, Result<What, Refusal>)>;

pub struct Engine {
    /// Or why the model does not generate.
    batch: Result<Batch<Session>, Refusal>,
    generating: BTreeMap<u64, Generating>,
    side: Side,
    metrics: Arc<Metrics>,
    /// Of how many this is one.
    workers: u32,
    /// When the last text was done, or the first begun.
    last_done: Instant,
    /// Passes, and texts in the batch, that are counted.
    passes: usize,
    counted: usize,
}

struct Generating {
    index: usize,
    events: Events,
    begun: Instant,
    has_text: bool,
    cancelled: bool,
    _room: Option<OwnedSemaphorePermit>,
    _load: Option<Load>,
}

/// A session as the server uses them.
pub fn session(model: &Model, threads: usize) -> Session {
    let mut session = model.session();
    session.set_threads(threads);
    session
}

impl Engine {
    /// # Errors
    /// If there is no memory for so many sequences.
    fn new(model: &Model, threads: usize, config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Engine> {
        let batch = match Batch::new(session(model, threads), config.parallel) {
            Ok(batch) => Ok(batch),
            // Encoders, and models with heads of other kinds.
            Err(error @ Error::Config { .. }) => Err(Refusal::of(&error)),
            Err(error) => return Err(error.into()),
        };
        let side = Side::new(model.clone(), threads, metrics.clone());
        let (generating, workers, last_done) = (BTreeMap::new(), config.workers as u32, Instant::now());
        Ok(Engine { batch, generating, side, metrics, workers, last_done, passes: 0, counted: 0 })
    }

    /// Works until nobody can send jobs any more, and what they have sent is done.
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            if self.generating.is_empty() && self.side.is_idle() {
                match jobs.recv() {
                    Ok(job) => {
                        self.last_done = Instant::now();
                        self.take(job);
                    }
                    Err(_) => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                self.take(job);
            }
            self.let_go();
            self.step();
            self.side.step();
        }
    }

    fn take(&mut self, job: Job) {
        // Gone before it was its turn.
        if job.events.is_closed() {
            self.metrics.cancelled.inc();
            return;
        }
        let Job { index, work, events, begun, room, load } = job;
        let Work::Generate { source, options } = work else {
            return self.side.take(Job { index, work, events, begun, room, load });
        };
        let added = match &mut self.batch {
            Ok(batch) => batch.add_source(source, &options).map_err(|error| Refusal::of(&error)),
            Err(refusal) => Err(refusal.clone()),
        };
        match added {
            Ok(id) => {
                let (has_text, cancelled) = (false, false);
                let generating = Generating { index, events, begun, has_text, cancelled, _room: room, _load: load };
                self.generating.insert(id, generating);
            }
            Err(refusal) => tell(&events, index, Err(refusal)),
        }
    }

    /// Cancels what nobody waits for.
    fn let_go(&mut self) {
        let Ok(batch) = &mut self.batch else { return };
        for (&id, generating) in &mut self.generating {
            if !generating.cancelled && generating.events.is_closed() {
                generating.cancelled = true;
                batch.cancel(id);
                self.metrics.cancelled.inc();
            }
        }
    }

    /// A piece of work on all texts that are generated.
    fn step(&mut self) {
        let Ok(batch) = &mut self.batch else { return };
        if batch.is_empty() {
            return;
        }
        let events = batch.step();
        self.metrics.passes.inc_by((batch.passes() - self.passes) as u64);
        self.passes = batch.passes();
        self.metrics.generating(self.counted, batch.len());
        self.counted = batch.len();
        for event in events {
            match event {
                BatchEvent::Piece { id, text, tokens } => {
                    let Some(generating) = self.generating.get_mut(&id) else { continue };
                    if !std::mem::replace(&mut generating.has_text, true) {
                        self.metrics.first_text.observe(generating.begun.elapsed().as_secs_f64());
                    }
                    tell(&generating.events, generating.index, Ok(What::Piece { text, tokens }));
                }
                BatchEvent::Done { id, outputs } => self.done(id, Ok(outputs)),
                BatchEvent::Failed { id, error } => self.done(id, Err(Refusal::of(&error))),
                _ => {}
            }
        }
    }

    fn done(&mut self, id: u64, outputs: Result<Vec<Output>, Refusal>) {
        let Some(generating) = self.generating.remove(&id) else { return };
        if let Ok(outputs) = &outputs {
            let tokens: usize = outputs.iter().map(|output| output.ids.len()).sum();
            self.metrics.new_tokens.inc_by(tokens as u64);
            if outputs.iter().all(|output| output.finish != Finish::Cancelled) {
                // The others have done as many meanwhile.
                self.metrics.text_done(self.last_done.elapsed() / self.workers);
                self.last_done = Instant::now();
            }
        }
        tell(&generating.events, generating.index, outputs.map(What::Outputs));
    }
}

/// Says what has become of a job, if somebody listens.
pub fn tell(events: &Events, index: usize, what: Result<What, Refusal>) {
    let _ = events.send((index, what));
}

/// One thread's part in saying how they end: that the last is over is said by the channel's end, a panic at once.
struct Ending {
    alive: Arc<AtomicBool>,
    ended: UnboundedSender<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.alive.store(false, Ordering::Relaxed);
            let _ = self.ended.send(());
        }
    }
}

/// The way to the threads.
pub struct Workers(Vec<(Sender<Job>, Arc<AtomicUsize>)>);

impl Workers {
    /// Starts them. They end when this is gone, and what is under way is done; if one ends by a panic, `alive` is false
    /// from then on. The receiver has something, or its end, when one has panicked or all have ended.
    ///
    /// # Errors
    /// If there is no memory for so many sequences, or no thread.
    pub fn start(
        model: &Model,
        config: &Config,
        metrics: &Arc<Metrics>,
        alive: &Arc<AtomicBool>,
    ) -> anyhow::Result<(Workers, UnboundedReceiver<()>)> {
        let (sender, ended) = unbounded_channel();
        let mut workers = Vec::with_capacity(config.workers);
        for number in 0..config.workers {
            // What does not divide goes to the first ones.
            let threads = config.threads / config.workers + usize::from(number < config.threads % config.workers);
            let mut engine = Engine::new(model, threads, config, metrics.clone())?;
            let (jobs, receiver) = channel();
            let ending = Ending { alive: alive.clone(), ended: sender.clone() };
            let work = move || {
                let _ending = ending;
                engine.run(&receiver);
            };
            let thread = std::thread::Builder::new().name(format!("t5-model-{number}"));
            thread.spawn(work).context("no thread for the model")?;
            workers.push((jobs, Arc::default()));
        }
        Ok((Workers(workers), ended))
    }

    /// Hands a job to the one that has least to do.
    ///
    /// # Errors
    /// If it has ended.
    pub fn send(&self, mut job: Job) -> Result<(), Refusal> {
        let least = self.0.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        let (jobs, load) = least.ok_or_else(Refusal::broken)?;
        job.load = Some(Load::add(load, job.work.size()));
        jobs.send(job).map_err(|_| Refusal::broken())
    }
}
