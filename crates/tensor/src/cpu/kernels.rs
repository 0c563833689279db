//! The operations, put together from products on tiles and passes over rows.

use super::activation::{self, Gelu, GeluTanh, Relu, Silu};
use super::attention::{self, Inputs};
use super::elementwise::{Add, Multiply, Scaled};
use super::held::entry;
use super::loss;
use super::machine::{self, Cpu, Held, host, matrix, rows};
use super::memory::Draft;
use super::norm::{self, Kept, NormBackward};
use super::product::{Left, Right, Start};
use super::reduced::Form;
use super::{panels, parameters, pooling};
use crate::columns::Columns;
use crate::error::Result;
use crate::kernels::{
    Activation, Attention, AttentionSaved, Buffer, CrossEntropy, DenseGradients, FrozenLinear, FrozenNorm, FrozenTable,
    Keep, Kernels, NormForm, NormSaved, Parameter, Pool, Storage,
};
use crate::raw;
use crate::{Packed, Tensor};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

impl Kernels for Cpu {
    fn name(&self) -> &'static str {
        match (self.level.is_portable(), self.held) {
            (true, _) => "cpu-portable",
            // What is held as it is has the same numbers.
            (false, Held::Whole | Held::AsIs) => "cpu",
            (false, Held::Rounded(Form::F16)) => "cpu-f16",
            (false, Held::Rounded(Form::Bf16)) => "cpu-bf16",
            (false, Held::Rounded(Form::Q8_0)) => "cpu-q8_0",
            (false, Held::Rounded(Form::Q4_0)) => "cpu-q4_0",
            (false, Held::Rounded(Form::Q4_1)) => "cpu-q4_1",
            (false, Held::Rounded(Form::Wide4)) => "cpu-wide4",
            (false, Held::Rounded(Form::Wide8)) => "cpu-wide8",
        }
    }

    /// Few enough that a batch of short texts still occupies several threads.
    fn micro_batch_tokens(&self) -> usize {
        128
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        Ok(rows(matrix(tensor)))
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        if let Storage::Reduced(weight) = &rows.0 {
            return Ok(raw::numbers(weight));
        }
        let rows = rows.host();
        Ok(Tensor::new([rows.rows(), rows.width()], rows.values().to_vec()))
    }

    fn parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>> {
        Ok(parameters::place(tensors))
    }

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let [output, input] = [weight.shape[0], weight.shape[1]];
        let panels = panels::of_rows(&weight.values, output, input);
        let bias = bias.map(|bias| self.upload(&bias)).transpose()?;
        Ok(FrozenLinear { weight: rows(panels), bias, transposed: OnceLock::new(), input, output })
    }

    fn freeze_norm(&self, form: NormForm, gain: Tensor, shift: Tensor, epsilon: f64) -> Result<FrozenNorm> {
        Ok(FrozenNorm { form, gain: self.upload(&gain)?, shift: self.upload(&shift)?, epsilon })
    }

    fn freeze_table(&self, rows: Tensor) -> Result<FrozenTable> {
        let [count, width] = [rows.shape[0], rows.shape[1]];
        let mut draft = Draft::lasting(count, width);
        draft.values().copy_from_slice(&rows.values);
        Ok(FrozenTable { width, rows: host(draft) })
    }

    fn embed(&self, tables: &[(&FrozenTable, &[u32])], onto: Option<Buffer>) -> Result<Buffer> {
        let (first, ids) = tables[0];
        let (mut draft, tables) = match onto {
            Some(onto) => (machine::draft(onto), tables),
            None => {
                let mut draft = Draft::new(ids.len(), first.width);
                for (out, id) in draft.values().chunks_exact_mut(first.width).zip(ids) {
                    entry(first, *id, out);
                }
                (draft, &tables[1..])
            }
        };
        for (table, ids) in tables {
            let mut added = vec![0.0; table.width];
            for (out, id) in draft.values().chunks_exact_mut(table.width).zip(*ids) {
                entry(table, *id, &mut added);
                out.iter_mut().zip(&added).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(host(draft))
    }

    fn linear(&self, input: &Buffer, map: &FrozenLinear) -> Result<Buffer> {
        let input = input.host();
        let start = map.bias.as_ref().map_or(Start::Zero, |bias| Start::Bias(bias.host().spacious()));
        if let Storage::Reduced(weight) = &map.weight.0 {
            return Ok(self.reduced_product(input, weight, start));
        }
        let right = Right::panels(map.weight.host().values(), map.input);
        Ok(self.product([input.rows(), map.input, map.output], Left::of(input), right, start))
    }

    fn linear_backward(&self, gradient: &Buffer, map: &FrozenLinear, onto: Option<Buffer>) -> Result<Buffer> {
        if let Storage::Reduced(weight) = &map.weight.0 {
            let gradient = gradient.host();
            let (mut draft, start) = match onto {
                Some(onto) => (machine::draft(onto), Start::Output),
                None => (Draft::new(gradient.rows(), map.input), Start::Zero),
            };
            weight.backward(self.level, gradient.values(), start, draft.values());
            return Ok(host(draft));
        }
        let turned = map.transposed.get_or_init(|| rows(panels::transposed(map.weight.host(), map.output, map.input)));
        let gradient = gradient.host();
        let (left, right) = (Left::of(gradient), Right::panels(turned.host().values(), map.output));
        Ok(self.product_onto([gradient.rows(), map.output, map.input], left, right, onto))
    }

    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer> {
        let (input, weight) = (input.host(), weight.forward.host());
        let shape = [input.rows(), input.width(), weight.width()];
        let start = Start::Bias(bias.forward.host().spacious());
        Ok(self.product(shape, Left::of(input), Right::of(weight), start))
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer> {
        let (gradient, weight) = (gradient.host(), parameters::backward(weight));
        let shape = [gradient.rows(), gradient.width(), weight.width()];
        Ok(self.product(shape, Left::of(gradient), Right::of(weight), Start::Zero))
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let (gradient, input) = (gradient.host(), input.host());
        let shape = [gradient.width(), gradient.rows(), input.width()];
        let weight = self.product(shape, Left::transposed(gradient), Right::of(input), Start::Zero);
        Ok(DenseGradients { weight, bias: self.sum_rows(&rows(gradient.clone()))? })
    }

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        self.pairs::<Add>(left, right)
    }

    fn multiply(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        self.pairs::<Multiply>(left, right)
    }

    fn scale(&self, values: &Buffer, factor: f64) -> Result<Buffer> {
        Ok(rows(self.level.run(Scaled { rows: values.host(), factor: factor as f32 })))
    }

    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        keep: Keep,
    ) -> Result<(Buffer, Option<NormSaved>)> {
        let input = input.host();
        let (count, width) = (input.rows(), input.width());
        let mut kept = (keep == Keep::ForBackward)
            .then(|| Kept { normalised: Draft::new(count, width), inverse: Draft::new(count, 1) });
        let output = self.level.run(norm::Norm {
            form: norm.form,
            input,
            residual: residual.map(Buffer::host),
            gain: norm.gain.host(),
            shift: norm.shift.host(),
            epsilon: norm.epsilon as f32,
            keep: kept.as_mut(),
        });
        let saved = kept.map(|kept| NormSaved { normalised: host(kept.normalised), inverse: host(kept.inverse) });
        Ok((rows(output), saved))
    }

    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        let (normalised, inverse) = (saved.normalised.host(), saved.inverse.host());
        let (form, gain) = (norm.form, norm.gain.host());
        let work = NormBackward { form, gradient: gradient.host(), normalised, inverse, gain };
        Ok(rows(self.level.run(work)))
    }

    fn activate(&self, activation: Activation, input: &Buffer, keep: Keep) -> Result<(Buffer, Option<Buffer>)> {
        let input = input.host();
        let mut derivative = (keep == Keep::ForBackward).then(|| Draft::new(input.rows(), input.width()));
        let output = match activation {
            Activation::Gelu => self.curve::<Gelu>(input, derivative.as_mut()),
            Activation::GeluTanh => self.curve::<GeluTanh>(input, derivative.as_mut()),
            Activation::Relu => self.curve::<Relu>(input, derivative.as_mut()),
            Activation::Silu => self.curve::<Silu>(input, derivative.as_mut()),
            Activation::Tanh => activation::tanh(input, derivative.as_mut()),
        };
        Ok((rows(output), derivative.map(host)))
    }

    fn attention(&self, inputs: Attention, keep: Keep) -> Result<(Buffer, Option<AttentionSaved>)> {
        let inputs = views(&inputs);
        let mut kept = (keep == Keep::ForBackward).then(|| Draft::new(1, inputs.kept()));
        let output = attention::forward(self.level, inputs, kept.as_mut());
        let saved = kept.map(|kept| AttentionSaved { probabilities: vec![host(kept)] });
        Ok((rows(output), saved))
    }

    fn attention_backward(&self, gradient: &Buffer, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
        let (inputs, kept) = (views(&inputs), saved.probabilities[0].host());
        let gradients = attention::backward(self.level, inputs, gradient.host(), kept);
        Ok(gradients.map(rows))
    }

    fn pool(&self, input: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        Ok(host(pooling::pool(input.host(), layout, pool)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer> {
        Ok(host(pooling::backward(gradient.host(), layout, pool)))
    }

    fn narrow(&self, all: &Buffer, range: Range<usize>) -> Result<Buffer> {
        Ok(rows(all.host().view(range.start, range.len())))
    }

    fn fold(&self, all: &Buffer, width: usize) -> Result<Buffer> {
        Ok(rows(all.host().folded(width)))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropy> {
        let (losses, gradient) = self.level.run(loss::CrossEntropy { logits: logits.host(), labels });
        Ok(CrossEntropy { losses, gradient: rows(gradient) })
    }
}

fn views<'a>(inputs: &Attention<'a>) -> Inputs<'a> {
    Inputs {
        query: inputs.query.host(),
        key: inputs.key.host(),
        value: inputs.value.host(),
        asking: inputs.asking,
        layout: inputs.layout,
        heads: inputs.heads,
        near: inputs.near,
    }
}
