//! Scales, shifts, and rows in front of sequences.

use super::CandleBackend;
use super::ops::{CandleResult, into_buffer, sum_tensors};
use crate::backend::{Backend, Buffer, FrozenLinear, Parameter};
use crate::channel_ops::{ChannelOps, PrependedRows};
use crate::error::Result;
use crate::{RaggedLayout, Tensor};
use candle_core::DType;
use std::ops::Range;

/// `onto` with the rows of the range replaced by what `change` makes of them.
fn update_rows(
    target: &Buffer,
    range: Range<usize>,
    update: impl FnOnce(candle_core::Tensor) -> CandleResult,
) -> CandleResult {
    let (all, count) = (target.as_candle_tensor(), target.as_candle_tensor().dim(0)?);
    let updated = update(all.narrow(0, range.start, range.len())?)?;
    let (rows_before, rows_after) = (all.narrow(0, 0, range.start)?, all.narrow(0, range.end, count - range.end)?);
    candle_core::Tensor::cat(&[rows_before, updated, rows_after], 0)
}

impl ChannelOps for CandleBackend {
    fn parameter_as_rows(&self, parameter: &Parameter) -> Result<Buffer> {
        let tensor = parameter.value.as_candle_tensor();
        match tensor.rank() {
            1 => into_buffer("a parameter's rows", tensor.unsqueeze(0)),
            _ => Ok(parameter.value.clone()),
        }
    }

    fn scale_channels(&self, target: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer> {
        into_buffer(
            "scaling columns",
            update_rows(&target, range, |rows| rows.broadcast_mul(factors.as_candle_tensor())),
        )
    }

    fn add_channels(&self, target: Buffer, range: Range<usize>, bias: &Buffer) -> Result<Buffer> {
        into_buffer(
            "adding to columns",
            update_rows(&target, range, |rows| rows.broadcast_add(bias.as_candle_tensor())),
        )
    }

    fn add_rows_scaled(&self, target: Buffer, range: Range<usize>, added: &Buffer, scale: f64) -> Result<Buffer> {
        into_buffer("adding rows", update_rows(&target, range, |rows| rows + (added.as_candle_tensor() * scale)?))
    }

    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer> {
        into_buffer("adding up rows", rows.as_candle_tensor().sum_keepdim(0))
    }

    fn sum_row_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer(
            "adding up rows",
            (left.as_candle_tensor() * right.as_candle_tensor()).and_then(|products| products.sum_keepdim(0)),
        )
    }

    fn prepend_rows(
        &self,
        rows: &Buffer,
        layout: &RaggedLayout,
        prefixes: &[PrependedRows<&Buffer>],
    ) -> Result<Buffer> {
        let compute = || {
            let mut parts = Vec::new();
            for (sequence, range) in layout.row_ranges().enumerate() {
                let front = prefixes.iter().find(|front| front.sequences.contains(&sequence));
                parts.extend(front.map(|front| front.rows.as_candle_tensor().clone()));
                parts.push(rows.as_candle_tensor().narrow(0, range.start, range.len())?);
            }
            candle_core::Tensor::cat(&parts, 0)
        };
        into_buffer("putting rows in front", compute())
    }

    fn prepend_rows_backward(
        &self,
        gradient: &Buffer,
        layout: &RaggedLayout,
        prefix_rows: usize,
    ) -> Result<[Buffer; 2]> {
        let prefixed_layout = layout.with_prefix(vec![prefix_rows; layout.num_sequences()]);
        let part = |rows: Range<usize>| gradient.as_candle_tensor().narrow(0, rows.start, rows.len());
        let real: CandleResult<Vec<_>> =
            (0..prefixed_layout.num_sequences()).map(|sequence| part(prefixed_layout.real_rows(sequence))).collect();
        let front = |range: Range<usize>| part(range.start..range.start + prefix_rows);
        let real = real.and_then(|parts| candle_core::Tensor::cat(&parts, 0));
        Ok([
            into_buffer("taking rows apart", real)?,
            into_buffer("adding up fronts", sum_tensors(prefixed_layout.row_ranges().map(front)))?,
        ])
    }

    fn gather_rows(&self, rows: &Buffer, indices: &[u32]) -> Result<Buffer> {
        let index = candle_core::Tensor::from_slice(indices, indices.len(), rows.as_candle_tensor().device());
        into_buffer("picking rows", index.and_then(|index| rows.as_candle_tensor().index_select(&index, 0)))
    }

    fn gather_rows_backward(&self, gradient: &Buffer, indices: &[u32], row_count: usize) -> Result<Buffer> {
        let compute = || {
            let gradient = gradient.as_candle_tensor();
            let index = candle_core::Tensor::from_slice(indices, indices.len(), gradient.device())?;
            gradient.zeros_like()?.narrow(0, 0, 1)?.repeat((row_count, 1))?.index_add(&index, gradient, 0)
        };
        into_buffer("picking rows, backward", compute())
    }

    fn weight_row_squared_norms(&self, linear: &FrozenLinear) -> Result<Tensor> {
        let squares = || linear.weight.as_candle_tensor().to_dtype(DType::F32)?.sqr()?.sum(1);
        self.download(&into_buffer("the lengths of a weight's rows", squares())?)
    }
}
