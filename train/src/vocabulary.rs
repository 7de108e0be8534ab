//! Training and reading the vocabulary.
