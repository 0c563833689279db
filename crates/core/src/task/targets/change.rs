//! Targets once more is known of them: units, how much of them is read, and what they are measured against.

use super::{Scale, Targets};
use crate::task::{head, preference};
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

impl Targets {
    /// Values are measured by the spread of these examples, scores by their range; others are what they are.
    pub fn scaled_by(self, indices: &[usize]) -> Self {
        match self {
            Self::Values { values, .. } => {
                let scale = Scale::of(indices.iter().map(|index| values[*index]));
                Self::Values { values, scale }
            }
            Self::Scores { scores, .. } => {
                let scale = Scale::of_scores(indices.iter().map(|index| scores[*index]));
                Self::Scores { scores, scale }
            }
            other => other,
        }
    }

    /// The head's tensors, so that they answer in the values' own unit.
    pub fn in_units(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::WEIGHT, 0.0), (head::BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = *value * scale.deviation + shift);
            }
        }
        weights
    }

    /// What [`Self::in_units`] undoes: a published head's tensors, so that they answer as the head learns.
    pub fn in_learned_units(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::WEIGHT, 0.0), (head::BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = (*value - shift) / scale.deviation);
            }
        }
        weights
    }

    /// The tokens of each pair's answers.
    pub fn spoken(self, answers: impl Iterator<Item = [usize; 2]>) -> Self {
        match self {
            Self::Preferred { reference, config, .. } => {
                Self::Preferred { lengths: answers.collect(), reference, config }
            }
            other => other,
        }
    }

    /// What the pairs are measured against.
    pub fn against(&self, pairs: &[preference::Pair]) -> Self {
        match self.clone() {
            Self::Preferred { lengths, config, .. } => Self::Preferred { lengths, reference: pairs.to_vec(), config },
            other => other,
        }
    }

    /// Only so many words or tokens of each example are read.
    pub fn cut(self, rows: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Tags { tags, count, .. } => Self::Tags { tags, read: rows.collect(), count },
            Self::Words { .. } => Self::Words { counts: rows.collect() },
            other => other,
        }
    }
}
