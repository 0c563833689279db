//! One packed forward over inputs of several adapters, and of the bare base.
//!
//! Sequences are grouped by adapter: each owns a contiguous range of them and answers for it alone, while the base's
//! large matrix products run once over all. Knows nothing of requests or queues.

use crate::artifact::Adapted;
use crate::compute::{Recording, Rows, Tape};
use crate::error::Result;
use crate::model::{Base, Batch, Hooks, Lowest, Site, Tokens, Wanted};
use std::ops::Range;
use std::sync::Arc;

/// The inputs of one adapter in a batch, at least one; `None` is the bare base.
pub struct Group {
    pub adapted: Option<Arc<Adapted>>,
    pub inputs: Vec<Tokens>,
}

/// One row per input, group by group in their order: logits, or the bare base's embedding.
pub fn forward(base: &Base, groups: &[Group]) -> Result<Vec<Vec<f32>>> {
    let orders: Vec<Vec<usize>> = groups.iter().map(by_length).collect();
    let tokens = groups.iter().zip(&orders).flat_map(|(group, order)| order.iter().map(|index| &group.inputs[*index]));
    let mixed = Mixed::new(groups);
    let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
    let hidden = base.encode(&mut tape, &Batch::new(tokens), &mixed, wanted(base, groups))?;
    let mut answers = Vec::new();
    for (part, order) in mixed.parts.iter().zip(&orders) {
        let rows = tape.narrow(hidden, part.sequences.clone())?;
        let rows = part.answer(base, &mut tape, rows)?;
        let width = rows.len() / order.len();
        let mut place: Vec<(usize, &[f32])> = order.iter().copied().zip(rows.chunks_exact(width)).collect();
        place.sort_unstable_by_key(|(index, _)| *index);
        answers.extend(place.into_iter().map(|(_, row)| row.to_vec()));
    }
    Ok(answers)
}

/// The first rows are enough where every group reads nothing else.
fn wanted(base: &Base, groups: &[Group]) -> Wanted {
    let pooling = |group: &Group| group.adapted.as_ref().map_or(base.info().default_pooling, |adapted| adapted.pooling);
    match groups.iter().all(|group| pooling(group).wanted() == Wanted::First) {
        true => Wanted::First,
        false => Wanted::All,
    }
}

/// Neighbours of like length compute together.
fn by_length(group: &Group) -> Vec<usize> {
    let mut order: Vec<usize> = (0..group.inputs.len()).collect();
    order.sort_by_key(|index| group.inputs[*index].ids.len());
    order
}

/// All adapters of a batch as one.
struct Mixed<'a> {
    parts: Vec<Part<'a>>,
}

struct Part<'a> {
    adapted: Option<&'a Adapted>,
    sequences: Range<usize>,
}

impl<'a> Mixed<'a> {
    fn new(groups: &'a [Group]) -> Self {
        let mut end = 0;
        let part = |group: &'a Group| {
            let start = end;
            end += group.inputs.len();
            Part { adapted: group.adapted.as_deref(), sequences: start..end }
        };
        Self { parts: groups.iter().map(part).collect() }
    }
}

impl Part<'_> {
    fn touches(&self, site: Site) -> bool {
        self.adapted.is_some_and(|adapted| adapted.hooks.touches(site))
    }

    /// From the hidden states of its own sequences to its own answer.
    fn answer(&self, base: &Base, tape: &mut Tape, hidden: Rows) -> Result<Vec<f32>> {
        let Some(adapted) = self.adapted else {
            let pooled = base.pool(tape, hidden, base.info().default_pooling, &())?;
            let mut rows = tape.read(pooled)?.values;
            if base.info().normalized_embedding {
                rows.chunks_exact_mut(base.info().hidden_size).for_each(normalize);
            }
            return Ok(rows);
        };
        let before = tape.exchange_parameters(Arc::clone(&adapted.parameters));
        let pooled = base.pool(tape, hidden, adapted.pooling, adapted.hooks.as_ref())?;
        let logits = adapted.head.logits(tape, pooled)?;
        tape.exchange_parameters(before);
        Ok(tape.read(logits)?.values)
    }
}

impl Hooks for Mixed<'_> {
    fn touches(&self, site: Site) -> bool {
        self.parts.iter().any(|part| part.touches(site))
    }

    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows> {
        for part in &self.parts {
            let Some(adapted) = part.adapted.filter(|_| part.touches(site)) else { continue };
            let input = tape.narrow(input, part.sequences.clone())?;
            let mine = tape.window(output, part.sequences.clone());
            let before = tape.exchange_parameters(Arc::clone(&adapted.parameters));
            let changed = adapted.hooks.after(tape, site, input, mine)?;
            tape.exchange_parameters(before);
            assert_eq!(changed, mine, "an adapter changes its rows where they are");
        }
        Ok(output)
    }

    fn lowest(&self) -> Lowest {
        let lowest = self.parts.iter().filter_map(|part| part.adapted).map(|adapted| adapted.hooks.lowest());
        lowest.min().unwrap_or(Lowest::Head)
    }
}

/// To length 1.
fn normalize(row: &mut [f32]) {
    let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}
