//! Arithmetic of training.
