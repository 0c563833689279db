//! Regression: a number for a text or a pair of texts.
//!
//! The objective is the squared error of values that are scaled to mean 0 and standard deviation 1. Outliers are clipped for it, so that
//! one typing error does not decide the scale, and left out of the metrics. These are errors, explained variance and correlations.

use super::{Example, HeadSpec, Input, PostprocessContext, RowSchema, Task, TaskDefaults, UntrainableRows, head};
use crate::error::Result;
use crate::model::{ClassificationHeadSpec, Pooling, TextLimits, Tokenizer, Tokens};
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use crate::task::value_range::ValueRange;
use crate::task::{Scale, Target};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

mod metrics;

pub use metrics::RegressionMetrics;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Regression)]
pub struct Config {
    /// Pooling of a sequence to one row; by default the base's own, but `mean` in place of `cls` with fewer than 200 examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Layers of the head; by default those of the base's own head for `cls`, else one linear map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<head::Config>,
}

/// Predicted number.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Number)]
pub struct Prediction {
    pub value: f32,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "regression"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults { min_head_examples: None, ..TaskDefaults::TEXT }
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["loss", "mean_absolute_error", "pearson", "spearman", "r2"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Value]
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::pooled(1, self.head.as_ref())
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        input.tokenize(tokenizer, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        Ok(vec![example.tokenize(tokenizer, max_length)?])
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Refuse
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(ValueObjective::new(context, self.type_name())?))
    }

    fn postprocess(
        &self,
        _context: &PostprocessContext,
        outputs: Vec<f32>,
        _input: &Input,
    ) -> Result<super::Prediction> {
        let value = outputs.first().copied().unwrap_or_default();
        Ok(super::Prediction::Regression(Prediction { value }))
    }

    fn accepts_text_pairs(&self) -> bool {
        true
    }

    fn pooling(&self) -> Option<Pooling> {
        self.pooling
    }

    fn set_pooling(&mut self, pooling: Pooling) {
        self.pooling = Some(pooling);
    }

    fn set_base_head(&mut self, base_head: ClassificationHeadSpec) {
        head::Config::set_default(&mut self.head, self.pooling, base_head);
    }
}

/// One value per example.
#[derive(Debug, Clone)]
pub struct ValueObjective {
    pub values: Vec<f32>,
    pub scale: Scale,
    /// Range of the training values; `None` before the fit.
    range: Option<ValueRange>,
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
        Ok(Self { values, scale: Scale::IDENTITY, range: None })
    }

    fn targets(&self, examples: &[usize]) -> RowTargets {
        let values = examples.iter().map(|example| self.clipped_value(*example)).collect();
        RowTargets::Values { values, scale: self.scale }
    }

    /// The value, or the end of the range where it is an outlier.
    fn clipped_value(&self, example: usize) -> f32 {
        let value = self.values[example];
        self.range.map_or(value, |range| range.clip(f64::from(value)) as f32)
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
        let is_outlier = |value: f32| self.range.is_some_and(|range| range.is_outlier(f64::from(value)));
        let all = outputs.iter().zip(gather(&self.values, examples));
        let (predicted, actual): (Vec<f32>, Vec<f32>) = all
            .filter(|(_, value)| !is_outlier(*value))
            .map(|(output, value)| (self.scale.denormalize(*output), value))
            .unzip();
        let outliers = examples.len() - actual.len();
        Box::new(RegressionMetrics { outliers, ..RegressionMetrics::new(&predicted, &actual) })
    }

    /// Fits the range and the scale to the training values: to the mean and the standard deviation of the clipped ones.
    fn fit(&mut self, training: &[usize]) {
        self.range = ValueRange::new(training.iter().map(|example| f64::from(self.values[*example])).collect());
        self.scale = Scale::standardize(training.iter().map(|example| self.clipped_value(*example)));
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
    use serde_json::json;

    #[test]
    fn an_outlier_does_not_decide_the_scale_or_the_metrics() {
        let clean: Vec<f32> = (0..100).map(|index| (index % 10) as f32).collect();
        let fitted = |values: Vec<f32>| {
            let training: Vec<usize> = (0..values.len()).collect();
            let mut objective = ValueObjective { values, scale: Scale::IDENTITY, range: None };
            objective.fit(&training);
            objective
        };
        let without = fitted(clean.clone());
        let with_outlier = fitted([clean.clone(), vec![5.8e9]].concat());
        assert_eq!(without.scale, Scale::standardize(clean.iter().copied()), "clean values keep their scale");
        assert!(with_outlier.scale.deviation < 1.1 * without.scale.deviation, "{:?}", with_outlier.scale);
        let outputs: Vec<f32> =
            with_outlier.values.iter().map(|value| with_outlier.scale.normalize(*value) as f32).collect();
        let examples: Vec<usize> = (0..outputs.len()).collect();
        let report = with_outlier.metrics(&outputs, &examples, &[]).to_json();
        assert_eq!((&report["examples"], &report["outliers"]), (&json!(100), &json!(1)));
        assert!(report["r2"].as_f64().unwrap() > 0.99, "{report}");
        assert!(without.metrics(&outputs[..100], &examples[..100], &[]).to_json().get("outliers").is_none());
    }

    #[test]
    fn a_denormalized_head_predicts_in_the_original_unit() {
        let mut objective = ValueObjective { values: vec![10.0, 20.0, 60.0], scale: Scale::IDENTITY, range: None };
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
