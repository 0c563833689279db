//! A forward pass that remembers its way back, or the places from which parts of it can be computed again.

use super::{Network, Source, Uploaded};
use crate::error::Result;
use crate::model::{Lowest, Wanted};
use espalier_tensor::{Buffer, Dropout, Packed, Recording, Rows, Tape, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Where dropout is on the rows that are read: no site's number, and no sublayer's.
const READ: u64 = u64::MAX;

pub struct Forward {
    pub(super) tape: Tape,
    pub(super) outputs: Rows,
    /// What went into the layers that the tape remembers, where that are not all.
    leaf: Option<Rows>,
    /// The others.
    below: Option<Below>,
}

/// Layers that are computed again, from the lowest on.
struct Below {
    segments: Vec<Segment>,
    parameters: Uploaded,
    dropout: Dropout,
}

/// Some neighbouring layers.
struct Segment {
    layers: Range<usize>,
    from: From,
}

/// What goes into them.
enum From {
    Source(Source),
    Rows(Buffer, Arc<Packed>),
}

impl Forward {
    /// `(rows, outputs)`, on the host.
    pub fn outputs(&self) -> Result<Tensor> {
        Ok(self.tape.read(self.outputs)?)
    }
}

impl Network {
    /// Forward, with the way back.
    pub fn forward(&self, parameters: &Uploaded, source: Source, dropout: Dropout) -> Result<Forward> {
        let mut layers = self.segments(&source);
        let Some(last) = layers.pop().filter(|_| !layers.is_empty()) else {
            let mut tape = self.tape(parameters, Recording::On(dropout));
            let rows = self.climb(&mut tape, &source, Lowest::Head, self.hooks())?;
            return self.read_on(tape, rows, None, None);
        };
        let tokens = source.tokens.clone();
        let (mut from, mut segments) = (From::Source(source), Vec::new());
        for layers in layers {
            let mut segment = Segment { layers, from };
            let (tape, rows, _) = self.through(&mut segment, parameters, &dropout)?;
            from = From::Rows(tape.rows(rows)?, tape.layout(rows));
            segments.push(segment);
        }
        let From::Rows(rows, layout) = from else { unreachable!("there are layers below") };
        let mut tape = self.tape(parameters, Recording::On(dropout.clone()));
        let leaf = tape.leaf(rows, layout);
        let wanted = self.reader.reading.wanted();
        let hidden = self.base.layers(&mut tape, leaf, last, self.hooks(), wanted)?;
        let rows = self.reader.rows(&self.base, &mut tape, hidden, self.hooks(), tokens.iter().map(Arc::as_ref))?;
        let below = Below { segments, parameters: Arc::clone(parameters), dropout };
        self.read_on(tape, rows, Some(leaf), Some(below))
    }

    fn read_on(&self, mut tape: Tape, rows: Rows, leaf: Option<Rows>, below: Option<Below>) -> Result<Forward> {
        let rows = tape.dropout(rows, self.dropout, READ)?;
        let outputs = self.reader.outputs(&self.base, &mut tape, rows)?;
        Ok(Forward { tape, outputs, leaf, below })
    }

    /// The layers between what is known and the head, as far as they are remembered at once. Those without anything trained
    /// below them remember nothing, and belong to the first.
    fn segments(&self, source: &Source) -> Vec<Range<usize>> {
        let (first, rows) = match &source.known {
            None => {
                (0, source.tokens.iter().map(|tokens| tokens.ids.len() + self.hooks().virtual_tokens().rows()).sum())
            }
            Some(known) => match known.place {
                Lowest::Layer(layer) => (layer, known.layout.rows()),
                _ => return Vec::new(),
            },
        };
        let lowest = match self.lowest() {
            Lowest::Embeddings => first,
            Lowest::Layer(layer) => layer.max(first),
            Lowest::Pooler | Lowest::Head => return Vec::new(),
        };
        let mut cut = self.costs.cut(lowest..self.base.info().layers, rows, self.budget);
        if let Some(lowermost) = cut.first_mut() {
            lowermost.start = first;
        }
        cut
    }

    /// A segment's rows on a tape of its own, and what went in where that is rows.
    fn through(
        &self,
        segment: &mut Segment,
        parameters: &Uploaded,
        dropout: &Dropout,
    ) -> Result<(Tape, Rows, Option<Rows>)> {
        let mut tape = self.tape(parameters, Recording::On(dropout.clone()));
        let (rows, leaf) = match &segment.from {
            From::Source(source) => (self.begin(&mut tape, source, self.hooks())?.0, None),
            From::Rows(rows, layout) => {
                let leaf = tape.leaf(rows.clone(), Arc::clone(layout));
                (leaf, Some(leaf))
            }
        };
        let rows = self.base.layers(&mut tape, rows, segment.layers.clone(), self.hooks(), Wanted::All)?;
        Ok((tape, rows, leaf))
    }

    /// The gradients by parameter, given the loss's by the outputs.
    pub fn backward(&self, forward: Forward, gradient: &Tensor) -> Result<Vec<Vec<f32>>> {
        let gradient = self.base.kernels().upload(gradient)?;
        self.back(forward, gradient)
    }

    pub(super) fn back(&self, forward: Forward, gradient: Buffer) -> Result<Vec<Vec<f32>>> {
        let Forward { tape, outputs, leaf, below } = forward;
        let (mut gradients, mut into) = tape.backward_to(leaf, outputs, gradient, Vec::new())?;
        if let Some(Below { segments, parameters, dropout }) = below {
            for mut segment in segments.into_iter().rev() {
                let Some(gradient) = into.take() else { break };
                let (tape, rows, leaf) = self.through(&mut segment, &parameters, &dropout)?;
                (gradients, into) = tape.backward_to(leaf, rows, gradient, gradients)?;
            }
        }
        let download = |gradient: Option<Buffer>| match gradient {
            Some(gradient) => Ok(self.base.kernels().download(&gradient)?.values),
            None => Ok(Vec::new()),
        };
        gradients.into_iter().map(download).collect()
    }
}
