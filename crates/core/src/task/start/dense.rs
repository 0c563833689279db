//! The start of a head's dense layer: a diagonal map that brings every column of the pooled rows to where its activation is
//! nearly straight.
//!
//! The outputs' map then starts from a linear probe of what this layer gives, which is nearly one of the pooled rows
//! themselves: nothing that the frozen features tell is lost before the first step, whereas a layer of random numbers mixes
//! columns of unlike size and a `relu` of them drops half. A function of its input and the kernel set.

use super::BLOCK;
use crate::error::Result;
use espalier_tensor::kernels::{Activation, Keep};
use espalier_tensor::{Kernels, Tensor};

/// Weight `(width, width)` and bias `(width)`, and what the layer makes of the rows it was measured on.
pub struct Start {
    pub weight: Tensor,
    pub bias: Tensor,
    /// `(rows, width)`
    pub rows: Vec<f32>,
}

/// `values` are `(rows, width)`, at least one row.
///
/// # Errors
/// What the device reports.
pub fn start(values: &[f32], width: usize, activation: Activation, kernels: &dyn Kernels) -> Result<Start> {
    let mut weight = Tensor::zeros([width, width]);
    let mut bias = Tensor::zeros([width]);
    let (scale, shift) = straight(activation);
    for column in 0..width {
        let (mean, deviation) = spread(values.iter().skip(column).step_by(width));
        // A column that hardly moves is not blown up: its digits are those of its mean.
        let size = deviation.max(mean.abs() * 1e-3);
        let factor = if size > 0.0 { scale / size } else { 1.0 };
        weight.values[column * width + column] = factor as f32;
        bias.values[column] = (shift - mean * factor) as f32;
    }
    let rows = apply(values, &weight, &bias, activation, kernels)?;
    Ok(Start { weight, bias, rows })
}

/// What the layer makes of rows.
///
/// # Errors
/// What the device reports.
pub fn apply(
    values: &[f32],
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    kernels: &dyn Kernels,
) -> Result<Vec<f32>> {
    let width = bias.values.len();
    let parameters = kernels.parameters(&[weight.clone(), bias.clone()])?;
    let mut rows = Vec::with_capacity(values.len());
    for block in values.chunks(BLOCK * width) {
        let block = kernels.upload(&Tensor::new([block.len() / width, width], block.to_vec()))?;
        let straight = kernels.dense(&block, &parameters[0], &parameters[1])?;
        rows.extend(kernels.download(&kernels.activate(activation, &straight, Keep::Nothing)?.0)?.values);
    }
    Ok(rows)
}

/// Deviations per unit and where the mean lies. tanh bends by 4 % at one deviation, and a long tail stays on its slope; the
/// others are straight where they do not cut off, which leaves them three deviations below the mean.
fn straight(activation: Activation) -> (f64, f64) {
    match activation {
        Activation::Tanh => (1.0 / 3.0, 0.0),
        Activation::Relu | Activation::Gelu | Activation::GeluTanh | Activation::Silu => (1.0, 3.0),
    }
}

fn spread<'a>(column: impl Iterator<Item = &'a f32> + Clone) -> (f64, f64) {
    let count = column.clone().count() as f64;
    let mean = column.clone().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = column.map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::cpu::Cpu;
    use espalier_tensor::random::Random;

    #[test]
    fn every_activation_starts_nearly_straight_whatever_the_columns_sizes() {
        let mut random = Random::new(3, &["dense"]);
        let (width, rows) = (4, 200);
        let sizes = [1e-3f32, 1.0, 40.0, 0.0];
        let values: Vec<f32> = (0..rows * width).map(|index| random.normal() * sizes[index % width] + 0.5).collect();
        for activation in [Activation::Tanh, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu]
        {
            let start = start(&values, width, activation, &Cpu::best()).unwrap();
            for column in 0..3 {
                let of = |values: &[f32]| values.iter().skip(column).step_by(width).copied().collect::<Vec<f32>>();
                let likeness = crate::task::metrics::regression::figures(&of(&start.rows), &of(&values)).pearson;
                assert!(likeness > 0.985, "{activation:?}, column {column}: {likeness}");
            }
            assert!(start.rows.iter().all(|value| value.is_finite()));
        }
    }
}
