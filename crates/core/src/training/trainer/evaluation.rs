//! Evaluation of a run: metrics on the validation examples, the reference log-probabilities, and the result of a finished run.

use super::Trainer;
use crate::adapter::TensorSet;
use crate::error::Result;
use crate::model::{BaseModel, FirstTrainableLayer};
use crate::task::calibration;
use crate::task::decision_threshold::LabelThreshold;
use crate::task::example_lines::ClassifiedRows;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::MaskingSeed;
use crate::task::row_targets::RowTargets;
use crate::training::checkpoint::{BestEvaluation, Score};
use crate::training::hyperparameters::PublishedEpoch;
use crate::training::job::TrainingResult;
use crate::training::progress::{Interrupted, MetricsRow, ProgressReporter};
use crate::training::{batching, optimizer, parallel_forward};
use espalier_tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Trainer<'_> {
    /// Computes the log-probabilities of the policy before the first step, where the objective needs them. They are part of every
    /// checkpoint.
    pub(super) fn compute_reference_logprobs(&mut self, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        let objective = Arc::clone(&self.dataset.objective);
        let Some(reference) = objective.as_reference_objective() else { return Ok(()) };
        if self.state.trainer_state.reference_logprobs.len() != objective.example_count() {
            let all_examples: Vec<usize> = (0..objective.example_count()).collect();
            let outputs = self.evaluation_outputs(&self.state.parameters, &all_examples, reporter)?;
            self.state.trainer_state.reference_logprobs = reference.reference_logprobs(&outputs);
        }
        self.dataset.objective = reference.with_reference(&self.state.trainer_state.reference_logprobs);
        Ok(())
    }

    /// Evaluates the current parameters, generates samples, and records both.
    pub(super) fn evaluate_and_record(&mut self, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        if !self.dataset.validation.is_empty() {
            let evaluation = self.evaluate_parameters(&self.state.parameters, reporter)?;
            let row = MetricsRow {
                step: self.state.trainer_state.step,
                split: "validation".to_string(),
                metrics: evaluation.metrics.scalars(),
            };
            // A fresh adapter equals the base model: its evaluation is recorded for comparison, but it is never the best.
            let is_base_only =
                self.spec.from_adapter.is_none() && self.network.first_trainable_layer() != FirstTrainableLayer::Head;
            if self.have_parameters_changed() || !is_base_only {
                self.state.update_best(evaluation.score(self.spec.selection_metric()));
            }
            self.state.trainer_state.metrics_rows.push(row);
        }
        self.generate_samples(reporter)?;
        self.state.trainer_state.last_evaluated_step = Some(self.state.trainer_state.step);
        Ok(())
    }

    /// Whether a step had a learning rate above zero, which the first step of a warm-up has not.
    fn have_parameters_changed(&self) -> bool {
        let hyperparameters = &self.spec.hyperparameters;
        let rate = |step| optimizer::learning_rate(step, self.total_steps, hyperparameters);
        (1..=self.state.trainer_state.step).any(|step| rate(step) > 0.0)
    }

    /// Score of the best evaluation so far, including one of the current parameters. Does not change the state.
    pub fn best_score(&self, reporter: &mut ProgressReporter) -> Result<Score, Interrupted> {
        let trainer_state = &self.state.trainer_state;
        let best = trainer_state.best.as_ref().map(|best| best.score);
        if let Some(best) = best
            && trainer_state.last_evaluated_step == Some(trainer_state.step)
        {
            return Ok(best);
        }
        let evaluation = self.evaluate_parameters(&self.state.parameters, reporter)?;
        let current = evaluation.score(self.spec.selection_metric());
        Ok(best.filter(|best| best.is_better_than(&current) || *best == current).unwrap_or(current))
    }

    /// Best evaluation, where its epoch is published.
    fn published_best(&self) -> Option<&BestEvaluation> {
        let is_best = self.spec.hyperparameters.published_epoch == PublishedEpoch::Best;
        self.state.trainer_state.best.as_ref().filter(|_| is_best)
    }

    /// Result of a finished run: the parameters of the published epoch, calibrated and evaluated on the validation split.
    pub fn build_result(
        &self,
        base: &BaseModel,
        reporter: &mut ProgressReporter,
    ) -> Result<TrainingResult, Interrupted> {
        let trainer_state = &self.state.trainer_state;
        reporter.queue_new_rows(&trainer_state.metrics_rows);
        let best = self.published_best();
        let best_parameters = self.state.best.as_ref().filter(|_| best.is_some()).unwrap_or(&self.state.parameters);
        let steps_per_epoch = self.spec.hyperparameters.steps_per_epoch(self.dataset.training.len());
        let best_step = best.map_or(trainer_state.step, |best| best.step);
        let mut metrics = json!({
            "steps": trainer_state.step,
            "best_step": best_step,
            "best_epoch": best_step as f64 / steps_per_epoch as f64,
            "training_examples": self.dataset.training.len(),
        });
        let (mut temperature, mut thresholds, mut validation_details) = (1.0, Vec::new(), Map::new());
        if !self.dataset.validation.is_empty() {
            let evaluation = self.evaluate_parameters(best_parameters, reporter)?;
            temperature = evaluation.temperature();
            metrics["validation"] = evaluation.report(temperature);
            validation_details = evaluation.details(temperature);
            thresholds = self.suggest_thresholds(&evaluation, temperature);
            if !thresholds.is_empty() {
                let by_label = thresholds.iter().map(|one| (self.spec.labels[one.label].clone(), json!(one)));
                metrics["validation"]["thresholds"] = by_label.collect();
            }
            if self.dataset.shared_validation > 0 {
                metrics["validation"]["shared_with_training"] = json!(self.dataset.shared_validation);
            }
        }
        reporter.check_stop()?;
        Ok(TrainingResult {
            weights: self.published_weights(base, best_parameters)?,
            temperature,
            thresholds: thresholds.iter().map(|one| (self.spec.labels[one.label].clone(), one.threshold)).collect(),
            metrics,
            validation_details,
            metrics_rows: trainer_state.metrics_rows.clone(),
            probe_examples: self.dataset.probe.clone(),
            successive_halving: None,
        })
    }

    fn suggest_thresholds(&self, evaluation: &Evaluation, temperature: f32) -> Vec<LabelThreshold> {
        let training = self.dataset.objective.row_targets(&self.dataset.training);
        match (training, &evaluation.row_targets) {
            (Some(training), Some(validation)) => {
                self.spec.task.suggest_thresholds(&training, validation, &evaluation.outputs, temperature)
            }
            _ => Vec::new(),
        }
    }

    /// Tensors as they are published, with a head whose outputs are in the unit of the dataset.
    fn published_weights(&self, base: &BaseModel, parameters: &[Tensor]) -> Result<BTreeMap<String, Tensor>> {
        let pooling = self.spec.task.pooling().unwrap_or(base.info().default_pooling);
        let trained = self.parameter_names.iter().cloned().zip(parameters.iter().cloned());
        let weights = trained.chain(self.constants.clone()).collect();
        let weights = match self.spec.tensor_set() {
            TensorSet::Training => self.spec.method.inference_weights(base, pooling, weights)?,
            TensorSet::Inference => weights,
        };
        Ok(self.dataset.objective.denormalize_head(weights))
    }

    /// Evaluates these parameters on the validation split.
    fn evaluate_parameters(
        &self,
        parameters: &[Tensor],
        reporter: &mut ProgressReporter,
    ) -> Result<Evaluation, Interrupted> {
        let examples = &self.dataset.validation;
        let outputs = self.evaluation_outputs(parameters, examples, reporter)?;
        let labels = &self.spec.labels;
        Ok(Evaluation {
            metrics: self.dataset.objective.metrics(&outputs, examples, labels),
            row_targets: self.dataset.objective.row_targets(examples),
            lines: self.row_lines(examples),
            outputs,
            labels: labels.clone(),
        })
    }

    /// Line of the dataset of each row that the head reads.
    fn row_lines(&self, examples: &[usize]) -> Vec<u64> {
        let rows = |example: &usize| {
            std::iter::repeat_n(self.dataset.lines[*example], self.dataset.objective.row_count(*example))
        };
        examples.iter().flat_map(rows).collect()
    }

    /// Evaluation outputs of these examples, concatenated.
    fn evaluation_outputs(
        &self,
        parameters: &[Tensor],
        examples: &[usize],
        reporter: &mut ProgressReporter,
    ) -> Result<Vec<f32>, Interrupted> {
        let parameters = self.network.upload(parameters)?;
        let (network, features) = (Arc::clone(&self.network), self.features.clone());
        let objective = Arc::clone(&self.dataset.objective);
        let forward = move |micro_batch: Vec<usize>| {
            let mut input = features.forward_input(&micro_batch)?;
            let (tokens, label_ids) =
                objective.prepare(std::mem::take(&mut input.tokens), &micro_batch, MaskingSeed::Evaluation);
            input.tokens = tokens;
            network.eval_outputs(&parameters, &input, &label_ids)
        };
        let value_count = |example| self.dataset.objective.row_count(example) * self.network.output_width();
        let micro_batches = batching::micro_batches(examples, &self.dataset.lengths, self.spec.micro_batch_tokens);
        let mut outputs: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        let store = |example: usize, values: &[f32]| {
            outputs.insert(example, values.to_vec());
            Ok(())
        };
        parallel_forward::for_each_example(&self.pool, &micro_batches, forward, reporter, value_count, store)?;
        Ok(examples.iter().flat_map(|example| outputs.remove(example).unwrap_or_default()).collect())
    }
}

/// Evaluation on the validation split.
struct Evaluation {
    /// Of all examples, concatenated.
    outputs: Vec<f32>,
    metrics: Box<dyn TaskMetrics>,
    row_targets: Option<RowTargets>,
    /// Line of the dataset of each row.
    lines: Vec<u64>,
    labels: Vec<String>,
}

impl Evaluation {
    fn score(&self, metric: &str) -> Score {
        Score { score: self.metrics.score(metric), loss: self.metrics.loss() }
    }

    /// Classes of the rows, and their number, where the rows have classes.
    fn classes(&self) -> Option<(&[u32], usize)> {
        match self.row_targets.as_ref()? {
            RowTargets::Classes { classes, class_count, .. } => Some((classes, *class_count)),
            RowTargets::LabelSets { .. } | RowTargets::Values { .. } => None,
        }
    }

    /// Temperature of the logits of classes; 1 for other outputs.
    fn temperature(&self) -> f32 {
        match self.classes() {
            Some((classes, count)) if !classes.is_empty() => {
                calibration::fit_temperature(&self.outputs, count, classes, 0.0)
            }
            Some(_) | None => 1.0,
        }
    }

    /// All metrics, with the calibration of classes.
    fn report(&self, temperature: f32) -> Value {
        let mut report = self.metrics.report(&self.labels);
        if let Some((classes, count)) = self.classes() {
            let expected_calibration_error =
                |temperature| calibration::expected_calibration_error(&self.outputs, count, classes, temperature);
            report["calibration"] = json!({
                "temperature": temperature,
                "expected_calibration_error_before": expected_calibration_error(1.0),
                "expected_calibration_error_after": expected_calibration_error(temperature),
            });
        }
        report
    }

    /// Reliability diagram, and lines of examples of each pair of true and predicted class.
    fn details(&self, temperature: f32) -> Map<String, Value> {
        let Some((classes, count)) = self.classes() else { return Map::new() };
        let rows = ClassifiedRows { logits: &self.outputs, classes, class_count: count, lines: &self.lines };
        let bins = calibration::reliability_bins(&self.outputs, count, classes, temperature);
        let lines = rows.example_lines(&self.labels);
        [("calibration_bins".to_string(), json!(bins)), ("example_lines".to_string(), json!(lines))]
            .into_iter()
            .collect()
    }
}
