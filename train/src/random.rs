//! Seeded random numbers whose state can be saved.
