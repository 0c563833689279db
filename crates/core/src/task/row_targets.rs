//! Targets of the rows that a trained head reads, and their losses.

use super::Scale;
use super::label_weights::LabelWeights;
use crate::error::Result;
use espalier_tensor::{Backend, Buffer, Tensor};

/// Target of each row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowTargets {
    /// One class per row; loss: cross entropy.
    Classes { classes: Vec<u32>, class_count: usize, weights: LabelWeights },
    /// A sorted set of labels per row; loss: mean binary cross entropy over the labels.
    LabelSets { sets: Vec<Vec<u32>>, label_count: usize, weights: LabelWeights },
    /// A value per row; loss: half the squared error of the scaled value.
    Values { values: Vec<f32>, scale: Scale },
}

impl RowTargets {
    pub fn len(&self) -> usize {
        match self {
            Self::Classes { classes, .. } => classes.len(),
            Self::LabelSets { sets, .. } => sets.len(),
            Self::Values { values, .. } => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outputs of the head per row.
    pub fn output_width(&self) -> usize {
        match self {
            Self::Classes { class_count: count, .. } | Self::LabelSets { label_count: count, .. } => *count,
            Self::Values { .. } => 1,
        }
    }

    /// Stratum of each row, and the number of strata: the classes, else a single stratum.
    pub fn strata(&self) -> (Vec<u32>, usize) {
        match self {
            Self::Classes { classes, class_count, .. } => (classes.clone(), *class_count),
            Self::LabelSets { .. } | Self::Values { .. } => (vec![0; self.len()], 1),
        }
    }

    /// Whether adding the same value to all outputs of a row leaves the loss unchanged.
    pub fn is_shift_invariant(&self) -> bool {
        match self {
            Self::Classes { .. } => true,
            Self::LabelSets { .. } | Self::Values { .. } => false,
        }
    }

    /// Targets of some rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes { classes, class_count, weights } => Self::Classes {
                classes: rows.iter().map(|row| classes[*row]).collect(),
                class_count: *class_count,
                weights: weights.clone(),
            },
            Self::LabelSets { sets, label_count, weights } => Self::LabelSets {
                sets: rows.iter().map(|row| sets[*row].clone()).collect(),
                label_count: *label_count,
                weights: weights.clone(),
            },
            Self::Values { values, scale } => {
                Self::Values { values: rows.iter().map(|row| values[*row]).collect(), scale: *scale }
            }
        }
    }

    /// Sum of the losses of outputs `(rows, outputs)`, and its gradient.
    pub fn loss(&self, backend: &dyn Backend, outputs: &Buffer) -> Result<(f64, Buffer)> {
        match self {
            Self::Classes { classes, weights, .. } => {
                let cross_entropy = backend.cross_entropy(outputs, classes)?;
                match weights.get() {
                    None => Ok((cross_entropy.losses.iter().sum(), cross_entropy.gradient)),
                    Some(weights) => {
                        let row_weights: Vec<f64> =
                            classes.iter().map(|class| weights[*class as usize].positive).collect();
                        weighted_rows(backend, &cross_entropy.losses, &cross_entropy.gradient, &row_weights)
                    }
                }
            }
            Self::LabelSets { sets, label_count, weights } => {
                on_host(backend, outputs, |rows| label_set_loss(rows, sets, *label_count, weights))
            }
            Self::Values { values, scale } => on_host(backend, outputs, |rows| squared_error(rows, values, *scale)),
        }
    }
}

/// Computes a loss on the host and uploads its gradient.
pub fn on_host(
    backend: &dyn Backend,
    outputs: &Buffer,
    loss: impl FnOnce(&[f32]) -> (f64, Vec<f64>),
) -> Result<(f64, Buffer)> {
    let outputs = backend.download(outputs)?;
    let (loss, gradient) = loss(&outputs.values);
    let gradient = gradient.into_iter().map(|value| value as f32).collect();
    Ok((loss, backend.upload(&Tensor::new(outputs.shape, gradient))?))
}

/// Sum of the rows' losses and their gradient, each row multiplied by its weight.
fn weighted_rows(backend: &dyn Backend, losses: &[f64], gradient: &Buffer, weights: &[f64]) -> Result<(f64, Buffer)> {
    let loss = losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum();
    let mut gradient = backend.download(gradient)?;
    let width = gradient.values.len() / weights.len().max(1);
    for (row, weight) in gradient.values.chunks_exact_mut(width.max(1)).zip(weights) {
        row.iter_mut().for_each(|value| *value *= *weight as f32);
    }
    Ok((loss, backend.upload(&gradient)?))
}

/// Sum over the rows of the mean binary cross entropy over the labels, and its gradient.
pub fn label_set_loss(
    logits: &[f32],
    sets: &[Vec<u32>],
    label_count: usize,
    weights: &LabelWeights,
) -> (f64, Vec<f64>) {
    let decisions =
        sets.iter().flat_map(|set| (0..label_count).map(|label| (label, set.binary_search(&(label as u32)).is_ok())));
    let weight = |label: usize, is_positive: bool| match (weights.get(), is_positive) {
        (None, _) => 1.0,
        (Some(weights), true) => weights[label].positive,
        (Some(weights), false) => weights[label].negative,
    };
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(sets.len() * label_count));
    for (logit, (label, is_positive)) in logits.iter().map(|logit| f64::from(*logit)).zip(decisions) {
        let weight = weight(label, is_positive);
        loss += weight * binary_cross_entropy(logit, is_positive) / label_count as f64;
        let probability = 1.0 / (1.0 + (-logit).exp());
        gradient.push(weight * (probability - f64::from(u8::from(is_positive))) / label_count as f64);
    }
    (loss, gradient)
}

/// Sum over the rows of half the squared error of the scaled value, and its gradient.
pub fn squared_error(outputs: &[f32], values: &[f32], scale: Scale) -> (f64, Vec<f64>) {
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(values.len()));
    for (output, value) in outputs.iter().map(|output| f64::from(*output)).zip(values) {
        let difference = output - scale.normalize(*value);
        loss += difference * difference / 2.0;
        gradient.push(difference);
    }
    (loss, gradient)
}

/// −log σ(±logit)
pub fn binary_cross_entropy(logit: f64, is_positive: bool) -> f64 {
    let signed_logit = if is_positive { logit } else { -logit };
    (-signed_logit).max(0.0) + (-signed_logit.abs()).exp().ln_1p()
}

/// Asserts that a loss's gradient agrees with finite differences.
#[cfg(test)]
pub fn assert_gradient(outputs: &[f32], tolerance: f64, loss: impl Fn(&[f32]) -> (f64, Vec<f64>)) {
    let (_, gradient) = loss(outputs);
    assert_eq!(gradient.len(), outputs.len());
    for (index, found) in gradient.iter().enumerate() {
        let loss_at = |by: f32| {
            let mut outputs = outputs.to_vec();
            outputs[index] += by;
            loss(&outputs).0
        };
        let expected = (loss_at(2e-3) - loss_at(-2e-3)) / 4e-3;
        assert!((found - expected).abs() < tolerance, "{index}: {found}, not {expected}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::label_weights::{BalancedWeights, ClassWeights};
    use espalier_tensor::backend::cpu::CpuBackend;

    #[test]
    fn weights_multiply_the_loss_and_the_gradient_of_their_class() {
        let backend = CpuBackend::detect();
        let outputs = backend.upload(&Tensor::new([2, 2], vec![0.5f32, -1.0, 2.0, 0.25])).unwrap();
        let labels = ["a", "b"].map(String::from).to_vec();
        let class_weights: ClassWeights = serde_json::from_str(r#"{"a": 1, "b": 3}"#).unwrap();
        let loss = |weights| {
            let targets = RowTargets::Classes { classes: vec![0, 1], class_count: 2, weights };
            let (loss, gradient) = targets.loss(&backend, &outputs).unwrap();
            (loss, backend.download(&gradient).unwrap().values)
        };
        let (plain, weighted) = (loss(LabelWeights::default()), loss(class_weights.of_classes(&labels, &[1, 1])));
        for (index, (plain, weighted)) in plain.1.iter().zip(&weighted.1).enumerate() {
            assert_eq!(*weighted, if index < 2 { 0.5 } else { 1.5 } * plain);
        }
        assert!(weighted.0 > plain.0, "the second row has the larger loss");
    }

    #[test]
    fn gradients_match_finite_differences() {
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0];
        let sets = [vec![0, 2], vec![], vec![1]];
        assert_gradient(&outputs, 5e-4, |rows| label_set_loss(rows, &sets, 3, &LabelWeights::default()));
        let labels = ["a", "b", "c"].map(String::from).to_vec();
        let weights = ClassWeights::Balanced(BalancedWeights::Balanced).of_label_sets(&labels, &[1, 1, 3], 9);
        assert_gradient(&outputs, 5e-4, |rows| label_set_loss(rows, &sets, 3, &weights));
        assert!(
            label_set_loss(&outputs, &sets, 3, &weights).0
                > label_set_loss(&outputs, &sets, 3, &LabelWeights::default()).0
        );
        let values = [3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 2.5, 7.0, 2.0];
        assert_gradient(&outputs, 5e-4, |rows| squared_error(rows, &values, scale));
    }

    #[test]
    fn a_confident_mistake_has_a_finite_loss() {
        assert!((binary_cross_entropy(-200.0, true) - 200.0).abs() < 1e-9);
        assert!(binary_cross_entropy(200.0, true) < 1e-80);
    }
}
