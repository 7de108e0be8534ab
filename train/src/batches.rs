//! Batches: examples packed into rows or grouped by length.
//!
//! Examples are drawn in windows. A window is packed (or sorted into buckets) and its batches are put in a seeded
//! order; examples that fill no whole batch are carried into the next window. So a stream of batches is a function of
//! the seed, and its state is small: the draws before the window, the carried draws, and the number of batches handed
//! out.

mod batch;
mod bucket;
mod pack;
mod stream;

pub use batch::{Batch, BatchSource, shift_right};
pub use pack::{Packing, pack_rows};
pub use stream::{BatchConfig, Layout, TaskBatches};
