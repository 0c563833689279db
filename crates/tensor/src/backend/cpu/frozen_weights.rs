//! Loading of the base model's weights, quantized if the backend's weight storage says so.

use super::backend::{CpuBackend, WeightStorage, buffer_from_matrix, buffer_from_matrix_buf};
use super::gemm::AccumulatorInit;
use super::matrix::{Matrix, MatrixBuf};
use super::packing;
use super::quant::{ColumnSlice, QuantizedActivations, QuantizedWeight};
use super::threads::with_current_pool;
use crate::backend::{Backend, Buffer, FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind, WeightOps};
use crate::error::Result;
use crate::quant::StoredWeight;
use crate::{ActivationQuantization, LoraPrecision, Tensor};
use std::sync::Arc;

impl WeightOps for CpuBackend {
    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = [weight.shape[0], weight.shape[1]];
        let panels = packing::pack_rows(&weight.values, output, input);
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        Ok(FrozenLinear::new(buffer_from_matrix(panels), bias, [output, input]))
    }

    fn freeze_norm(&self, kind: NormKind, weight: Tensor, bias: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { kind, weight: self.upload(&weight)?, bias: self.upload(&bias)?, epsilon })
    }

    fn freeze_embedding(&self, rows: Tensor) -> Result<FrozenEmbedding> {
        let [count, width] = [rows.shape[0], rows.shape[1]];
        let mut buf = MatrixBuf::zeros_in_arena(count, width);
        buf.as_mut_slice().copy_from_slice(&rows.values);
        Ok(FrozenEmbedding { width, weight: buffer_from_matrix_buf(buf) })
    }

    fn load_linear(&self, weight: StoredWeight, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = weight.shape();
        let linear = match self.try_quantize(weight) {
            Err(weight) => self.freeze_linear(weight, bias)?,
            Ok(weight) => {
                let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
                FrozenLinear::new(weight, bias, [output, input])
            }
        };
        Ok(linear.with_int8_copy())
    }

    fn load_embedding(&self, rows: StoredWeight) -> Result<FrozenEmbedding> {
        let width = rows.shape()[1];
        match self.try_quantize(rows) {
            Ok(rows) => Ok(FrozenEmbedding { weight: rows, width }),
            Err(rows) => self.freeze_embedding(rows),
        }
    }

    fn with_int8_activations(&self, lora: LoraPrecision) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { activations: ActivationQuantization::Int8, lora, ..*self }))
    }

    fn prepack_linear(&self, linear: &FrozenLinear) {
        self.int8_weight(linear);
    }

    fn tie_embeddings(&self, table: &FrozenEmbedding, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        let Some(weight) = table.weight.as_quantized() else { return Ok(None) };
        let shape = [weight.out_features(), weight.in_features()];
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        Ok(Some(FrozenLinear::new(table.weight.clone(), bias, shape).with_int8_copy()))
    }
}

impl CpuBackend {
    /// The weight that int8 activations multiply: the map's own, or its copy in 8 bits, which the first call builds. `None`
    /// if activations or the map stay in `f32`.
    pub(super) fn int8_weight<'a>(&self, linear: &'a FrozenLinear) -> Option<&'a QuantizedWeight> {
        if self.activations == ActivationQuantization::F32 {
            return None;
        }
        match linear.weight.as_quantized() {
            Some(weight) if weight.format().supports_integer_dot() => Some(weight),
            _ => linear.int8_copy.as_ref()?.get_or_init(|| Buffer::new(self.int8_copy(linear))).as_quantized(),
        }
    }

    fn int8_copy(&self, linear: &FrozenLinear) -> QuantizedWeight {
        match linear.weight.as_quantized() {
            Some(weight) => weight.int8_copy(self.isa),
            None => {
                let shape = [linear.out_features, linear.in_features];
                QuantizedWeight::int8_copy_of_panels(self.isa, linear.weight.as_matrix(), shape)
            }
        }
    }

    /// Product with int8 activations.
    pub(super) fn int8_linear(&self, input: &Matrix, weight: &QuantizedWeight, init: AccumulatorInit) -> Buffer {
        let isa = self.isa;
        let quantized = QuantizedActivations::new(isa, input.as_slice(), weight.in_features(), weight.format());
        multiply_columns(input.rows(), weight, |out| weight.multiply_int8(isa, &quantized, init, out))
    }

    /// Product of `f32` activations with a quantized weight.
    pub(super) fn quantized_linear(&self, input: &Matrix, weight: &QuantizedWeight, init: AccumulatorInit) -> Buffer {
        multiply_columns(input.rows(), weight, |out| weight.multiply(self.isa, input.as_slice(), init, out))
    }
}

/// Computes all columns of a product, split over the active intra-op threads if there are any.
fn multiply_columns(rows: usize, weight: &QuantizedWeight, multiply: impl Fn(&mut ColumnSlice) + Sync) -> Buffer {
    let mut buf = MatrixBuf::new(rows, weight.out_features());
    let mut out = ColumnSlice::new(buf.as_mut_slice(), rows, weight.out_features());
    with_current_pool(|pool| match pool {
        Some(pool) => weight.parallel_columns(pool, out, multiply),
        None => multiply(&mut out),
    });
    buffer_from_matrix_buf(buf)
}

/// Copies one row of an embedding table, dequantized.
pub fn embedding_row(table: &FrozenEmbedding, id: u32, out: &mut [f32]) {
    match table.weight.as_quantized() {
        Some(rows) => rows.dequantize_row(id as usize, out),
        None => out.copy_from_slice(table.weight.as_matrix().row(id as usize)),
    }
}

impl CpuBackend {
    /// Quantizes the weight if this backend's storage says so; else returns its dense values as the error.
    fn try_quantize(&self, weight: StoredWeight) -> std::result::Result<Buffer, Tensor> {
        let quantized = match (self.weight_storage, weight) {
            (WeightStorage::Native, StoredWeight::Quantized { format, shape, bytes }) => {
                QuantizedWeight::from_rows(format, shape, &bytes)
            }
            (WeightStorage::Quantized(target), StoredWeight::Quantized { format, shape, bytes })
                if target == format =>
            {
                QuantizedWeight::from_rows(format, shape, &bytes)
            }
            (WeightStorage::Quantized(target), weight) => {
                let [output, input] = weight.shape();
                QuantizedWeight::quantize(target, &weight.into_dequantized().values, output, input)
            }
            (WeightStorage::F32 | WeightStorage::Native, weight) => return Err(weight.into_dequantized()),
        };
        Ok(Buffer::new(quantized))
    }
}
