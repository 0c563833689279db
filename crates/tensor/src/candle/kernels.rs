//! The operations other than attention.

use super::Candle;
use super::{activation, attention};
use crate::device::Weights;
use crate::error::{Context, Result};
use crate::kernels::{
    Activation, Attention, AttentionSaved, Buffer, CrossEntropy, DenseGradients, FrozenLinear, FrozenNorm, FrozenTable,
    Keep, Kernels, NormForm, NormSaved, Parameter, Pool, Storage,
};
use crate::{Packed, Tensor};
use candle_core::{D, DType};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub(super) type Computed<T = candle_core::Tensor> = candle_core::Result<T>;

pub(super) fn done(doing: &'static str, result: Computed) -> Result<Buffer> {
    result.map(buffer).context(doing)
}

impl Kernels for Candle {
    fn name(&self) -> &'static str {
        match (self.device.is_cuda(), self.weights) {
            (false, Weights::Bf16) => "candle-cpu-bf16",
            (false, _) => "candle-cpu",
            (true, Weights::Bf16) => "candle-cuda-bf16",
            (true, _) => "candle-cuda",
        }
    }

    /// A GPU is idle where there is little to do at once.
    fn micro_batch_tokens(&self) -> usize {
        if self.device.is_cuda() { 8192 } else { 128 }
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        self.tensor(tensor)
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        let values = || rows.tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1();
        let values = values().context("copying rows from the device")?;
        Ok(Tensor::new(rows.tensor().dims(), values))
    }

    fn parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>> {
        tensors.iter().map(|tensor| self.tensor(tensor).map(Parameter::new)).collect()
    }

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = [weight.shape[0], weight.shape[1]];
        let bias = bias.map(|bias| self.tensor(&bias)).transpose()?;
        Ok(FrozenLinear { weight: self.frozen(&weight)?, bias, transposed: OnceLock::new(), input, output })
    }

    fn freeze_norm(&self, form: NormForm, gain: Tensor, shift: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { form, gain: self.tensor(&gain)?, shift: self.tensor(&shift)?, epsilon })
    }

    fn freeze_table(&self, rows: Tensor) -> Result<FrozenTable> {
        Ok(FrozenTable { width: rows.shape[1], rows: self.frozen(&rows)? })
    }

    fn embed(&self, tables: &[(&FrozenTable, &[u32])], onto: Option<Buffer>) -> Result<Buffer> {
        let look_up = |(table, ids): &(&FrozenTable, &[u32])| {
            let ids = candle_core::Tensor::from_slice(ids, ids.len(), &self.device)?;
            table.rows.tensor().index_select(&ids, 0)?.to_dtype(DType::F32)
        };
        let onto = onto.map(|onto| Ok(onto.tensor().clone()));
        done("embedding", sum(onto.into_iter().chain(tables.iter().map(look_up))))
    }

    fn linear(&self, input: &Buffer, map: &FrozenLinear) -> Result<Buffer> {
        done("a linear map", linear(input.tensor(), map.weight.tensor(), map.bias.as_ref().map(Buffer::tensor)))
    }

    fn linear_backward(&self, gradient: &Buffer, map: &FrozenLinear, onto: Option<Buffer>) -> Result<Buffer> {
        let result = product(gradient.tensor(), map.weight.tensor()).and_then(|result| added(result, onto));
        done("a linear map's backward pass", result)
    }

    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer> {
        done("a dense layer", linear(input.tensor(), weight.forward.tensor(), Some(bias.forward.tensor())))
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer> {
        done("a dense layer's backward pass", gradient.tensor().matmul(weight.forward.tensor()))
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let weight = gradient.tensor().t().and_then(|transposed| transposed.matmul(input.tensor()));
        let weight = done("a dense layer's weight gradient", weight)?;
        let bias = done("a dense layer's bias gradient", gradient.tensor().sum_keepdim(0))?;
        Ok(DenseGradients { weight, bias })
    }

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        done("adding rows", left.tensor() + right.tensor())
    }

    fn multiply(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        done("multiplying rows", left.tensor() * right.tensor())
    }

    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer> {
        done("scaling rows", rows.tensor() * factor)
    }

    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        keep: Keep,
    ) -> Result<(Buffer, Option<NormSaved>)> {
        let compute = || -> Computed<_> {
            let input = match residual {
                Some(residual) => (input.tensor() + residual.tensor())?,
                None => input.tensor().clone(),
            };
            let centred = centred(norm.form, &input)?;
            let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
            let inverse = (variance + norm.epsilon)?.sqrt()?.recip()?;
            let normalised = centred.broadcast_mul(&inverse)?;
            let output = normalised.broadcast_mul(norm.gain.tensor())?.broadcast_add(norm.shift.tensor())?;
            let saved = NormSaved { normalised: buffer(normalised), inverse: buffer(inverse) };
            Ok((buffer(output), kept(saved, keep)))
        };
        compute().context("a layer norm")
    }

    /// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·gain; without mean(g) where no mean was taken away.
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        let compute = || -> Computed {
            let normalised = saved.normalised.tensor();
            let scaled = gradient.tensor().broadcast_mul(norm.gain.tensor())?;
            let along = (&scaled * normalised)?.mean_keepdim(D::Minus1)?;
            (centred(norm.form, &scaled)? - normalised.broadcast_mul(&along)?)?.broadcast_mul(saved.inverse.tensor())
        };
        done("a layer norm's backward pass", compute())
    }

    fn activate(&self, activation: Activation, input: &Buffer, keep: Keep) -> Result<(Buffer, Option<Buffer>)> {
        let x = input.tensor();
        let output = match activation {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        };
        let derivative = match keep {
            Keep::Nothing => None,
            Keep::ForBackward => Some(done("an activation's derivative", activation::derivative(activation, x))?),
        };
        Ok((done("an activation", output)?, derivative))
    }

    fn attention(&self, inputs: Attention, keep: Keep) -> Result<(Buffer, Option<AttentionSaved>)> {
        let (output, saved) = attention::forward(inputs).context("attention")?;
        Ok((output, kept(saved, keep)))
    }

    fn attention_backward(&self, gradient: &Buffer, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
        attention::backward(gradient.tensor(), inputs, saved).context("attention's backward pass")
    }

    fn pool(&self, input: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        let one = |sequence: usize| match (pool, layout.real(sequence)) {
            (Pool::Mean, real) => input.tensor().narrow(0, real.start, real.len())?.mean_keepdim(0),
            (Pool::First, _) => input.tensor().narrow(0, layout.range(sequence).start, 1),
            (Pool::Last, _) => input.tensor().narrow(0, layout.range(sequence).end - 1, 1),
        };
        let rows: Computed<Vec<_>> = (0..layout.sequences()).map(one).collect();
        done("pooling", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        let width = gradient.tensor().dims()[1];
        let one = |(sequence, range): (usize, std::ops::Range<usize>)| {
            let row = gradient.tensor().narrow(0, sequence, 1)?;
            match pool {
                Pool::Mean => {
                    let real = layout.real(sequence).len();
                    let rows = (row / real as f64)?.broadcast_as((real, width))?.contiguous()?;
                    rows.pad_with_zeros(0, range.len() - real, 0)
                }
                Pool::First => row.pad_with_zeros(0, 0, range.len() - 1),
                Pool::Last => row.pad_with_zeros(0, range.len() - 1, 0),
            }
        };
        let rows: Computed<Vec<_>> = layout.ranges().enumerate().map(one).collect();
        done("pooling's backward pass", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn narrow(&self, rows: &Buffer, range: Range<usize>) -> Result<Buffer> {
        done("taking rows", rows.tensor().narrow(0, range.start, range.len()))
    }

    fn fold(&self, rows: &Buffer, width: usize) -> Result<Buffer> {
        done("folding rows", rows.tensor().reshape(((), width)))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropy> {
        let compute = || -> Computed<_> {
            let shifted = logits.tensor().broadcast_sub(&logits.tensor().max_keepdim(D::Minus1)?)?;
            let exponentials = shifted.exp()?;
            let totals = exponentials.sum_keepdim(D::Minus1)?;
            let picked = candle_core::Tensor::from_slice(labels, (labels.len(), 1), &self.device)?;
            let losses = (totals.log()? - shifted.gather(&picked, 1)?)?;
            let losses = losses.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
            let minus = candle_core::Tensor::full(-1f32, (labels.len(), 1), &self.device)?;
            let gradient = exponentials.broadcast_div(&totals)?.scatter_add(&picked, &minus, 1)?;
            Ok(CrossEntropy { losses, gradient: buffer(gradient) })
        };
        compute().context("cross entropy")
    }
}

pub(super) fn buffer(tensor: candle_core::Tensor) -> Buffer {
    Buffer(Storage::Candle(tensor))
}

fn kept<T>(saved: T, keep: Keep) -> Option<T> {
    (keep == Keep::ForBackward).then_some(saved)
}

pub(super) fn added(result: candle_core::Tensor, onto: Option<Buffer>) -> Computed {
    match onto {
        Some(onto) => onto.tensor() + result,
        None => Ok(result),
    }
}

/// In the numbers that the weight is held in, to `f32`.
fn product(input: &candle_core::Tensor, weight: &candle_core::Tensor) -> Computed {
    input.to_dtype(weight.dtype())?.matmul(weight)?.to_dtype(DType::F32)
}

pub(super) fn linear(
    input: &candle_core::Tensor,
    weight: &candle_core::Tensor,
    bias: Option<&candle_core::Tensor>,
) -> Computed {
    let output = product(input, &weight.t()?)?;
    match bias {
        Some(bias) => output.broadcast_add(bias),
        None => Ok(output),
    }
}

pub(super) fn sum(parts: impl Iterator<Item = Computed>) -> Computed {
    parts.reduce(|left, right| left? + right?).unwrap_or_else(|| candle_core::bail!("nothing to add up"))
}

/// Rows without their mean, where the norm takes it away.
fn centred(form: NormForm, rows: &candle_core::Tensor) -> Computed {
    match form {
        NormForm::Layer => rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?),
        NormForm::RootMeanSquare => Ok(rows.clone()),
    }
}
