//! The operations other than attention.

use super::attention;
use crate::compute::kernels::{
    Attention, AttentionSaved, Buffer, CrossEntropy, DenseGradients, FrozenLinear, FrozenNorm, FrozenTable, Kernels,
    LowRankGradients, NormSaved, Pool,
};
use crate::compute::{Packed, Tensor};
use crate::error::{Context, Result};
use candle_core::{D, Device};

type Computed<T = candle_core::Tensor> = candle_core::Result<T>;

/// candle on one device.
pub struct Candle {
    device: Device,
}

impl Candle {
    pub fn cpu() -> Self {
        Self { device: Device::Cpu }
    }

    fn tensor(&self, tensor: &Tensor) -> Result<Buffer> {
        candle_core::Tensor::from_slice(&tensor.values, tensor.shape.as_slice(), &self.device)
            .map(Buffer)
            .context("copying a tensor to the device")
    }
}

fn done(doing: &str, result: Computed) -> Result<Buffer> {
    result.map(Buffer).context(doing)
}

impl Kernels for Candle {
    fn name(&self) -> &'static str {
        "candle-cpu"
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        self.tensor(tensor)
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        let values = rows.0.flatten_all().and_then(|flat| flat.to_vec1()).context("copying rows from the device")?;
        Ok(Tensor::new(rows.0.dims(), values))
    }

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = [weight.shape[0], weight.shape[1]];
        let bias = bias.map(|bias| self.tensor(&bias)).transpose()?;
        Ok(FrozenLinear { weight: self.tensor(&weight)?, bias, input, output })
    }

    fn freeze_norm(&self, gain: Tensor, shift: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { gain: self.tensor(&gain)?, shift: self.tensor(&shift)?, epsilon })
    }

    fn freeze_table(&self, rows: Tensor) -> Result<FrozenTable> {
        Ok(FrozenTable { width: rows.shape[1], rows: self.tensor(&rows)? })
    }

    fn embed(&self, tables: &[(&FrozenTable, &[u32])]) -> Result<Buffer> {
        let look_up = |(table, ids): &(&FrozenTable, &[u32])| {
            let ids = candle_core::Tensor::from_slice(ids, ids.len(), &self.device)?;
            table.rows.0.index_select(&ids, 0)
        };
        done("embedding", sum(tables.iter().map(look_up)))
    }

    fn linear(&self, input: &Buffer, map: &FrozenLinear) -> Result<Buffer> {
        done("a linear map", linear(&input.0, &map.weight.0, map.bias.as_ref().map(|bias| &bias.0)))
    }

    fn linear_backward(&self, gradient: &Buffer, map: &FrozenLinear) -> Result<Buffer> {
        done("a linear map's backward pass", gradient.0.matmul(&map.weight.0))
    }

    fn dense(&self, input: &Buffer, weight: &Buffer, bias: &Buffer) -> Result<Buffer> {
        done("a dense layer", linear(&input.0, &weight.0, Some(&bias.0)))
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Buffer) -> Result<Buffer> {
        done("a dense layer's backward pass", gradient.0.matmul(&weight.0))
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let weight = gradient.0.t().and_then(|transposed| transposed.matmul(&input.0));
        let weight = done("a dense layer's weight gradient", weight)?;
        let bias = done("a dense layer's bias gradient", gradient.0.sum(0))?;
        Ok(DenseGradients { weight, bias })
    }

    fn low_rank(&self, input: &Buffer, a: &Buffer, b: &Buffer, scale: f64) -> Result<(Buffer, Buffer)> {
        let projected = done("a low-rank map", linear(&input.0, &a.0, None))?;
        let output = linear(&projected.0, &b.0, None).and_then(|output| output * scale);
        Ok((done("a low-rank map", output)?, projected))
    }

    fn low_rank_backward_input(&self, gradient: &Buffer, a: &Buffer, b: &Buffer, scale: f64) -> Result<Buffer> {
        let result = gradient.0.matmul(&b.0).and_then(|inner| (inner * scale)?.matmul(&a.0));
        done("a low-rank map's backward pass", result)
    }

    fn low_rank_backward_parameters(
        &self,
        gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
        b: &Buffer,
        scale: f64,
    ) -> Result<LowRankGradients> {
        let by_a = || (gradient.0.matmul(&b.0)? * scale)?.t()?.matmul(&input.0);
        let by_b = || gradient.0.t()?.matmul(&projected.0)? * scale;
        Ok(LowRankGradients {
            a: done("a low-rank map's gradient by A", by_a())?,
            b: done("a low-rank map's gradient by B", by_b())?,
        })
    }

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        done("adding rows", &left.0 + &right.0)
    }

    fn multiply(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        done("multiplying rows", &left.0 * &right.0)
    }

    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer> {
        done("scaling rows", &rows.0 * factor)
    }

    fn norm(&self, input: &Buffer, norm: &FrozenNorm) -> Result<(Buffer, NormSaved)> {
        let compute = || -> Computed<_> {
            let centred = input.0.broadcast_sub(&input.0.mean_keepdim(D::Minus1)?)?;
            let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
            let inverse = (variance + norm.epsilon)?.sqrt()?.recip()?;
            let normalised = centred.broadcast_mul(&inverse)?;
            let output = normalised.broadcast_mul(&norm.gain.0)?.broadcast_add(&norm.shift.0)?;
            Ok((Buffer(output), NormSaved { normalised: Buffer(normalised), inverse: Buffer(inverse) }))
        };
        compute().context("a layer norm")
    }

    /// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·gain
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        let compute = || -> Computed {
            let normalised = &saved.normalised.0;
            let scaled = gradient.0.broadcast_mul(&norm.gain.0)?;
            let along = (&scaled * normalised)?.mean_keepdim(D::Minus1)?;
            let centred = scaled.broadcast_sub(&scaled.mean_keepdim(D::Minus1)?)?;
            (centred - normalised.broadcast_mul(&along)?)?.broadcast_mul(&saved.inverse.0)
        };
        done("a layer norm's backward pass", compute())
    }

    fn gelu(&self, input: &Buffer) -> Result<Buffer> {
        done("gelu", input.0.gelu_erf())
    }

    /// dX = dY·(Φ(x) + x·φ(x))
    fn gelu_backward(&self, gradient: &Buffer, input: &Buffer) -> Result<Buffer> {
        let compute = || -> Computed {
            let x = &input.0;
            let cumulative = (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
            let root = (std::f64::consts::TAU).sqrt();
            let density = ((x.sqr()? * -0.5)?.exp()? / root)?;
            &gradient.0 * (cumulative + (x * density)?)?
        };
        done("gelu's backward pass", compute())
    }

    fn tanh(&self, input: &Buffer) -> Result<Buffer> {
        done("tanh", input.0.tanh())
    }

    fn tanh_backward(&self, gradient: &Buffer, output: &Buffer) -> Result<Buffer> {
        let derivative = output.0.sqr().and_then(|square| square.affine(-1.0, 1.0));
        done("tanh's backward pass", derivative.and_then(|derivative| &gradient.0 * derivative))
    }

    fn attention(&self, inputs: Attention) -> Result<(Buffer, AttentionSaved)> {
        attention::forward(inputs).context("attention")
    }

    fn attention_backward(&self, gradient: &Buffer, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
        attention::backward(&gradient.0, inputs, saved).context("attention's backward pass")
    }

    fn pool(&self, input: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        let one = |range: std::ops::Range<usize>| match pool {
            Pool::Mean => input.0.narrow(0, range.start, range.len())?.mean_keepdim(0),
            Pool::First => input.0.narrow(0, range.start, 1),
        };
        let rows: Computed<Vec<_>> = layout.ranges().map(one).collect();
        done("pooling", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        let width = gradient.0.dims()[1];
        let one = |(sequence, range): (usize, std::ops::Range<usize>)| {
            let row = gradient.0.narrow(0, sequence, 1)?;
            match pool {
                Pool::Mean => (row / range.len() as f64)?.broadcast_as((range.len(), width))?.contiguous(),
                Pool::First => row.pad_with_zeros(0, 0, range.len() - 1),
            }
        };
        let rows: Computed<Vec<_>> = layout.ranges().enumerate().map(one).collect();
        done("pooling's backward pass", rows.and_then(|rows| candle_core::Tensor::cat(&rows, 0)))
    }

    fn narrow(&self, rows: &Buffer, start: usize, count: usize) -> Result<Buffer> {
        done("taking rows", rows.0.narrow(0, start, count))
    }

    fn concat(&self, parts: &[Buffer]) -> Result<Buffer> {
        let parts: Vec<_> = parts.iter().map(|part| &part.0).collect();
        done("joining rows", candle_core::Tensor::cat(&parts, 0))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropy> {
        let compute = || -> Computed<_> {
            let shifted = logits.0.broadcast_sub(&logits.0.max_keepdim(D::Minus1)?)?;
            let exponentials = shifted.exp()?;
            let totals = exponentials.sum_keepdim(D::Minus1)?;
            let picked = candle_core::Tensor::from_slice(labels, (labels.len(), 1), &self.device)?;
            let losses = (totals.log()? - shifted.gather(&picked, 1)?)?;
            let loss = losses.flatten_all()?.to_vec1::<f32>()?.iter().map(|loss| f64::from(*loss)).sum();
            let minus = candle_core::Tensor::full(-1f32, (labels.len(), 1), &self.device)?;
            let gradient = exponentials.broadcast_div(&totals)?.scatter_add(&picked, &minus, 1)?;
            Ok(CrossEntropy { loss, gradient: Buffer(gradient) })
        };
        compute().context("cross entropy")
    }
}

fn linear(input: &candle_core::Tensor, weight: &candle_core::Tensor, bias: Option<&candle_core::Tensor>) -> Computed {
    let output = input.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => output.broadcast_add(bias),
        None => Ok(output),
    }
}

fn sum(parts: impl Iterator<Item = Computed>) -> Computed {
    parts.reduce(|left, right| left? + right?).unwrap_or_else(|| candle_core::bail!("nothing to add up"))
}
