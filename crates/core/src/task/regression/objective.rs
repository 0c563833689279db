//! Objective of regression: squared error of values that are scaled to mean 0 and standard deviation 1.

use super::metrics::RegressionMetrics;
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use crate::task::{Example, Scale, Target, head};
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

/// One value per example.
#[derive(Debug, Clone)]
pub struct ValueObjective {
    pub values: Vec<f32>,
    pub scale: Scale,
}

impl ValueObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example without a value.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let value = |example: &&Example| match example.target {
            Target::Value(value) => Ok(value as f32),
            _ => Err(example.wrong_target(task_type)),
        };
        let values = context.examples.iter().map(value).collect::<Result<_>>()?;
        Ok(Self { values, scale: Scale::IDENTITY })
    }

    fn targets(&self, examples: &[usize]) -> RowTargets {
        RowTargets::Values { values: gather(&self.values, examples), scale: self.scale }
    }
}

impl Objective for ValueObjective {
    fn example_count(&self) -> usize {
        self.values.len()
    }

    fn row_count(&self, _example: usize) -> usize {
        1
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        let predicted: Vec<f32> = outputs.iter().map(|output| self.scale.denormalize(*output)).collect();
        Box::new(RegressionMetrics::new(&predicted, &gather(&self.values, examples)))
    }

    /// Fits the scale to the mean and the standard deviation of the training values.
    fn fit(&mut self, training: &[usize]) {
        self.scale = Scale::standardize(training.iter().map(|example| self.values[*example]));
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }

    fn denormalize_head(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        for (name, shift) in [(head::OUTPUT_WEIGHT, 0.0), (head::OUTPUT_BIAS, self.scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = *value * self.scale.deviation + shift);
            }
        }
        weights
    }

    fn normalize_head(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        for (name, shift) in [(head::OUTPUT_WEIGHT, 0.0), (head::OUTPUT_BIAS, self.scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = (*value - shift) / self.scale.deviation);
            }
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denormalized_head_predicts_in_the_original_unit() {
        let mut objective = ValueObjective { values: vec![10.0, 20.0, 60.0], scale: Scale::IDENTITY };
        objective.fit(&[0, 1]);
        assert_eq!((objective.scale.mean, objective.scale.deviation), (15.0, 5.0));
        let head = [(head::OUTPUT_WEIGHT, vec![2.0]), (head::OUTPUT_BIAS, vec![0.5])];
        let weights = head.map(|(name, values)| (name.to_string(), Tensor::new([values.len()], values)));
        let weights = objective.denormalize_head(weights.into());
        assert_eq!((weights[head::OUTPUT_WEIGHT].values[0], weights[head::OUTPUT_BIAS].values[0]), (10.0, 17.5));
        let back = objective.normalize_head(weights);
        assert_eq!((back[head::OUTPUT_WEIGHT].values[0], back[head::OUTPUT_BIAS].values[0]), (2.0, 0.5));
        assert_eq!(objective.scale.denormalize(2.0 * 3.0 + 0.5), 10.0 * 3.0 + 17.5);
    }
}
