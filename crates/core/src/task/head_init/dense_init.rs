//! Initialisation of a head's dense layer: a diagonal map that scales every column of the pooled rows to the region where the
//! activation is nearly linear.
//!
//! The output layer then starts from a linear probe of this layer's outputs, which is nearly a probe of the pooled rows. A random
//! dense layer would lose information of the frozen features: it mixes columns of different scales, and `relu` drops half of them.

use super::BLOCK_ROWS;
use crate::error::Result;
use espalier_tensor::backend::{Activation, SaveForBackward};
use espalier_tensor::{Backend, Tensor};

/// Weight `(width, width)`, bias `(width)`, and the layer's outputs for the rows that it was fitted to.
pub struct DenseInit {
    pub weight: Tensor,
    pub bias: Tensor,
    /// `(rows, width)`
    pub rows: Vec<f32>,
}

/// Fits the layer to `values`, `(rows, width)`, with at least one row.
///
/// # Errors
/// `Internal` where the device fails.
pub fn init_near_linear(
    values: &[f32],
    width: usize,
    activation: Activation,
    kernels: &dyn Backend,
) -> Result<DenseInit> {
    let mut weight = Tensor::zeros([width, width]);
    let mut bias = Tensor::zeros([width]);
    let (scale, shift) = linear_region(activation);
    for column in 0..width {
        let (mean, deviation) = mean_and_deviation(values.iter().skip(column).step_by(width));
        // A nearly constant column is not scaled up: its variation is rounding of its mean.
        let magnitude = deviation.max(mean.abs() * 1e-3);
        let factor = if magnitude > 0.0 { scale / magnitude } else { 1.0 };
        weight.values[column * width + column] = factor as f32;
        bias.values[column] = (shift - mean * factor) as f32;
    }
    let rows = forward(values, &weight, &bias, activation, kernels)?;
    Ok(DenseInit { weight, bias, rows })
}

/// Outputs of the layer.
///
/// # Errors
/// `Internal` where the device fails.
pub fn forward(
    values: &[f32],
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    kernels: &dyn Backend,
) -> Result<Vec<f32>> {
    let width = bias.values.len();
    let parameters = kernels.upload_parameters(&[weight.clone(), bias.clone()])?;
    let mut rows = Vec::with_capacity(values.len());
    for block in values.chunks(BLOCK_ROWS * width) {
        let block = kernels.upload(&Tensor::new([block.len() / width, width], block.to_vec()))?;
        let pre_activation = kernels.dense(&block, &parameters[0], &parameters[1])?;
        rows.extend(kernels.download(&kernels.activate(activation, &pre_activation, SaveForBackward::No)?.0)?.values);
    }
    Ok(rows)
}

/// Scale of one standard deviation, and position of the mean. tanh at a third is 4 % from linear at one deviation and keeps long
/// tails on its slope. The other activations are linear above zero, three deviations below the mean.
fn linear_region(activation: Activation) -> (f64, f64) {
    match activation {
        Activation::Tanh => (1.0 / 3.0, 0.0),
        Activation::Relu | Activation::Gelu | Activation::GeluTanh | Activation::Silu => (1.0, 3.0),
    }
}

fn mean_and_deviation<'a>(column: impl Iterator<Item = &'a f32> + Clone) -> (f64, f64) {
    let count = column.clone().count() as f64;
    let mean = column.clone().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = column.map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::backend::cpu::CpuBackend;
    use espalier_tensor::seeded_rng::SeededRng;

    #[test]
    fn every_activation_is_nearly_linear_at_init_for_any_column_scale() {
        let mut random = SeededRng::new(3, &["dense"]);
        let (width, rows) = (4, 200);
        let sizes = [1e-3f32, 1.0, 40.0, 0.0];
        let values: Vec<f32> =
            (0..rows * width).map(|index| random.standard_normal() * sizes[index % width] + 0.5).collect();
        for activation in [Activation::Tanh, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu]
        {
            let start = init_near_linear(&values, width, activation, &CpuBackend::detect()).unwrap();
            for column in 0..3 {
                let column_values =
                    |values: &[f32]| values.iter().skip(column).step_by(width).copied().collect::<Vec<f32>>();
                let to_f64 = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
                let (found, original) = (to_f64(column_values(&start.rows)), to_f64(column_values(&values)));
                let correlation = crate::task::metrics::pearson(&found, &original);
                assert!(correlation > 0.985, "{activation:?}, column {column}: {correlation}");
            }
            assert!(start.rows.iter().all(|value| value.is_finite()));
        }
    }
}
