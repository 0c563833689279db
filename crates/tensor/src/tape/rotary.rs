//! Rotary embeddings, masked attention, channel slices and gated linear units.

use super::op::{MaskArgs, Op};
use super::{Tape, Var};
use crate::RaggedLayout;
use crate::attention_mask::AttentionMask;
use crate::backend::{Activation, Direction, RotaryTable};
use crate::error::Result;
use std::ops::Range;
use std::sync::Arc;

impl Tape {
    /// Rotates every head by its row's position. Consumes the input.
    pub fn apply_rotary(
        &mut self,
        input: Var,
        heads: usize,
        rotary: &Arc<RotaryTable>,
        positions: Arc<[u32]>,
    ) -> Result<Var> {
        let base = self.consume(input);
        let rows = self.backend.apply_rotary(base, heads, rotary, &positions, Direction::Forward)?;
        let rotation = Arc::clone(rotary);
        Ok(self.push_op(rows, &[input], |output| Op::ApplyRotary { input, output, heads, rotary: rotation, positions }))
    }

    /// Attention under a mask; `unprefixed_key_layout` is the key layout without prefixes.
    pub fn masked_attention(
        &mut self,
        [query, key, value]: [Var; 3],
        heads: usize,
        mask: &Arc<AttentionMask>,
        unprefixed_key_layout: Arc<RaggedLayout>,
    ) -> Result<Var> {
        self.push_attention(
            [query, key, value],
            heads,
            Some(MaskArgs { mask: Arc::clone(mask), unprefixed_key_layout }),
        )
    }

    /// Elementwise product.
    pub fn mul(&mut self, left: Var, right: Var) -> Result<Var> {
        let [l, r] = [self.buffer(left)?, self.buffer(right)?];
        let rows = self.backend.mul(&l, &r)?;
        Ok(self.push_op(rows, &[left, right], |output| Op::Mul { factors: [left, right], output, values: [l, r] }))
    }

    /// The same values in rows of another width, for example one head per row. The layout stays that of the sequences'
    /// rows.
    pub fn reshape(&mut self, input: Var, width: usize) -> Result<Var> {
        let all = self.buffer(input)?;
        let (rows, width) = (self.backend.reshape(&all, width)?, all.width());
        Ok(self.push_op(rows, &[input], |output| Op::Reshape { input, output, width }))
    }

    /// The given channels of every row.
    pub fn slice_channels(&mut self, input: Var, channels: Range<usize>) -> Result<Var> {
        let all = self.buffer(input)?;
        let (rows, width) = (self.backend.slice_channels(&all, channels.clone())?, all.width());
        Ok(self.push_op(rows, &[input], |output| Op::SliceChannels { input, output, channels, width }))
    }

    /// f(a)·g from rows that hold a, then g.
    pub fn glu(&mut self, activation: Activation, input: Var) -> Result<Var> {
        let (rows, factors) = self.backend.glu(activation, &self.buffer(input)?, self.save_mode(&[input]))?;
        Ok(self.push_saved_op(rows, &[input], factors, |factors, output| Op::Glu { input, output, factors }))
    }
}
