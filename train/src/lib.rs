//! Text-to-text training of T5 models: corpus -> vocabulary -> examples -> batches -> model -> checkpoint.
//!
//! Two groups of modules: what the trainer reads (corpus -> tasks and objectives -> mixture -> batches), and what it
//! does with it (model -> loss and gradients -> optimizer -> checkpoint).

// What the trainer reads.
pub mod batches;
pub mod corpus;
pub mod data;
mod edit_distance;
pub mod metrics;
pub mod mixture;
pub mod objectives;
pub mod random;
pub mod shards;
pub mod source;
pub mod tasks;
pub mod vocabulary;

// What it does with it.
pub mod checkpoint;
mod composed;
pub mod config;
pub mod distill;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod export;
pub mod extend;
pub mod files;
pub mod finetune;
pub mod init;
pub mod kernels;
pub mod mean;
pub mod model;
pub mod ops;
pub mod optimizer;
pub mod parameters;
pub mod pipeline;
pub mod plan;
pub mod precision;
pub mod ranks;
pub mod record;
pub mod report;
pub mod schedule;
pub mod storing;
pub mod study;
pub mod sums;
pub mod trainer;
pub mod tuning;

#[cfg(test)]
mod testing;

pub use error::{Error, Result};
