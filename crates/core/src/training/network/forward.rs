//! A forward pass that remembers its way back, or the places from which parts of it can be computed again.

use super::{DeviceParameters, ForwardInput, Network};
use crate::error::Result;
use crate::model::{FirstTrainableLayer, RequiredRows};
use espalier_tensor::{Buffer, Dropout, RaggedLayout, Recording, Tape, Tensor, Var};
use std::ops::Range;
use std::sync::Arc;

/// Where dropout is on the rows that are read: no site's number, and no sublayer's.
const HEAD_DROPOUT_SITE: u64 = u64::MAX;

pub struct Forward {
    pub(super) tape: Tape,
    pub(super) outputs: Var,
    /// What went into the layers that the tape remembers, where that are not all.
    boundary: Option<Var>,
    /// The others.
    recomputed: Option<RecomputedSegments>,
}

/// Layers that are computed again, from the lowest on.
struct RecomputedSegments {
    segments: Vec<Segment>,
    parameters: DeviceParameters,
    dropout: Dropout,
}

/// Some neighbouring layers.
struct Segment {
    layers: Range<usize>,
    input: SegmentInput,
}

/// What goes into them.
enum SegmentInput {
    ForwardInput(ForwardInput),
    Rows(Buffer, Arc<RaggedLayout>),
}

impl Forward {
    /// `(rows, outputs)`, on the host.
    pub fn outputs(&self) -> Result<Tensor> {
        Ok(self.tape.to_host(self.outputs)?)
    }
}

impl Network {
    /// Forward, with the way back.
    pub fn forward(&self, parameters: &DeviceParameters, input: ForwardInput, dropout: Dropout) -> Result<Forward> {
        let mut layers = self.checkpoint_segments(&input);
        let Some(last_segment) = layers.pop().filter(|_| !layers.is_empty()) else {
            let mut tape = self.tape(parameters, Recording::On(dropout));
            let rows = self.forward_to(&mut tape, &input, FirstTrainableLayer::Head, self.hooks())?;
            return self.apply_head(tape, rows, None, None);
        };
        let tokens = input.tokens.clone();
        let (mut from, mut segments) = (SegmentInput::ForwardInput(input), Vec::new());
        for layers in layers {
            let mut segment = Segment { layers, input: from };
            let (tape, rows, _) = self.forward_segment(&mut segment, parameters, &dropout)?;
            from = SegmentInput::Rows(tape.device_buffer(rows)?, tape.layout(rows));
            segments.push(segment);
        }
        let SegmentInput::Rows(rows, layout) = from else { unreachable!("there are layers below") };
        let mut tape = self.tape(parameters, Recording::On(dropout.clone()));
        let boundary = tape.leaf_requires_grad(rows, layout);
        let required_rows = self.output_head.row_selection.required_rows();
        let hidden = self.base.forward_layers(&mut tape, boundary, last_segment, self.hooks(), required_rows)?;
        let rows = self.output_head.select_rows(
            &self.base,
            &mut tape,
            hidden,
            self.hooks(),
            tokens.iter().map(Arc::as_ref),
        )?;
        let recomputed = RecomputedSegments { segments, parameters: Arc::clone(parameters), dropout };
        self.apply_head(tape, rows, Some(boundary), Some(recomputed))
    }

    fn apply_head(
        &self,
        mut tape: Tape,
        rows: Var,
        boundary: Option<Var>,
        recomputed: Option<RecomputedSegments>,
    ) -> Result<Forward> {
        let rows = tape.dropout(rows, self.head_dropout, HEAD_DROPOUT_SITE)?;
        let outputs = self.output_head.training_outputs(&self.base, &mut tape, rows)?;
        Ok(Forward { tape, outputs, boundary, recomputed })
    }

    /// The layers between what is known and the head, as far as they are remembered at once. Those without anything trained
    /// below them remember nothing, and belong to the first.
    fn checkpoint_segments(&self, input: &ForwardInput) -> Vec<Range<usize>> {
        let (start_layer, rows) = match &input.cached {
            None => (
                0,
                input.tokens.iter().map(|tokens| tokens.ids.len() + self.hooks().virtual_tokens().prompt_rows()).sum(),
            ),
            Some(known) => match known.layer {
                FirstTrainableLayer::Layer(layer) => (layer, known.layout.num_rows()),
                _ => return Vec::new(),
            },
        };
        let first_trainable = match self.first_trainable_layer() {
            FirstTrainableLayer::Embeddings => start_layer,
            FirstTrainableLayer::Layer(layer) => layer.max(start_layer),
            FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => return Vec::new(),
        };
        let mut segments =
            self.activation_cost.partition(first_trainable..self.base.info().layers, rows, self.activation_budget);
        if let Some(lowest_segment) = segments.first_mut() {
            lowest_segment.start = start_layer;
        }
        segments
    }

    /// A segment's rows on a tape of its own, and what went in where that is rows.
    fn forward_segment(
        &self,
        segment: &mut Segment,
        parameters: &DeviceParameters,
        dropout: &Dropout,
    ) -> Result<(Tape, Var, Option<Var>)> {
        let mut tape = self.tape(parameters, Recording::On(dropout.clone()));
        let (rows, boundary) = match &segment.input {
            SegmentInput::ForwardInput(source) => (self.forward_start(&mut tape, source, self.hooks())?.0, None),
            SegmentInput::Rows(rows, layout) => {
                let leaf = tape.leaf_requires_grad(rows.clone(), Arc::clone(layout));
                (leaf, Some(leaf))
            }
        };
        let rows =
            self.base.forward_layers(&mut tape, rows, segment.layers.clone(), self.hooks(), RequiredRows::All)?;
        Ok((tape, rows, boundary))
    }

    /// The gradients by parameter, given the loss's by the outputs.
    pub fn backward(&self, forward: Forward, gradient: &Tensor) -> Result<Vec<Vec<f32>>> {
        let gradient = self.base.backend().upload(gradient)?;
        self.backward_on_device(forward, gradient)
    }

    pub(super) fn backward_on_device(&self, forward: Forward, gradient: Buffer) -> Result<Vec<Vec<f32>>> {
        let Forward { tape, outputs, boundary: leaf, recomputed: below } = forward;
        let (mut gradients, mut boundary_gradient) = tape.backward_to_leaf(leaf, outputs, gradient, Vec::new())?;
        if let Some(RecomputedSegments { segments, parameters, dropout }) = below {
            for mut segment in segments.into_iter().rev() {
                let Some(gradient) = boundary_gradient.take() else { break };
                let (tape, rows, leaf) = self.forward_segment(&mut segment, &parameters, &dropout)?;
                (gradients, boundary_gradient) = tape.backward_to_leaf(leaf, rows, gradient, gradients)?;
            }
        }
        let download = |gradient: Option<Buffer>| match gradient {
            Some(gradient) => Ok(self.base.backend().download(&gradient)?.values),
            None => Ok(Vec::new()),
        };
        gradients.into_iter().map(download).collect()
    }
}
