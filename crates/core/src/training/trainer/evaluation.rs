//! What a run's parameters are worth: on the validation examples, and what preferences are measured against.

use super::{Interrupted, Trainer};
use crate::error::Result;
use crate::model::FirstTrainableLayer;
use crate::task::metrics::preference;
use crate::task::targets::Targets;
use crate::training::lm_labels::MaskingSeed;
use crate::training::metrics_report::Evaluation;
use crate::training::progress_reporter::ProgressReporter;
use crate::training::{batching, parallel_forward};
use espalier_tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Trainer<'_> {
    /// What preferences are measured against: the policy before the first step, computed once and kept with every checkpoint.
    pub(super) fn compute_reference_logprobs(&mut self, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        let Targets::PreferencePairs { answer_lengths: lengths, .. } = self.dataset.targets.as_ref() else {
            return Ok(());
        };
        if self.state.trainer_state.reference_logprobs.len() != lengths.len() {
            let all_examples: Vec<usize> = (0..lengths.len()).collect();
            let token_metrics = self.evaluation_outputs(&self.state.parameters, &all_examples, reporter)?;
            self.state.trainer_state.reference_logprobs = preference::answer_logprobs(&token_metrics, lengths);
        }
        self.dataset.targets =
            Arc::new(self.dataset.targets.with_reference(&self.state.trainer_state.reference_logprobs));
        Ok(())
    }

    pub(super) fn evaluate_and_record(&mut self, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        if !self.dataset.validation.is_empty() {
            let evaluation = self.evaluate_parameters(&self.state.parameters, reporter)?;
            let row = evaluation.row(self.state.trainer_state.step);
            let (score, loss) = (evaluation.metrics.score(self.spec.selection_metric()), evaluation.metrics.loss());
            // A fresh adapter is the bare base: it is measured, to be compared with, but never published.
            let is_base_only =
                self.spec.from_adapter.is_none() && self.network.first_trainable_layer() != FirstTrainableLayer::Head;
            if self.state.trainer_state.step > 0 || !is_base_only {
                self.state.update_best(score, loss);
            }
            self.state.trainer_state.metrics_rows.push(row);
        }
        self.generate_samples(reporter)?;
        self.state.trainer_state.last_evaluated_step = Some(self.state.trainer_state.step);
        Ok(())
    }

    /// The score and the loss of the best evaluation so far, the present parameters' own included. Evaluates without a trace.
    pub fn best_score(&self, reporter: &mut ProgressReporter) -> Result<(f64, f64), Interrupted> {
        let counters = &self.state.trainer_state;
        let best = counters.best.as_ref().map(|best| (best.score, best.loss));
        if let Some(best) = best
            && counters.last_evaluated_step == Some(counters.step)
        {
            return Ok(best);
        }
        let metrics = self.evaluate_parameters(&self.state.parameters, reporter)?.metrics;
        let current = (metrics.score(self.spec.selection_metric()), metrics.loss());
        Ok(best.filter(|best| best.0 > current.0 || (best.0 == current.0 && best.1 <= current.1)).unwrap_or(current))
    }

    /// The validation split's logits and figures under these parameters.
    pub fn evaluate_parameters(
        &self,
        parameters: &[Tensor],
        reporter: &mut ProgressReporter,
    ) -> Result<Evaluation, Interrupted> {
        let indices = &self.dataset.validation;
        let outputs = self.evaluation_outputs(parameters, indices, reporter)?;
        Ok(Evaluation::new(outputs, self.dataset.targets.select(indices), &self.spec.labels))
    }

    /// What evaluation keeps of these examples, end to end.
    fn evaluation_outputs(
        &self,
        parameters: &[Tensor],
        indices: &[usize],
        reporter: &mut ProgressReporter,
    ) -> Result<Vec<f32>, Interrupted> {
        let parameters = self.network.upload(parameters)?;
        let (network, features) = (Arc::clone(&self.network), self.features.clone());
        let lm_labels = self.dataset.lm_labels.clone();
        let forward = move |micro_batch: Vec<usize>| {
            let source = features.forward_input(&micro_batch)?;
            let Some(asked) = &lm_labels else { return network.outputs(&parameters, &source) };
            let (input, target_ids) = asked.apply(source, &micro_batch, MaskingSeed::Evaluation);
            network.token_metrics(&parameters, &input, &target_ids)
        };
        let targets = &self.dataset.targets;
        let output_width = self.network.output_width();
        let micro_batches = batching::micro_batches(indices, &self.dataset.lengths, self.spec.micro_batch_tokens);
        let mut outputs: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        parallel_forward::parallel_forward(&self.pool, &micro_batches, forward, reporter, |piece, mut rest| {
            for index in piece {
                let (example_outputs, remaining) = rest.split_at(targets.row_count(*index) * output_width);
                outputs.insert(*index, example_outputs.to_vec());
                rest = remaining;
            }
            Ok(())
        })?;
        Ok(indices.iter().flat_map(|index| outputs.remove(index).unwrap_or_default()).collect())
    }
}
