//! The two kinds of process of a cluster: one scheduler, and executors on any number of machines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use tokio::runtime::Runtime;

use super::plan::Codec;
use crate::files::create_folder;
use crate::{Error, Result};

/// Who shares the work out.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// The address and port that it listens at.
    pub listen: SocketAddr,
    /// Seconds after which an executor that says nothing is taken for dead.
    pub executor_timeout: u64,
}

/// Who does it.
#[derive(Clone, Debug)]
pub struct Executor {
    /// The scheduler's host and port.
    pub scheduler: (String, u16),
    /// The address and port that others fetch exchanged data from; the port above is used, too.
    pub listen: SocketAddr,
    /// The name by which others reach it; otherwise the address that the scheduler sees.
    pub host: Option<String>,
    /// Parts that are worked on at the same time.
    pub threads: usize,
    /// The folder of exchanged data.
    pub work: PathBuf,
}

/// Waits for a server, whose errors become one line.
fn serve(what: &str, server: impl Future<Output = ballista_core::error::Result<()>>) -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let one_line = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        Error::Invalid(format!("{what}: {}", error.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    let runtime = Runtime::new().map_err(|error| one_line(&error))?;
    runtime.block_on(server).map_err(|error| one_line(&error))
}

impl Scheduler {
    /// Serves until it is ended.
    ///
    /// # Errors
    /// Where the address cannot be listened at.
    pub fn serve(&self) -> Result<()> {
        let config = Arc::new(SchedulerConfig {
            bind_host: self.listen.ip().to_string(),
            bind_port: self.listen.port(),
            // Executors ask for work: nobody has to reach them for that.
            scheduling_policy: TaskSchedulingPolicy::PullStaged,
            executor_timeout_seconds: self.executor_timeout,
            expire_dead_executor_interval_seconds: (self.executor_timeout / 4).clamp(1, 15),
            no_executors_grace_period_seconds: self.executor_timeout.max(60),
            override_physical_codec: Some(Arc::new(Codec::default())),
            ..SchedulerConfig::default()
        });
        t5_runtime::command::say(format_args!("scheduler at {}", self.listen));
        serve("scheduler", async {
            let cluster = BallistaCluster::new_from_config(&config).await?;
            start_server(cluster, self.listen, config.clone()).await
        })
    }
}

impl Executor {
    /// Works until it is ended.
    ///
    /// # Errors
    /// Where the scheduler is not found within half a minute, the address cannot be listened at, or the folder cannot
    /// be made.
    pub fn serve(&self) -> Result<()> {
        let threads =
            if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|error| Error::Invalid(format!("threads: {error}")))?;
        create_folder(&self.work)?;
        let config = Arc::new(ExecutorProcessConfig {
            bind_host: self.listen.ip().to_string(),
            external_host: self.host.clone(),
            port: self.listen.port(),
            grpc_port: self.listen.port().saturating_add(1),
            scheduler_host: self.scheduler.0.clone(),
            scheduler_port: self.scheduler.1,
            scheduler_connect_timeout_seconds: 30,
            vcores: threads,
            task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
            work_dir: Some(self.work.display().to_string()),
            // What jobs that were given up left.
            job_data_clean_up_interval_seconds: 3600,
            override_physical_codec: Some(Arc::new(Codec::default())),
            ..ExecutorProcessConfig::default()
        });
        t5_runtime::command::say(format_args!("executor at {}, {threads} parts at a time", self.listen));
        serve("executor", start_executor_process(config))
    }
}
