//! Scales, shifts, and rows in front of sequences.

use super::Candle;
use super::kernels::{Computed, done, sum};
use crate::columns::{Columns, Front};
use crate::error::Result;
use crate::kernels::{Buffer, FrozenLinear, Kernels, Parameter};
use crate::{Packed, Tensor};
use candle_core::DType;
use std::ops::Range;

/// `onto` with the rows of the range replaced by what `change` makes of them.
fn within(onto: &Buffer, range: Range<usize>, change: impl FnOnce(candle_core::Tensor) -> Computed) -> Computed {
    let (all, count) = (onto.tensor(), onto.tensor().dim(0)?);
    let changed = change(all.narrow(0, range.start, range.len())?)?;
    let (above, below) = (all.narrow(0, 0, range.start)?, all.narrow(0, range.end, count - range.end)?);
    candle_core::Tensor::cat(&[above, changed, below], 0)
}

impl Columns for Candle {
    fn parameter_rows(&self, parameter: &Parameter) -> Result<Buffer> {
        let tensor = parameter.forward.tensor();
        match tensor.rank() {
            1 => done("a parameter's rows", tensor.unsqueeze(0)),
            _ => Ok(parameter.forward.clone()),
        }
    }

    fn scale_columns(&self, onto: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer> {
        done("scaling columns", within(&onto, range, |rows| rows.broadcast_mul(factors.tensor())))
    }

    fn add_columns(&self, onto: Buffer, range: Range<usize>, shifts: &Buffer) -> Result<Buffer> {
        done("adding to columns", within(&onto, range, |rows| rows.broadcast_add(shifts.tensor())))
    }

    fn add_within(&self, onto: Buffer, range: Range<usize>, added: &Buffer, scale: f64) -> Result<Buffer> {
        done("adding rows", within(&onto, range, |rows| rows + (added.tensor() * scale)?))
    }

    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer> {
        done("adding up rows", rows.tensor().sum_keepdim(0))
    }

    fn sum_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        done("adding up rows", (left.tensor() * right.tensor()).and_then(|products| products.sum_keepdim(0)))
    }

    fn prepend(&self, rows: &Buffer, layout: &Packed, fronts: &[Front<&Buffer>]) -> Result<Buffer> {
        let compute = || {
            let mut parts = Vec::new();
            for (sequence, range) in layout.ranges().enumerate() {
                let front = fronts.iter().find(|front| front.sequences.contains(&sequence));
                parts.extend(front.map(|front| front.rows.tensor().clone()));
                parts.push(rows.tensor().narrow(0, range.start, range.len())?);
            }
            candle_core::Tensor::cat(&parts, 0)
        };
        done("putting rows in front", compute())
    }

    fn prepend_backward(&self, gradient: &Buffer, layout: &Packed, count: usize) -> Result<[Buffer; 2]> {
        let all = layout.behind(vec![count; layout.sequences()]);
        let part = |rows: Range<usize>| gradient.tensor().narrow(0, rows.start, rows.len());
        let real: Computed<Vec<_>> = (0..all.sequences()).map(|sequence| part(all.real(sequence))).collect();
        let front = |range: Range<usize>| part(range.start..range.start + count);
        let real = real.and_then(|parts| candle_core::Tensor::cat(&parts, 0));
        Ok([done("taking rows apart", real)?, done("adding up fronts", sum(all.ranges().map(front)))?])
    }

    fn pick(&self, rows: &Buffer, which: &[u32]) -> Result<Buffer> {
        let index = candle_core::Tensor::from_slice(which, which.len(), rows.tensor().device());
        done("picking rows", index.and_then(|index| rows.tensor().index_select(&index, 0)))
    }

    fn pick_backward(&self, gradient: &Buffer, which: &[u32], count: usize) -> Result<Buffer> {
        let compute = || {
            let gradient = gradient.tensor();
            let index = candle_core::Tensor::from_slice(which, which.len(), gradient.device())?;
            gradient.zeros_like()?.narrow(0, 0, 1)?.repeat((count, 1))?.index_add(&index, gradient, 0)
        };
        done("picking rows, backward", compute())
    }

    fn squared_rows(&self, map: &FrozenLinear) -> Result<Tensor> {
        let squares = || map.weight.tensor().to_dtype(DType::F32)?.sqr()?.sum(1);
        self.download(&done("the lengths of a weight's rows", squares())?)
    }
}
