//! Multi-label classification: objective, with binary cross entropy per label, and metrics.

use super::Config;
use crate::error::Result;
use crate::task::Task;
use crate::task::confidence::{self, Interval};
use crate::task::label_weights::{ClassWeights, LabelWeights};
use crate::task::metrics::{PerClass, TaskMetrics, macro_f1, ratio_or_zero};
use crate::task::objective::{LabelIds, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::{RowTargets, binary_cross_entropy};
use crate::task::{Example, Target};
use serde::Serialize;
use serde_json::{Value, json};

/// A sorted set of labels per example.
#[derive(Debug, Clone)]
pub struct LabelSetObjective {
    pub sets: Vec<Vec<u32>>,
    labels: Vec<String>,
    class_weights: Option<ClassWeights>,
    weights: LabelWeights,
}

impl LabelSetObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example with a label that the job does not have, or without a set of labels.
    pub fn new(context: &ObjectiveContext, config: &Config) -> Result<Self> {
        let labels = LabelIds::new(context.labels);
        let label_set = |example: &&Example| match &example.target {
            Target::MultiLabel(names) => labels.id_set(names, example.line),
            _ => Err(example.wrong_target(config.type_name())),
        };
        let sets = context.examples.iter().map(label_set).collect::<Result<_>>()?;
        let (labels, class_weights) = (context.labels.to_vec(), config.class_weights.clone());
        Ok(Self { sets, labels, class_weights, weights: LabelWeights::default() })
    }

    fn targets(&self, examples: &[usize]) -> RowTargets {
        let (label_count, weights) = (self.labels.len(), self.weights.clone());
        RowTargets::LabelSets { sets: gather(&self.sets, examples), label_count, weights }
    }
}

impl Objective for LabelSetObjective {
    fn example_count(&self) -> usize {
        self.sets.len()
    }

    fn row_count(&self, _example: usize) -> usize {
        1
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics> {
        Box::new(MultiLabelMetrics::new(outputs, &gather(&self.sets, examples), labels))
    }

    /// Fits the weights of the labels to their frequencies.
    fn fit(&mut self, training: &[usize]) {
        let Some(class_weights) = &self.class_weights else { return };
        let mut counts = vec![0; self.labels.len()];
        training.iter().flat_map(|example| &self.sets[*example]).for_each(|label| counts[*label as usize] += 1);
        self.weights = class_weights.of_label_sets(&self.labels, &counts, training.len());
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }
}

/// Metrics of a multi-label classifier. A label is predicted where its logit is above 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MultiLabelMetrics {
    pub examples: usize,
    /// Mean binary cross entropy over examples and labels.
    pub loss: f64,
    /// F1 over the decisions of all labels together.
    pub micro_f1: f64,
    /// Mean F1 of the labels that occur.
    pub macro_f1: f64,
    /// Share of examples whose labels are all correct (subset accuracy).
    pub exact_match: f64,
    #[serde(skip)]
    per_class: Vec<PerClass>,
    /// Labels that are correctly predicted, and those predicted or left out by mistake.
    #[serde(skip)]
    correct: usize,
    #[serde(skip)]
    errors: usize,
}

impl MultiLabelMetrics {
    /// From logits `(examples, labels)`.
    pub fn new(logits: &[f32], label_sets: &[Vec<u32>], labels: &[String]) -> Self {
        let label_count = labels.len();
        let [mut true_positives, mut predicted, mut support] = [(); 3].map(|()| vec![0; label_count]);
        let (mut exact_matches, mut loss) = (0, 0.0);
        for (row, set) in logits.chunks_exact(label_count).zip(label_sets) {
            let mut is_exact = true;
            for (label, logit) in row.iter().enumerate() {
                let (is_predicted, is_true) = (*logit > 0.0, set.contains(&(label as u32)));
                predicted[label] += usize::from(is_predicted);
                support[label] += usize::from(is_true);
                true_positives[label] += usize::from(is_predicted && is_true);
                is_exact &= is_predicted == is_true;
                loss += binary_cross_entropy(f64::from(*logit), is_true);
            }
            exact_matches += usize::from(is_exact);
        }
        let class = |(label, name): (usize, &String)| {
            PerClass::new(name, true_positives[label], predicted[label], support[label])
        };
        let per_class: Vec<PerClass> = labels.iter().enumerate().map(class).collect();
        let total = |counts: &[usize]| counts.iter().sum::<usize>();
        Self {
            examples: label_sets.len(),
            loss: loss / (label_sets.len() * label_count).max(1) as f64,
            micro_f1: ratio_or_zero(2 * total(&true_positives), total(&predicted) + total(&support)),
            macro_f1: macro_f1(&per_class),
            exact_match: ratio_or_zero(exact_matches, label_sets.len()),
            per_class,
            correct: total(&true_positives),
            errors: total(&predicted) + total(&support) - 2 * total(&true_positives),
        }
    }
}

impl TaskMetrics for MultiLabelMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        let exact_match = confidence::proportion(self.exact_match, self.examples);
        vec![("micro_f1", confidence::f1(self.correct, self.errors)), ("exact_match", exact_match)]
    }

    fn add_details(&self, _labels: &[String], report: &mut Value) {
        report["per_class"] = json!(self.per_class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_a_worked_example() {
        // Predicted {0}, {0, 1}, {}, {2}; actual {0}, {1}, {2}, {2}; computed by hand from scikit-learn's definitions.
        let logits = [1., -1., -1., 1., 1., -1., -1., -1., -1., -1., -1., 1.];
        let sets = [vec![0], vec![1], vec![2], vec![2]];
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let metrics = MultiLabelMetrics::new(&logits, &sets, &labels);
        assert_eq!(metrics.exact_match, 0.5);
        assert_eq!(metrics.micro_f1, 6.0 / 8.0);
        assert!((metrics.macro_f1 - (2.0 / 3.0 + 1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!((metrics.per_class[2].precision, metrics.per_class[2].recall), (1.0, 0.5));
        let expected: f64 = 10.0 * (1.0f64 + (-1.0f64).exp()).ln() + 2.0 * (1.0 + 1.0f64.exp()).ln();
        assert!((metrics.loss - expected / 12.0).abs() < 1e-12, "{}", metrics.loss);
    }
}
