//! Doing a study's jobs, one after the other or side by side. A job that is done has a file that says so; one that was
//! killed goes on where its checkpoints are.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use t5_runtime::{Mean, Model, command};

use super::plan::{Job, Kind, Plan};
use crate::checkpoint::Checkpoints;
use crate::config::Config;
use crate::export::{self, Weights};
use crate::pipeline::{self, Pipeline};
use crate::record::EvaluationReport;
use crate::{Error, Result, files, vocabulary};

/// The file that a done job has.
const DONE: &str = "done.json";
/// What an ensemble was found to be.
pub(super) const EVALUATION: &str = "evaluation.json";
/// A study's vocabulary, in its job's folder.
const VOCABULARY: &str = "tokenizer.json";

/// What is known of a job that is done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// The last step of a training run.
    pub step: u64,
}

/// How runs are made: a configuration and a title for people.
pub type Train<'a> = dyn Fn(Config, &str) -> Result<()> + Sync + 'a;

/// What is known of a job that is done; `None` while it is not.
pub(super) fn done(folder: &Path) -> Option<Done> {
    files::read_json(&folder.join(DONE)).ok().flatten()
}

/// Which jobs are open, taken and done.
struct Queue {
    open: Vec<usize>,
    done: HashSet<usize>,
    failure: Option<Error>,
}

/// Does all that a plan wants, `side_by_side` jobs at a time.
///
/// # Errors
/// That of the first job that fails; others that run are finished, and all that is done is kept.
pub fn run(plan: &Plan, side_by_side: usize, train: &Train) -> Result<()> {
    let side_by_side = side_by_side.max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / side_by_side).max(1);
    let wanted = plan.wanted();
    let count = wanted.len();
    let queue = Mutex::new(Queue { open: wanted, done: HashSet::new(), failure: None });
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let mut state = lock();
            let job = loop {
                if state.failure.is_some() || state.open.is_empty() {
                    return;
                }
                let ready = state
                    .open
                    .iter()
                    .position(|&job| plan.jobs[job].after.iter().all(|before| state.done.contains(before)));
                match ready {
                    Some(place) => break state.open.remove(place),
                    None => state = changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let result = do_job(plan, job, threads, train);
            let mut state = lock();
            match result {
                Ok(()) => {
                    state.done.insert(job);
                    command::say(format_args!(
                        "{} of {count} jobs are done: {}",
                        state.done.len(),
                        plan.jobs[job].title
                    ));
                }
                Err(error) => {
                    let error = Error::Invalid(format!("{}: {error}", plan.jobs[job].title));
                    state.failure.get_or_insert(error);
                }
            }
            drop(state);
            changed.notify_all();
        }
    };
    if side_by_side == 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..side_by_side).for_each(|_| drop(scope.spawn(work))));
    }
    queue.into_inner().unwrap_or_else(PoisonError::into_inner).failure.map_or(Ok(()), Err)
}

fn do_job(plan: &Plan, index: usize, threads: usize, train: &Train) -> Result<()> {
    let (job, folder) = (&plan.jobs[index], plan.folder(index));
    if done(&folder).is_some() {
        return Ok(());
    }
    files::create_folder(&folder)?;
    // Arms of a job array share their first stages: one of them does it, the others wait.
    let path = folder.join("lock");
    let file = File::create(&path).map_err(Error::io(&path))?;
    file.lock().map_err(Error::io(&path))?;
    if done(&folder).is_some() {
        return Ok(());
    }
    let mut config = job.config.clone();
    if config.run.threads == 0 {
        config.run.threads = threads;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(config.run.threads).build();
    let pool = pool.map_err(|error| Error::Invalid(format!("threads: {error}")))?;
    let found = pool.install(|| -> Result<Done> {
        match &job.kind {
            Kind::Vocabulary => {
                let tokenizer = config.data.train_vocabulary(&config.vocabulary, config.run.seed)?;
                vocabulary::save(&tokenizer, &folder.join(VOCABULARY))?;
                Ok(Done::default())
            }
            Kind::Train { from } => {
                name_files(plan, job, *from, &mut config)?;
                train(config, &job.title)?;
                Ok(Done { step: newest(&folder)? })
            }
            Kind::Ensemble { members } => {
                judge(plan, job, members, &mut config, &folder)?;
                Ok(Done::default())
            }
        }
    })?;
    files::write_json(&folder.join(DONE), &found)
}

/// Puts files in the place of the jobs that a configuration names.
fn name_files(plan: &Plan, job: &Job, from: Option<usize>, config: &mut Config) -> Result<()> {
    if let Some(vocabulary) = plan.vocabulary_of(job) {
        config.model.vocabulary = plan.folder(vocabulary).join(VOCABULARY).display().to_string();
    }
    if let Some(from) = from {
        let folder = plan.folder(from);
        let checkpoints = Checkpoints::open(&folder.join("checkpoints"), 1)?;
        let step = done(&folder).map_or(0, |done| done.step);
        config.model.from = checkpoints.path(step).display().to_string();
    }
    Ok(())
}

fn newest(run: &Path) -> Result<u64> {
    let steps = Checkpoints::open(&run.join("checkpoints"), 1)?.steps()?;
    steps.last().copied().ok_or_else(|| Error::file(run, "expected a checkpoint, found none"))
}

/// Judges the best checkpoints of an ensemble's members as one.
fn judge(plan: &Plan, job: &Job, members: &[usize], config: &mut Config, folder: &Path) -> Result<()> {
    let first = &plan.jobs[members[0]];
    let from = match first.kind {
        Kind::Train { from } => from,
        Kind::Vocabulary | Kind::Ensemble { .. } => None,
    };
    name_files(plan, first, from, config)?;
    command::say(format_args!("{}: {} models", job.title, members.len()));
    let mut models = Vec::new();
    for (number, &member) in members.iter().enumerate() {
        let exported = folder.join(format!("member-{number}"));
        export::export(&plan.folder(member), None, Weights::Best, &[], &exported)?;
        models.push(Model::open(&exported)?);
    }
    let model = Model::ensemble(models, Mean::Logits)?;
    let report: EvaluationReport =
        Pipeline::load(config)?.evaluator(config, config.evaluation.examples).judge(&model)?.report;
    pipeline::create_parent(&folder.join(EVALUATION))?;
    files::write_json(&folder.join(EVALUATION), &report)
}
