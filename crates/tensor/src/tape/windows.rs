//! Parts of a batch: what serving needs to let several adapters answer, each for its own sequences.

use super::{Param, Rows, Tape, Value, Window};
use crate::error::Result;
use crate::kernels::LowRank;
use crate::{Buffer, Packed, Parameter};
use std::ops::Range;
use std::sync::Arc;

/// A low-rank update of a window that waits for those of others, to be computed with them.
pub struct Update {
    /// Of the owner's rows.
    pub range: Range<usize>,
    pub input: Buffer,
    pub parameters: Arc<[Parameter]>,
    /// A and B.
    pub params: [Param; 2],
    pub scale: f64,
}

/// Those of one value.
#[derive(Default)]
pub struct Gathered {
    pub of: Option<Rows>,
    updates: Vec<Update>,
}

/// The layout of some sequences of another by themselves: the same ones are asked for at every site.
pub struct Slice {
    of: Arc<Packed>,
    sequences: Range<usize>,
    layout: Arc<Packed>,
}

impl Update {
    fn low_rank(&self) -> (Range<usize>, LowRank<'_>) {
        let [a, b] = self.params.map(|param| &self.parameters[param.index()]);
        (self.range.clone(), LowRank { input: &self.input, a, b, scale: self.scale })
    }
}

impl Tape {
    /// Puts another adapter's parameters in the place of the present ones; answers the old.
    pub fn exchange_parameters(&mut self, parameters: Arc<[Parameter]>) -> Arc<[Parameter]> {
        std::mem::replace(&mut self.parameters, parameters)
    }

    /// The rows of a range of sequences, to be read. Only while serving: nobody trains on a part of a batch.
    pub fn narrow(&mut self, input: Rows, sequences: Range<usize>) -> Result<Rows> {
        assert!(!self.is_tracked(&[input]), "a part of a batch is only taken while serving");
        let layout = self.layout(input);
        let rows = self.kernels.narrow(&self.buffer(input)?, layout.rows_of(&sequences))?;
        let layout = self.slice(layout, sequences);
        Ok(self.push(rows, layout, false))
    }

    /// The same, to be added to: what is added to a window is added to the rows of `of`.
    pub fn window(&mut self, of: Rows, sequences: Range<usize>) -> Rows {
        assert!(!self.is_tracked(&[of]), "a part of a batch is only changed while serving");
        let layout = self.layout(of);
        let window = Window { of, rows: layout.rows_of(&sequences) };
        let layout = self.slice(layout, sequences);
        self.values.push(Value { buffer: None, layout, tracked: false, window: Some(window) });
        Rows(self.values.len() - 1)
    }

    fn slice(&mut self, of: Arc<Packed>, sequences: Range<usize>) -> Arc<Packed> {
        let is_it = |slice: &&Slice| Arc::ptr_eq(&slice.of, &of) && slice.sequences == sequences;
        if let Some(known) = self.slices.iter().find(is_it) {
            return Arc::clone(&known.layout);
        }
        let layout = Arc::new(of.slice(&sequences));
        self.slices.push(Slice { of, sequences, layout: Arc::clone(&layout) });
        layout
    }

    /// Puts off an update of a window until the last of the value's is known: [`Tape::settle`].
    pub(super) fn gather(&mut self, owner: Rows, update: Update) -> Result<()> {
        if self.gathered.of != Some(owner) {
            self.settle()?;
        }
        self.gathered.of = Some(owner);
        self.gathered.updates.push(update);
        Ok(())
    }

    /// Computes the updates of windows that were put off. Whoever changes the value calls it first; it may not be read before.
    pub fn settle(&mut self) -> Result<()> {
        let Gathered { of: Some(owner), mut updates } = std::mem::take(&mut self.gathered) else { return Ok(()) };
        let rows = self.take(owner);
        let low_ranks: Vec<_> = updates.iter().map(Update::low_rank).collect();
        let rows = self.kernels.add_low_ranks(rows, &low_ranks)?;
        // The room is for the next site's.
        updates.clear();
        self.gathered.updates = updates;
        self.values[owner.0].buffer = Some(rows);
        Ok(())
    }

    /// Whose rows these are, and which.
    pub(super) fn place(&self, rows: Rows) -> (Rows, Range<usize>) {
        let value = &self.values[rows.0];
        match &value.window {
            Some(window) => (window.of, window.rows.clone()),
            None => (rows, 0..value.layout.rows()),
        }
    }
}
