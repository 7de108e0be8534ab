//! The model that comes with Pocket T5, as bytes: translation between English and German or French,
//! pronunciation, corrections, filling of gaps. The card says what it was made of, and how good it is.
#![no_std]
#![doc = include_str!("README.md")]

/// Weights are read in place, so the bytes are aligned as in a mapped file.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("pocket-t5.gguf"));

/// The card, as Markdown.
pub const CARD: &str = include_str!("README.md");

/// The file's bytes: GGUF, Q8_0.
pub fn gguf() -> &'static [u8] {
    &FILE.0
}
