//! The registry of text-to-text tasks.
