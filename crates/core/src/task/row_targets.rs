//! Targets of the rows that a trained head reads, and their losses.

use super::Scale;
use crate::error::Result;
use espalier_tensor::{Backend, Buffer, Tensor};

/// Target of each row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowTargets {
    /// One class per row; loss: cross entropy.
    Classes { classes: Vec<u32>, class_count: usize },
    /// A sorted set of labels per row; loss: mean binary cross entropy over the labels.
    LabelSets { sets: Vec<Vec<u32>>, label_count: usize },
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
            Self::Classes { classes, class_count } => (classes.clone(), *class_count),
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
            Self::Classes { classes, class_count } => {
                Self::Classes { classes: rows.iter().map(|row| classes[*row]).collect(), class_count: *class_count }
            }
            Self::LabelSets { sets, label_count } => {
                Self::LabelSets { sets: rows.iter().map(|row| sets[*row].clone()).collect(), label_count: *label_count }
            }
            Self::Values { values, scale } => {
                Self::Values { values: rows.iter().map(|row| values[*row]).collect(), scale: *scale }
            }
        }
    }

    /// Sum of the losses of outputs `(rows, outputs)`, and its gradient.
    pub fn loss(&self, backend: &dyn Backend, outputs: &Buffer) -> Result<(f64, Buffer)> {
        match self {
            Self::Classes { classes, .. } => {
                let cross_entropy = backend.cross_entropy(outputs, classes)?;
                Ok((cross_entropy.losses.iter().sum(), cross_entropy.gradient))
            }
            Self::LabelSets { sets, label_count } => {
                on_host(backend, outputs, |rows| label_set_loss(rows, sets, *label_count))
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

/// Sum over the rows of the mean binary cross entropy over the labels, and its gradient.
pub fn label_set_loss(logits: &[f32], sets: &[Vec<u32>], label_count: usize) -> (f64, Vec<f64>) {
    let is_positive =
        sets.iter().flat_map(|set| (0..label_count).map(|label| set.binary_search(&(label as u32)).is_ok()));
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(sets.len() * label_count));
    for (logit, is_positive) in logits.iter().map(|logit| f64::from(*logit)).zip(is_positive) {
        loss += binary_cross_entropy(logit, is_positive) / label_count as f64;
        let probability = 1.0 / (1.0 + (-logit).exp());
        gradient.push((probability - f64::from(u8::from(is_positive))) / label_count as f64);
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

    #[test]
    fn gradients_match_finite_differences() {
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0];
        assert_gradient(&outputs, 5e-4, |rows| label_set_loss(rows, &[vec![0, 2], vec![], vec![1]], 3));
        let values = [3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 2.5, 7.0, 2.0];
        assert_gradient(&outputs, 5e-4, |rows| squared_error(rows, &values, scale));
    }

    #[test]
    fn a_confident_mistake_has_a_finite_loss() {
        assert!((binary_cross_entropy(-200.0, true) - 200.0).abs() < 1e-9);
        assert!(binary_cross_entropy(200.0, true) < 1e-80);
    }
}
