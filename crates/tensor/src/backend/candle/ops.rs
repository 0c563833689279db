//! Operations of [`Backend`] that have no file of their own.

use super::weights::{linear, matmul_in_weight_dtype};
use super::{
    CandleBackend, CandleResult, CandleTensor, activation, add_accumulator, attention, into_buffer, norm, sum_tensors,
};
use crate::backend::{
    Activation, AttentionInput, AttentionSaved, Backend, Buffer, CrossEntropyOutput, DenseGradients, FrozenEmbedding,
    FrozenLinear, FrozenNorm, NormSaved, Parameter, PoolingKind, SaveForBackward,
};
use crate::error::{Context, Result};
use crate::{RaggedLayout, Tensor, WeightFormat};
use candle_core::{D, DType};
use std::ops::Range;
use std::sync::Arc;

impl Backend for CandleBackend {
    fn name(&self) -> &'static str {
        match (self.device.is_cuda(), self.weight_format) {
            (false, WeightFormat::Bf16) => "candle-cpu-bf16",
            (false, _) => "candle-cpu",
            (true, WeightFormat::Bf16) => "candle-cuda-bf16",
            (true, _) => "candle-cuda",
        }
    }

    /// GPUs need large batches to be busy.
    fn preferred_micro_batch_tokens(&self) -> usize {
        if self.device.is_cuda() { 8192 } else { 128 }
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        Ok(Buffer::new(self.upload_tensor(tensor)?))
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        let values = || rows.as_tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1();
        let values = values().context("copying rows from the device")?;
        Ok(Tensor::new(rows.as_tensor().dims(), values))
    }

    fn upload_parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>> {
        tensors.iter().map(|tensor| self.upload_tensor(tensor).map(Parameter::new)).collect()
    }

    fn embed(&self, embeddings: &[(&FrozenEmbedding, &[u32])], accumulator: Option<Buffer>) -> Result<Buffer> {
        let look_up = |(table, ids): &(&FrozenEmbedding, &[u32])| {
            let ids = CandleTensor::from_slice(ids, ids.len(), &self.device)?;
            table.weight.as_tensor().index_select(&ids, 0)?.to_dtype(DType::F32)
        };
        let accumulator = accumulator.map(|accumulator| Ok(accumulator.as_tensor().clone()));
        into_buffer("embedding", sum_tensors(accumulator.into_iter().chain(embeddings.iter().map(look_up))))
    }

    fn linear(&self, input: &Buffer, layer: &FrozenLinear) -> Result<Buffer> {
        into_buffer(
            "a linear map",
            linear(input.as_tensor(), layer.weight.as_tensor(), layer.bias.as_ref().map(Buffer::as_tensor)),
        )
    }

    fn linear_backward(&self, gradient: &Buffer, layer: &FrozenLinear, accumulator: Option<Buffer>) -> Result<Buffer> {
        let result = matmul_in_weight_dtype(gradient.as_tensor(), layer.weight.as_tensor())
            .and_then(|result| add_accumulator(result, accumulator));
        into_buffer("a linear map's backward pass", result)
    }

    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer> {
        into_buffer("a dense layer", linear(input.as_tensor(), weight.as_tensor(), Some(bias.as_tensor())))
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer> {
        into_buffer("a dense layer's backward pass", gradient.as_tensor().matmul(weight.as_tensor()))
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let weight = gradient.as_tensor().t().and_then(|transposed| transposed.matmul(input.as_tensor()));
        let weight = into_buffer("a dense layer's weight gradient", weight)?;
        let bias = into_buffer("a dense layer's bias gradient", gradient.as_tensor().sum_keepdim(0))?;
        Ok(DenseGradients { weight, bias })
    }

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer("adding rows", left.as_tensor() + right.as_tensor())
    }

    fn mul(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer("multiplying rows", left.as_tensor() * right.as_tensor())
    }

    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer> {
        into_buffer("scaling rows", rows.as_tensor() * factor)
    }

    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<NormSaved>)> {
        let compute = || -> CandleResult<_> {
            let input = match residual {
                Some(residual) => (input.as_tensor() + residual.as_tensor())?,
                None => input.as_tensor().clone(),
            };
            match save {
                SaveForBackward::No => Ok((Buffer::new(norm::forward_fused(&input, norm)?), None)),
                SaveForBackward::Yes => {
                    norm::forward(&input, norm).map(|(output, saved)| (Buffer::new(output), Some(saved)))
                }
            }
        };
        compute().context("a norm")
    }

    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        into_buffer("a norm's backward pass", norm::backward(gradient.as_tensor(), saved, norm))
    }

    fn activate(
        &self,
        activation: Activation,
        input: &Buffer,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<Buffer>)> {
        let x = input.as_tensor();
        let output = match activation {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        };
        let derivative = match save {
            SaveForBackward::No => None,
            SaveForBackward::Yes => {
                Some(into_buffer("an activation's derivative", activation::derivative(activation, x))?)
            }
        };
        Ok((into_buffer("an activation", output)?, derivative))
    }

    fn attention(&self, inputs: AttentionInput, save: SaveForBackward) -> Result<(Buffer, Option<AttentionSaved>)> {
        attention::forward(inputs, save).context("attention")
    }

    fn attention_backward(
        &self,
        gradient: &Buffer,
        inputs: AttentionInput,
        saved: &AttentionSaved,
    ) -> Result<[Buffer; 3]> {
        attention::backward(gradient.as_tensor(), inputs, saved).context("attention's backward pass")
    }

    fn pool(&self, input: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer> {
        let pool_sequence = |sequence: usize| match (kind, layout.real_rows(sequence)) {
            (PoolingKind::Mean, real) => input.as_tensor().narrow(0, real.start, real.len())?.mean_keepdim(0),
            (PoolingKind::First, _) => input.as_tensor().narrow(0, layout.row_range(sequence).start, 1),
            (PoolingKind::Last, _) => input.as_tensor().narrow(0, layout.row_range(sequence).end - 1, 1),
        };
        let rows: CandleResult<Vec<_>> = (0..layout.num_sequences()).map(pool_sequence).collect();
        into_buffer("pooling", rows.and_then(|rows| CandleTensor::cat(&rows, 0)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer> {
        let width = gradient.as_tensor().dims()[1];
        let expand_sequence = |(sequence, range): (usize, std::ops::Range<usize>)| {
            let row = gradient.as_tensor().narrow(0, sequence, 1)?;
            match kind {
                PoolingKind::Mean => {
                    let real = layout.real_rows(sequence).len();
                    let rows = (row / real as f64)?.broadcast_as((real, width))?.contiguous()?;
                    rows.pad_with_zeros(0, range.len() - real, 0)
                }
                PoolingKind::First => row.pad_with_zeros(0, 0, range.len() - 1),
                PoolingKind::Last => row.pad_with_zeros(0, range.len() - 1, 0),
            }
        };
        let rows: CandleResult<Vec<_>> = layout.row_ranges().enumerate().map(expand_sequence).collect();
        into_buffer("pooling's backward pass", rows.and_then(|rows| CandleTensor::cat(&rows, 0)))
    }

    fn slice_rows(&self, rows: &Buffer, range: Range<usize>) -> Result<Buffer> {
        into_buffer("slicing rows", rows.as_tensor().narrow(0, range.start, range.len()))
    }

    fn reshape(&self, rows: &Buffer, width: usize) -> Result<Buffer> {
        into_buffer("reshaping rows", rows.as_tensor().reshape(((), width)))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropyOutput> {
        let compute = || -> CandleResult<_> {
            let shifted = logits.as_tensor().broadcast_sub(&logits.as_tensor().max_keepdim(D::Minus1)?)?;
            let exponentials = shifted.exp()?;
            let totals = exponentials.sum_keepdim(D::Minus1)?;
            let label_indices = CandleTensor::from_slice(labels, (labels.len(), 1), &self.device)?;
            let losses = (totals.log()? - shifted.gather(&label_indices, 1)?)?;
            let losses = losses.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
            let minus_ones = CandleTensor::full(-1f32, (labels.len(), 1), &self.device)?;
            let gradient = exponentials.broadcast_div(&totals)?.scatter_add(&label_indices, &minus_ones, 1)?;
            Ok(CrossEntropyOutput { losses, gradient: Buffer::new(gradient) })
        };
        compute().context("cross entropy")
    }
}
