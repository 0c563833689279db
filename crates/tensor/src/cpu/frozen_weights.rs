//! The base's own weights, in fewer bits where they are to be held so.

use super::backend::{CpuBackend, WeightStorage, buffer_from_matrix_buf};
use super::gemm::AccumulatorInit;
use super::intra_op_parallelism::with_current_pool;
use super::matrix::{Matrix, MatrixBuf};
use super::quant::{ColumnSlice, QuantFormat, QuantizedActivations, QuantizedWeight};
use crate::Tensor;
use crate::backend::{Backend, Buffer, FrozenEmbedding, FrozenLinear, Storage};
use crate::error::Result;
use crate::stored_weight::StoredWeight;
use crate::weight_ops::{ActivationQuantization, WeightOps};
use std::sync::{Arc, OnceLock};

impl WeightOps for CpuBackend {
    fn load_linear(&self, weight: StoredWeight, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = weight.shape();
        match self.try_quantize(weight) {
            Err(weight) => self.freeze_linear(weight, bias),
            Ok(weight) => {
                let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
                Ok(FrozenLinear { weight, bias, transposed: OnceLock::new(), in_features: input, out_features: output })
            }
        }
    }

    fn load_embedding(&self, rows: StoredWeight) -> Result<FrozenEmbedding> {
        let width = rows.shape()[1];
        match self.try_quantize(rows) {
            Ok(rows) => Ok(FrozenEmbedding { weight: rows, width }),
            Err(rows) => self.freeze_embedding(rows),
        }
    }

    fn with_int8_activations(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { activations: ActivationQuantization::Int8, ..*self }))
    }

    fn tie_embeddings(&self, table: &FrozenEmbedding, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        let Storage::Quantized(weight) = &table.weight.0 else { return Ok(None) };
        let (input, output) = (weight.in_features(), weight.out_features());
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        let weight = Buffer(Storage::Quantized(Arc::clone(weight)));
        Ok(Some(FrozenLinear { weight, bias, transposed: OnceLock::new(), in_features: input, out_features: output }))
    }
}

impl CpuBackend {
    /// On all threads of the team that helps, if one does.
    pub(super) fn quantized_linear(&self, input: &Matrix, weight: &QuantizedWeight, init: AccumulatorInit) -> Buffer {
        let (rows, isa) = (input.rows(), self.isa);
        let mut buf = MatrixBuf::new(rows, weight.out_features());
        let mut out = ColumnSlice::new(buf.as_mut_slice(), rows, weight.out_features());
        let quantized_input = (self.activations == ActivationQuantization::Int8
            && weight.format().supports_integer_dot())
        .then(|| QuantizedActivations::new(isa, input.as_slice(), weight.in_features()));
        let multiply = |out: &mut ColumnSlice| match &quantized_input {
            Some(rounded) => weight.multiply_int8(isa, rounded, init, out),
            None => weight.multiply(isa, input.as_slice(), init, out),
        };
        with_current_pool(|team| match team {
            Some(team) => weight.parallel_columns(team, out, multiply),
            None => multiply(&mut out),
        });
        buffer_from_matrix_buf(buf)
    }
}

/// A table's row.
pub fn embedding_row(table: &FrozenEmbedding, id: u32, out: &mut [f32]) {
    match &table.weight.0 {
        Storage::Quantized(rows) => rows.dequantize_row(id as usize, out),
        _ => out.copy_from_slice(table.weight.as_matrix().row(id as usize)),
    }
}

impl CpuBackend {
    /// A weight in fewer bits, where it is to be held so; else its numbers.
    fn try_quantize(&self, weight: StoredWeight) -> std::result::Result<Buffer, Tensor> {
        let quantized = match (self.weight_storage, &weight) {
            (WeightStorage::F32, _) | (WeightStorage::Native, StoredWeight::Dense(_)) => {
                return Err(weight.into_dequantized());
            }
            (WeightStorage::Native, StoredWeight::Quantized { .. }) => weight.to_quantized(),
            (WeightStorage::Quantized(form), StoredWeight::Quantized { format: stored_format, .. })
                if form == *stored_format =>
            {
                weight.to_quantized()
            }
            (WeightStorage::Quantized(_), _) => None,
        };
        let quantize = |form: QuantFormat, weight: StoredWeight| {
            let [output, input] = weight.shape();
            QuantizedWeight::quantize(form, &weight.into_dequantized().values, output, input)
        };
        let quantized_weight = match (quantized, self.weight_storage) {
            (Some(reduced), _) => reduced,
            (None, WeightStorage::Quantized(form)) => quantize(form, weight),
            (None, _) => return Err(weight.into_dequantized()),
        };
        Ok(Buffer(Storage::Quantized(Arc::new(quantized_weight))))
    }
}
