//! Figures of a classifier with any number of labels for an input: micro and macro F1, and exact matches.

use super::classification::{PerClass, ratio};
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
pub fn figures(logits: &[f32], count: usize, sets: &[Vec<u32>], labels: &[String]) -> (MultiLabel, Vec<PerClass>) {
    let (mut right, mut predicted, mut support) = (vec![0; count], vec![0; count], vec![0; count]);
    let (mut exact, mut loss) = (0, 0.0);
    for (row, set) in logits.chunks_exact(count).zip(sets) {
        let mut is_exact = true;
        for (label, logit) in row.iter().enumerate() {
            let (given, meant) = (*logit > 0.0, set.contains(&(label as u32)));
            predicted[label] += usize::from(given);
            support[label] += usize::from(meant);
            right[label] += usize::from(given && meant);
            is_exact &= given == meant;
            loss += binary(f64::from(*logit), meant);
        }
        exact += usize::from(is_exact);
    }
    let per_class: Vec<PerClass> = labels
        .iter()
        .enumerate()
        .map(|(label, name)| PerClass {
            label: name.clone(),
            precision: ratio(right[label], predicted[label]),
            recall: ratio(right[label], support[label]),
            f1: ratio(2 * right[label], predicted[label] + support[label]),
            support: support[label],
        })
        .collect();
    let all = |counts: &[usize]| counts.iter().sum::<usize>();
    let f1: Vec<f64> = per_class.iter().filter(|one| one.support > 0).map(|one| one.f1).collect();
    let figures = MultiLabel {
        examples: sets.len(),
        loss: loss / (sets.len() * count).max(1) as f64,
        micro_f1: ratio(2 * all(&right), all(&predicted) + all(&support)),
        macro_f1: f1.iter().sum::<f64>() / f1.len().max(1) as f64,
        exact_match: ratio(exact, sets.len()),
    };
    (figures, per_class)
}

/// −log σ(±logit)
pub fn binary(logit: f64, meant: bool) -> f64 {
    let signed = if meant { logit } else { -logit };
    (-signed).max(0.0) + (-signed.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_agree_with_a_worked_example() {
        // Given {0}, {0, 1}, {}, {2}; meant {0}, {1}, {2}, {2}; worked out by hand as scikit-learn defines them.
        let logits = [1., -1., -1., 1., 1., -1., -1., -1., -1., -1., -1., 1.];
        let sets = [vec![0], vec![1], vec![2], vec![2]];
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let (figures, per_class) = figures(&logits, 3, &sets, &labels);
        assert_eq!(figures.exact_match, 0.5);
        assert_eq!(figures.micro_f1, 6.0 / 8.0);
        assert!((figures.macro_f1 - (2.0 / 3.0 + 1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!((per_class[2].precision, per_class[2].recall), (1.0, 0.5));
        let expected: f64 = 10.0 * (1.0f64 + (-1.0f64).exp()).ln() + 2.0 * (1.0 + 1.0f64.exp()).ln();
        assert!((figures.loss - expected / 12.0).abs() < 1e-12, "{}", figures.loss);
    }

    #[test]
    fn a_certain_mistake_has_a_finite_loss() {
        assert!((binary(-200.0, true) - 200.0).abs() < 1e-9);
        assert!(binary(200.0, true) < 1e-80);
    }
}
