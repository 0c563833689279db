//! One row per sequence, and back.

use super::memory::{Draft, Matrix};
use crate::Packed;
use crate::kernels::Pool;
use std::ops::Range;

/// `(rows, width)` → `(sequences, width)`
pub fn pool(input: &Matrix, layout: &Packed, pool: Pool) -> Draft {
    let width = input.width();
    let mut draft = Draft::new(layout.sequences(), width);
    for (sequence, out) in draft.values().chunks_exact_mut(width).enumerate() {
        let range = pooled(layout, sequence, pool);
        out.copy_from_slice(input.row(range.start));
        if pool == Pool::Mean {
            for row in range.clone().skip(1) {
                out.iter_mut().zip(input.row(row)).for_each(|(sum, value)| *sum += value);
            }
            let length = range.len() as f32;
            out.iter_mut().for_each(|value| *value /= length);
        }
    }
    draft
}

/// `(sequences, width)` → `(rows, width)`
pub fn backward(gradient: &Matrix, layout: &Packed, pool: Pool) -> Draft {
    let width = gradient.width();
    let mut draft = Draft::zeros(layout.rows(), width);
    for sequence in 0..layout.sequences() {
        let rows = pooled(layout, sequence, pool);
        let factor = 1.0 / rows.len() as f32;
        for out in draft.values()[rows.start * width..rows.end * width].chunks_exact_mut(width) {
            out.iter_mut().zip(gradient.row(sequence)).for_each(|(to, from)| *to = from * factor);
        }
    }
    draft
}

/// The rows that become one.
fn pooled(layout: &Packed, sequence: usize, pool: Pool) -> Range<usize> {
    match pool {
        Pool::Mean => layout.real(sequence),
        Pool::First => layout.range(sequence).start..layout.range(sequence).start + 1,
        Pool::Last => layout.range(sequence).end - 1..layout.range(sequence).end,
    }
}
