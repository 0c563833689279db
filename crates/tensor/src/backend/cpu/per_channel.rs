//! Per-channel scale and shift, row insertion and row selection: simple loops over cached rows, which the compiler
//! vectorises.

use super::backend::{CpuBackend, buffer_from_matrix, buffer_from_matrix_buf, matrix_buf_from_buffer};
use super::matrix::{Matrix, MatrixBuf};
use super::simd::LANES;
use crate::backend::{Buffer, ChannelOps, FrozenLinear, Parameter, PrependedRows};
use crate::error::Result;
use crate::{RaggedLayout, Tensor};
use std::ops::Range;

/// Updates the rows of a range with another matrix's values, in place if nothing else shares them.
fn zip_rows(
    accumulator: Buffer,
    row_range: Range<usize>,
    source_range: impl Fn(usize) -> Range<usize>,
    from: &Matrix,
    update: impl Fn(&mut f32, f32),
) -> Buffer {
    let width = accumulator.width();
    assert_eq!(from.width(), width, "both operands have one width");
    let mut buf = matrix_buf_from_buffer(accumulator);
    let rows_to_update = buf.as_mut_slice()[row_range.start * width..row_range.end * width].chunks_exact_mut(width);
    for (row, out) in rows_to_update.enumerate() {
        let src = &from.as_slice()[source_range(row)];
        out.iter_mut().zip(src).for_each(|(dst, from)| update(dst, *from));
    }
    buffer_from_matrix_buf(buf)
}

impl ChannelOps for CpuBackend {
    fn parameter_as_rows(&self, parameter: &Parameter) -> Result<Buffer> {
        let parameter = parameter.as_cpu();
        Ok(buffer_from_matrix(match parameter.value.rows() {
            1 => parameter.value.clone(),
            _ => parameter.untransposed().clone(),
        }))
    }

    fn scale_channels(&self, accumulator: Buffer, row_range: Range<usize>, factors: &Buffer) -> Result<Buffer> {
        let factors = factors.as_matrix();
        Ok(zip_rows(accumulator, row_range, |_| 0..factors.width(), factors, |to, factor| *to *= factor))
    }

    fn add_channels(&self, accumulator: Buffer, row_range: Range<usize>, offsets: &Buffer) -> Result<Buffer> {
        let offsets = offsets.as_matrix();
        Ok(zip_rows(accumulator, row_range, |_| 0..offsets.width(), offsets, |to, offset| *to += offset))
    }

    fn add_rows_scaled(
        &self,
        accumulator: Buffer,
        row_range: Range<usize>,
        addend: &Buffer,
        scale: f64,
    ) -> Result<Buffer> {
        let (addend, scale) = (addend.as_matrix(), scale as f32);
        assert_eq!(addend.rows(), row_range.len(), "the addend has the rows of the range");
        let addend_row = |row: usize| row * addend.width()..(row + 1) * addend.width();
        Ok(zip_rows(accumulator, row_range, addend_row, addend, |to, value| *to += value * scale))
    }

    fn sum_rows(&self, input: &Buffer) -> Result<Buffer> {
        let input = input.as_matrix();
        let mut sum = MatrixBuf::zeros(1, input.width());
        for row in input.as_slice().chunks_exact(input.width()) {
            sum.as_mut_slice().iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        Ok(buffer_from_matrix_buf(sum))
    }

    fn sum_row_products(&self, lhs: &Buffer, rhs: &Buffer) -> Result<Buffer> {
        let (lhs, rhs) = (lhs.as_matrix(), rhs.as_matrix());
        assert_eq!((lhs.rows(), lhs.width()), (rhs.rows(), rhs.width()), "both operands have one shape");
        let mut sum = MatrixBuf::zeros(1, lhs.width());
        for (lhs, rhs) in lhs.as_slice().chunks_exact(lhs.width()).zip(rhs.as_slice().chunks_exact(lhs.width())) {
            let pairs = lhs.iter().zip(rhs);
            sum.as_mut_slice().iter_mut().zip(pairs).for_each(|(sum, (left, right))| *sum += left * right);
        }
        Ok(buffer_from_matrix_buf(sum))
    }

    fn prepend_rows(
        &self,
        input: &Buffer,
        layout: &RaggedLayout,
        prefixes: &[PrependedRows<&Buffer>],
    ) -> Result<Buffer> {
        let input = input.as_matrix();
        let width = input.width();
        let prefix_of = |sequence: usize| prefixes.iter().find(|prefix| prefix.sequences.contains(&sequence));
        let prefix_rows: usize =
            prefixes.iter().map(|prefix| prefix.sequences.len() * prefix.rows.as_matrix().rows()).sum();
        let mut buf = MatrixBuf::new(input.rows() + prefix_rows, width);
        let mut remaining = buf.as_mut_slice();
        let mut append = |values: &[f32]| {
            let (head, tail) = std::mem::take(&mut remaining).split_at_mut(values.len());
            head.copy_from_slice(values);
            remaining = tail;
        };
        for (sequence, range) in layout.row_ranges().enumerate() {
            if let Some(prefix) = prefix_of(sequence) {
                append(prefix.rows.as_matrix().as_slice());
            }
            append(&input.as_slice()[range.start * width..range.end * width]);
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    fn prepend_rows_backward(
        &self,
        gradient: &Buffer,
        layout: &RaggedLayout,
        prefix_rows: usize,
    ) -> Result<[Buffer; 2]> {
        let gradient = gradient.as_matrix();
        let width = gradient.width();
        let (mut grad_input, mut grad_prefix) =
            (MatrixBuf::new(layout.num_rows(), width), MatrixBuf::zeros(prefix_rows, width));
        for (sequence, range) in layout.row_ranges().enumerate() {
            let start = (range.start + sequence * prefix_rows) * width;
            let (prefix_gradient, own_gradient) =
                gradient.as_slice()[start..][..(prefix_rows + range.len()) * width].split_at(prefix_rows * width);
            grad_prefix.as_mut_slice().iter_mut().zip(prefix_gradient).for_each(|(sum, value)| *sum += value);
            grad_input.as_mut_slice()[range.start * width..range.end * width].copy_from_slice(own_gradient);
        }
        Ok([buffer_from_matrix_buf(grad_input), buffer_from_matrix_buf(grad_prefix)])
    }

    fn gather_rows(&self, input: &Buffer, indices: &[u32]) -> Result<Buffer> {
        let input = input.as_matrix();
        let width = input.width();
        let mut buf = MatrixBuf::new(indices.len(), width);
        for (out, row) in buf.as_mut_slice().chunks_exact_mut(width).zip(indices) {
            out.copy_from_slice(&input.as_slice()[*row as usize * width..][..width]);
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    fn gather_rows_backward(&self, gradient: &Buffer, indices: &[u32], row_count: usize) -> Result<Buffer> {
        let gradient = gradient.as_matrix();
        let width = gradient.width();
        let mut buf = MatrixBuf::zeros(row_count, width);
        for (src, row) in gradient.as_slice().chunks_exact(width).zip(indices) {
            let sum = &mut buf.as_mut_slice()[*row as usize * width..][..width];
            sum.iter_mut().zip(src).for_each(|(sum, value)| *sum += value);
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    /// A row of a packed weight is one lane of its panel.
    fn weight_row_squared_norms(&self, linear: &FrozenLinear) -> Result<Tensor> {
        if let Some(weight) = linear.weight.as_quantized() {
            let mut row_values = vec![0.0; linear.in_features];
            let square = |row: usize| {
                weight.dequantize_row(row, &mut row_values);
                row_values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32
            };
            return Ok(Tensor::new([linear.out_features], (0..linear.out_features).map(square).collect()));
        }
        let panels = linear.weight.as_matrix().as_slice();
        let square = |row: usize| {
            let row_start = (row / LANES) * linear.in_features * LANES + row % LANES;
            let row = panels[row_start..].iter().step_by(LANES).take(linear.in_features);
            row.map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32
        };
        Ok(Tensor::new([linear.out_features], (0..linear.out_features).map(square).collect()))
    }
}
