//! Rotary positions, attention to what is remembered, weights as they are held, parts of rows, and gated activations.

use super::Candle;
use super::kernels::done;
use crate::error::Result;
use crate::gated::Gated;
use crate::held::Hold;
use crate::kernels::{Activation, Buffer, FrozenLinear, FrozenTable, Keep, Kernels};
use crate::raw::Raw;
use crate::recall::{self, Next, Recall};
use crate::rotary::{Rotary, Rotation, Way};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

impl Rotary for Candle {
    fn rotate(&self, rows: Buffer, heads: usize, by: &Rotation, positions: &[u32], way: Way) -> Result<Buffer> {
        let compute = || {
            let (count, width) = rows.tensor().dims2()?;
            let half = width / heads / 2;
            let ids = Tensor::from_slice(positions, positions.len(), &self.device)?;
            let of = |table: &Buffer| table.tensor().index_select(&ids, 0)?.unsqueeze(1);
            let (cosines, sines) = (of(&by.cosines)?, of(&by.sines)?);
            let sines = if way == Way::Back { sines.neg()? } else { sines };
            let split = rows.tensor().reshape((count, heads, 2 * half))?;
            let (x, y) = (split.narrow(2, 0, half)?, split.narrow(2, half, half)?);
            let first = (x.broadcast_mul(&cosines)? - y.broadcast_mul(&sines)?)?;
            let second = (y.broadcast_mul(&cosines)? + x.broadcast_mul(&sines)?)?;
            Tensor::cat(&[first, second], 2)?.reshape((count, width))
        };
        done("rotary positions", compute())
    }
}

impl Recall for Candle {
    fn recall(&self, next: Next) -> Result<Buffer> {
        recall::gathered(self, next)
    }
}

impl Hold for Candle {
    fn hold_linear(&self, weight: Raw, bias: Option<crate::Tensor>) -> Result<FrozenLinear> {
        self.freeze_linear(weight.tensor(), bias)
    }

    fn hold_table(&self, rows: Raw) -> Result<FrozenTable> {
        self.freeze_table(rows.tensor())
    }

    fn rounding(&self) -> Option<Arc<dyn Kernels>> {
        None
    }

    fn tie(&self, _table: &FrozenTable, _bias: Option<crate::Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(None)
    }
}

impl Gated for Candle {
    fn gated(&self, activation: Activation, input: &Buffer, keep: Keep) -> Result<(Buffer, Option<Buffer>)> {
        let width = input.width() / 2;
        let [a, gate] = [0..width, width..2 * width].map(|columns| self.take_columns(input, columns));
        let gate = gate?;
        let (value, derivative) = self.activate(activation, &a?, keep)?;
        let output = self.multiply(&value, &gate)?;
        let factors = derivative.map(|derivative| {
            let by_a = self.multiply(&derivative, &gate)?;
            done("a gate's derivative", Tensor::cat(&[by_a.tensor(), value.tensor()], 1))
        });
        Ok((output, factors.transpose()?))
    }

    fn gated_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer> {
        let twice = Tensor::cat(&[gradient.tensor(), gradient.tensor()], 1);
        done("a gate's backward pass", twice.and_then(|twice| twice * factors.tensor()))
    }

    fn take_columns(&self, rows: &Buffer, columns: Range<usize>) -> Result<Buffer> {
        let part = rows.tensor().narrow(1, columns.start, columns.len());
        done("taking columns", part.and_then(|part| part.contiguous()))
    }

    fn spread_columns(&self, rows: &Buffer, columns: Range<usize>, width: usize) -> Result<Buffer> {
        done("spreading columns", rows.tensor().pad_with_zeros(1, columns.start, width - columns.end))
    }
}
