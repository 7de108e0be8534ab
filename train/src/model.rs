//! The trainable T5.
