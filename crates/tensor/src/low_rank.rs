//! Low-rank updates beside linear maps (Hu et al. 2021).
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::kernels::{Buffer, Parameter};
use crate::error::Result;
use std::ops::Range;

/// A low-rank update and what it is computed from.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `(rows, input)`
    pub input: &'a Buffer,
    /// `(rank, input)`
    pub a: &'a Parameter,
    /// `(output, rank)`
    pub b: &'a Parameter,
    pub scale: f64,
}

/// The gradients of the loss by A `(rank, input)` and B `(output, rank)`.
pub struct LowRankGradients {
    pub a: Buffer,
    pub b: Buffer,
}

pub trait LowRanks {
    /// onto + s·(x·Aᵀ)·Bᵀ, and s·x·Aᵀ `(rows, rank)` for the backward pass. Of `onto` only the range changes; `input` has
    /// its rows.
    fn add_low_rank(&self, onto: Buffer, range: Range<usize>, update: LowRank) -> Result<(Buffer, Buffer)>;
    /// The same onto several ranges of rows, each with an update of its own, for which nobody asks the way back.
    fn add_low_ranks(&self, onto: Buffer, updates: &[(Range<usize>, LowRank)]) -> Result<Buffer> {
        let add =
            |onto, (range, update): &(Range<usize>, LowRank)| Ok(self.add_low_rank(onto, range.clone(), *update)?.0);
        updates.iter().try_fold(onto, add)
    }
    /// Makes what updates with A and B will read beside their own numbers, if anything: its bytes.
    fn prepare_low_rank(&self, _a: &Parameter, _b: &Parameter) -> u64 {
        0
    }

    /// s·dY·B `(rows, rank)`, of which the other gradients are made.
    fn low_rank_backward(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer>;
    /// dX, added to `onto`.
    fn low_rank_backward_input(&self, inner: &Buffer, a: &Parameter, onto: Option<Buffer>) -> Result<Buffer>;
    /// `inner` is what [`LowRanks::low_rank_backward`] gave, `projected` what [`LowRanks::add_low_rank`] did.
    fn low_rank_backward_parameters(
        &self,
        gradient: &Buffer,
        inner: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LowRankGradients>;
}
