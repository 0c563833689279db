//! Rotary positions, attention to what is remembered, weights as they are held, parts of rows, and gated activations.

use super::CandleBackend;
use super::ops::into_buffer;
use crate::backend::{Activation, Backend, Buffer, FrozenEmbedding, FrozenLinear, SaveForBackward};
use crate::decode_attention::{self, DecodeAttentionInput, DecodeAttentionOps};
use crate::error::Result;
use crate::glu::GluOps;
use crate::rotary::{Direction, RotaryOps, RotaryTable};
use crate::stored_weight::StoredWeight;
use crate::weight_ops::WeightOps;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

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
            let (count, width) = rows.as_candle_tensor().dims2()?;
            let half_head_dim = width / heads / 2;
            let ids = Tensor::from_slice(positions, positions.len(), &self.device)?;
            let look_up = |table: &Buffer| table.as_candle_tensor().index_select(&ids, 0)?.unsqueeze(1);
            let (cosines, sines) = (look_up(&rotary.cosines)?, look_up(&rotary.sines)?);
            let sines = if direction == Direction::Inverse { sines.neg()? } else { sines };
            let split = rows.as_candle_tensor().reshape((count, heads, 2 * half_head_dim))?;
            let (x, y) = (split.narrow(2, 0, half_head_dim)?, split.narrow(2, half_head_dim, half_head_dim)?);
            let rotated_x = (x.broadcast_mul(&cosines)? - y.broadcast_mul(&sines)?)?;
            let rotated_y = (y.broadcast_mul(&cosines)? + x.broadcast_mul(&sines)?)?;
            Tensor::cat(&[rotated_x, rotated_y], 2)?.reshape((count, width))
        };
        into_buffer("rotary positions", compute())
    }
}

impl DecodeAttentionOps for CandleBackend {
    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer> {
        decode_attention::decode_attention_gathered(self, input)
    }
}

impl WeightOps for CandleBackend {
    fn load_linear(&self, weight: StoredWeight, bias: Option<crate::Tensor>) -> Result<FrozenLinear> {
        self.freeze_linear(weight.into_dequantized(), bias)
    }

    fn load_embedding(&self, rows: StoredWeight) -> Result<FrozenEmbedding> {
        self.freeze_embedding(rows.into_dequantized())
    }

    fn with_int8_activations(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    fn tie_embeddings(&self, _table: &FrozenEmbedding, _bias: Option<crate::Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(None)
    }
}

impl GluOps for CandleBackend {
    fn glu(&self, activation: Activation, input: &Buffer, save: SaveForBackward) -> Result<(Buffer, Option<Buffer>)> {
        let width = input.width() / 2;
        let [a, gate] = [0..width, width..2 * width].map(|columns| self.slice_channels(input, columns));
        let gate = gate?;
        let (value, derivative) = self.activate(activation, &a?, save)?;
        let output = self.mul(&value, &gate)?;
        let factors = derivative.map(|derivative| {
            let value_gradient_factor = self.mul(&derivative, &gate)?;
            into_buffer(
                "a gate's derivative",
                Tensor::cat(&[value_gradient_factor.as_candle_tensor(), value.as_candle_tensor()], 1),
            )
        });
        Ok((output, factors.transpose()?))
    }

    fn glu_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer> {
        let doubled = Tensor::cat(&[gradient.as_candle_tensor(), gradient.as_candle_tensor()], 1);
        into_buffer("a gate's backward pass", doubled.and_then(|twice| twice * factors.as_candle_tensor()))
    }

    fn slice_channels(&self, rows: &Buffer, columns: Range<usize>) -> Result<Buffer> {
        let sliced = rows.as_candle_tensor().narrow(1, columns.start, columns.len());
        into_buffer("taking columns", sliced.and_then(|part| part.contiguous()))
    }

    fn scatter_channels(&self, rows: &Buffer, columns: Range<usize>, width: usize) -> Result<Buffer> {
        into_buffer("spreading columns", rows.as_candle_tensor().pad_with_zeros(1, columns.start, width - columns.end))
    }
}
