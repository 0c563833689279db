//! Activation functions and their derivatives.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::{LANES, Simd, SimdKernel, exp, for_each_vector};
use std::marker::PhantomData;

/// Activation function of one SIMD vector.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait ActivationFn {
    /// Returns f(x) and f′(x).
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L);
}

pub struct Gelu;
/// GELU within 5e-5 or 2e-6·|x|, and its derivative within 2e-3, without a division or an exponential: enough for products that round its
/// values to 8 bits.
pub struct PolynomialGelu;
pub struct GeluTanh;
pub struct Relu;
pub struct Silu;

impl ActivationFn for Relu {
    #[inline(always)]
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L) {
        // SAFETY: only arithmetic on vectors; the CPU supports `L`. The derivative at 0 is 0: −x is not negative there.
        unsafe {
            let (zero, one) = (L::splat(0.0), L::splat(1.0));
            (x.max(zero), zero.sub(x).select_negative(one, zero))
        }
    }
}

impl ActivationFn for Silu {
    #[inline(always)]
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L) {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe {
            let one = L::splat(1.0);
            // σ(|x|), from which σ(−|x|) = 1 − σ(|x|).
            let magnitude = x.max(L::splat(0.0).sub(x));
            let exp_neg_abs = exp(L::splat(0.0).sub(magnitude));
            let sigmoid_abs = one.div(one.add(exp_neg_abs));
            let sigmoid = x.select_negative(exp_neg_abs.mul(sigmoid_abs), sigmoid_abs);
            let value = x.mul(sigmoid);
            // σ + x·σ·(1 − σ)
            (value, value.mul_add(one.sub(sigmoid), sigmoid))
        }
    }
}

impl ActivationFn for GeluTanh {
    #[inline(always)]
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L) {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe {
            // ½·(1 + tanh(u)) = σ(2u), with 2u = x·(s + s·0.044715·x²), s = 2·√(2/π)
            let one = L::splat(1.0);
            let square = x.mul(x);
            let double_u = x.mul(square.mul_add(L::splat(0.071_354_814), L::splat(1.595_769)));
            let double_u_derivative = square.mul_add(L::splat(3.0 * 0.071_354_814), L::splat(1.595_769));
            let magnitude = double_u.max(L::splat(0.0).sub(double_u));
            let exp_neg_abs = exp(L::splat(0.0).sub(magnitude));
            let sigmoid_abs = one.div(one.add(exp_neg_abs));
            let sigmoid_neg_abs = exp_neg_abs.mul(sigmoid_abs);
            let sigmoid = double_u.select_negative(sigmoid_neg_abs, sigmoid_abs);
            // σ + x·σ·(1 − σ)·(2u)′
            (x.mul(sigmoid), x.mul(double_u_derivative).mul_add(sigmoid_abs.mul(sigmoid_neg_abs), sigmoid))
        }
    }
}

impl ActivationFn for Gelu {
    #[inline(always)]
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L) {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe { gelu(x) }
    }
}

impl ActivationFn for PolynomialGelu {
    #[inline(always)]
    unsafe fn value_and_derivative<L: Simd>(x: L) -> (L, L) {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe {
            let (zero, lowest) = (L::splat(0.0), L::splat(-GELU_POLYNOMIAL_LIMIT));
            let clamped = zero.sub(lowest.max(zero.sub(x))).max(lowest);
            let square = clamped.mul(clamped);
            let (mut polynomial, mut density) = (zero, zero);
            let mut power = GELU_POLYNOMIAL.len();
            while power > 0 {
                power -= 1;
                let coefficient = GELU_POLYNOMIAL[power];
                polynomial = polynomial.mul_add(square, L::splat(coefficient));
                density = density.mul_add(square, L::splat((2 * power + 1) as f32 * coefficient));
            }
            let cumulative = clamped.mul_add(polynomial, L::splat(0.5));
            (x.mul(cumulative), clamped.mul_add(density, cumulative))
        }
    }
}

/// Beyond it Φ is taken to be 0 or 1.
const GELU_POLYNOMIAL_LIMIT: f32 = 4.5;

/// Coefficients of q in Φ(x) = ½ + x·q(x²), the lowest power first. The fit is a minimax approximation of x·Φ(x), by reweighted least
/// squares, with Φ(±4.5) fixed at 1 and 0.
const GELU_POLYNOMIAL: [f32; 10] = [
    0.398_827_52,
    -0.066_217_19,
    0.009_746_267,
    -0.001_092_054_2,
    9.181_106e-5,
    -5.645_151e-6,
    2.434_318e-7,
    -6.900_466_4e-9,
    1.145_228_4e-10,
    -8.376_255e-13,
];

/// Kernel that applies an activation function to every value.
pub struct MapActivation<'a, C> {
    pub input: &'a Matrix,
    /// Receives f′(x), shaped like the input, if the backward pass needs it.
    pub derivative: Option<&'a mut MatrixBuf>,
    pub function: PhantomData<C>,
}

impl<C: ActivationFn> SimdKernel for MapActivation<'_, C> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> Matrix {
        let mut buf = MatrixBuf::new(self.input.rows(), self.input.width());
        let padded_len = self.input.as_slice().len().next_multiple_of(LANES);
        let input = self.input.as_padded_slice()[..padded_len].as_ptr();
        let out = buf.as_mut_padded_slice()[..padded_len].as_mut_ptr();
        let derivatives = self.derivative.map(|draft| draft.as_mut_padded_slice()[..padded_len].as_mut_ptr());
        for_each_vector!(padded_len, at, {
            // SAFETY: `count` is rounded up to whole vectors, and every allocation has room for the last one; the CPU
            // supports `L`.
            unsafe {
                let (value, derivative) = C::value_and_derivative::<L>(L::load(input.wrapping_add(at)));
                value.store(out.wrapping_add(at));
                if let Some(derivatives) = derivatives {
                    derivative.store(derivatives.wrapping_add(at));
                }
            }
        });
        buf.freeze()
    }
}

/// Computes tanh with the standard library, value by value: only few rows (poolers, heads) use it.
pub fn tanh(input: &Matrix, derivative: Option<&mut MatrixBuf>) -> Matrix {
    let mut buf = MatrixBuf::new(input.rows(), input.width());
    buf.as_mut_slice().iter_mut().zip(input.as_slice()).for_each(|(dst, src)| *dst = src.tanh());
    if let Some(derivative) = derivative {
        derivative
            .as_mut_slice()
            .iter_mut()
            .zip(buf.as_mut_slice())
            .for_each(|(to, value)| *to = 1.0 - *value * *value);
    }
    buf.freeze()
}

/// Returns GELU and its derivative. With z = |x|/√2 and t = 1/(1 + 0.4·z), Φ(−|x|) = ½·erfc(z) = ½·exp(−z²)·p(t), as in
/// Hastings (1955); the coefficients of p are fitted to an erfc error below 3e-8 (least squares, reweighted to
/// minimax).
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn gelu<L: Simd>(x: L) -> (L, L) {
    // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
    unsafe {
        let magnitude = x.max(L::splat(0.0).sub(x));
        let t = L::splat(1.0).div(magnitude.mul_add(L::splat(0.4 * std::f32::consts::FRAC_1_SQRT_2), L::splat(1.0)));
        let gaussian = exp(x.mul(x).mul(L::splat(-0.5)));
        let polynomial = L::splat(-0.200_259_76).mul_add(t, L::splat(0.709_149_4)).mul_add(t, L::splat(-0.370_911_3));
        let polynomial = polynomial
            .mul_add(t, L::splat(0.468_276_86))
            .mul_add(t, L::splat(0.161_822_5))
            .mul_add(t, L::splat(0.231_922_26));
        let tail = polynomial.mul(t).mul(gaussian).mul(L::splat(0.5));
        let cumulative = x.select_negative(tail, L::splat(1.0).sub(tail));
        // φ(x) = exp(−x²/2)/√2π
        let density = gaussian.mul(L::splat(0.398_942_3));
        (x.mul(cumulative), x.mul_add(density, cumulative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::Isa;

    /// The values and derivatives of a function.
    fn evaluate<C: ActivationFn>(isa: Isa, input: &Matrix) -> [Vec<f32>; 2] {
        let mut derivative = MatrixBuf::new(input.rows(), input.width());
        let values = isa.run(MapActivation::<C> { input, derivative: Some(&mut derivative), function: PhantomData });
        [values.as_slice().to_vec(), derivative.freeze().as_slice().to_vec()]
    }

    #[test]
    fn the_polynomial_gelu_is_close_to_gelu() {
        let input: Vec<f32> = (-20_000..=20_000).map(|index| index as f32 / 1000.0).chain([-1e6, 1e6]).collect();
        let input = Matrix::from_slice(1, input.len(), &input);
        for isa in Isa::available() {
            let [values, derivatives] = evaluate::<Gelu>(isa, &input);
            let [polynomial_values, polynomial_derivatives] = evaluate::<PolynomialGelu>(isa, &input);
            for (index, x) in input.as_slice().iter().enumerate() {
                let error = (polynomial_values[index] - values[index]).abs();
                assert!(error <= 5e-5_f32.max(2e-6 * x.abs()), "{isa:?}: gelu({x}) is off by {error}");
                let error = (polynomial_derivatives[index] - derivatives[index]).abs();
                assert!(error <= 2e-3, "{isa:?}: the derivative at {x} is off by {error}");
            }
        }
    }
}
