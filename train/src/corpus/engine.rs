//! Who does the steps of a job: the threads of this process, or several machines (`cluster`) that share the corpus's
//! folder. What they do to a part, and the files between the steps, are the same.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::job::{Job, Progress};
use super::repeated::Buckets;
use crate::Result;

/// What is done to each part by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// Read and clean.
    Pages,
    /// Leave out what is elsewhere, and write.
    Texts,
    /// Make ids of the texts of one of [`SPLITS`](super::job::SPLITS).
    Shards(usize),
}

/// What is compared over all parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Repeat {
    /// The addresses of pages, of which the newest stays.
    Addresses,
    /// Lines or spans, as the options say, of the pages that stay.
    Units,
}

impl Repeat {
    pub(super) const ALL: [Repeat; 2] = [Repeat::Addresses, Repeat::Units];

    /// The folder of what was found, below that of both.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Repeat::Addresses => "addresses",
            Repeat::Units => "repeats",
        }
    }
}

/// Who does the steps of a job.
pub(super) trait Engine {
    /// Calls [`Job::step`] for every part.
    fn each(&self, job: &Job, step: Step, progress: &Progress) -> Result<()>;

    /// Of the entries of all parts ([`Job::for_each_entries`]) finds those whose hash another entry before them has,
    /// and writes them into its folder in `gone` as [`removed`](super::repeated::removed) reads them.
    fn repeated(&self, job: &Job, repeat: Repeat, gone: &Path) -> Result<()>;
}

/// The threads of this process.
pub(super) struct Threads;

impl Engine for Threads {
    fn each(&self, job: &Job, step: Step, progress: &Progress) -> Result<()> {
        (0..job.parts.len()).into_par_iter().try_for_each(|part| job.step(step, part, progress))
    }

    fn repeated(&self, job: &Job, repeat: Repeat, gone: &Path) -> Result<()> {
        let buckets = Buckets::create(gone.join("buckets"))?;
        (0..job.parts.len()).into_par_iter().try_for_each(|part| {
            job.for_each_entries(repeat, part, gone, |entries| entries.iter().try_for_each(|entry| buckets.push(entry)))
        })?;
        buckets.remove_all_but_one(&gone.join(repeat.folder()))
    }
}
