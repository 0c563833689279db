//! Attention in a layer, with what an adapter puts in front of its keys, and what the architecture makes of positions there.

use super::Hooks;
use super::adapted;
use crate::compute::distance::Distance;
use crate::compute::rotary::Rotation;
use crate::compute::{Packed, Rows, Tape};
use crate::error::Result;
use std::sync::Arc;

/// How a layer attends.
pub struct Attention {
    pub heads: usize,
    /// Queries and keys are turned by their positions.
    pub rotation: Option<Arc<Rotation>>,
    pub distance: Option<Arc<Distance>>,
}

impl Attention {
    /// Of a layer's projections, each `(rows, hidden)`, which are used up; the queries may be of the first rows only.
    pub fn run(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, projected: [Rows; 3]) -> Result<Rows> {
        let [mut query, mut key, value] = projected;
        let own = tape.layout(key);
        let fronts = adapted::fronts(tape, hooks, layer, key)?;
        if let Some(rotation) = &self.rotation {
            let counts = fronts.counts(tape, own.sequences());
            let asking = positions(&tape.layout(query), &counts);
            query = tape.rotate(query, self.heads, rotation, asking)?;
            key = tape.rotate(key, self.heads, rotation, positions(&own, &counts))?;
        }
        let [key, value] = fronts.before(tape, [key, value])?;
        match &self.distance {
            None => tape.attention(query, key, value, self.heads),
            Some(distance) => tape.attention_within([query, key, value], self.heads, distance, own),
        }
    }
}

/// Of each sequence's rows, counted on from what stands in front of them. Keys in front are as stored, at no position.
fn positions(layout: &Packed, fronts: &[usize]) -> Arc<[u32]> {
    let of = |(rows, front): (std::ops::Range<usize>, &usize)| *front as u32..(front + rows.len()) as u32;
    layout.ranges().zip(fronts).flat_map(of).collect()
}
