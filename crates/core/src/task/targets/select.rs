//! Targets of some of the examples.

use super::Targets;
use std::sync::Arc;

impl Targets {
    /// Some examples', in this order.
    pub fn select(&self, indices: &[usize]) -> Self {
        match self {
            Self::Classes { classes, class_count: count } => {
                Self::Classes { classes: gather(classes, indices), class_count: *count }
            }
            Self::LabelSets { sets, label_count: count } => {
                Self::LabelSets { sets: gather(sets, indices), label_count: *count }
            }
            Self::Values { values, scale } => Self::Values { values: gather(values, indices), scale: *scale },
            Self::Tags { tags, word_counts: read, tag_count: count } => {
                Self::Tags { tags: gather(tags, indices), word_counts: gather(read, indices), tag_count: *count }
            }
            Self::SimilarityScores { scores, scale } => {
                Self::SimilarityScores { scores: gather(scores, indices), scale: *scale }
            }
            Self::ContrastivePairs { text_ids: texts, positives: belonging } => {
                Self::ContrastivePairs { text_ids: gather(texts, indices), positives: Arc::clone(belonging) }
            }
            Self::PreferencePairs { answer_lengths: lengths, reference_logprobs: reference, config } => {
                Self::PreferencePairs {
                    answer_lengths: gather(lengths, indices),
                    reference_logprobs: gather(reference, indices),
                    config: config.clone(),
                }
            }
            Self::LmTokens { token_counts: counts } => Self::LmTokens { token_counts: gather(counts, indices) },
        }
    }
}

/// Those of `all`, in this order.
fn gather<T: Clone>(all: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|index| all[*index].clone()).collect()
}
