//! Per-channel scale and shift, row insertion and row selection.

use super::{CandleBackend, CandleResult, CandleTensor, into_buffer, sum_tensors, update_rows};
use crate::backend::{Backend, Buffer, ChannelOps, FrozenLinear, Parameter, PrependedRows};
use crate::error::Result;
use crate::{RaggedLayout, Tensor};
use candle_core::DType;
use std::ops::Range;

impl ChannelOps for CandleBackend {
    fn parameter_as_rows(&self, parameter: &Parameter) -> Result<Buffer> {
        let tensor = parameter.as_tensor();
        match tensor.rank() {
            1 => into_buffer("a parameter's rows", tensor.unsqueeze(0)),
            _ => Ok(Buffer::new(tensor.clone())),
        }
    }

    fn scale_channels(&self, target: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer> {
        into_buffer("scaling channels", update_rows(&target, range, |rows| rows.broadcast_mul(factors.as_tensor())))
    }

    fn add_channels(&self, target: Buffer, range: Range<usize>, bias: &Buffer) -> Result<Buffer> {
        into_buffer("adding to channels", update_rows(&target, range, |rows| rows.broadcast_add(bias.as_tensor())))
    }

    fn add_rows_scaled(&self, target: Buffer, range: Range<usize>, added: &Buffer, scale: f64) -> Result<Buffer> {
        into_buffer("adding rows", update_rows(&target, range, |rows| rows + (added.as_tensor() * scale)?))
    }

    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer> {
        into_buffer("summing rows", rows.as_tensor().sum_keepdim(0))
    }

    fn sum_row_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer("summing rows", (left.as_tensor() * right.as_tensor()).and_then(|products| products.sum_keepdim(0)))
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
                let prefix = prefixes.iter().find(|prefix| prefix.sequences.contains(&sequence));
                parts.extend(prefix.map(|prefix| prefix.rows.as_tensor().clone()));
                parts.push(rows.as_tensor().narrow(0, range.start, range.len())?);
            }
            CandleTensor::cat(&parts, 0)
        };
        into_buffer("prepending rows", compute())
    }

    fn prepend_rows_backward(
        &self,
        gradient: &Buffer,
        layout: &RaggedLayout,
        prefix_rows: usize,
    ) -> Result<[Buffer; 2]> {
        let prefixed_layout = layout.with_prefix(vec![prefix_rows; layout.num_sequences()]);
        let part = |rows: Range<usize>| gradient.as_tensor().narrow(0, rows.start, rows.len());
        let own: CandleResult<Vec<_>> =
            (0..prefixed_layout.num_sequences()).map(|sequence| part(prefixed_layout.real_rows(sequence))).collect();
        let prefix = |range: Range<usize>| part(range.start..range.start + prefix_rows);
        let own = own.and_then(|parts| CandleTensor::cat(&parts, 0));
        Ok([
            into_buffer("splitting prepended rows", own)?,
            into_buffer("summing prefix gradients", sum_tensors(prefixed_layout.row_ranges().map(prefix)))?,
        ])
    }

    fn gather_rows(&self, rows: &Buffer, indices: &[u32]) -> Result<Buffer> {
        let index = CandleTensor::from_slice(indices, indices.len(), rows.as_tensor().device());
        into_buffer("gathering rows", index.and_then(|index| rows.as_tensor().index_select(&index, 0)))
    }

    fn gather_rows_backward(&self, gradient: &Buffer, indices: &[u32], row_count: usize) -> Result<Buffer> {
        let compute = || {
            let gradient = gradient.as_tensor();
            let index = CandleTensor::from_slice(indices, indices.len(), gradient.device())?;
            gradient.zeros_like()?.narrow(0, 0, 1)?.repeat((row_count, 1))?.index_add(&index, gradient, 0)
        };
        into_buffer("gathering rows, backward", compute())
    }

    fn weight_row_squared_norms(&self, linear: &FrozenLinear) -> Result<Tensor> {
        let squares = || linear.weight.as_tensor().to_dtype(DType::F32)?.sqr()?.sum(1);
        self.download(&into_buffer("the row norms of a weight", squares())?)
    }
}
