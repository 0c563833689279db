//! Targets once more is known of them: units, how much of them is read, and what they are measured against.

use super::{Scale, Targets};
use crate::task::{head, preference};
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

impl Targets {
    /// Values are measured by the spread of these examples, scores by their range; others are what they are.
    pub fn with_fitted_scale(self, indices: &[usize]) -> Self {
        match self {
            Self::Values { values, .. } => {
                let scale = Scale::standardize(indices.iter().map(|index| values[*index]));
                Self::Values { values, scale }
            }
            Self::SimilarityScores { scores, .. } => {
                let scale = Scale::cosine_range(indices.iter().map(|index| scores[*index]));
                Self::SimilarityScores { scores, scale }
            }
            other => other,
        }
    }

    /// The head's tensors, so that they answer in the values' own unit.
    pub fn denormalize_head(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::OUTPUT_WEIGHT, 0.0), (head::OUTPUT_BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = *value * scale.deviation + shift);
            }
        }
        weights
    }

    /// What [`Self::in_units`] undoes: a published head's tensors, so that they answer as the head learns.
    pub fn normalize_head(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::OUTPUT_WEIGHT, 0.0), (head::OUTPUT_BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = (*value - shift) / scale.deviation);
            }
        }
        weights
    }

    /// The tokens of each pair's answers.
    pub fn with_answer_lengths(self, answer_lengths: impl Iterator<Item = [usize; 2]>) -> Self {
        match self {
            Self::PreferencePairs { reference_logprobs: reference, config, .. } => Self::PreferencePairs {
                answer_lengths: answer_lengths.collect(),
                reference_logprobs: reference,
                config,
            },
            other => other,
        }
    }

    /// What the pairs are measured against.
    pub fn with_reference(&self, reference_logprobs: &[preference::LogProbs]) -> Self {
        match self.clone() {
            Self::PreferencePairs { answer_lengths: lengths, config, .. } => Self::PreferencePairs {
                answer_lengths: lengths,
                reference_logprobs: reference_logprobs.to_vec(),
                config,
            },
            other => other,
        }
    }

    /// Only so many words or tokens of each example are read.
    pub fn truncate(self, row_counts: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Tags { tags, tag_count: count, .. } => {
                Self::Tags { tags, word_counts: row_counts.collect(), tag_count: count }
            }
            Self::LmTokens { .. } => Self::LmTokens { token_counts: row_counts.collect() },
            other => other,
        }
    }
}
