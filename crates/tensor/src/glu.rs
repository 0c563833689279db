//! The operations on fused rows: parts of them, and gated activations (Shazeer 2020).
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::backend::{Activation, Buffer, SaveForBackward};
use crate::error::Result;
use std::ops::Range;

pub trait GluOps {
    /// f(a)·g `(rows, width)` of rows that hold a, then g `(rows, 2·width)`, and the factors of its backward pass, as wide
    /// as the input.
    fn glu(&self, activation: Activation, input: &Buffer, save: SaveForBackward) -> Result<(Buffer, Option<Buffer>)>;
    /// The gradient by both halves `(rows, 2·width)`.
    fn glu_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer>;

    /// Some columns of every row.
    fn slice_channels(&self, rows: &Buffer, channels: Range<usize>) -> Result<Buffer>;
    /// The rows at those columns of wider ones, zero elsewhere.
    fn scatter_channels(&self, rows: &Buffer, channels: Range<usize>, width: usize) -> Result<Buffer>;
}
