//! Gradients of a batch, summed over micro-batches that a thread pool computes.
//!
//! With in-batch negatives (GradCache, Gao et al. 2021) all micro-batches run forward first, then the loss of the whole batch is
//! computed, then each micro-batch runs backward: from its saved activations, or recomputed where these would need too much memory.

use super::batching;
use super::divergence;
use super::feature_cache::CachedFeatures;
use super::network::{BatchSize, DeviceParameters, Forward, MicroBatchGradients, Network};
use super::spec::Spec;
use super::tokenized_dataset::TokenizedDataset;
use crate::error::Result;
use crate::task::objective::{BatchObjective, MaskingSeed, MicroBatch, Objective};
use espalier_tensor::worker_pool::WorkerPool;
use espalier_tensor::{Dropout, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest batch, in tokens, whose micro-batches all keep their activations between forward and backward.
const MAX_SAVED_ACTIVATION_TOKENS: u64 = 16_384;

/// Batch of one training step.
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

/// Shared state of the micro-batches of a batch.
#[derive(Clone)]
struct MicroBatchContext {
    network: Arc<Network>,
    features: CachedFeatures,
    parameters: DeviceParameters,
    objective: Arc<dyn Objective>,
    seed: u64,
    step: u64,
    epoch: u64,
}

impl BatchJob<'_> {
    /// Gradients of the micro-batches, in order. `denominator` divides the loss.
    pub fn micro_batch_gradients(&self, examples: &[usize], denominator: f64) -> Result<Vec<MicroBatchGradients>> {
        let micro_batches = batching::micro_batches(examples, &self.dataset.lengths, self.spec.micro_batch_tokens);
        let context = MicroBatchContext {
            network: Arc::clone(self.network),
            features: self.features.clone(),
            parameters: Arc::clone(&self.parameters),
            objective: Arc::clone(&self.dataset.objective),
            seed: self.spec.hyperparameters.seed,
            step: self.step,
            epoch: self.epoch,
        };
        match self.dataset.objective.as_batch_objective() {
            Some(objective) if micro_batches.len() > 1 => {
                self.grad_cache_gradients(objective, examples, micro_batches, &context, denominator)
            }
            Some(_) | None => {
                let gradients = move |micro_batch: Vec<usize>| context.gradients(&micro_batch, denominator);
                self.pool.map(micro_batches, &Arc::new(gradients))
            }
        }
    }

    fn grad_cache_gradients(
        &self,
        objective: &dyn BatchObjective,
        examples: &[usize],
        micro_batches: Vec<Vec<usize>>,
        context: &MicroBatchContext,
        denominator: f64,
    ) -> Result<Vec<MicroBatchGradients>> {
        let batch_size = BatchSize::new(examples.iter().map(|example| self.dataset.lengths[*example]));
        let saves_activations = batch_size.rows <= MAX_SAVED_ACTIVATION_TOKENS
            && self.network.fits_budget(batch_size.share_of(self.pool.threads()));
        let forward_context = context.clone();
        let forward_pass = move |micro_batch: Vec<usize>| -> Result<_> {
            let forward = forward_context.forward(&micro_batch)?;
            let outputs = forward.outputs()?;
            Ok((outputs, saves_activations.then_some(forward)))
        };
        let (outputs, forwards): (Vec<Tensor>, Vec<Option<Forward>>) =
            self.pool.map(micro_batches.clone(), &Arc::new(forward_pass))?.into_iter().unzip();
        let (loss, mut gradients) = self.batch_loss(objective, examples, &micro_batches, &outputs, denominator);
        divergence::check_finite_loss(loss)?;
        let to_task = |(micro_batch, forward): (Vec<usize>, Option<Forward>)| {
            let rows: Vec<Vec<f32>> = micro_batch.iter().filter_map(|example| gradients.remove(example)).collect();
            let count: usize = micro_batch.iter().map(|example| self.dataset.objective.row_count(*example)).sum();
            (micro_batch, forward, Tensor::new([count, self.network.output_width()], rows.concat()))
        };
        let tasks: Vec<_> = micro_batches.into_iter().zip(forwards).map(to_task).collect();
        let context = context.clone();
        let backward_pass =
            move |(micro_batch, forward, gradient): (Vec<usize>, Option<Forward>, Tensor)| -> Result<_> {
                let forward = forward.map_or_else(|| context.forward(&micro_batch), Ok)?;
                Ok(MicroBatchGradients { loss: 0.0, gradients: context.network.backward(forward, &gradient)? })
            };
        let mut results = self.pool.map(tasks, &Arc::new(backward_pass))?;
        if let Some(first_part) = results.first_mut() {
            first_part.loss = loss;
        }
        Ok(results)
    }

    /// Loss of the whole batch, and its gradient with respect to each example's rows.
    fn batch_loss(
        &self,
        objective: &dyn BatchObjective,
        examples: &[usize],
        micro_batches: &[Vec<usize>],
        outputs: &[Tensor],
        denominator: f64,
    ) -> (f64, BTreeMap<usize, Vec<f32>>) {
        let (row_count, width) = (|example| self.dataset.objective.row_count(example), self.network.output_width());
        let mut rows: BTreeMap<usize, &[f32]> = BTreeMap::new();
        for (micro_batch, outputs) in micro_batches.iter().zip(outputs) {
            let mut remaining = outputs.values.as_slice();
            for example in micro_batch {
                let (example_rows, following) = remaining.split_at(row_count(*example) * width);
                rows.insert(*example, example_rows);
                remaining = following;
            }
        }
        // The order is that of the batch, so it does not depend on the micro-batches.
        let batch_rows: Vec<f32> = examples.iter().flat_map(|example| rows[example].iter().copied()).collect();
        let (loss, gradient) = objective.batch_loss(&batch_rows, examples);
        let mut remaining = gradient.into_iter().map(|value| (value / denominator) as f32);
        let example_gradient =
            |example: &usize| (*example, remaining.by_ref().take(row_count(*example) * width).collect());
        (loss, examples.iter().map(example_gradient).collect())
    }
}

impl MicroBatchContext {
    fn gradients(&self, micro_batch: &[usize], denominator: f64) -> Result<MicroBatchGradients> {
        let mut input = self.features.forward_input(micro_batch)?;
        let (tokens, label_ids) =
            self.objective.prepare(std::mem::take(&mut input.tokens), micro_batch, MaskingSeed::Epoch(self.epoch));
        input.tokens = tokens;
        let forward = self.network.forward(&self.parameters, input, self.dropout(micro_batch))?;
        let batch = MicroBatch { examples: micro_batch, label_ids: &label_ids };
        self.network.gradients(forward, self.objective.as_ref(), &batch, denominator)
    }

    fn forward(&self, micro_batch: &[usize]) -> Result<Forward> {
        self.network.forward(&self.parameters, self.features.forward_input(micro_batch)?, self.dropout(micro_batch))
    }

    /// Dropout masks are a function of seed, step, example and sequence.
    fn dropout(&self, micro_batch: &[usize]) -> Dropout {
        let sequences = |example: &usize| {
            let example = *example as u64;
            (0..self.features.sequence_count(example as usize) as u64).map(move |sequence| example | sequence << 48)
        };
        Dropout { seed: self.seed, step: self.step, example_ids: micro_batch.iter().flat_map(sequences).collect() }
    }
}
