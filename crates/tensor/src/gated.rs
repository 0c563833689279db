//! The operations on fused rows: parts of them, and gated activations (Shazeer 2020).
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::kernels::{Activation, Buffer, Keep};
use crate::error::Result;
use std::ops::Range;

pub trait Gated {
    /// f(a)·g `(rows, width)` of rows that hold a, then g `(rows, 2·width)`, and the factors of its backward pass, as wide
    /// as the input.
    fn gated(&self, activation: Activation, input: &Buffer, keep: Keep) -> Result<(Buffer, Option<Buffer>)>;
    /// The gradient by both halves `(rows, 2·width)`.
    fn gated_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer>;

    /// Some columns of every row.
    fn take_columns(&self, rows: &Buffer, columns: Range<usize>) -> Result<Buffer>;
    /// The rows at those columns of wider ones, zero elsewhere.
    fn spread_columns(&self, rows: &Buffer, columns: Range<usize>, width: usize) -> Result<Buffer>;
}
