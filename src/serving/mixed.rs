//! One packed forward over inputs of several adapters, and of the bare base.
//!
//! Sequences are grouped by adapter: each owns a contiguous range of them and answers for it alone, while the base's
//! large matrix products run once over all. Knows nothing of requests or queues.

use espalier_core::artifact::Adapted;
use espalier_core::error::Result;
use espalier_core::model::hooks::{self, Prefix, Sublayer};
use espalier_core::model::{Base, Batch, Hooks, Lowest, Site, Tokens, Virtual, Wanted};
use espalier_core::task::Reading;
use espalier_core::task::embedding::normalize;
use espalier_tensor::columns::Front;
use espalier_tensor::{Recording, Rows, Tape};
use std::ops::Range;
use std::sync::Arc;

/// The inputs of one adapter in a batch, at least one; `None` is the bare base.
pub struct Group {
    pub adapted: Option<Arc<Adapted>>,
    pub inputs: Vec<Tokens>,
}

/// What each input is answered from, group by group in their order: logits, or a row of length 1.
pub fn forward(base: &Base, groups: &[Group]) -> Result<Vec<Vec<f32>>> {
    let orders: Vec<Vec<usize>> = groups.iter().map(by_length).collect();
    let tokens = groups.iter().zip(&orders).flat_map(|(group, order)| {
        let front = group.adapted.as_ref().map_or(Virtual::Nothing, |adapted| adapted.hooks.virtual_tokens());
        order.iter().map(move |index| (&group.inputs[*index], front))
    });
    let mixed = Mixed::of(groups.iter().map(|group| (group.adapted.as_deref(), group.inputs.len())));
    let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
    let hidden = base.encode(&mut tape, &Batch::mixed(tokens), &mixed, wanted(base, groups))?;
    let mut answers = Vec::new();
    for ((part, group), order) in mixed.parts.iter().zip(groups).zip(&orders) {
        let rows = tape.narrow(hidden, part.sequences.clone())?;
        let rows = part.answers(base, &mut tape, rows, order.iter().map(|index| &group.inputs[*index]))?;
        let mut places: Vec<(usize, Vec<f32>)> = order.iter().copied().zip(rows).collect();
        places.sort_unstable_by_key(|(index, _)| *index);
        answers.extend(places.into_iter().map(|(_, row)| row));
    }
    Ok(answers)
}

/// The first or the last rows are enough where every group reads nothing else.
fn wanted(base: &Base, groups: &[Group]) -> Wanted {
    let bare = Reading::Pooled(base.info().default_pooling);
    let reading = |group: &Group| group.adapted.as_ref().map_or(bare, |adapted| adapted.reader.reading);
    let mut each = groups.iter().map(|group| reading(group).wanted());
    let first = each.next().unwrap_or(Wanted::All);
    if each.all(|other| other == first) { first } else { Wanted::All }
}

/// Neighbours of like length compute together.
fn by_length(group: &Group) -> Vec<usize> {
    let mut order: Vec<usize> = (0..group.inputs.len()).collect();
    order.sort_by_key(|index| group.inputs[*index].ids.len());
    order
}

/// All adapters of a batch as one.
pub struct Mixed<'a> {
    parts: Vec<Part<'a>>,
}

struct Part<'a> {
    adapted: Option<&'a Adapted>,
    sequences: Range<usize>,
}

impl<'a> Mixed<'a> {
    /// Each with the number of its sequences, in their order; `None` is the bare base.
    pub fn of(groups: impl IntoIterator<Item = (Option<&'a Adapted>, usize)>) -> Self {
        let mut end = 0;
        let part = |(adapted, count): (Option<&'a Adapted>, usize)| {
            let start = end;
            end += count;
            Part { adapted, sequences: start..end }
        };
        Self { parts: groups.into_iter().map(part).collect() }
    }
}

impl Part<'_> {
    /// From the hidden states of its own sequences to its own answers.
    fn answers<'a>(
        &self,
        base: &Base,
        tape: &mut Tape,
        hidden: Rows,
        sequences: impl Iterator<Item = &'a Tokens>,
    ) -> Result<Vec<Vec<f32>>> {
        let Some(adapted) = self.adapted else {
            let pooled = base.pool(tape, hidden, base.info().default_pooling, &())?;
            let rows = tape.read(pooled)?.values;
            let mut rows: Vec<Vec<f32>> = rows.chunks_exact(base.info().hidden_size).map(<[f32]>::to_vec).collect();
            if base.info().normalized_embedding {
                rows.iter_mut().for_each(|row| normalize(row));
            }
            return Ok(rows);
        };
        let before = tape.exchange_parameters(Arc::clone(&adapted.parameters));
        let answers = adapted.reader.answers(base, tape, hidden, adapted.hooks.as_ref(), sequences)?;
        tape.exchange_parameters(before);
        Ok(answers)
    }
}

impl Mixed<'_> {
    fn any(&self, is: impl Fn(&dyn Hooks) -> bool) -> bool {
        self.parts.iter().filter_map(|part| part.adapted).any(|adapted| is(adapted.hooks.as_ref()))
    }

    /// Every adapter that `is` chooses, with its own parameters on the tape.
    fn each(
        &self,
        tape: &mut Tape,
        is: impl Fn(&dyn Hooks) -> bool,
        mut act: impl FnMut(&mut Tape, &dyn Hooks, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        for part in &self.parts {
            let Some(adapted) = part.adapted.filter(|adapted| is(adapted.hooks.as_ref())) else { continue };
            let before = tape.exchange_parameters(Arc::clone(&adapted.parameters));
            act(tape, adapted.hooks.as_ref(), part.sequences.clone())?;
            tape.exchange_parameters(before);
        }
        Ok(())
    }

    /// Lets every chosen adapter change its own rows of `output`.
    fn change(
        &self,
        tape: &mut Tape,
        output: Rows,
        is: impl Fn(&dyn Hooks) -> bool,
        mut act: impl FnMut(&mut Tape, &dyn Hooks, &Range<usize>, Rows) -> Result<Rows>,
    ) -> Result<Rows> {
        self.each(tape, is, |tape, hooks, sequences| {
            let mine = tape.window(output, sequences.clone());
            let changed = act(tape, hooks, &sequences, mine)?;
            assert_eq!(changed, mine, "an adapter changes its rows where they are");
            Ok(())
        })?;
        tape.settle()?;
        Ok(output)
    }
}

impl Hooks for Mixed<'_> {
    fn lowest(&self) -> Lowest {
        let lowest = self.parts.iter().filter_map(|part| part.adapted).map(|adapted| adapted.hooks.lowest());
        lowest.min().unwrap_or(Lowest::Head)
    }

    fn touches(&self, site: Site) -> bool {
        self.any(|hooks| hooks.touches(site))
    }

    fn touches_input(&self, site: Site) -> bool {
        self.any(|hooks| hooks.touches_input(site))
    }

    fn touches_sublayer(&self, layer: usize, part: hooks::Part) -> bool {
        self.any(|hooks| hooks.touches_sublayer(layer, part))
    }

    fn before(&self, tape: &mut Tape, site: Site, input: Rows) -> Result<Rows> {
        let is = |hooks: &dyn Hooks| hooks.touches_input(site);
        self.change(tape, input, is, |tape, hooks, _, mine| hooks.before(tape, site, mine))
    }

    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows> {
        let is = |hooks: &dyn Hooks| hooks.touches(site);
        self.change(tape, output, is, |tape, hooks, sequences, mine| {
            let input = tape.narrow(input, sequences.clone())?;
            hooks.after(tape, site, input, mine)
        })
    }

    fn norm(&self, tape: &mut Tape, site: Site, normalised: Rows, output: Rows) -> Result<Rows> {
        let is = |hooks: &dyn Hooks| hooks.touches(site);
        self.change(tape, output, is, |tape, hooks, sequences, mine| {
            let normalised = tape.narrow(normalised, sequences.clone())?;
            hooks.norm(tape, site, normalised, mine)
        })
    }

    fn sublayer(&self, tape: &mut Tape, at: &Sublayer, output: Rows) -> Result<Rows> {
        let is = |hooks: &dyn Hooks| hooks.touches_sublayer(at.layer, at.part);
        self.change(tape, output, is, |tape, hooks, sequences, mine| {
            let residual = tape.narrow(at.residual, sequences.clone())?;
            hooks.sublayer(tape, &Sublayer { residual, ..*at }, mine)
        })
    }

    fn prompt(&self, tape: &mut Tape, _sequences: Range<usize>) -> Result<Vec<Front<Rows>>> {
        let mut all = Vec::new();
        self.each(
            tape,
            |_| true,
            |tape, hooks, sequences| {
                all.extend(hooks.prompt(tape, sequences)?);
                Ok(())
            },
        )?;
        Ok(all)
    }

    fn prefix(&self, tape: &mut Tape, layer: usize, _sequences: Range<usize>) -> Result<Vec<Prefix>> {
        let mut all = Vec::new();
        self.each(
            tape,
            |_| true,
            |tape, hooks, sequences| {
                all.extend(hooks.prefix(tape, layer, sequences)?);
                Ok(())
            },
        )?;
        Ok(all)
    }
}
