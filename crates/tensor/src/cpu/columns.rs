//! Scales, shifts, and rows in front of sequences. Passes over rows that lie in a cache: plain loops, which the compiler
//! puts into registers.

use super::lanes::LANES;
use super::machine::{Cpu, draft, host, rows};
use super::memory::{Draft, Matrix};
use super::parameters;
use crate::columns::{Columns, Front};
use crate::error::Result;
use crate::kernels::{Buffer, FrozenLinear, Parameter, Storage};
use crate::{Packed, Tensor};
use std::ops::Range;

/// Changes the rows of a range with another row's numbers, in place where nobody else has them.
fn each_row(
    onto: Buffer,
    range: Range<usize>,
    other: impl Fn(usize) -> Range<usize>,
    from: &Matrix,
    change: impl Fn(&mut f32, f32),
) -> Buffer {
    let width = onto.width();
    assert_eq!(from.width(), width, "both have one width");
    let mut draft = draft(onto);
    let changed = draft.values()[range.start * width..range.end * width].chunks_exact_mut(width);
    for (row, out) in changed.enumerate() {
        let from = &from.values()[other(row)];
        out.iter_mut().zip(from).for_each(|(to, from)| change(to, *from));
    }
    host(draft)
}

impl Columns for Cpu {
    fn parameter_rows(&self, parameter: &Parameter) -> Result<Buffer> {
        Ok(match parameter.forward.host().rows() {
            1 => parameter.forward.clone(),
            _ => rows(parameters::backward(parameter).clone()),
        })
    }

    fn scale_columns(&self, onto: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer> {
        let factors = factors.host();
        Ok(each_row(onto, range, |_| 0..factors.width(), factors, |to, factor| *to *= factor))
    }

    fn add_columns(&self, onto: Buffer, range: Range<usize>, shifts: &Buffer) -> Result<Buffer> {
        let shifts = shifts.host();
        Ok(each_row(onto, range, |_| 0..shifts.width(), shifts, |to, shift| *to += shift))
    }

    fn add_within(&self, onto: Buffer, range: Range<usize>, added: &Buffer, scale: f64) -> Result<Buffer> {
        let (added, scale) = (added.host(), scale as f32);
        assert_eq!(added.rows(), range.len(), "what is added has the rows of the range");
        let row = |row: usize| row * added.width()..(row + 1) * added.width();
        Ok(each_row(onto, range, row, added, |to, value| *to += value * scale))
    }

    fn sum_rows(&self, all: &Buffer) -> Result<Buffer> {
        let all = all.host();
        let mut sum = Draft::zeros(1, all.width());
        for row in all.values().chunks_exact(all.width()) {
            sum.values().iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        Ok(host(sum))
    }

    fn sum_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        let (left, right) = (left.host(), right.host());
        assert_eq!((left.rows(), left.width()), (right.rows(), right.width()), "both sides have one shape");
        let mut sum = Draft::zeros(1, left.width());
        for (left, right) in left.values().chunks_exact(left.width()).zip(right.values().chunks_exact(left.width())) {
            let pairs = left.iter().zip(right);
            sum.values().iter_mut().zip(pairs).for_each(|(sum, (left, right))| *sum += left * right);
        }
        Ok(host(sum))
    }

    fn prepend(&self, all: &Buffer, layout: &Packed, fronts: &[Front<&Buffer>]) -> Result<Buffer> {
        let all = all.host();
        let width = all.width();
        let front = |sequence: usize| fronts.iter().find(|front| front.sequences.contains(&sequence));
        let added: usize = fronts.iter().map(|front| front.sequences.len() * front.rows.host().rows()).sum();
        let mut draft = Draft::new(all.rows() + added, width);
        let mut rest = draft.values();
        let mut write = |values: &[f32]| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(values.len());
            own.copy_from_slice(values);
            rest = after;
        };
        for (sequence, range) in layout.ranges().enumerate() {
            if let Some(front) = front(sequence) {
                write(front.rows.host().values());
            }
            write(&all.values()[range.start * width..range.end * width]);
        }
        Ok(host(draft))
    }

    fn prepend_backward(&self, gradient: &Buffer, layout: &Packed, count: usize) -> Result<[Buffer; 2]> {
        let gradient = gradient.host();
        let width = gradient.width();
        let (mut own, mut front) = (Draft::new(layout.rows(), width), Draft::zeros(count, width));
        for (sequence, range) in layout.ranges().enumerate() {
            let start = (range.start + sequence * count) * width;
            let (before, after) = gradient.values()[start..][..(count + range.len()) * width].split_at(count * width);
            front.values().iter_mut().zip(before).for_each(|(sum, value)| *sum += value);
            own.values()[range.start * width..range.end * width].copy_from_slice(after);
        }
        Ok([host(own), host(front)])
    }

    fn pick(&self, all: &Buffer, which: &[u32]) -> Result<Buffer> {
        let all = all.host();
        let width = all.width();
        let mut draft = Draft::new(which.len(), width);
        for (out, row) in draft.values().chunks_exact_mut(width).zip(which) {
            out.copy_from_slice(&all.values()[*row as usize * width..][..width]);
        }
        Ok(host(draft))
    }

    fn pick_backward(&self, gradient: &Buffer, which: &[u32], count: usize) -> Result<Buffer> {
        let gradient = gradient.host();
        let width = gradient.width();
        let mut draft = Draft::zeros(count, width);
        for (from, row) in gradient.values().chunks_exact(width).zip(which) {
            let sum = &mut draft.values()[*row as usize * width..][..width];
            sum.iter_mut().zip(from).for_each(|(sum, value)| *sum += value);
        }
        Ok(host(draft))
    }

    /// A weight's row is a lane of its panel.
    fn squared_rows(&self, map: &FrozenLinear) -> Result<Tensor> {
        if let Storage::Reduced(weight) = &map.weight.0 {
            let mut own = vec![0.0; map.input];
            let square = |row: usize| {
                weight.row(row, &mut own);
                own.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32
            };
            return Ok(Tensor::new([map.output], (0..map.output).map(square).collect()));
        }
        let panels = map.weight.host().values();
        let square = |row: usize| {
            let first = (row / LANES) * map.input * LANES + row % LANES;
            let row = panels[first..].iter().step_by(LANES).take(map.input);
            row.map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32
        };
        Ok(Tensor::new([map.output], (0..map.output).map(square).collect()))
    }
}
