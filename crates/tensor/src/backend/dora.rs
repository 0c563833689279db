//! Row norms of a weight with a low-rank update, which DoRA divides by (Liu et al. 2024).

use super::frozen::FrozenLinear;
use super::handles::{Buffer, Parameter};
use super::ops::Backend;
use crate::Tensor;
use crate::error::Result;

/// ‖W + s·B·A‖ of each row `(output)`, from ‖w‖² + 2s·w·(b·A) + s²·‖b·A‖², so that W is never materialised again.
pub fn weight_row_norms(
    backend: &dyn Backend,
    linear: &FrozenLinear,
    a: &Parameter,
    b: &Parameter,
    lora_scale: f64,
) -> Result<Tensor> {
    let squares = backend.weight_row_squared_norms(linear)?;
    let [a, b] = [a, b].map(|parameter| backend.parameter_as_rows(parameter));
    let (a, b) = (a?, backend.download(&b?)?);
    // A·Wᵀ (rank, output)
    let a_weight = backend.linear(&a, linear)?;
    let a_weight = backend.download(&subtract_bias(backend, a_weight, linear)?)?.values;
    let a = backend.download(&a)?;
    let (rank, input) = (a.shape[0], a.shape[1]);
    let dot = |i: usize, j: usize| {
        let pairs = a.values[i * input..(i + 1) * input].iter().zip(&a.values[j * input..(j + 1) * input]);
        pairs.map(|(left, right)| f64::from(*left) * f64::from(*right)).sum::<f64>()
    };
    // A·Aᵀ
    let gram: Vec<f64> = (0..rank * rank).map(|index| dot(index / rank, index % rank)).collect();
    let row_norm = |row: usize| {
        let b_row: Vec<f64> = b.values[row * rank..(row + 1) * rank].iter().map(|value| f64::from(*value)).collect();
        let cross: f64 = (0..rank).map(|r| b_row[r] * f64::from(a_weight[r * linear.out_features + row])).sum();
        let update: f64 = (0..rank * rank).map(|index| b_row[index / rank] * gram[index] * b_row[index % rank]).sum();
        let square = f64::from(squares.values[row]) + 2.0 * lora_scale * cross + lora_scale * lora_scale * update;
        square.max(0.0).sqrt() as f32
    };
    Ok(Tensor::new([linear.out_features], (0..linear.out_features).map(row_norm).collect()))
}

/// x·Wᵀ from x·Wᵀ + b.
fn subtract_bias(backend: &dyn Backend, rows: Buffer, linear: &FrozenLinear) -> Result<Buffer> {
    match &linear.bias {
        None => Ok(rows),
        Some(bias) => {
            let range = 0..rows.rows();
            backend.add_channels(rows, range, &backend.scale(bias, -1.0)?)
        }
    }
}
