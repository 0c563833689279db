//! Figures of a classifier with any number of labels for an input: micro and macro F1, and exact matches.

use super::classification::{PerClass, ratio_or_zero};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MultiLabel {
    pub examples: usize,
    /// Mean binary cross entropy over examples and labels.
    pub loss: f64,
    /// F1 over all decisions together.
    pub micro_f1: f64,
    /// The mean of the labels' F1, over the labels that occur.
    pub macro_f1: f64,
    /// The share of examples whose labels are all right (subset accuracy).
    pub exact_match: f64,
}

/// A label is given where its logit is above 0.
pub fn compute(
    logits: &[f32],
    label_count: usize,
    label_sets: &[Vec<u32>],
    labels: &[String],
) -> (MultiLabel, Vec<PerClass>) {
    let (mut true_positives, mut predicted, mut support) =
        (vec![0; label_count], vec![0; label_count], vec![0; label_count]);
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
    let per_class: Vec<PerClass> = labels
        .iter()
        .enumerate()
        .map(|(label, name)| PerClass {
            label: name.clone(),
            precision: ratio_or_zero(true_positives[label], predicted[label]),
            recall: ratio_or_zero(true_positives[label], support[label]),
            f1: ratio_or_zero(2 * true_positives[label], predicted[label] + support[label]),
            support: support[label],
        })
        .collect();
    let total = |counts: &[usize]| counts.iter().sum::<usize>();
    let f1: Vec<f64> = per_class.iter().filter(|one| one.support > 0).map(|one| one.f1).collect();
    let metrics = MultiLabel {
        examples: label_sets.len(),
        loss: loss / (label_sets.len() * label_count).max(1) as f64,
        micro_f1: ratio_or_zero(2 * total(&true_positives), total(&predicted) + total(&support)),
        macro_f1: f1.iter().sum::<f64>() / f1.len().max(1) as f64,
        exact_match: ratio_or_zero(exact_matches, label_sets.len()),
    };
    (metrics, per_class)
}

/// −log σ(±logit)
pub fn binary_cross_entropy(logit: f64, is_positive: bool) -> f64 {
    let signed_logit = if is_positive { logit } else { -logit };
    (-signed_logit).max(0.0) + (-signed_logit.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_a_worked_example() {
        // Given {0}, {0, 1}, {}, {2}; meant {0}, {1}, {2}, {2}; worked out by hand as scikit-learn defines them.
        let logits = [1., -1., -1., 1., 1., -1., -1., -1., -1., -1., -1., 1.];
        let sets = [vec![0], vec![1], vec![2], vec![2]];
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let (figures, per_class) = compute(&logits, 3, &sets, &labels);
        assert_eq!(figures.exact_match, 0.5);
        assert_eq!(figures.micro_f1, 6.0 / 8.0);
        assert!((figures.macro_f1 - (2.0 / 3.0 + 1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!((per_class[2].precision, per_class[2].recall), (1.0, 0.5));
        let expected: f64 = 10.0 * (1.0f64 + (-1.0f64).exp()).ln() + 2.0 * (1.0 + 1.0f64.exp()).ln();
        assert!((figures.loss - expected / 12.0).abs() < 1e-12, "{}", figures.loss);
    }

    #[test]
    fn a_confident_mistake_has_a_finite_loss() {
        assert!((binary_cross_entropy(-200.0, true) - 200.0).abs() < 1e-9);
        assert!(binary_cross_entropy(200.0, true) < 1e-80);
    }
}
