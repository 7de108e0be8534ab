//! Unsupervised objectives as pure seeded functions.
