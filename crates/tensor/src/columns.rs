//! The operations of methods that learn vectors and rows rather than matrices: scales, shifts, and rows in front of a
//! sequence's own; and the choice of single rows.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::kernels::{Buffer, FrozenLinear, Parameter};
use super::{Packed, Tensor};
use crate::error::Result;
use std::ops::Range;

/// Rows to be put in front of each of some neighbouring sequences.
#[derive(Debug, Clone)]
pub struct Front<T> {
    pub sequences: Range<usize>,
    /// `(rows in front, width)`
    pub rows: T,
}

impl<T: Copy> Front<T> {
    /// Of some of its sequences only, by runs of neighbours.
    pub fn some(&self, is_one: impl Fn(usize) -> bool) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for sequence in self.sequences.clone().filter(|sequence| is_one(*sequence)) {
            match runs.last_mut() {
                Some(run) if run.sequences.end == sequence => run.sequences.end += 1,
                _ => runs.push(Self { sequences: sequence..sequence + 1, rows: self.rows }),
            }
        }
        runs
    }
}

/// Of `onto` only the rows of the range change.
pub trait Columns {
    /// A trainable matrix as rows, or a trainable vector as one.
    fn parameter_rows(&self, parameter: &Parameter) -> Result<Buffer>;

    /// Each column times its factor `(1, width)`.
    fn scale_columns(&self, onto: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer>;
    /// Each column plus its shift `(1, width)`.
    fn add_columns(&self, onto: Buffer, range: Range<usize>, shifts: &Buffer) -> Result<Buffer>;
    /// onto + s·rows
    fn add_within(&self, onto: Buffer, range: Range<usize>, rows: &Buffer, scale: f64) -> Result<Buffer>;

    /// Σ over the rows `(1, width)`
    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer>;
    /// Σ over the rows of the products, element by element `(1, width)`
    fn sum_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;

    /// Every sequence of `layout` behind its front, where it has one. Fronts are in the order of their sequences.
    fn prepend(&self, rows: &Buffer, layout: &Packed, fronts: &[Front<&Buffer>]) -> Result<Buffer>;
    /// The gradients by the rows of `layout`, and by one front of so many rows before each of them.
    fn prepend_backward(&self, gradient: &Buffer, layout: &Packed, count: usize) -> Result<[Buffer; 2]>;

    /// Some rows, in the order of `which`; one may stand there more than once.
    fn pick(&self, rows: &Buffer, which: &[u32]) -> Result<Buffer>;
    /// The gradient by all `count` rows.
    fn pick_backward(&self, gradient: &Buffer, which: &[u32], count: usize) -> Result<Buffer>;

    /// Σ over the inputs of W² `(output)`, on the host.
    fn squared_rows(&self, map: &FrozenLinear) -> Result<Tensor>;
}
