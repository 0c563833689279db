//! Rotary embeddings and gated linear units.

use super::{CandleBackend, CandleTensor, into_buffer};
use crate::backend::{Activation, Backend, Buffer, Direction, GluOps, RotaryOps, RotaryTable, SaveForBackward};
use crate::error::Result;
use std::ops::Range;

impl RotaryOps for CandleBackend {
    fn apply_rotary(
        &self,
        rows: Buffer,
        heads: usize,
        rotary: &RotaryTable,
        positions: &[u32],
        direction: Direction,
    ) -> Result<Buffer> {
        let compute = || {
            let (count, width) = rows.as_tensor().dims2()?;
            let ids = CandleTensor::from_slice(positions, positions.len(), &self.device)?;
            let look_up = |table: &Buffer| table.as_tensor().index_select(&ids, 0);
            let (cosines, sines) = (look_up(&rotary.cosines)?, look_up(&rotary.sines)?);
            let sines = if direction == Direction::Inverse { sines.neg()? } else { sines };
            let split = rows.as_tensor().contiguous()?.reshape((1, count, heads, width / heads))?;
            candle_nn::rotary_emb::rope_thd(&split, &cosines, &sines)?.reshape((count, width))
        };
        into_buffer("rotary embeddings", compute())
    }
}

impl GluOps for CandleBackend {
    fn glu(&self, activation: Activation, input: &Buffer, save: SaveForBackward) -> Result<(Buffer, Option<Buffer>)> {
        let width = input.width() / 2;
        let [activated_input, gate] = [0..width, width..2 * width].map(|channels| self.slice_channels(input, channels));
        let gate = gate?;
        let (value, derivative) = self.activate(activation, &activated_input?, save)?;
        let output = self.mul(&value, &gate)?;
        let factors = derivative.map(|derivative| {
            let input_factor = self.mul(&derivative, &gate)?;
            let factors = CandleTensor::cat(&[input_factor.as_tensor(), value.as_tensor()], 1);
            into_buffer("the factors of a gated linear unit", factors)
        });
        Ok((output, factors.transpose()?))
    }

    fn glu_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer> {
        let doubled = CandleTensor::cat(&[gradient.as_tensor(), gradient.as_tensor()], 1);
        into_buffer("a gated linear unit's backward pass", doubled.and_then(|gradient| gradient * factors.as_tensor()))
    }

    fn slice_channels(&self, rows: &Buffer, channels: Range<usize>) -> Result<Buffer> {
        let sliced = rows.as_tensor().narrow(1, channels.start, channels.len());
        into_buffer("slicing channels", sliced.and_then(|slice| slice.contiguous()))
    }

    fn scatter_channels(&self, rows: &Buffer, channels: Range<usize>, width: usize) -> Result<Buffer> {
        let padded = rows.as_tensor().pad_with_zeros(1, channels.start, width - channels.end);
        into_buffer("scattering channels", padded)
    }
}
