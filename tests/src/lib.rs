//! What the tests of several crates share: where things lie, golden values, and models small enough to write out.

pub mod beside;
pub mod checkpoint;
pub mod convert;
pub mod families;
pub mod golden;
pub mod paths;
mod shared;
pub mod tiny;
pub mod wide;

pub use golden::{Case, Golden, Report};
