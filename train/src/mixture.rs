//! Mixtures of tasks: rates, and a seeded, resumable order of examples.
