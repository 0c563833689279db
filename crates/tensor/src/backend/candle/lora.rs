//! Low-rank updates.

use super::weights::linear;
use super::{CandleBackend, add_accumulator, into_buffer, update_rows};
use crate::backend::{Buffer, LoraArgs, LoraGradients, LoraOps, Parameter};
use crate::error::Result;
use std::ops::Range;

impl LoraOps for CandleBackend {
    fn lora_add(&self, target: Buffer, range: Range<usize>, args: LoraArgs) -> Result<(Buffer, Buffer)> {
        let LoraArgs { input, a, b, scale } = args;
        let projected = linear(input.as_tensor(), a.as_tensor(), None).and_then(|projected| projected * scale);
        let projected = into_buffer("a low-rank update", projected)?;
        let output = update_rows(&target, range, |rows| rows + linear(projected.as_tensor(), b.as_tensor(), None)?);
        Ok((into_buffer("a low-rank update", output)?, projected))
    }

    fn lora_backward_projected(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer> {
        let projected_gradient = gradient.as_tensor().matmul(b.as_tensor()).and_then(|projected| projected * scale);
        into_buffer("a low-rank update's backward pass", projected_gradient)
    }

    fn lora_backward_input(
        &self,
        projected_gradient: &Buffer,
        a: &Parameter,
        accumulator: Option<Buffer>,
    ) -> Result<Buffer> {
        let result = projected_gradient
            .as_tensor()
            .matmul(a.as_tensor())
            .and_then(|result| add_accumulator(result, accumulator));
        into_buffer("a low-rank update's backward pass", result)
    }

    fn lora_backward_parameters(
        &self,
        gradient: &Buffer,
        projected_gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LoraGradients> {
        let a_gradient = || projected_gradient.as_tensor().t()?.matmul(input.as_tensor());
        let b_gradient = || gradient.as_tensor().t()?.matmul(projected.as_tensor());
        Ok(LoraGradients {
            a: into_buffer("the gradient of a low-rank update's A", a_gradient())?,
            b: into_buffer("the gradient of a low-rank update's B", b_gradient())?,
        })
    }
}
