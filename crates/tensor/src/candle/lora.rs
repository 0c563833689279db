//! Low-rank updates, as candle tensors.

use super::CandleBackend;
use super::ops::{add_accumulator, into_buffer, linear};
use crate::backend::{Buffer, LoraArgs, LoraGradients, LoraOps, Parameter};
use crate::error::Result;
use std::ops::Range;

impl LoraOps for CandleBackend {
    fn lora_add(&self, target: Buffer, range: Range<usize>, args: LoraArgs) -> Result<(Buffer, Buffer)> {
        let LoraArgs { input, a, b, scale } = args;
        let projected =
            linear(input.as_candle_tensor(), a.value.as_candle_tensor(), None).and_then(|projected| projected * scale);
        let projected = into_buffer("a low-rank map", projected)?;
        let output = || {
            let lora_output = linear(projected.as_candle_tensor(), b.value.as_candle_tensor(), None)?;
            let (all, count) = (target.as_candle_tensor(), target.as_candle_tensor().dim(0)?);
            let updated = (all.narrow(0, range.start, range.len())? + lora_output)?;
            let (rows_before, rows_after) =
                (all.narrow(0, 0, range.start)?, all.narrow(0, range.end, count - range.end)?);
            candle_core::Tensor::cat(&[rows_before, updated, rows_after], 0)
        };
        Ok((into_buffer("a low-rank map", output())?, projected))
    }

    fn lora_backward_projected(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer> {
        let projected_gradient =
            gradient.as_candle_tensor().matmul(b.value.as_candle_tensor()).and_then(|inner| inner * scale);
        into_buffer("a low-rank map's backward pass", projected_gradient)
    }

    fn lora_backward_input(
        &self,
        projected_gradient: &Buffer,
        a: &Parameter,
        accumulator: Option<Buffer>,
    ) -> Result<Buffer> {
        let result = projected_gradient
            .as_candle_tensor()
            .matmul(a.value.as_candle_tensor())
            .and_then(|result| add_accumulator(result, accumulator));
        into_buffer("a low-rank map's backward pass", result)
    }

    fn lora_backward_parameters(
        &self,
        gradient: &Buffer,
        projected_gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LoraGradients> {
        let a_gradient = || projected_gradient.as_candle_tensor().t()?.matmul(input.as_candle_tensor());
        let b_gradient = || gradient.as_candle_tensor().t()?.matmul(projected.as_candle_tensor());
        Ok(LoraGradients {
            a: into_buffer("a low-rank map's gradient by A", a_gradient())?,
            b: into_buffer("a low-rank map's gradient by B", b_gradient())?,
        })
    }
}
