//! Operations of [`Backend`] that have no file of their own.

use super::activation::{self, Gelu, GeluTanh, PolynomialGelu, Relu, Silu};
use super::attention::{self, AttentionInputs};
use super::backend::{self, CpuBackend, WeightStorage, buffer_from_matrix, buffer_from_matrix_buf, matrix_from_tensor};
use super::cross_entropy::CrossEntropy;
use super::elementwise::{Add, Multiply, Scale};
use super::frozen_weights::embedding_row;
use super::gemm::{AccumulatorInit, Lhs, Rhs};
use super::matrix::MatrixBuf;
use super::norm::{self, NormBackward, NormStatistics};
use super::threads::with_intra_op_threads;
use super::{packing, parameter_layout, pooling};
use crate::backend::{
    Activation, AttentionInput, AttentionSaved, Backend, Buffer, ChannelOps, CrossEntropyOutput, DenseGradients,
    FrozenEmbedding, FrozenLinear, FrozenNorm, NormSaved, Parameter, PoolingKind, SaveForBackward,
};
use crate::error::Result;
use crate::quant::QuantFormat;
use crate::{ActivationQuantization, RaggedLayout, Tensor};
use std::ops::Range;
use std::sync::Arc;

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        match (self.isa.is_portable(), self.weight_storage) {
            (true, _) => "cpu-portable",
            // Native storage is lossless, so it shares its name with f32.
            (false, WeightStorage::F32 | WeightStorage::Native) => "cpu",
            (false, WeightStorage::Quantized(QuantFormat::F16)) => "cpu-f16",
            (false, WeightStorage::Quantized(QuantFormat::Bf16)) => "cpu-bf16",
            (false, WeightStorage::Quantized(QuantFormat::Q8_0)) => "cpu-q8_0",
            (false, WeightStorage::Quantized(QuantFormat::Q4_0)) => "cpu-q4_0",
            (false, WeightStorage::Quantized(QuantFormat::Q4_1)) => "cpu-q4_1",
            (false, WeightStorage::Quantized(QuantFormat::Q5_1)) => "cpu-q5_1",
            (false, WeightStorage::Quantized(QuantFormat::Q2K)) => "cpu-q2_k",
            (false, WeightStorage::Quantized(QuantFormat::Q3K)) => "cpu-q3_k",
            (false, WeightStorage::Quantized(QuantFormat::Q4K)) => "cpu-q4_k",
            (false, WeightStorage::Quantized(QuantFormat::Q5K)) => "cpu-q5_k",
            (false, WeightStorage::Quantized(QuantFormat::Q6K)) => "cpu-q6_k",
            (false, WeightStorage::Quantized(QuantFormat::Q7Group64)) => "cpu-q7_group64",
        }
    }

    /// Small enough that a batch of short texts still occupies several threads.
    fn preferred_micro_batch_tokens(&self) -> usize {
        128
    }

    fn run_with_intra_op_threads(&self, threads: usize, task: &mut dyn FnMut()) {
        with_intra_op_threads(threads, task);
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer> {
        Ok(buffer_from_matrix(matrix_from_tensor(tensor)))
    }

    fn download(&self, rows: &Buffer) -> Result<Tensor> {
        if let Some(weight) = rows.as_quantized() {
            return Ok(weight.dequantize());
        }
        let rows = rows.as_matrix();
        Ok(Tensor::new([rows.rows(), rows.width()], rows.as_slice().to_vec()))
    }

    fn upload_parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>> {
        Ok(parameter_layout::pack_parameters(tensors))
    }

    fn embed(&self, tables: &[(&FrozenEmbedding, &[u32])], accumulator: Option<Buffer>) -> Result<Buffer> {
        let (first_table, ids) = tables[0];
        let (mut buf, tables) = match accumulator {
            Some(accumulator) => (backend::matrix_buf_from_buffer(accumulator), tables),
            None => {
                let mut buf = MatrixBuf::new(ids.len(), first_table.width);
                for (out, id) in buf.as_mut_slice().chunks_exact_mut(first_table.width).zip(ids) {
                    embedding_row(first_table, *id, out);
                }
                (buf, &tables[1..])
            }
        };
        for (table, ids) in tables {
            let mut embedding = vec![0.0; table.width];
            for (out, id) in buf.as_mut_slice().chunks_exact_mut(table.width).zip(*ids) {
                embedding_row(table, *id, &mut embedding);
                out.iter_mut().zip(&embedding).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    fn linear(&self, input: &Buffer, linear: &FrozenLinear) -> Result<Buffer> {
        let input = input.as_matrix();
        let init = linear
            .bias
            .as_ref()
            .map_or(AccumulatorInit::Zero, |bias| AccumulatorInit::Bias(bias.as_matrix().as_padded_slice()));
        if let Some(weight) = self.int8_weight(linear) {
            return Ok(self.int8_linear(input, weight, init));
        }
        if let Some(weight) = linear.weight.as_quantized() {
            return Ok(self.quantized_linear(input, weight, init));
        }
        let rhs = Rhs::packed(linear.weight.as_matrix().as_slice(), linear.in_features);
        Ok(self.gemm([input.rows(), linear.in_features, linear.out_features], Lhs::from_matrix(input), rhs, init))
    }

    fn linear_backward(&self, gradient: &Buffer, linear: &FrozenLinear, accumulator: Option<Buffer>) -> Result<Buffer> {
        if let Some(weight) = linear.weight.as_quantized() {
            let gradient = gradient.as_matrix();
            let (mut buf, init) = match accumulator {
                Some(accumulator) => (backend::matrix_buf_from_buffer(accumulator), AccumulatorInit::Output),
                None => (MatrixBuf::new(gradient.rows(), linear.in_features), AccumulatorInit::Zero),
            };
            weight.backward_input(self.isa, gradient.as_slice(), init, buf.as_mut_slice());
            return Ok(buffer_from_matrix_buf(buf));
        }
        let transposed = linear.transposed.get_or_init(|| {
            buffer_from_matrix(packing::transpose_packed(
                linear.weight.as_matrix(),
                linear.out_features,
                linear.in_features,
            ))
        });
        let gradient = gradient.as_matrix();
        let (lhs, rhs) =
            (Lhs::from_matrix(gradient), Rhs::packed(transposed.as_matrix().as_slice(), linear.out_features));
        Ok(self.gemm_accumulate([gradient.rows(), linear.out_features, linear.in_features], lhs, rhs, accumulator))
    }

    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer> {
        let (input, weight) = (input.as_matrix(), &weight.as_cpu().value);
        let shape = [input.rows(), input.width(), weight.width()];
        let init = AccumulatorInit::Bias(bias.as_cpu().value.as_padded_slice());
        Ok(self.gemm(shape, Lhs::from_matrix(input), Rhs::from_matrix(weight), init))
    }

    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer> {
        let (gradient, weight) = (gradient.as_matrix(), weight.as_cpu().untransposed());
        let shape = [gradient.rows(), gradient.width(), weight.width()];
        Ok(self.gemm(shape, Lhs::from_matrix(gradient), Rhs::from_matrix(weight), AccumulatorInit::Zero))
    }

    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients> {
        let (gradient, input) = (gradient.as_matrix(), input.as_matrix());
        let shape = [gradient.width(), gradient.rows(), input.width()];
        let weight =
            self.gemm(shape, Lhs::from_matrix_transposed(gradient), Rhs::from_matrix(input), AccumulatorInit::Zero);
        Ok(DenseGradients { weight, bias: self.sum_rows(&buffer_from_matrix(gradient.clone()))? })
    }

    fn add(&self, lhs: &Buffer, rhs: &Buffer) -> Result<Buffer> {
        self.zip_map::<Add>(lhs, rhs)
    }

    fn mul(&self, lhs: &Buffer, rhs: &Buffer) -> Result<Buffer> {
        self.zip_map::<Multiply>(lhs, rhs)
    }

    fn scale(&self, values: &Buffer, factor: f64) -> Result<Buffer> {
        Ok(buffer_from_matrix(self.isa.run(Scale { rows: values.as_matrix(), factor: factor as f32 })))
    }

    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<NormSaved>)> {
        let input = input.as_matrix();
        let (row_count, width) = (input.rows(), input.width());
        let mut saved_bufs = (save == SaveForBackward::Yes).then(|| NormStatistics {
            normalized: MatrixBuf::new(row_count, width),
            inv_std: MatrixBuf::new(row_count, 1),
        });
        let output = self.isa.run(norm::Norm {
            kind: norm.kind,
            input,
            residual: residual.map(Buffer::as_matrix),
            weight: norm.weight.as_matrix(),
            bias: norm.bias.as_matrix(),
            epsilon: norm.epsilon as f32,
            saved: saved_bufs.as_mut(),
        });
        let saved = saved_bufs.map(|buf| NormSaved {
            normalised: buffer_from_matrix_buf(buf.normalized),
            inverse_std: buffer_from_matrix_buf(buf.inv_std),
        });
        Ok((buffer_from_matrix(output), saved))
    }

    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer> {
        let (normalised, inverse) = (saved.normalised.as_matrix(), saved.inverse_std.as_matrix());
        let (kind, weight) = (norm.kind, norm.weight.as_matrix());
        let kernel =
            NormBackward { kind, gradient: gradient.as_matrix(), normalized: normalised, inv_std: inverse, weight };
        Ok(buffer_from_matrix(self.isa.run(kernel)))
    }

    fn activate(
        &self,
        activation: Activation,
        input: &Buffer,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<Buffer>)> {
        let input = input.as_matrix();
        let mut derivative = (save == SaveForBackward::Yes).then(|| MatrixBuf::new(input.rows(), input.width()));
        let output = match activation {
            Activation::Gelu if self.activations == ActivationQuantization::Int8 => {
                self.map_activation::<PolynomialGelu>(input, derivative.as_mut())
            }
            Activation::Gelu => self.map_activation::<Gelu>(input, derivative.as_mut()),
            Activation::GeluTanh => self.map_activation::<GeluTanh>(input, derivative.as_mut()),
            Activation::Relu => self.map_activation::<Relu>(input, derivative.as_mut()),
            Activation::Silu => self.map_activation::<Silu>(input, derivative.as_mut()),
            Activation::Tanh => activation::tanh(input, derivative.as_mut()),
        };
        Ok((buffer_from_matrix(output), derivative.map(buffer_from_matrix_buf)))
    }

    fn attention(&self, inputs: AttentionInput, save: SaveForBackward) -> Result<(Buffer, Option<AttentionSaved>)> {
        let inputs = attention_inputs(&inputs);
        let mut probabilities = (save == SaveForBackward::Yes).then(|| MatrixBuf::new(1, inputs.saved_len()));
        let output = attention::forward(self.isa, inputs, probabilities.as_mut());
        let saved = probabilities.map(|buf| AttentionSaved { probabilities: vec![buffer_from_matrix_buf(buf)] });
        Ok((buffer_from_matrix(output), saved))
    }

    fn attention_backward(
        &self,
        gradient: &Buffer,
        inputs: AttentionInput,
        saved: &AttentionSaved,
    ) -> Result<[Buffer; 3]> {
        let (inputs, saved_probabilities) = (attention_inputs(&inputs), saved.probabilities[0].as_matrix());
        let gradients = attention::backward(self.isa, inputs, gradient.as_matrix(), saved_probabilities);
        Ok(gradients.map(buffer_from_matrix))
    }

    fn pool(&self, input: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer> {
        Ok(buffer_from_matrix_buf(pooling::pool(input.as_matrix(), layout, kind)))
    }

    fn pool_backward(&self, gradient: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer> {
        Ok(buffer_from_matrix_buf(pooling::backward(gradient.as_matrix(), layout, kind)))
    }

    fn slice_rows(&self, input: &Buffer, range: Range<usize>) -> Result<Buffer> {
        Ok(buffer_from_matrix(input.as_matrix().slice_rows(range.start, range.len())))
    }

    fn reshape(&self, input: &Buffer, width: usize) -> Result<Buffer> {
        Ok(buffer_from_matrix(input.as_matrix().reshaped(width)))
    }

    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropyOutput> {
        let (losses, gradient) = self.isa.run(CrossEntropy { logits: logits.as_matrix(), labels });
        Ok(CrossEntropyOutput { losses, gradient: buffer_from_matrix(gradient) })
    }
}

fn attention_inputs<'a>(inputs: &AttentionInput<'a>) -> AttentionInputs<'a> {
    AttentionInputs {
        query: inputs.query.as_matrix(),
        key: inputs.key.as_matrix(),
        value: inputs.value.as_matrix(),
        query_layout: inputs.query_layout,
        key_layout: inputs.key_layout,
        heads: inputs.heads,
        mask_context: inputs.mask,
    }
}
