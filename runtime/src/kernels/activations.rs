//! Activations as int8: blocks of 32 values along a row, each with an f32 scale, or several with one.

use super::layout::BLOCK;

/// Rows of quantised activations, laid out by tiles of rows that products take at once.
#[derive(Default)]
pub(crate) struct Activations {
    /// Each in [-127, 127]: `[tiles][blocks][rows of the tile][32]`; for products on tiles
    /// ([`on_tiles`](super::dot::on_tiles)) in pairs of blocks `[tiles][pairs][16][2][32]`, with rows at the end that
    /// nobody reads; or `[tiles][blocks][32 / n][rows of the tile][n]` where
    /// [`Dot::TOGETHER`](super::dot::Dot::TOGETHER) is n.
    pub(crate) values: Vec<[i8; BLOCK]>,
    /// `[tiles][runs of blocks][rows of the tile]`: value times scale approximates the activation. A run is one block
    /// unless the weights say otherwise ([`Q8::run`](super::pack::q8::Q8::run)).
    pub(crate) scales: Vec<f32>,
    /// As `scales`: what the weights' [`Start`](super::quantize::Start) asks for.
    pub(crate) starts: Vec<i32>,
    /// `[blocks]` of a single row that is expected to hold many zeros and does: a bit for each step of the block, set
    /// where a value is not zero. Else empty.
    pub(crate) steps: Vec<u8>,
    /// The values as 16-bit numbers for an instruction set that multiplies such
    /// ([`Order::Halves`](super::layout::Order::Halves)), else empty:
    /// `[tiles][blocks][8][2][rows of the tile][2]`, of every four of a row the first and the third, then the others.
    #[allow(dead_code)] // so far there is one, in WebAssembly
    pub(crate) wide: Vec<[i16; BLOCK]>,
}
