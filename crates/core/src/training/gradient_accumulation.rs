//! The gradients of one batch, micro-batch by micro-batch on a crew.
//!
//! Where an example's loss depends on the others, all micro-batches are computed forward first, then the loss of the whole
//! batch, then each back: from what it remembers, or, where that would be too much at once, computed again (Gao 2021).

use super::batching;
use super::feature_cache::CachedFeatures;
use super::lm_labels::{LmLabels, MaskingSeed};
use super::network::{self, DeviceParameters, Forward, ForwardInput, MicroBatchGradients, Network};
use super::spec::Spec;
use super::tokenized_dataset::TokenizedDataset;
use crate::error::Result;
use crate::task::targets::Targets;
use espalier_tensor::worker_pool::WorkerPool;
use espalier_tensor::{Dropout, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tokens of a batch whose micro-batches may all remember their way back at once.
const MAX_SAVED_ACTIVATION_TOKENS: usize = 16_384;

pub struct BatchJob<'a> {
    pub pool: &'a WorkerPool,
    pub network: &'a Arc<Network>,
    pub dataset: &'a TokenizedDataset,
    pub features: &'a CachedFeatures,
    pub spec: &'a Spec,
    pub parameters: DeviceParameters,
    pub step: u64,
    pub epoch: u64,
}

/// What a micro-batch is computed with on any thread.
#[derive(Clone)]
struct MicroBatchContext {
    network: Arc<Network>,
    features: CachedFeatures,
    parameters: DeviceParameters,
    lm_labels: Option<LmLabels>,
    seed: u64,
    step: u64,
    epoch: u64,
}

impl BatchJob<'_> {
    /// Of the micro-batches, in their order. `denominator` divides the loss.
    pub fn micro_batch_gradients(&self, examples: &[usize], denominator: f64) -> Result<Vec<MicroBatchGradients>> {
        let micro_batches = batching::micro_batches(examples, &self.dataset.lengths, self.spec.micro_batch_tokens);
        let context = MicroBatchContext {
            network: Arc::clone(self.network),
            features: self.features.clone(),
            parameters: Arc::clone(&self.parameters),
            lm_labels: self.dataset.lm_labels.clone(),
            seed: self.spec.hyperparameters.seed,
            step: self.step,
            epoch: self.epoch,
        };
        if self.dataset.targets.has_in_batch_negatives() && micro_batches.len() > 1 {
            return self.grad_cache_gradients(examples, micro_batches, &context, denominator);
        }
        let targets = Arc::clone(&self.dataset.targets);
        let gradients = move |micro_batch: Vec<usize>| {
            let forward = |source: ForwardInput| {
                context.network.forward(&context.parameters, source, context.dropout(&micro_batch))
            };
            let input = context.features.forward_input(&micro_batch)?;
            match &context.lm_labels {
                None => context.network.gradients(forward(input)?, &targets.select(&micro_batch), denominator),
                Some(asked) => {
                    let (input, target_ids) = asked.apply(input, &micro_batch, MaskingSeed::Epoch(context.epoch));
                    match targets.as_ref() {
                        Targets::PreferencePairs { .. } => {
                            let targets = targets.select(&micro_batch);
                            context.network.preference_gradients(forward(input)?, &target_ids, &targets, denominator)
                        }
                        _ => context.network.language_gradients(forward(input)?, &target_ids, denominator),
                    }
                }
            }
        };
        self.pool.map(micro_batches, &Arc::new(gradients))
    }

    fn grad_cache_gradients(
        &self,
        examples: &[usize],
        micro_batches: Vec<Vec<usize>>,
        context: &MicroBatchContext,
        denominator: f64,
    ) -> Result<Vec<MicroBatchGradients>> {
        let tokens: usize = examples.iter().map(|example| self.dataset.lengths[*example]).sum();
        let saves_activations =
            tokens <= MAX_SAVED_ACTIVATION_TOKENS && self.network.fits_budget(tokens / self.pool.threads());
        let forward_context = context.clone();
        let forward_pass = move |micro_batch: Vec<usize>| -> Result<_> {
            let forward = forward_context.forward(&micro_batch)?;
            let outputs = forward.outputs()?;
            Ok((outputs, saves_activations.then_some(forward)))
        };
        let (outputs, forwards): (Vec<Tensor>, Vec<Option<Forward>>) =
            self.pool.map(micro_batches.clone(), &Arc::new(forward_pass))?.into_iter().unzip();
        let (loss, mut gradients) = self.batch_loss(examples, &micro_batches, &outputs, denominator);
        network::check_finite_loss(loss)?;
        let to_task = |(piece, forward): (Vec<usize>, Option<Forward>)| {
            let rows: Vec<Vec<f32>> = piece.iter().filter_map(|example| gradients.remove(example)).collect();
            let count: usize = piece.iter().map(|example| self.dataset.targets.row_count(*example)).sum();
            (piece, forward, Tensor::new([count, self.network.output_width()], rows.concat()))
        };
        let tasks: Vec<_> = micro_batches.into_iter().zip(forwards).map(to_task).collect();
        let bench = context.clone();
        let backward_pass = move |(piece, forward, gradient): (Vec<usize>, Option<Forward>, Tensor)| -> Result<_> {
            let forward = forward.map_or_else(|| bench.forward(&piece), Ok)?;
            Ok(MicroBatchGradients { loss: 0.0, gradients: bench.network.backward(forward, &gradient)? })
        };
        let mut results = self.pool.map(tasks, &Arc::new(backward_pass))?;
        if let Some(first_part) = results.first_mut() {
            first_part.loss = loss;
        }
        Ok(results)
    }

    /// The loss of the whole batch, and its gradient by each example's rows.
    fn batch_loss(
        &self,
        examples: &[usize],
        micro_batches: &[Vec<usize>],
        outputs: &[Tensor],
        denominator: f64,
    ) -> (f64, BTreeMap<usize, Vec<f32>>) {
        let (targets, width) = (&self.dataset.targets, self.network.output_width());
        let mut rows: BTreeMap<usize, &[f32]> = BTreeMap::new();
        for (piece, outputs) in micro_batches.iter().zip(outputs) {
            let mut remaining = outputs.values.as_slice();
            for example in piece {
                let (example_rows, following) = remaining.split_at(targets.row_count(*example) * width);
                rows.insert(*example, example_rows);
                remaining = following;
            }
        }
        // In the order of the batch, however it was cut.
        let batch_rows: Vec<f32> = examples.iter().flat_map(|example| rows[example].iter().copied()).collect();
        let (loss, gradient) = targets.select(examples).loss_on_host(&batch_rows);
        let mut remaining = gradient.into_iter().map(|value| (value / denominator) as f32);
        let example_gradient =
            |example: &usize| (*example, remaining.by_ref().take(targets.row_count(*example) * width).collect());
        (loss, examples.iter().map(example_gradient).collect())
    }
}

impl MicroBatchContext {
    fn forward(&self, micro_batch: &[usize]) -> Result<Forward> {
        self.network.forward(&self.parameters, self.features.forward_input(micro_batch)?, self.dropout(micro_batch))
    }

    /// A mask is a function of the example and of its sequence.
    fn dropout(&self, micro_batch: &[usize]) -> Dropout {
        let sequences = |example: &usize| {
            let example = *example as u64;
            (0..self.features.sequence_count(example as usize) as u64).map(move |sequence| example | sequence << 48)
        };
        Dropout { seed: self.seed, step: self.step, example_ids: micro_batch.iter().flat_map(sequences).collect() }
    }
}
