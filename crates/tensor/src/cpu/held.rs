//! The base's own weights, in fewer bits where they are to be held so.

use super::machine::{Cpu, Held, host};
use super::memory::{Draft, Matrix};
use super::product::Start;
use super::reduced::{Form, Output, Reduced, Rounded};
use super::together::with_team;
use crate::Tensor;
use crate::error::Result;
use crate::held::{Activations, Hold};
use crate::kernels::{Buffer, FrozenLinear, FrozenTable, Kernels, Storage};
use crate::raw::Raw;
use std::sync::{Arc, OnceLock};

impl Hold for Cpu {
    fn hold_linear(&self, weight: Raw, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = weight.shape();
        match self.reduced(weight) {
            Err(weight) => self.freeze_linear(weight, bias),
            Ok(weight) => {
                let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
                Ok(FrozenLinear { weight, bias, transposed: OnceLock::new(), input, output })
            }
        }
    }

    fn hold_table(&self, rows: Raw) -> Result<FrozenTable> {
        let width = rows.shape()[1];
        match self.reduced(rows) {
            Ok(rows) => Ok(FrozenTable { rows, width }),
            Err(rows) => self.freeze_table(rows),
        }
    }

    fn rounding(&self) -> Option<Arc<dyn Kernels>> {
        Some(Arc::new(Self { activations: Activations::Int8, ..*self }))
    }

    fn tie(&self, table: &FrozenTable, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        let Storage::Reduced(weight) = &table.rows.0 else { return Ok(None) };
        let (input, output) = (weight.input(), weight.output());
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        let weight = Buffer(Storage::Reduced(Arc::clone(weight)));
        Ok(Some(FrozenLinear { weight, bias, transposed: OnceLock::new(), input, output }))
    }
}

impl Cpu {
    /// On all threads of the team that helps, if one does.
    pub(super) fn reduced_product(&self, input: &Matrix, weight: &Reduced, start: Start) -> Buffer {
        let (rows, level) = (input.rows(), self.level);
        let mut draft = Draft::new(rows, weight.output());
        let mut out = Output::new(draft.values(), rows, weight.output());
        let rounded = (self.activations == Activations::Int8 && weight.form().is_whole())
            .then(|| Rounded::new(level, input.values(), weight.input()));
        let multiply = |out: &mut Output| match &rounded {
            Some(rounded) => weight.multiply_rounded(level, rounded, start, out),
            None => weight.multiply(level, input.values(), start, out),
        };
        with_team(|team| match team {
            Some(team) => weight.share(team, out, multiply),
            None => multiply(&mut out),
        });
        host(draft)
    }
}

/// A table's row.
pub fn entry(table: &FrozenTable, id: u32, out: &mut [f32]) {
    match &table.rows.0 {
        Storage::Reduced(rows) => rows.row(id as usize, out),
        _ => out.copy_from_slice(table.rows.host().row(id as usize)),
    }
}

impl Cpu {
    /// A weight in fewer bits, where it is to be held so; else its numbers.
    fn reduced(&self, weight: Raw) -> std::result::Result<Buffer, Tensor> {
        let reduced = match (self.held, &weight) {
            (Held::Whole, _) | (Held::AsIs, Raw::Numbers(_)) => return Err(weight.tensor()),
            (Held::AsIs, Raw::Blocks { .. }) => weight.reduced(),
            (Held::Rounded(form), Raw::Blocks { form: own, .. }) if form == *own => weight.reduced(),
            (Held::Rounded(_), _) => None,
        };
        let rounded = |form: Form, weight: Raw| {
            let [output, input] = weight.shape();
            Reduced::round(form, &weight.tensor().values, output, input)
        };
        let reduced = match (reduced, self.held) {
            (Some(reduced), _) => reduced,
            (None, Held::Rounded(form)) => rounded(form, weight),
            (None, _) => return Err(weight.tensor()),
        };
        Ok(Buffer(Storage::Reduced(Arc::new(reduced))))
    }
}
