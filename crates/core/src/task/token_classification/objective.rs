//! Objective of token classification: cross entropy over the tags of the words.

use super::metrics::EntityMetrics;
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LabelIds, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use crate::task::{Example, Target};

/// One tag per word.
#[derive(Debug, Clone)]
pub struct TagObjective {
    tags: Vec<Vec<u32>>,
    /// Words of each example that are not truncated.
    word_counts: Vec<usize>,
    tag_count: usize,
}

impl TagObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example with a tag that the job does not have, or without tags.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let labels = LabelIds::new(context.labels);
        let tags = |example: &&Example| match &example.target {
            Target::Tags { tags, .. } => tags.iter().map(|tag| labels.id(tag, example.line)).collect(),
            _ => Err(example.wrong_target(task_type)),
        };
        let tags = context.examples.iter().map(tags).collect::<Result<_>>()?;
        Ok(Self { tags, word_counts: context.target_counts(), tag_count: labels.count() })
    }

    /// Tags of the words that are not truncated, concatenated.
    fn targets(&self, examples: &[usize]) -> RowTargets {
        let tags = |example: &usize| self.tags[*example][..self.word_counts[*example]].iter().copied();
        RowTargets::Classes { classes: examples.iter().flat_map(tags).collect(), class_count: self.tag_count }
    }
}

impl Objective for TagObjective {
    fn example_count(&self) -> usize {
        self.tags.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.word_counts[example]
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics> {
        let (tags, word_counts) = (gather(&self.tags, examples), gather(&self.word_counts, examples));
        Box::new(EntityMetrics::new(outputs, &tags, &word_counts, labels))
    }

    fn loss_denominator(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.word_counts[*example]).sum()
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }
}
