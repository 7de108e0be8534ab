//! The one thread that works the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::Context;
use t5_runtime::{
    Batch, BatchEvent, EncodeOptions, Encoded, Error, Finish, GenerateOptions, Model, Output, Passage, Score, Session,
    SourceText, Token,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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
}

pub enum Work {
    Generate { source: SourceText, options: Arc<GenerateOptions> },
    Encode { passages: Vec<Passage>, options: EncodeOptions },
    Score { source: Vec<u32>, target: Vec<u32> },
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
    /// When the last text was done, or the first begun.
    last_done: Instant,
    /// Passes that are counted.
    passes: usize,
}

struct Generating {
    index: usize,
    events: Events,
    begun: Instant,
    has_text: bool,
    cancelled: bool,
    _room: Option<OwnedSemaphorePermit>,
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
    pub fn new(model: &Model, config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Engine> {
        let batch = match Batch::new(session(model, config.threads), config.parallel) {
            Ok(batch) => Ok(batch),
            // Encoders, and models with heads of other kinds.
            Err(error @ Error::Config { .. }) => Err(Refusal::of(&error)),
            Err(error) => return Err(error.into()),
        };
        let side = Side::new(model.clone(), config.threads, metrics.clone());
        Ok(Engine { batch, generating: BTreeMap::new(), side, metrics, last_done: Instant::now(), passes: 0 })
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
        let Job { index, work, events, begun, room } = job;
        let Work::Generate { source, options } = work else {
            return self.side.take(Job { index, work, events, begun, room });
        };
        let added = match &mut self.batch {
            Ok(batch) => batch.add_source(source, &options).map_err(|error| Refusal::of(&error)),
            Err(refusal) => Err(refusal.clone()),
        };
        match added {
            Ok(id) => {
                let generating = Generating { index, events, begun, has_text: false, cancelled: false, _room: room };
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
        self.metrics.set_generating(batch.len());
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
                self.metrics.text_done(self.last_done.elapsed());
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

/// Says when the thread is over, however that comes about.
struct Ending {
    alive: Arc<AtomicBool>,
    ended: Option<oneshot::Sender<()>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.alive.store(false, Ordering::Relaxed);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(());
        }
    }
}

/// Starts the thread. It ends when the last sender is gone; if it ends by a panic, `alive` is false from then on.
pub fn spawn(mut engine: Engine, alive: Arc<AtomicBool>) -> anyhow::Result<(Sender<Job>, oneshot::Receiver<()>)> {
    let (jobs, receiver) = channel();
    let (sender, ended) = oneshot::channel();
    let ending = Ending { alive, ended: Some(sender) };
    let work = move || {
        let _ending = ending;
        engine.run(&receiver);
    };
    std::thread::Builder::new().name("t5-model".to_owned()).spawn(work).context("no thread for the model")?;
    Ok((jobs, ended))
}
