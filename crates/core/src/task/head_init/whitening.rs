//! Whitening of features: unit covariance within the classes.
//!
//! z = L⁻¹·(x − μ), where Σ = L·Lᵀ is the pooled within-class covariance, shrunk towards a multiple of the identity (Friedman
//! 1989). The factor is computed in `f64`.

use super::{BLOCK_ROWS, Features, LinearProbe};
use crate::error::Result;
use espalier_tensor::{Backend, Buffer, Tensor};

/// Shrinkage of the covariance, chosen on banking77, where 0.03 and 0.1 cost half a point of accuracy.
const SHRINKAGE: f64 = 0.3;

/// Linear map to features with mean 0 and unit covariance.
pub struct Whitening {
    width: usize,
    /// L⁻¹, `(width, width)`, lower triangular.
    inverse_factor: Vec<f64>,
    mean: Vec<f64>,
}

impl Whitening {
    pub fn fit(features: &Features, indices: &[usize], kernels: &dyn Backend) -> Result<Self> {
        let width = features.width;
        let means = class_means(features, indices);
        let mut mean = vec![0.0; width];
        for index in indices {
            mean.iter_mut().zip(features.example_row(*index)).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= indices.len() as f64);
        let mut covariance = covariance(features, indices, &means, kernels)?;
        if covariance.iter().all(|value| *value == 0.0) {
            // With one row per class there is no covariance within classes: the variance of the class means is used instead,
            // equal in all directions.
            let spread = means.chunks_exact(width).flatten().zip(mean.iter().cycle());
            let spread: f64 = spread.map(|(value, mean)| (value - mean).powi(2)).sum();
            let mean_variance = spread / (features.stratum_count * width) as f64;
            (0..width).for_each(|place| covariance[place * width + place] = mean_variance);
        }
        let trace: f64 = (0..width).map(|place| covariance[place * width + place]).sum();
        let ridge = (SHRINKAGE * trace / width as f64).max(1e-9);
        covariance.iter_mut().for_each(|value| *value *= 1.0 - SHRINKAGE);
        (0..width).for_each(|place| covariance[place * width + place] += ridge);
        cholesky(&mut covariance, width);
        Ok(Self { width, inverse_factor: invert_lower_triangle(&covariance, width), mean })
    }

    /// Whitened rows of these indices, in blocks of at most [`BLOCK_ROWS`] rows.
    pub fn transform(&self, features: &Features, indices: &[usize], kernels: &dyn Backend) -> Result<Vec<Buffer>> {
        let width = self.width;
        let inverse_factor =
            Tensor::new([width, width], self.inverse_factor.iter().map(|value| *value as f32).collect());
        let parameters = kernels.upload_parameters(&[inverse_factor, Tensor::zeros([width])])?;
        let centred = |index: &usize| {
            features.example_row(*index).iter().zip(&self.mean).map(|(value, mean)| (f64::from(*value) - mean) as f32)
        };
        let block = |some: &[usize]| {
            let rows = Tensor::new([some.len(), width], some.iter().flat_map(centred).collect());
            Ok(kernels.dense(&kernels.upload(&rows)?, &parameters[0], &parameters[1])?)
        };
        indices.chunks(BLOCK_ROWS).map(block).collect()
    }

    /// Head on the original features, from the head on whitened features.
    pub fn unwhiten(&self, weight: &[f32], bias: &[f32]) -> LinearProbe {
        let mut fit = LinearProbe { weight: Vec::with_capacity(weight.len()), bias: Vec::with_capacity(bias.len()) };
        for (weight, bias) in weight.chunks_exact(self.width).zip(bias) {
            let mut unwhitened = vec![0.0; self.width];
            for (row, weight) in self.inverse_factor.chunks_exact(self.width).zip(weight) {
                unwhitened.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*weight) * value);
            }
            let shift: f64 = unwhitened.iter().zip(&self.mean).map(|(weight, mean)| weight * mean).sum();
            fit.weight.extend(unwhitened.iter().map(|value| *value as f32));
            fit.bias.push((f64::from(*bias) - shift) as f32);
        }
        fit
    }
}

/// Means of the classes, `(classes, width)`; zeros for a class without a row.
fn class_means(features: &Features, indices: &[usize]) -> Vec<f64> {
    let width = features.width;
    let mut counts = vec![0usize; features.stratum_count];
    let mut means = vec![0.0; features.stratum_count * width];
    for index in indices {
        let class = features.strata[*index] as usize;
        counts[class] += 1;
        let mean = &mut means[class * width..(class + 1) * width];
        mean.iter_mut().zip(features.example_row(*index)).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    for (mean, count) in means.chunks_exact_mut(width).zip(&counts) {
        mean.iter_mut().for_each(|value| *value /= (*count).max(1) as f64);
    }
    means
}

/// Pooled within-class covariance, `(width, width)`.
fn covariance(features: &Features, indices: &[usize], means: &[f64], kernels: &dyn Backend) -> Result<Vec<f64>> {
    let width = features.width;
    let mut covariance = vec![0.0; width * width];
    for some in indices.chunks(BLOCK_ROWS) {
        let centred = |index: &usize| {
            let mean = &means[features.strata[*index] as usize * width..];
            features.example_row(*index).iter().zip(mean).map(|(value, mean)| (f64::from(*value) - mean) as f32)
        };
        let rows = kernels.upload(&Tensor::new([some.len(), width], some.iter().flat_map(centred).collect()))?;
        let products = kernels.download(&kernels.dense_backward_parameters(&rows, &rows)?.weight)?;
        covariance.iter_mut().zip(&products.values).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    covariance.iter_mut().for_each(|value| *value /= indices.len() as f64);
    Ok(covariance)
}

/// Cholesky factor of a positive definite matrix, in place in the lower triangle. The ridge makes the covariance positive definite.
///
/// The upper triangle stores the transposed factor, so the inner loop reads contiguous memory.
fn cholesky(matrix: &mut [f64], width: usize) {
    let mut sums = vec![0.0; width];
    for row in 0..width {
        sums[..=row].fill(0.0);
        for column in 0..row {
            let value = (matrix[row * width + column] - sums[column]) / matrix[column * width + column];
            matrix[row * width + column] = value;
            let transposed = &matrix[column * width + column + 1..column * width + row];
            sums[column + 1..row].iter_mut().zip(transposed).for_each(|(sum, other)| *sum += value * other);
            sums[row] += value * value;
            matrix[column * width + row] = value;
        }
        let remainder = matrix[row * width + row] - sums[row];
        matrix[row * width + row] = remainder.max(f64::MIN_POSITIVE).sqrt();
    }
}

/// Inverse of a lower triangular matrix.
fn invert_lower_triangle(lower_factor: &[f64], width: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; width * width];
    for row in 0..width {
        let (previous_rows, current_row) = inverse.split_at_mut(row * width);
        let own = &mut current_row[..width];
        own[row] = 1.0;
        for (column, factor) in lower_factor[row * width..row * width + row].iter().enumerate() {
            let previous_row = &previous_rows[column * width..column * width + column + 1];
            own.iter_mut().zip(previous_row).for_each(|(sum, value)| *sum -= factor * value);
        }
        let diagonal = lower_factor[row * width + row];
        own[..=row].iter_mut().for_each(|value| *value /= diagonal);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_cholesky_factor_whitens_the_matrix() {
        let mut matrix = vec![4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let original = matrix.clone();
        cholesky(&mut matrix, 3);
        let inverse = invert_lower_triangle(&matrix, 3);
        // L⁻¹·A·L⁻ᵀ is the identity.
        for row in 0..3 {
            for column in 0..3 {
                let mut sum = 0.0;
                for (i, j) in (0..9).map(|place| (place / 3, place % 3)) {
                    sum += inverse[row * 3 + i] * original[i * 3 + j] * inverse[column * 3 + j];
                }
                assert!((sum - f64::from(u8::from(row == column))).abs() < 1e-12);
            }
        }
    }
}
