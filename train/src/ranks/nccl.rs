//! Sums of the ranks' values by NCCL, from GPU to GPU: what they have in main memory goes through their GPUs, which add
//! it up over whatever connects them. Integers give the same bits as over MPI.

use std::sync::{Mutex, OnceLock};

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, DriverError, ValidAsZeroBits};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, NcclType, ReduceOp};

use super::Ranks;
use crate::{Error, Result};

/// A number that GPUs can add up.
pub trait OnGpu: DeviceRepr + ValidAsZeroBits + NcclType {}

impl<T: DeviceRepr + ValidAsZeroBits + NcclType> OnGpu for T {}

/// This process among the others as NCCL knows them.
struct Communicator(Comm);

// SAFETY: NCCL's calls may come from any thread, if never from two at once, and the lock around it sees to that.
unsafe impl Send for Communicator {}

/// A process is a rank of one run.
static COMMUNICATOR: OnceLock<Mutex<Communicator>> = OnceLock::new();

/// What NCCL's calls need beside its number.
fn failed(error: NcclError) -> Error {
    Error::Ranks(format!("NCCL: {error:?}; expected one GPU of its own for each rank, and NCCL_DEBUG=INFO says more"))
}

/// Connects the GPUs of all ranks. All of them have to call it.
///
/// # Errors
/// Where NCCL cannot do it, as with a GPU that two ranks share.
pub fn connect(ranks: Ranks, device: &Device) -> Result<()> {
    let device = device.as_cuda_device().map_err(|error| Error::Ranks(format!("NCCL: {error}")))?;
    // The first rank draws the name by which the others find it. Nobody waits for one that could not be drawn.
    let drawn = if ranks.is_first() { Id::new().map(Some) } else { Ok(None) };
    let name: Vec<u8> = match &drawn {
        Ok(Some(id)) => id.internal().iter().map(|&letter| letter as u8).collect(),
        _ => Vec::new(),
    };
    let name = ranks.first_says(&name);
    drawn.map_err(failed)?;
    let mut letters = [0; 128];
    if name.len() != letters.len() {
        return Err(Error::Ranks("NCCL: the first rank could not begin it".to_owned()));
    }
    letters.iter_mut().zip(&name).for_each(|(letter, &byte)| *letter = byte as std::ffi::c_char);
    let communicator =
        Comm::from_rank(device.cuda_stream(), ranks.rank(), ranks.size(), Id::uninit(letters)).map_err(failed)?;
    let twice = "NCCL was begun before in this process";
    COMMUNICATOR.set(Mutex::new(Communicator(communicator))).map_err(|_| Error::Ranks(twice.to_owned()))
}

/// Adds values of all ranks, place by place, where [`connect`] was called; says whether it was.
///
/// # Errors
/// What the driver or NCCL said.
pub fn sum<T: OnGpu>(own: &[T], all: &mut [T]) -> std::result::Result<bool, String> {
    let Some(communicator) = COMMUNICATOR.get() else { return Ok(false) };
    let Communicator(communicator) = &*communicator.lock().map_err(|_| "an earlier sum panicked".to_owned())?;
    let driver = |error: DriverError| error.to_string();
    let stream = communicator.stream();
    let own = stream.clone_htod(own).map_err(driver)?;
    let mut sum = stream.alloc_zeros::<T>(own.len()).map_err(driver)?;
    communicator.all_reduce(&own, &mut sum, &ReduceOp::Sum).map_err(|error| format!("{error:?}"))?;
    stream.memcpy_dtoh(&sum, all).map_err(driver)?;
    stream.synchronize().map_err(driver)?;
    Ok(true)
}
