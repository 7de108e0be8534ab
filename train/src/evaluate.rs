//! Evaluation through the runtime.
