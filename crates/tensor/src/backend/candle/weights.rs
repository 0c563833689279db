//! Upload of frozen weights.

use super::{CandleBackend, CandleResult, CandleTensor};
use crate::backend::{Backend, Buffer, FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind, WeightOps};
use crate::error::{Context, Result};
use crate::quant::StoredWeight;
use crate::{LoraPrecision, Tensor, WeightFormat};
use candle_core::DType;
use std::sync::Arc;

impl CandleBackend {
    fn upload_frozen(&self, tensor: &Tensor) -> Result<Buffer> {
        let uploaded = self.upload_tensor(tensor)?;
        let stored = match self.weight_format {
            WeightFormat::Bf16 => uploaded.to_dtype(DType::BF16).context("rounding a weight")?,
            WeightFormat::Native | WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Q8_0 | WeightFormat::Q4_0 => {
                uploaded
            }
        };
        Ok(Buffer::new(stored))
    }
}

impl WeightOps for CandleBackend {
    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let shape = [weight.shape[0], weight.shape[1]];
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        Ok(FrozenLinear::new(self.upload_frozen(&weight)?, bias, shape))
    }

    fn freeze_norm(&self, kind: NormKind, weight: Tensor, bias: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { kind, weight: self.upload(&weight)?, bias: self.upload(&bias)?, epsilon })
    }

    fn freeze_embedding(&self, rows: Tensor) -> Result<FrozenEmbedding> {
        Ok(FrozenEmbedding { width: rows.shape[1], weight: self.upload_frozen(&rows)? })
    }

    fn load_linear(&self, weight: StoredWeight, bias: Option<Tensor>) -> Result<FrozenLinear> {
        self.freeze_linear(weight.into_dequantized(), bias)
    }

    fn load_embedding(&self, rows: StoredWeight) -> Result<FrozenEmbedding> {
        self.freeze_embedding(rows.into_dequantized())
    }

    fn tie_embeddings(&self, _embedding: &FrozenEmbedding, _bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(None)
    }

    fn with_int8_activations(&self, _: LoraPrecision) -> Option<Arc<dyn Backend>> {
        None
    }
}

/// Product in the weight's data type, converted to `f32`.
pub fn matmul_in_weight_dtype(input: &CandleTensor, weight: &CandleTensor) -> CandleResult {
    input.to_dtype(weight.dtype())?.matmul(weight)?.to_dtype(DType::F32)
}

/// x·Wᵀ + b with a weight `(output, input)`.
pub fn linear(input: &CandleTensor, weight: &CandleTensor, bias: Option<&CandleTensor>) -> CandleResult {
    let output = matmul_in_weight_dtype(input, &weight.t()?)?;
    match bias {
        Some(bias) => output.broadcast_add(bias),
        None => Ok(output),
    }
}
