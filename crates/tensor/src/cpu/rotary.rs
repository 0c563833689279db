//! Rotary positions, parts of rows, and gated activations. Passes over rows that lie in a cache: plain loops, which the
//! compiler puts into registers.

use super::machine::{Cpu, draft, host};
use super::memory::Draft;
use crate::error::Result;
use crate::gated::Gated;
use crate::kernels::{Activation, Buffer, Keep, Kernels};
use crate::rotary::{Rotary, Rotation, Way};
use std::ops::Range;

impl Rotary for Cpu {
    fn rotate(&self, rows: Buffer, heads: usize, by: &Rotation, positions: &[u32], way: Way) -> Result<Buffer> {
        let (count, width) = (rows.rows(), rows.width());
        assert_eq!(count, positions.len(), "every row has its position");
        let (head, half) = (width / heads, width / heads / 2);
        let sign = if way == Way::Back { -1.0 } else { 1.0 };
        let mut draft = draft(rows);
        for (row, position) in draft.values().chunks_exact_mut(width).zip(positions) {
            let [cosines, sines] = [&by.cosines, &by.sines].map(|table| table.host().row(*position as usize));
            for head in row.chunks_exact_mut(head) {
                let (first, second) = head.split_at_mut(half);
                let angles = cosines.iter().zip(sines);
                for ((x, y), (cosine, sine)) in first.iter_mut().zip(second).zip(angles) {
                    let sine = sine * sign;
                    (*x, *y) = (*x * cosine - *y * sine, *y * cosine + *x * sine);
                }
            }
        }
        Ok(host(draft))
    }
}

impl Gated for Cpu {
    fn gated(&self, activation: Activation, input: &Buffer, keep: Keep) -> Result<(Buffer, Option<Buffer>)> {
        let width = input.width() / 2;
        let [a, gate] = [0..width, width..2 * width].map(|columns| self.take_columns(input, columns));
        let gate = gate?;
        let (value, derivative) = self.activate(activation, &a?, keep)?;
        let output = self.multiply(&value, &gate)?;
        let factors = derivative.map(|derivative| {
            let by_a = self.multiply(&derivative, &gate)?;
            let mut draft = Draft::new(input.rows(), 2 * width);
            let halves = by_a.host().values().chunks_exact(width).zip(value.host().values().chunks_exact(width));
            for (to, (by_a, by_gate)) in draft.values().chunks_exact_mut(2 * width).zip(halves) {
                to[..width].copy_from_slice(by_a);
                to[width..].copy_from_slice(by_gate);
            }
            Ok::<_, crate::error::Error>(host(draft))
        });
        Ok((output, factors.transpose()?))
    }

    fn gated_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer> {
        let (gradient, factors) = (gradient.host(), factors.host());
        let width = gradient.width();
        let mut draft = Draft::new(factors.rows(), factors.width());
        let rows = factors.values().chunks_exact(2 * width).zip(gradient.values().chunks_exact(width));
        for (to, (factors, gradient)) in draft.values().chunks_exact_mut(2 * width).zip(rows) {
            for (to, factors) in to.chunks_exact_mut(width).zip(factors.chunks_exact(width)) {
                let products = factors.iter().zip(gradient).map(|(factor, gradient)| factor * gradient);
                to.iter_mut().zip(products).for_each(|(to, product)| *to = product);
            }
        }
        Ok(host(draft))
    }

    fn take_columns(&self, rows: &Buffer, columns: Range<usize>) -> Result<Buffer> {
        let rows = rows.host();
        let mut draft = Draft::new(rows.rows(), columns.len());
        let from = rows.values().chunks_exact(rows.width());
        for (to, from) in draft.values().chunks_exact_mut(columns.len()).zip(from) {
            to.copy_from_slice(&from[columns.clone()]);
        }
        Ok(host(draft))
    }

    fn spread_columns(&self, rows: &Buffer, columns: Range<usize>, width: usize) -> Result<Buffer> {
        let rows = rows.host();
        let mut draft = Draft::zeros(rows.rows(), width);
        let from = rows.values().chunks_exact(columns.len());
        for (to, from) in draft.values().chunks_exact_mut(width).zip(from) {
            to[columns.clone()].copy_from_slice(from);
        }
        Ok(host(draft))
    }
}
