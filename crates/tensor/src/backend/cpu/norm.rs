//! Layer norm and RMS norm of rows, optionally of the sum with a residual.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::{LANES, Simd, SimdKernel, for_each_vector};
use crate::backend::NormKind;

/// Saved activations for the backward pass.
pub struct NormStatistics {
    /// `(rows, width)`
    pub normalized: MatrixBuf,
    /// One over the standard deviation `(rows, 1)`.
    pub inv_std: MatrixBuf,
}

/// Kernel of LayerNorm and RMSNorm over rows.
pub struct Norm<'a> {
    pub kind: NormKind,
    pub input: &'a Matrix,
    pub residual: Option<&'a Matrix>,
    pub weight: &'a Matrix,
    pub bias: &'a Matrix,
    pub epsilon: f32,
    pub saved: Option<&'a mut NormStatistics>,
}

impl SimdKernel for Norm<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Simd>(mut self) -> Matrix {
        let (rows, width) = (self.input.rows(), self.input.width());
        let has_input_shape = |residual: &Matrix| (residual.rows(), residual.width()) == (rows, width);
        assert!(self.residual.is_none_or(has_input_shape), "a residual has the input's shape");
        let (weight, bias) = (self.weight.as_slice()[..width].as_ptr(), self.bias.as_slice()[..width].as_ptr());
        let mut buf = MatrixBuf::new(rows, width);
        let mut sum = MatrixBuf::new(1, width);
        for row in 0..rows {
            let out = buf.as_mut_slice()[row * width..(row + 1) * width].as_mut_ptr();
            let input = self.input.row(row).as_ptr();
            // SAFETY: each pointer is to `width` values, of which `remaining` follow `start`; the CPU supports `L`.
            unsafe {
                let input = match self.residual {
                    None => input,
                    Some(residual) => add_rows::<L>(input, residual.row(row).as_ptr(), sum.as_mut_slice()),
                };
                let (mean, inv_std) = mean_and_inv_std::<L>(self.kind, input, width, self.epsilon);
                let (mean, inv_std_vector) = (L::splat(mean), L::splat(inv_std));
                let normalized = self.saved.as_mut().map(|saved| {
                    saved.inv_std.as_mut_slice()[row] = inv_std;
                    saved.normalized.as_mut_slice()[row * width..(row + 1) * width].as_mut_ptr()
                });
                for_each_vector!(width, start, remaining, {
                    let value = L::load_partial(input.wrapping_add(start), remaining).sub(mean).mul(inv_std_vector);
                    if let Some(normalized) = normalized {
                        value.store_partial(normalized.wrapping_add(start), remaining);
                    }
                    let weight_vector = L::load_partial(weight.wrapping_add(start), remaining);
                    let bias_vector = L::load_partial(bias.wrapping_add(start), remaining);
                    value.mul_add(weight_vector, bias_vector).store_partial(out.wrapping_add(start), remaining);
                });
            }
        }
        buf.freeze()
    }
}

/// Writes the sum of two rows to `sum` and returns a pointer to it.
///
/// # Safety
/// Pointers are to as many values as the row has, and the CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn add_rows<L: Simd>(lhs: *const f32, rhs: *const f32, sum: &mut [f32]) -> *const f32 {
    let (width, out) = (sum.len(), sum.as_mut_ptr());
    // SAFETY: `remaining` values follow `start` in each of the three rows; the CPU supports `L`.
    unsafe {
        for_each_vector!(width, start, remaining, {
            let rhs = L::load_partial(rhs.wrapping_add(start), remaining);
            L::load_partial(lhs.wrapping_add(start), remaining)
                .add(rhs)
                .store_partial(out.wrapping_add(start), remaining);
        });
    }
    out
}

/// Mean and inverse standard deviation of a row. For RMS norm: 0 and one over the root mean square.
///
/// # Safety
/// Pointers are to as many values as the row has, and the CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn mean_and_inv_std<L: Simd>(kind: NormKind, row: *const f32, width: usize, epsilon: f32) -> (f32, f32) {
    // SAFETY: `remaining` values of the row follow `start`, and `means` has sixteen; the CPU supports `L`.
    unsafe {
        let mut total = L::splat(0.0);
        if kind == NormKind::LayerNorm {
            for_each_vector!(width, start, remaining, {
                total = total.add(L::load_partial(row.wrapping_add(start), remaining));
            });
        }
        let mean = match kind {
            NormKind::LayerNorm => total.reduce_sum() / width as f32,
            NormKind::RmsNorm => 0.0,
        };
        let means = [mean; LANES];
        let mut squares = L::splat(0.0);
        for_each_vector!(width, start, remaining, {
            // Lanes beyond the row's end are 0 in both, and add nothing to the sum.
            let mean = L::load_partial(means.as_ptr(), remaining);
            let centered = L::load_partial(row.wrapping_add(start), remaining).sub(mean);
            squares = centered.mul_add(centered, squares);
        });
        (mean, 1.0 / (squares.reduce_sum() / width as f32 + epsilon).sqrt())
    }
}

/// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·weight; RMS norm has no mean(g).
pub struct NormBackward<'a> {
    pub kind: NormKind,
    pub gradient: &'a Matrix,
    pub normalized: &'a Matrix,
    pub inv_std: &'a Matrix,
    pub weight: &'a Matrix,
}

impl SimdKernel for NormBackward<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> Matrix {
        let (rows, width) = (self.gradient.rows(), self.gradient.width());
        assert_eq!((self.normalized.rows(), self.normalized.width()), (rows, width), "both operands have one shape");
        let weight = self.weight.as_slice()[..width].as_ptr();
        let mut buf = MatrixBuf::new(rows, width);
        for row in 0..rows {
            let (gradient, normalized) = (self.gradient.row(row).as_ptr(), self.normalized.row(row).as_ptr());
            let out = buf.as_mut_slice()[row * width..(row + 1) * width].as_mut_ptr();
            // SAFETY: each pointer is to `width` values, of which `remaining` follow `start`; the CPU supports `L`.
            unsafe {
                let (mut gradient_sum, mut dot_vector) = (L::splat(0.0), L::splat(0.0));
                for_each_vector!(width, start, remaining, {
                    let weight_vector = L::load_partial(weight.wrapping_add(start), remaining);
                    let weighted_gradient = L::load_partial(gradient.wrapping_add(start), remaining).mul(weight_vector);
                    gradient_sum = gradient_sum.add(weighted_gradient);
                    dot_vector = weighted_gradient
                        .mul_add(L::load_partial(normalized.wrapping_add(start), remaining), dot_vector);
                });
                let mean = match self.kind {
                    NormKind::LayerNorm => L::splat(gradient_sum.reduce_sum() / width as f32),
                    NormKind::RmsNorm => L::splat(0.0),
                };
                let mean_dot = L::splat(-dot_vector.reduce_sum() / width as f32);
                let inv_std = L::splat(self.inv_std.as_slice()[row]);
                for_each_vector!(width, start, remaining, {
                    let weight_vector = L::load_partial(weight.wrapping_add(start), remaining);
                    let weighted_gradient =
                        L::load_partial(gradient.wrapping_add(start), remaining).mul(weight_vector).sub(mean);
                    let value =
                        L::load_partial(normalized.wrapping_add(start), remaining).mul_add(mean_dot, weighted_gradient);
                    value.mul(inv_std).store_partial(out.wrapping_add(start), remaining);
                });
            }
        }
        buf.freeze()
    }
}
