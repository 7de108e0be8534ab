//! The steps of a corpus's job on several machines that share its folder: plans of DataFusion's nodes and of one of our
//! own ([`plan`]), which Ballista divides among executors. What fails with a machine is done again by another.
//!
//! Nothing but numbers of parts, hashes and places goes through the engine: texts lie in the shared folder, as they do
//! between the steps of one process, and the corpus is the same to the last byte.

mod plan;
mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::BallistaConfig;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result as PlanResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::common::collect;
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tokio::runtime::Runtime;

use super::engine::{Engine, Repeat, Step};
use super::job::{self, Job, Progress};
use super::options::Options;
use super::report::Report;
use crate::source::stores::is_address;
use crate::{Error, Result, vocabulary};

pub use servers::{Executor, Scheduler};

/// So often a plan is run at most.
const ATTEMPTS: u32 = 4;

/// A scheduler of Ballista and the executors that it knows.
pub struct Cluster {
    /// `df://HOST:PORT`, for messages.
    address: String,
    url: String,
    runtime: Runtime,
}

impl Cluster {
    /// The scheduler at `df://HOST:PORT`.
    ///
    /// # Errors
    /// Where the address is not of this form, or threads cannot be started.
    pub fn new(address: &str) -> Result<Cluster> {
        let wrong = || Error::Invalid(format!("expected a scheduler as df://HOST:PORT, found {address}"));
        let place = address.strip_prefix("df://").ok_or_else(wrong)?;
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        let runtime = Runtime::new().map_err(|error| Error::Invalid(format!("threads for the network: {error}")))?;
        Ok(Cluster { address: address.to_owned(), url: format!("http://{place}"), runtime })
    }

    /// Runs a plan, and gives what its root gives. That lies with executors until it is fetched: where one died in
    /// between, the plan is run again, of which the most is done.
    fn run(&self, job: &Job, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let mut attempt = 1;
        loop {
            let text = match self.run_once(job, plan.clone(), attempt) {
                Ok(rows) => return Ok(rows),
                Err(error) => error.to_string(),
            };
            if let Some(what) = plan::said(&text) {
                return Err(Error::Invalid(what));
            }
            if attempt == ATTEMPTS {
                let what = text.split_whitespace().collect::<Vec<_>>().join(" ");
                return Err(Error::Invalid(format!("{}: expected the cluster to do the work: {what}", self.address)));
            }
            attempt += 1;
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn run_once(&self, job: &Job, plan: Arc<dyn ExecutionPlan>, attempt: u32) -> PlanResult<Vec<RecordBatch>> {
        let codec = Arc::new(plan::Codec::default());
        // The plan is as it should be: nothing is to be planned again between its stages.
        let session = SessionConfig::new_with_ballista()
            .with_ballista_adaptive_query_planner(false)
            .with_ballista_physical_extension_codec(codec.clone())
            .with_ballista_job_name("corpus");
        let name = format!("t5-train-{}-{}-{attempt}", job.made_of, std::process::id());
        self.runtime.block_on(async {
            let config = BallistaConfig::default();
            let url = self.url.clone();
            let stream = execute_physical_plan::<PhysicalPlanNode>(url, &config, plan, &*codec, name, session);
            collect(stream.await?).await
        })
    }
}

impl Engine for Cluster {
    fn each(&self, job: &Job, step: Step, progress: &Progress) -> Result<()> {
        let order = plan::Order::write(job)?;
        let mut outcomes = Vec::new();
        for batch in self.run(job, &plan::each(job, order, step)?)? {
            outcomes.extend(plan::outcomes(&batch)?);
        }
        outcomes.sort_by_key(|outcome| outcome.part);
        if let Some(what) = outcomes.iter().find_map(|outcome| outcome.error.as_ref()) {
            return Err(Error::Invalid(what.clone()));
        }
        if outcomes.iter().map(|outcome| outcome.part as usize).ne(0..job.parts.len()) {
            let (found, expected) = (outcomes.len(), job.parts.len());
            return Err(Error::Invalid(format!("{}: expected {expected} parts, found {found}", self.address)));
        }
        outcomes.iter().for_each(|outcome| progress.add(outcome.pages as usize, outcome.bytes as usize));
        Ok(())
    }

    fn repeated(&self, job: &Job, repeat: Repeat, gone: &Path) -> Result<()> {
        let order = plan::Order::write(job)?;
        self.run(job, &plan::repeated(job, order, repeat, gone)?).map(drop)
    }
}

/// Makes a corpus on a cluster, or goes on with one, also with what one process began. Gives the counts, and whether it
/// was done before.
///
/// # Errors
/// As [`job::run`]; where a path does not mean the same on every machine; where the cluster fails.
pub fn run(cluster: &Cluster, options: &Options, progress: &Progress) -> Result<(Report, bool)> {
    let lists = [&options.sites, &options.addresses, &options.bad_words, &options.vocabulary];
    let given = lists.into_iter().filter(|path| !path.as_os_str().is_empty());
    for path in options.input.iter().chain([&options.output]).chain(given) {
        let is_name = *path == options.vocabulary && vocabulary::is_name(path);
        if !is_name && !path.is_absolute() && !is_address(path) {
            let what = "expected a path from the root on, or an address, which every machine of the cluster has";
            return Err(Error::file(path, what));
        }
    }
    job::run_on(cluster, options, progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_that_cannot_be_are_named() {
        for address in ["localhost:50050", "df://localhost", "df://:1", "df://a:b", "http://a:1"] {
            let message = Cluster::new(address).err().unwrap().to_string();
            assert!(
                message.ends_with(&format!("expected a scheduler as df://HOST:PORT, found {address}")),
                "{message}"
            );
        }
        let options = Options::parse("c.toml", "input = [\"/a\", \"b\"]\noutput = \"/c\"", &[], 0).unwrap();
        let cluster = Cluster::new("df://localhost:1").unwrap();
        let message = run(&cluster, &options, &Progress::default()).unwrap_err().to_string();
        assert!(message.starts_with("b: expected a path from the root on"), "{message}");
    }
}
