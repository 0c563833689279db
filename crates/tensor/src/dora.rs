//! The lengths of the rows of a weight with a low-rank update, which DoRA divides by (Liu et al. 2024).

use super::kernels::{FrozenLinear, Parameter};
use super::{Buffer, Kernels, Tensor};
use crate::error::Result;

/// ‖W + s·B·A‖ by row `(output)`, from ‖w‖² + 2s·w·(b·A) + s²·‖b·A‖², so that W is read as it lies.
pub fn row_lengths(
    kernels: &dyn Kernels,
    map: &FrozenLinear,
    a: &Parameter,
    b: &Parameter,
    scale: f64,
) -> Result<Tensor> {
    let squares = kernels.squared_rows(map)?;
    let [a, b] = [a, b].map(|parameter| kernels.parameter_rows(parameter));
    let (a, b) = (a?, kernels.download(&b?)?);
    // (rank, output) = A·Wᵀ
    let through = kernels.linear(&a, map)?;
    let through = kernels.download(&without_bias(kernels, through, map)?)?.values;
    let a = kernels.download(&a)?;
    let (rank, input) = (a.shape[0], a.shape[1]);
    let dot = |i: usize, j: usize| {
        let pairs = a.values[i * input..(i + 1) * input].iter().zip(&a.values[j * input..(j + 1) * input]);
        pairs.map(|(left, right)| f64::from(*left) * f64::from(*right)).sum::<f64>()
    };
    // A·Aᵀ
    let gram: Vec<f64> = (0..rank * rank).map(|place| dot(place / rank, place % rank)).collect();
    let length = |row: usize| {
        let own: Vec<f64> = b.values[row * rank..(row + 1) * rank].iter().map(|value| f64::from(*value)).collect();
        let cross: f64 = (0..rank).map(|r| own[r] * f64::from(through[r * map.output + row])).sum();
        let update: f64 = (0..rank * rank).map(|place| own[place / rank] * gram[place] * own[place % rank]).sum();
        let square = f64::from(squares.values[row]) + 2.0 * scale * cross + scale * scale * update;
        square.max(0.0).sqrt() as f32
    };
    Ok(Tensor::new([map.output], (0..map.output).map(length).collect()))
}

/// x·Wᵀ from x·Wᵀ + b
fn without_bias(kernels: &dyn Kernels, rows: Buffer, map: &FrozenLinear) -> Result<Buffer> {
    match &map.bias {
        None => Ok(rows),
        Some(bias) => {
            let range = 0..rows.rows();
            kernels.add_columns(rows, range, &kernels.scale(bias, -1.0)?)
        }
    }
}
