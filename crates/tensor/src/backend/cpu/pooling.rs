//! Pooling of every sequence to one row, and its backward pass.

use super::matrix::{Matrix, MatrixBuf};
use crate::RaggedLayout;
use crate::backend::PoolingKind;
use std::ops::Range;

/// `(rows, width)` → `(sequences, width)`
pub fn pool(input: &Matrix, layout: &RaggedLayout, pool: PoolingKind) -> MatrixBuf {
    let width = input.width();
    let mut buf = MatrixBuf::new(layout.num_sequences(), width);
    for (sequence, out) in buf.as_mut_slice().chunks_exact_mut(width).enumerate() {
        let rows = pooled_rows(layout, sequence, pool);
        out.copy_from_slice(input.row(rows.start));
        if pool == PoolingKind::Mean {
            for row in rows.clone().skip(1) {
                out.iter_mut().zip(input.row(row)).for_each(|(sum, value)| *sum += value);
            }
            let length = rows.len() as f32;
            out.iter_mut().for_each(|value| *value /= length);
        }
    }
    buf
}

/// `(sequences, width)` → `(rows, width)`
pub fn backward(gradient: &Matrix, layout: &RaggedLayout, kind: PoolingKind) -> MatrixBuf {
    let width = gradient.width();
    let mut buf = MatrixBuf::zeros(layout.num_rows(), width);
    for sequence in 0..layout.num_sequences() {
        let rows = pooled_rows(layout, sequence, kind);
        let factor = 1.0 / rows.len() as f32;
        for out in buf.as_mut_slice()[rows.start * width..rows.end * width].chunks_exact_mut(width) {
            out.iter_mut().zip(gradient.row(sequence)).for_each(|(dst, src)| *dst = src * factor);
        }
    }
    buf
}

/// Rows that are averaged.
fn pooled_rows(layout: &RaggedLayout, sequence: usize, kind: PoolingKind) -> Range<usize> {
    match kind {
        PoolingKind::Mean => layout.real_rows(sequence),
        PoolingKind::First => layout.row_range(sequence).start..layout.row_range(sequence).start + 1,
        PoolingKind::Last => layout.row_range(sequence).end - 1..layout.row_range(sequence).end,
    }
}
