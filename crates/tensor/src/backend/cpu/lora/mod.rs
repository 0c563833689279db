//! Low-rank updates, forward and backward.
//!
//! With [`LoraPrecision::Int8`] A and B are int8 ([`int8_matrix`]). A row's result does not depend on the other rows of
//! the batch.

mod gemv;
pub mod int8_matrix;

use super::backend::{CpuBackend, buffer_from_matrix_buf, matrix_buf_from_buffer};
use super::gemm::{AccumulatorInit, Lhs, Rhs};
use super::matrix::MatrixBuf;
use super::packing;
use super::simd::SimdElement;
use crate::LoraPrecision;
use crate::backend::{Backend, Buffer, ChannelOps, LoraArgs, LoraGradients, LoraOps, Parameter};
use crate::error::Result;
use gemv::{BatchedLoraGemv, LoraGemv};
use int8_matrix::{Int8Matrix, RankAxis};
use std::ops::Range;

impl LoraOps for CpuBackend {
    fn lora_add(&self, accumulator: Buffer, row_range: Range<usize>, update: LoraArgs) -> Result<(Buffer, Buffer)> {
        let LoraArgs { input, a, b, scale } = update;
        let (input, rank, output) = (input.as_matrix(), a.as_cpu().value.width(), b.as_cpu().value.width());
        let (down_shape, up_shape) = ([input.rows(), input.width(), rank], [input.rows(), rank, output]);
        if self.quantizes_lora() {
            let [a, b] = int8_pair(a, b);
            let [dequantized_a, dequantized_b] = [a, b].map(|side| side.dequantize_unscaled(self.isa));
            let projected = self.gemm(
                down_shape,
                Lhs::from_matrix(input),
                Rhs::packed(dequantized_a.as_slice(), input.width()),
                AccumulatorInit::Zero,
            );
            let mut rank_scales = MatrixBuf::new(1, rank);
            for (index, factor) in rank_scales.as_mut_slice().iter_mut().enumerate() {
                *factor = gemv::rank_scale(scale as f32, Some([a.rank_scales(), b.rank_scales()]), index);
            }
            let projected = self.scale_channels(projected, 0..input.rows(), &buffer_from_matrix_buf(rank_scales))?;
            let rhs = Rhs::packed(dequantized_b.as_slice(), rank);
            return Ok((
                self.gemm_accumulate_rows(
                    up_shape,
                    Lhs::from_matrix(projected.as_matrix()),
                    rhs,
                    accumulator,
                    row_range,
                ),
                projected,
            ));
        }
        let [a, b] = [a, b].map(forward_rhs);
        let projected = self.gemm(down_shape, Lhs::from_matrix(input), a, AccumulatorInit::Zero);
        let projected = self.scale(&projected, scale)?;
        Ok((
            self.gemm_accumulate_rows(up_shape, Lhs::from_matrix(projected.as_matrix()), b, accumulator, row_range),
            projected,
        ))
    }

    fn lora_add_batched(&self, mut accumulator: Buffer, updates: &[(Range<usize>, LoraArgs)]) -> Result<Buffer> {
        for (range, update) in updates.iter().filter(|(range, _)| range.len() > 1) {
            accumulator = self.lora_add(accumulator, range.clone(), *update)?.0;
        }
        Ok(match self.quantizes_lora() {
            true => self.lora_add_single_rows(accumulator, updates, |update| {
                let [a, b] = int8_pair(update.a, update.b);
                ([a.as_rhs(), b.as_rhs()], Some([a.rank_scales(), b.rank_scales()]))
            }),
            false => {
                self.lora_add_single_rows(accumulator, updates, |update| ([update.a, update.b].map(forward_rhs), None))
            }
        })
    }

    fn prepack_lora(&self, a: &Parameter, b: &Parameter) -> u64 {
        match self.quantizes_lora() {
            true => int8_pair(a, b).iter().map(|side| side.size_bytes()).sum(),
            false => 0,
        }
    }

    fn lora_backward_projected(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer> {
        let (gradient, b) = (gradient.as_matrix(), b.as_cpu().untransposed());
        let shape = [gradient.rows(), b.rows(), b.width()];
        let grad_projected = self.gemm(shape, Lhs::from_matrix(gradient), Rhs::from_matrix(b), AccumulatorInit::Zero);
        self.scale(&grad_projected, scale)
    }

    fn lora_backward_input(
        &self,
        grad_projected: &Buffer,
        a: &Parameter,
        accumulator: Option<Buffer>,
    ) -> Result<Buffer> {
        let (grad_projected, a) = (grad_projected.as_matrix(), a.as_cpu().untransposed());
        Ok(self.gemm_accumulate(
            [grad_projected.rows(), a.rows(), a.width()],
            Lhs::from_matrix(grad_projected),
            Rhs::from_matrix(a),
            accumulator,
        ))
    }

    fn lora_backward_parameters(
        &self,
        gradient: &Buffer,
        grad_projected: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LoraGradients> {
        let [gradient, inner, input, projected] = [gradient, grad_projected, input, projected].map(Buffer::as_matrix);
        let (row_count, rank) = (gradient.rows(), inner.width());
        let a = self.gemm(
            [rank, row_count, input.width()],
            Lhs::from_matrix_transposed(inner),
            Rhs::from_matrix(input),
            AccumulatorInit::Zero,
        );
        // Computes Bᵀ, whose long rows fill whole vectors, and transposes it.
        let shape = [rank, row_count, gradient.width()];
        let b_transposed =
            self.gemm(shape, Lhs::from_matrix_transposed(projected), Rhs::from_matrix(gradient), AccumulatorInit::Zero);
        let mut b = MatrixBuf::new(gradient.width(), rank);
        packing::transpose(b_transposed.as_matrix().as_slice(), gradient.width(), b.as_mut_slice());
        Ok(LoraGradients { a, b: buffer_from_matrix_buf(b) })
    }
}

/// A parameter as the right-hand side of a forward product.
fn forward_rhs(parameter: &Parameter) -> Rhs<'_> {
    Rhs::from_matrix(&parameter.as_cpu().value)
}

fn int8_pair<'a>(a: &'a Parameter, b: &'a Parameter) -> [&'a Int8Matrix; 2] {
    [(a, RankAxis::Columns), (b, RankAxis::Rows)].map(|(parameter, rank_axis)| parameter.as_cpu().int8(rank_axis))
}

impl CpuBackend {
    /// Whether A and B are read in int8.
    fn quantizes_lora(&self) -> bool {
        self.lora == LoraPrecision::Int8
    }

    /// Adds the updates that have a single row. `load_pair` returns A, B and their rank scales.
    fn lora_add_single_rows<'a, N: SimdElement + 'a>(
        &self,
        accumulator: Buffer,
        updates: &'a [(Range<usize>, LoraArgs<'a>)],
        load_pair: impl Fn(&'a LoraArgs<'a>) -> ([Rhs<'a, N>; 2], Option<[&'a [f32]; 2]>),
    ) -> Buffer {
        let single_row_updates = updates.iter().filter(|(range, _)| range.len() == 1);
        let to_gemv = |(range, update): &'a (Range<usize>, LoraArgs<'a>)| {
            let ([a, b], scales) = load_pair(update);
            let (input, rank) = (update.input.as_matrix().as_slice(), update.a.as_cpu().value.width());
            LoraGemv { row: range.start, input, rank, a, b, scale: update.scale as f32, rank_scales: scales }
        };
        let mut updates: Vec<_> = single_row_updates.map(to_gemv).collect();
        if updates.is_empty() {
            return accumulator;
        }
        updates.sort_by_key(|update| update.rank);
        let mut buf = matrix_buf_from_buffer(accumulator);
        let width = buf.width();
        self.isa.run(BatchedLoraGemv { updates: &updates, width, out: buf.as_mut_slice() });
        buffer_from_matrix_buf(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::backend::cpu::simd::Isa;
    use crate::seeded_rng::SeededRng;

    fn tensor(random: &mut SeededRng, shape: [usize; 2]) -> Tensor {
        Tensor::new(shape, (0..shape[0] * shape[1]).map(|_| random.standard_normal()).collect())
    }

    /// Compares a row's update alone, batched with other adapters' rows, and with several rows of one adapter.
    #[test]
    fn a_row_has_the_same_bits_alone_batched_and_among_rows() {
        let (input, output) = (37, 150);
        for (isa, lora) in Isa::available()
            .into_iter()
            .flat_map(|isa| [LoraPrecision::F32, LoraPrecision::Int8].map(|lora| (isa, lora)))
        {
            let cpu = CpuBackend { lora, ..CpuBackend::with_isa(isa) };
            for ranks in [&[16][..], &[1, 5], &[8, 8, 17], &[16, 4, 16, 4, 33, 16, 16], &[16; 13]] {
                let mut random = SeededRng::new(7, &["ranks", &ranks.len().to_string()]);
                let (x, start) =
                    (tensor(&mut random, [ranks.len(), input]), tensor(&mut random, [ranks.len(), output]));
                let (x, start) = (cpu.upload(&x).unwrap(), cpu.upload(&start).unwrap());
                let pair = |rank: &usize| {
                    let sides = [[*rank, input], [output, *rank]].map(|shape| tensor(&mut random, shape));
                    cpu.upload_parameters(&sides).unwrap()
                };
                let pairs: Vec<_> = ranks.iter().map(pair).collect();
                let rows: Vec<_> = (0..ranks.len()).map(|row| cpu.slice_rows(&x, row..row + 1).unwrap()).collect();
                let update = |row: usize| {
                    let [a, b] = [&pairs[row][0], &pairs[row][1]];
                    (row..row + 1, LoraArgs { input: &rows[row], a, b, scale: 0.7 })
                };
                let updates: Vec<_> = (0..ranks.len()).map(update).collect();
                let batched = cpu.lora_add_batched(start.clone(), &updates).unwrap();
                for (row, (range, update)) in updates.iter().enumerate() {
                    let alone = cpu.lora_add_batched(start.clone(), &[(range.clone(), *update)]).unwrap();
                    assert_eq!(alone.as_matrix().row(row), batched.as_matrix().row(row));
                    let update_of_all_rows = LoraArgs { input: &x, ..*update };
                    let (among_rows, _) = cpu.lora_add(start.clone(), 0..ranks.len(), update_of_all_rows).unwrap();
                    assert_eq!(among_rows.as_matrix().row(row), batched.as_matrix().row(row), "{ranks:?}, row {row}");
                }
            }
        }
    }

    #[test]
    fn an_int8_update_is_close_to_the_f32_update() {
        let mut random = SeededRng::new(8, &["bytes"]);
        let [a, b] = [[16, 200], [90, 16]].map(|shape| tensor(&mut random, shape));
        let x = tensor(&mut random, [3, 200]);
        let run_with = |lora| {
            let cpu = CpuBackend { lora, ..CpuBackend::detect() };
            let pair = cpu.upload_parameters(&[a.clone(), b.clone()]).unwrap();
            let (x, start) = (cpu.upload(&x).unwrap(), buffer_from_matrix_buf(MatrixBuf::zeros(3, 90)));
            let update = LoraArgs { input: &x, a: &pair[0], b: &pair[1], scale: 1.0 };
            cpu.lora_add(start, 0..3, update).unwrap().0.as_matrix().as_slice().to_vec()
        };
        let (exact, approximate) = (run_with(LoraPrecision::F32), run_with(LoraPrecision::Int8));
        let length = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
        let error = length(&mut exact.iter().zip(&approximate).map(|(one, other)| one - other));
        let relative = error / length(&mut exact.iter().copied());
        assert!(relative > 0.0 && relative < 0.01, "{relative}");
    }
}
