//! Sequences that are being continued: only their next rows go through the layers, what came before is remembered.

use super::{Recording, Rows, Tape};
use crate::columns::Front;
use crate::distance::Distance;
use crate::error::Result;
use crate::past::Past;
use crate::recall::Next;
use crate::{Kernels, Parameter};
use std::sync::Arc;

impl Tape {
    /// A tape on which each sequence goes on from its past. Nothing is differentiated.
    pub fn continuing(kernels: Arc<dyn Kernels>, parameters: Arc<[Parameter]>, pasts: Vec<Past>) -> Self {
        Self { pasts: Some(pasts), ..Self::new(kernels, parameters, Recording::Off) }
    }

    /// Where sequences are being continued: what is remembered of each.
    pub fn pasts(&self) -> Option<&[Past]> {
        self.pasts.as_deref()
    }

    /// What is remembered at the end of a step, in which each sequence had the rows of this layout.
    pub fn into_pasts(mut self, lengths: impl IntoIterator<Item = usize>) -> Vec<Past> {
        let mut pasts = self.pasts.take().unwrap_or_default();
        for (past, rows) in pasts.iter_mut().zip(lengths) {
            past.advance(rows);
        }
        pasts
    }

    /// Keys and values of a layer in front of those sequences that have not begun.
    pub fn begin(&mut self, layer: usize, key: &Front<Rows>, value: &Front<Rows>) -> Result<()> {
        let [keys, values] = [self.read(key.rows)?.values, self.read(value.rows)?.values];
        let pasts = self.pasts.as_mut().expect("only a tape of continued sequences has a past");
        for past in pasts[key.sequences.clone()].iter_mut().filter(|past| past.is_fresh()) {
            past.begin(layer, &keys, &values);
        }
        Ok(())
    }

    /// Attention to all that came before, these rows included; the queries may be of a sequence's last rows only.
    pub fn recall(
        &mut self,
        [query, key, value]: [Rows; 3],
        heads: usize,
        layer: usize,
        distance: &Distance,
    ) -> Result<Rows> {
        let [q, k, v] = [self.buffer(query)?, self.buffer(key)?, self.buffer(value)?];
        let (asking, layout) = (self.layout(query), self.layout(key));
        let pasts = self.pasts.as_mut().expect("only a tape of continued sequences has a past");
        let next =
            Next { layer, query: &q, key: &k, value: &v, asking: &asking, layout: &layout, heads, distance, pasts };
        let rows = self.kernels.recall(next)?;
        Ok(self.push(rows, asking, false))
    }
}
