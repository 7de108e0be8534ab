//! What is done beside the texts that are generated, a piece between every two of their steps: vectors and scores.

use std::collections::VecDeque;
use std::sync::Arc;

use t5_runtime::{Encoded, Model, Passage, Score, Session, UnderWay};

use super::engine::{Job, What, Work, session, tell};
use super::metrics::Metrics;
use super::refusal::Refusal;

/// Texts of several requests that are encoded together.
const TOGETHER: usize = 64;

pub struct Side {
    model: Model,
    threads: usize,
    metrics: Arc<Metrics>,
    /// Made when it is first needed, and anew where an error took it.
    session: Option<Session>,
    waiting: VecDeque<Job>,
    current: Option<Current>,
}

enum Current {
    /// Of each job how many of the texts are its own, in their order.
    Encode(Box<UnderWay<Vec<Encoded>>>, Vec<(Job, usize)>),
    Score(Box<UnderWay<Score>>, Job),
}

impl Side {
    pub fn new(model: Model, threads: usize, metrics: Arc<Metrics>) -> Side {
        Side { model, threads, metrics, session: None, waiting: VecDeque::new(), current: None }
    }

    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    pub fn take(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Does a piece of work.
    pub fn step(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|job| !job.events.is_closed());
        self.metrics.cancelled.inc_by((before - self.waiting.len()) as u64);
        let Some(current) = self.current.take() else {
            self.current = self.waiting.pop_front().and_then(|job| self.begin(job));
            return;
        };
        match current {
            Current::Encode(work, jobs) if jobs.iter().all(|(job, _)| job.events.is_closed()) => {
                self.metrics.cancelled.inc_by(jobs.len() as u64);
                self.session = Some(work.into_session());
            }
            Current::Score(work, job) if job.events.is_closed() => {
                self.metrics.cancelled.inc();
                self.session = Some(work.into_session());
            }
            Current::Encode(mut work, jobs) => match work.work() {
                Ok(true) => self.current = Some(Current::Encode(work, jobs)),
                Ok(false) => self.end_encoding(*work, jobs),
                Err(error) => {
                    self.session = Some(work.into_session());
                    refuse(jobs.iter().map(|(job, _)| job), &Refusal::of(&error));
                }
            },
            Current::Score(mut work, job) => match work.work() {
                Ok(true) => self.current = Some(Current::Score(work, job)),
                Ok(false) => match work.finish() {
                    Ok((score, session)) => {
                        self.session = Some(session);
                        tell(&job.events, job.index, Ok(What::Score(score)));
                    }
                    Err(error) => refuse([&job], &Refusal::of(&error)),
                },
                Err(error) => {
                    self.session = Some(work.into_session());
                    refuse([&job], &Refusal::of(&error));
                }
            },
        }
    }

    fn begin(&mut self, mut job: Job) -> Option<Current> {
        let session = self.session.take().unwrap_or_else(|| session(&self.model, self.threads));
        match &mut job.work {
            Work::Generate { .. } => None,
            Work::Score { source, target } => match session.into_scoring(source, target) {
                Ok(work) => Some(Current::Score(Box::new(work), job)),
                Err(error) => {
                    refuse([&job], &Refusal::of(&error));
                    None
                }
            },
            Work::Encode { passages, options } => {
                let (mut all, options) = (std::mem::take(passages), options.clone());
                let count = all.len();
                let mut jobs = vec![(job, count)];
                // Those that ask for the same go with it.
                let mut rest = VecDeque::new();
                for mut other in self.waiting.drain(..) {
                    match &mut other.work {
                        Work::Encode { passages, options: others }
                            if *others == options && all.len() + passages.len() <= TOGETHER =>
                        {
                            let passages: Vec<Passage> = std::mem::take(passages);
                            let count = passages.len();
                            all.extend(passages);
                            jobs.push((other, count));
                        }
                        _ => rest.push_back(other),
                    }
                }
                self.waiting = rest;
                match session.into_encoding(&all, &options) {
                    Ok(work) => Some(Current::Encode(Box::new(work), jobs)),
                    Err(error) => {
                        refuse(jobs.iter().map(|(job, _)| job), &Refusal::of(&error));
                        None
                    }
                }
            }
        }
    }

    fn end_encoding(&mut self, work: UnderWay<Vec<Encoded>>, jobs: Vec<(Job, usize)>) {
        match work.finish() {
            Ok((vectors, session)) => {
                self.session = Some(session);
                let mut vectors = vectors.into_iter();
                for (job, count) in jobs {
                    let own = vectors.by_ref().take(count).collect();
                    tell(&job.events, job.index, Ok(What::Vectors(own)));
                }
            }
            Err(error) => refuse(jobs.iter().map(|(job, _)| job), &Refusal::of(&error)),
        }
    }
}

fn refuse<'j>(jobs: impl IntoIterator<Item = &'j Job>, refusal: &Refusal) {
    jobs.into_iter().for_each(|job| tell(&job.events, job.index, Err(refusal.clone())));
}
