//! Layer norm and RMS norm: candle-nn's fused kernels forward, written out where the backward pass needs intermediates.

use super::{CandleResult, CandleTensor};
use crate::backend::{Buffer, FrozenNorm, NormKind, NormSaved};
use candle_core::D;

/// Forward pass that saves nothing.
pub fn forward_fused(input: &CandleTensor, norm: &FrozenNorm) -> CandleResult {
    let (input, epsilon) = (input.contiguous()?, norm.epsilon as f32);
    let (weight, bias) = (norm.weight.as_tensor(), norm.bias.as_tensor());
    match norm.kind {
        NormKind::LayerNorm => candle_nn::ops::layer_norm(&input, weight, bias, epsilon),
        NormKind::RmsNorm => candle_nn::ops::rms_norm(&input, weight, epsilon)?.broadcast_add(bias),
    }
}

/// Forward pass that saves what [`backward`] needs.
pub fn forward(input: &CandleTensor, norm: &FrozenNorm) -> CandleResult<(CandleTensor, NormSaved)> {
    let centered = center_rows(norm.kind, input)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let inverse_std = (variance + norm.epsilon)?.sqrt()?.recip()?;
    let normalised = centered.broadcast_mul(&inverse_std)?;
    let output = normalised.broadcast_mul(norm.weight.as_tensor())?.broadcast_add(norm.bias.as_tensor())?;
    let saved = NormSaved { normalised: Buffer::new(normalised), inverse_std: Buffer::new(inverse_std) };
    Ok((output, saved))
}

/// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·weight; RMS norm has no mean(g).
pub fn backward(gradient: &CandleTensor, saved: &NormSaved, norm: &FrozenNorm) -> CandleResult {
    let normalised = saved.normalised.as_tensor();
    let scaled = gradient.broadcast_mul(norm.weight.as_tensor())?;
    let row_mean_product = (&scaled * normalised)?.mean_keepdim(D::Minus1)?;
    (center_rows(norm.kind, &scaled)? - normalised.broadcast_mul(&row_mean_product)?)?
        .broadcast_mul(saved.inverse_std.as_tensor())
}

/// Subtracts the mean of each row for layer norm.
fn center_rows(kind: NormKind, rows: &CandleTensor) -> CandleResult {
    match kind {
        NormKind::LayerNorm => rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?),
        NormKind::RmsNorm => Ok(rows.clone()),
    }
}
