//! Weights of labels in the loss of a classifier, against rare labels.

use crate::error::{FieldError, json_pointer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Ratio of the most frequent to the rarest label above which labels are rare.
pub const RARE_LABEL_RATIO: u64 = 20;

/// Whether the rarest of these labels is rare; counts of 0 are left out.
pub fn has_rare_label(counts: impl Iterator<Item = u64> + Clone) -> bool {
    let occurring = counts.filter(|count| *count > 0);
    let (min, max) = (occurring.clone().min().unwrap_or(0), occurring.max().unwrap_or(0));
    max > RARE_LABEL_RATIO.saturating_mul(min)
}

/// Weights of the labels in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "\"balanced\", or an object with a weight per label")]
pub enum ClassWeights {
    /// As scikit-learn's: `examples / (labels × examples of the label)`, counted in the training examples. With `multi_label` each label
    /// is a decision of its own: `examples / (2 × examples with the label)` for these, and the same of the others for the others.
    Balanced(BalancedWeights),
    /// Weight by label; 1 for labels that are left out. The weights are scaled to a mean of 1 over the training examples. With
    /// `multi_label`, a weight multiplies the loss of the examples that have the label, as PyTorch's `pos_weight` does.
    PerLabel(BTreeMap<String, f64>),
}

/// Value `balanced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancedWeights {
    Balanced,
}

impl ClassWeights {
    /// Errors of weights that are not above 0, or of labels that the dataset does not have.
    pub fn validate(&self, labels: &[String]) -> Vec<FieldError> {
        let Self::PerLabel(weights) = self else { return Vec::new() };
        let error = |(label, weight): (&String, &f64)| {
            let message = match (labels.contains(label), *weight > 0.0 && weight.is_finite()) {
                (false, _) => format!("no row has the label {label:?}: correct it, or leave it out"),
                (true, false) => "a weight must be above 0".to_string(),
                (true, true) => return None,
            };
            Some(FieldError::at_pointer(json_pointer(&["task", "class_weights", label.as_str()]), message))
        };
        weights.iter().filter_map(error).collect()
    }

    fn weight(&self, label: &str) -> f64 {
        match self {
            Self::Balanced(_) => 1.0,
            Self::PerLabel(weights) => weights.get(label).copied().unwrap_or(1.0),
        }
    }

    /// Weights of classes of which each example has one, given the number of training examples of each.
    pub fn of_classes(&self, labels: &[String], counts: &[usize]) -> LabelWeights {
        let examples = counts.iter().sum::<usize>() as f64;
        let occurring = counts.iter().filter(|count| **count > 0).count() as f64;
        let weight = |(label, count): (&String, &usize)| match self {
            Self::Balanced(_) if *count > 0 => examples / (occurring * *count as f64),
            Self::Balanced(_) | Self::PerLabel(_) => self.weight(label),
        };
        let weights: Vec<f64> = labels.iter().zip(counts).map(weight).collect();
        let total: f64 = weights.iter().zip(counts).map(|(weight, count)| weight * *count as f64).sum();
        let scale = if total > 0.0 { examples / total } else { 1.0 };
        LabelWeights::new(weights.into_iter().map(|weight| LabelWeight { positive: weight * scale, negative: 1.0 }))
    }

    /// Weights of independent labels, given the number of training examples that have each.
    pub fn of_label_sets(&self, labels: &[String], counts: &[usize], examples: usize) -> LabelWeights {
        let share = |count: usize| if count == 0 { 1.0 } else { examples as f64 / (2.0 * count as f64) };
        LabelWeights::new(labels.iter().zip(counts).map(|(label, count)| match self {
            Self::Balanced(_) => LabelWeight { positive: share(*count), negative: share(examples - count) },
            Self::PerLabel(_) => LabelWeight { positive: self.weight(label), negative: 1.0 },
        }))
    }
}

/// Weights of the loss of a label's examples, and of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelWeight {
    pub positive: f64,
    pub negative: f64,
}

/// Weights of all labels; by default all are 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelWeights(Option<Arc<[LabelWeight]>>);

impl LabelWeights {
    fn new(weights: impl Iterator<Item = LabelWeight>) -> Self {
        Self(Some(weights.collect()))
    }

    /// `None` where all weights are 1.
    pub fn get(&self) -> Option<&[LabelWeight]> {
        self.0.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["a", "b", "c"].map(String::from).to_vec()
    }

    fn positives(weights: &LabelWeights) -> Vec<f64> {
        weights.get().unwrap().iter().map(|weight| weight.positive).collect()
    }

    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        let balanced: ClassWeights = serde_json::from_str("\"balanced\"").unwrap();
        // compute_class_weight("balanced", classes=[0, 1], y=[0] * 9 + [1])
        assert_eq!(positives(&balanced.of_classes(&labels()[..2], &[9, 1])), [10.0 / 18.0, 5.0]);
        assert_eq!(positives(&balanced.of_classes(&labels(), &[9, 1, 0])), [10.0 / 18.0, 5.0, 1.0], "c does not occur");
        let sets = balanced.of_label_sets(&labels(), &[1, 5, 0], 10);
        let pairs: Vec<_> = sets.get().unwrap().iter().map(|weight| (weight.positive, weight.negative)).collect();
        assert_eq!(pairs, [(5.0, 10.0 / 18.0), (1.0, 1.0), (1.0, 0.5)]);
    }

    #[test]
    fn weights_per_label_have_a_mean_of_one() {
        let weights: ClassWeights = serde_json::from_str(r#"{"b": 3}"#).unwrap();
        assert_eq!(positives(&weights.of_classes(&labels(), &[1, 1, 0])), [0.5, 1.5, 0.5]);
        assert_eq!(positives(&weights.of_label_sets(&labels(), &[1, 1, 0], 2)), [1.0, 3.0, 1.0]);
    }

    #[test]
    fn unknown_labels_and_weights_of_zero_are_named() {
        let weights: ClassWeights = serde_json::from_str(r#"{"b": 0, "x/y": 1, "a": 2}"#).unwrap();
        let errors = serde_json::to_value(weights.validate(&labels())).unwrap();
        assert_eq!(errors[0]["pointer"], "/task/class_weights/b");
        assert_eq!(errors[1]["pointer"], "/task/class_weights/x~1y");
        assert_eq!(errors.as_array().unwrap().len(), 2);
        assert!(serde_json::from_str::<ClassWeights>("\"even\"").is_err());
    }

    #[test]
    fn a_label_is_rare_above_twenty_to_one() {
        assert!(has_rare_label([950, 8].into_iter()));
        assert!(!has_rare_label([200, 10].into_iter()) && !has_rare_label([5, 0].into_iter()));
        assert!(!has_rare_label([0u64; 0].into_iter()));
    }
}
