//! Trainer of one run: from an initial adapter or a checkpoint to the last step.
//!
//! The input of a step is a function of data, specification and step, and gradients are summed in the order of the micro-batches, so
//! the result is bit-identical for any number of threads and interruptions.

mod evaluation;
mod samples;

use super::batching;
use super::checkpoint::{CheckpointDir, TrainerState, TrainingState};
use super::checkpoint_schedule::CheckpointSchedule;
use super::feature_cache::CachedFeatures;
use super::gradient_accumulation::BatchJob;
use super::head_init::HeadInit;
use super::job::Settings;
use super::job_context::JobContext;
use super::network::{MicroBatchGradients, Network};
use super::optimizer::{self, AdamWStep, Moments, ParamGroup};
use super::progress::{Interrupted, MetricsRow, ProgressReporter, StepReport};
use super::source_weights::SourceWeights;
use super::spec::Spec;
use super::tokenized_dataset::TokenizedDataset;
use super::warm_start::{FromAdapter, HeadReuse};
use crate::adapter::ParameterBuilder;
use crate::error::Result;
use espalier_tensor::Tensor;
use espalier_tensor::worker_pool::WorkerPool;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tracing::Span;

/// Steps between two `train` rows.
const LOGGING_STEPS: u64 = 10;

/// One run.
pub struct Trainer<'a> {
    pub spec: &'a Spec,
    pub dataset: TokenizedDataset,
    pub state: TrainingState,
    pub parameter_names: Vec<String>,
    /// Tensors that are published with the adapter but not trained.
    pub constants: BTreeMap<String, Tensor>,
    network: Arc<Network>,
    param_groups: Vec<ParamGroup>,
    pool: Arc<WorkerPool>,
    /// Features of the frozen base below the lowest trainable layer.
    features: CachedFeatures,
    /// Current epoch and the order of its examples.
    epoch_order: Option<(u64, Vec<usize>)>,
    /// Span of the current epoch.
    epoch_span: Span,
    total_steps: u64,
    hidden_size: usize,
}

impl<'a> Trainer<'a> {
    /// Resumes from the newest checkpoint, else starts from `source_weights`, else from a fresh adapter. A new head is initialised
    /// from the features.
    pub fn resume_or_start(
        context: &JobContext,
        spec: &'a Spec,
        dataset: TokenizedDataset,
        source_weights: Option<&SourceWeights>,
        checkpoint_dir: &mut CheckpointDir,
        reporter: &mut ProgressReporter,
    ) -> Result<Self, Interrupted> {
        let (base, hidden_size) = (context.base, context.base.info().hidden_size);
        let parameters = match source_weights {
            Some(source) => source.initial_parameters(spec, dataset.objective.as_ref(), hidden_size),
            None => ParameterBuilder::from_seed(spec.hyperparameters.seed),
        };
        let (network, adapter) = Network::build(base, spec, parameters)?;
        let (names, constants) = (adapter.names, adapter.frozen_tensors);
        let checkpoint = checkpoint_dir.load(&names)?;
        let is_fresh = checkpoint.is_none();
        let state = checkpoint.unwrap_or_else(|| TrainingState {
            moments: Moments::zeros(&adapter.tensors),
            parameters: adapter.tensors,
            best: None,
            trainer_state: TrainerState {
                metrics_rows: spec.from_adapter.iter().map(warm_start_row).collect(),
                ..TrainerState::default()
            },
        });
        let total_steps = spec.hyperparameters.total_steps(dataset.training.len());
        let settings = context.settings;
        let network =
            Arc::new(network.with_activation_budget(settings.activation_memory_bytes / settings.threads.max(1) as u64));
        let extractor = context.feature_extractor(spec, &network, &dataset);
        let preparation = tracing::debug_span!("features").entered();
        let features = context.cached_features(&extractor, reporter)?;
        let head_init = match is_fresh && spec.head_reuse() != HeadReuse::Kept {
            true => context.fit_head_init(&extractor, &features, &state.parameters, reporter)?,
            false => None,
        };
        drop(preparation);
        let mut trainer = Self {
            param_groups: param_groups(spec, &names, &state.parameters),
            pool: Arc::clone(&context.pool),
            network,
            hidden_size,
            features,
            epoch_order: None,
            epoch_span: Span::none(),
            total_steps,
            dataset,
            state,
            parameter_names: names,
            constants,
            spec,
        };
        if let Some(head_init) = head_init {
            trainer.init_head(head_init, source_weights);
        }
        trainer.compute_reference_logprobs(reporter)?;
        match is_fresh {
            true => tracing::info!(total_steps, "training starts"),
            false => tracing::info!(step = trainer.state.trainer_state.step, total_steps, "training resumes"),
        }
        Ok(trainer)
    }

    /// Sets the head's parameters; rows of the source adapter take precedence over fitted ones.
    fn init_head(&mut self, head_init: HeadInit, source_weights: Option<&SourceWeights>) {
        let width = self.hidden_size;
        let (Some(head), Some(targets)) =
            (self.network.output_head().trained_head(), self.dataset.objective.row_targets(&[]))
        else {
            return;
        };
        let probe = match (source_weights, self.spec.head_reuse()) {
            (Some(source), HeadReuse::Extended) => source.extend_head(head_init.probe, &targets, width),
            _ => head_init.probe,
        };
        let count = targets.output_width();
        self.state.parameters[head.weight.index()] = Tensor::new([count, width], probe.weight);
        self.state.parameters[head.bias.index()] = Tensor::new([count], probe.bias);
        if let (Some(layer), Some([weight, bias])) = (head.dense, head_init.dense_layer) {
            self.state.parameters[layer.weight.index()] = weight;
            self.state.parameters[layer.bias.index()] = bias;
        }
    }

    /// Trains and evaluates up to `end_step` or the end of the run. The state is consistent whenever this returns.
    pub fn train_until(
        &mut self,
        end_step: u64,
        checkpoint_dir: &mut CheckpointDir,
        settings: &Settings,
        reporter: &mut ProgressReporter,
    ) -> Result<(), Interrupted> {
        let steps_per_epoch = self.spec.hyperparameters.steps_per_epoch(self.dataset.training.len());
        let mut checkpoint_schedule = CheckpointSchedule::new(Instant::now(), settings.checkpoint_interval);
        let mut checkpoint_step = self.state.trainer_state.step;
        if self.state.trainer_state.step == 0 && self.state.trainer_state.last_evaluated_step.is_none() {
            // The head and the reference log-probabilities, which the preparation has computed, are in it.
            self.save(checkpoint_dir, reporter)?;
            reporter.check_stop()?;
        }
        loop {
            let step = self.state.trainer_state.step;
            let is_last = step == self.total_steps;
            if (step.is_multiple_of(steps_per_epoch) || is_last)
                && self.state.trainer_state.last_evaluated_step != Some(step)
            {
                let _span = tracing::debug_span!("evaluation", step).entered();
                self.evaluate_and_record(reporter)?;
            }
            if is_last || step >= end_step || self.should_stop_early() {
                // A crash while the adapter is published then costs no step.
                if checkpoint_step < step {
                    self.save(checkpoint_dir, reporter)?;
                }
                return Ok(());
            }
            if checkpoint_schedule.is_due(Instant::now()) {
                self.save(checkpoint_dir, reporter)?;
                checkpoint_schedule.mark_saved(Instant::now());
                checkpoint_step = step;
            }
            let loss = self.step(steps_per_epoch)?;
            reporter.report_step(&StepReport {
                step: self.state.trainer_state.step,
                total_steps: self.total_steps,
                steps_per_epoch,
                examples_per_step: self.spec.hyperparameters.examples_per_step(),
                loss,
                metrics_rows: &self.state.trainer_state.metrics_rows,
            })?;
        }
    }

    fn save(&self, checkpoint_dir: &mut CheckpointDir, reporter: &mut ProgressReporter) -> Result<()> {
        let _span = tracing::debug_span!("checkpoint", step = self.state.trainer_state.step).entered();
        checkpoint_dir.save(&self.state, &self.parameter_names)?;
        reporter.mark_checkpointed();
        Ok(())
    }

    /// Whether early stopping applies.
    fn should_stop_early(&self) -> bool {
        let stopping = self.spec.hyperparameters.early_stopping.as_ref();
        stopping.is_some_and(|stopping| self.state.trainer_state.evaluations_since_best >= stopping.patience)
    }

    /// One optimizer step. Returns the mean loss of the batch.
    fn step(&mut self, steps_per_epoch: u64) -> Result<f64, Interrupted> {
        let hyperparameters = &self.spec.hyperparameters;
        let step = self.state.trainer_state.step;
        let (epoch, step_in_epoch) = (step / steps_per_epoch, (step % steps_per_epoch) as usize);
        if self.epoch_order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.epoch_order =
                Some((epoch, batching::shuffled_epoch(&self.dataset.training, hyperparameters.seed, epoch)));
            self.epoch_span = tracing::debug_span!("epoch", epoch);
        }
        let _in_epoch = self.epoch_span.clone().entered();
        let order = self.epoch_order.as_ref().map_or(&[][..], |(_, order)| order.as_slice());
        let start = step_in_epoch * hyperparameters.examples_per_step();
        let batch = &order[start..order.len().min(start + hyperparameters.examples_per_step())];
        let denominator = self.dataset.objective.loss_denominator(batch).max(1);
        let batch_job = BatchJob {
            pool: &self.pool,
            network: &self.network,
            dataset: &self.dataset,
            features: &self.features,
            spec: self.spec,
            parameters: self.network.upload(&self.state.parameters)?,
            step,
            epoch,
        };
        let (loss, mut gradients) = self.sum_gradients(&batch_job.micro_batch_gradients(batch, denominator as f64)?);
        let norm = optimizer::clip_grad_norm(&mut gradients, hyperparameters.max_grad_norm)?;
        let learning_rate = optimizer::learning_rate(step + 1, self.total_steps, hyperparameters);
        let update = AdamWStep { step: step + 1, learning_rate, weight_decay: hyperparameters.weight_decay };
        update.apply(&mut self.state.parameters, &self.param_groups, &gradients, &mut self.state.moments);
        let counters = &mut self.state.trainer_state;
        counters.step += 1;
        counters.log_window_loss += loss;
        counters.log_window_examples += denominator as u64;
        if counters.step.is_multiple_of(LOGGING_STEPS) || counters.step == self.total_steps {
            let mean = counters.log_window_loss / counters.log_window_examples as f64;
            let metrics = json!({"loss": mean, "learning_rate": learning_rate, "gradient_norm": norm});
            counters.metrics_rows.push(MetricsRow { step: counters.step, split: "train".to_string(), metrics });
            (counters.log_window_loss, counters.log_window_examples) = (0.0, 0);
        }
        Ok(loss / denominator as f64)
    }

    /// Sums losses and gradients in the order of the micro-batches.
    fn sum_gradients(&self, micro_batches: &[MicroBatchGradients]) -> (f64, Vec<Vec<f32>>) {
        let mut gradients: Vec<Vec<f32>> =
            self.state.parameters.iter().map(|one| vec![0.0; one.values.len()]).collect();
        for part in micro_batches {
            for (sum, gradient) in gradients.iter_mut().zip(&part.gradients) {
                sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
            }
        }
        (micro_batches.iter().map(|part| part.loss).sum(), gradients)
    }
}

/// Metrics row with the reuse of the adapter that a run starts from.
fn warm_start_row(from_adapter: &FromAdapter) -> MetricsRow {
    MetricsRow { step: 0, split: "start".to_string(), metrics: json!({"from_adapter": from_adapter}) }
}

fn param_groups(spec: &Spec, names: &[String], parameters: &[Tensor]) -> Vec<ParamGroup> {
    let param_group =
        |(name, parameter): (&String, _)| ParamGroup::new(parameter, spec.method.learning_rate_ratio(name));
    names.iter().zip(parameters).map(param_group).collect()
}
