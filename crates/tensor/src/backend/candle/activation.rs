//! Derivatives of the activation functions.

use super::CandleResult;
use crate::backend::Activation;
use candle_core::{DType, Tensor};

/// f′(x), elementwise.
pub fn derivative(activation: Activation, x: &Tensor) -> CandleResult {
    let sigmoid = || (x.neg()?.exp()? + 1.0)?.recip();
    match activation {
        // Φ(x) + x·φ(x)
        Activation::Gelu => {
            let cumulative = (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
            let density = ((x.sqr()? * -0.5)?.exp()? / (std::f64::consts::TAU).sqrt())?;
            cumulative + (x * density)?
        }
        // σ + x·σ·(1 − σ)·(2u)′ with σ = σ(2u), 2u = 2·√(2/π)·(x + 0.044715·x³)
        Activation::GeluTanh => {
            let scale = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            let square = x.sqr()?;
            let doubled_argument = (x * square.affine(scale * 0.044715, scale)?)?;
            let sigmoid = (((doubled_argument * 0.5)?.tanh()? + 1.0)? * 0.5)?;
            let tanh_term = ((&sigmoid * sigmoid.affine(-1.0, 1.0)?)? * x)?;
            (tanh_term * square.affine(3.0 * scale * 0.044715, scale)?)? + sigmoid
        }
        Activation::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0),
        Activation::Relu => x.gt(0.0)?.to_dtype(DType::F32),
        // σ·(1 + x·(1 − σ))
        Activation::Silu => {
            let sigmoid = sigmoid()?;
            (x * sigmoid.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)? * sigmoid
        }
    }
}
