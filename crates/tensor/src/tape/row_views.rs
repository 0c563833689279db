//! Parts of a batch: what serving needs to let several adapters answer, each for its own sequences.

use super::{ParamId, RowView, Tape, Var, VarState};
use crate::backend::LoraArgs;
use crate::error::Result;
use crate::{Buffer, Parameter, RaggedLayout};
use std::ops::Range;
use std::sync::Arc;

/// A low-rank update of a window that waits for those of others, to be computed with them.
pub struct LoraUpdate {
    /// Of the owner's rows.
    pub range: Range<usize>,
    pub input: Buffer,
    pub parameters: Arc<[Parameter]>,
    /// A and B.
    pub lora_params: [ParamId; 2],
    pub scale: f64,
}

/// Those of one value.
#[derive(Default)]
pub struct PendingLoraUpdates {
    pub base: Option<Var>,
    updates: Vec<LoraUpdate>,
}

/// The layout of some sequences of another by themselves: the same ones are asked for at every site.
pub struct LayoutSlice {
    full_layout: Arc<RaggedLayout>,
    sequences: Range<usize>,
    layout: Arc<RaggedLayout>,
}

impl LoraUpdate {
    fn lora_args(&self) -> (Range<usize>, LoraArgs<'_>) {
        let [a, b] = self.lora_params.map(|param| &self.parameters[param.index()]);
        (self.range.clone(), LoraArgs { input: &self.input, a, b, scale: self.scale })
    }
}

impl Tape {
    /// Puts another adapter's parameters in the place of the present ones; answers the old.
    pub fn swap_parameters(&mut self, parameters: Arc<[Parameter]>) -> Arc<[Parameter]> {
        std::mem::replace(&mut self.parameters, parameters)
    }

    /// The rows of a range of sequences, to be read. Only while serving: nobody trains on a part of a batch.
    pub fn slice_sequences(&mut self, input: Var, sequences: Range<usize>) -> Result<Var> {
        assert!(!self.any_requires_grad(&[input]), "a part of a batch is only taken while serving");
        let layout = self.layout(input);
        let rows = self.backend.slice_rows(&self.buffer(input)?, layout.rows_of_sequences(&sequences))?;
        let layout = self.sliced_layout(layout, sequences);
        Ok(self.push_var(rows, layout, false))
    }

    /// The same, to be added to: what is added to a window is added to the rows of `of`.
    pub fn view_sequences(&mut self, base: Var, sequences: Range<usize>) -> Var {
        assert!(!self.any_requires_grad(&[base]), "a part of a batch is only changed while serving");
        let layout = self.layout(base);
        let view = RowView { base, range: layout.rows_of_sequences(&sequences) };
        let layout = self.sliced_layout(layout, sequences);
        self.values.push(VarState { buffer: None, layout, requires_grad: false, view: Some(view) });
        Var(self.values.len() - 1)
    }

    fn sliced_layout(&mut self, full_layout: Arc<RaggedLayout>, sequences: Range<usize>) -> Arc<RaggedLayout> {
        let is_it =
            |slice: &&LayoutSlice| Arc::ptr_eq(&slice.full_layout, &full_layout) && slice.sequences == sequences;
        if let Some(cached) = self.layout_slices.iter().find(is_it) {
            return Arc::clone(&cached.layout);
        }
        let layout = Arc::new(full_layout.slice_sequences(&sequences));
        self.layout_slices.push(LayoutSlice { full_layout, sequences, layout: Arc::clone(&layout) });
        layout
    }

    /// Puts off an update of a window until the last of the value's is known: [`Tape::settle`].
    pub(super) fn defer_lora(&mut self, base_var: Var, update: LoraUpdate) -> Result<()> {
        if self.pending_lora.base != Some(base_var) {
            self.flush_lora()?;
        }
        self.pending_lora.base = Some(base_var);
        self.pending_lora.updates.push(update);
        Ok(())
    }

    /// Computes the updates of windows that were put off. Whoever changes the value calls it first; it may not be read before.
    pub fn flush_lora(&mut self) -> Result<()> {
        let PendingLoraUpdates { base: Some(base_var), mut updates } = std::mem::take(&mut self.pending_lora) else {
            return Ok(());
        };
        let rows = self.consume(base_var);
        let lora_args: Vec<_> = updates.iter().map(LoraUpdate::lora_args).collect();
        let rows = self.backend.lora_add_batched(rows, &lora_args)?;
        // The room is for the next site's.
        updates.clear();
        self.pending_lora.updates = updates;
        self.values[base_var.0].buffer = Some(rows);
        Ok(())
    }

    /// Whose rows these are, and which.
    pub(super) fn resolve_view(&self, var: Var) -> (Var, Range<usize>) {
        let value = &self.values[var.0];
        match &value.view {
            Some(window) => (window.base, window.range.clone()),
            None => (var, 0..value.layout.num_rows()),
        }
    }
}
