//! The operations of methods that learn vectors and rows rather than matrices: scales, shifts, and rows in front of a
//! sequence's own; and the choice of single rows.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::backend::{Buffer, FrozenLinear, Parameter};
use super::{RaggedLayout, Tensor};
use crate::error::Result;
use std::ops::Range;

/// Rows to be put in front of each of some neighbouring sequences.
#[derive(Debug, Clone)]
pub struct PrependedRows<T> {
    pub sequences: Range<usize>,
    /// `(rows in front, width)`
    pub rows: T,
}

impl<T: Copy> PrependedRows<T> {
    /// Of some of its sequences only, by runs of neighbours.
    pub fn restrict_to(&self, is_included: impl Fn(usize) -> bool) -> Vec<Self> {
        let mut contiguous: Vec<Self> = Vec::new();
        for sequence in self.sequences.clone().filter(|sequence| is_included(*sequence)) {
            match contiguous.last_mut() {
                Some(run) if run.sequences.end == sequence => run.sequences.end += 1,
                _ => contiguous.push(Self { sequences: sequence..sequence + 1, rows: self.rows }),
            }
        }
        contiguous
    }
}

/// Of `onto` only the rows of the range change.
pub trait ChannelOps {
    /// A trainable matrix as rows, or a trainable vector as one.
    fn parameter_as_rows(&self, parameter: &Parameter) -> Result<Buffer>;

    /// Each column times its factor `(1, width)`.
    fn scale_channels(&self, target: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer>;
    /// Each column plus its shift `(1, width)`.
    fn add_channels(&self, target: Buffer, range: Range<usize>, bias: &Buffer) -> Result<Buffer>;
    /// onto + s·rows
    fn add_rows_scaled(&self, target: Buffer, range: Range<usize>, rows: &Buffer, scale: f64) -> Result<Buffer>;

    /// Σ over the rows `(1, width)`
    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer>;
    /// Σ over the rows of the products, element by element `(1, width)`
    fn sum_row_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;

    /// Every sequence of `layout` behind its front, where it has one. Fronts are in the order of their sequences.
    fn prepend_rows(&self, rows: &Buffer, layout: &RaggedLayout, prefixes: &[PrependedRows<&Buffer>])
    -> Result<Buffer>;
    /// The gradients by the rows of `layout`, and by one front of so many rows before each of them.
    fn prepend_rows_backward(
        &self,
        gradient: &Buffer,
        layout: &RaggedLayout,
        prefix_rows: usize,
    ) -> Result<[Buffer; 2]>;

    /// Some rows, in the order of `which`; one may stand there more than once.
    fn gather_rows(&self, rows: &Buffer, indices: &[u32]) -> Result<Buffer>;
    /// The gradient by all `count` rows.
    fn gather_rows_backward(&self, gradient: &Buffer, indices: &[u32], row_count: usize) -> Result<Buffer>;

    /// Σ over the inputs of W² `(output)`, on the host.
    fn weight_row_squared_norms(&self, linear: &FrozenLinear) -> Result<Tensor>;
}
