//! Weights in panels of sixteen columns, as products read them.

use super::lanes::LANES;
use super::memory::{Draft, Matrix};

/// For `x·Wᵀ`: W's rows `(rows, depth)` become columns, sixteen to a panel; 0 in the lanes that are left over.
pub fn of_rows(weight: &[f32], rows: usize, depth: usize) -> Matrix {
    let mut draft = Draft::lasting(rows.div_ceil(LANES), depth * LANES);
    fill(draft.values(), depth, weight.chunks_exact(depth));
    draft.done()
}

/// The same for any rows of `depth` numbers, into as many panels as they need.
pub fn fill<'a>(panels: &mut [f32], depth: usize, rows: impl Iterator<Item = &'a [f32]>) {
    // The lanes that no row will fill are in the last panel.
    if let Some(last) = panels.rchunks_exact_mut(depth * LANES).next() {
        last.fill(0.0);
    }
    for (index, row) in rows.enumerate() {
        let first = (index / LANES) * depth * LANES + index % LANES;
        panels[first..].iter_mut().step_by(LANES).zip(row).for_each(|(to, from)| *to = *from);
    }
}

/// For `dY·W`, from the panels for `x·Wᵀ` with W `(output, input)`.
pub fn transposed(panels: &Matrix, output: usize, input: usize) -> Matrix {
    let mut draft = Draft::lasting(input.div_ceil(LANES), output * LANES);
    let from = panels.values();
    for (panel, out) in draft.values().chunks_exact_mut(output * LANES).enumerate() {
        for (row, lanes) in out.chunks_exact_mut(LANES).enumerate() {
            let start = (row / LANES) * input * LANES + row % LANES;
            for (lane, column) in lanes.iter_mut().zip(panel * LANES..input) {
                *lane = from[start + column * LANES];
            }
        }
    }
    draft.done()
}

/// The transpose of a row-major matrix of `width` columns.
pub fn turn(values: &[f32], width: usize, out: &mut [f32]) {
    let rows = values.len() / width.max(1);
    for (row, values) in values.chunks_exact(width).enumerate() {
        out[row..].iter_mut().step_by(rows).zip(values).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn panels_hold_every_weight_where_a_product_looks_for_it() {
        for (rows, depth) in [(1, 1), (16, 3), (17, 5), (40, 33)] {
            let mut random = Random::new(1, &["panels"]);
            let weight: Vec<f32> = (0..rows * depth).map(|_| random.normal()).collect();
            let panels = of_rows(&weight, rows, depth);
            let turned = transposed(&panels, rows, depth);
            for row in 0..rows {
                for column in 0..depth {
                    let expected = weight[row * depth + column];
                    assert_eq!(panels.row(row / LANES)[column * LANES + row % LANES], expected);
                    assert_eq!(turned.row(column / LANES)[row * LANES + column % LANES], expected);
                }
            }
        }
    }
}
