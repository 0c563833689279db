//! Parts of a batch: what serving needs to let several adapters answer, each for its own sequences.

use super::{Rows, Tape, Value, Window};
use crate::compute::Parameter;
use crate::error::Result;
use std::ops::Range;
use std::sync::Arc;

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
        Ok(self.push(rows, Arc::new(layout.slice(&sequences)), false))
    }

    /// The same, to be added to: what is added to a window is added to the rows of `of`.
    pub fn window(&mut self, of: Rows, sequences: Range<usize>) -> Rows {
        assert!(!self.is_tracked(&[of]), "a part of a batch is only changed while serving");
        let layout = self.layout(of);
        let window = Window { of, rows: layout.rows_of(&sequences) };
        let layout = Arc::new(layout.slice(&sequences));
        self.values.push(Value { buffer: None, layout, tracked: false, window: Some(window) });
        Rows(self.values.len() - 1)
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
