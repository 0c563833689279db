//! Low-rank updates beside linear maps (Hu et al. 2021).
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::backend::{Buffer, Parameter};
use crate::error::Result;
use std::ops::Range;

/// A low-rank update and what it is computed from.
#[derive(Debug, Clone, Copy)]
pub struct LoraArgs<'a> {
    /// `(rows, input)`
    pub input: &'a Buffer,
    /// `(rank, input)`
    pub a: &'a Parameter,
    /// `(output, rank)`
    pub b: &'a Parameter,
    pub scale: f64,
}

/// The gradients of the loss by A `(rank, input)` and B `(output, rank)`.
pub struct LoraGradients {
    pub a: Buffer,
    pub b: Buffer,
}

pub trait LoraOps {
    /// onto + s·(x·Aᵀ)·Bᵀ, and s·x·Aᵀ `(rows, rank)` for the backward pass. Of `onto` only the range changes; `input` has
    /// its rows.
    fn lora_add(&self, target: Buffer, range: Range<usize>, args: LoraArgs) -> Result<(Buffer, Buffer)>;
    /// The same onto several ranges of rows, each with an update of its own, for which nobody asks the way back.
    fn lora_add_batched(&self, target: Buffer, updates: &[(Range<usize>, LoraArgs)]) -> Result<Buffer> {
        let add = |onto, (range, update): &(Range<usize>, LoraArgs)| Ok(self.lora_add(onto, range.clone(), *update)?.0);
        updates.iter().try_fold(target, add)
    }
    /// Makes what updates with A and B will read beside their own numbers, if anything: its bytes.
    fn prepack_lora(&self, _a: &Parameter, _b: &Parameter) -> u64 {
        0
    }

    /// s·dY·B `(rows, rank)`, of which the other gradients are made.
    fn lora_backward_projected(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer>;
    /// dX, added to `onto`.
    fn lora_backward_input(
        &self,
        projected_gradient: &Buffer,
        a: &Parameter,
        accumulator: Option<Buffer>,
    ) -> Result<Buffer>;
    /// `inner` is what [`LowRanks::low_rank_backward`] gave, `projected` what [`LowRanks::add_low_rank`] did.
    fn lora_backward_parameters(
        &self,
        gradient: &Buffer,
        projected_gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LoraGradients>;
}
