//! Rotary embeddings, channel slices and gated linear units: simple loops over cached rows, which the compiler
//! vectorises.

use super::backend::{CpuBackend, buffer_from_matrix_buf, matrix_buf_from_buffer};
use super::matrix::MatrixBuf;
use crate::backend::{Activation, Backend, Buffer, Direction, GluOps, RotaryOps, RotaryTable, SaveForBackward};
use crate::error::Result;
use std::ops::Range;

impl RotaryOps for CpuBackend {
    fn apply_rotary(
        &self,
        rows: Buffer,
        heads: usize,
        rotation: &RotaryTable,
        positions: &[u32],
        direction: Direction,
    ) -> Result<Buffer> {
        let (row_count, width) = (rows.rows(), rows.width());
        assert_eq!(row_count, positions.len(), "there is one position per row");
        let (head_width, half_width) = (width / heads, width / heads / 2);
        let sign = if direction == Direction::Inverse { -1.0 } else { 1.0 };
        let mut buf = matrix_buf_from_buffer(rows);
        for (row, position) in buf.as_mut_slice().chunks_exact_mut(width).zip(positions) {
            let [cos_row, sin_row] =
                [&rotation.cosines, &rotation.sines].map(|table| table.as_matrix().row(*position as usize));
            for head_values in row.chunks_exact_mut(head_width) {
                let (first_half, second_half) = head_values.split_at_mut(half_width);
                let angles = cos_row.iter().zip(sin_row);
                for ((x, y), (cosine, sine)) in first_half.iter_mut().zip(second_half).zip(angles) {
                    let sine = sine * sign;
                    (*x, *y) = (*x * cosine - *y * sine, *y * cosine + *x * sine);
                }
            }
        }
        Ok(buffer_from_matrix_buf(buf))
    }
}

impl GluOps for CpuBackend {
    fn glu(&self, activation: Activation, input: &Buffer, save: SaveForBackward) -> Result<(Buffer, Option<Buffer>)> {
        let width = input.width() / 2;
        let [activated_input, gate] = [0..width, width..2 * width].map(|columns| self.slice_channels(input, columns));
        let gate = gate?;
        let (value, derivative) = self.activate(activation, &activated_input?, save)?;
        let output = self.mul(&value, &gate)?;
        let factors = derivative.map(|derivative| {
            let grad_activated = self.mul(&derivative, &gate)?;
            let mut buf = MatrixBuf::new(input.rows(), 2 * width);
            let halves = grad_activated
                .as_matrix()
                .as_slice()
                .chunks_exact(width)
                .zip(value.as_matrix().as_slice().chunks_exact(width));
            for (dst, (by_a, grad_gate)) in buf.as_mut_slice().chunks_exact_mut(2 * width).zip(halves) {
                dst[..width].copy_from_slice(by_a);
                dst[width..].copy_from_slice(grad_gate);
            }
            Ok::<_, crate::error::Error>(buffer_from_matrix_buf(buf))
        });
        Ok((output, factors.transpose()?))
    }

    fn glu_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer> {
        let (gradient, factors) = (gradient.as_matrix(), factors.as_matrix());
        let width = gradient.width();
        let mut buf = MatrixBuf::new(factors.rows(), factors.width());
        let rows = factors.as_slice().chunks_exact(2 * width).zip(gradient.as_slice().chunks_exact(width));
        for (dst, (factors, gradient)) in buf.as_mut_slice().chunks_exact_mut(2 * width).zip(rows) {
            for (dst, factors) in dst.chunks_exact_mut(width).zip(factors.chunks_exact(width)) {
                let products = factors.iter().zip(gradient).map(|(factor, gradient)| factor * gradient);
                dst.iter_mut().zip(products).for_each(|(to, product)| *to = product);
            }
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    fn slice_channels(&self, rows: &Buffer, columns: Range<usize>) -> Result<Buffer> {
        let rows = rows.as_matrix();
        let mut buf = MatrixBuf::new(rows.rows(), columns.len());
        let src = rows.as_slice().chunks_exact(rows.width());
        for (dst, src) in buf.as_mut_slice().chunks_exact_mut(columns.len()).zip(src) {
            dst.copy_from_slice(&src[columns.clone()]);
        }
        Ok(buffer_from_matrix_buf(buf))
    }

    fn scatter_channels(&self, rows: &Buffer, columns: Range<usize>, width: usize) -> Result<Buffer> {
        let rows = rows.as_matrix();
        let mut buf = MatrixBuf::zeros(rows.rows(), width);
        let src = rows.as_slice().chunks_exact(columns.len());
        for (dst, src) in buf.as_mut_slice().chunks_exact_mut(width).zip(src) {
            dst[columns.clone()].copy_from_slice(src);
        }
        Ok(buffer_from_matrix_buf(buf))
    }
}
