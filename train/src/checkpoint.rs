//! Checkpoints: atomic, resumable bit by bit.
