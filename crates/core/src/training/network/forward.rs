//! Forward pass that saves activations for the backward pass. With gradient checkpointing it saves the inputs of segments of layers
//! and recomputes the segments in the backward pass.
//!
//! Gradient checkpointing (Chen et al. 2016): partition of the layers into segments whose activations fit a memory budget. All
//! segments but the last are recomputed in the backward pass, with bit-identical results.

use super::{DeviceParameters, Network};
use crate::error::Result;
use crate::model::{BaseModel, FirstTrainableLayer, Pooling, RequiredRows};
use crate::training::batching::ForwardInput;
use espalier_tensor::{Buffer, Dropout, RaggedLayout, Recording, Tape, Tensor, Var};
use std::ops::Range;
use std::sync::Arc;

/// Dropout site of the head's input; no site or sublayer of the base has this number.
const HEAD_DROPOUT_SITE: u64 = u64::MAX;

/// Finished forward pass.
pub struct Forward {
    pub(super) tape: Tape,
    pub(super) outputs: Var,
    /// Input of the layers on the tape, where lower segments are recomputed.
    boundary: Option<Var>,
    /// Lower segments.
    recomputed: Option<RecomputedSegments>,
}

/// Segments that are recomputed in the backward pass, from the lowest on.
struct RecomputedSegments {
    segments: Vec<Segment>,
    parameters: DeviceParameters,
    dropout: Dropout,
}

/// Consecutive layers.
struct Segment {
    layers: Range<usize>,
    input: SegmentInput,
}

/// Input of a segment.
enum SegmentInput {
    ForwardInput(ForwardInput),
    Rows(Buffer, Arc<RaggedLayout>),
}

impl Forward {
    /// Outputs `(rows, outputs)` on the host.
    pub fn outputs(&self) -> Result<Tensor> {
        Ok(self.tape.to_host(self.outputs)?)
    }
}

impl Network {
    /// Forward pass that can be followed by [`Self::backward`].
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
        let SegmentInput::Rows(rows, layout) = from else { unreachable!("the loop above runs at least once") };
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

    /// Segments of the layers between the input and the head, each within the activation budget. Layers below the lowest trainable
    /// one save no activations and belong to the first segment.
    fn checkpoint_segments(&self, input: &ForwardInput) -> Vec<Range<usize>> {
        let prompt_rows = self.hooks().virtual_tokens().prompt_rows();
        let size = BatchSize::new(input.tokens.iter().map(|tokens| tokens.ids.len() + prompt_rows));
        let start_layer = match &input.cached {
            None => 0,
            Some(cached) => match cached.layer {
                FirstTrainableLayer::Layer(layer) => layer,
                FirstTrainableLayer::Embeddings | FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => {
                    return Vec::new();
                }
            },
        };
        let first_trainable = match self.first_trainable_layer() {
            FirstTrainableLayer::Embeddings => start_layer,
            FirstTrainableLayer::Layer(layer) => layer.max(start_layer),
            FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => return Vec::new(),
        };
        let mut segments =
            self.activation_cost.partition(first_trainable..self.base.info().layers, size, self.activation_budget);
        if let Some(lowest_segment) = segments.first_mut() {
            lowest_segment.start = start_layer;
        }
        segments
    }

    /// Output of a segment on a tape of its own, and its input where that is rows.
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

    /// Gradients of the parameters, from the gradient of the loss with respect to the outputs.
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

/// Size of a micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchSize {
    pub rows: u64,
    /// Attention probabilities of one head: the squared lengths of the sequences.
    pub probabilities: u64,
}

impl BatchSize {
    pub fn new(lengths: impl Iterator<Item = usize>) -> Self {
        lengths.map(|length| length as u64).fold(Self::default(), |size, length| Self {
            rows: size.rows + length,
            probabilities: size.probabilities + length * length,
        })
    }

    /// Share of one of several threads.
    pub fn share_of(self, threads: usize) -> Self {
        let threads = threads.max(1) as u64;
        Self { rows: self.rows / threads, probabilities: self.probabilities / threads }
    }
}

/// Bytes of saved activations per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationCost {
    /// Activations that the backward pass of a layer reads.
    pub layer: u64,
    /// Output of a layer.
    pub boundary: u64,
    /// Per attention probability of one head, which a layer saves for each of its heads.
    pub probability: u64,
}

impl ActivationCost {
    /// Estimate: for each linear map its input once and its output twice, before and after the operation that follows; and the
    /// attention probabilities.
    pub fn of(base: &BaseModel, pooling: Pooling) -> Self {
        let sites = base.sites(pooling);
        let layer = sites.iter().filter(|info| info.site.layer == Some(0));
        let values_per_row: usize = layer.map(|info| info.in_features + 2 * info.out_features).sum();
        let (hidden_size, heads) = (base.info().hidden_size as u64, base.info().attention_heads as u64);
        Self { layer: (4 * values_per_row) as u64, boundary: 4 * hidden_size, probability: 4 * heads }
    }

    /// Partitions the layers into as few segments as the budget allows, the last one of full size; single layers where even these
    /// exceed the budget.
    pub fn partition(self, layers: Range<usize>, size: BatchSize, budget: u64) -> Vec<Range<usize>> {
        let count = layers.len().max(1);
        let layer_bytes = self.layer * size.rows + self.probability * size.probabilities;
        let bytes_needed = |segments: usize| {
            let boundary_bytes = (segments as u64 - 1) * self.boundary * size.rows;
            (count.div_ceil(segments) as u64 * layer_bytes).saturating_add(boundary_bytes)
        };
        let segment_count = (1..=count).find(|segments| bytes_needed(*segments) <= budget).unwrap_or(count);
        let layers_per_segment = count.div_ceil(segment_count);
        let mut segments = Vec::new();
        let mut end = layers.end;
        while end > layers.start {
            let start = end.saturating_sub(layers_per_segment).max(layers.start);
            segments.push(start..end);
            end = start;
        }
        segments.reverse();
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_partitioned_into_as_few_segments_as_fit_the_budget() {
        let costs = ActivationCost { layer: 100, boundary: 10, probability: 0 };
        let partition = |layers, rows, budget| costs.partition(layers, BatchSize { rows, probabilities: 0 }, budget);
        assert_eq!(partition(0..6, 2, 1200).len(), 1);
        assert_eq!(partition(0..6, 2, 1199), [0..3, 3..6]);
        assert_eq!(partition(0..6, 2, 620), [0..3, 3..6]);
        assert_eq!(partition(0..6, 2, 619), [0..2, 2..4, 4..6]);
        assert_eq!(partition(1..6, 2, 500), [1..2, 2..4, 4..6]);
        assert_eq!(partition(2..4, 9, 0), [2..3, 3..4]);
        assert!(partition(5..5, 9, 0).is_empty());
    }

    #[test]
    fn attention_of_a_long_text_costs_the_square_of_its_length() {
        let costs = ActivationCost { layer: 100, boundary: 10, probability: 8 };
        let (texts, long_text) = (BatchSize::new([10; 10].into_iter()), BatchSize::new([100].into_iter()));
        assert_eq!(
            (texts.rows, long_text.rows, texts.probabilities, long_text.probabilities),
            (100, 100, 1000, 10_000)
        );
        assert_eq!(costs.partition(0..6, texts, 120_000).len(), 1);
        assert_eq!(costs.partition(0..6, long_text, 120_000).len(), 6);
    }
}
