//! The operations other than attention.

use super::CandleBackend;
use super::{activation, attention};
use crate::backend::{
    Activation, AttentionInput, AttentionSaved, Backend, Buffer, CrossEntropyOutput, DenseGradients, FrozenEmbedding,
    FrozenLinear, FrozenNorm, NormKind, NormSaved, Parameter, PoolingKind, SaveForBackward, Storage,
};
use crate::device::WeightFormat;
use crate::error::{Context, Result};
use crate::{RaggedLayout, Tensor};
use candle_core::{D, DType};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub(super) type CandleResult<T = candle_core::Tensor> = candle_core::Result<T>;

pub(super) fn into_buffer(operation: &'static str, result: CandleResult) -> Result<Buffer> {
    result.map(wrap_tensor).context(operation)
}

impl Backend for CandleBackend {
    fn name(&self) -> &'static str {
        match (self.device.is_cuda(), self.weight_format) {
            (false, WeightFormat::Bf16) => "candle-cpu-bf16",
            (false, _) => "candle-cpu",
            (true, WeightFormat::Bf16) => "candle-cuda-bf16",
            (true, _) => "candle-cuda",
        }
    }

    /// A GPU is idle where there is little to do at once.
    fn preferred_micro_batch_tokens(&self) -> usize {
        if self.device.is_cuda() { 8192 } else { 128 }
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        self.upload_tensor(tensor)
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        let values = || rows.as_candle_tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1();
        let values = values().context("copying rows from the device")?;
        Ok(Tensor::new(rows.as_candle_tensor().dims(), values))
    }

    fn upload_parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>> {
        tensors.iter().map(|tensor| self.upload_tensor(tensor).map(Parameter::new)).collect()
    }

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = [weight.shape[0], weight.shape[1]];
        let bias = bias.map(|bias| self.upload_tensor(&bias)).transpose()?;
        Ok(FrozenLinear {
            weight: self.upload_frozen(&weight)?,
            bias,
            transposed: OnceLock::new(),
            in_features: input,
            out_features: output,
        })
    }

    fn freeze_norm(&self, kind: NormKind, weight: Tensor, bias: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { kind, weight: self.upload_tensor(&weight)?, bias: self.upload_tensor(&bias)?, epsilon })
    }

    fn freeze_embedding(&self, rows: Tensor) -> Result<FrozenEmbedding> {
        Ok(FrozenEmbedding { width: rows.shape[1], weight: self.upload_frozen(&rows)? })
    }

    fn embed(&self, embeddings: &[(&FrozenEmbedding, &[u32])], accumulator: Option<Buffer>) -> Result<Buffer> {
        let look_up = |(table, ids): &(&FrozenEmbedding, &[u32])| {
            let ids = candle_core::Tensor::from_slice(ids, ids.len(), &self.device)?;
            table.weight.as_candle_tensor().index_select(&ids, 0)?.to_dtype(DType::F32)
        };
        let onto = accumulator.map(|onto| Ok(onto.as_candle_tensor().clone()));
        into_buffer("embedding", sum_tensors(onto.into_iter().chain(embeddings.iter().map(look_up))))
    }

    fn linear(&self, input: &Buffer, layer: &FrozenLinear) -> Result<Buffer> {
        into_buffer(
            "a linear map",
            linear(
                input.as_candle_tensor(),
                layer.weight.as_candle_tensor(),
                layer.bias.as_ref().map(Buffer::as_candle_tensor),
            ),
        )
    }

    fn linear_backward(&self, gradient: &Buffer, layer: &FrozenLinear, accumulator: Option<Buffer>) -> Result<Buffer> {
        let result = matmul_in_weight_dtype(gradient.as_candle_tensor(), layer.weight.as_candle_tensor())
            .and_then(|result| add_accumulator(result, accumulator));
        into_buffer("a linear map's backward pass", result)
    }

    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer> {
        into_buffer(
            "a dense layer",
            linear(input.as_candle_tensor(), weight.value.as_candle_tensor(), Some(bias.value.as_candle_tensor())),
        )
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer> {
        into_buffer(
            "a dense layer's backward pass",
            gradient.as_candle_tensor().matmul(weight.value.as_candle_tensor()),
        )
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let weight = gradient.as_candle_tensor().t().and_then(|transposed| transposed.matmul(input.as_candle_tensor()));
        let weight = into_buffer("a dense layer's weight gradient", weight)?;
        let bias = into_buffer("a dense layer's bias gradient", gradient.as_candle_tensor().sum_keepdim(0))?;
        Ok(DenseGradients { weight, bias })
    }

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer("adding rows", left.as_candle_tensor() + right.as_candle_tensor())
    }

    fn mul(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        into_buffer("multiplying rows", left.as_candle_tensor() * right.as_candle_tensor())
    }

    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer> {
        into_buffer("scaling rows", rows.as_candle_tensor() * factor)
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
                Some(residual) => (input.as_candle_tensor() + residual.as_candle_tensor())?,
                None => input.as_candle_tensor().clone(),
            };
            let centered = center_rows(norm.kind, &input)?;
            let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
            let inverse_std = (variance + norm.epsilon)?.sqrt()?.recip()?;
            let normalised = centered.broadcast_mul(&inverse_std)?;
            let output = normalised
                .broadcast_mul(norm.weight.as_candle_tensor())?
                .broadcast_add(norm.bias.as_candle_tensor())?;
            let saved = NormSaved { normalised: wrap_tensor(normalised), inverse_std: wrap_tensor(inverse_std) };
            Ok((wrap_tensor(output), saved_if(saved, save)))
        };
        compute().context("a layer norm")
    }

    /// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·gain; without mean(g) where no mean was taken away.
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        let compute = || -> CandleResult {
            let normalised = saved.normalised.as_candle_tensor();
            let scaled = gradient.as_candle_tensor().broadcast_mul(norm.weight.as_candle_tensor())?;
            let row_mean_product = (&scaled * normalised)?.mean_keepdim(D::Minus1)?;
            (center_rows(norm.kind, &scaled)? - normalised.broadcast_mul(&row_mean_product)?)?
                .broadcast_mul(saved.inverse_std.as_candle_tensor())
        };
        into_buffer("a layer norm's backward pass", compute())
    }

    fn activate(
        &self,
        activation: Activation,
        input: &Buffer,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<Buffer>)> {
        let x = input.as_candle_tensor();
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
        let (output, saved) = attention::forward(inputs).context("attention")?;
        Ok((output, saved_if(saved, save)))
    }

    fn attention_backward(
        &self,
        gradient: &Buffer,
        inputs: AttentionInput,
        saved: &AttentionSaved,
    ) -> Result<[Buffer; 3]> {
        attention::backward(gradient.as_candle_tensor(), inputs, saved).context("attention's backward pass")
    }

    fn kind(&self, input: &Buffer, layout: &RaggedLayout, pool: PoolingKind) -> Result<Buffer> {
        let pool_sequence = |sequence: usize| match (pool, layout.real_rows(sequence)) {
            (PoolingKind::Mean, real) => input.as_candle_tensor().narrow(0, real.start, real.len())?.mean_keepdim(0),
            (PoolingKind::First, _) => input.as_candle_tensor().narrow(0, layout.row_range(sequence).start, 1),
            (PoolingKind::Last, _) => input.as_candle_tensor().narrow(0, layout.row_range(sequence).end - 1, 1),
        };
        let rows: CandleResult<Vec<_>> = (0..layout.num_sequences()).map(pool_sequence).collect();
        into_buffer("pooling", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer> {
        let width = gradient.as_candle_tensor().dims()[1];
        let expand_sequence = |(sequence, range): (usize, std::ops::Range<usize>)| {
            let row = gradient.as_candle_tensor().narrow(0, sequence, 1)?;
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
        into_buffer("pooling's backward pass", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn slice_rows(&self, rows: &Buffer, range: Range<usize>) -> Result<Buffer> {
        into_buffer("taking rows", rows.as_candle_tensor().narrow(0, range.start, range.len()))
    }

    fn reshape(&self, rows: &Buffer, width: usize) -> Result<Buffer> {
        into_buffer("folding rows", rows.as_candle_tensor().reshape(((), width)))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropyOutput> {
        let compute = || -> CandleResult<_> {
            let shifted =
                logits.as_candle_tensor().broadcast_sub(&logits.as_candle_tensor().max_keepdim(D::Minus1)?)?;
            let exponentials = shifted.exp()?;
            let totals = exponentials.sum_keepdim(D::Minus1)?;
            let label_indices = candle_core::Tensor::from_slice(labels, (labels.len(), 1), &self.device)?;
            let losses = (totals.log()? - shifted.gather(&label_indices, 1)?)?;
            let losses = losses.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
            let minus_ones = candle_core::Tensor::full(-1f32, (labels.len(), 1), &self.device)?;
            let gradient = exponentials.broadcast_div(&totals)?.scatter_add(&label_indices, &minus_ones, 1)?;
            Ok(CrossEntropyOutput { losses, gradient: wrap_tensor(gradient) })
        };
        compute().context("cross entropy")
    }
}

pub(super) fn wrap_tensor(tensor: candle_core::Tensor) -> Buffer {
    Buffer(Storage::Candle(tensor))
}

fn saved_if<T>(saved: T, save: SaveForBackward) -> Option<T> {
    (save == SaveForBackward::Yes).then_some(saved)
}

pub(super) fn add_accumulator(result: candle_core::Tensor, accumulator: Option<Buffer>) -> CandleResult {
    match accumulator {
        Some(onto) => onto.as_candle_tensor() + result,
        None => Ok(result),
    }
}

/// In the numbers that the weight is held in, to `f32`.
fn matmul_in_weight_dtype(input: &candle_core::Tensor, weight: &candle_core::Tensor) -> CandleResult {
    input.to_dtype(weight.dtype())?.matmul(weight)?.to_dtype(DType::F32)
}

pub(super) fn linear(
    input: &candle_core::Tensor,
    weight: &candle_core::Tensor,
    bias: Option<&candle_core::Tensor>,
) -> CandleResult {
    let output = matmul_in_weight_dtype(input, &weight.t()?)?;
    match bias {
        Some(bias) => output.broadcast_add(bias),
        None => Ok(output),
    }
}

pub(super) fn sum_tensors(terms: impl Iterator<Item = CandleResult>) -> CandleResult {
    terms.reduce(|left, right| left? + right?).unwrap_or_else(|| candle_core::bail!("nothing to add up"))
}

/// Rows without their mean, where the norm takes it away.
fn center_rows(kind: NormKind, rows: &candle_core::Tensor) -> CandleResult {
    match kind {
        NormKind::LayerNorm => rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?),
        NormKind::RmsNorm => Ok(rows.clone()),
    }
}
