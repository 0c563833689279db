//! Operations of later transformers: rotary positions, attention by distance, fused rows.

use super::node::{Node, Within};
use super::{Rows, Tape};
use crate::Packed;
use crate::distance::Distance;
use crate::error::Result;
use crate::kernels::Activation;
use crate::rotary::{Rotation, Way};
use std::ops::Range;
use std::sync::Arc;

impl Tape {
    /// Every head turned by its row's position. Uses the input up.
    pub fn rotate(
        &mut self,
        input: Rows,
        heads: usize,
        rotation: &Arc<Rotation>,
        positions: Arc<[u32]>,
    ) -> Result<Rows> {
        let base = self.take(input);
        let rows = self.kernels.rotate(base, heads, rotation, &positions, Way::Forward)?;
        let rotation = Arc::clone(rotation);
        Ok(self.derive(rows, &[input], |output| Node::Rotate { input, output, heads, rotation, positions }))
    }

    /// Attention that knows of distances; `own` is the layout of the sequences without keys in front.
    pub fn attention_within(
        &mut self,
        [query, key, value]: [Rows; 3],
        heads: usize,
        distance: &Arc<Distance>,
        own: Arc<Packed>,
    ) -> Result<Rows> {
        self.attend([query, key, value], heads, Some(Within { distance: Arc::clone(distance), own }))
    }

    /// Element by element.
    pub fn multiply(&mut self, left: Rows, right: Rows) -> Result<Rows> {
        let [l, r] = [self.buffer(left)?, self.buffer(right)?];
        let rows = self.kernels.multiply(&l, &r)?;
        Ok(self.derive(rows, &[left, right], |output| Node::Product { factors: [left, right], output, values: [l, r] }))
    }

    /// The same numbers in rows of another width: the heads of a row by themselves, or rows of heads again. The layout stays
    /// that of the sequences' rows.
    pub fn fold(&mut self, input: Rows, width: usize) -> Result<Rows> {
        let all = self.buffer(input)?;
        let (rows, width) = (self.kernels.fold(&all, width)?, all.width());
        Ok(self.derive(rows, &[input], |output| Node::Fold { input, output, width }))
    }

    /// Some columns of every row.
    pub fn columns(&mut self, input: Rows, columns: Range<usize>) -> Result<Rows> {
        let all = self.buffer(input)?;
        let (rows, width) = (self.kernels.take_columns(&all, columns.clone())?, all.width());
        Ok(self.derive(rows, &[input], |output| Node::Columns { input, output, columns, width }))
    }

    /// f(a)·g of rows that hold a, then g.
    pub fn gated(&mut self, activation: Activation, input: Rows) -> Result<Rows> {
        let (rows, factors) = self.kernels.gated(activation, &self.buffer(input)?, self.keep(&[input]))?;
        Ok(self.derive_kept(rows, &[input], factors, |factors, output| Node::Gated { input, output, factors }))
    }
}
