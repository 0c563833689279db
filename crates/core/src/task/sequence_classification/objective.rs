//! Objective of single-label classification: cross entropy over the classes.

use super::metrics::ClassificationMetrics;
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LabelIds, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use crate::task::{Example, Target};

/// One class per example.
#[derive(Debug, Clone)]
pub struct ClassObjective {
    pub classes: Vec<u32>,
    pub class_count: usize,
}

impl ClassObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example without a label of the job.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let labels = LabelIds::new(context.labels);
        let class = |example: &&Example| match &example.target {
            Target::Label(label) => labels.id(label, example.line),
            _ => Err(example.wrong_target(task_type)),
        };
        let classes = context.examples.iter().map(class).collect::<Result<_>>()?;
        Ok(Self { classes, class_count: labels.count() })
    }

    fn targets(&self, examples: &[usize]) -> RowTargets {
        RowTargets::Classes { classes: gather(&self.classes, examples), class_count: self.class_count }
    }
}

impl Objective for ClassObjective {
    fn example_count(&self) -> usize {
        self.classes.len()
    }

    fn row_count(&self, _example: usize) -> usize {
        1
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics> {
        Box::new(ClassificationMetrics::new(outputs, self.class_count, &gather(&self.classes, examples), labels))
    }

    /// The split keeps the proportions of the classes.
    fn strata(&self) -> (Vec<u32>, usize) {
        (self.classes.clone(), self.class_count)
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }
}
