//! Low-rank updates, as candle tensors.

use super::Candle;
use super::kernels::{added, done, linear};
use crate::error::Result;
use crate::kernels::{Buffer, LowRank, LowRankGradients, LowRanks, Parameter};
use std::ops::Range;

impl LowRanks for Candle {
    fn add_low_rank(&self, onto: Buffer, range: Range<usize>, update: LowRank) -> Result<(Buffer, Buffer)> {
        let LowRank { input, a, b, scale } = update;
        let projected = linear(input.tensor(), a.forward.tensor(), None).and_then(|projected| projected * scale);
        let projected = done("a low-rank map", projected)?;
        let output = || {
            let added = linear(projected.tensor(), b.forward.tensor(), None)?;
            let (all, count) = (onto.tensor(), onto.tensor().dim(0)?);
            let changed = (all.narrow(0, range.start, range.len())? + added)?;
            let (above, below) = (all.narrow(0, 0, range.start)?, all.narrow(0, range.end, count - range.end)?);
            candle_core::Tensor::cat(&[above, changed, below], 0)
        };
        Ok((done("a low-rank map", output())?, projected))
    }

    fn low_rank_backward(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer> {
        let inner = gradient.tensor().matmul(b.forward.tensor()).and_then(|inner| inner * scale);
        done("a low-rank map's backward pass", inner)
    }

    fn low_rank_backward_input(&self, inner: &Buffer, a: &Parameter, onto: Option<Buffer>) -> Result<Buffer> {
        let result = inner.tensor().matmul(a.forward.tensor()).and_then(|result| added(result, onto));
        done("a low-rank map's backward pass", result)
    }

    fn low_rank_backward_parameters(
        &self,
        gradient: &Buffer,
        inner: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LowRankGradients> {
        let by_a = || inner.tensor().t()?.matmul(input.tensor());
        let by_b = || gradient.tensor().t()?.matmul(projected.tensor());
        Ok(LowRankGradients {
            a: done("a low-rank map's gradient by A", by_a())?,
            b: done("a low-rank map's gradient by B", by_b())?,
        })
    }
}
