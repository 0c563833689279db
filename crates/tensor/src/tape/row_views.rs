//! Views of sequence ranges, through which serving applies several adapters to one batch.

use super::{ParamId, RowView, Tape, Var, VarState};
use crate::backend::LoraArgs;
use crate::error::Result;
use crate::{Buffer, Parameter, RaggedLayout};
use std::ops::Range;
use std::sync::Arc;

/// Deferred low-rank update of a view.
pub struct LoraUpdate {
    /// Rows of the base value.
    pub range: Range<usize>,
    pub input: Buffer,
    pub parameters: Arc<[Parameter]>,
    /// A and B.
    pub lora_params: [ParamId; 2],
    pub scale: f64,
}

/// Deferred updates of one base value, which one batched operation applies.
#[derive(Default)]
pub struct PendingLoraUpdates {
    pub base: Option<Var>,
    updates: Vec<LoraUpdate>,
}

/// Layout of a range of sequences, cached because every site asks for the same ones.
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
    /// Replaces the parameters, to apply another adapter. Returns the previous ones.
    pub fn swap_parameters(&mut self, parameters: Arc<[Parameter]>) -> Arc<[Parameter]> {
        std::mem::replace(&mut self.parameters, parameters)
    }

    /// Copies the rows of a range of sequences. Serving only.
    pub fn slice_sequences(&mut self, input: Var, sequences: Range<usize>) -> Result<Var> {
        assert!(!self.any_requires_grad(&[input]), "views are used while serving only");
        let layout = self.layout(input);
        let rows = self.backend.slice_rows(&self.buffer(input)?, layout.rows_of_sequences(&sequences))?;
        let layout = self.sliced_layout(layout, sequences);
        Ok(self.push_var(rows, layout, false))
    }

    /// View of a range of sequences: additions to it change the rows of `base`. Serving only.
    pub fn view_sequences(&mut self, base: Var, sequences: Range<usize>) -> Var {
        assert!(!self.any_requires_grad(&[base]), "views are used while serving only");
        let layout = self.layout(base);
        let view = RowView { base, range: layout.rows_of_sequences(&sequences) };
        let layout = self.sliced_layout(layout, sequences);
        self.values.push(VarState { buffer: None, layout, requires_grad: false, view: Some(view) });
        Var(self.values.len() - 1)
    }

    fn sliced_layout(&mut self, full_layout: Arc<RaggedLayout>, sequences: Range<usize>) -> Arc<RaggedLayout> {
        let is_same =
            |slice: &&LayoutSlice| Arc::ptr_eq(&slice.full_layout, &full_layout) && slice.sequences == sequences;
        if let Some(cached) = self.layout_slices.iter().find(is_same) {
            return Arc::clone(&cached.layout);
        }
        let layout = Arc::new(full_layout.slice_sequences(&sequences));
        self.layout_slices.push(LayoutSlice { full_layout, sequences, layout: Arc::clone(&layout) });
        layout
    }

    /// Defers an update of a view until [`Tape::flush_lora`].
    pub(super) fn defer_lora(&mut self, base_var: Var, update: LoraUpdate) -> Result<()> {
        if self.pending_lora.base != Some(base_var) {
            self.flush_lora()?;
        }
        self.pending_lora.base = Some(base_var);
        self.pending_lora.updates.push(update);
        Ok(())
    }

    /// Applies the deferred updates. Every operation that reads or changes the base value calls it first.
    pub fn flush_lora(&mut self) -> Result<()> {
        let PendingLoraUpdates { base: Some(base_var), mut updates } = std::mem::take(&mut self.pending_lora) else {
            return Ok(());
        };
        let rows = self.consume(base_var);
        let lora_args: Vec<_> = updates.iter().map(LoraUpdate::lora_args).collect();
        let rows = self.backend.lora_add_batched(rows, &lora_args)?;
        // Keep the allocation for the next site.
        updates.clear();
        self.pending_lora.updates = updates;
        self.values[base_var.0].buffer = Some(rows);
        Ok(())
    }

    /// Base value and rows of a view; a value itself is its own base.
    pub(super) fn resolve_view(&self, var: Var) -> (Var, Range<usize>) {
        let value = &self.values[var.0];
        match &value.view {
            Some(view) => (view.base, view.range.clone()),
            None => (var, 0..value.layout.num_rows()),
        }
    }
}
