//! The processes of one run, its ranks: each computes a share of an update's batches, and their gradients are added up.
//!
//! A run's results belong to its configuration and not to the number of ranks: every rank draws the same batches,
//! computes those that are its own by their numbers, and makes the same update. The first one alone writes. This file
//! is the only one that knows of MPI; without the feature `mpi` there is one rank, and nothing here costs anything.
//! With the feature `nccl` sums go from GPU to GPU.

#[cfg(feature = "nccl")]
mod nccl;

use std::env;

use crate::{Error, Result};

/// A number that ranks can add up.
#[cfg(not(feature = "mpi"))]
pub trait Number: Copy + Default + Send + Sync {}

/// A number that ranks can add up.
#[cfg(all(feature = "mpi", not(feature = "nccl")))]
pub trait Number: Copy + Default + Send + Sync + mpi::traits::Equivalence {}

/// A number that ranks can add up.
#[cfg(feature = "nccl")]
pub trait Number: Copy + Default + Send + Sync + mpi::traits::Equivalence + nccl::OnGpu {}

impl Number for f32 {}
impl Number for f64 {}
impl Number for i64 {}

/// This process among those of its run. Methods that exchange something have to be called by all of them, in the same
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    rank: usize,
    size: usize,
}

impl Ranks {
    /// The only process of its run.
    pub const ALONE: Ranks = Ranks { rank: 0, size: 1 };

    /// The number of this process, from 0.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(self) -> usize {
        self.size
    }

    /// Whether this is the one that writes and speaks.
    pub fn is_first(self) -> bool {
        self.rank == 0
    }

    /// Whether this process does a piece of work, of which there are several with numbers.
    pub fn does(self, piece: usize) -> bool {
        piece % self.size == self.rank
    }

    /// Lets the ranks' GPUs add up what [`Ranks::sum`] is given, if this program was built with the feature `nccl`, and
    /// says whether they do. `device` is this rank's.
    ///
    /// # Errors
    /// Where NCCL cannot connect them.
    pub fn connect_gpus(self, device: &candle_core::Device) -> Result<bool> {
        #[cfg(feature = "nccl")]
        if self.size > 1 {
            return nccl::connect(self, device).map(|()| true);
        }
        let _ = device;
        Ok(false)
    }

    /// Adds values of all ranks, place by place. A rank that cannot ends all, as MPI does.
    pub fn sum<T: Number>(self, own: &[T], all: &mut [T]) {
        #[cfg(feature = "nccl")]
        if self.size > 1 && !own.is_empty() {
            match nccl::sum(own, all) {
                Ok(true) => return,
                Ok(false) => {}
                Err(what) => {
                    use mpi::traits::Communicator;
                    t5_runtime::command::say(format_args!("rank {}: NCCL: {what}", self.rank));
                    world().abort(1);
                }
            }
        }
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            use mpi::traits::CommunicatorCollectives;
            world().all_reduce_into(own, all, mpi::collective::SystemOperation::sum());
            return;
        }
        all.copy_from_slice(own);
    }

    /// Puts values together of which each rank has filled in its own places and left 0 in the others.
    pub fn merge(self, values: &mut [f64]) {
        if self.size > 1 {
            let own = values.to_vec();
            self.sum(&own, values);
        }
    }

    /// What every rank has to say, in the order of the ranks.
    pub fn gather(self, own: &[u8]) -> Vec<Vec<u8>> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            use mpi::traits::CommunicatorCollectives;
            let mut lengths = vec![0u64; self.size];
            world().all_gather_into(&[own.len() as u64][..], &mut lengths[..]);
            // All the same length, for these are few and short.
            let longest = lengths.iter().copied().max().unwrap_or(0).max(1) as usize;
            let mut padded = own.to_vec();
            padded.resize(longest, 0);
            let mut all = vec![0u8; longest * self.size];
            world().all_gather_into(&padded[..], &mut all[..]);
            let parts = all.chunks(longest).zip(&lengths);
            return parts.map(|(part, &length)| part[..length as usize].to_vec()).collect();
        }
        vec![own.to_vec()]
    }

    /// What the first rank says, to all of them.
    pub fn first_says(self, own: &[u8]) -> Vec<u8> {
        self.gather(if self.is_first() { own } else { &[] }).swap_remove(0)
    }

    /// Waits until all ranks are here.
    pub fn meet(self) {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            use mpi::traits::CommunicatorCollectives;
            world().barrier();
        }
    }

    /// A result that all ranks need before they go on: if one has failed, all fail with one message.
    ///
    /// # Errors
    /// Where a rank failed: its error, as [`Error::Ranks`] if there are several ranks.
    pub fn together<T, E: Into<anyhow::Error>>(self, own: Result<T, E>) -> anyhow::Result<T> {
        let own = own.map_err(Into::into);
        if self.size == 1 {
            return own;
        }
        let message = own.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
        let messages = self.gather(message.as_bytes());
        match (messages.iter().position(|message| !message.is_empty()), own) {
            (None, own) => own,
            (Some(rank), _) => {
                let what = String::from_utf8_lossy(&messages[rank]).into_owned();
                let all = messages.iter().all(|message| *message == messages[rank]);
                Err(Error::Ranks(if all { what } else { format!("rank {rank}: {what}") }).into())
            }
        }
    }

    /// Compares what has to be the same on all ranks, by a digest of it.
    ///
    /// # Errors
    /// Where it is not: all ranks get the same error, which names the first that differs from rank 0.
    pub fn expect_same(self, what: &str, digest: &[u8]) -> Result<()> {
        let all = self.gather(digest);
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => {
                let size = self.size;
                let what = format!("expected the same {what} on all {size} ranks, found another on rank {rank} than 0");
                Err(Error::Ranks(what))
            }
        }
    }
}

/// What launchers tell the processes that they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launched {
    /// The variable that says so.
    by: &'static str,
    /// How many processes it started; not all launchers say that.
    size: Option<usize>,
    /// Whether MPI can find the other processes.
    connected: bool,
}

/// Which launcher started this process, by its environment: mpirun of Open MPI, mpiexec of MPICH and its like or
/// `srun --mpi=pmi2` (PMI), `srun --mpi=pmix` (PMIx), or srun without any of them, which starts strangers.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
    let step = number("SLURM_STEP_NUM_TASKS");
    if let Some(size) = number("OMPI_COMM_WORLD_SIZE") {
        return Some(Launched { by: "OMPI_COMM_WORLD_SIZE", size: Some(size), connected: true });
    }
    if number("PMIX_RANK").is_some() {
        return Some(Launched { by: "PMIX_RANK", size: step, connected: true });
    }
    if let Some(size) = number("PMI_SIZE") {
        return Some(Launched { by: "PMI_SIZE", size: Some(size), connected: true });
    }
    let strangers = step.filter(|&size| size > 1);
    strangers.map(|size| Launched { by: "SLURM_STEP_NUM_TASKS", size: Some(size), connected: false })
}

/// Refuses to be one of several processes that a launcher started, each of which would do the same.
///
/// # Errors
/// Where it is; `command` is what only one process can do.
pub fn expect_alone(command: &str) -> Result<()> {
    match launched(|name| env::var(name).ok()) {
        Some(Launched { by, size: Some(size), .. }) if size > 1 => {
            let what = format!("{command}: expected one process, found {size} ({by}); t5-train run takes several");
            Err(Error::Ranks(what))
        }
        _ => Ok(()),
    }
}

/// The membership of this process. If it goes before [`World::leave`], in a panic or otherwise, all ranks end at once:
/// they would wait for this one for ever.
pub struct World {
    ranks: Ranks,
    /// Ranks on this machine before this one.
    local_rank: usize,
    /// Ranks that have the same processors, this one among them.
    sharing: usize,
    left: bool,
    #[cfg(feature = "mpi")]
    _universe: Option<mpi::environment::Universe>,
}

impl World {
    /// Finds the other processes, if a launcher started several.
    ///
    /// # Errors
    /// Where they cannot be reached, or this program was built without the feature `mpi`.
    pub fn join() -> Result<World> {
        match launched(|name| env::var(name).ok()) {
            None => Ok(World::alone()),
            Some(launched) => World::connect(launched),
        }
    }

    fn alone() -> World {
        World {
            ranks: Ranks::ALONE,
            local_rank: 0,
            sharing: 1,
            left: false,
            #[cfg(feature = "mpi")]
            _universe: None,
        }
    }

    #[cfg(not(feature = "mpi"))]
    fn connect(launched: Launched) -> Result<World> {
        let Launched { by, size, .. } = launched;
        if size == Some(1) {
            return Ok(World::alone());
        }
        let many = size.map_or_else(|| "several processes".to_owned(), |size| format!("{size} processes"));
        let what = format!("expected one process, for t5-train was built without --features mpi; found {many} ({by})");
        Err(Error::Ranks(what))
    }

    #[cfg(feature = "mpi")]
    fn connect(launched: Launched) -> Result<World> {
        use mpi::traits::Communicator;

        let Launched { by, size: expected, connected } = launched;
        if !connected {
            let size = expected.unwrap_or(0);
            let what = format!(
                "srun started {size} processes that do not know each other ({by}); expected srun --mpi=pmix or mpirun"
            );
            return Err(Error::Ranks(what));
        }
        // Calls come from one thread at a time, but from one of the pool's.
        let needed = mpi::Threading::Serialized;
        let (universe, provided) = mpi::initialize_with_threading(needed)
            .ok_or_else(|| Error::Ranks("MPI was begun before in this process".to_owned()))?;
        let (rank, size) = (world().rank() as usize, world().size() as usize);
        let ranks = Ranks { rank, size };
        if expected.is_some_and(|expected| expected != size) {
            let expected = expected.unwrap_or(0);
            let what = format!(
                "expected the {expected} processes that {by} tells of, found {size} by MPI; t5-train has to be built \
                 with the launcher's MPI"
            );
            return Err(Error::Ranks(what));
        }
        if provided < needed {
            return Err(Error::Ranks(
                "expected an MPI that several threads may call in turn, found another".to_owned(),
            ));
        }
        let machine = mpi::environment::processor_name().unwrap_or_default();
        let place = format!("{machine}\n{}", own_processors());
        let places: Vec<Vec<u8>> = ranks.gather(place.as_bytes());
        let machine = format!("{machine}\n").into_bytes();
        let local_rank = places[..rank].iter().filter(|place| place.starts_with(&machine)).count();
        let sharing = places.iter().filter(|other| **other == places[rank]).count();
        Ok(World { ranks, local_rank, sharing, left: false, _universe: Some(universe) })
    }

    /// This process among the others.
    pub fn ranks(&self) -> Ranks {
        self.ranks
    }

    /// The number of this process among those of its machine: which GPU is its own.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Threads of this process where `wanted` are asked for; 0 asks for all processors, which are divided among the
    /// ranks that may use the same ones.
    pub fn threads(&self, wanted: usize) -> usize {
        if wanted > 0 || self.sharing == 1 {
            return wanted;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (processors / self.sharing).max(1)
    }

    /// Ends the membership of a process that has done its work; waits until the others have, too.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Ends all processes of the run, since this one has failed.
    pub fn abort(&self) -> ! {
        #[cfg(feature = "mpi")]
        if self.ranks.size > 1 {
            use mpi::traits::Communicator;
            world().abort(1);
        }
        std::process::exit(1)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.ranks.size > 1 && !self.left {
            self.abort();
        }
    }
}

#[cfg(feature = "mpi")]
fn world() -> mpi::topology::SimpleCommunicator {
    mpi::topology::SimpleCommunicator::world()
}

/// The processors that this process may use, as the system writes them; empty where it does not say.
#[cfg(feature = "mpi")]
fn own_processors() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Launched> {
        launched(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn launchers_are_recognised() {
        let by = |variables: &[(&str, &str)]| of(variables).map(|launched| (launched.size, launched.connected));
        assert_eq!(by(&[]), None);
        // mpirun of Open MPI, which speaks PMIx, also inside a job of Slurm.
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "3"), ("PMIX_RANK", "1"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(by(&mpirun), Some((Some(3), true)));
        // srun --mpi=pmix, srun --mpi=pmi2 and mpiexec of MPICH, srun --mpi=none.
        assert_eq!(by(&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "4")]), Some((Some(4), true)));
        assert_eq!(by(&[("PMIX_RANK", "0")]), Some((None, true)));
        assert_eq!(by(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), Some((Some(2), true)));
        assert_eq!(by(&[("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "2")]), Some((Some(4), false)));
        assert_eq!(by(&[("SLURM_STEP_NUM_TASKS", "1")]), None);
    }

    #[test]
    fn one_rank_has_everything_to_itself() {
        let ranks = Ranks::ALONE;
        assert!(ranks.is_first() && ranks.does(0) && ranks.does(7));
        let mut sum = [0i64; 2];
        ranks.sum(&[3, -4], &mut sum);
        assert_eq!(sum, [3, -4]);
        assert_eq!(ranks.gather(b"text"), [b"text"]);
        ranks.expect_same("data", b"digest").unwrap();
        assert_eq!(ranks.together(Ok::<_, Error>(3)).unwrap(), 3);
        let error = ranks.together(Err::<(), _>(Error::Diverged("step 3".to_owned()))).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::Diverged(_))), "an error stays what it is");
    }
}
