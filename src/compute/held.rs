//! How kernels hold the base's own weights: perhaps in fewer bits than they compute with.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::Tensor;
use super::kernels::{FrozenLinear, FrozenTable};
use super::raw::Raw;
use crate::error::Result;

pub trait Hold {
    /// A linear map with a weight `(output, input)` of the base's.
    fn hold_linear(&self, weight: Raw, bias: Option<Tensor>) -> Result<FrozenLinear>;

    /// A table of the base's.
    fn hold_table(&self, rows: Raw) -> Result<FrozenTable>;

    /// A table's rows as the columns of a linear map, where both can be one in memory.
    fn tie(&self, table: &FrozenTable, bias: Option<Tensor>) -> Result<Option<FrozenLinear>>;
}
