//! Attention in a layer, with what an adapter puts in front of its keys, and what the architecture makes of positions there.

use super::adapted;
use super::hooks::{Hooks, Prefix};
use crate::error::Result;
use espalier_tensor::distance::Distance;
use espalier_tensor::past::Past;
use espalier_tensor::rotary::Rotation;
use espalier_tensor::{Packed, Rows, Tape};
use std::sync::Arc;

/// How a layer attends.
pub struct Attention {
    pub heads: usize,
    /// Queries and keys are turned by their positions.
    pub rotation: Option<Arc<Rotation>>,
    pub distance: Option<Arc<Distance>>,
}

impl Attention {
    /// Of a layer's projections, each `(rows, heads · head width)`, which are used up; the queries may be of some rows only, the
    /// keys and values of fewer heads.
    pub fn run(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, projected: [Rows; 3]) -> Result<Rows> {
        if tape.pasts().is_some() {
            return self.continued(tape, hooks, layer, projected);
        }
        let [mut query, mut key, value] = projected;
        let own = tape.layout(key);
        let fronts = adapted::fronts(tape, hooks, layer, key)?;
        if let Some(rotation) = &self.rotation {
            let counts = fronts.counts(tape, own.sequences());
            let asking = tape.layout(query);
            let first = |sequence: usize| {
                let lengths = (asking.length(sequence), own.length(sequence));
                self.distance.as_ref().map_or(0, |distance| distance.first_asking(lengths.0, lengths.1))
            };
            let asked_from = counts.iter().enumerate().map(|(sequence, front)| front + first(sequence));
            let asking = positions(&asking, asked_from);
            let head_width = tape.width(query) / self.heads;
            let key_heads = tape.width(key) / head_width;
            query = tape.rotate(query, self.heads, rotation, asking)?;
            key = tape.rotate(key, key_heads, rotation, positions(&own, counts))?;
        }
        let [key, value] = fronts.before(tape, [key, value])?;
        match &self.distance {
            None => Ok(tape.attention(query, key, value, self.heads)?),
            Some(distance) => Ok(tape.attention_within([query, key, value], self.heads, distance, own)?),
        }
    }
}

impl Attention {
    /// The same of sequences' next rows, which attend to all that is remembered of theirs.
    fn continued(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, projected: [Rows; 3]) -> Result<Rows> {
        let [mut query, mut key, value] = projected;
        let Some(distance) = &self.distance else { unreachable!("only decoders are continued") };
        let own = tape.layout(key);
        if tape.pasts().is_some_and(|pasts| pasts.iter().any(Past::is_fresh)) {
            for Prefix { key, value } in hooks.prefix(tape, layer, 0..own.sequences())? {
                tape.begin(layer, &key, &value)?;
            }
        }
        if let Some(rotation) = &self.rotation {
            let firsts: Vec<usize> = tape.pasts().unwrap_or_default().iter().map(|past| past.next(layer)).collect();
            let asking = tape.layout(query);
            let last = |sequence: usize| own.length(sequence) - asking.length(sequence);
            let asked_from = firsts.iter().enumerate().map(|(sequence, first)| first + last(sequence));
            let asking = positions(&asking, asked_from);
            let head_width = tape.width(query) / self.heads;
            let key_heads = tape.width(key) / head_width;
            query = tape.rotate(query, self.heads, rotation, asking)?;
            key = tape.rotate(key, key_heads, rotation, positions(&own, firsts))?;
        }
        Ok(tape.recall([query, key, value], self.heads, layer, distance)?)
    }
}

/// Of each sequence's rows, counted on from its first. Keys in front are as stored, at no position.
fn positions(layout: &Packed, firsts: impl IntoIterator<Item = usize>) -> Arc<[u32]> {
    let of = |(rows, first): (std::ops::Range<usize>, usize)| first as u32..(first + rows.len()) as u32;
    layout.ranges().zip(firsts).flat_map(of).collect()
}
